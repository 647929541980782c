"""The canonical copy, without Ray: its hooks, what it posts, and what a close in the middle does."""

import threading
import time

import numpy as np

from rayfeed.producer.loading import received
from rayfeed.producer.messages import SourceRecord
from rayfeed.queue.canonical import send_source
from rayfeed.queue.events import NextPass
from rayfeed.queue.sequence_window import Hooks
from rayfeed.source.failure import Failure
from rayfeed.source.shipping import put_together, take_apart
from rayfeed.source.stream import describe

WAIT_S = 10.0


class Crew:
    """A store that keeps what is put there."""

    def __init__(self, fails=False):
        self.stored = []
        self.fails = fails

    def store(self, value):
        if self.fails and self.stored:
            raise MemoryError("the store is full")
        self.stored.append(value)
        return value

    def fetch(self, stored):
        return stored


class Counting:
    """Counts its passes in an array."""

    entered = threading.Event()
    gate = threading.Event()

    def __init__(self):
        self.passes = np.zeros(3, int)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return self.passes, self.passes

    def on_epoch_end(self):
        self.entered.set()
        self.gate.wait(WAIT_S)
        self.passes += 1


def opened(crew, source):
    posted, done = [], threading.Event()

    def post(event):
        posted.append(event)
        done.set()

    record = SourceRecord(describe(source, name="generator"), "generator", 1, False, False, 1, "/nowhere")
    _, canonical = send_source(0, record, take_apart(source, name="generator"), crew, post)
    return canonical, posted, done


def setup_function():
    Counting.entered.clear()
    Counting.gate.set()


def test_after_a_hook_the_new_state_is_stored_and_its_reference_posted():
    source, crew = Counting(), Crew()
    canonical, posted, done = opened(crew, source)
    for number in range(1, 3):
        canonical.run_hooks(Hooks(ended=number - 1, begun=None))
        assert done.wait(WAIT_S)
        done.clear()
        result = posted[-1].result
        assert isinstance(result, NextPass)
        assert result.length == 3
        assert put_together(received(result.source_ref, crew.fetch)).passes.tolist() == [number] * 3
    assert source.passes.tolist() == [0, 0, 0]
    canonical.close()


def test_what_a_hook_leaves_after_the_close_is_sent_to_nobody():
    crew = Crew()
    canonical, posted, _ = opened(crew, Counting())
    Counting.gate.clear()
    canonical.run_hooks(Hooks(ended=0, begun=None))
    assert Counting.entered.wait(WAIT_S)
    closing = threading.Thread(target=canonical.close)
    closing.start()
    while not canonical._closed:
        closing.join(0.001)  # until it waits for the hook
    Counting.gate.set()
    closing.join(WAIT_S)
    assert not canonical._thread.is_alive()
    assert posted == []
    assert len(crew.stored) == 1


def test_what_goes_wrong_in_sending_is_told_as_that():
    canonical, posted, done = opened(Crew(fails=True), Counting())
    canonical.run_hooks(Hooks(ended=0, begun=None))
    assert done.wait(WAIT_S)
    result = posted[-1].result
    assert isinstance(result, Failure)
    assert "on_epoch_end after pass 0, sending what it left" in result.where
    assert isinstance(result.error(), MemoryError)
    canonical.close()


def test_a_hook_that_takes_long_is_told_of_and_again_when_that_has_doubled():
    canonical, _, done = opened(Crew(), Counting())
    assert canonical.look(time.monotonic() + 100, 12.0) is None
    Counting.gate.clear()
    canonical.run_hooks(Hooks(ended=3, begun=None))
    assert Counting.entered.wait(WAIT_S)
    began = canonical._doing[1]
    told = [waited for waited in range(60) if canonical.look(began + waited, 12.0) is not None]
    assert told == [12, 24, 48]
    text = canonical.look(began + 100, 12.0)
    assert text.startswith(
        "waiting 100 s for on_epoch_end after pass 3 of generator (Counting), which runs in the feed's"
    )
    assert "raise ProducerOptions.batch_timeout_s (now 12)." in text
    Counting.gate.set()
    assert done.wait(WAIT_S)
    canonical.close()
    assert canonical.look(began + 1000, 12.0) is None
