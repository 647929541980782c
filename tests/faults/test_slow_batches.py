"""Batches that take too long: told, made by an idle producer too, taken from one that hangs (contract F6)."""

import re
import threading
import warnings

import pytest

import rayfeed
from rayfeed import ProducerOptions
from rayfeed.errors import ProducerDiedError
from tests.conftest import producer_pids, wait_until
from tests.sources import Numbered, batch, number_of, numbers_of

SOON = ProducerOptions(batch_timeout_s=1)


class Waiting(Numbered):
    """The process that first makes batch `at` waits at a gate."""

    def __init__(self, length, once, at, gate):
        super().__init__(length, at={at: self.stop})
        self.once, self.gate = once, gate

    def stop(self):
        if self.once("wait"):
            self.gate.wait()


def open_when_told(gate, caught):
    """A thread that opens the gate when the consumer has been told of something."""

    def watch():
        wait_until(lambda: caught, "nothing is told", seconds=20)
        gate.open()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.parametrize("source", ["a Sequence", "a generator", "a thread at home"])
def test_a_slow_batch_is_told_with_its_producer_and_then_delivered(source, gate, once):
    def generate():
        for place in range(6):
            if place == 3:
                gate.wait()
            yield batch(place)

    started = generate()
    if source == "a thread at home":
        next(started)  # it cannot be sent any more
    made = {"a Sequence": Waiting(6, once, 3, gate), "a generator": generate, "a thread at home": started}[source]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with rayfeed.Feed(made, max_queue_size=1, producers=SOON) as feed:
            caught.clear()  # of what cannot be sent, one is told too
            thread = open_when_told(gate, caught)
            numbers = numbers_of(feed.take(1))
            pids = producer_pids()
            numbers += numbers_of(feed)
            thread.join()
    assert numbers == list(range(source == "a thread at home", 6))
    text = str(caught[0].message)
    place = 2 if source == "a thread at home" else 3
    assert re.match(rf"waiting [1-9] s for batch {place} of pass 0 of source \((Waiting|generate|generator)\) fr", text)
    assert "Where batches take so long, raise ProducerOptions.batch_timeout_s (now 1)." in text
    if source == "a thread at home":
        assert "from a thread of the caller's process" in text
        assert "It is waited for without end." in text
    else:
        assert f"pid {pids[0]})" in text
        assert "After 10 s it is taken for lost and replaced." in text


def test_a_batch_that_gate_comes_is_made_by_an_idle_producer(gate, once):
    with rayfeed.Feed(Waiting(40, once, 7, gate), 2, use_multiprocessing=True) as feed:
        assert numbers_of(feed) == list(range(40))
        assert numbers_of(feed) == list(range(40)), "and the other producer goes on alone"
        stats = feed.stats()
    assert stats.lost_producers == 0
    assert 1 <= stats.remade_tickets <= 2


def test_a_producer_that_hangs_is_replaced(gate, once, monkeypatch):
    monkeypatch.setattr("rayfeed.queue.watchdog.HANGS", 2.0)
    with rayfeed.Feed(Waiting(12, once, 5, gate), max_queue_size=2, producers=SOON) as feed:
        numbers = [number_of(one) for one in feed.take(2)]
        (pid,) = producer_pids()
        with pytest.warns(UserWarning, match="waiting"):
            numbers += numbers_of(feed)
        assert numbers == list(range(12))
        assert feed.stats().lost_producers == 1
        assert producer_pids() != [pid]


def test_a_batch_that_hangs_everywhere_is_an_error_in_the_end(gate, monkeypatch):
    monkeypatch.setattr("rayfeed.queue.watchdog.HANGS", 1.0)
    options = ProducerOptions(batch_timeout_s=1, max_restarts=1)
    read = []
    with (
        rayfeed.Feed(Numbered(12, at={5: gate.wait}), max_queue_size=1, producers=options) as feed,
        pytest.warns(UserWarning, match="waiting"),
        pytest.raises(ProducerDiedError, match=r"the last one: it has not answered for \d s"),
    ):
        read.extend(number_of(one) for one in feed)
    assert read == list(range(len(read)))
    assert len(read) <= 5


class Rests(Numbered):
    """Its hook waits at a gate."""

    def __init__(self, length, gate):
        super().__init__(length)
        self.gate = gate

    def on_epoch_end(self):
        self.gate.wait()


def test_a_hook_that_takes_long_is_told_and_then_the_next_pass_comes(gate):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with rayfeed.Feed(Rests(3, gate), producers=SOON) as feed:
            thread = open_when_told(gate, caught)
            assert numbers_of(feed.take(6)) == [0, 1, 2] * 2
            thread.join()
    assert re.match(
        r"waiting [1-9] s for on_epoch_end after pass 0 of source \(Rests\), which runs in the feed's process \(pid",
        str(caught[0].message),
    )


class Crowded(Numbered):
    """Batches are quick until `at`, which waits at a gate: its ticket has others too."""

    def __init__(self, length, at, gate):
        super().__init__(length, at={at: gate.wait})


def test_of_a_ticket_of_many_batches_the_slow_one_is_named(gate):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with rayfeed.Feed(
            Crowded(400, 333, gate), max_queue_size=100, producers=ProducerOptions(batch_timeout_s=4)
        ) as feed:
            thread = open_when_told(gate, caught)
            assert numbers_of(feed) == list(range(400))
            thread.join()
            assert feed.stats().frames < 300
    assert re.match(
        r"waiting \d s for batch 333 of pass 0 of source \(Crowded\) from producer 0", str(caught[0].message)
    )
