"""The window of generators, driven through every order of events, and held against a plain round robin.

The state machine plays the producers, each running one copy of a generator that ends or raises somewhere, and the
consumer. Answers come in any order. ``RAYFEED_EXAMPLES=5000 pytest ...`` explores as many random histories.
"""

import os
from itertools import count, islice

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rayfeed.errors import InternalError
from rayfeed.queue.bound import Bound
from rayfeed.queue.deliveries import Deliver, StreamEnded, StreamFailed
from rayfeed.queue.lane_window import LanePlan, LaneWindow
from rayfeed.queue.window import DEPTH
from tests.unit.queue.invariants import check

FAR = 500
"""Batches after which an endless copy is as good as at its end; no history gets as far."""

EXPLORE = settings(
    max_examples=int(os.environ.get("RAYFEED_EXAMPLES", "120")),
    stateful_step_count=40,
    derandomize="RAYFEED_EXAMPLES" not in os.environ,
    database=None,
    deadline=None,
)
EVENTS = [
    *["some answer"] * 3,
    *["one answers"] * 3,
    *["a worker comes"] * 2,
    "one answers late",
    "a worker is lost",
    "some is consumed",
    "the driver acts",
]
PLANS = st.builds(
    LanePlan,
    num_lanes=st.integers(1, 4),
    ordered=st.booleans(),
    max_batches=st.sampled_from([None, None, 1, 8, 30]),
    one_at_a_time=st.booleans(),
)
BOUNDS = st.builds(Bound, st.integers(1, 12), st.none() | st.integers(1, 300))
COPIES = st.tuples(st.sampled_from([0, 1, 3, 7, 12, FAR, FAR]), st.sampled_from([False, False, True]))
"""Of one copy: the batches it makes, and whether it raises then instead of ending."""


def round_robin(copies, limit=None):
    """The stream as one would write it with generators: (lane, place) of each batch, then "failure" or "end"."""

    def run(lane, length, raises):
        for place in range(length):
            yield lane, place
        if raises:
            yield "failure"

    def merged():
        running = [run(lane, *copy) for lane, copy in enumerate(copies)]
        while running:
            for copy in list(running):
                item = next(copy, None)
                if item is None:
                    running.remove(copy)
                else:
                    yield item

    for item in islice(merged(), limit):
        yield item
        if item == "failure":
            return
    yield "end"


class Histories(RuleBasedStateMachine):
    """Random histories of one window."""

    @initialize(
        plan=PLANS,
        bound=BOUNDS,
        copies=st.lists(COPIES, min_size=4, max_size=4),
        num_workers=st.integers(1, 5),
        is_prompt=st.sampled_from([True, True, True, False]),
    )
    def open(self, plan, bound, copies, num_workers, is_prompt):
        self.plan, self.bound, self.copies, self.is_prompt = plan, bound, copies[: plan.num_lanes], is_prompt
        self.window = LaneWindow(stream=7, bound=bound, plan=plan)
        self.workers = set()
        self.flying = []  # (worker, ticket) whose answer is to come
        self.zombies = []  # the same, of workers that were lost
        self.issued = []  # tickets
        self.done = {}  # ticket number -> (payload, batches made)
        self.known_ends = {}  # lane -> the batches it made, once an answer told its end
        self.failures = set()
        self.seen = []
        self.num_consumed = 0
        self.is_over = False
        self.order = list(islice(round_robin(self.copies, plan.max_batches), FAR))
        for worker in range(num_workers):
            self.a_worker_comes(worker, 1)

    # What the model knows

    @property
    def num_made(self):
        return sum(made for _, made in self.done.values())

    @property
    def num_seen(self):
        return sum(isinstance(item, tuple) for item in self.seen)

    def outstanding(self):
        out = sum(len(ticket.indices) for ticket in self.issued if ticket.number not in self.done)
        return out + self.num_made - self.num_consumed

    def position(self, lane, place):
        """Where a batch stands in an ordered stream, by what is known of the copies' ends."""
        lengths = {lane: self.known_ends.get(lane, (FAR, None))[0] for lane in range(self.plan.num_lanes)}
        return sum(min(lengths[other], place + (other < lane)) for other in lengths)

    def wants_of(self, lane):
        """Whether a batch that the consumer is to get of this lane is out, or may still be asked for."""
        ended = self.known_ends.get(lane)
        out = [ticket for ticket in self.issued if ticket.lane == lane and ticket.number not in self.done]
        if ended is not None:
            return any(ticket.first < ended[0] for ticket in out)
        if self.plan.max_batches is None:
            return True
        if any(ticket.number not in self.done for ticket in self.issued):
            return True
        if not self.plan.ordered:
            return self.num_made < self.plan.max_batches
        firsts = self.firsts()
        running = [other for other in firsts if other not in self.known_ends]
        return any(self.position(other, firsts[other]) < self.plan.max_batches for other in running)

    def firsts(self):
        """The next place of each lane."""
        return {
            lane: max([ticket.first + len(ticket.indices) for ticket in self.issued if ticket.lane == lane], default=0)
            for lane in range(self.plan.num_lanes)
        }

    # What stands around the window

    @rule(event=st.sampled_from(EVENTS), data=st.data())
    def something_happens(self, event, data):
        """One rule for all events: Hypothesis leaves rules out of whole histories, and most are needed."""
        match event:
            case "some answer":
                self.some_workers_answer_and_all_is_consumed(data)
            case "one answers":
                self.one_answers(data)
            case "one answers late":
                self.one_answers_late()
            case "a worker comes":
                self.a_worker_comes(data.draw(st.integers(0, 5)), data.draw(st.integers(1, 3)))
            case "a worker is lost":
                self.a_worker_is_lost(data.draw(st.integers(0, 5)))
            case "some is consumed" if self.num_seen > self.num_consumed:
                self.consume(data.draw(st.integers(1, self.num_seen - self.num_consumed)))
            case "the driver acts":
                self.tickets_are_issued()
                self.batches_are_delivered()

    def a_worker_comes(self, worker, slots):
        if worker not in self.workers:
            self.workers.add(worker)
            self.window.worker_ready(worker, slots)
            self.after_an_event()

    def a_worker_is_lost(self, worker):
        if worker not in self.workers:
            return
        has_begun = any(ticket.lane == worker for ticket in self.issued)
        assert self.window.breaks(worker) == (has_begun and self.wants_of(worker))
        if self.window.breaks(worker):  # the driver ends the stream then
            return
        self.workers.remove(worker)
        self.zombies += [item for item in self.flying if item[0] == worker]
        self.flying = [item for item in self.flying if item[0] != worker]
        assert self.window.worker_lost(worker) == []
        for ticket in self.issued:  # beyond the copy's end: there is nothing to make again
            if ticket.lane == worker and ticket.number not in self.done:
                self.done[ticket.number] = None, 0
        self.after_an_event()

    def after_an_event(self):
        """What the driver does after each event; here not always at once."""
        if self.is_prompt:
            self.tickets_are_issued()
            self.batches_are_delivered()

    def tickets_are_issued(self):
        for worker, ticket in self.window.issue():
            self.check_ticket(worker, ticket)
            self.flying.append((worker, ticket))
            self.issued.append(ticket)

    def check_ticket(self, worker, ticket):
        limit = self.bound.num_batches + self.plan.num_lanes
        assert not self.is_over
        assert worker == ticket.lane
        assert worker in self.workers
        assert worker not in self.known_ends
        assert (ticket.attempt, ticket.pass_index, ticket.stream) == (0, 0, 7)
        assert ticket.first == self.firsts()[worker]
        assert ticket.indices == tuple(range(ticket.first, ticket.first + len(ticket.indices)))
        assert len(ticket.indices) > 0
        assert self.window.limit <= limit
        if self.outstanding() + len(ticket.indices) > self.window.limit:
            # Only the one batch that the consumer, with nothing left to read, waits for.
            assert self.bound.num_bytes is not None
            assert len(ticket.indices) == 1
            assert self.num_seen == self.num_consumed
            assert self.order[self.num_seen] in [(worker, ticket.first), "end", "failure"]
        depth = 1 if self.plan.one_at_a_time else DEPTH
        assert sum(holder == worker for holder, _ in self.flying) < depth
        if self.plan.max_batches is not None:
            if self.plan.ordered:
                assert all(self.position(worker, place) < self.plan.max_batches for place in ticket.indices)
            out = sum(len(other.indices) for other in self.issued if other.number not in self.done)
            assert self.num_made + out + len(ticket.indices) <= self.plan.max_batches or self.plan.ordered

    def one_answers(self, data):
        if not self.flying:
            return
        worker, ticket = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        size = data.draw(st.sampled_from([0, 1, 10, 100]))
        self.answer(worker, ticket, size=size, seconds=data.draw(st.sampled_from([0.0, 0.001, 0.01, 0.5])))

    def some_workers_answer_and_all_is_consumed(self, data):
        for _ in range(data.draw(st.integers(1, 4))):
            self.one_answers(data)
        self.consume(self.num_seen - self.num_consumed)

    def one_answers_late(self):
        if self.zombies:
            worker, ticket = self.zombies.pop()
            assert not self.window.answered(worker, ticket, payload="late", num_batches=len(ticket.indices))

    def answer(self, worker, ticket, *, size=10, seconds=0.001):
        length, raises = self.copies[ticket.lane]
        made = min(len(ticket.indices), max(0, length - ticket.first))
        ended, failure = made < len(ticket.indices), None
        # The copy raises in the ticket that holds the place; what is asked for after that finds it ended.
        if ended and raises and ticket.first <= length:
            ended, failure = False, ValueError(f"of lane {ticket.lane}")
            self.failures.add(failure)
        payload = (ticket, made)
        first = self.window.answered(
            worker,
            ticket,
            payload=payload,
            num_batches=made,
            num_bytes=made * size,
            seconds=seconds,
            ended=ended,
            failure=failure,
        )
        assert first
        self.done[ticket.number] = payload, made
        if ended or failure is not None:
            told = ticket.first + made
            before = self.known_ends.get(ticket.lane)
            if before is None or told <= before[0]:
                self.known_ends[ticket.lane] = told, failure
        self.after_an_event()

    def batches_are_delivered(self):
        for item in self.window.deliver():
            assert not self.is_over
            match item:
                case Deliver((ticket, made), start, stop):
                    assert 0 <= start < stop <= made
                    self.seen += [(ticket.lane, place) for place in ticket.indices[start:stop]]
                case StreamFailed(failure):
                    assert failure in self.failures
                    self.seen.append("failure")
                    self.is_over = True
                case StreamEnded():
                    self.seen.append("end")
                    self.is_over = True
                case _:
                    raise AssertionError(item)
        if self.plan.ordered:
            assert self.seen == self.order[: len(self.seen)]
        else:
            self.check_unordered()

    def check_unordered(self):
        batches = [item for item in self.seen if isinstance(item, tuple)]
        assert len(set(batches)) == len(batches)
        assert all(place < self.copies[lane][0] for lane, place in batches)
        assert self.plan.max_batches is None or len(batches) <= self.plan.max_batches
        if "end" in self.seen:
            total = sum(length for length, _ in self.copies)
            assert len(batches) == (total if self.plan.max_batches is None else min(total, self.plan.max_batches))

    def consume(self, number):
        self.window.consumed(number)
        self.num_consumed += number
        self.after_an_event()

    @invariant()
    def the_window_is_in_order(self):
        if not hasattr(self, "window"):
            return
        check(self.window)
        assert self.window.outstanding == self.outstanding()
        # One more where a bound in bytes shrank, for the batch that is due.
        assert self.num_made - self.num_consumed <= self.bound.num_batches + self.plan.num_lanes

    def progress(self):
        return len(self.seen), self.num_consumed, len(self.issued), len(self.done)

    def teardown(self):
        """With a worker for each copy, answers and a consumer, every stream goes on to its end."""
        if not hasattr(self, "window"):
            return
        for worker in range(self.plan.num_lanes):
            self.a_worker_comes(worker, 1)
        enough = self.num_seen + 40
        while not self.is_over and self.num_seen < enough:
            before = self.progress()
            self.tickets_are_issued()
            while self.flying:
                self.answer(*self.flying.pop())
            self.batches_are_delivered()
            self.consume(self.num_seen - self.num_consumed)
            self.the_window_is_in_order()
            assert self.progress() != before, f"stalled: {self.plan}, {self.bound}, {self.copies}, {self.seen}"
        if self.is_over:
            assert not list(self.window.issue())
            if self.plan.ordered:
                assert self.seen == self.order


TestEveryHistoryKeepsTurnsBoundsAndProgress = Histories.TestCase
TestEveryHistoryKeepsTurnsBoundsAndProgress.settings = EXPLORE


# By example


def window_of(lanes=2, *, bound=8, num_bytes=None, workers=None, **plan):
    window = LaneWindow(stream=0, bound=Bound(bound, num_bytes), plan=LanePlan(lanes, **plan))
    for worker in range(lanes if workers is None else workers):
        window.worker_ready(worker, 1)
    return window


def answer(window, ticket, made=None, **options):
    made = len(ticket.indices) if made is None else made
    assert window.answered(ticket.lane, ticket, payload=ticket, num_batches=made, **options)


def delivered(window):
    """What can be delivered now, and is consumed."""
    seen = []
    for item in window.deliver():
        if isinstance(item, Deliver):
            seen += [(item.payload.lane, place) for place in item.payload.indices[item.start : item.stop]]
            window.consumed(item.stop - item.start)
        else:
            seen.append(item)
    return seen


def test_several_copies_take_turns():
    window, seen = window_of(3), []
    for _ in range(3):
        for _, ticket in list(window.issue()):
            answer(window, ticket)
        seen += delivered(window)
    assert seen[:7] == [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (0, 2)]


def test_the_turn_waits_for_a_slow_copy_though_others_have_made_theirs():
    window = window_of(2)
    tickets = [ticket for _, ticket in window.issue()]
    for ticket in tickets:
        if ticket.lane == 1:
            answer(window, ticket)
    assert delivered(window) == []
    answer(window, next(ticket for ticket in tickets if ticket.lane == 0))
    assert delivered(window) == [(0, 0), (1, 0)]


def test_unordered_delivery_gives_what_is_made_first():
    window = window_of(2, ordered=False)
    tickets = [ticket for _, ticket in window.issue()]
    for ticket in tickets:
        if ticket.lane == 1:
            answer(window, ticket)
    assert delivered(window) == [(1, 0), (1, 1)]


def test_a_bounded_stream_asks_no_copy_for_more_than_its_turns():
    window = window_of(3, bound=30, max_batches=4)
    places = []
    for _ in range(9):
        for _, ticket in list(window.issue()):
            places += [(ticket.lane, place) for place in ticket.indices]
            answer(window, ticket, seconds=1e-6)
    assert sorted(places) == [(0, 0), (0, 1), (1, 0), (2, 0)]
    assert delivered(window) == [(0, 0), (1, 0), (2, 0), (0, 1), StreamEnded()]


def test_when_a_copy_ends_early_the_others_fill_a_bounded_stream():
    window, seen = window_of(2, max_batches=6), []
    while StreamEnded() not in seen:
        for _, ticket in list(window.issue()):
            is_short = ticket.lane == 1
            answer(window, ticket, 0 if is_short else None, ended=is_short)
        seen += delivered(window)
    assert seen == [*[(0, place) for place in range(6)], StreamEnded()]


def test_a_bounded_stream_of_nothing_ends_at_once():
    window = window_of(2, max_batches=0)
    assert not list(window.issue())
    assert delivered(window) == [StreamEnded()]


def test_a_slow_copy_is_not_starved_of_room_by_a_fast_one():
    window = window_of(2, bound=8, workers=0)
    window.worker_ready(1, 1)
    for _ in count():
        tickets = [ticket for _, ticket in window.issue()]
        if not tickets:
            break
        for ticket in tickets:
            answer(window, ticket, seconds=1e-6)
    assert window.num_made == (8 + 2) // 2
    window.worker_ready(0, 1)
    assert {ticket.lane for _, ticket in window.issue()} == {0}


def test_a_producer_of_several_threads_holds_one_ticket_of_a_generator():
    window = LaneWindow(stream=0, bound=Bound(8), plan=LanePlan(1, one_at_a_time=True))
    window.worker_ready(0, 4)
    ((_, ticket),) = window.issue()
    answer(window, ticket)
    assert len(list(window.issue())) == 1
    assert window.limit == 8 + 1


def test_producers_without_a_copy_get_no_ticket_and_widen_no_bound():
    window = window_of(1, workers=4)
    assert {worker for worker, _ in window.issue()} == {0}
    assert window.limit == 8 + 1
    assert not window.breaks(3)


def test_tickets_go_first_to_the_copy_that_is_behind():
    assert [ticket.lane for _, ticket in window_of(3).issue()] == [0, 1, 2, 0, 1, 2]


def test_no_more_is_outstanding_than_the_queue_holds_and_one_in_hand():
    window = window_of(1, bound=3)
    for _ in range(9):
        for _, ticket in list(window.issue()):
            answer(window, ticket)
        list(window.deliver())
    assert window.outstanding == window.num_made == 3 + 1


def test_an_unordered_failure_comes_after_what_was_made_before_it_and_ends_the_stream():
    window = window_of(2, ordered=False)
    tickets = {(ticket.lane, ticket.first): ticket for _, ticket in window.issue()}
    error = ValueError("the source's own")
    answer(window, tickets[1, 0])
    answer(window, tickets[0, 0], 0, failure=error)
    answer(window, tickets[1, 1])
    assert delivered(window) == [(1, 0), StreamFailed(error)]
    assert delivered(window) == []


def test_a_failure_comes_in_its_turn():
    window = window_of(2)
    error = ValueError("the source's own")
    tickets = {(ticket.lane, ticket.first): ticket for _, ticket in window.issue()}
    answer(window, tickets[1, 0], 0, failure=error)
    assert delivered(window) == []
    answer(window, tickets[0, 0])
    assert delivered(window) == [(0, 0), StreamFailed(error)]
    answer(window, tickets[0, 1])
    assert delivered(window) == []
    assert not list(window.issue())


def test_the_batches_made_before_a_failure_or_the_end_are_delivered():
    for event in ({"ended": True}, {"failure": ValueError("the source's own")}):
        window = window_of(1, bound=30)
        for _, ticket in list(window.issue()):
            answer(window, ticket, seconds=1e-6)
        delivered(window)
        first, second = (ticket for _, ticket in window.issue())
        assert len(first.indices) > 2
        answer(window, second, 0, ended=True)
        answer(window, first, 2, **event)
        places = delivered(window)
        assert places[:2] == [(0, place) for place in first.indices[:2]]
        assert places[2:] == [StreamFailed(event["failure"]) if "failure" in event else StreamEnded()]


def test_a_running_copy_is_lost_with_its_producer():
    window = window_of(2)
    assert not window.breaks(0)
    first, *_ = (ticket for _, ticket in window.issue())
    assert window.breaks(0)
    answer(window, first)
    assert window.breaks(0)
    with pytest.raises(InternalError, match="worker 0 was lost with the position of its generator"):
        window.worker_lost(0)


def test_a_copy_that_has_ended_is_not_lost_and_its_other_ticket_holds_up_nobody():
    window = window_of(2)
    tickets = {(ticket.lane, ticket.first): ticket for _, ticket in window.issue()}
    answer(window, tickets[0, 0], 0, ended=True)
    assert not window.breaks(0)
    assert window.worker_lost(0) == []
    check(window)
    window.worker_ready(0, 1)  # its replacement would begin the generator anew: it must not be asked
    answer(window, tickets[1, 0])
    assert {ticket.lane for _, ticket in window.issue()} == {1}
    assert delivered(window) == [(1, 0)]


def test_a_copy_whose_end_is_known_before_all_its_batches_are_there_is_lost_with_its_producer():
    window = window_of(1)
    first, second = (ticket for _, ticket in window.issue())
    answer(window, second, 0, ended=True)
    assert window.breaks(0)
    answer(window, first)
    assert not window.breaks(0)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_producer_lost_when_all_of_a_bounded_stream_is_made_breaks_nothing(ordered):
    window = window_of(2, max_batches=4, ordered=ordered)
    tickets = [ticket for _, ticket in window.issue()]
    for ticket in tickets[:-1]:
        answer(window, ticket)
    assert window.breaks(0)
    answer(window, tickets[-1])
    assert not window.breaks(0)
    window.worker_lost(0)
    assert delivered(window)[-1] == StreamEnded()


def test_copies_that_are_wanted_and_have_no_worker_are_told():
    window = window_of(3, workers=1)
    assert window.awaited() == {1, 2}
    window.worker_ready(2, 1)
    assert window.awaited() == {1}
    for _, ticket in list(window.issue()):
        if ticket.lane == 2:
            answer(window, ticket, 0, ended=True)
    window.worker_lost(2)
    assert window.awaited() == {1}
    assert window_of(3, workers=0, max_batches=2).awaited() == {0, 1}


def test_a_lane_of_several_hands_over_batch_by_batch():
    window = window_of(2, bound=30)
    for _ in range(2):
        for _, ticket in list(window.issue()):
            answer(window, ticket, seconds=1e-6)
    assert all(item.stop - item.start == 1 for item in window.deliver())


def test_a_bound_in_bytes_that_shrinks_leaves_room_for_the_batch_that_is_due():
    window = window_of(2, bound=20, num_bytes=100)
    for _ in range(6):  # lane 1 makes small batches ahead of its turn
        for _, ticket in list(window.issue()):
            if ticket.lane == 1:
                answer(window, ticket, num_bytes=1)
    for number in list(window.issued):  # then lane 0 makes large ones, all of which are read
        ticket = window.issued[number].ticket
        if ticket.lane == 0:
            answer(window, ticket, num_bytes=100_000)
    seen = delivered(window)
    assert seen[-1][0] == 1
    assert window.outstanding > window.limit
    assert [(ticket.lane, len(ticket.indices)) for _, ticket in window.issue()] == [(0, 1)]
    assert not list(window.issue())
