"""Which objects are sources, of which kind, and what is known of them beforehand."""

import threading

import numpy as np
import pytest

import rayfeed
from rayfeed.errors import SourceError
from rayfeed.source.sequence import overrides
from rayfeed.source.stream import GeneratorSource, SequenceSource, SourceInfo, describe, open_source


class Pairs(rayfeed.Sequence):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return index


class Hooked(Pairs):
    def on_epoch_end(self):
        self.ran = getattr(self, "ran", 0) + 1


class Duck:
    """What Keras' Sequence was; inherits from nothing."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return 10 * index

    def on_epoch_end(self):
        pass


class TorchLike:
    """A map data set of whole batches: no hook at all."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return index


def framework_class(name, module):
    """A base class as a framework defines it, with a hook that does nothing."""

    def on_epoch_end(self):
        pass

    on_epoch_end.__module__ = module
    on_epoch_end.__qualname__ = f"{name}.on_epoch_end"
    members = {"on_epoch_end": on_epoch_end, "__getitem__": lambda self, index: index, "__module__": module}
    return type(name, (), members)


def numbers():
    yield from (1, 2)


class Iterates:
    """An iterator as Keras' `ImageDataGenerator.flow` was before it was a Sequence."""

    def __init__(self):
        self.left = [1, 2]

    def __next__(self):
        if not self.left:
            raise StopIteration
        return self.left.pop(0)


class Calls:
    def __call__(self):
        return numbers()


@pytest.mark.parametrize(
    ("source", "info"),
    [
        (Pairs(), SourceInfo(True, 3, False, "Pairs")),
        (Hooked(), SourceInfo(True, 3, True, "Hooked")),
        (Duck(), SourceInfo(True, 4, True, "Duck")),
        (TorchLike(), SourceInfo(True, 2, False, "TorchLike")),
        (numbers(), SourceInfo(False, None, False, "generator")),
        (iter([1]), SourceInfo(False, None, False, "list_iterator")),
        (Iterates(), SourceInfo(False, None, False, "Iterates")),
        (numbers, SourceInfo(False, None, False, "numbers")),
        (lambda: iter([1]), SourceInfo(False, None, False, "<lambda>")),
        (Calls(), SourceInfo(False, None, False, "Calls")),
        (Iterates, SourceInfo(False, None, False, "Iterates")),
    ],
)
def test_each_kind_of_source_is_told_apart(source, info):
    assert describe(source, name="generator") == info


def test_describing_a_generator_does_not_start_it():
    generator = numbers()
    describe(generator, name="generator")
    assert list(generator) == [1, 2]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ([1, 2], "list [1, 2]"),
        ((1, 2), "tuple (1, 2)"),
        ({"a": 1}, "dict {'a': 1}"),
        ("data.csv", "str 'data.csv'"),
        (b"data", "bytes b'data'"),
        (np.zeros(2), "ndarray array([0., 0.])"),
        (None, "NoneType None"),
        (5, "int 5"),
        ({1}, "set {1}"),
        (Pairs, f"type {Pairs!r}"),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_what_is_no_source_is_refused_with_what_was_found(source, found):
    with pytest.raises(SourceError) as caught:
        describe(source, name="validation_data")
    assert str(caught.value) == (
        "validation_data must be a Sequence (with __getitem__ and __len__), a generator or other iterator, or a "
        f"function that returns one; got {found[:100] if len(found) < 100 else found}."
    )


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("Sequence", "keras.src.utils"),
        ("PyDataset", "keras.src.trainers.data_adapters.py_dataset_adapter"),
        ("Sequence", "tensorflow.python.keras.utils.data_utils"),
        ("Sequence", "tf_keras.src.utils.data_utils"),
        ("Sequence", "rayfeed.source.sequence"),
    ],
)
def test_the_empty_hook_of_a_base_class_does_nothing(name, module):
    base = framework_class(name, module)
    own = type("Own", (base,), {"on_epoch_end": lambda self: None})
    assert not overrides(type("Derived", (base,), {})(), "on_epoch_end")
    assert overrides(own(), "on_epoch_end")
    assert overrides(type("Again", (own,), {})(), "on_epoch_end")


@pytest.mark.parametrize(
    ("name", "module"), [("Sequence", "mine"), ("Iterator", "keras.src.legacy"), ("PyData", "keras")]
)
def test_a_hook_of_any_other_class_does_something(name, module):
    assert overrides(framework_class(name, module)(), "on_epoch_end")


def test_a_framework_dataset_that_says_its_length_as_num_batches_is_a_sequence():
    class Counted(framework_class("PyDataset", "keras.src.trainers")):
        @property
        def num_batches(self):
            return np.int64(6)

    assert describe(Counted(), name="generator") == SourceInfo(True, 6, False, "Counted")
    assert SequenceSource(Counted()).length() == 6


def test_a_dataset_whose_length_is_no_number_is_refused_with_what_to_do():
    class Unknown(framework_class("PyDataset", "keras.src.trainers")):
        pass

    Unknown.__len__ = lambda self: None
    with pytest.raises(SourceError) as caught:
        describe(Unknown(), name="generator")
    assert str(caught.value) == (
        "Unknown does not say how many batches it has: 'NoneType' object cannot be interpreted as an integer.\n"
        "  Give __len__ (or num_batches) a number; an endless source is written as a generator."
    )


def test_a_dataset_whose_num_batches_is_none_is_an_endless_sequence():
    class Endless(framework_class("PyDataset", "keras.src.trainers")):
        num_batches = None

    info = describe(Endless(), name="generator")
    assert info.is_sequence
    assert info.is_endless


def test_a_length_that_raises_is_the_users_own_error():
    class Broken(Pairs):
        def __len__(self):
            raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        describe(Broken(), name="generator")


def opened(source):
    return open_source(source, describe(source, name="generator"))


def test_a_sequence_makes_the_batch_it_is_asked_for_in_any_order():
    source = opened(Duck())
    assert [source.make(index) for index in (3, 0, 3)] == [30, 0, 30]


def test_the_end_of_a_pass_runs_the_hook_once():
    sequence = Hooked()
    source = opened(sequence)
    source.end_pass()
    assert sequence.ran == 1
    assert source.length() == 3


class Begins(Pairs):
    def on_epoch_begin(self):
        self.ran = getattr(self, "ran", 0) + 1


class WithDefault(Pairs):
    def on_epoch_begin(self, epoch=None):
        pass


class CallbackToo(Pairs):
    """Is a Keras callback as well, whose hook of this name is another's."""

    def on_epoch_begin(self, epoch, logs=None):
        pass


@pytest.mark.parametrize(
    ("kind", "has"), [(Pairs, False), (TorchLike, False), (Begins, True), (WithDefault, True), (CallbackToo, False)]
)
def test_the_hook_before_a_pass_is_one_that_needs_no_argument(kind, has):
    assert describe(kind(), name="generator").has_epoch_begin is has


def test_the_beginning_of_a_pass_runs_the_hook_once():
    sequence = Begins()
    opened(sequence).begin_pass()
    assert sequence.ran == 1


@pytest.mark.parametrize(
    "source",
    [numbers(), numbers, lambda: [1, 2], Calls(), Iterates(), Iterates, iter((1, 2))],
    ids=["generator", "function", "returns a list", "callable", "iterator", "iterator class", "tuple iterator"],
)
def test_every_kind_of_stream_gives_its_batches_and_then_its_end(source):
    stream = opened(source)
    assert [stream.make(), stream.make()] == [1, 2]
    assert stream.make() is GeneratorSource.END
    assert stream.make() is GeneratorSource.END


def test_a_function_runs_when_it_is_opened_and_not_before():
    ran = []

    def makes():
        ran.append(True)
        return iter([1])

    info = describe(makes, name="generator")
    assert not ran
    open_source(makes, info)
    assert ran


def test_a_function_that_returns_no_iterator_is_refused_with_what_it_returned():
    with pytest.raises(SourceError) as caught:
        opened(lambda: 5)
    assert str(caught.value) == "<lambda>() must return a generator or other iterator, got int 5."


def test_closing_a_stream_runs_the_generators_finally_blocks():
    closed = []

    def careful():
        try:
            yield 1
        finally:
            closed.append(True)

    stream = opened(careful)
    stream.make()
    stream.close()
    assert closed == [True]
    stream.close()
    opened(Iterates()).close()


def test_closing_waits_for_the_batch_that_is_being_made():
    inside, go_on, closed = threading.Event(), threading.Event(), []

    def slow():
        try:
            inside.set()
            go_on.wait(10)
            yield 1
        finally:
            closed.append(True)

    stream, made = opened(slow), []
    maker = threading.Thread(target=lambda: made.append(stream.make()))
    maker.start()
    inside.wait(10)
    closer = threading.Thread(target=stream.close)
    closer.start()
    go_on.set()
    maker.join(10)
    closer.join(10)
    assert made == [1]
    assert closed == [True]


def test_the_base_class_says_what_a_subclass_must_define():
    class Empty(rayfeed.Sequence):
        pass

    with pytest.raises(NotImplementedError, match=r"^Empty must define __getitem__\(index\)$"):
        Empty()[0]
    with pytest.raises(NotImplementedError, match=r"^Empty must define __len__\(\)$"):
        len(Empty())
    assert Pairs().on_epoch_end() is None


def test_a_function_that_returns_a_sequence_is_refused_with_what_to_pass():
    with pytest.raises(SourceError, match=r"returned a Sequence \(Pairs\), .*\n  Pass the Sequence itself"):
        opened(lambda: Pairs())  # noqa: PLW0108 - a factory as users write it


def test_a_sequence_with_an_attribute_that_arrays_have_is_no_array():
    sequence = Duck()
    sequence.dtype = "float32"  # as Keras' image iterators have
    assert describe(sequence, name="generator").is_sequence
