"""The window of a Sequence, driven through every order of events, and held against a plain loop over the passes.

The state machine below plays all that stands around a window: producers that come, die and answer late, the hook's
thread, the consumer. What it expects is computed from the plan by a loop that knows no tickets. Every run explores the
same histories, in a second or two; ``RAYFEED_EXAMPLES=5000 pytest ...`` explores as many random ones.
"""

import os
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rayfeed.errors import FeedClosedError, InternalError
from rayfeed.producer.messages import SourceRecord, Ticket
from rayfeed.queue.bound import Bound
from rayfeed.queue.deliveries import Deliver, PassBegun, PassEnded, StreamEnded, StreamFailed
from rayfeed.queue.inline import InlineStream
from rayfeed.queue.sequence_window import Hooks, SequencePlan, SequenceWindow
from rayfeed.queue.stream import Delivered
from rayfeed.queue.window import DEPTH
from rayfeed.source.seeding import pass_order
from rayfeed.source.stream import describe
from tests.unit.queue.invariants import check

FAR = 250
"""Items of the script that are computed; no history gets as far."""

WORKERS = (0, 1, 2)
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
    *["the hook returns"] * 2,
    "one answers late",
    "a worker comes",
    *["a worker is lost"] * 2,
    "a worker is suspected",
    "some is consumed",
    "the driver acts",
]
BOUNDS = st.builds(Bound, st.integers(1, 12), st.none() | st.integers(1, 300), st.none() | st.integers(1, 500))
PLANS = st.builds(
    SequencePlan,
    length=st.sampled_from([1, 2, 3, 9, 30]),
    has_epoch_end=st.booleans(),
    shuffle=st.booleans(),
    root=st.integers(0, 3),
    ordered=st.booleans(),
    max_passes=st.sampled_from([None, None, 1, 4]),
    max_batches=st.sampled_from([None, None, 1, 8, 25]),
    pass_cap=st.sampled_from([None, None, 1, 3, 7]),
    has_epoch_begin=st.booleans(),
)


def script(plan, lengths):
    """What the consumer will see: (pass, index) of each batch, the ends and beginnings of passes, the end.

    Stops where hooks decide what follows and have not run: `lengths` holds what they left after each pass, -1 being
    before the first.
    """

    def wanted(length):
        return length if plan.pass_cap is None else min(length, plan.pass_cap)

    pass_index, num_batches, length, is_last = -1, 0, plan.length, 0 in (plan.max_passes, plan.max_batches)
    while True:
        is_whole = pass_index >= 0 and wanted(length) == length
        if (plan.has_epoch_end and is_whole) or (plan.has_epoch_begin and not is_last):
            if pass_index not in lengths:
                return
            length = lengths[pass_index]
        if pass_index >= 0:
            yield PassEnded(pass_index, wanted(length))
        if is_last:
            yield StreamEnded()
            return
        pass_index += 1
        if plan.has_epoch_begin:
            yield PassBegun(pass_index, wanted(length))
        order = pass_order(plan.root, pass_index, length).tolist() if plan.shuffle else list(range(length))
        for index in order[: plan.pass_cap]:
            yield pass_index, index
            num_batches += 1
            if num_batches == plan.max_batches and index != order[-1]:
                yield StreamEnded()
                return
        is_last = pass_index + 1 == plan.max_passes or num_batches == plan.max_batches


class Histories(RuleBasedStateMachine):
    """Random histories of one window."""

    @initialize(
        plan=PLANS,
        bound=BOUNDS,
        workers=st.lists(st.integers(1, 3), min_size=1, max_size=3),
        is_prompt=st.sampled_from([True, True, True, False]),
        may_fail=st.sampled_from([False, False, False, True]),
    )
    def open(self, plan, bound, workers, is_prompt, may_fail):
        self.plan, self.bound, self.is_prompt, self.may_fail = plan, bound, is_prompt, may_fail
        self.window = SequenceWindow(stream=7, bound=bound, plan=plan)
        self.workers = {}  # worker -> slots
        self.flying = []  # (worker, ticket) whose answer is to come
        self.zombies = []  # the same, of workers taken for lost
        self.newest = {}  # ticket number -> the ticket in its newest attempt
        self.split = set()  # numbers of tickets that were issued again batch by batch
        self.done = {}  # ticket number -> (its first answer's payload, batches made, failure)
        self.lengths = {}  # pass -> what its hook left
        self.hook = None  # the pass whose hook runs
        self.seen = []
        self.num_consumed = self.most_slots = 0
        self._scripts = {}
        for worker, slots in enumerate(workers):
            self.a_worker_comes(worker, slots)

    # What the model knows

    def script(self):
        if len(self.lengths) not in self._scripts:
            self._scripts[len(self.lengths)] = list(islice(script(self.plan, self.lengths), FAR))
        return self._scripts[len(self.lengths)]

    def expected(self):
        """What an ordered consumer will see, as far as it is decided."""
        fail_at = {
            (ticket.pass_index, ticket.indices[made])
            for ticket, made, failure in ((self.newest[number], *rest) for number, (_, *rest) in self.done.items())
            if failure is not None
        }
        expected = []
        for item in self.script():
            if item in fail_at:
                return [*expected, "failure"]
            expected.append(item)
        return expected

    @property
    def num_made(self):
        return sum(made for _, made, _ in self.done.values())

    @property
    def num_seen(self):
        return sum(isinstance(item, tuple) for item in self.seen)

    @property
    def has_failed(self):
        return any(failure is not None for _, _, failure in self.done.values())

    @property
    def is_over(self):
        return bool(self.seen) and self.seen[-1] in ("failure", StreamEnded())

    def outstanding(self):
        out = sum(len(ticket.indices) for number, ticket in self.newest.items() if number not in self.done)
        return out + self.num_made - self.num_consumed

    # What stands around the window

    @rule(event=st.sampled_from(EVENTS), data=st.data())
    def something_happens(self, event, data):
        """One rule for all events: Hypothesis leaves rules out of whole histories, and most are needed."""
        match event:
            case "some answer":
                self.some_workers_answer_and_all_is_consumed(data)
            case "one answers":
                self.one_answers(self.flying, data)
            case "one answers late":
                self.one_answers(self.zombies, data)
            case "a worker comes":
                self.a_worker_comes(data.draw(st.sampled_from(WORKERS)), data.draw(st.integers(1, 3)))
            case "a worker is lost":
                self.a_worker_is_lost(data.draw(st.sampled_from(WORKERS)))
            case "a worker is suspected" if self.flying:
                _, ticket = data.draw(st.sampled_from(self.flying))
                self.window.suspect(ticket.number, ticket.attempt)
                self.after_an_event()
            case "some is consumed" if self.num_seen > self.num_consumed:
                self.consume(data.draw(st.integers(1, self.num_seen - self.num_consumed)))
            case "the hook returns" if self.hook is not None:
                self.the_hook_returns(data.draw(st.integers(1, 9)))
            case "the driver acts":
                self.tickets_are_issued()
                self.batches_are_delivered()
                self.the_hook_is_asked_for()

    def a_worker_comes(self, worker, slots):
        if worker not in self.workers:
            self.workers[worker] = slots
            self.most_slots = max(self.most_slots, sum(self.workers.values()))
            self.window.worker_ready(worker, slots)
            self.after_an_event()

    def a_worker_is_lost(self, worker):
        slots = self.workers.pop(worker, None)
        if slots is None:
            return
        held = [ticket for holder, ticket in self.flying if holder == worker]
        self.zombies += [(worker, ticket) for ticket in held]
        self.flying = [(holder, ticket) for holder, ticket in self.flying if holder != worker]
        others = {ticket.number for _, ticket in self.flying}
        orphans = iter(self.window.worker_lost(worker))
        for place, ticket in enumerate(held):  # in the order in which it got them
            wanted = self.newest[ticket.number]
            if ticket.number in self.done.keys() | others:
                continue
            if place >= slots or len(wanted.indices) == 1:
                assert next(orphans) == wanted
                continue
            parts = [next(orphans) for _ in wanted.indices]
            assert [part.indices for part in parts] == [(index,) for index in wanted.indices]
            assert [part.first for part in parts] == list(range(wanted.first, wanted.first + len(parts)))
            assert not {part.number for part in parts} & self.newest.keys()
            del self.newest[ticket.number]
            self.split.add(ticket.number)
            self.newest.update({part.number: part for part in parts})
        assert not list(orphans)
        self.after_an_event()

    def after_an_event(self):
        """What the driver does after each event; here not always at once."""
        if self.is_prompt:
            self.tickets_are_issued()
            self.batches_are_delivered()
            self.the_hook_is_asked_for()

    def tickets_are_issued(self):
        for worker, ticket in self.window.issue():
            self.check_ticket(worker, ticket)
            self.flying.append((worker, ticket))
            self.newest[ticket.number] = ticket

    def check_ticket(self, worker, ticket):
        assert not self.is_over
        before = self.newest.get(ticket.number)
        if before is None:
            assert ticket.attempt == 0
            assert not self.has_failed
            limit = self.bound.num_batches + sum(self.workers.values())
            assert self.window.limit <= limit
            assert self.outstanding() + len(ticket.indices) <= self.window.limit
        else:
            assert ticket.attempt == before.attempt + 1
            assert ticket.number not in self.done
            holders = [holder for holder, other in self.flying if other.number == ticket.number]
            assert not holders or worker not in {holder for holder, _ in self.flying}, "made twice by one with work"
        assert sum(holder == worker for holder, _ in self.flying) < DEPTH * self.workers[worker]
        # The script ends where a hook has to run first.
        places = [item[1] for item in self.script() if isinstance(item, tuple) and item[0] == ticket.pass_index]
        assert ticket.indices
        assert list(ticket.indices) == places[ticket.first : ticket.first + len(ticket.indices)]
        assert (ticket.version, ticket.lane, ticket.stream) == (len(self.lengths), 0, 7)

    def one_answers(self, waiting, data):
        if waiting:
            self.answer(*waiting.pop(data.draw(st.integers(0, len(waiting) - 1))), data)

    def some_workers_answer_and_all_is_consumed(self, data):
        for _ in range(data.draw(st.integers(1, 4))):
            self.one_answers(self.flying, data)
        self.consume(self.num_seen - self.num_consumed)

    def answer(self, worker, ticket, data=None):
        made, failure, size, seconds = len(ticket.indices), None, 10, 0.001
        if data is not None:
            size = data.draw(st.sampled_from([0, 1, 10, 100]))
            seconds = data.draw(st.sampled_from([0.0, 0.001, 0.01, 0.5]))
            if self.may_fail and data.draw(st.sampled_from([False, False, False, True])):
                made, failure = data.draw(st.integers(0, made - 1)), ValueError("the source's own")
        payload = (ticket, failure)
        is_first = self.window.answered(
            worker, ticket, payload=payload, num_batches=made, num_bytes=made * size, seconds=seconds, failure=failure
        )
        assert is_first == (ticket.number not in self.done.keys() | self.split)
        if is_first:
            self.done[ticket.number] = payload, made, failure
        self.after_an_event()

    def batches_are_delivered(self):
        for item in self.window.deliver():
            assert not self.is_over
            match item:
                case Deliver((ticket, _) as payload, start, stop):
                    assert payload is self.done[ticket.number][0]
                    assert 0 <= start < stop <= self.done[ticket.number][1]
                    self.seen += [(ticket.pass_index, index) for index in ticket.indices[start:stop]]
                case StreamFailed(failure):
                    assert failure in [failure for _, _, failure in self.done.values()]
                    self.seen.append("failure")
                case _:
                    self.seen.append(item)
        if self.plan.ordered:
            assert self.seen == self.expected()[: len(self.seen)]
        else:
            self.check_unordered()

    def check_unordered(self):
        """Each pass' batches, whole and each once, between the pass ends."""
        wanted = iter(self.script())
        batches, left = Counter(), Counter()
        for item in self.seen:
            if isinstance(item, tuple):
                batches[item] += 1
            elif item == "failure":
                assert self.has_failed
            else:
                for other in wanted:
                    if not isinstance(other, tuple):
                        assert item == other
                        break
                    left[other] += 1
                assert batches == left
        for other in wanted:
            if not isinstance(other, tuple):
                break
            left[other] += 1
        assert batches <= left

    def consume(self, count):
        self.window.consumed(count)
        self.num_consumed += count
        self.after_an_event()

    def the_hook_is_asked_for(self):
        hooks = self.window.wants_hooks()
        if hooks is not None:
            made = {
                (self.newest[number].pass_index, index)
                for number, (_, made, _) in self.done.items()
                for index in self.newest[number].indices[:made]
            }
            wanted = {item for item in self.script() if isinstance(item, tuple)}
            pass_index = hooks.ended if hooks.ended is not None else hooks.begun - 1
            assert hooks.ended is None or self.plan.has_epoch_end
            assert hooks.begun is None or (self.plan.has_epoch_begin and hooks.begun == pass_index + 1)
            assert self.hook is None
            assert pass_index not in self.lengths
            assert not self.has_failed
            assert wanted == made
            length = self.lengths.get(pass_index - 1, self.plan.length)
            is_whole = sum(item[0] == pass_index for item in wanted) == length
            assert (hooks.ended is not None) == (is_whole and self.plan.has_epoch_end), (
                "a pass cut short has no end hook"
            )
            self.hook = pass_index

    def the_hook_returns(self, length):
        self.window.pass_ready(length)
        self.lengths[self.hook], self.hook = length, None
        self.after_an_event()

    @invariant()
    def the_window_is_in_order(self):
        if not hasattr(self, "window"):
            return
        check(self.window)
        assert self.window.outstanding == self.outstanding()
        assert self.num_made - self.num_consumed <= self.bound.num_batches + self.most_slots

    def progress(self):
        return len(self.seen), self.num_consumed, len(self.newest), len(self.done), len(self.lengths)

    def teardown(self):
        """With one worker, answers and a consumer, every stream goes on to its end."""
        if not hasattr(self, "window"):
            return
        if not self.workers:
            self.a_worker_comes(0, 1)
        enough = self.num_seen + 30
        while not self.is_over and self.num_seen < enough:
            before = self.progress()
            self.tickets_are_issued()
            while self.flying:
                self.answer(*self.flying.pop())
            self.batches_are_delivered()
            self.consume(self.num_seen - self.num_consumed)
            self.the_hook_is_asked_for()
            if self.hook is not None:
                self.the_hook_returns(4)
            self.the_window_is_in_order()
            assert self.progress() != before, f"stalled: {self.window.phase}, {self.plan}, {self.bound}"
        for worker, ticket in self.zombies:
            self.answer(worker, ticket)
        if self.is_over and self.plan.ordered:
            assert self.seen == self.expected()
        assert self.is_over or (self.plan.max_passes is None and self.plan.max_batches is None) or enough <= FAR


TestEveryHistoryKeepsOrderBoundsAndProgress = Histories.TestCase
TestEveryHistoryKeepsOrderBoundsAndProgress.settings = EXPLORE


# By example


def window_of(length=8, *, workers=1, slots=1, bound=4, num_bytes=None, **plan):
    window = SequenceWindow(stream=0, bound=Bound(bound, num_bytes), plan=SequencePlan(length, **plan))
    for worker in range(workers):
        window.worker_ready(worker, slots)
    return window


def answer(window, worker, ticket, *, size=0, **options):
    return window.answered(
        worker, ticket, payload=ticket, num_batches=len(ticket.indices), num_bytes=size * len(ticket.indices), **options
    )


def read(window, count, *, hook=None):
    """Carry out what a window wants until the consumer has seen this many items."""
    seen = []
    while len(seen) < count:
        out = list(window.issue())
        for worker, ticket in out:
            assert ticket.indices
            answer(window, worker, ticket, seconds=0.001)
        items = list(window.deliver())
        for item in items:
            if isinstance(item, Deliver):
                seen += [(item.payload.pass_index, index) for index in item.payload.indices[item.start : item.stop]]
                window.consumed(item.stop - item.start)
            else:
                seen.append(item)
        hooks = window.wants_hooks()
        if hooks is not None and hook is not None:
            window.pass_ready(hook(hooks))
        elif not out and not items:
            break
        check(window)
    return seen


def test_a_sequence_is_delivered_in_order_pass_by_pass_to_its_end():
    assert read(window_of(3, max_passes=2), 99) == [
        *[(0, index) for index in range(3)],
        PassEnded(0, 3),
        *[(1, index) for index in range(3)],
        PassEnded(1, 3),
        StreamEnded(),
    ]


def test_each_pass_has_the_length_that_the_hook_left():
    seen = read(window_of(2, has_epoch_end=True, max_passes=3), 99, hook=lambda hooks: hooks.ended + 3)
    assert [item.next_length for item in seen if isinstance(item, PassEnded)] == [3, 4, 5]
    assert [sum(isinstance(item, tuple) and item[0] == index for item in seen) for index in range(3)] == [2, 3, 4]


def test_the_hook_runs_after_the_last_pass_too():
    hooks = []
    read(window_of(2, has_epoch_end=True, max_passes=2), 99, hook=lambda due: hooks.append(due.ended) or 2)
    assert hooks == [0, 1]


def test_a_pass_cut_short_has_no_hook_and_no_pass_end():
    hooks = []
    seen = read(window_of(3, has_epoch_end=True, max_batches=4), 99, hook=lambda due: hooks.append(due.ended) or 3)
    assert hooks == [0]
    assert seen == [(0, 0), (0, 1), (0, 2), PassEnded(0, 3), (1, 0), StreamEnded()]


def test_a_bound_that_falls_on_a_pass_end_lets_the_hook_run_and_tells_the_pass_end():
    hooks = []
    seen = read(window_of(2, has_epoch_end=True, max_batches=2), 99, hook=lambda due: hooks.append(due.ended) or 2)
    assert hooks == [0]
    assert seen == [(0, 0), (0, 1), PassEnded(0, 2), StreamEnded()]


def test_a_capped_pass_is_told_with_the_capped_length_and_has_no_hook():
    seen = read(window_of(5, has_epoch_end=True, pass_cap=2, max_passes=2), 99)
    assert seen == [(0, 0), (0, 1), PassEnded(0, 2), (1, 0), (1, 1), PassEnded(1, 2), StreamEnded()]


@pytest.mark.parametrize("plan", [{"max_passes": 0}, {"max_batches": 0}])
def test_a_stream_of_nothing_ends_at_once(plan):
    assert read(window_of(3, **plan), 9) == [StreamEnded()]


def test_without_a_hook_the_next_pass_is_made_ahead_across_the_pass_end():
    window = window_of(2, bound=5)
    assert {ticket.pass_index for _, ticket in [*window.issue()]} == {0}  # two at a time for one worker
    for number in (0, 1):
        answer(window, 0, window.issued[number].ticket)
    assert {ticket.pass_index for _, ticket in window.issue()} == {1}


def test_with_a_hook_no_ticket_of_the_next_pass_is_issued_before_it_has_run():
    window = window_of(2, has_epoch_end=True, workers=2, bound=9)
    first, second = (ticket for _, ticket in window.issue())
    answer(window, 0, first)
    assert window.wants_hooks() is None
    assert not list(window.issue())
    answer(window, 1, second)
    assert window.wants_hooks() == Hooks(ended=0, begun=None)
    assert window.wants_hooks() is None  # asked once
    assert not list(window.issue())
    window.pass_ready(2)
    assert {(ticket.pass_index, ticket.version) for _, ticket in window.issue()} == {(1, 1)}


def test_the_hook_before_a_pass_runs_first_of_all_and_never_for_a_pass_that_does_not_come():
    hooks = []

    def hook(due):
        hooks.append(due)
        return 2

    seen = read(window_of(3, has_epoch_begin=True, has_epoch_end=True, max_passes=2), 99, hook=hook)
    assert hooks == [Hooks(None, 0), Hooks(0, 1), Hooks(1, None)]
    first, second = [(0, 0), (0, 1), PassEnded(0, 2)], [(1, 0), (1, 1), PassEnded(1, 2)]
    assert seen == [PassBegun(0, 2), *first, PassBegun(1, 2), *second, StreamEnded()]


def test_the_hook_before_a_pass_runs_also_after_a_pass_that_was_cut_short():
    hooks = []
    plan = {"has_epoch_begin": True, "has_epoch_end": True, "pass_cap": 1, "max_passes": 3}
    read(window_of(3, **plan), 99, hook=lambda due: hooks.append(due) or 3)
    assert hooks == [Hooks(None, 0), Hooks(None, 1), Hooks(None, 2)]


def test_nothing_is_issued_before_the_hook_of_the_first_pass_has_run():
    window = window_of(3, has_epoch_begin=True)
    assert not list(window.issue())
    assert window.wants_hooks() == Hooks(ended=None, begun=0)
    assert not list(window.issue())
    window.pass_ready(3)
    assert {ticket.version for _, ticket in window.issue()} == {1}


def test_the_hook_waits_for_a_batch_whose_worker_was_lost():
    window = window_of(1, has_epoch_end=True, workers=2)
    ((worker, ticket),) = window.issue()
    window.worker_lost(worker)
    assert window.wants_hooks() is None
    ((_, again),) = window.issue()
    answer(window, 1, again)
    assert again.number == ticket.number
    assert window.wants_hooks() == Hooks(ended=0, begun=None)


def test_the_shuffled_order_is_the_same_for_any_number_of_workers_and_new_in_each_pass():
    orders = [
        read(window_of(20, shuffle=True, root=5, max_passes=2, workers=workers, slots=slots, bound=bound), 99)
        for workers, slots, bound in [(1, 1, 1), (3, 1, 4), (2, 3, 30)]
    ]
    assert orders[0] == orders[1] == orders[2]
    passes = [[item[1] for item in orders[0] if isinstance(item, tuple) and item[0] == index] for index in (0, 1)]
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(20))
    assert passes[0] != passes[1] != list(range(20))


def test_tickets_of_a_lost_worker_go_to_others_before_any_new_one():
    window = window_of(9, workers=2)
    issued = list(window.issue())
    lost = [ticket.number for worker, ticket in issued if worker == 1]
    window.worker_lost(1)
    for worker, ticket in issued:
        if worker == 0:
            answer(window, worker, ticket)
    again = [(ticket.number, ticket.attempt) for _, ticket in window.issue()]
    assert again[: len(lost)] == [(number, 1) for number in lost]
    assert window.num_remade == len(lost)


def test_the_first_answer_wins_and_a_later_one_is_dropped():
    window = window_of(1, workers=2, max_passes=1)
    ((worker, ticket),) = window.issue()
    window.worker_lost(worker)
    ((other, again),) = window.issue()
    assert window.answered(worker, ticket, payload="late, but first", num_batches=1)
    assert not window.answered(other, again, payload="second", num_batches=1)
    assert [item.payload for item in window.deliver() if isinstance(item, Deliver)] == ["late, but first"]


def test_a_late_answer_makes_it_needless_to_make_the_batch_again():
    window = window_of(1, max_passes=1)
    ((worker, ticket),) = window.issue()
    window.worker_lost(worker)
    answer(window, worker, ticket)
    check(window)
    window.worker_ready(1, 1)
    assert not list(window.issue())
    assert [type(item) for item in window.deliver()] == [Deliver, PassEnded, StreamEnded]


def test_an_answer_of_an_earlier_life_does_not_free_the_replacement_of_its_ticket():
    window = window_of(3, bound=1)
    ((_, ticket),) = [item for item in window.issue() if item[1].number == 0]
    window.worker_lost(0)
    window.worker_ready(0, 1)
    again = {again.number: again for _, again in window.issue()}[0]
    answer(window, 0, ticket)
    assert (0, 1) in window.held[0]
    check(window)
    assert not window.answered(0, again, payload=again, num_batches=1)
    assert 0 not in {number for number, _ in window.held[0]}


def test_a_failure_comes_after_the_batches_made_before_it_and_ends_the_stream():
    window = window_of(9, workers=2, bound=9)
    (_, first), (_, second), *_ = window.issue()
    answer(window, 1, second, failure=None)
    assert not list(window.deliver())
    error = ValueError("the source's own")
    window.answered(0, first, payload=None, num_batches=0, failure=error)
    assert list(window.deliver()) == [StreamFailed(error)]
    assert not list(window.issue())
    assert not list(window.deliver())


def test_after_a_failure_nothing_new_is_made_but_what_comes_before_it_is():
    window = window_of(9, workers=2, bound=9)
    (_, first), (_, second), *rest = window.issue()
    answer(window, 0, first)
    error = ValueError("the source's own")
    window.answered(1, second, payload=None, num_batches=0, failure=error)
    assert not list(window.issue())
    assert list(window.deliver()) == [Deliver(first, 0, 1), StreamFailed(error)]

    window = window_of(9, workers=2, bound=9)
    (_, first), (_, second), *rest = window.issue()
    window.answered(1, second, payload=None, num_batches=0, failure=error)
    window.worker_lost(0)
    again = [ticket.number for _, ticket in window.issue()]
    assert again[0] == first.number
    assert set(again) <= {first.number, *(ticket.number for _, ticket in rest)}


def test_once_a_failure_is_delivered_lost_tickets_are_not_made_again():
    window = window_of(9, workers=2, bound=9)
    (_, first), *_ = window.issue()
    window.answered(0, first, payload=None, num_batches=0, failure=ValueError("the source's own"))
    list(window.deliver())
    window.worker_lost(1)
    assert not list(window.issue())


def test_tickets_go_to_the_worker_with_the_least_to_do():
    window = window_of(9, workers=2, bound=9)
    assert [worker for worker, _ in window.issue()] == [0, 1, 0, 1]
    window = SequenceWindow(stream=0, bound=Bound(20), plan=SequencePlan(40))
    window.worker_ready(0, 1)
    window.worker_ready(1, 3)
    assert [worker for worker, _ in islice(window.issue(), 4)] == [0, 1, 1, 1]


def test_batches_before_a_failure_in_one_ticket_are_delivered():
    window = window_of(40, bound=16)
    ((worker, ticket), *_) = window.issue()
    answer(window, worker, ticket, seconds=1e-6)
    ticket = next(ticket for _, ticket in window.issue() if len(ticket.indices) > 2)
    for other in [state.ticket for state in window.issued.values() if not state.done and state.ticket is not ticket]:
        answer(window, 0, other)
    error = KeyError("x")
    window.answered(0, ticket, payload="frame", num_batches=2, failure=error)
    assert list(window.deliver())[-2:] == [Deliver("frame", 0, 2), StreamFailed(error)]


def test_an_error_that_is_false_is_a_failure_like_any_other():
    class EmptyError(Exception):
        def __len__(self):
            return 0

    window, error = window_of(3), EmptyError()
    ((worker, ticket), *_) = window.issue()
    window.answered(worker, ticket, payload=None, num_batches=0, failure=error)
    assert list(window.deliver()) == [StreamFailed(error)]


def test_unordered_delivery_gives_what_is_made_first_but_nothing_of_the_next_pass():
    window = window_of(2, workers=2, ordered=False, bound=9)
    first, second, third, _ = (ticket for _, ticket in window.issue())
    answer(window, 0, third)
    assert third.pass_index == 1
    assert not list(window.deliver())
    answer(window, 1, second)
    assert [item.payload.indices for item in window.deliver()] == [(1,)]
    answer(window, 0, first)
    items = list(window.deliver())
    assert [type(item) for item in items] == [Deliver, PassEnded, Deliver]


def test_no_more_is_outstanding_than_the_queue_holds_and_one_per_worker():
    window = window_of(99, workers=2, slots=3, bound=4)
    for _ in range(9):
        for worker, ticket in list(window.issue()):
            answer(window, worker, ticket)
        list(window.deliver())
    assert window.outstanding == window.num_made == 4 + 2 * 3
    window.consumed(3)
    assert sum(len(ticket.indices) for _, ticket in window.issue()) == 3


def test_a_bound_in_bytes_lets_one_batch_wait_until_their_size_is_known_and_then_as_many_as_it_holds():
    window = window_of(99, bound=50, num_bytes=1000)
    assert window.limit == 1 + 1
    for worker, ticket in list(window.issue()):
        answer(window, worker, ticket, size=100)
    assert window.limit == 10 + 1
    for _ in range(9):
        for worker, ticket in list(window.issue()):
            answer(window, worker, ticket, size=100)
    assert window.outstanding == 11


def test_a_batch_larger_than_the_bound_in_bytes_still_comes():
    window = window_of(4, bound=9, num_bytes=10, max_passes=1)
    seen = []
    while not seen or seen[-1] != StreamEnded():
        for worker, ticket in list(window.issue()):
            answer(window, worker, ticket, size=1000)
        assert window.outstanding <= 1 + 1
        for item in window.deliver():
            seen.append(item)
            if isinstance(item, Deliver):
                window.consumed(item.stop - item.start)
    assert window.num_consumed == 4


def test_batches_that_grow_shrink_the_number_that_may_wait():
    window = window_of(999, bound=50, num_bytes=1000)
    for size in [10, *[3000] * 30]:
        for worker, ticket in list(window.issue()):
            answer(window, worker, ticket, size=size)
        for item in window.deliver():
            window.consumed(item.stop - item.start)
    assert window.limit == 1 + 1


def test_small_quick_batches_share_a_ticket_once_their_size_is_known():
    window = window_of(99, bound=15)
    assert [len(ticket.indices) for _, ticket in window.issue()] == [1, 1]
    answer(window, 0, window.issued[0].ticket, size=10, seconds=1e-6)
    list(window.deliver())
    window.consumed(1)
    assert [len(ticket.indices) for _, ticket in window.issue()] == [16 // 2]


def test_a_crumb_of_room_waits_while_other_tickets_are_out():
    window = window_of(99, bound=15)
    list(window.issue())
    answer(window, 0, window.issued[0].ticket, size=10, seconds=1e-6)
    list(window.deliver())
    window.consumed(1)
    list(window.issue())
    answer(window, 0, window.issued[1].ticket, size=10, seconds=1e-6)
    assert window.limit - window.outstanding == 7
    assert not list(window.issue())
    for item in window.deliver():
        window.consumed(item.stop - item.start)
    assert [len(ticket.indices) for _, ticket in window.issue()] == [8]


def test_what_cannot_happen_is_an_internal_error_with_its_story():
    window = window_of(3)
    with pytest.raises(InternalError, match="worker 0 became ready twice"):
        window.worker_ready(0, 1)
    with pytest.raises(InternalError, match="pass 0 became ready in phase issuing"):
        window.pass_ready(3)
    ((worker, ticket), *_) = window.issue()
    with pytest.raises(InternalError, match=r"0 batches answer a ticket for 1 \(batch 0 of pass 0\)"):
        window.answered(worker, ticket, payload=None, num_batches=0)
    with pytest.raises(InternalError, match="2 batches answer a ticket for 1"):
        window.answered(worker, ticket, payload=None, num_batches=2)
    window.answered(worker, ticket, payload=None, num_batches=0, ended=True)
    with pytest.raises(InternalError, match="a Sequence's ticket came back as a stream's end"):
        list(window.deliver())
    with pytest.raises(InternalError, match="pass 0 was to begin with 0 batches"):
        window_of(0)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda window: setattr(window, "num_made", 5),
        lambda window: setattr(window, "outstanding", 5),
        lambda window: window.issued[0].holders.clear(),
    ],
    ids=["made", "outstanding", "holders"],
)
def test_check_finds_a_window_that_miscounts(spoil):
    window = window_of(9)
    list(window.issue())
    check(window)
    spoil(window)
    with pytest.raises(AssertionError):
        check(window)


def test_a_ticket_says_which_batches_it_is_for():
    assert str(Ticket(0, 0, 2, 5, (5,))) == "batch 5 of pass 2"
    assert str(Ticket(0, 0, 2, 5, (9, 1, 4))) == "batches 5 to 7 of pass 2"


# In line


class Still:
    """Its batches tell their pass and index. It has no hooks."""

    def __init__(self, length):
        self.length, self.pass_index, self.num_begun = length, 0, 0

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return np.array([self.pass_index, index])[None], None


class Growing(Still):
    """Each whole pass is one batch longer."""

    def on_epoch_end(self):
        self.length, self.pass_index = self.length + 1, self.pass_index + 1


class Begun(Still):
    """Counts the passes that begin."""

    def on_epoch_begin(self):
        self.num_begun += 1


class BegunAndGrowing(Begun, Growing):
    pass


class Grown(dict):
    """What the hooks of such a source leave after each pass."""

    def __init__(self, plan):
        self.plan = plan

    def __contains__(self, pass_index):
        return True

    def __missing__(self, pass_index):
        if pass_index < 0:
            return self.plan.length
        length = self[pass_index - 1]
        is_whole = self.plan.pass_cap is None or self.plan.pass_cap >= length
        self[pass_index] = length + (self.plan.has_epoch_end and is_whole)
        return self[pass_index]


@given(plan=PLANS)
@settings(EXPLORE)
def test_in_line_the_same_batches_and_pass_ends_come_as_from_producers(plan):
    kinds = {(False, False): Still, (True, False): Growing, (False, True): Begun, (True, True): BegunAndGrowing}
    source = kinds[plan.has_epoch_end, plan.has_epoch_begin](plan.length)
    record = SourceRecord(
        info=describe(source, name="source"),
        name="source",
        root=0,
        seeded=False,
        bare_inputs=False,
        num_lanes=1,
        directory="",
    )
    stream = InlineStream(source, record, plan)
    seen = list(islice(script(plan, Grown(plan)), 60))
    for item in seen:
        found = stream.next_item()
        if isinstance(item, tuple):
            assert isinstance(found, Delivered)
            assert found.reader.arrays(found.place)[0][0, 1] == item[1]
        else:
            assert found == item
    if plan.has_epoch_end and plan.pass_cap is None:
        assert source.pass_index == sum(isinstance(item, PassEnded) for item in seen)
    assert source.num_begun == sum(isinstance(item, PassBegun) for item in seen)
    stream.close()
    with pytest.raises(FeedClosedError):
        stream.next_item()
