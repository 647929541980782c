"""What a producer keeps of a closed stream for a later call, and what it skips."""

import os

from rayfeed.producer.maker import Maker
from rayfeed.producer.messages import Ended, Made, Raised, SourceRecord, Ticket
from rayfeed.source.shipping import take_apart
from rayfeed.source.stream import describe
from tests.sources import Numbered, batch

A, B = b"digest of a", b"digest of b"


class Producer:
    """A maker, and how often each source was unpickled in it."""

    def __init__(self):
        self.maker = Maker(0, "here")
        self.loads = []

    def make(self, stream, source, digest=None, *, call=(), version=0, indices=(0,), directory="/nowhere"):
        info = describe(source, name="generator")
        record = SourceRecord(info, "generator", 1, False, False, 1, directory, digest, frozenset(call))

        def state():
            self.loads.append(digest)
            return take_apart(source, name="generator").copied()

        return self.maker.make(Ticket(0, stream, 0, 0, indices, version=version), record, state)


def test_a_closed_sequence_serves_the_next_stream_of_its_digest():
    producer = Producer()
    for stream in range(3):
        assert isinstance(producer.make(stream, Numbered(3), A, call={A}), Made)
        producer.maker.close_stream(stream)
    assert producer.loads == [A]


def test_it_still_runs_in_the_directory_of_the_present_call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    producer = Producer()
    producer.make(0, Numbered(3), A, call={A})
    producer.maker.close_stream(0)
    producer.make(1, Numbered(3), A, call={A}, directory=str(tmp_path / "other"))
    assert os.getcwd() == str(tmp_path / "other")  # noqa: PTH109 - what a chdir changes


def test_two_open_streams_of_one_digest_have_an_object_each():
    producer = Producer()
    for stream in range(2):
        producer.make(stream, Numbered(3), A, call={A})
    assert producer.loads == [A, A]


def test_what_another_call_has_no_use_for_is_let_go_before_its_source_is_loaded():
    producer = Producer()
    for stream, digest in enumerate((A, B)):
        producer.make(stream, Numbered(3), digest, call={A, B})
        producer.maker.close_stream(stream)
    producer.make(2, Numbered(4), b"another", call={b"another", B})
    assert set(producer.maker._kept) == {B}
    producer.make(3, Numbered(3), B, call={b"another", B})
    assert producer.loads == [A, B, b"another"]


def test_a_sequence_that_changed_raised_or_has_no_digest_is_not_kept():
    class Raises(Numbered):
        def __getitem__(self, index):
            raise KeyError(index)

    producer = Producer()
    producer.make(0, Numbered(3), A, version=1)
    assert isinstance(producer.make(1, Raises(3), A), Raised)
    producer.make(2, Numbered(3))
    producer.make(3, lambda: iter([batch(0)]))
    for stream in range(4):
        producer.maker.close_stream(stream)
    assert producer.maker._kept == {}


def test_a_new_version_is_never_taken_from_what_was_kept():
    producer = Producer()
    producer.make(0, Numbered(3), A, call={A})
    producer.maker.close_stream(0)
    producer.make(1, Numbered(3), A, call={A}, version=1)
    assert producer.loads == [A, A]


class Dropped(Numbered):
    """Its stream is dropped while a batch is made. Pickled by reference: the maker stays in this process."""

    makers = []  # noqa: RUF012 - the test's
    made = []  # noqa: RUF012 - as above

    def __getitem__(self, index):
        self.made.append(index)
        self.makers[0].drop_stream(0)
        return batch(index)


def test_of_a_dropped_stream_the_batch_being_made_is_the_last():
    producer = Producer()
    Dropped.makers[:], Dropped.made[:] = [producer.maker], []
    answer = producer.make(0, Dropped(3), indices=(0, 1, 2))
    assert isinstance(answer, Ended)
    assert answer.run.num_batches == 1
    assert producer.make(0, Dropped(3)).run.num_batches == 0
    assert Dropped.made == [0]
    Dropped.makers.clear()
