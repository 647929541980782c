"""How many batches share a ticket."""

import pytest

from rayfeed.queue.sizer import SMOOTHING, TARGET_BYTES, TARGET_S, WAY_S, Sizer

QUICK_S = 1e-6


def sizer(*, num_bytes, seconds, num_batches=1):
    """After one answer of batches of this size and time each."""
    sizer = Sizer()
    sizer.observe(num_batches=num_batches, num_bytes=num_batches * num_bytes, seconds=num_batches * seconds)
    return sizer


def test_until_the_first_answer_a_batch_goes_alone():
    assert Sizer().count(bound=1000, slots=1) == 1


@pytest.mark.parametrize(
    ("num_bytes", "seconds", "bound", "slots", "count"),
    [
        (TARGET_BYTES // 4, QUICK_S, 10_000, 1, 4),
        (TARGET_BYTES // 2 + 1, QUICK_S, 10_000, 1, 1),
        (10 * TARGET_BYTES, QUICK_S, 10_000, 1, 1),
        (1, TARGET_S / 5, 10_000, 1, 5),
        (1, 10 * TARGET_S, 10_000, 1, 1),
        (1, QUICK_S, 12, 1, 6),
        (1, QUICK_S, 12, 2, 3),
        (1, QUICK_S, 12, 100, 1),
        (1, QUICK_S, 12, 0, 6),
        (0, 0.0, 12, 1, 6),
    ],
    ids=["bytes", "just one", "large", "time", "slow", "bound", "two slots", "many slots", "no worker", "nothing"],
)
def test_a_ticket_holds_what_bytes_time_and_bound_allow_and_at_least_one(num_bytes, seconds, bound, slots, count):
    assert sizer(num_bytes=num_bytes, seconds=seconds).count(bound=bound, slots=slots) == count


def test_two_tickets_per_worker_fit_inside_the_bound():
    one = sizer(num_bytes=1, seconds=QUICK_S)
    for bound in range(1, 40):
        for slots in range(1, 6):
            assert one.count(bound=bound, slots=slots) * 2 * slots <= max(bound, 2 * slots)


@pytest.mark.parametrize(("slots", "count"), [(1, 6), (2, 6), (3, 4), (100, 1)])
def test_where_making_takes_less_than_the_way_a_worker_may_have_one_ticket_but_there_are_two(slots, count):
    assert sizer(num_bytes=1, seconds=QUICK_S).count(bound=12, slots=slots, may_idle=True) == count


def test_where_making_takes_longer_than_the_way_every_worker_has_two_tickets():
    one = sizer(num_bytes=1, seconds=WAY_S / 6)
    assert one.count(bound=12, slots=2, may_idle=True) == 3
    assert one.count(bound=11, slots=2, may_idle=True) == 5  # 5.5 batches take less than the way


def test_sizes_are_those_of_one_batch():
    one = sizer(num_bytes=300, seconds=0.5, num_batches=7)
    assert one.bytes_per_batch == pytest.approx(300)
    assert one.seconds_per_batch == pytest.approx(0.5)


def test_the_averages_follow_a_change_within_a_few_answers():
    one = sizer(num_bytes=1000, seconds=1.0)
    one.observe(num_batches=1, num_bytes=0, seconds=0.0)
    assert one.bytes_per_batch == pytest.approx(1000 * (1 - SMOOTHING))
    assert one.seconds_per_batch == pytest.approx(1 - SMOOTHING)
    for _ in range(9):
        one.observe(num_batches=1, num_bytes=0, seconds=0.0)
    assert one.bytes_per_batch < 30


def test_an_answer_without_batches_says_nothing_of_their_size():
    one = Sizer()
    one.observe(num_batches=0, num_bytes=0, seconds=3.0)
    assert one.count(bound=1000, slots=1) == 1
    assert one.seconds_per_batch == 0.0
