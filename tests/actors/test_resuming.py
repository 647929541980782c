"""G1, G3: what a batch draws follows from the seed, the pass and the index; a feed goes on where another one stood."""

import json
import random
import re
import threading
from itertools import islice

import numpy as np
import pytest

import rayfeed
from rayfeed.errors import FeedClosedError, OptionError, SourceError
from tests.conftest import wait_until
from tests.sources import Log, Numbered, batch, numbers_of

NUM_BATCHES = 14  # over three passes of Drawing: 4, 5 and 6 batches
WORKERS = [(0, False), (1, False), (3, True)]


class Drawing(rayfeed.Sequence):
    """Draws from every stream that a seed reaches, in each batch and in the hook, which makes passes longer."""

    def __init__(self):
        self.order = np.arange(4)

    def __len__(self):
        return len(self.order)

    def __getitem__(self, index):
        drawn = [np.random.rand(), random.random(), rayfeed.rng().random(), rayfeed.rng().random()]  # noqa: NPY002
        return np.array([[self.order[index], index, *drawn]]), np.array([index])

    def on_epoch_end(self):
        self.order = np.append(self.order, len(self.order))
        np.random.shuffle(self.order)  # noqa: NPY002 - what seeding is for
        rayfeed.rng().shuffle(self.order)


def opened(source=None, workers=(0, False), **options):
    return rayfeed.Feed(source or Drawing(), *workers, **{"shuffle": True, "seed": 9, **options})


def bytes_of(batches):
    return [(inputs.tobytes(), targets.tobytes()) for inputs, targets in batches]


@pytest.fixture(scope="module")
def everything():
    with opened() as feed:
        return bytes_of(feed.take(NUM_BATCHES))


@pytest.mark.parametrize("workers", [(1, True), (2, True), (5, True), (1, False)])
def test_batches_are_the_same_bytes_for_any_number_of_workers(workers, everything):
    with opened(workers=workers) as feed:
        assert bytes_of(feed.take(NUM_BATCHES)) == everything


def test_threads_of_one_producer_do_not_share_what_rng_draws():
    class Private(rayfeed.Sequence):
        def __len__(self):
            return 40

        def __getitem__(self, index):
            return rayfeed.rng().random((1, 3)), np.array([index])

    found = []
    for workers in ((0, False), (4, False), (2, True)):
        with rayfeed.Feed(Private(), *workers, seed=1) as feed:
            found.append(bytes_of(feed))
    assert found[0] == found[1] == found[2]


def test_hooks_draw_other_numbers_after_each_pass_and_the_same_for_any_number_of_workers():
    class Marked(rayfeed.Sequence):
        mark = 0.0

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return np.full((1, 1), self.mark), np.zeros(1)

        def on_epoch_begin(self):
            self.mark = rayfeed.rng().random()

        def on_epoch_end(self):
            self.ended = rayfeed.rng().random()
            assert self.ended != self.mark

    found = []
    for workers in ((0, False), (2, True)):
        with rayfeed.Feed(Marked(), *workers, seed=5) as feed:
            found.append([inputs.item() for inputs, _ in feed.take(6)])
    assert found[0] == found[1]
    assert len(set(found[0])) == 3


@pytest.mark.parametrize("split", [0, 2, 4, 7, 9, 12])
@pytest.mark.parametrize(
    ("before", "after"), [((0, False), (3, True)), ((3, True), (1, False)), ((1, False), (0, False))]
)
def test_a_feed_goes_on_with_the_very_next_batch(split, before, after, everything):
    with opened(workers=before) as feed:
        assert bytes_of(feed.take(split)) == everything[:split]
        state = json.loads(json.dumps(feed.state_dict()))
    with opened(workers=after) as feed:
        feed.load_state_dict(state)
        assert bytes_of(feed.take(NUM_BATCHES - split)) == everything[split:]


def test_a_state_taken_in_a_loop_counts_the_batch_in_hand(everything):
    with opened(workers=(2, True)) as feed:
        feed.load_state_dict(next(state_after(5)))
        for number, _ in enumerate(feed, 6):
            if number == 7:
                state = feed.state_dict()
                break
    assert (state["pass"], state["consumed"]) == (1, 3)
    with opened() as feed:
        feed.load_state_dict(state)
        assert bytes_of(feed.take(2)) == everything[7:9]


def state_after(count):
    with opened() as feed:
        list(feed.take(count))
        yield feed.state_dict()


def test_the_rest_of_a_pass_is_read_and_then_the_next():
    (state,) = state_after(2)
    with opened() as feed:
        feed.load_state_dict(state)
        assert [len(list(feed)) for _ in range(2)] == [2, 5]


def test_without_a_seed_the_orders_go_on_too():
    with rayfeed.Feed(Numbered(8), 0, shuffle=True) as feed:
        first = numbers_of(feed.take(11))
        state = feed.state_dict()
        rest = numbers_of(feed.take(13))
    for workers in ((0, False), (2, True)):
        with rayfeed.Feed(Numbered(8), *workers, shuffle=True) as feed:
            feed.load_state_dict(state)
            assert numbers_of(feed.take(13)) == rest
    assert sorted(first[:8]) == sorted(first[8:] + rest[:5]) == list(range(8))


def test_batches_that_came_out_of_order_come_once():
    with rayfeed.Feed(Numbered(30), 3, True, ordered=False, shuffle=True) as feed:
        first = numbers_of(feed.take(13))
        state = feed.state_dict()
    with rayfeed.Feed(Numbered(30), 2, True, ordered=False, shuffle=True) as feed:
        feed.load_state_dict(state)
        rest = numbers_of(feed)
    assert sorted(first + rest) == list(range(30))


def numbers():
    number = 0
    while True:
        yield batch(number)
        number += 1


def copies():
    info = rayfeed.get_worker_info()
    for number in range(info.id, 40, info.num_workers):
        yield batch(number)


@pytest.mark.parametrize("workers", [(0, False), (1, True), (1, False)])
def test_a_generator_is_run_again_up_to_where_it_was(workers):
    with rayfeed.Feed(numbers, *workers) as feed:
        list(feed.take(7))
        state = feed.state_dict()
    with rayfeed.Feed(numbers, *workers) as feed:
        feed.load_state_dict(state)
        assert numbers_of(feed.take(3)) == [7, 8, 9]
        assert feed.state_dict()["consumed"] == 10


def test_copies_of_a_generator_go_on_in_their_turns():
    with rayfeed.Feed(copies, 3, True) as feed:
        list(feed.take(8))
        state = feed.state_dict()
    with rayfeed.Feed(copies, 3, True) as feed:
        feed.load_state_dict(state)
        assert numbers_of(feed) == list(range(8, 40))
    with rayfeed.Feed(copies, 2, True) as feed, pytest.raises(OptionError, match="3 copies of its generator: workers"):
        feed.load_state_dict(state)


def test_a_generator_that_stays_here_goes_on_as_it_is():
    with rayfeed.Feed(numbers, 0) as feed:
        list(feed.take(4))
        state = feed.state_dict()
    started = numbers()
    next(started)
    with pytest.warns(UserWarning, match="runs in a thread of this process"):
        feed = rayfeed.Feed(started)
    with feed:
        feed.load_state_dict(state)
        assert numbers_of(feed.take(2)) == [5, 6]


def test_unordered_copies_of_a_generator_have_no_position():
    with rayfeed.Feed(copies, 2, True, ordered=False) as feed, pytest.raises(OptionError, match="has no position"):
        feed.state_dict()


def test_a_state_of_copies_in_turn_is_not_for_copies_in_any_order():
    with rayfeed.Feed(copies, 2, True) as feed:
        state = feed.state_dict()
    with rayfeed.Feed(copies, 2, True, ordered=False) as feed, pytest.raises(OptionError, match="has no position"):
        feed.load_state_dict(state)


def test_a_seeded_generator_that_stays_here_must_be_given_the_seed():
    with rayfeed.Feed(numbers, 0, seed=6) as feed:
        list(feed.take(2))
        state = feed.state_dict()
    for seed in (None, 6):
        started = numbers()
        with pytest.warns(UserWarning, match="runs in a thread of this process"):
            feed = rayfeed.Feed(started_by(started), seed=seed)
        with feed:
            if seed is None:
                with pytest.raises(OptionError, match=r"has begun without it\.\n  Give seed=6\."):
                    feed.load_state_dict(state)
            else:
                feed.load_state_dict(state)
                assert numbers_of(feed.take(1)) == [3]


def started_by(generator):
    next(generator)
    return generator


@pytest.mark.parametrize("workers", [(0, False), (1, False)])
def test_a_generator_that_ends_before_the_state_is_told(workers):
    def three():
        yield from map(batch, range(3))

    with rayfeed.Feed(numbers, 0) as feed:
        list(feed.take(9))
        state = feed.state_dict()
    with rayfeed.Feed(three, *workers) as feed:
        feed.load_state_dict(state)
        with pytest.raises(SourceError, match="9 batches consumed; the generator ended 6 before that"):
            next(iter(feed))


def test_what_a_generators_function_draws_before_it_yields_follows_from_the_seed():
    def noise():
        offset = rayfeed.rng().random()
        return ((rayfeed.rng().random((1, 2)) + offset, np.zeros(1)) for _ in range(3))

    found = []
    for workers in ((0, False), (1, False), (1, True)):
        with rayfeed.Feed(noise, *workers, seed=2) as feed:
            found.append(bytes_of(feed))
    assert found[0] == found[1] == found[2]


def test_a_feed_closed_while_hooks_run_again_ends_them(log, gate):
    class Slow(Numbered):
        def on_epoch_end(self):
            self.log.add("hook")
            gate.wait()

    with rayfeed.Feed(Slow(3, log=log), 0) as feed:
        state = feed.state_dict() | {"pass": 500}
    feed = rayfeed.Feed(Slow(3, log=Log(log.path + "-hooks")), 1)
    feed.load_state_dict(state)
    hooks = Log(log.path + "-hooks")
    wait_until(lambda: "hook" in hooks.lines(), "no hook ran")
    closing = threading.Thread(target=feed.close)
    closing.start()
    wait_until(lambda: feed._stream._state.canonical is None or feed._stream._state.canonical._closed, "it is not told")
    gate.open()
    closing.join(10)
    assert not closing.is_alive()
    assert hooks.lines().count("hook") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 8}, "the state is of a feed with seed=9; this one has seed=8.\n  Give the same, or none"),
        ({"shuffle": False}, "the state is of a feed with True for shuffle; this one has False."),
        ({"source": Numbered(5)}, "the state is of a feed with 4 batches in its first pass; this one has 5."),
        ({"source": numbers}, "the state is of a Sequence; this feed's source is a generator."),
    ],
)
def test_a_state_of_another_feed_is_refused(options, message):
    (state,) = state_after(1)
    with opened(**options) as feed, pytest.raises(OptionError, match=re.escape(message)):
        feed.load_state_dict(state)


def test_a_state_without_a_seed_is_not_for_a_feed_with_one():
    with rayfeed.Feed(Numbered(5), 0) as feed:
        state = feed.state_dict()
    with (
        rayfeed.Feed(Numbered(5), 0, seed=1) as feed,
        pytest.raises(OptionError, match="a feed with no seed; this one"),
    ):
        feed.load_state_dict(state)


@pytest.mark.parametrize("workers", [(0, False), (2, True)])
def test_a_state_beyond_the_sources_end_is_refused_and_the_feed_is_closed(workers):
    (state,) = state_after(3)
    with rayfeed.Feed(Numbered(4), *workers, shuffle=True, seed=9) as feed:
        with pytest.raises(SourceError, match="batch 5 of pass 0 consumed, which has 4 batches"):
            go_on(feed, state | {"consumed": 6})
        with pytest.raises((FeedClosedError, SourceError)):
            next(iter(feed))


def go_on(feed, state):
    feed.load_state_dict(state)
    return next(iter(feed))


def test_a_state_comes_before_the_first_batch():
    (state,) = state_after(1)
    with opened() as feed:
        next(islice(feed, 1))
        with pytest.raises(OptionError, match="load_state_dict comes once, before the first batch is read"):
            feed.load_state_dict(state)
    with pytest.raises(FeedClosedError):
        feed.load_state_dict(state)
