"""Tickets that take too long: when they are made elsewhere, told, and when their producer is taken for lost."""

from dataclasses import replace

import pytest

from rayfeed.producer.messages import At
from rayfeed.queue.bound import Bound
from rayfeed.queue.lane_window import LanePlan, LaneWindow
from rayfeed.queue.sequence_window import SequencePlan, SequenceWindow
from rayfeed.queue.watchdog import HANGS, LEAST_S, Watchdog
from rayfeed.queue.window import Issued
from tests.unit.queue.invariants import check

TIMEOUT_S = 12.0


def opened(*slots, bound=4, length=1000):
    window = SequenceWindow(stream=0, bound=Bound(bound), plan=SequencePlan(length, max_passes=1))
    for worker, number in enumerate(slots):
        window.worker_ready(worker, number)
    return window


def answer(window, worker, ticket, seconds=0.01):
    window.answered(worker, ticket, payload=None, num_batches=len(ticket.indices), seconds=seconds)
    window.consumed(sum(item.stop - item.start for item in window.deliver()))


def told(watchdog, window, now):
    return [(slow.worker, slow.ticket.number, slow.waited_s) for slow in watchdog.look(window, now).slow]


def test_what_a_worker_makes_is_told_at_the_timeout_and_again_when_that_has_doubled():
    window, watchdog = opened(1), Watchdog(TIMEOUT_S)
    list(window.issue())
    assert told(watchdog, window, 100.0) == []
    assert told(watchdog, window, 111.9) == []
    assert told(watchdog, window, 112.0) == [(0, 0, 12.0)]
    assert told(watchdog, window, 123.9) == []
    assert told(watchdog, window, 124.0) == [(0, 0, 24.0)]
    assert told(watchdog, window, 147.9) == []
    assert told(watchdog, window, 148.0) == [(0, 0, 48.0)]


def test_the_time_that_a_ticket_waits_behind_another_does_not_count():
    window, watchdog = opened(1), Watchdog(TIMEOUT_S)
    (_, first), (_, second) = window.issue()
    told(watchdog, window, 0.0)
    told(watchdog, window, 11.0)
    answer(window, 0, first)
    assert told(watchdog, window, 20.0) == []
    assert told(watchdog, window, 31.9) == []
    assert told(watchdog, window, 32.0) == [(0, second.number, 12.0)]


def test_each_thread_of_a_worker_makes_one():
    window, watchdog = opened(2), Watchdog(TIMEOUT_S)
    assert len(list(window.issue())) == 4
    told(watchdog, window, 0.0)
    assert told(watchdog, window, 12.0) == [(0, 0, 12.0), (0, 1, 12.0)]


def test_what_takes_much_longer_than_others_is_made_by_an_idle_worker_with_all_that_waits_behind_it():
    window, watchdog = opened(1, 1, bound=2), Watchdog(TIMEOUT_S)
    issued = list(window.issue())
    assert [worker for worker, _ in issued] == [0, 1, 0, 1]
    watchdog.look(window, 0.0)
    for worker, ticket in issued[1::2]:
        answer(window, worker, ticket, seconds=0.1)
    assert list(window.issue()) == [], "there is room only when batch 0 comes"
    watchdog.look(window, LEAST_S - 0.1)
    assert list(window.issue()) == []
    watchdog.look(window, LEAST_S)
    again = list(window.issue())
    assert [(worker, ticket.number, ticket.attempt) for worker, ticket in again] == [(1, 0, 1)]
    answer(window, *again[0])
    check(window)
    again = [(worker, ticket) for worker, ticket in window.issue() if ticket.attempt]
    assert [(worker, ticket.number) for worker, ticket in again] == [(1, 2)], "it waited behind batch 0"
    assert window.num_remade == 2
    late = window.answered(0, issued[0][1], payload=None, num_batches=1)
    assert not late


def test_what_should_take_long_is_given_as_much_time():
    window, watchdog = opened(1, 1, bound=1), Watchdog(1000.0)
    issued = list(window.issue())
    watchdog.look(window, 0.0)
    answer(window, *issued[1], seconds=2.0)
    watchdog.look(window, 39.9)
    assert [ticket for _, ticket in window.issue() if ticket.attempt] == []
    watchdog.look(window, 40.0)
    assert [ticket.number for _, ticket in window.issue() if ticket.attempt] == [0]


def test_one_slow_answer_among_others_says_nothing_of_what_is_usual():
    window, watchdog = opened(1, 1), Watchdog(1000.0)
    for _ in range(3):
        for worker, ticket in list(window.issue()):
            answer(window, worker, ticket, seconds=100.0 if ticket.number == 0 else 0.001)
    assert window.sizer.usual_s() == pytest.approx(0.001)
    (_, stuck), *others = window.issue()
    for worker, ticket in others:
        answer(window, worker, ticket)
    watchdog.look(window, 0.0)
    watchdog.look(window, LEAST_S)
    assert stuck.number in {ticket.number for _, ticket in window.issue() if ticket.attempt}


def test_before_anything_was_made_only_the_timeout_counts():
    window, watchdog = opened(1, 1, bound=1, length=3), Watchdog(TIMEOUT_S)
    assert len(list(window.issue())) == 3
    window.worker_ready(2, 1)
    for now in (0.0, 11.9):
        watchdog.look(window, now)
        assert [ticket for _, ticket in window.issue() if ticket.attempt] == []
    watchdog.look(window, 12.0)
    assert [(worker, ticket.attempt) for worker, ticket in window.issue()] == [(2, 1)]


def test_a_worker_that_makes_one_ticket_for_ten_timeouts_hangs_also_where_that_was_made_elsewhere():
    window, watchdog = opened(1, 1), Watchdog(TIMEOUT_S)
    issued = list(window.issue())
    watchdog.look(window, 0.0)
    answer(window, 1, issued[1][1])
    watchdog.look(window, TIMEOUT_S)
    again = [(worker, ticket) for worker, ticket in window.issue() if ticket.attempt]
    for worker, ticket in again:
        answer(window, worker, ticket)
    assert watchdog.look(window, HANGS * TIMEOUT_S - 0.1).hanging == {}
    found = watchdog.look(window, HANGS * TIMEOUT_S)
    assert found.hanging == {0: HANGS * TIMEOUT_S}
    assert 0 not in {slow.ticket.number for slow in found.slow}
    window.worker_lost(0)
    check(window)
    assert watchdog.look(window, HANGS * TIMEOUT_S + 1).hanging == {}


@pytest.mark.parametrize("num_lanes", [1, 2])
def test_a_generators_batches_are_told_and_made_by_no_other(num_lanes):
    window = LaneWindow(stream=0, bound=Bound(4), plan=LanePlan(num_lanes=num_lanes))
    for worker in range(num_lanes + 1):
        window.worker_ready(worker, 1)
    watchdog = Watchdog(TIMEOUT_S)
    list(window.issue())
    watchdog.look(window, 0.0)
    assert [slow.worker for slow in watchdog.look(window, TIMEOUT_S).slow] == list(range(num_lanes))
    assert list(window.issue()) == []


def several(timeout_s=TIMEOUT_S, workers=1):
    """A window and a watchdog; the first worker makes a ticket of several batches since second 0."""
    window, watchdog = opened(*[1] * workers, bound=40), Watchdog(timeout_s)
    for worker, ticket in list(window.issue()):
        answer(window, worker, ticket, seconds=1e-3)
    ticket = next(iter(window.issue()))[1]
    assert len(ticket.indices) > 2
    watchdog.look(window, 0.0)
    return window, watchdog, ticket


def test_of_a_ticket_of_several_batches_the_one_that_is_made_is_found_out_and_told():
    window, watchdog, ticket = several()
    assert watchdog.look(window, LEAST_S - 0.1).asked == set()
    assert watchdog.look(window, LEAST_S).asked == {0}
    watchdog.stands(0, At(0, ticket.number, ticket.attempt, offset=2, seconds=1.0), 5.0)
    assert told(watchdog, window, 15.9) == []
    (slow,) = watchdog.look(window, 16.0).slow
    assert (slow.ticket, slow.waited_s) == (ticket.only(2), 12.0)
    assert slow.ticket.first == ticket.first + 2


def test_a_worker_that_goes_on_to_the_next_batch_does_not_hang_however_long_its_ticket_takes():
    window, watchdog, ticket = several(timeout_s=2.0)
    for offset in range(len(ticket.indices)):
        now = 1.9 * (offset + 1)
        watchdog.stands(0, At(0, ticket.number, ticket.attempt, offset, seconds=0.0), now)
        found = watchdog.look(window, now + 1.8)
        assert (found.slow, found.hanging) == ([], {})
    assert watchdog.look(window, now + HANGS * 2.0).hanging == {0: HANGS * 2.0}


def test_what_a_worker_says_of_another_ticket_or_time_counts_for_nothing():
    window, watchdog, ticket = several()
    watchdog.stands(0, At(0, ticket.number, ticket.attempt + 1, 2, seconds=0.0), 11.0)
    watchdog.stands(1, At(0, ticket.number, ticket.attempt, 2, seconds=0.0), 11.0)
    watchdog.stands(0, At(0, ticket.number, ticket.attempt, 0, seconds=20.0), 11.0)  # its clock is another
    assert told(watchdog, window, 12.0) == [(0, ticket.number, 12.0)]


def test_each_further_worker_that_takes_as_long_is_given_twice_the_time():
    window, watchdog = opened(*[1] * 4, bound=1, length=1), Watchdog(TIMEOUT_S)
    list(window.issue())
    asked = []
    for now in range(100):
        watchdog.look(window, float(now))
        asked += [(now, worker) for worker, _ in window.issue()]
    # The first answer is still to come, so that the timeout is what counts; each is first seen a look later.
    assert asked == [(12, 1), (12 + 1 + 24, 2), (12 + 1 + 24 + 1 + 48, 3)]


def test_what_waits_behind_a_ticket_that_was_made_elsewhere_is_made_elsewhere_too():
    window, watchdog = opened(1, 1), Watchdog(TIMEOUT_S)
    (_, stuck), *others = window.issue()
    watchdog.look(window, 0.0)
    for worker, ticket in others:
        if worker == 1:
            answer(window, worker, ticket, seconds=0.01)
    watchdog.look(window, LEAST_S)
    again = [(worker, ticket) for worker, ticket in window.issue() if ticket.number == stuck.number]
    answer(window, *again[0])
    behind = [ticket.number for ticket in (held for _, held in window.issue())]
    window.held[0][900, 0] = None  # the one that hangs is given more
    window.issued[900] = Issued(replace(stuck, number=900), holders={0})
    watchdog.look(window, LEAST_S + 1)
    assert 900 in window.suspected, behind
