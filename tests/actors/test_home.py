"""A feed of a generator that cannot travel: a thread of this process runs it (D3)."""

import gc
import signal
import threading

import numpy as np
import pytest

import rayfeed
from rayfeed.errors import FeedClosedError
from tests.conftest import Remains, start_script, wait_until
from tests.sources import Gate, Numbered, batch, number_of, numbers_of

pytestmark = pytest.mark.filterwarnings("ignore:rayfeed. .*cannot be sent:UserWarning")


def numbers(start=0, stop=1 << 30):
    for number in range(start, stop):
        yield batch(number)


def started(stop=1 << 30):
    generator = numbers(-1, stop)
    next(generator)
    return generator


def home_threads():
    return [thread for thread in threading.enumerate() if thread.name == "rayfeed-home"]


def test_a_started_generator_is_one_stream_in_order_to_its_end():
    with rayfeed.Feed(started(40), workers=4) as feed:
        assert numbers_of(feed) == list(range(40))
        assert numbers_of(feed) == []
        stats = feed.stats()
    assert (stats.batches, stats.num_producers, stats.num_workers) == (40, 0, 1)
    assert "from a thread of the caller's process:" in str(stats)


def test_a_generator_reads_on_in_the_file_that_this_process_opened(tmp_path):
    (tmp_path / "data.csv").write_text("header\n3\n1\n2\n")
    with (tmp_path / "data.csv").open() as file:
        assert next(file) == "header\n"
        with rayfeed.Feed((np.full((1, 1), float(line)), np.zeros(1)) for line in file) as feed:
            assert [float(x[0, 0]) for x, _ in feed] == [3.0, 1.0, 2.0]


def test_it_starts_no_producer():
    with rayfeed.Feed(started()) as feed:
        next(iter(feed))
        assert [thread.daemon for thread in home_threads()] == [True]
        assert not [one for one in Remains().left() if "actors" in one or "processes" in one]


def test_what_is_made_ahead_is_bounded():
    made = []

    def counted():
        for number in range(1 << 30):
            made.append(number)
            yield batch(number)

    source = counted()
    next(source)
    with rayfeed.Feed(source, max_queue_size=3) as feed:
        assert numbers_of(feed.take(2)) == [1, 2]
        # The first from before, two taken, three waiting, and one in the worker's hands.
        wait_until(lambda: len(made) == 7, lambda: f"{len(made)} were made")
    assert len(made) == 7


def test_batches_are_read_only_unless_they_are_copies():
    with rayfeed.Feed(started()) as feed, pytest.raises(ValueError, match="read-only"):
        next(iter(feed))[0][:] = 1
    with rayfeed.Feed(started(), copy=True) as feed:
        next(iter(feed))[0][:] = 1


@pytest.mark.parametrize("size", [2, 50_000], ids=["small", "large"])
def test_a_generator_may_fill_the_same_buffer_again(size):
    def refilling():
        inputs, targets = batch(0, size)
        for number in range(1 << 30):
            inputs[:], targets[:] = number, number
            yield inputs, targets

    source = refilling()
    next(source)
    with rayfeed.Feed(source) as feed:
        held = list(feed.take(30))
    assert numbers_of(held) == list(range(1, 31))


class OwnError(Exception):
    def __init__(self, code, *, detail):
        super().__init__(f"code {code}: {detail}")
        self.code = code


def test_an_exception_comes_after_the_batches_before_it_with_its_type_traceback_and_place():
    def failing(file):
        yield from numbers(0, 5)
        raise OwnError(17, detail=file.name)

    with open(__file__) as file, rayfeed.Feed(failing(file)) as feed:  # noqa: PTH123 - as users write it
        assert numbers_of(feed.take(5)) == list(range(5))
        with pytest.raises(OwnError, match="code 17") as caught:
            next(iter(feed))
    assert caught.value.code == 17
    assert "in failing" in str(caught.value.__cause__)
    (note,) = caught.value.__notes__
    assert note.startswith("rayfeed: raised in a thread of the caller's process (pid")
    assert note.endswith("source: batch 5")


def test_an_owner_may_go_on_with_his_generator():
    mine = started()
    with rayfeed.Feed(mine, max_queue_size=1) as feed:
        assert numbers_of(feed.take(3)) == [0, 1, 2]
    assert number_of(next(mine)) in (3, 4, 5)  # what was made ahead is lost, and no more


@pytest.mark.parametrize("num_read", [0, 3])
def test_a_feed_that_is_dropped_or_closed_twice_leaves_no_thread(num_read):
    before = Remains()
    feed = rayfeed.Feed(started())
    list(feed.take(num_read))
    del feed
    gc.collect()
    wait_until(lambda: not before.left(), lambda: str(before.left()))
    feed = rayfeed.Feed(started())
    list(feed.take(num_read))
    feed.close()
    feed.close()
    assert home_threads() == []
    with pytest.raises(FeedClosedError):
        next(iter(feed))


def test_an_exception_in_the_readers_loop_ends_the_thread():
    def loop():
        with rayfeed.Feed(started()) as feed:
            for _ in feed:
                raise RuntimeError("in the loop")

    with pytest.raises(RuntimeError, match="in the loop"):
        loop()
    assert home_threads() == []


def test_close_does_not_wait_for_ever_for_a_generator_that_hangs(gate, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("rayfeed.producer.home.CLOSE_TIMEOUT_S", 0.2)
    entered = Gate(tmp_path / "entered")

    def hanging(lock):
        entered.open()
        gate.wait()
        yield batch(0)

    lock = threading.Lock()
    with lock:
        feed = rayfeed.Feed(hanging(lock))
        feed._stream.start()
        entered.wait()
        feed.close()
    assert "source is still making a batch in a thread of this process" in caplog.text
    gate.open()
    wait_until(lambda: home_threads() == [], "the thread does not end after its batch")


def test_a_feed_at_home_and_one_of_producers_go_on_side_by_side():
    with rayfeed.Feed(started()) as one, rayfeed.Feed(Numbered(10), 2) as other:
        assert [(number_of(a), number_of(b)) for a, b in zip(one.take(10), other.take(10), strict=True)] == [
            (n, n) for n in range(10)
        ]


ALONE = """
import ray
import rayfeed
from tests.sources import batch, numbers_of

source = (batch(number) for number in range(5))
next(source)
with rayfeed.Feed(source) as feed:
    assert numbers_of(feed) == [1, 2, 3, 4]
assert not ray.is_initialized()
"""

WAITING = """
import sys, threading
import rayfeed
from tests.sources import Gate, batch
entered, gate = Gate(sys.argv[1]), Gate(sys.argv[2])

def stuck():
    yield batch(0)
    entered.open()
    gate.wait()

source = stuck()
next(source)
with rayfeed.Feed(source) as feed:
    next(iter(feed))
"""


def test_it_needs_no_ray():
    with start_script(ALONE) as process:
        try:
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert errors.count("UserWarning: rayfeed: source (generator) cannot be sent to another process") == 1


def test_ctrl_c_while_a_generator_at_home_is_waited_for_ends_the_process(gate, tmp_path):
    entered = Gate(tmp_path / "entered")
    process = start_script(WAITING, entered.path, gate.path)
    try:
        entered.wait()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert "\nKeyboardInterrupt\n" in errors
    assert process.returncode in (1, -signal.SIGINT)  # by itself: no thread kept the process
