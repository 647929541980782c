"""E5, F3: what a run changed in its callbacks, told to callbacks elsewhere: the caller's, or those of a resumed run.

Twins of the callbacks change; no model is trained. Whole trainings are in test_shared_state.py.
"""

import collections
import tracemalloc

import keras
import numpy as np
import pytest

from rayfeed.trainer.callback_state import Snapshot
from rayfeed.trainer.carrying import apply_changes, pack_callbacks, unpack_callbacks


class Has(keras.callbacks.Callback):
    """A callback of these attributes."""

    def __init__(self, **attributes):
        super().__init__()
        vars(self).update(attributes)


class Plain:
    """An object of the user's with attributes."""

    def __init__(self, **attributes):
        vars(self).update(attributes)


def twins_of(callbacks):
    return unpack_callbacks(pack_callbacks(callbacks, None), None)


def brought_home(callbacks, change):
    """Have twins of the callbacks change, and bring home what changed."""
    there = twins_of(callbacks)
    snapshot = Snapshot(there, None)
    change(*there)
    apply_changes(callbacks, snapshot.changes(warning=None), None, None)


def gone_on(make, change):
    """Callbacks that go on with what others of their kind had changed."""
    before, after = make(), make()
    snapshot = Snapshot(before, None)
    change(*before)
    Snapshot(after, None).put_back(snapshot.changes(warning=None))
    return after


def at_home(make, change):
    callbacks = make()
    brought_home(callbacks, change)
    return callbacks


WAYS = pytest.mark.parametrize("told", [at_home, gone_on], ids=lambda way: way.__name__)


def test_callbacks_that_refer_to_each_other_do_so_in_the_trainer():
    stop = Has()
    reports = Has(stop=stop, table={"stop": [stop]})
    before = {"_model": "an earlier call's", "params": {"epochs": 3}}
    vars(stop).update(before)
    there, reports_there = twins_of([stop, reports])
    assert reports_there.stop is reports_there.table["stop"][0] is there
    assert (there.model, there.params) == (None, None)
    assert {name: vars(stop)[name] for name in before} == before


@WAYS
def test_a_callback_that_another_got_to_refer_to_is_this_ends(told):
    def change(one, other):
        one.others = [other]
        one.itself = one
        other.count = 3

    one, other = told(lambda: [Has(), Has(count=0)], change)
    assert one.itself is one
    assert one.others[0] is other
    assert other.count == 3


@WAYS
def test_an_object_that_two_callbacks_share_stays_one(told):
    def make():
        shared = Plain(count=0)
        return [Has(mine=shared), Has(its={"shared": shared}, count=0)]

    def change(one, other):
        one.mine.count += 2
        other.count += 1

    one, other = told(make, change)
    assert one.mine is other.its["shared"]
    assert (one.mine.count, other.count) == (2, 1)


@WAYS
def test_an_object_that_did_not_change_stays_the_one_that_a_changed_one_refers_to(told):
    def make():
        flag, data = Plain(is_set=False), np.ones(3)
        return [Has(flag=flag, data=data), Has(state=Plain(flag=flag, data=data, count=0))]

    def change(one, other):
        other.state.count += 1

    one, other = told(make, change)
    assert other.state.flag is one.flag
    assert other.state.data is one.data
    assert other.state.count == 1


CONTAINERS = [
    ([1], lambda one: one.append(2)),
    ({"a": 1}, lambda one: one.update(b=2)),
    ({1}, lambda one: one.add(2)),
    (collections.deque([1], maxlen=3), lambda one: one.append(2)),
    (collections.defaultdict(list), lambda one: one["a"].append(1)),
    (collections.Counter("a"), lambda one: one.update("ab")),
]


@pytest.mark.parametrize(("container", "change"), CONTAINERS, ids=lambda one: type(one).__name__)
def test_a_container_is_filled_in_place_for_all_that_hold_it(container, change):
    expected = container.copy()
    change(expected)
    one, other = Has(seen=container), Has(holder=Plain(seen=container))
    brought_home([one, other], lambda one, _: change(one.seen))
    assert one.seen is other.holder.seen is container
    assert container == expected
    assert type(container) is type(expected)


def test_a_container_that_the_run_put_in_anothers_place_leaves_the_other_as_it_was():
    mine = [1]
    one, other = Has(seen=mine), Has(seen=mine)

    def change(one, other):
        one.seen = [5]
        other.seen.append(2)

    brought_home([one, other], change)
    assert (one.seen, other.seen, mine) == ([5], [1, 2], [1, 2])
    assert other.seen is mine


@WAYS
def test_attributes_come_and_go(told):
    def change(one):
        one.new = {"a": [1]}
        del one.old

    (one,) = told(lambda: [Has(old=1, kept="x")], change)
    assert one.new == {"a": [1]}
    assert not hasattr(one, "old")
    assert one.kept == "x"


def test_a_container_comes_whole_where_the_other_end_has_none():
    before, after = Has(seen=[1]), Has(seen=None)
    snapshot = Snapshot([before], None)
    before.seen.append(2)
    Snapshot([after], None).put_back(snapshot.changes(warning=None))
    assert after.seen == [1, 2]


def test_a_setting_that_is_equal_to_a_state_is_not_taken_for_it():
    """Small numbers are one object in a process, whatever they stand for."""
    before, after = Has(patience=3, wait=0), Has(patience=5, wait=0)
    snapshot = Snapshot([before], None)
    before.wait = 3
    Snapshot([after], None).put_back(snapshot.changes(warning=None))
    assert (after.patience, after.wait) == (5, 3)


def test_a_snapshot_holds_no_copy_of_the_callbacks_data():
    callback = Has(data=np.zeros(20_000_000, np.uint8))
    tracemalloc.start()
    try:
        snapshot = Snapshot([callback], None)
        snapshot.take()
        held_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held_bytes < 100_000
    callback.data[0] = 1
    assert len(snapshot.changes(warning=None)) > 20_000_000
