"""The producer's work, without Ray: tickets in, frames of batches out."""

import gc
import random
import threading
from pathlib import Path

import numpy as np
import pytest

import rayfeed
from rayfeed.errors import BatchError, RemoteTraceback
from rayfeed.frame import decode, encode
from rayfeed.producer import maker as maker_module
from rayfeed.producer.loading import NotFetchedError
from rayfeed.producer.maker import Maker, keep_as_made
from rayfeed.producer.messages import At, Ended, Made, NotFetched, Raised, SourceRecord, Ticket
from rayfeed.source.seeding import worker_seed
from rayfeed.source.shipping import take_apart
from rayfeed.source.stream import describe

PLACE = "node 10.0.4.17, pid 8812"
X, Y = np.arange(6.0).reshape(3, 2), np.arange(3)


class Stream:
    """One stream of one maker, as the conductor would drive it; the source travels as it does to an actor."""

    def __init__(self, source, *, maker=None, number=0, name="generator", root=5, **options):
        self.maker = maker or Maker(2, PLACE)
        self.number = number
        self.info = describe(source, name=name)
        settings = {"seeded": False, "bare_inputs": False, "num_lanes": 1, "directory": str(Path.cwd())} | options
        self.record = SourceRecord(self.info, name, root, **settings)
        self.versions = [take_apart(source, name=name).copied()]
        self.loads = []
        self.place = self.num_tickets = 0

    def state(self, version):
        def load():
            self.loads.append(version)
            return self.versions[version]

        return load

    def make(self, *indices, pass_index=0, version=0, lane=0):
        """Make these batches of a Sequence, or so many of a generator."""
        if not self.info.is_sequence:
            indices = tuple(range(self.place, self.place + indices[0]))
        ticket = Ticket(self.num_tickets, self.number, pass_index, indices[0], indices, lane=lane, version=version)
        self.place += len(indices)
        self.num_tickets += 1
        return self.ask(ticket)

    def ask(self, ticket):
        return self.maker.make(ticket, self.record, self.state(ticket.version))


def batches(answer):
    """The answer's batches, without the structure: lists of arrays."""
    if answer.run.frame is None:
        assert answer.run.num_batches == 0
        return []
    reader = decode(answer.run.frame)
    assert reader.num_batches == answer.run.num_batches
    return [reader.arrays(index) for index in range(reader.num_batches)]


def firsts(answer):
    """The first number of each batch's first array."""
    return [arrays[0].ravel()[0].item() for arrays in batches(answer)]


def failure(answer, error_type):
    assert isinstance(answer, Raised)
    error = answer.failure.error()
    assert type(error) is error_type
    assert isinstance(error.__cause__, RemoteTraceback)
    return error


class Numbers:
    def __init__(self, factor=1):
        self.factor = factor

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return np.full((2, 3), self.factor * index), np.array([index, index])


def numbers(stop=4):
    for number in range(stop):
        yield np.full((2, 3), number), np.array([number, number])


def test_a_ticket_is_answered_with_its_batches_in_its_order():
    answer = Stream(Numbers()).make(7, 0, 3)
    assert type(answer) is Made
    assert firsts(answer) == [7, 0, 3]
    assert [arrays[1].tolist() for arrays in batches(answer)] == [[7, 7], [0, 0], [3, 3]]


def test_batches_keep_their_structure():
    class Named(Numbers):
        def __getitem__(self, index):
            return [{"b": X, "a": (X > 2)}, None]

    answer = Stream(Named()).make(0)
    batch = decode(answer.run.frame).batch(0)
    assert type(batch) is list
    assert list(batch[0]) == ["b", "a"]
    assert batch[0]["a"].dtype == bool
    assert batch[1] is None


def test_a_generators_tickets_go_on_where_the_last_one_stopped():
    stream = Stream(numbers())
    assert firsts(stream.make(1)) == [0]
    assert firsts(stream.make(2)) == [1, 2]


def test_a_generator_that_ends_within_a_ticket_gives_what_it_made_and_its_end():
    stream = Stream(numbers(3))
    stream.make(2)
    answer = stream.make(4)
    assert type(answer) is Ended
    assert firsts(answer) == [2]
    again = stream.make(4)
    assert type(again) is Ended
    assert batches(again) == []
    assert again.run.frame is None


def test_the_time_in_the_source_and_in_encoding_is_told():
    run = Stream(Numbers()).make(0, 1).run
    assert 0 < run.produce_s < 5
    assert 0 < run.encode_s < 5


# Errors


def test_an_exception_in_the_middle_delivers_the_batches_before_it_and_says_where():
    class Breaks(Numbers):
        def __getitem__(self, index):
            if index == 5:
                raise KeyError("label of row 5")
            return super().__getitem__(index)

    answer = Stream(Breaks(), name="validation_data").make(1, 4, 5, 6, pass_index=3)
    assert firsts(answer) == [1, 4]
    error = failure(answer, KeyError)
    assert error.args == ("label of row 5",)
    assert error.__notes__ == [f"rayfeed: raised in producer 2 ({PLACE}), validation_data: batch 5 of pass 3"]
    assert "in __getitem__" in str(error.__cause__)


def test_a_generators_exception_says_its_place_in_the_stream_and_then_it_has_ended():
    def breaks():
        yield from numbers(2)
        raise ValueError("no third file")

    stream = Stream(breaks)
    answer = stream.make(5)
    assert firsts(answer) == [0, 1]
    assert failure(answer, ValueError).__notes__ == [f"rayfeed: raised in producer 2 ({PLACE}), generator: batch 2"]
    assert type(stream.make(1)) is Ended


def test_a_source_that_cannot_be_opened_says_so():
    def opens():
        raise FileNotFoundError(2, "No such file", "data.csv")

    error = failure(Stream(opens).make(1), FileNotFoundError)
    assert error.filename == "data.csv"
    assert error.__notes__ == [f"rayfeed: raised in producer 2 ({PLACE}), opening generator"]


@pytest.mark.parametrize("raised", [StopIteration, SystemExit, KeyboardInterrupt])
def test_what_would_end_the_process_or_the_stream_in_silence_is_a_failure(raised):
    class Leaves(Numbers):
        def __getitem__(self, index):
            raise raised(3)

    assert str(failure(Stream(Leaves()).make(0), RuntimeError)).startswith(f"the source raised {raised.__name__}(3)")


class Second(Numbers):
    """Its second batch is what the test says."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def __getitem__(self, index):
        return (X, Y) if index == 0 else self.batch


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("batch", "text"),
    [
        (5, "found int 5."),
        ((X, Y[:2]), "the arrays of one batch differ in length: inputs: 3, targets: 2."),
        ((X, np.array(["a", None, 1], object)), "targets has dtype dtype('O') (shape (3,))"),
        ((X, np.zeros(3, {"names": ["a"], "formats": ["i4"], "titles": [7]})), "targets: "),
        ("a" * 200, "found str '" + "a" * 96 + "..."),
    ],
    ids=["no batch", "lengths", "objects", "dtype", "long"],
)
def test_what_is_no_batch_is_refused_with_worker_pass_and_index(batch, text, first):
    stream = Stream(Second(batch))
    answer = stream.make(*([1] if first else [0, 1]), pass_index=4)
    assert len(batches(answer)) == (0 if first else 1)
    message = str(failure(answer, BatchError))
    assert message.startswith(f"producer 2 ({PLACE}), generator: batch 1 of pass 4: ")
    assert text in message


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        ((X.astype("f4"), Y), "inputs"),
        ((X, Y, Y), "a tuple (inputs, targets, sample_weight)"),
        (([X], Y), "inputs"),
        (({"a": X}, Y), "inputs"),
        ([X, Y], "a list (inputs, targets)"),
        ((X, None), "targets"),
    ],
    ids=["dtype", "weights", "list", "dict", "kind", "no targets"],
)
def test_a_batch_that_differs_from_the_streams_first_is_refused_with_worker_pass_and_index(batch, text):
    stream = Stream(Second(batch))
    assert type(stream.make(0)) is Made
    message = str(failure(stream.make(1, pass_index=1), BatchError))
    assert message.startswith(f"producer 2 ({PLACE}), generator: batch 1 of pass 1: ")
    assert text in message.splitlines()[0]
    assert "Every batch of one source has the same structure and dtypes" in message


def test_batches_may_differ_in_length_and_inner_shape():
    stream = Stream(Second((np.zeros((1, 7)), np.arange(1))))
    assert [arrays[0].shape for arrays in batches(stream.make(0, 1))] == [(3, 2), (1, 7)]


def test_bare_inputs_are_a_batch_where_they_are_allowed():
    class Bare(Numbers):
        def __getitem__(self, index):
            return X

    assert batches(Stream(Bare(), bare_inputs=True).make(0))[0][0].tolist() == X.tolist()
    failure(Stream(Bare()).make(0), BatchError)


# Versions and streams


def test_a_new_version_of_a_sequence_is_loaded_once():
    stream = Stream(Numbers())
    stream.versions.append(take_apart(Numbers(factor=100), name="generator"))
    assert firsts(stream.make(1)) == [1]
    assert firsts(stream.make(2)) == [2]
    assert firsts(stream.make(1, pass_index=1, version=1)) == [100]
    assert firsts(stream.make(2, pass_index=1, version=1)) == [200]
    assert stream.loads == [0, 1]


def test_a_new_version_keeps_to_the_streams_structure():
    stream = Stream(Numbers())
    stream.versions.append(take_apart(Second((X, Y)), name="generator"))
    stream.make(0)
    assert "inputs" in str(failure(stream.make(0, version=1), BatchError))


def test_a_generator_is_opened_once_whatever_the_version():
    stream = Stream(numbers())
    stream.make(1)
    assert firsts(stream.make(1, version=1)) == [1]
    assert stream.loads == [0]


class Counted(Numbers):
    """Knows whether the garbage collector ran while it was loaded, and while its first batch was made."""

    def __setstate__(self, state):
        self.__dict__ = state | {"loaded_with": gc.isenabled()}

    def __getitem__(self, index):
        return np.array([[self.loaded_with, gc.isenabled()]]), np.zeros(1)


def test_the_garbage_collector_rests_while_a_source_is_loaded_and_no_longer():
    (arrays,) = batches(Stream(Counted()).make(0))
    assert arrays[0].tolist() == [[False, True]]


def test_streams_of_one_producer_do_not_touch_each_other():
    maker = Maker(0, PLACE)
    one, other = Stream(numbers(9), maker=maker), Stream(numbers(9), maker=maker, number=1)
    one.make(3)
    assert firsts(other.make(1)) == [0]
    assert firsts(one.make(1)) == [3]


CLOSED = []


def careful():
    try:
        yield from numbers()
    finally:
        CLOSED.append(True)


def test_closing_a_stream_runs_its_generators_finally_blocks_and_nothing_opens_it_again():
    maker = Maker(0, PLACE)
    CLOSED.clear()
    stream = Stream(careful, maker=maker)
    stream.make(1)
    opened = maker._opened[0]  # kept, so that it is not the end of the object that ends the generator
    maker.close_stream(0)
    assert CLOSED == [True]
    assert opened.source.iterator.gi_frame is None
    assert type(stream.make(1)) is Ended
    assert stream.loads == [0]
    maker.close_stream(0)


# What user code sees


def test_with_a_seed_a_batch_draws_the_same_numbers_wherever_it_is_made():
    class Draws(Numbers):
        def __getitem__(self, index):
            return np.array([np.random.random()]), np.array([random.random()])  # noqa: NPY002 - as users do

    def drawn(stream, *indices, **options):
        return [[array.item() for array in arrays] for arrays in batches(stream.make(*indices, **options))]

    one = drawn(Stream(Draws(), seeded=True), 0, 1, 2)
    other = drawn(Stream(Draws(), maker=Maker(7, PLACE), seeded=True), 2, 0)
    assert [one[2], one[0]] == other
    assert one[0] != one[1]
    assert drawn(Stream(Draws(), seeded=True), 0, pass_index=1) != [one[0]]
    assert drawn(Stream(Draws(), seeded=True, root=6), 0) != [one[0]]
    assert drawn(Stream(Draws()), 0) != drawn(Stream(Draws()), 0)


def asks():
    while True:
        info = rayfeed.get_worker_info()
        yield np.array([[info.id, info.num_workers]]), np.array([info.seed], np.uint64)


def test_a_generator_is_told_which_copy_it_is():
    answer = Stream(asks, maker=Maker(9, PLACE), num_lanes=4).make(1, lane=3)
    ((info, seed),) = batches(answer)
    assert info.tolist() == [[3, 4]]
    assert seed.tolist() == [worker_seed(5, 3)]


def test_a_sequence_is_told_which_producer_it_runs_in():
    class Asks(Numbers):
        def __getitem__(self, index):
            return next(asks())

    ((info, seed),) = batches(Stream(Asks(), maker=Maker(9, PLACE), num_lanes=12).make(0))
    assert info.tolist() == [[9, 12]]
    assert seed.tolist() == [worker_seed(5, 9)]


def test_the_answer_tells_whether_the_source_ever_asked_for_its_worker():
    assert not Stream(numbers()).make(2).run.asked

    def asks_once():
        yield from numbers(1)
        rayfeed.get_worker_info()
        yield from numbers(2)

    stream = Stream(asks_once)
    assert [stream.make(1).run.asked for _ in range(3)] == [False, True, True]


def test_outside_of_a_ticket_there_is_no_worker():
    Stream(asks).make(1)
    assert rayfeed.get_worker_info() is None


def reads_where_it_is():
    yield np.array([str(Path.cwd())]), None


@pytest.mark.parametrize("is_there", [True, False])
def test_a_source_runs_in_the_callers_directory_where_there_is_such_a_one(tmp_path, monkeypatch, is_there):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    monkeypatch.chdir(here)
    if is_there:
        there.mkdir()
    ((path,),) = batches(Stream(reads_where_it_is, directory=str(there)).make(1))
    assert path.tolist() == [str(there if is_there else here)]


# Memory


def refills():
    """One buffer, filled again for each batch."""
    inputs, targets = np.zeros((2, 3)), np.zeros(2, int)
    for number in range(6):
        inputs[:] = number
        targets[:] = number
        yield inputs, targets


def refills_by_view():
    inputs, targets = np.zeros((9, 3)), np.zeros((9, 2), int)
    for number in range(6):
        inputs[:] = number
        targets[:] = number
        yield inputs[:2], targets[:2, 0]


def refills_foreign_memory():
    memory = bytearray(16)
    for number in range(6):
        memory[:] = number.to_bytes(8, "little") * 2
        yield np.frombuffer(memory, np.int64), np.frombuffer(memory, np.int64)


def refills_in_a_list():
    buffers = [np.zeros((2, 3)), np.zeros(2, int)]
    for number in range(6):
        for buffer in buffers:
            buffer[:] = number
        yield buffers


def writes_to_what_it_gave():
    last = None
    for number in range(6):
        if last is not None:
            last[0][:] = -1
            last[1][:] = -1
        last = (np.full((2, 3), number), np.full(2, number))
        yield last


@pytest.mark.parametrize(
    "source", [refills, refills_by_view, refills_foreign_memory, refills_in_a_list, writes_to_what_it_gave]
)
def test_a_generator_that_uses_its_memory_again_gives_each_batch_as_it_was_yielded(source):
    stream = Stream(source)
    answers = [stream.make(1), stream.make(5)]
    made = [arrays for answer in answers for arrays in batches(answer)]
    assert [sorted({value for array in arrays for value in array.ravel().tolist()}) for arrays in made] == [
        [number] for number in range(6)
    ]


def test_a_sequence_that_returns_views_of_its_data_gives_the_data_and_keeps_it():
    class Views(Numbers):
        def __init__(self):
            super().__init__()
            self.x, self.y = np.arange(40.0).reshape(10, 4), np.arange(10)

        def __getitem__(self, index):
            return self.x[2 * index : 2 * index + 2], self.y[2 * index : 2 * index + 2]

    made = batches(Stream(Views()).make(0, 4, 1))
    assert [arrays[1].tolist() for arrays in made] == [[0, 1], [8, 9], [2, 3]]
    assert [arrays[0][0, 0] for arrays in made] == [0.0, 32.0, 8.0]


def test_a_fresh_array_and_a_view_of_one_are_not_copied_and_others_are():
    def kept(array):
        arrays = [array]
        address = array.ctypes.data
        del array
        keep_as_made(arrays)
        return arrays[0].ctypes.data == address

    held = np.zeros((4, 4))
    cases = [np.zeros((4, 4)), np.zeros((4, 4))[1:], np.zeros((4, 4)).T, held, held[1:], np.frombuffer(b"12345678")]
    found = []
    while cases:
        found.append(kept(cases.pop(0)))
    assert found == [True, True, True, False, False, False]


ADDRESSES = []


class Fresh(Numbers):
    """Notes where the memory of its arrays lies."""

    def __getitem__(self, index):
        batch = super().__getitem__(index)
        ADDRESSES.append([array.ctypes.data for array in batch])
        return batch


def test_fresh_arrays_come_to_the_frame_without_a_copy(monkeypatch):
    ADDRESSES.clear()
    encoded = []

    def encodes(flats, schema):
        encoded.extend([array.ctypes.data for array in arrays] for arrays in flats)
        return encode(flats, schema)

    monkeypatch.setattr(maker_module, "encode", encodes)
    Stream(Fresh()).make(0, 1, 2)
    assert encoded == ADDRESSES


def test_one_array_in_two_places_is_given_twice():
    class Twice(Numbers):
        def __getitem__(self, index):
            array = np.full(3, index)
            return array, array

    assert [[array.tolist() for array in arrays] for arrays in batches(Stream(Twice()).make(1, 2))] == [
        [[1] * 3] * 2,
        [[2] * 3] * 2,
    ]


MEETING = threading.Barrier(2)


class Meets(Numbers):
    """A batch is made when two are being made."""

    def __getitem__(self, index):
        MEETING.wait(10)
        return super().__getitem__(index)


def test_threads_make_batches_of_one_sequence_at_the_same_time():
    stream, answers = Stream(Meets()), {}

    def make(index):
        answers[index] = stream.make(index)

    threads = [threading.Thread(target=make, args=(index,)) for index in (3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert {index: firsts(answer) for index, answer in answers.items()} == {3: [3], 4: [4]}
    assert len(stream.loads) == 1


def test_a_source_that_the_store_does_not_give_is_no_error_of_the_users():
    stream = Stream(Numbers())

    def state():
        raise NotFetchedError("ObjectFetchTimedOutError: too slow")

    ticket = Ticket(0, 0, 0, 0, (0,))
    answer = stream.maker.make(ticket, stream.record, state)
    assert answer == NotFetched("ObjectFetchTimedOutError: too slow")
    assert firsts(stream.ask(ticket)) == [0], "and it is asked for again"


def test_memory_that_is_short_when_batches_are_laid_out_is_told_with_their_place(monkeypatch):
    def none_left(flats, schema):
        raise MemoryError("no 4.8 GB")

    monkeypatch.setattr(maker_module, "encode", none_left)
    error = failure(Stream(Numbers()).make(3), MemoryError)
    assert error.__notes__ == [
        f"rayfeed: raised in producer 2 ({PLACE}), generator: batch 3 of pass 0, laying out what was made"
    ]


class Gated(rayfeed.Sequence):
    """Batch 2 waits."""

    begun, gate = threading.Event(), threading.Event()

    def __len__(self):
        return 5

    def __getitem__(self, index):
        if index == 2:
            self.begun.set()
            assert self.gate.wait(20)
        return np.full((1, 1), index), None


def test_another_thread_is_told_which_batch_of_a_ticket_is_being_made():
    stream = Stream(Gated())
    assert stream.maker.standing() == ()
    thread = threading.Thread(target=lambda: stream.make(0, 1, 2, 3))
    thread.start()
    assert Gated.begun.wait(20)
    (at,) = stream.maker.standing()
    assert at == At(stream=0, number=0, attempt=0, offset=2, seconds=at.seconds)
    assert 0 <= at.seconds < 20
    Gated.gate.set()
    thread.join(20)
    assert stream.maker.standing() == ()
