"""Random choices follow from the seed alone."""

import random

import numpy as np
import pytest

from rayfeed.source.seeding import (
    batch_rng,
    lane_rng,
    pass_order,
    root_seed,
    seed_batch,
    seeded,
    worker_seed,
)


def drawn(root, pass_index, index):
    seed_batch(root, pass_index, index)
    return random.random(), float(np.random.random())  # noqa: NPY002 - what user code calls


def test_a_given_seed_is_the_root_and_without_one_each_stream_has_its_own():
    assert root_seed(7) == 7
    assert root_seed(np.int64(7)) == 7
    assert len({root_seed(None) for _ in range(9)}) == 9
    assert all(0 <= root_seed(None) < 1 << 64 for _ in range(9))


def test_an_order_is_a_permutation_that_follows_from_seed_and_pass():
    order = pass_order(3, 5, 50)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(50))
    assert order.tolist() == pass_order(3, 5, 50).tolist()


def test_orders_of_other_passes_and_seeds_differ():
    orders = {tuple(pass_order(root, index, 50).tolist()) for root in (3, 4, 2**64 - 1) for index in range(4)}
    assert len(orders) == 12


def test_the_order_of_a_seed_is_the_same_in_every_release():
    """A run that is resumed by a newer release must go on in the old order."""
    assert pass_order(0, 0, 8).tolist() == [2, 4, 3, 6, 5, 0, 1, 7]


def test_an_order_does_not_touch_the_global_streams():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    pass_order(3, 5, 50)
    assert before == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002


def test_a_batch_draws_the_same_numbers_whatever_was_made_before():
    first = drawn(3, 1, 4)
    drawn(3, 1, 5)
    assert drawn(3, 1, 4) == first


def test_batches_passes_and_seeds_draw_different_numbers_from_both_streams():
    numbers = [drawn(root, pass_index, index) for root in (3, 4) for pass_index in (0, 1) for index in (0, 1, 2)]
    assert len(set(numbers)) == len({one for one, _ in numbers}) == len({other for _, other in numbers}) == 12


def test_in_the_consumers_process_a_batch_is_seeded_and_the_streams_go_on_as_they_were():
    def draw():
        return random.random(), float(np.random.random())  # noqa: NPY002 - what user code calls

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    draw()
    undisturbed = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    with seeded(3, 1, 4):
        inside = draw()
    with pytest.raises(KeyError), seeded(3, 1, 5):
        {}["label"]
    assert undisturbed == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert inside == drawn(3, 1, 4)


def test_each_worker_has_a_seed_of_its_own_that_follows_from_the_root():
    seeds = [worker_seed(root, worker) for root in (3, 4) for worker in range(8)]
    assert len(set(seeds)) == 16
    assert seeds == [worker_seed(root, worker) for root in (3, 4) for worker in range(8)]
    assert all(0 <= seed < 1 << 64 for seed in seeds)


def test_random_numbers_of_a_batch_follow_from_root_pass_and_index_and_of_a_lane_from_root_and_lane():
    found = [batch_rng(root, p, i) for root in (1, 2) for p in (0, 1) for i in (0, 1)]
    found += [lane_rng(root, lane) for root in (1, 2) for lane in (0, 1)]
    assert len({np.random.default_rng(seeds).random() for seeds in found}) == len(found) == 12
