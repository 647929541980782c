"""Slices that go on in the middle of a stream, and tell where it stands."""

import pytest

from rayfeed.errors import SourceError
from rayfeed.queue.deliveries import PassBegun, PassEnded, StreamEnded
from rayfeed.queue.position import START, Position
from rayfeed.queue.stream import Delivered
from rayfeed.trainer.adapter import Steps
from rayfeed.trainer.slices import Slices, Standing


class Stream:
    """A stream of these items: numbers are batches, the rest is itself."""

    def __init__(self, *items):
        self.items = [Delivered(None, item, item) if isinstance(item, int) else item for item in items]

    def next_item(self):
        return self.items.pop(0)


def stream(lengths, start=START, announced=False):
    """The passes of a Sequence from there on, as windows give them; batches are numbered 100 * pass + place."""
    items = []
    for index, length in enumerate(lengths):
        if index < start.pass_index:
            continue
        if announced:
            items.append(PassBegun(index, length))
        first = start.consumed if index == start.pass_index else 0
        items += [100 * index + place for place in range(first, length)]
        items.append(PassEnded(index, lengths[min(index + 1, len(lengths) - 1)]))
    return Stream(*items, StreamEnded())


def taken(slices, count=99):
    places = []
    while len(places) < count and (item := slices.take()) is not None:
        places.append(item.place)
    return places


LENGTHS = (4, 5, 2, 3)


def read(slices, stop=99):
    """The rest of the stream, slice by slice, at most so many slices."""
    read = []
    while len(read) < stop and not slices.has_ended:
        slices.begin()
        read.append(taken(slices))
    return [batches for batches in read if batches]


def opened(steps, announced, standing=None):
    start = standing.position if standing is not None else START
    return Slices(
        stream(LENGTHS, start, announced), steps=steps, first_length=4, announced=announced, standing=standing
    )


@pytest.mark.parametrize("announced", [False, True])
@pytest.mark.parametrize("steps", [None, 3])
@pytest.mark.parametrize("num_slices", [1, 2, 3])
@pytest.mark.parametrize("trained", [1, 2, None])
def test_what_is_left_of_a_stream_is_what_an_uninterrupted_one_has_left(trained, num_slices, steps, announced):
    whole = read(opened(steps, announced))
    slices = opened(steps, announced)
    before = read(slices, num_slices - 1)
    length = slices.begin()
    if trained == length:
        trained = None
    before.append(taken(slices))
    standing = slices.standing(trained)
    assert standing.in_slice == trained
    again = opened(steps, announced, standing)
    assert (again.next_length() if trained is not None else length) == length
    rest = read(again)
    if trained is not None:
        before[-1] = before[-1][:trained]
        before[-1] += rest.pop(0)
    assert before + rest == whole


def test_what_was_taken_ahead_does_not_count():
    slices = opened(4, announced=False)
    slices.begin()
    taken(slices)
    slices.begin()
    assert taken(slices, 3) == [100, 101, 102]
    assert slices.standing(1).position == Position(1, 1)
    assert slices.standing(3).position == Position(1, 3)


def test_a_look_beyond_the_slice_does_not_count_either():
    slices = opened(4, announced=False)
    slices.begin()
    taken(slices)
    assert slices.has_more()
    assert slices.standing(None).position == Position(0, 4)
    slices.begin()
    taken(slices)
    assert slices.standing(4).position == Position(1, 4)


def test_a_pass_that_was_left_early_is_passed_over_after_a_resume_too():
    slices = opened(None, announced=False)
    slices.begin()
    taken(slices, 2)
    again = opened(None, False, slices.standing(None))
    assert again.begin() == 5
    assert taken(again) == [100, 101, 102, 103, 104]


def test_before_the_first_slice_there_is_no_standing():
    assert opened(None, announced=False).standing(None) is None


def test_a_resumed_stream_of_which_nothing_was_taken_stands_where_it_stood():
    standing = Standing(Position(2, 5), None, 5)
    slices = opened(None, False, standing)
    assert slices.standing(None) == standing


def test_keras_is_to_take_the_rest_of_a_resumed_slice_and_all_of_the_next():
    slices = opened(None, False, Standing(Position(0, 3), 3, 4))
    steps = Steps(slices)
    slices.begin()
    assert (int(steps), steps > 0, steps <= 1, slices.length, slices.num_taken) == (1, True, True, 4, 3)
    assert taken(slices) == [3]
    assert slices.is_complete
    slices.begin()
    assert (int(steps), slices.num_before) == (5, 0)


def test_a_generator_is_read_up_to_where_it_was():
    standing = Standing(Position(0, 5), 2, 3)
    slices = Slices(Stream(*range(9), StreamEnded()), steps=3, first_length=None, standing=standing, skipped=5)
    slices.catch_up()
    assert read(slices) == [[5], [6, 7, 8]]
    slices = Slices(Stream(*range(9)), steps=3, first_length=None, standing=standing, skipped=5)
    slices.catch_up()
    slices.begin()
    slices.take()
    assert slices.standing(3) == Standing(Position(0, 6), 3, 3)


def test_a_generator_that_ends_before_is_another_one():
    slices = Slices(Stream(0, 1, StreamEnded()), steps=3, first_length=None, skipped=5)
    with pytest.raises(SourceError, match="has 5 batches of a generator consumed; it ended after 2"):
        slices.catch_up()
