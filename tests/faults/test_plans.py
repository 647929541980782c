"""Faults at named points, in every way: what is delivered is what a run in line delivers (contract C6, F2)."""

from pathlib import Path

import pytest

import rayfeed
from rayfeed import ProducerOptions
from rayfeed.errors import OptionError
from rayfeed.testing.chaos import Entry, Ledger
from rayfeed.testing.faults import Fault, Faulty, draw_plan
from tests.conftest import within

LENGTH = 20
PASSES = 3
START_S = 60
MANY = ProducerOptions(max_restarts=20, batch_timeout_s=1)


def ledger(source, workers, **options):
    with rayfeed.Feed(source, workers, use_multiprocessing=True, shuffle=True, seed=7, **options) as feed:
        entries = [Entry.of(batch) for _ in range(PASSES) for batch in feed]
        return entries, feed.stats().lost_producers


@pytest.fixture(scope="module")
def expected():
    entries, _ = ledger(Ledger(LENGTH, 0.0), 0)
    return entries


@pytest.mark.filterwarnings("ignore:waiting")
@pytest.mark.parametrize(
    ("plan", "least"),
    [
        ([Fault("load"), Fault("load", pass_index=1), Fault("load", pass_index=2, how="exit")], 3),
        ([Fault("make", index=3, how="exit"), Fault("make", 1, 0, times=2), Fault("make", 2, LENGTH - 1)], 4),
        (draw_plan(1, passes=PASSES, length=LENGTH, number=5), 5),
        ([Fault("make", 0, 9, "hang"), Fault("make", 2, 2, "stop")], 0),  # they are not waited for, and need not end
    ],
    ids=["new states", "first and last batches", "drawn", "hang"],
)
def test_what_producers_meet_is_not_seen_in_what_is_delivered(plan, least, expected, tmp_path):
    found, num_lost = ledger(Faulty(Ledger(LENGTH, 0.002), plan, tmp_path), 2, producers=MANY)
    assert found == expected
    assert num_lost >= least
    met = sum(fault.times for fault in plan)
    assert len(list(tmp_path.iterdir())) == met, "a fault did not strike"


class FirstWaits(Ledger):
    """Producer 0 makes nothing before a fault has struck another one, which may start later than 0 needs for it all."""

    def __init__(self, folder: Path) -> None:
        super().__init__(LENGTH, 0.002)
        self.folder = folder

    def __getitem__(self, index):
        info = rayfeed.get_worker_info()
        if info is not None and info.id == 0:
            assert within(START_S, lambda: any(self.folder.iterdir())), "no fault has struck another producer"
        return super().__getitem__(index)


def test_a_fault_may_be_one_producers_alone(expected, tmp_path):
    plan = [Fault("make", index=index, worker=1) for index in range(LENGTH)]
    producers = ProducerOptions(max_restarts=20)
    found, num_lost = ledger(Faulty(FirstWaits(tmp_path), plan, tmp_path), 2, producers=producers)
    assert found == expected
    assert 1 <= num_lost == len(list(tmp_path.iterdir())), "each that struck cost producer 1 one life"
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    plan = [Fault("make", index=index, worker=5) for index in range(LENGTH)]
    assert ledger(Faulty(Ledger(LENGTH, 0.0), plan, stranger), 2, producers=producers) == (expected, 0)


def test_without_producers_nothing_strikes(tmp_path):
    plan = [Fault("load"), *(Fault("make", index=index) for index in range(LENGTH))]
    found, _ = ledger(Faulty(Ledger(LENGTH, 0.0), plan, tmp_path), 0)
    assert found == ledger(Ledger(LENGTH, 0.0), 0)[0]
    assert list(tmp_path.iterdir()) == []


def test_a_plan_follows_from_its_seed_alone():
    plan = draw_plan(3, passes=4, length=10, number=6)
    assert plan == draw_plan(3, passes=4, length=10, number=6)
    assert plan != draw_plan(4, passes=4, length=10, number=6)
    places = [(fault.pass_index, fault.index) for fault in plan]
    assert places == sorted(set(places))
    assert all(0 <= pass_index < 4 and 0 <= index < 10 for pass_index, index in places)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"point": "bake"}, "Fault.point must be one of load, make, got 'bake'."),
        ({"point": "make", "how": "die"}, "Fault.how must be one of kill, exit, stop, hang, got 'die'."),
    ],
)
def test_a_fault_that_is_none_is_refused(arguments, told):
    with pytest.raises(OptionError) as caught:
        Fault(**arguments)
    assert str(caught.value) == told
