"""What of the object store a call may take, and what is said where that is too much."""

import re
import weakref

import pytest

from rayfeed.errors import BatchError, OptionError
from rayfeed.queue.room import MOST_FRAMES, Held, check_batch, queue_bytes

MB = 1_000_000


class Memory:
    """Stands for a buffer of a frame."""


def frame():
    memory = [Memory(), Memory()]
    return memory, [weakref.ref(one) for one in memory]


def waiting(asked):
    return [num_bytes for num_bytes, _ in queue_bytes(asked, 400 * MB)]


def test_queues_without_a_bound_share_a_quarter_of_the_store():
    assert waiting([None]) == [100 * MB]
    assert waiting([None, None]) == [50 * MB] * 2
    assert waiting([320 * MB, None]) == [320 * MB, 50 * MB]


def test_what_is_in_hands_shares_another_quarter_as_far_as_bounds_that_were_asked_for_leave_it():
    assert queue_bytes([None], 400 * MB) == [(100 * MB, 200 * MB)]
    assert queue_bytes([None, None], 400 * MB) == [(50 * MB, 100 * MB)] * 2
    assert queue_bytes([280 * MB], 400 * MB) == [(280 * MB, 320 * MB)]
    assert queue_bytes([320 * MB], 400 * MB) == [(320 * MB, 320 * MB)]


def test_a_bound_that_the_store_cannot_hold_is_refused_with_the_numbers():
    with pytest.raises(
        OptionError,
        match=re.escape(
            "max_queue_bytes=320,000,001 is more than the object store of the consumer's node has room for: "
            "320,000,000 of its 400,000,000 bytes, beyond which Ray writes to disk.\n  Give 320,000,000 or less"
        ),
    ):
        queue_bytes([320 * MB + 1], 400 * MB)
    with pytest.raises(OptionError, match=r"=200,000,000, for each of 2 queues, is more (.|\n)*Give 160,000,000 or"):
        queue_bytes([200 * MB, 200 * MB], 400 * MB)


def test_a_batch_that_the_store_cannot_hold_is_refused_with_the_numbers():
    check_batch(320 * MB, 400 * MB, "producer 1, batch 0")
    with pytest.raises(
        BatchError,
        match=r"producer 1, batch 0: a batch of 320,000,001 bytes is more than .* 320,000,000 of its 400,000,000 bytes",
    ):
        check_batch(320 * MB + 1, 400 * MB, "producer 1, batch 0")


def test_who_holds_more_than_half_of_the_store_is_told_once_with_the_numbers():
    held, kept = Held(100 * MB), []
    told = []
    for _ in range(20):
        memory, references = frame()
        kept.append(memory.pop())  # one array of each batch
        told.append(held.deliver(10 * MB, references))
        del memory
    (text,) = [text for text in told if text is not None]
    assert told.index(text) == 6
    assert text.startswith("6 delivered frames are still in use, and keep 60,000,000 of the 100,000,000 bytes")
    assert "copy=True" in text


def test_who_lets_go_is_told_nothing_however_much_was_delivered():
    held = Held(100 * MB)
    kept = []
    for _ in range(1000):
        memory, references = frame()
        kept = [*kept[-4:], memory]
        assert held.deliver(10 * MB, references) is None


def test_frames_that_are_not_in_the_store_and_a_single_large_one_do_not_count():
    held, kept = Held(MB), []
    for _ in range(1000):
        memory, references = frame()
        kept.append(memory)
        assert held.deliver(80_000, references) is None
    held = Held(MB)
    for _ in range(3):
        memory, references = frame()
        assert held.deliver(700_000, references) is None


def test_frames_that_were_let_go_of_are_not_remembered():
    held = Held(1_000_000 * MB)
    for _ in range(10 * MOST_FRAMES):
        memory, references = frame()
        held.deliver(MB, references)
        del memory
    assert len(held._frames) <= MOST_FRAMES + 1
