"""How many producers leave nodes that will go, at a time."""

import pytest

from rayfeed.queue.watch import may_leave


@pytest.mark.parametrize(
    ("draining", "leaving", "others", "starting", "number"),
    [
        (2, 0, 2, 0, 2),
        (2, 0, 30, 5, 2),
        (3, 1, 4, 0, 2),
        (4, 0, 0, 0, 2),
        (5, 0, 1, 0, 3),
        (4, 2, 0, 0, 0),
        (2, 0, 0, 2, 0),
        (2, 0, 1, 0, 1),
        (1, 0, 0, 0, 0),
        (0, 0, 3, 0, 0),
    ],
)
def test_all_leave_where_as_many_work_elsewhere_else_half_of_them_once_those_before_have_come(
    draining, leaving, others, starting, number
):
    assert may_leave(draining, leaving, others, starting) == number
