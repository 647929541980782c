"""A generator's copy is lost with its producer: it begins anew, or is dropped, and the other copies' turns hold."""

import pytest

from rayfeed.queue.deliveries import StreamEnded
from tests.unit.queue.invariants import check
from tests.unit.queue.test_lane_window import answer, delivered, window_of


def by_lane(window):
    tickets = [ticket for _, ticket in window.issue()]
    return {lane: [ticket for ticket in tickets if ticket.lane == lane] for lane in range(len(window.lanes))}


def begun(**plan):
    """Two copies; each gave a batch, has one that was asked for and made, and one in the making."""
    window = window_of(2, **plan)
    first = by_lane(window)
    answer(window, first[0][0])
    answer(window, first[1][0])
    assert delivered(window) == [(0, 0), (1, 0)]
    later = by_lane(window)
    return window, [first[lane][1] for lane in (0, 1)], [later[lane] for lane in (0, 1)]


@pytest.mark.parametrize("ordered", [True, False])
def test_a_copy_that_begins_anew_makes_what_its_lane_was_asked_for(ordered):
    window, (second, other), _ = begun(on_loss="restart", ordered=ordered)
    lost = window.worker_lost(0)
    assert lost[0] == second
    answer(window, other)
    assert {ticket.lane for _, ticket in window.issue()} <= {1}, "nobody can make lane 0's, and lane 1 does not wait"
    check(window)
    window.worker_ready(0, 1)
    again = by_lane(window)[0]
    assert [(ticket.number, ticket.attempt) for ticket in again[: len(lost)]] == [(t.number, 1) for t in lost]
    for ticket in again:
        answer(window, ticket)
    check(window)
    seen = delivered(window)
    places = [place for lane, place in seen if lane == 0]
    assert places == [place for ticket in again for place in ticket.indices][: len(places)]
    assert len(places) >= 2
    if ordered:
        assert seen[:2] == [(0, 1), (1, 1)]


def test_an_answer_of_the_lost_copy_counts_only_until_the_new_one_is_asked():
    window, (second, _), _ = begun(on_loss="restart")
    window.worker_lost(0)
    answer(window, second)  # it was on its way
    check(window)
    assert delivered(window)[0] == (0, 1)
    window, (second, _), _ = begun(on_loss="restart")
    window.worker_lost(0)
    window.worker_ready(0, 1)
    again = by_lane(window)[0][0]
    assert not window.answered(0, second, payload="late", num_batches=1)
    check(window)
    answer(window, again)
    assert delivered(window)[0] == (0, 1)


def test_a_copy_that_is_dropped_ends_with_what_was_made():
    window, (second, other), (_, later) = begun(on_loss="drop")
    answer(window, second)
    window.drop(0)
    assert not window.breaks(0)
    assert window.worker_lost(0) == []
    window.worker_ready(0, 1)
    answer(window, other)
    assert delivered(window) == [(0, 1), (1, 1)]
    assert window.is_last(1)
    for ticket in later:
        answer(window, ticket)
    for _ in range(4):
        tickets = by_lane(window)
        assert tickets[0] == []
        for ticket in tickets[1]:
            answer(window, ticket)
        check(window)
        assert {lane for lane, _ in delivered(window)} <= {1}
    assert window.num_consumed > 8


def test_an_idle_copy_is_dropped_too_and_a_bounded_stream_gets_all_its_batches_from_the_others():
    window = window_of(2, on_loss="drop", max_batches=6, bound=2)
    seen = []
    for ticket in by_lane(window)[0]:
        answer(window, ticket)
    window.drop(0)
    window.worker_lost(0)
    while not window.over:
        for _, ticket in list(window.issue()) or [(1, state.ticket) for state in window.issued.values()]:
            if not window.issued[ticket.number].done:
                answer(window, ticket)
        seen += delivered(window)
        check(window)
    assert seen[-1] == StreamEnded()
    assert len(seen) == 6 + 1
    assert len([lane for lane, _ in seen[:-1] if lane == 1]) >= 4


def test_the_last_copy_is_known():
    window = window_of(3, on_loss="drop")
    tickets = by_lane(window)
    assert not window.is_last(0)
    answer(window, tickets[1][0], 0, ended=True)
    assert not window.is_last(0)
    window.drop(2)
    assert window.is_last(0)
