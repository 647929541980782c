"""Reading a feed: `iter`, `take`, structures, copies, figures, frames (contract I1, I2, B6)."""

import numpy as np
import pytest

import rayfeed
from rayfeed.errors import FeedClosedError
from rayfeed.queue.stream import Delivered
from tests.conftest import wait_until
from tests.sources import Numbered, number_of, numbers_of


@pytest.mark.parametrize("workers", [0, 2])
def test_take_and_iter_continue_where_the_last_reader_stopped(workers):
    with rayfeed.Feed(Numbered(5), workers) as feed:
        assert numbers_of(feed.take(7)) == [0, 1, 2, 3, 4, 0, 1]  # across the end of a pass
        assert numbers_of(feed) == [2, 3, 4]  # the rest of the pass
        for batch in feed:
            assert number_of(batch) == 0
            break
        assert numbers_of(feed) == [1, 2, 3, 4]  # where the broken-off loop stopped
        assert numbers_of(feed.take(5)) == [0, 1, 2, 3, 4]
        assert numbers_of(feed) == [0, 1, 2, 3, 4]  # the pass was read to its end, so that this is the next one
        assert numbers_of(feed.take(0)) == []


def interrupted():
    raise KeyboardInterrupt


def test_ctrl_c_while_a_batch_is_made_in_line_is_no_end_of_the_stream():
    with rayfeed.Feed(Numbered(5, at={2: interrupted}), workers=0) as feed:
        with pytest.raises(KeyboardInterrupt):
            numbers_of(feed)
        for _ in range(2):
            with pytest.raises(FeedClosedError) as caught:
                numbers_of(feed)
        state = feed.state_dict()
    assert str(caught.value) == (
        "this feed was interrupted (KeyboardInterrupt) while source made a batch in this process, and its loop over "
        "the source ended with that: open a new one.\n"
        "  One that is given this one's state_dict() begins with the batch that was interrupted."
    )
    with rayfeed.Feed(Numbered(5), workers=0) as feed:
        feed.load_state_dict(state)
        assert numbers_of(feed) == [2, 3, 4]


def test_an_iterator_that_is_kept_shares_its_place_with_take():
    with rayfeed.Feed(Numbered(6)) as feed:
        reader = iter(feed)
        assert number_of(next(reader)) == 0
        assert numbers_of(feed.take(2)) == [1, 2]
        assert numbers_of(reader) == [3, 4, 5]


def test_take_gives_fewer_only_where_a_generator_ends():
    with rayfeed.Feed(lambda: (Numbered(4)[index] for index in range(4))) as feed:
        assert numbers_of(feed.take(3)) == [0, 1, 2]
        assert numbers_of(feed.take(3)) == [3]


ONE, TWO = np.arange(6.0).reshape(2, 3), np.array(["a", "bc"])
STRUCTURES = {
    "arrays": (ONE, TWO),
    "weights": (ONE, TWO, np.ones(2)),
    "a list as batch": [ONE, TWO],
    "no targets": (ONE, None),
    "no targets but weights": (ONE, None, np.ones(2)),
    "dicts": ({"b": ONE, "a": TWO}, {"y": ONE > 2}),
    "list and tuple": ([ONE, TWO], (ONE, ONE.astype(complex))),
    "mixed": ({"x": ONE}, [ONE], np.zeros(2, "float16")),
    "no samples": (np.empty((0, 3)), np.empty(0)),
}


class Structured(rayfeed.Sequence):
    def __init__(self, value):
        self.value = value

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.value


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_keeps_the_structure_and_dtypes_its_source_gave_it(name, workers):
    expected = STRUCTURES[name]
    with rayfeed.Feed(Structured(expected), workers) as feed:
        for found in feed:
            assert_same(found, expected)


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, (list, tuple)):
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif expected is not None:
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(found, expected)


def test_delivered_arrays_are_read_only_views():
    with rayfeed.Feed(Numbered(3)) as feed:
        for inputs, targets in feed:
            assert not inputs.flags.writeable
            assert inputs.base is not None
            with pytest.raises(ValueError, match="read-only"):
                targets[0] = 1


@pytest.mark.parametrize("workers", [0, 1])
def test_copy_gives_private_writable_arrays(workers):
    with rayfeed.Feed(Numbered(4), workers, copy=True) as feed:
        kept = list(feed)
        for inputs, targets in kept:
            assert inputs.flags.owndata
            np.add(inputs, 100, out=inputs)
            np.add(targets, 100, out=targets)
        assert numbers_of(kept) == [100, 101, 102, 103]
        assert numbers_of(feed) == [0, 1, 2, 3]


def test_batches_stay_as_they_are_while_they_are_held_and_after_the_feed_is_closed():
    with rayfeed.Feed(Numbered(40, size=20_000), 2, use_multiprocessing=True) as feed:
        kept = list(feed.take(60))
    assert numbers_of(kept) == [*range(40), *range(20)]
    del kept


@pytest.mark.parametrize(("workers", "use_multiprocessing"), [(0, False), (3, False), (2, True)])
def test_stats_count_what_was_delivered(workers, use_multiprocessing):
    with rayfeed.Feed(Numbered(30, size=10), workers, use_multiprocessing) as feed:
        list(feed.take(24))
        stats = feed.stats()
    assert stats.batches == 24
    assert stats.bytes == 24 * 10 * (2 * 4 + 8)
    assert stats.num_producers == (workers if use_multiprocessing else min(workers, 1))
    assert stats.num_workers == workers
    assert 0 < stats.first_wait_s <= stats.wait_s <= stats.run_s
    assert stats.produce_s > 0
    assert 0 <= stats.wait_share <= 1
    assert (stats.lost_producers, stats.remade_tickets) == (0, 0)
    assert (stats.frames > 0) == (workers > 0)
    assert str(stats).startswith("24 batches (0.0 MB) from ")


def test_frames_begin_with_one_batch_and_grow():
    with rayfeed.Feed(Numbered(2000), max_queue_size=500) as feed:
        sizes = []
        for _ in range(2000):
            item = feed._stream.next_item()
            if item.place == 0:
                sizes.append(item.reader.num_batches)
        assert sizes[0] == 1  # training starts with the first batch made
        assert sum(sizes) == 2000
        assert max(sizes) > 20
        assert feed.stats().frames < 200


def test_looking_at_the_next_batch_takes_nothing():
    with rayfeed.Feed(Numbered(3), max_queue_size=4) as feed:
        stream = feed._opened.streams[0]
        assert stream.peek() is None  # nothing was asked for yet
        items = []
        for _ in range(8):
            stream.start()
            wait_until(lambda: stream.peek() is not None or stream._seen is not None, "nothing arrived")
            seen = stream.peek()
            assert stream.peek() == seen
            items.append(stream.next_item())
            assert seen == (items[-1] if isinstance(items[-1], Delivered) else None)
        assert feed.stats().batches == 6
    kinds = [type(item).__name__ for item in items]
    assert kinds == 2 * ["Delivered", "Delivered", "Delivered", "PassEnded"]


def test_in_line_nothing_is_made_for_a_look():
    with rayfeed.Feed(Numbered(3), 0) as feed:
        assert feed._opened.streams[0].peek() is None
        assert numbers_of(feed) == [0, 1, 2]
