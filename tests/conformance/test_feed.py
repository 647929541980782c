"""A feed on its own: what `iter` and `take` give, in which structure and order, what is refused, and how it ends."""

import os
import signal

import numpy as np
import pytest

import rayfeed
from rayfeed import ProducerOptions, TrainerOptions
from rayfeed.errors import FeedClosedError, PlacementError
from tests.conformance.contract import line
from tests.conftest import living_actors, wait_until
from tests.sources import Numbered, number_of, numbers_of


@line("I1")
def test_iter_gives_a_pass_or_the_rest_of_one_and_take_exactly_so_many_across_passes():
    with rayfeed.Feed(Numbered(5), 2, use_multiprocessing=True) as feed:
        assert numbers_of(feed) == [0, 1, 2, 3, 4]
        for one in feed:
            if number_of(one) == 1:
                break
        assert numbers_of(feed.take(5)) == [2, 3, 4, 0, 1]
        assert numbers_of(feed) == [2, 3, 4]


@line("I1")
def test_a_generator_is_one_stream_and_a_second_iter_goes_on_where_the_first_stopped():
    def generate():
        for number in range(6):
            yield np.array([[number]]), None

    with rayfeed.Feed(generate) as feed:
        assert int(next(iter(feed))[0][0, 0]) == 0
        assert [int(inputs[0, 0]) for inputs, _ in feed] == [1, 2, 3, 4, 5]
        assert list(feed) == []


class Nested(rayfeed.Sequence):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return (
            {"image": np.zeros((2, 3)), "text": np.array(["a", "b"])},
            [np.ones(2), np.ones(2, bool)],
            np.full(2, 0.5),
        )


@line("I2")
def test_a_batch_has_the_structure_of_its_source_with_numpy_arrays():
    with rayfeed.Feed(Nested()) as feed:
        ((inputs, targets, weights),) = feed
    assert {name: (type(array), array.shape) for name, array in inputs.items()} == {
        "image": (np.ndarray, (2, 3)),
        "text": (np.ndarray, (2,)),
    }
    assert [array.dtype for array in targets] == [np.float64, np.bool_]
    assert weights.tolist() == [0.5, 0.5]


@line("I3")
def test_copies_of_a_generator_take_turns_and_unordered_each_batch_still_comes_once():
    def generate():
        info = rayfeed.get_worker_info()
        for number in range(10):
            yield np.array([[info.id, number]]), None

    with rayfeed.Feed(generate, 3, use_multiprocessing=True) as feed:
        seen = [tuple(inputs[0].tolist()) for inputs, _ in feed]
    assert seen == [(copy, number) for number in range(10) for copy in range(3)]
    with rayfeed.Feed(Numbered(30), 3, use_multiprocessing=True, ordered=False) as feed:
        assert sorted(numbers_of(feed)) == list(range(30))


@line("F2")
def test_all_producers_killed_at_once_cost_a_sequence_nothing():
    with rayfeed.Feed(Numbered(60), 3, use_multiprocessing=True, max_queue_size=2) as feed:
        reader = iter(feed)
        read = [number_of(next(reader))]
        wait_until(lambda: len(feed.processes()) == 3, "they do not come")
        for process in feed.processes():
            os.kill(process.pid, signal.SIGKILL)
        read += numbers_of(reader)
        assert read == list(range(60))
        assert feed.stats().lost_producers >= 1


@line("F4")
def test_a_feed_that_was_closed_twice_or_left_half_way_has_no_producer_left():
    before = living_actors()
    feed = rayfeed.Feed(Numbered(50), 2, use_multiprocessing=True)
    next(iter(feed))
    assert living_actors() != before
    feed.close()
    feed.close()
    wait_until(lambda: living_actors() == before, "its producers live on")
    with pytest.raises(FeedClosedError):
        next(iter(feed))

    def leave():
        with rayfeed.Feed(Numbered(50)) as feed:
            next(iter(feed))
            raise LookupError

    with pytest.raises(LookupError):
        leave()
    wait_until(lambda: living_actors() == before, "its producer lives on")


@line("F5")
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"producers": ProducerOptions(num_cpus=64)}, "a producer claims 64 CPU, more than any node"),
        ({"trainer": TrainerOptions(num_cpus=64)}, "the trainer claims 64 CPU, more than any node"),
        ({"trainer": TrainerOptions(num_gpus=9)}, "9 GPU, more than any node"),
    ],
    ids=["producer", "trainer", "GPU"],
)
def test_what_can_never_be_placed_is_refused_at_once_with_the_numbers(options, told, echo):
    with pytest.raises(PlacementError, match=told) as caught:
        rayfeed.fit_generator(echo, Numbered(3), verbose=0, **options)
    assert "It would wait for ever" in str(caught.value)
