"""How many batches of a stream may be outstanding (contract C13)."""

import pytest

from rayfeed.queue.bound import FIRST_BATCHES, Bound
from rayfeed.queue.lane_window import LanePlan, LaneWindow
from rayfeed.queue.sequence_window import SequencePlan, SequenceWindow
from tests.unit.queue.invariants import check

MB = 1_000_000


@pytest.mark.parametrize(
    ("bound", "batch_bytes", "limit"),
    [
        (Bound(10), 0, 42),
        (Bound(10), 5 * MB, 42),
        (Bound(10, 20 * MB), 0, 33),
        (Bound(10, 20 * MB), 5 * MB, 36),
        (Bound(10, 20 * MB), 50 * MB, 33),
        (Bound(10, 20 * MB, 200 * MB), 0, 1 + FIRST_BATCHES),
        (Bound(10, 20 * MB, 200 * MB), 5 * MB, 36),
        (Bound(10, 20 * MB, 200 * MB), 20 * MB, 10),
        (Bound(10, 20 * MB, 200 * MB), 500 * MB, 1),
    ],
)
def test_what_waits_is_bounded_and_what_is_in_hands_as_far_as_there_is_room(bound, batch_bytes, limit):
    assert bound.limit(32, batch_bytes) == limit


@pytest.mark.parametrize("kind", ["Sequence", "generators"])
def test_large_batches_of_many_workers_stay_within_their_room_and_all_come(kind):
    bound = Bound(10, 100 * MB, 200 * MB)
    if kind == "Sequence":
        window = SequenceWindow(stream=0, bound=bound, plan=SequencePlan(100, max_passes=1))
    else:
        window = LaneWindow(stream=0, bound=bound, plan=LanePlan(num_lanes=64, max_batches=100))
    for worker in range(64):
        window.worker_ready(worker, 1)
    out, num_delivered = [], 0
    while not window.over or out:
        out += window.issue()
        assert window.outstanding * 20 * MB <= 200 * MB
        worker, ticket = out.pop(0)
        window.answered(worker, ticket, payload=None, num_batches=len(ticket.indices), num_bytes=20 * MB, seconds=0.1)
        num = sum(getattr(item, "stop", 0) - getattr(item, "start", 0) for item in window.deliver())
        window.consumed(num)
        num_delivered += num
        check(window)
        if num_delivered == 100:
            break
    assert num_delivered == 100
