"""The trainer's outbox: in order, gathered, and nobody waits for a job that is over."""

import threading
import time

from rayfeed.trainer.outbox import Outbox

LONG_S = 60.0
"""A wait that no test may need; pytest's own limit is near."""


def in_thread(function, *arguments):
    """Start a call in a thread; the thread and the list that its result comes into."""
    found = []
    thread = threading.Thread(target=lambda: found.append(function(*arguments)))
    thread.start()
    return thread, found


def test_events_are_taken_once_in_their_order():
    outbox = Outbox(1)
    for number in range(3):
        outbox.put(number)
    outbox.flush()
    assert outbox.take(LONG_S) == [0, 1, 2]
    outbox.put(3)
    assert outbox.close() == [3]
    assert outbox.take(LONG_S) == []


def test_whoever_waits_is_let_go_when_the_job_is_over():
    outbox = Outbox(1)
    thread, found = in_thread(outbox.take, LONG_S)
    assert outbox.close() == []
    thread.join(5)
    assert found == [[]]


def test_events_are_gathered_until_the_job_waits_for_their_effect(monkeypatch):
    monkeypatch.setattr("rayfeed.trainer.outbox.GATHER_S", LONG_S)
    outbox = Outbox(1)
    outbox.put("a step")
    thread, found = in_thread(outbox.take, LONG_S)
    outbox.put("an epoch's end")
    assert thread.is_alive()
    outbox.flush()
    thread.join(5)
    assert found == [["a step", "an epoch's end"]]


def test_without_events_a_call_waits_no_longer_than_it_may():
    started = time.monotonic()
    assert Outbox(1).take(0.01) == []
    assert time.monotonic() - started < 5
