"""How often and how soon a lost producer is replaced."""

import pytest

from rayfeed.producer.restarts import WITHIN_S, Restarts


def test_one_that_does_not_come_up_is_tried_again_at_once_and_then_waits_twice_as_long_each_time():
    restarts = Restarts(8)
    assert [restarts.next(100.0) - 100.0 for _ in range(8)] == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert restarts.next(100.0) is None
    assert str(restarts) == "8 of 8 restarts within 60 s are used (ProducerOptions.max_restarts)"


def test_one_that_came_up_is_replaced_at_once():
    restarts = Restarts(9)
    for _ in range(4):
        assert restarts.next(7.0) == 7.0
        restarts.came_up()
    assert [restarts.next(7.0) for _ in range(2)] == [7.0, 7.5]


def test_only_the_last_minute_counts():
    restarts = Restarts(2)
    assert restarts.next(0.0) is not None
    assert restarts.next(30.0) is not None
    assert restarts.next(WITHIN_S - 0.1) is None
    assert restarts.again() == WITHIN_S
    assert restarts.next(WITHIN_S) is not None
    assert restarts.next(29.9 + WITHIN_S) is None
    assert restarts.next(30.0 + WITHIN_S) is not None


@pytest.mark.parametrize("lost", [4.0, 4.1])  # 4.1 + 60 - 4.1 is less than 60
def test_it_may_be_replaced_at_the_very_moment_that_is_said(lost):
    restarts = Restarts(1)
    assert restarts.next(lost) == lost
    assert restarts.next(restarts.again()) is not None


@pytest.mark.parametrize("most", [0, 1])
def test_there_may_be_none_and_a_new_call_begins_anew(most):
    restarts = Restarts(most)
    for _ in range(2):
        assert [restarts.next(1.0) for _ in range(2)] == ([1.0, None] if most else [None, None])
        assert restarts.again() == (1.0 + WITHIN_S if most else None)
        restarts.renew()
