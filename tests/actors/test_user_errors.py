"""Exceptions of user code reach the caller as they were, at their place in the stream (contract F1)."""

import threading
import time

import pytest
import ray

import rayfeed
from tests.sources import Numbered, batch, number_of, numbers_of

SURFACES_S = 10.0
"""From the opening of the feed; a producer's start takes 1 to 3 s of it on a busy machine."""


class TwoArguments(Exception):  # noqa: N818 - what users call theirs
    """Its `args` do not fit its `__init__`: pickle cannot rebuild it."""

    def __init__(self, what, where):
        super().__init__(f"{what} at {where}")
        self.where = where


class Unsendable(Exception):  # noqa: N818 - as above
    def __init__(self):
        super().__init__("holds a thread")
        self.thread = threading.current_thread()


class Raising(Numbered):
    """Batch 5 raises what `make` returns."""

    def __init__(self, make, at=None):
        super().__init__(10, at=at)
        self.make = make

    def __getitem__(self, index):
        if index == 5:
            raise self.make()
        return super().__getitem__(index)


ERRORS = {
    "builtin": (lambda: KeyError("no such column"), KeyError, "no such column"),
    "two arguments": (lambda: TwoArguments("bad file", 17), TwoArguments, "bad file at 17"),
    "unsendable state": (Unsendable, Unsendable, "holds a thread"),
    "timeout": (lambda: TimeoutError("the database"), TimeoutError, "the database"),
    "ray's own": (
        lambda: ray.exceptions.RayActorError(error_msg="of an actor of the user's"),
        ray.exceptions.RayActorError,
        "user's",
    ),
    "get timeout": (lambda: ray.exceptions.GetTimeoutError("mine"), ray.exceptions.GetTimeoutError, "mine"),
    "ours": (lambda: rayfeed.errors.ProducerDiedError("not really"), rayfeed.errors.ProducerDiedError, "not really"),
    "stop": (lambda: StopIteration(3), RuntimeError, r"raised StopIteration\(3\)"),
    "exit": (lambda: SystemExit("enough"), RuntimeError, r"raised SystemExit\('enough'\)"),
    "interrupt": (lambda: KeyboardInterrupt("mine"), RuntimeError, r"raised KeyboardInterrupt\('mine'\)"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_exception_keeps_its_type_message_traceback_and_place(name):
    make, kind, message = ERRORS[name]
    started = time.monotonic()
    with rayfeed.Feed(Raising(make), 2) as feed:
        reader = iter(feed)
        assert [number_of(next(reader)) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises(kind, match=message) as caught:
            next(reader)
        assert time.monotonic() - started < SURFACES_S
        assert type(caught.value) is kind
        assert isinstance(caught.value.__cause__, rayfeed.errors.RemoteTraceback)
        assert "in __getitem__" in str(caught.value.__cause__)
        (note,) = caught.value.__notes__
        for part in ("producer ", "node ", "pid ", "source", "batch 5 of pass 0"):
            assert part in note
        with pytest.raises(kind, match=message):  # the stream stays where it broke
            next(iter(feed))
        assert feed.stats().lost_producers == 0  # user code's errors are no failures of the machine


def failing_after(number):
    yield from (batch(index) for index in range(number))
    raise ZeroDivisionError("in the generator")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_generators_exception_comes_after_the_batches_before_it(workers):
    with rayfeed.Feed(lambda: failing_after(7), workers) as feed:
        reader = iter(feed)
        assert [number_of(next(reader)) for _ in range(7)] == list(range(7))
        with pytest.raises(ZeroDivisionError, match="in the generator") as caught:
            next(reader)
        assert "batch 7" in caught.value.__notes__[0]


def test_one_copys_exception_keeps_its_turn_among_the_others():
    def generate():
        copy = rayfeed.get_worker_info().id
        for place in range(5):
            if (copy, place) == (1, 2):
                raise LookupError("copy 1")
            yield batch(10 * copy + place)

    with rayfeed.Feed(generate, 2, use_multiprocessing=True) as feed:
        reader = iter(feed)
        assert [number_of(next(reader)) for _ in range(5)] == [0, 10, 1, 11, 2]
        with pytest.raises(LookupError, match="copy 1"):
            next(reader)


class Hooked(Numbered):
    """Fails between passes, in one of several ways."""

    def __init__(self, way):
        super().__init__(4)
        self.way = way

    def __len__(self):
        if self.way == "broken":
            raise OverflowError("in __len__")
        return self.length

    def on_epoch_end(self):
        if self.way == "hook":
            raise OSError(28, "no space left, said the hook")
        if self.way == "length":
            self.way = "broken"
        if self.way == "empty":
            self.length = 0
        if self.way == "unsendable":
            self.file = open(__file__)  # noqa: SIM115, PTH123 - what it must not do


@pytest.mark.parametrize(
    ("way", "kind", "message"),
    [
        ("hook", OSError, "no space left, said the hook"),
        ("length", OverflowError, "in __len__"),
        ("empty", rayfeed.errors.SourceError, r"Hooked has 0 batches after on_epoch_end of pass 0"),
        ("unsendable", rayfeed.errors.SourceError, r"source\.file is a TextIOWrapper"),
    ],
)
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_failure_between_passes_comes_after_the_whole_pass(way, kind, message):
    with rayfeed.Feed(Hooked(way), 2) as feed:
        reader = iter(feed)
        assert [number_of(next(reader)) for _ in range(4)] == [0, 1, 2, 3]
        with pytest.raises(kind, match=message) as caught:
            next(reader)
        assert "on_epoch_end after pass 0" in caught.value.__notes__[0]


class Unloadable(Numbered):
    def __setstate__(self, state):
        raise ImportError("no such library on this node")


def broken_factory():
    raise FileNotFoundError("data.csv")


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        (Unloadable(3), ImportError, "no such library on this node"),
        (broken_factory, FileNotFoundError, "data.csv"),
        (lambda: 17, rayfeed.errors.SourceError, r"<lambda>\(\) must return a generator or other iterator, got int 17"),
    ],
    ids=["unloadable", "factory raises", "factory of no iterator"],
)
def test_a_source_that_cannot_be_opened_in_the_producer_says_why(source, kind, message):
    with rayfeed.Feed(source) as feed, pytest.raises(kind, match=message) as caught:
        next(iter(feed))
    assert "opening source" in caught.value.__notes__[0]


def test_an_exception_behind_a_slow_batch_waits_for_its_turn(gate):
    sequence = Raising(lambda: ValueError("at 5"), at={4: gate.wait})
    with rayfeed.Feed(sequence, 4) as feed:
        reader = iter(feed)
        assert [number_of(next(reader)) for _ in range(4)] == [0, 1, 2, 3]
        gate.open()
        assert number_of(next(reader)) == 4
        with pytest.raises(ValueError, match="at 5"):
            next(reader)


def test_unordered_an_exception_ends_the_stream_though_another_batch_hangs(gate):
    sequence = Raising(lambda: ValueError("at 5"), at={0: gate.wait})
    with rayfeed.Feed(sequence, 4, ordered=False) as feed, pytest.raises(ValueError, match="at 5"):
        numbers_of(feed)
