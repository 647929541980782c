"""Of each version of a source only what changed is sent, and what producers put together is what it is here."""

import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rayfeed.producer.loading import received
from rayfeed.producer.messages import Payload
from rayfeed.queue import versions as module
from rayfeed.queue.versions import MAX_PARCELS, Versions
from rayfeed.source.packed import PIECE_BYTES
from rayfeed.source.shipping import put_together, take_apart

PARCEL_BYTES = 3 * PIECE_BYTES
LARGE = PARCEL_BYTES // 8  # numbers of 8 bytes, a parcel by itself
PIECE = PIECE_BYTES // 8


@pytest.fixture(autouse=True, scope="module")
def small_parcels():
    """What is tested does not depend on their size, and the tests' time does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PARCEL_BYTES", PARCEL_BYTES)
        yield


class Store:
    """An object store: what is put there is a copy, and is gone when no reference to it is left, as Ray's is."""

    def __init__(self):
        self.objects = {}
        self.sent_bytes = 0

    def put(self, value):
        buffers = []
        data = pickle.dumps(value, 5, buffer_callback=buffers.append)
        copies = [bytes(buffer.raw()) for buffer in buffers]
        self.sent_bytes += len(data) + sum(map(len, copies))
        ref = len(self.objects)
        self.objects[ref] = data, copies
        return ref

    def get(self, ref):
        data, copies = self.objects[ref]
        return pickle.loads(data, buffers=copies)


class Source:
    """What is at a producer's: a version, or the canonical copy."""

    def __init__(self, **members):
        self.__dict__.update(members)


class Stream:
    """A source whose versions are sent, as the canonical copy does, and read as a producer does."""

    def __init__(self, source):
        self.store = Store()
        self.versions = Versions(self.store.put, self.store.get)
        self.ref = self.versions.send(take_apart(source, name="generator"))
        self.canonical = self.versions.load()

    def send(self):
        """Send the canonical copy as it is now; how many bytes that took."""
        before = self.store.sent_bytes
        self.ref = self.versions.send(take_apart(self.canonical, name="generator"))
        return self.store.sent_bytes - before

    def received(self):
        return put_together(received(self.store.get(self.ref), self.store.get))

    def payload(self) -> Payload:
        return self.store.get(self.ref)

    def parcels(self):
        return [len(parcel.sizes) for parcel in self.payload().parcels]


def same(one, other):
    """Whether two objects look the same in every way that a pickle keeps."""
    return pickle.dumps(one, 5) == pickle.dumps(other, 5)


def test_an_index_array_shuffled_in_place_is_all_that_travels():
    stream = Stream(Source(inputs=np.arange(8 * LARGE), order=np.arange(1000), passes=0))
    for _ in range(3):
        np.random.default_rng(1).shuffle(stream.canonical.order)
        stream.canonical.passes += 1
        assert stream.send() < 10_000
        assert same(stream.received(), stream.canonical)
    assert stream.parcels() == [1]


def test_an_index_array_of_some_size_rides_along_and_leaves_no_parcel_behind():
    stream = Stream(Source(inputs=np.arange(8 * LARGE), order=np.arange(PIECE)))
    for _ in range(20):
        np.random.default_rng(1).shuffle(stream.canonical.order)
        assert stream.send() < 8 * PIECE + 2000
        assert same(stream.received(), stream.canonical)
    assert stream.parcels() == [2]


@pytest.mark.parametrize("place", [0, 12345, -1])
def test_one_number_changed_in_place_is_noticed_wherever_it_is(place):
    stream = Stream(Source(inputs=np.zeros(2 * LARGE + 3, np.int64)))
    stream.canonical.inputs[place] = 1
    assert stream.send() > 16 * LARGE
    assert stream.received().inputs[place] == 1
    assert stream.received().inputs.sum() == 1
    assert stream.send() < 2000


def test_what_is_equal_is_not_sent_again_though_it_is_another_object():
    stream = Stream(Source(inputs=np.arange(2 * LARGE), order=3))
    stream.canonical.inputs = stream.canonical.inputs.copy()
    stream.canonical.order = 4
    assert stream.send() < 2000
    assert same(stream.received(), stream.canonical)


def test_a_list_of_arrays_shuffled_in_place_is_sent_as_its_order():
    stream = Stream(Source(items=[np.full(PIECE, number) for number in range(40)]))
    for seed in range(3):
        np.random.default_rng(seed).shuffle(stream.canonical.items)
        assert stream.send() < 5000
        assert same(stream.received(), stream.canonical)


def test_arrays_added_and_removed_are_noticed_and_the_rest_is_not_sent_again():
    stream = Stream(Source(items=[np.full(LARGE, number) for number in range(4)]))
    del stream.canonical.items[1]
    stream.canonical.items.insert(0, np.full(LARGE, 9))
    sent = stream.send()
    assert 8 * LARGE <= sent < 9 * LARGE
    assert same(stream.received(), stream.canonical)


def test_two_arrays_that_became_one_and_one_that_became_two():
    stream = Stream(Source(a=np.arange(LARGE), b=np.arange(LARGE) + 1))
    stream.canonical.b = stream.canonical.a
    assert stream.send() < 2000
    there = stream.received()
    assert there.a is there.b
    stream.canonical.b = stream.canonical.a.copy()
    stream.send()
    there = stream.received()
    there.a[0] = 7
    assert there.b[0] == 0


def test_equal_arrays_with_one_place_have_a_memory_each():
    stream = Stream(Source(a=np.arange(LARGE), b=np.arange(LARGE) + 1))
    stream.canonical.b[:] = np.arange(LARGE)
    for _ in range(2):
        stream.send()
        there = stream.received()
        there.a[:] = 0
        assert np.array_equal(there.b, np.arange(LARGE))


def test_each_loading_is_private_writable_and_as_it_was_sent():
    stream = Stream(Source(inputs=np.arange(8 * LARGE), order=np.arange(PIECE)))
    one, other = stream.received(), stream.received()
    one.inputs[:] = 0
    one.order[:] = 0
    stream.canonical.inputs[:] = 1
    assert same(other, stream.received())
    assert other.inputs[5] == other.order[5] == 5


def test_what_the_caller_does_to_its_own_object_reaches_nobody():
    mine = Source(inputs=np.arange(LARGE))
    stream = Stream(mine)
    mine.inputs[:] = 0
    assert stream.received().inputs[5] == stream.canonical.inputs[5] == 5
    assert stream.send() < 2000


def test_a_read_only_array_stays_so():
    inputs = np.arange(LARGE)
    inputs.flags.writeable = False
    stream = Stream(Source(inputs=inputs))
    stream.send()
    assert not stream.received().inputs.flags.writeable
    assert not stream.canonical.inputs.flags.writeable


def test_a_parcel_of_which_little_is_wanted_is_given_up():
    stream = Stream(Source(items=[np.full(LARGE, number) for number in range(5)]))
    stream.canonical.items[:2] = [np.full(LARGE, 10 + number) for number in range(2)]
    assert stream.send() < 18 * LARGE
    assert stream.parcels() == [5, 2]
    stream.canonical.items[2] = np.full(LARGE, 12)
    assert stream.send() > 8 * 3 * LARGE  # the two that are left of the first parcel, too
    assert sum(stream.parcels()) == 5
    assert same(stream.received(), stream.canonical)


def test_parcels_do_not_pile_up_when_each_pass_changes_another_array():
    stream = Stream(Source(items=[np.full(LARGE, number) for number in range(20)]))
    for number in range(20):
        stream.canonical.items[number] += 100
        stream.send()
        assert same(stream.received(), stream.canonical)
        payload = stream.payload()
        assert len(payload.parcels) <= MAX_PARCELS
        assert sum(sum(parcel.sizes) for parcel in payload.parcels) <= 2 * 20 * 8 * LARGE


def test_what_pickle_writes_in_its_stream_is_not_sent_again_either():
    stream = Stream(
        Source(rows=[f"row {n}" for n in range(40_000)], every=np.arange(2 * LARGE)[::2], text=b"t" * 300_000, passes=0)
    )
    stream.canonical.passes = 1
    assert stream.send() < 2 * PIECE_BYTES  # the last of the rows, with what comes after them
    assert same(stream.received(), stream.canonical)


def test_comparing_reads_every_byte_and_stops_at_the_first_difference(monkeypatch):
    looked = []

    def look(one, other):
        looked.append(len(one))
        return bool((one == other).all())

    monkeypatch.setattr(module.np, "array_equal", look)
    one = np.zeros(10 * module.COMPARED_BYTES + 5, np.uint8)
    assert module._same(one, one.copy())
    assert sum(looked) == one.nbytes
    looked.clear()
    assert not module._same(one, one + 1)
    assert len(looked) == 1
    assert not module._same(one, one[1:])


class Model(RuleBasedStateMachine):
    """Whatever hooks do to a source, producers get just that."""

    def __init__(self):
        super().__init__()
        self.random = np.random.default_rng(0)
        source = Source(items=[np.full(LARGE // 2, number) for number in range(4)], order=np.arange(PIECE), note="")
        self.stream = Stream(source)

    @rule(place=st.integers(0, 100), at=st.integers(0, LARGE // 2 - 1))
    def edit(self, place, at):
        items = self.stream.canonical.items
        items[place % len(items)][at] += 1

    @rule()
    def shuffle_in_place(self):
        self.random.shuffle(self.stream.canonical.order)

    @rule()
    def shuffle_items(self):
        self.random.shuffle(self.stream.canonical.items)

    @rule(place=st.integers(0, 100))
    def replace(self, place):
        items = self.stream.canonical.items
        items[place % len(items)] = self.random.integers(0, 9, LARGE // 2)

    @rule(place=st.integers(0, 100), copy=st.booleans())
    def repeat(self, place, copy):
        items = self.stream.canonical.items
        item = items[place % len(items)]
        items.append(item.copy() if copy else item)

    @precondition(lambda self: len(self.stream.canonical.items) > 1)
    @rule(place=st.integers(0, 100))
    def remove(self, place):
        items = self.stream.canonical.items
        del items[place % len(items)]

    @rule()
    def send(self):
        self.stream.send()
        there, here = self.stream.received(), self.stream.canonical
        assert same(there, here)
        there.items[0][:] = -1  # what one producer does to its copy
        assert same(self.stream.received(), here)

    @invariant()
    def bounded(self):
        payload = self.stream.payload()
        assert len(payload.parcels) <= MAX_PARCELS
        live = sum(payload.parcels[parcel].sizes[place] for parcel, place in set(payload.places) if parcel >= 0)
        assert sum(sum(parcel.sizes) for parcel in payload.parcels) <= 2 * live


Model.TestCase.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestModel = Model.TestCase
