"""Which worker a Sequence's ticket goes to, and which tickets no worker should have any more."""

from collections import Counter

from rayfeed.queue.bound import Bound
from rayfeed.queue.deliveries import StreamFailed
from rayfeed.queue.sequence_window import SequencePlan, SequenceWindow
from rayfeed.queue.window import DEADLY
from tests.unit.queue.invariants import check


def test_a_second_ticket_goes_to_the_worker_that_will_be_done_first():
    window = SequenceWindow(stream=0, bound=Bound(2), plan=SequencePlan(40))
    for worker in range(4):
        window.worker_ready(worker, 1)
    first = list(window.issue())
    assert [worker for worker, _ in first] == [0, 1, 2, 3, 0, 1]
    for worker, ticket in first[
        :2
    ]:  # workers 0 and 1 go on with their second tickets, which are younger than 2's and 3's
        window.answered(worker, ticket, payload=None, num_batches=1, seconds=1.0)
    list(window.deliver())
    window.consumed(2)
    assert [worker for worker, _ in window.issue()] == [2, 3]


def test_workers_that_are_done_at_once_take_turns():
    window = SequenceWindow(stream=0, bound=Bound(1), plan=SequencePlan(1000))
    for worker in range(4):
        window.worker_ready(worker, 1)
    asked = []
    for _ in range(12):
        for worker, ticket in window.issue():
            asked.append(worker)
            window.answered(worker, ticket, payload=None, num_batches=len(ticket.indices), seconds=1e-6)
        window.consumed(sum(item.stop - item.start for item in window.deliver()))
    assert Counter(asked).keys() == {0, 1, 2, 3}
    assert max(Counter(asked).values()) - min(Counter(asked).values()) <= 1


def test_a_ticket_is_deadly_once_three_workers_were_lost_while_they_made_it():
    window = SequenceWindow(stream=0, bound=Bound(8), plan=SequencePlan(40))
    for life in range(3):
        assert window.deadly() is None
        window.worker_ready(0, 1)
        first, *others = (ticket for _, ticket in window.issue())
        assert (first.number, first.attempt) == (0, life)
        assert bool(others) == (life < 2)
        window.worker_lost(0)
    assert window.deadly().number == 0
    window.answered(0, window.deadly(), payload=None, num_batches=0, failure=KeyError("x"))
    assert window.deadly() is None, "the others only waited for their turn"
    assert isinstance(next(window.deliver()), StreamFailed)


def test_a_worker_of_several_threads_made_as_many_tickets_when_it_was_lost_and_each_is_tried_alone():
    window = SequenceWindow(stream=0, bound=Bound(8), plan=SequencePlan(40))
    for _ in range(2):
        window.worker_ready(0, 2)
        assert len(list(window.issue())) == 4
        window.worker_lost(0)
    assert [state.deaths for state in window.issued.values()] == [2, 2, 0, 0]
    window.worker_ready(0, 2)
    ((worker, innocent),) = window.issue()
    assert (worker, innocent.number) == (0, 0)
    window.answered(0, innocent, payload=None, num_batches=1)
    ((_, poison),) = window.issue()
    assert poison.number == 1
    window.worker_lost(0)
    assert window.deadly().number == 1
    window.answered(0, poison, payload=None, num_batches=0, failure=KeyError("x"))
    assert window.deadly() is None
    window.worker_ready(0, 2)
    assert [ticket.number for _, ticket in window.issue()] == [2, 3]


def test_the_worker_that_holds_least_is_kept_for_what_is_made_alone_while_others_go_on():
    window = SequenceWindow(stream=0, bound=Bound(40), plan=SequencePlan(400))
    for _ in range(2):
        window.worker_ready(0, 1)
        first, *_ = window.issue()
        window.worker_lost(0)
    assert window.issued[first[1].number].deaths == 2
    for worker in (1, 2):
        window.worker_ready(worker, 1)
    issued = list(window.issue())
    alone = [worker for worker, ticket in issued if ticket.number == 0]
    assert [worker for worker, _ in issued] == [*alone, *[3 - alone[0]] * 2]
    window.leave(alone[0])
    assert not list(window.issue())
    window.worker_lost(alone[0], died=False)  # only out of reach: it is tried alone once more
    assert not list(window.issue()), "the other one's hands are full"
    kept = 3 - alone[0]
    for worker, ticket in issued[1:]:
        assert worker == kept
        window.answered(worker, ticket, payload=None, num_batches=len(ticket.indices))
        again = [(worker, ticket.number) for worker, ticket in window.issue()]
    assert again == [(kept, 0)]


def grown(num_workers, bound=40):
    """A window whose tickets are for several batches."""
    window = SequenceWindow(stream=0, bound=Bound(bound), plan=SequencePlan(400))
    for worker in range(num_workers):
        window.worker_ready(worker, 1)
    for worker, ticket in list(window.issue()):
        window.answered(worker, ticket, payload=None, num_batches=1, seconds=1e-4)
    window.consumed(sum(item.stop - item.start for item in window.deliver()))
    return window


def test_a_ticket_of_several_batches_is_made_again_one_by_one_and_only_the_reason_is_deadly():
    window = grown(1)
    whole = next(iter(window.issue()))[1]
    assert len(whole.indices) > 2
    poison = whole.first + 1
    out = window.worker_lost(0)
    assert [ticket.indices for ticket in out[: len(whole.indices)]] == [(index,) for index in whole.indices]
    lives = 1
    while window.deadly() is None:
        window.worker_ready(0, 1)
        issued = list(window.issue())
        while issued:
            worker, ticket = issued.pop(0)
            if poison in ticket.indices:
                window.worker_lost(worker)
                lives += 1
                break
            window.answered(worker, ticket, payload=None, num_batches=len(ticket.indices), seconds=1e-4)
            issued += window.issue()
        check(window)
    assert lives == DEADLY
    assert window.deadly().indices == (poison,)
    assert not window.answered(0, whole, payload=None, num_batches=len(whole.indices)), "it was made in parts"


def test_a_ticket_that_was_only_out_of_reach_is_not_taken_apart():
    window = grown(1)
    whole = next(iter(window.issue()))[1]
    assert window.worker_lost(0, died=False)[0] == whole
    assert window.answered(0, whole, payload=None, num_batches=len(whole.indices))


def test_what_may_never_be_answered_goes_to_another_node_first_and_on_until_one_answers():
    window = SequenceWindow(stream=0, bound=Bound(1), plan=SequencePlan(1, max_passes=1))
    for worker, node in enumerate(["cut", "cut", "cut", "well"]):
        window.worker_ready(worker, 1, node)
    ((worker, ticket),) = window.issue()
    asked = [worker]
    for _ in range(3):
        window.suspect(ticket.number, ticket.attempt - 1)
        assert not list(window.issue()), "that one was suspected before"
        window.suspect(ticket.number, ticket.attempt)
        ((worker, ticket),) = window.issue()
        asked.append(worker)
        check(window)
    assert asked == [0, 3, 1, 2]
    assert window.answered(2, ticket, payload=None, num_batches=1)


def test_what_was_made_twice_goes_to_a_third_when_the_second_is_lost_and_the_first_does_not_answer():
    window = SequenceWindow(stream=0, bound=Bound(1), plan=SequencePlan(1, max_passes=1))
    for worker in range(3):
        window.worker_ready(worker, 1)
    ((_, ticket),) = window.issue()
    window.suspect(ticket.number, ticket.attempt)
    ((second, _),) = window.issue()
    assert window.worker_lost(second) == []
    assert [worker for worker, _ in window.issue()] == [3 - second]
    check(window)


def test_the_first_ones_loss_asks_nobody_else_while_the_second_is_at_it():
    window = SequenceWindow(stream=0, bound=Bound(1), plan=SequencePlan(1, max_passes=1))
    for worker in range(3):
        window.worker_ready(worker, 1)
    ((first, ticket),) = window.issue()
    window.suspect(ticket.number, ticket.attempt)
    assert len(list(window.issue())) == 1
    assert window.worker_lost(first) == []
    assert list(window.issue()) == []
    check(window)


def test_a_worker_holds_what_it_was_given_in_its_present_life():
    window = SequenceWindow(stream=0, bound=Bound(1), plan=SequencePlan(1, max_passes=1))
    window.worker_ready(0, 1)
    ((_, ticket),) = window.issue()
    assert window.holds(0, ticket)
    window.worker_lost(0)
    assert not window.holds(0, ticket)
    window.worker_ready(0, 1)
    ((_, again),) = window.issue()
    assert window.holds(0, again)
    assert not window.holds(0, ticket)
