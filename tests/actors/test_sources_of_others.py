"""D4: sources as users have them, unmodified: data sets of other frameworks and every kind of iterator."""

import functools
import itertools
import warnings

import numpy as np
import pytest

import rayfeed
from tests.actors.test_generators import threadsafe_iter
from tests.sources import batch, numbers_of

WORKERS = [
    pytest.param(0, False, id="in-line"),
    pytest.param(2, False, id="threads"),
    pytest.param(2, True, id="processes"),
]


class Tensor:
    """An array of another framework: NumPy knows it by `__array__` alone, as it does torch's."""

    def __init__(self, array):
        self.held = array

    @property
    def dtype(self):
        return "float32"

    @property
    def shape(self):
        return self.held.shape

    def __len__(self):
        return len(self.held)

    def __array__(self, dtype=None):
        return self.held


class MapStyle:
    """A map data set of torch's kind, whose items are whole batches of tensors."""

    def __getitem__(self, index):
        return tuple(Tensor(array) for array in batch(index))

    def __len__(self):
        return 7


@pytest.mark.parametrize(("workers", "use_multiprocessing"), WORKERS)
def test_a_map_style_dataset_of_tensors_is_a_sequence(workers, use_multiprocessing):
    with rayfeed.Feed(MapStyle(), workers, use_multiprocessing) as feed:
        assert [numbers_of(feed) for _ in range(2)] == [list(range(7))] * 2


class TensorFlows(MapStyle):
    def __getitem__(self, index):
        import tensorflow as tf

        return [tf.convert_to_tensor(array) for array in batch(index)]


@pytest.mark.slow
def test_tensorflows_tensors_arrive_as_arrays_of_their_dtype():
    with rayfeed.Feed(TensorFlows(), workers=1) as feed:
        batches = list(feed)
    assert numbers_of(batches) == list(range(7))
    assert [array.dtype.name for array in batches[0]] == ["float32", "int64"]


def torch_datasets():
    torch = pytest.importorskip("torch")

    class Batches(torch.utils.data.Dataset):
        def __len__(self):
            return 5

        def __getitem__(self, index):
            return tuple(torch.from_numpy(array) for array in batch(index))

    return Batches()


def test_a_dataset_of_torch_is_a_sequence():
    with rayfeed.Feed(torch_datasets(), workers=1) as feed:
        assert numbers_of(feed) == list(range(5))


def py_dataset(base, **members):
    """A Keras data set whose class never called `super().__init__`, as most do."""

    def __init__(self, length):  # noqa: N807 - it becomes a method
        self.length = length

    body = {"__init__": __init__, "__getitem__": lambda self, index: batch(index), **members}
    return type("Own", (base,), body)(6)


@pytest.mark.parametrize(
    ("form", "workers", "use_multiprocessing"),
    [
        ("len", 0, False),
        ("num_batches", 0, False),
        pytest.param("len", 2, False, marks=pytest.mark.slow),
        pytest.param("num_batches", 2, True, marks=pytest.mark.slow),
    ],
)
def test_a_py_dataset_needs_no_constructor_of_its_base_and_may_say_its_length_either_way(
    form, workers, use_multiprocessing
):
    import keras

    length = {"len": {"__len__": lambda self: self.length}, "num_batches": {"num_batches": property(lambda self: 6)}}
    source = py_dataset(keras.utils.PyDataset, **length[form])
    with warnings.catch_warnings(), rayfeed.Feed(source, workers, use_multiprocessing) as feed:
        warnings.simplefilter("error")
        assert [numbers_of(feed) for _ in range(2)] == [list(range(6))] * 2


@pytest.mark.slow
def test_workers_given_to_a_py_dataset_itself_are_kerass_own_and_not_used_here():
    import keras

    class Given(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return batch(index)

    with rayfeed.Feed(Given(workers=7, use_multiprocessing=True, max_queue_size=1), workers=1) as feed:
        assert numbers_of(feed) == list(range(4))
        assert feed.stats().num_workers == 1


@pytest.mark.slow
def test_a_sequence_of_tf_keras_trains_a_model_of_keras_3():
    import keras

    tf_keras = pytest.importorskip("tf_keras")

    class Legacy(tf_keras.utils.Sequence):
        ends = 0

        def __len__(self):
            return 4

        def __getitem__(self, index):
            return batch(index + 10 * self.ends)

        def on_epoch_end(self):
            self.ends += 1

    with rayfeed.Feed(Legacy(), 2, use_multiprocessing=True) as feed:
        assert [numbers_of(feed) for _ in range(2)] == [[0, 1, 2, 3], [10, 11, 12, 13]]
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = rayfeed.fit_generator(model, Legacy(), epochs=2, verbose=0, trainer="driver")
    assert len(history.epoch) == 2


# Iterators

BATCHES = [batch(number) for number in range(6)]


class Iterates:
    """An iterator that is no generator."""

    def __init__(self):
        self.next = 0

    def __iter__(self):
        return self

    def __next__(self):
        if self.next == len(BATCHES):
            raise StopIteration
        self.next += 1
        return BATCHES[self.next - 1]


class Reader:
    """Its batches come from a method that is a generator."""

    def __init__(self, start):
        self.start = start

    def batches(self, stop=6):
        yield from (batch(number) for number in range(self.start, stop))


def threadsafe_generator(function):
    """The usual decorator, as copied from page to page."""

    def wrapped(*arguments, **keywords):
        return threadsafe_iter(function(*arguments, **keywords))

    return wrapped


@threadsafe_generator
def decorated(stop):
    yield from (batch(number) for number in range(stop))


def generate(stop, step=1):
    yield from (batch(number) for number in range(0, stop, step))


ITERATORS = {
    "iterator of a list": lambda: iter(BATCHES),
    "zip": lambda: zip((x for x, _ in BATCHES), [y for _, y in BATCHES], strict=True),
    "map": lambda: map(batch, range(6)),
    "filter": lambda: filter(None, BATCHES),
    "chain": lambda: itertools.chain(BATCHES[:2], generate(6, 7), BATCHES[3:]),
    "iterator class": Iterates,
    "generator expression": lambda: (batch(number) for number in range(6)),
    "generator method": lambda: Reader(0).batches(),
    "decorated generator": lambda: decorated(6),
    "bound method": lambda: Reader(0).batches,
    "partial": lambda: functools.partial(generate, 6),
    "partial method": lambda: functools.partial(Reader(0).batches, stop=6),
    "function that returns a map": lambda: lambda: map(batch, range(6)),
}
EXPECTED = {"chain": [0, 1, 0, 3, 4, 5]}


@pytest.mark.parametrize("form", ITERATORS)
@pytest.mark.parametrize("workers", [0, 3])
def test_every_kind_of_iterator_is_one_stream_in_order(form, workers):
    with rayfeed.Feed(ITERATORS[form](), workers) as feed:
        assert numbers_of(feed) == EXPECTED.get(form, list(range(6)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cycle_over_a_list_goes_round_for_ever(workers):
    with rayfeed.Feed(itertools.cycle(BATCHES[:3]), workers) as feed:
        assert numbers_of(feed.take(8)) == [0, 1, 2, 0, 1, 2, 0, 1]


def test_an_iterator_that_was_read_from_goes_on_where_it_stood_and_the_callers_own_stays_there():
    iterator = iter(BATCHES)
    next(iterator)
    with rayfeed.Feed(iterator, workers=1) as feed:
        assert numbers_of(feed) == [1, 2, 3, 4, 5]
    assert numbers_of(iterator) == [1, 2, 3, 4, 5]


@pytest.mark.filterwarnings("ignore:Producers . and . made the same batches")  # on purpose
def test_each_process_runs_a_copy_of_an_iterator_and_the_caller_is_warned():
    with pytest.warns(UserWarning, match="may duplicate your data"), rayfeed.Feed(iter(BATCHES), 2, True) as feed:
        assert numbers_of(feed) == [number for number in range(6) for _ in range(2)]


def test_a_function_that_returns_a_sequence_is_refused_in_a_producer_with_what_to_pass():
    def make():
        return Whole()

    with rayfeed.Feed(make, workers=1) as feed, pytest.raises(ValueError, match="Pass the Sequence itself"):
        next(iter(feed))


class Whole(rayfeed.Sequence):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return np.zeros((1, 1)), np.zeros(1)
