"""However a feed ends, nothing of it is left, and soon (contract F4). The check itself is the folder's fixture."""

import gc
import signal
import threading
import time

import pytest
import ray

import rayfeed
from rayfeed.errors import FeedClosedError
from rayfeed.producer.pool import Pool
from tests.conftest import Remains, assert_runs, start_script, wait_until
from tests.sources import Gate, Log, Numbered, is_settled, number_of, numbers_of


def test_the_check_sees_an_actor_a_process_a_thread_an_object_and_their_bytes():
    """The fixture of this folder would be worth nothing if it could not fail."""
    before = Remains()
    assert before.left() == []
    held = ray.put(bytes(1_000_000))
    feed = rayfeed.Feed(Numbered(3))
    next(iter(feed))
    left = "; ".join(before.left())
    for kind in ("actors", "producer processes", "threads", "references to objects", "bytes in the store"):
        assert f"{kind} are left" in left
    feed.close()
    del feed
    assert "references to objects are left" in "; ".join(before.left())
    del held


def test_close_may_be_called_twice_and_reading_after_it_is_an_error():
    feed = rayfeed.Feed(Numbered(5), 2, use_multiprocessing=True)
    reader = iter(feed)
    next(reader)
    feed.close()
    feed.close()
    for read in (lambda: next(reader), lambda: next(iter(feed)), lambda: next(feed.take(1)), feed.__enter__):
        with pytest.raises(FeedClosedError, match="this feed is closed: open a new one"):
            read()
    assert feed.stats().batches == 1


def test_feeds_closed_while_their_producers_write_leave_no_byte():
    before = Remains()
    for _ in range(8):
        with rayfeed.Feed(Numbered(8, size=20_000), 2, use_multiprocessing=True) as feed:
            next(iter(feed))
    wait_until(lambda: not before.left(), lambda: "; ".join(before.left()))


def test_a_closed_feed_that_is_kept_holds_nothing(tmp_path):
    before = Remains()
    feed = rayfeed.Feed(Numbered(50, size=50_000), 2, use_multiprocessing=True)
    wait_until(lambda: is_settled(feed), "the queue does not fill")
    next(iter(feed))
    feed.close()
    wait_until(lambda: not before.left(), lambda: str(before.left()))
    assert feed.stats().batches == 1


@pytest.mark.parametrize("num_read", [0, 3])
def test_a_feed_dropped_half_way_is_closed_when_it_is_collected(num_read):
    before = Remains()
    feed = rayfeed.Feed(Numbered(50), 2, use_multiprocessing=True)
    list(feed.take(num_read))
    del feed
    gc.collect()
    wait_until(lambda: not before.left(), lambda: str(before.left()))


def test_a_feed_closed_before_its_producers_are_up_ends_them():
    rayfeed.Feed(Numbered(5), 3, use_multiprocessing=True).close()


def test_ctrl_c_while_producers_are_asked_for_leaves_none(monkeypatch):
    launch, asked = Pool._launch, []

    def launch_two(pool, member):
        asked.append(member)
        if len(asked) == 3:
            raise KeyboardInterrupt
        launch(pool, member)

    monkeypatch.setattr(Pool, "_launch", launch_two)
    with pytest.raises(KeyboardInterrupt):
        rayfeed.Feed(Numbered(5), 4, use_multiprocessing=True)
    assert len(asked) == 3


def test_an_exception_in_the_readers_loop_ends_the_feed():
    def loop():
        with rayfeed.Feed(Numbered(50), 2) as feed:
            for one in feed:
                if number_of(one) == 3:
                    raise RuntimeError("in the loop")

    before = Remains()
    with pytest.raises(RuntimeError, match="in the loop"):
        loop()
    assert not [kind for kind in before.left() if kind.startswith(("actors", "threads"))]  # at once, not when collected


def test_a_reader_that_waits_is_woken_by_a_close_from_another_thread(gate):
    feed = rayfeed.Feed(Numbered(5, at={0: gate.wait}))
    raised = []

    def read():
        try:
            next(iter(feed))
        except FeedClosedError as error:
            raised.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    feed.close()
    reader.join(10)
    assert not reader.is_alive()
    assert len(raised) == 1


def test_two_feeds_at_once_do_not_disturb_each_other():
    with rayfeed.Feed(Numbered(20), 2, use_multiprocessing=True) as one:
        with rayfeed.Feed(Numbered(10), 2) as other:
            assert [(number_of(a), number_of(b)) for a, b in zip(one, other, strict=False)] == [
                (n, n) for n in range(10)
            ]
        assert len(list(one.take(40))) == 40


def test_close_does_not_wait_for_a_batch_that_hangs(gate):
    started = time.monotonic()
    with rayfeed.Feed(Numbered(5, at={1: gate.wait}), 2, use_multiprocessing=True) as feed:
        assert number_of(next(iter(feed))) == 0
    assert time.monotonic() - started < 15


def test_close_waits_for_a_running_hook(gate, tmp_path):
    entered, done = Gate(tmp_path / "entered"), Log(tmp_path / "done")

    class Slow(Numbered):
        def on_epoch_end(self):
            entered.open()
            gate.wait()
            done.add("done")

    feed = rayfeed.Feed(Slow(2))
    assert len(list(feed.take(2))) == 2
    entered.wait()
    threading.Timer(0.2, gate.open).start()
    feed.close()
    assert done.lines() == ["done"]


WAITING = """
import sys
import rayfeed
from tests.sources import Gate, Numbered
entered, gate = Gate(sys.argv[1]), Gate(sys.argv[2])

class Stuck(Numbered):
    def __getitem__(self, index):
        entered.open()
        gate.wait()

with rayfeed.Feed(Stuck(3), 2, use_multiprocessing=True) as feed:
    next(iter(feed))
"""

SHUT_DOWN = """
import time
import ray
import rayfeed
from rayfeed.producer.cluster import ensure_ray
from tests.sources import Numbered, numbers_of

ensure_ray()
options = rayfeed.ProducerOptions(num_cpus=0)
feeds = [rayfeed.Feed(Numbered(50), 2, use_multiprocessing=True, producers=options) for _ in range(2)]
for feed in feeds:
    next(iter(feed))
ray.shutdown()
for feed in feeds:
    try:
        while True:
            list(feed.take(1000))
    except rayfeed.errors.ProducerDiedError as error:
        assert "connection to Ray ended while a feed was open" in str(error), error
    assert not ray.is_initialized()  # no call of ours made Ray start another cluster
    if feed is feeds[1]:
        ensure_ray()
    started = time.monotonic()
    feed.close()
    assert time.monotonic() - started < 5
with rayfeed.Feed(Numbered(5)) as feed:
    assert numbers_of(feed) == [0, 1, 2, 3, 4]
"""


def test_ctrl_c_while_a_batch_is_waited_for_ends_the_process_and_its_producers(gate, tmp_path):
    entered = Gate(tmp_path / "entered")
    address = ray.get_runtime_context().gcs_address
    process = start_script(WAITING, entered.path, gate.path, RAY_ADDRESS=address)
    try:
        entered.wait()
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert time.monotonic() - started < 15
    assert "\nKeyboardInterrupt\n" in errors
    assert process.returncode in (1, -signal.SIGINT)  # by itself: no thread kept the process


@pytest.mark.slow
@pytest.mark.timeout(180)  # it starts two clusters
def test_ray_shut_down_under_an_open_feed_is_an_error_and_close_does_not_hang():
    assert_runs(SHUT_DOWN, RAY_ADDRESS="local")


def test_a_feed_that_was_read_to_the_end_of_its_generator_still_closes():
    with rayfeed.Feed(lambda: (Numbered(3)[index] for index in range(3))) as feed:
        assert numbers_of(feed) == [0, 1, 2]
