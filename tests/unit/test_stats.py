"""The figures of a stream, and how they read."""

import dataclasses

import pytest

from rayfeed.stats import FeedStats

RUN = FeedStats(
    batches=120, bytes=72_000_000, frames=30, wait_s=4.0, first_wait_s=2.5, run_s=12.5, num_producers=3, num_workers=3
)


def test_the_share_of_waiting_leaves_out_the_first_batch():
    assert RUN.wait_share == pytest.approx(1.5 / 10.0)


@pytest.mark.parametrize(
    "stats", [FeedStats(), FeedStats(wait_s=1.0, first_wait_s=1.0, run_s=1.0)], ids=["new", "first"]
)
def test_before_the_first_batch_there_is_no_share(stats):
    assert stats.wait_share == 0.0
    assert "(0% of 0.0 s)" in str(stats)


PLACES = [
    (3, 3, "from 3 producers:"),
    (1, 4, "from 1 producer:"),
    (0, 1, "from a thread of the caller's process:"),
    (0, 0, "from the source in line:"),
]


@pytest.mark.parametrize(("num_producers", "num_workers", "place"), PLACES)
def test_the_figures_read_as_a_sentence(num_producers, num_workers, place):
    text = str(dataclasses.replace(RUN, num_producers=num_producers, num_workers=num_workers))
    assert text == f"120 batches (72.0 MB) {place} first batch after 2.5 s, then waited 1.5 s for data (15% of 10.0 s)"
