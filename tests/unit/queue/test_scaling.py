"""C12: how many producers there are follows from whether the consumer waits."""

import pytest

from rayfeed.queue.scaling import PATIENCE, SPARE, Look, Scaler


def look(waited=0.0, working=4, idle=0, starting=0):
    return Look(waited, working, idle, starting)


@pytest.mark.parametrize(("working", "added"), [(1, 1), (2, 1), (4, 2), (7, 3), (10, 0)])
def test_a_consumer_that_waits_gets_half_as_many_again_up_to_the_most(working, added):
    assert Scaler(1, 10).decide(look(0.5, working)) == added


@pytest.mark.parametrize("seen", [look(0.01), look(0.5, idle=1), look(0.5, starting=1), look(0.9, working=0)], ids=str)
def test_none_is_added_where_another_would_not_help_or_may_come_yet(seen):
    assert Scaler(1, 10).decide(seen) == 0


def test_one_is_given_back_when_several_had_nothing_to_do_for_long_and_the_next_is_judged_anew():
    scaler = Scaler(1, 10)
    changes = [scaler.decide(look(idle=SPARE)) for _ in range(2 * PATIENCE)]
    assert changes == ([0] * (PATIENCE - 1) + [-1]) * 2


@pytest.mark.parametrize("disturbed", [look(0.5, idle=SPARE), look(idle=SPARE - 1)], ids=str)
def test_none_is_given_back_where_the_consumer_waited_or_one_alone_is_spare(disturbed):
    scaler = Scaler(1, 10)
    changes = [scaler.decide(seen) for seen in [*[look(idle=SPARE)] * (PATIENCE - 1), disturbed, look(idle=SPARE)]]
    assert changes == [0] * (PATIENCE + 1)


def test_the_least_are_kept():
    scaler = Scaler(4, 10)
    assert [scaler.decide(look(idle=4)) for _ in range(3 * PATIENCE)] == [0] * (3 * PATIENCE)


def test_a_number_for_every_load_is_found_and_held():
    """Producers that make one batch a second each; a consumer that takes `rate` of them."""
    for rate in (1, 3, 8, 14):
        scaler, num, held = Scaler(1, 16), 1, []
        for _ in range(60):
            busy = min(num, rate)
            num += scaler.decide(look(max(0.0, 1 - num / rate), working=num, idle=num - busy))
            held.append(num)
        assert rate <= held[20] <= rate + max(SPARE, rate // 2)
        assert set(held[-5:]) <= {rate, rate + 1}
