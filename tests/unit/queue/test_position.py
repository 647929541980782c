"""Where a stream stands, and streams that begin there."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rayfeed.errors import OptionError, SourceError
from rayfeed.queue.bound import Bound
from rayfeed.queue.deliveries import Deliver, PassBegun, PassEnded
from rayfeed.queue.position import START, Position, Reading, SavedState
from rayfeed.queue.sequence_window import Hooks, SequencePlan, SequenceWindow
from rayfeed.source.seeding import pass_order
from tests.unit.queue.invariants import check

NUM_PASSES = 4


def length_of(pass_index):
    """Batches of a pass of a source whose hooks leave another length each time."""
    return 3 + pass_index % 3


def lengths_of(plan):
    """Batches of each pass; a hook that does not run leaves them as they are."""
    lengths = [plan.length]
    for pass_index in range(1, NUM_PASSES):
        is_whole = plan.pass_cap is None or lengths[-1] <= plan.pass_cap
        changes = plan.has_epoch_begin or (plan.has_epoch_end and is_whole)
        lengths.append(length_of(pass_index) if changes else lengths[-1])
    return lengths


def whole(plan):
    """(pass, place, index) of every batch, by a plain loop."""
    for pass_index, length in enumerate(lengths_of(plan)):
        order = pass_order(plan.root, pass_index, length).tolist() if plan.shuffle else range(length)
        for place in range(length if plan.pass_cap is None else min(length, plan.pass_cap)):
            yield pass_index, place, order[place]


def read(plan, *, workers, bound, draw):
    """What a window delivers, its tickets answered in an order that is drawn."""
    window = SequenceWindow(stream=0, bound=Bound(bound), plan=plan)
    for worker in range(workers):
        window.worker_ready(worker, 1)
    lengths, found, out, hooks_seen = lengths_of(plan), [], [], []
    for _ in range(10_000):
        if window._ended:
            return found, hooks_seen
        out += window.issue()
        hooks = window.wants_hooks()
        if hooks is not None:
            hooks_seen.append(hooks)
            window.pass_ready((*lengths, 1)[window.pass_index + 1])
        elif out:
            worker, ticket = out.pop(draw(st.integers(0, len(out) - 1)))
            window.answered(worker, ticket, payload=ticket, num_batches=len(ticket.indices), seconds=0.01)
        for item in window.deliver():
            if isinstance(item, Deliver):
                ticket = item.payload
                found += [
                    (ticket.pass_index, ticket.first + place, ticket.indices[place])
                    for place in range(item.start, item.stop)
                ]
                window.consumed(item.stop - item.start)
        check(window)
    raise AssertionError("the stream does not end")


@settings(max_examples=300, derandomize=True, database=None, deadline=None)
@given(st.data())
def test_a_stream_that_begins_anywhere_gives_the_rest_of_the_whole_one(data):
    plan = SequencePlan(
        length=length_of(0),
        has_epoch_end=data.draw(st.booleans()),
        has_epoch_begin=data.draw(st.booleans()),
        shuffle=data.draw(st.booleans()),
        ordered=data.draw(st.booleans()),
        max_passes=NUM_PASSES,
        pass_cap=data.draw(st.sampled_from([None, 2, 4])),
    )
    everything = list(whole(plan))
    split = data.draw(st.integers(0, len(everything)))
    before, rest = everything[:split], everything[split:]
    reading = Reading()
    for earlier, (pass_index, place, _) in enumerate(before):
        if earlier and before[earlier - 1][0] != pass_index:
            reading.ended_pass()
        reading.took(place)
    if before and data.draw(st.booleans()) and (not rest or rest[0][0] != before[-1][0]):
        reading.ended_pass()
    resumed = SequencePlan(**{**vars(plan), "start": reading.position()})
    found, _ = read(resumed, workers=data.draw(st.integers(1, 3)), bound=data.draw(st.integers(1, 9)), draw=data.draw)
    if plan.ordered:
        assert found == rest
    else:
        assert sorted(found) == sorted(rest)
        assert [item[0] for item in found] == [item[0] for item in rest]


@settings(max_examples=150, derandomize=True, database=None, deadline=None)
@given(st.data())
def test_what_was_taken_out_of_order_is_not_given_again(data):
    length = 12
    taken = data.draw(st.sets(st.integers(0, length - 1)))
    reading = Reading(Position(1))
    for place in data.draw(st.permutations(sorted(taken))):
        reading.took(place)
    plan = SequencePlan(length=length, ordered=False, shuffle=True, max_passes=3, start=reading.position())
    found, _ = read(plan, workers=2, bound=data.draw(st.integers(1, 9)), draw=data.draw)
    assert {place for pass_index, place, _ in found if pass_index == 1} == set(range(length)) - taken
    assert len(found) == length - len(taken) + length


def test_hooks_of_passes_before_the_start_run_again_and_only_there():
    plan = SequencePlan(length=3, has_epoch_end=True, max_passes=4, start=Position(2, 1))
    _, hooks = read(plan, workers=1, bound=3, draw=lambda _: 0)
    assert hooks == [Hooks(None, None, replayed=2), Hooks(2, None), Hooks(3, None)]
    plan = SequencePlan(length=3, has_epoch_begin=True, max_passes=2, start=Position(1), pass_cap=2)
    _, hooks = read(plan, workers=1, bound=3, draw=lambda _: 0)
    assert hooks == [Hooks(None, 1, replayed=1, pass_cap=2)]
    plan = SequencePlan(length=3, has_epoch_begin=True, has_epoch_end=True, max_passes=1, start=Position(0, 2))
    _, hooks = read(plan, workers=1, bound=3, draw=lambda _: 0)
    assert hooks == [Hooks(None, 0), Hooks(0, None)]


def test_a_pass_that_is_consumed_whole_ends_before_the_next_begins():
    window = SequenceWindow(stream=0, bound=Bound(3), plan=SequencePlan(length=2, start=Position(4, 2)))
    window.worker_ready(0, 1)
    list(window.issue())
    assert next(window.deliver()) == PassEnded(4, 2)


def test_a_hook_before_the_pass_is_told_though_the_pass_is_resumed():
    plan = SequencePlan(length=2, has_epoch_begin=True, start=Position(1, 1))
    window = SequenceWindow(stream=0, bound=Bound(3), plan=plan)
    assert window.wants_hooks() == Hooks(None, 1, replayed=1)
    window.pass_ready(2)
    assert list(window.deliver()) == [PassBegun(1, 2)]


def test_a_stream_is_not_made_further_than_its_bound_of_batches():
    plan = SequencePlan(length=5, max_batches=4, start=Position(1, 3))
    found, _ = read(plan, workers=2, bound=9, draw=lambda _: 0)
    assert [item[:2] for item in found] == [(1, 3), (1, 4), (2, 0), (2, 1)]


def test_a_state_with_more_batches_than_the_pass_is_refused():
    with pytest.raises(SourceError, match="batch 8 of pass 2 consumed, which has 5 batches"):
        SequenceWindow(stream=0, bound=Bound(3), plan=SequencePlan(length=5, start=Position(2, 9)))


SAVED = SavedState(
    is_sequence=True,
    seed=2**63 + 5,
    seeded=True,
    shuffle=False,
    length=7,
    copies=1,
    position=Position(3, 4, frozenset({6})),
)


def test_a_state_is_small_and_survives_json():
    text = json.dumps(SAVED.to_dict())
    assert len(text) < 200
    assert SavedState.from_dict(json.loads(text)) == SAVED


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "state has version 2; this rayfeed reads version 1"),
        ({"consumed": None}, "state['consumed'] must be a whole number"),
        ({"pass": -1}, "state['pass'] must be at least 0, got -1."),
        ({"shuffle": 1}, "state['shuffle'] must be True or False, got 1 (int)."),
        ({"beyond": 5}, "state['beyond'] must be a list of pairs, got 5."),
        ({"is_sequence": False}, "a generator has one pass, in order"),
        ({"beyond": [["a", 2]]}, "state['beyond']'s members must be a whole number, got 'a' (str)."),
    ],
)
def test_a_damaged_state_is_refused(change, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        SavedState.from_dict(SAVED.to_dict() | change)


def test_what_is_no_state_is_refused():
    with pytest.raises(OptionError, match=r"must be what Feed.state_dict\(\) gave, got 'x' \(str\)"):
        SavedState.from_dict("x")
    with pytest.raises(OptionError, match="state lacks 'seed', 'consumed': it is not what"):
        SavedState.from_dict(
            {name: value for name, value in SAVED.to_dict().items() if name not in ("seed", "consumed")}
        )


def test_the_position_of_a_new_reading_is_the_start():
    assert Reading().position() == START


def test_a_gap_ends_where_the_next_taken_batch_lies_or_at_the_stop():
    position = Position(0, 1, frozenset({3, 7}))
    assert [position.next_place(place) for place in (0, 1, 3, 7, 8)] == [1, 1, 4, 8, 8]
    assert [position.end_of_gap(1, stop) for stop in (2, 3, 9)] == [2, 3, 3]
    assert [position.end_of_gap(4, stop) for stop in (6, 7, 8)] == [6, 7, 7]


def test_what_was_taken_without_a_gap_is_one_number():
    reading = Reading()
    for place in (2, 1, 4, 0):
        reading.took(place)
    assert reading.position() == Position(0, 3, frozenset({4}))


def test_a_pass_may_be_consumed_to_its_end_and_no_further():
    Position(0, 5).check(5)
    Position(0, 0, frozenset({4})).check(5)
    for position in (Position(0, 6), Position(0, 0, frozenset({5}))):
        with pytest.raises(SourceError, match="batch 5 of pass 0 consumed, which has 5 batches"):
            position.check(5)


def test_a_count_of_batches_ends_behind_those_that_were_taken_among_them():
    position = Position(0, 1, frozenset({3, 4, 9}))
    assert [position.end_of(1, count) for count in (1, 2, 3, 4, 6, 7)] == [2, 3, 6, 7, 9, 11]


def test_a_state_of_many_batches_out_of_order_is_small():
    reading = Reading()
    for place in range(1, 100_000):
        reading.took(place)
    saved = replace(SAVED, position=reading.position())
    text = json.dumps(saved.to_dict())
    assert len(text) < 200
    assert SavedState.from_dict(json.loads(text)) == saved


def test_numbers_of_a_state_may_be_numpys_and_become_plain():
    state = SAVED.to_dict() | {"pass": np.int64(3), "length": np.int64(7), "beyond": [[np.int64(6), np.int64(7)]]}
    assert SavedState.from_dict(state) == SAVED
    json.dumps(SavedState.from_dict(state).to_dict())


def test_what_was_taken_beyond_a_gap_does_not_outlive_its_pass():
    reading = Reading(Position(0, 0, frozenset({0, 1, 3})))
    assert reading.position() == Position(0, 2, frozenset({3}))
    reading.ended_pass()
    assert reading.position() == Position(1)
