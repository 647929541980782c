"""A draw from a stream that threads share is seen, whichever thread seeds or ends its batch first."""

import random
import threading

import numpy as np
import pytest

from rayfeed.source.seeding import seed_batch
from rayfeed.source.shared_streams import SharedStreams

DRAWS = {"random": random.random, "numpy.random": np.random.rand}


def test_batches_that_draw_from_neither_are_seeded_as_alone_and_nothing_is_seen():
    streams = SharedStreams()
    for index in range(3):
        streams.seed(3, 1, index)
        own = np.random.default_rng(index).random(), random.Random(index).random()  # not the shared ones
        assert len(own) == 2
        assert streams.look() == ()
    drawn = [draw() for draw in DRAWS.values()]
    seed_batch(3, 1, 2)
    assert [draw() for draw in DRAWS.values()] == drawn


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_is_seen_at_the_end_of_its_batch(name):
    streams = SharedStreams()
    streams.seed(3, 1, 0)
    DRAWS[name]()
    assert streams.look() == (name,)
    streams.seed(3, 1, 1)
    assert streams.look() == (name,)  # once seen, it stays so


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_is_seen_though_another_thread_seeds_before_its_batch_ends(name):
    streams = SharedStreams()

    def first_batch():
        streams.seed(3, 1, 0)
        DRAWS[name]()

    thread = threading.Thread(target=first_batch)
    thread.start()
    thread.join(timeout=5)
    streams.seed(3, 1, 1)
    assert streams.look() == (name,)


def test_code_that_seeds_a_shared_stream_itself_is_seen_too():
    streams = SharedStreams()
    streams.seed(3, 1, 0)
    np.random.seed(7)  # noqa: NPY002 - what user code calls
    assert streams.look() == ("numpy.random",)
