"""The machine that a producer without a claim is asked for."""

from collections import Counter

import pytest

from rayfeed.producer.spreading import least_loaded


def filled(cpus, number, here="here"):
    """Producers on each machine after so many were placed, one by one."""
    taken = Counter()
    for _ in range(number):
        taken[least_loaded(cpus, taken, here, left=None)] += 1
    return dict(taken)


@pytest.mark.parametrize(
    ("cpus", "number", "found"),
    [
        ({"here": 8}, 3, {"here": 3}),
        ({"here": 8, "a": 8}, 8, {"a": 8}),
        ({"here": 8, "a": 8}, 16, {"a": 9, "here": 7}),
        ({"here": 2, "a": 2, "b": 2}, 4, {"a": 2, "b": 2}),
        ({"here": 2, "a": 2, "b": 2}, 5, {"a": 2, "b": 2, "here": 1}),
        ({"here": 4, "a": 12, "b": 4}, 8, {"a": 6, "b": 2}),
        ({"a": 1, "b": 1}, 6, {"a": 3, "b": 3}),
    ],
)
def test_machines_fill_by_their_cpus_and_the_consumers_comes_last(cpus, number, found):
    assert filled(cpus, number) == found


def test_a_machine_that_may_be_gone_is_left_out_where_there_are_others():
    assert least_loaded({"a": 2, "b": 2}, {"b": 1}, "here", left="a") == "b"
    assert least_loaded({"a": 2}, {}, "here", left="a") == "a"
    assert least_loaded({}, {}, "here", left=None) is None
