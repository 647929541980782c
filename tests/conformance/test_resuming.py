"""A rng, A state, G1 and G3 of a Feed: what a batch draws, and going on where another feed stood."""

import hashlib
import json
import random

import numpy as np
import pytest

import rayfeed
from tests.conformance.contract import complaint, line
from tests.sources import Once, die


class Noisy(rayfeed.Sequence):
    """Noise from both generators that a seed reaches, in an order that each pass changes."""

    def __init__(self):
        self.order = np.arange(6)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        noise = np.random.rand(2, 3) + rayfeed.rng().normal(size=(2, 3))  # noqa: NPY002 - what seeding is for
        return noise, np.full(2, self.order[index])

    def on_epoch_end(self):
        rayfeed.rng().shuffle(self.order)


def read(workers, count, state=None):
    """The next `count` batches, and the state after them, as it would lie in a file."""
    with rayfeed.Feed(Noisy(), workers, use_multiprocessing=True, shuffle=True, seed=3) as feed:
        if state is not None:
            feed.load_state_dict(json.loads(state))
        batches = [(inputs.tolist(), targets.tolist()) for inputs, targets in feed.take(count)]
        return batches, json.dumps(feed.state_dict())


@line("A rng", "G1 processes")
@complaint(
    "keras-team/keras#11365",
    there="a seed had no effect with more than one worker",
    here="the same seed gives the same bytes for any number of worker processes",
)
def test_with_a_seed_batches_are_the_same_bytes_for_any_number_of_processes():
    found, _ = read(0, 15)
    assert len({tuple(map(tuple, inputs)) for inputs, _ in found}) == 15
    for workers in (1, 2, 7):
        assert read(workers, 15)[0] == found


class Shuffled(rayfeed.Sequence):
    """Noise from the generator that a seed makes exact even in threads, in an order that each pass changes.

    The process that makes batch 4 of a pass dies there, once in each of the passes named.
    """

    def __init__(self, once, dies_in):
        self.order = np.arange(9)
        self.num_passes = 0
        self.once = once
        self.dies_in = dies_in

    def __len__(self):
        return 9

    def __getitem__(self, index):
        if index == 4 and self.num_passes in self.dies_in and self.once(f"pass {self.num_passes}"):
            die()
        return rayfeed.rng().normal(size=(16, 3)), np.full(16, self.order[index])

    def on_epoch_end(self):
        rayfeed.rng().shuffle(self.order)
        self.num_passes += 1


def digests(source, workers, *, processes):
    """One digest for each batch of three epochs."""
    with rayfeed.Feed(source, workers, use_multiprocessing=processes, shuffle=True, seed=3) as feed:
        batches = feed.take(3 * len(source))
        return [hashlib.sha256(inputs.tobytes() + targets.tobytes()).hexdigest() for inputs, targets in batches]


@line("G1 processes", "G1 threads")
def test_three_epochs_are_the_same_bytes_for_any_number_of_workers_threads_and_deaths(tmp_path):
    expected = digests(Shuffled(Once(tmp_path), []), 0, processes=False)
    assert len(set(expected)) == 27
    for number, (workers, processes, dies_in) in enumerate(
        [(16, True, []), (1, True, [0, 1, 2]), (7, True, [1, 2]), (1, False, []), (5, False, []), (5, False, [0, 2])]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert digests(Shuffled(Once(folder), dies_in), workers, processes=processes) == expected
        assert len(list(folder.iterdir())) == len(dies_in)


class Drawing(rayfeed.Sequence):
    """Batches of numbers that `draw` gives, a few at a time, while other threads make theirs."""

    def __init__(self, draw):
        self.draw = draw

    def __len__(self):
        return 24

    def __getitem__(self, index):
        return np.stack([self.draw(1000) for _ in range(20)]), None


def drawn(workers, draw):
    with rayfeed.Feed(Drawing(draw), workers, seed=3) as feed:
        return [inputs.tolist() for inputs, _ in feed]


@line("G1 threads")
def test_with_a_seed_threads_of_one_producer_draw_the_same_from_rng():
    def draw(count):
        return rayfeed.rng().random(count)

    assert drawn(3, draw) == drawn(0, draw)


@line("G1 threads")
@pytest.mark.parametrize(
    ("draw", "name"),
    [
        # A lambda: the method itself would travel with a copy of the stream that it draws from.
        (lambda count: np.random.rand(count), r"numpy\.random"),  # noqa: NPY002, PLW0108 - what users do
        (lambda count: np.array([random.random() for _ in range(count)]), "random"),
    ],
    ids=["numpy", "random"],
)
def test_threads_of_one_producer_that_draw_from_a_shared_stream_in_spite_of_a_seed_are_told_of_once(draw, name):
    with pytest.warns(
        UserWarning, match=rf"^source draws from {name} in several threads .* Draw from rayfeed\.rng\(\)"
    ) as record:
        drawn(3, draw)
    assert len(record) == 1
    assert len(drawn(1, draw)) == 24  # one thread alone has its streams for itself


@line("G2")
@complaint(
    "pytorch/pytorch#5059",
    there="forked workers all drew the same numbers from numpy.random",
    here="without a seed no two producers share a stream, of NumPy's or of rayfeed.rng",
)
@pytest.mark.parametrize(
    "draw",
    [lambda: np.random.rand(4), lambda: rayfeed.rng().random(4)],  # noqa: NPY002 - as above
    ids=["numpy", "rng"],
)
def test_without_a_seed_no_two_producers_draw_the_same(draw):
    def noise():
        rayfeed.get_worker_info()
        while True:
            yield draw()[np.newaxis], np.zeros(1)

    with rayfeed.Feed(noise, 3, use_multiprocessing=True) as feed:
        drawn = [tuple(inputs[0].tolist()) for inputs, _ in feed.take(30)]
    assert len(set(drawn)) == 30


@line("A state", "G3 feed")
@complaint(
    "KempnerInstitute/KempnerForge#57",
    there="after the second resume the batches were not those of an uninterrupted run",
    here="a feed goes on with the very next batch each time, with another number of workers",
)
def test_a_feed_that_is_resumed_twice_gives_what_one_gives_that_never_stopped():
    whole, _ = read(2, 17)
    first, state = read(3, 4)
    second, state = read(1, 7, state)
    third, _ = read(0, 6, state)
    assert first + second + third == whole
    assert len(state) < 200
