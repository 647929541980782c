"""A stream cut into epochs: exactly the batches of each, and not one more read."""

import pytest

from rayfeed.queue.deliveries import PassEnded, StreamEnded
from rayfeed.queue.stream import Delivered
from rayfeed.trainer.slices import Slices


class Stream:
    """A stream of these items: numbers are batches, the rest is itself. It must not be read beyond its end."""

    def __init__(self, *items):
        self.items = [Delivered(None, item, item) if isinstance(item, int) else item for item in items]
        self.num_read = 0

    def next_item(self):
        item = self.items[self.num_read]
        self.num_read += 1
        if isinstance(item, BaseException):
            raise item
        return item


def passes(*lengths):
    """Whole passes of these lengths, numbered through; each pass end tells the next length."""
    items, number = [], 0
    for index, length in enumerate(lengths):
        items += range(number, number + length)
        number += length
        items.append(PassEnded(index, lengths[index + 1] if index + 1 < len(lengths) else length))
    return Stream(*items, StreamEnded())


def taken(slices, count=99):
    """The places of the next batches of the current slice."""
    places = []
    while len(places) < count and (item := slices.take()) is not None:
        places.append(item.place)
    return places


def test_slices_of_a_fixed_length_lose_and_repeat_nothing():
    slices = Slices(Stream(*range(6), StreamEnded()), steps=3, first_length=None)
    epochs = []
    for _ in range(2):
        assert slices.begin() == slices.length == 3
        epochs.append(taken(slices))
    assert epochs == [[0, 1, 2], [3, 4, 5]]
    assert slices.num_begun == 2


def test_a_slice_reads_nothing_beyond_its_last_batch():
    stream = Stream(*range(9))
    slices = Slices(stream, steps=4, first_length=None)
    slices.begin()
    assert taken(slices) == [0, 1, 2, 3]
    assert slices.take() is None
    assert stream.num_read == 4


def test_a_slice_of_a_fixed_length_passes_over_pass_ends():
    slices = Slices(passes(2, 2, 2), steps=3, first_length=2)
    slices.begin()
    assert taken(slices) == [0, 1, 2]
    assert slices.begin() == 3
    assert taken(slices) == [3, 4, 5]


def test_a_slice_that_is_a_pass_has_the_length_the_pass_before_it_told():
    slices = Slices(passes(3, 1, 2), steps=None, first_length=3)
    epochs = []
    for _ in range(3):
        length = slices.begin()
        epochs.append(taken(slices))
        assert length == slices.length == len(epochs[-1])
    assert epochs == [[0, 1, 2], [3], [4, 5]]


def test_the_pass_end_is_waited_for_when_the_next_length_is_asked_and_not_before():
    for length in (2, 5):
        stream = passes(2, length)
        slices = Slices(stream, steps=None, first_length=2)
        assert slices.next_length() == 2
        assert stream.num_read == 0
        slices.begin()
        taken(slices)
        assert stream.num_read == 2
        assert slices.next_length() == slices.next_length() == length
        assert stream.num_read == 3
        assert slices.begin() == length
        assert stream.num_read == 3


def test_a_slice_is_complete_when_all_of_it_was_taken():
    slices = Slices(passes(2), steps=None, first_length=2)
    assert not slices.is_complete
    slices.begin()
    assert not slices.is_complete
    taken(slices)
    assert slices.is_complete
    assert not Slices(passes(2), steps=None, first_length=None).is_complete


def test_a_stream_that_ends_early_gives_what_it_has_and_says_so():
    slices = Slices(Stream(0, 1, 2, StreamEnded()), steps=2, first_length=None)
    slices.begin()
    assert taken(slices) == [0, 1]
    slices.begin()
    assert taken(slices) == [2]
    assert slices.has_ended
    assert slices.take() is None
    assert not slices.is_complete


def test_a_stream_of_passes_that_ends_says_so_when_the_next_length_is_asked():
    slices = Slices(Stream(0, StreamEnded()), steps=None, first_length=1)
    slices.begin()
    taken(slices)
    assert slices.next_length() == 1
    assert slices.has_ended
    slices.finish()


def test_looking_ahead_loses_no_batch():
    stream = Stream(*range(4), StreamEnded())
    slices = Slices(stream, steps=2, first_length=None)
    slices.begin()
    taken(slices)
    assert slices.has_more()
    assert slices.has_more()
    assert stream.num_read == 3
    slices.begin()
    assert taken(slices) == [2, 3]
    assert not slices.has_more()


def test_looking_ahead_passes_over_pass_ends():
    slices = Slices(passes(1, 1), steps=1, first_length=1)
    slices.begin()
    taken(slices)
    assert slices.has_more()
    slices.begin()
    assert taken(slices) == [1]
    assert not slices.has_more()


def test_finishing_reads_to_the_streams_end_so_that_the_last_hook_has_run():
    stream = passes(2)
    slices = Slices(stream, steps=None, first_length=2)
    slices.begin()
    taken(slices)
    slices.finish()
    assert stream.num_read == len(stream.items)


def test_what_the_last_hook_raises_is_raised_by_finishing():
    slices = Slices(Stream(0, ValueError("in the hook")), steps=None, first_length=1)
    slices.begin()
    taken(slices)
    with pytest.raises(ValueError, match="in the hook"):
        slices.finish()


def test_what_the_source_raised_is_remembered_with_its_cause():
    error = ValueError("batch 1")
    error.__cause__ = KeyError("label")
    slices = Slices(Stream(0, error), steps=3, first_length=None)
    slices.begin()
    slices.take()
    assert slices.failure is None
    with pytest.raises(ValueError, match="batch 1"):
        slices.take()
    assert slices.failure.error is error
    assert slices.failure.cause is error.__cause__


def test_an_error_comes_at_its_place_in_the_slice():
    slices = Slices(Stream(0, ValueError("batch 1")), steps=3, first_length=None)
    slices.begin()
    assert slices.take().place == 0
    with pytest.raises(ValueError, match="batch 1"):
        slices.take()


def test_a_look_ahead_stays_inside_of_the_slice():
    stream = passes(2, 2)
    stream.peek = lambda: (
        stream.items[stream.num_read] if isinstance(stream.items[stream.num_read], Delivered) else None
    )
    slices = Slices(stream, steps=3, first_length=None)
    slices.begin()
    seen = []
    while (item := slices.take()) is not None:
        seen.append((item.place, getattr(slices.peek(), "place", None)))
    assert seen == [(0, 1), (1, None), (2, None)]  # a pass' end comes first; the slice ends
    assert slices.has_more()  # reads the next one
    slices.begin()
    assert slices.peek().place == 3
