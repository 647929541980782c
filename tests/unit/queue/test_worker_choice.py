"""Which worker a Sequence's ticket goes to, and which tickets no worker should have any more."""

from collections import Counter

from rayfeed.queue.sequence_window import SequencePlan, SequenceWindow
from rayfeed.queue.window import Bound, StreamFailed


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
        first, second, *_ = (ticket for _, ticket in window.issue())
        assert (first.number, first.attempt) == (0, life)
        window.worker_lost(0)
    assert window.deadly().number == 0
    window.answered(0, window.deadly(), payload=None, num_batches=0, failure=KeyError("x"))
    assert window.deadly() is None, f"{second} only waited for its turn"
    assert isinstance(next(window.deliver()), StreamFailed)


def test_a_worker_of_several_threads_made_as_many_tickets_when_it_was_lost():
    window = SequenceWindow(stream=0, bound=Bound(8), plan=SequencePlan(40))
    for _ in range(3):
        window.worker_ready(0, 2)
        assert len(list(window.issue())) == 4
        window.worker_lost(0)
    assert [state.deaths for state in window.issued.values()] == [3, 3, 0, 0]
