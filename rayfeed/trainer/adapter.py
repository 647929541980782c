"""How batches get into Keras: the one file that touches ``keras.src``'s data adapters.

`model.fit` takes a `DataAdapter` and asks it for an iterable per epoch, each backend for one of its own kind.

**TensorFlow.** With the default strategy its step function accepts plain Python iterators of tensors, so the adapter
hands over tensors that alias the frame's memory by dlpack: no ``tf.data``, no copy. Where the model lies on a GPU,
they are copied there one step ahead (`staging`). Distribution strategies and ``steps_per_execution > 1`` need a graph
and get a ``tf.data.Dataset`` over the same iterator.

**JAX.** A step takes NumPy arrays; on the CPU it works on their memory where it lies, if that is aligned, and keeps it
for as long as it does. No tensor made before costs as little. For other devices Keras begins each transfer one batch
ahead.

**Torch.** A layer may change its input in place (``torch.nn.ReLU(inplace=True)``), and a frame's memory is read-only: a
tensor that aliased it would end the process with a segmentation fault. So a batch is copied, by Keras' own conversion.

Microseconds to make a tensor of an array of 4 KB / 150 KB / 1.2 MB / 19 MB (2026-11-22, 2 cores, best of five, by
`python examples/benchmarks/tensors.py`):

    TensorFlow  `Alias` and NumPy's dlpack             5 /   5 /   4 /     5    taken
                `tf.convert_to_tensor`                14 /  27 /  85 / 3,000
    JAX         a step (a sum) on the array itself    39 /  77 /  92 /   291    taken
                a step on `jax.device_put`           101 / 158 / 181 /   450
                a step on a copy                      67 / 117 / 213 / 6,988
    torch       `Alias` and NumPy's dlpack             5 /   5 /   5 /     5    may end the process
                Keras' own, copied by NumPy            3 /   6 /  31 /   794    taken
                copied by torch (`clone`)              7 /  29 /  35 / 5,198

What the adapter relies on in Keras 3 (held by tests/oracle/test_keras_contract.py and tests/backends):

- `EpochIterator` reads `num_batches` when an epoch begins, as an integer it compares and counts up to: `Steps` answers
  with the length of the current slice, so that a Sequence's length may change between passes;
- it calls `on_epoch_begin` once before each epoch's first batch, and `iter()` then and, unused, at the epoch's end;
- the step function of a compiled model is a ``tf.function``, ``one_step_on_data``, in what `make_train_function` made;
- data that runs out is told by `StopIteration`, or `tf.errors.OutOfRangeError` inside TensorFlow's step function;
- other backends read batches before training to learn shapes: these are given again when training begins;
- its torch loader draws from torch's random state when it is iterated, as dropout does: see `FeedAdapter.draws`.
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np  # noqa: TC002 - as keras: annotations name it, and it is loaded in any case
from keras.src.trainers.data_adapters.data_adapter import DataAdapter
from keras.src.trainers.data_adapters.data_adapter_utils import get_torch_dataloader

from rayfeed.errors import InternalError, SourceError
from rayfeed.queue.stream import Delivered
from rayfeed.trainer.class_weight import ClassWeight
from rayfeed.trainer.conversion import Conversion, as_keras_dtype, as_tensor, on_device
from rayfeed.trainer.slices import Slices
from rayfeed.trainer.staging import Staging, own_device


class Steps:
    """The batches that Keras has to take of the current slice, asked for anew each time they are used as a number.

    Of a slice that a resumed training goes on in, those are the rest.
    """

    def __init__(self, slices: Slices) -> None:
        self._slices = slices

    def __index__(self) -> int:
        return self._slices.length - self._slices.num_before

    __int__ = __index__

    def __bool__(self) -> bool:
        return True

    def __gt__(self, other: int) -> bool:
        return int(self) > other

    def __le__(self, other: int) -> bool:  # Keras asks `steps_seen >= num_batches`
        return int(self) <= other


class FeedAdapter(DataAdapter):
    """Feeds one stream's slices to Keras.

    Args:
        slices: The stream, cut into epochs or validations.
        model: The model it feeds; told to stop when the stream ends before its steps.
        what: The caller's name for the source, for messages.
        class_weight: Weights of the classes; training only.
        function: The attribute in which Keras keeps the function of the step that this feeds.
    """

    def __init__(
        self,
        slices: Slices,
        model: Any,
        *,
        what: str,
        class_weight: ClassWeight | None = None,
        function: str = "test_function",
    ) -> None:
        self.slices = slices
        self._model = model
        self._what = what
        self._conversion = Conversion(model, class_weight)
        self._function = function
        self._prefetch: Callable[[], None] | None = None
        self._prefetch_batches = 0
        self._is_live = False
        self._draws = True
        self._has_drawn = slices.was_begun
        self._shown: deque[Delivered] = deque()  # batches Keras looked at before training began
        self._slice_is_new = False  # begun by looking, and not yet by Keras
        self._staging: Staging | None = None

    # Keras' side

    @property
    def num_batches(self) -> Any:
        return Steps(self.slices)

    @property
    def batch_size(self) -> None:
        return None

    @property
    def has_partial_batch(self) -> None:
        return None

    @property
    def partial_batch_size(self) -> None:
        return None

    def on_epoch_begin(self) -> None:
        """Begin the next slice, unless Keras only looks, or looked at this one already."""
        if self._is_live and not self._slice_is_new:
            self.slices.begin()
        self._slice_is_new = self._slice_is_new and not self._is_live

    def get_tf_dataset(self) -> Any:
        import tensorflow as tf  # noqa: PLC0415 - the backend's own package; other backends do without

        if self._needs_graph():
            return tf.data.Dataset.from_generator(self._arrays, output_signature=self._signature(tf))
        return _Iterable(lambda: _Tensors(self, tf))

    def get_numpy_iterator(self) -> Iterator[Any]:
        return self._arrays()

    def get_jax_iterator(self) -> Iterator[Any]:
        return self._arrays()

    def get_torch_dataloader(self) -> Any:
        # Keras' own: it copies, as it must, and draws from torch's random state as for other data.
        return _Loader(self, get_torch_dataloader(_Iterable(self._arrays)))

    # The trainer's side

    def prefetch_when_near(self, prefetch: Callable[[], None], batches: int) -> None:
        """Call `prefetch` once, when a slice has no more than this many batches left: the validation comes next."""
        self._prefetch, self._prefetch_batches = prefetch, batches

    def go_live(self) -> None:
        """Training, or a validation, begins: what Keras looked at before is given once more."""
        self._is_live = self._draws = True

    def draws(self) -> bool:
        """Whether iterating anew draws from torch's random state, as it does in Keras' own `fit`.

        There an epoch of a Sequence is iterated anew; the one stream of a generator only when training begins. What was
        drawn before a training was resumed is not drawn again.
        """
        draws = self._draws and not (self._is_live and self._has_drawn)
        self._has_drawn = self._has_drawn and not self._is_live
        self._draws = not (self._is_live and self.slices.is_fixed)
        return draws

    def next_length(self) -> int:
        """Batches of the epoch about to begin; of the slice that Keras has looked at already, where it has."""
        return self.slices.length if self._slice_is_new else self.slices.next_length()

    def rest(self) -> None:
        """A validation is over: what Keras reads before the next one begins, it only looks at."""
        self._is_live, self._draws = False, True

    def close(self) -> None:
        """End the thread that copies batches to the device, if there is one."""
        if self._staging is not None:
            self._staging.close()

    def input_specs(self) -> Any:
        """The inputs of the first batch, which is given again later, as `InputSpec` in the model's structure."""
        return self._conversion.input_specs(self._first())

    def first_data(self) -> tuple[Any, ...]:
        """The first batch, which is given again later, as Keras' (x, y, sample_weight) of arrays."""
        return self._conversion.data(self._first(), as_keras_dtype)

    def take(self) -> Delivered | None:
        """The slice's next batch, or None at its end."""
        if not self._is_live:
            if not self._slice_is_new:
                self.slices.begin()
                self._slice_is_new = True
            item = self.slices.take()
            if item is not None:
                self._shown.append(item)
            return item
        if self._shown:
            return self._shown.popleft()
        try:
            item = self.slices.take()
        except Exception:
            self._model.stop_training = True  # also where Keras takes the error for the data's end
            raise
        if item is None and self.slices.num_taken < self.slices.length:
            self._on_early_end()
        elif self._prefetch is not None and self.slices.length - self.slices.num_taken <= self._prefetch_batches:
            self._prefetch, prefetch = None, self._prefetch
            prefetch()
        return item

    def _on_early_end(self) -> None:
        """The stream ended inside the slice. Keras warns of it, and `Closing` stops the training after this epoch."""
        if self.slices.num_taken == 0:
            place = "its first batch" if self.slices.num_begun == 1 else f"batch 0 of round {self.slices.num_begun}"
            raise SourceError(
                f"{self._what} ended before {place}: there is nothing to work with.\n"
                "  A generator must give at least steps batches for each round; an endless one never returns."
            )

    def stage(self, tf: Any) -> None:
        """Have batches copied ahead from now on, if the model is known to lie on a device of its own."""
        device = own_device(self._model) if self._staging is None else None
        if device is not None:
            convert = partial(on_device, tf, device)
            self._staging = Staging(lambda item: self._conversion.data(item, convert))

    def tensors(self, item: Delivered, tf: Any) -> Any:
        """A batch as TensorFlow's tensors."""
        if self._staging is None:
            return self._conversion.data(item, partial(as_tensor, tf))
        return self._staging.data(item, self._shown[0] if self._shown else self.slices.peek())

    def _arrays(self) -> Iterator[Any]:
        while (item := self.take()) is not None:
            yield self._conversion.data(item, as_keras_dtype)

    def _needs_graph(self) -> bool:
        import tensorflow as tf  # noqa: PLC0415 - as above

        return self._model.steps_per_execution > 1 or not _is_default_strategy(tf, self._model.distribute_strategy)

    def trace(self, data: Any, tf: Any) -> None:
        """Have the step traced for batches of any length, as Keras' own data sets have it, before the first one runs.

        A tensor in hand tells its length. Traced for that, the step is traced again for a short last batch, and
        TensorFlow fuses some operations (a convolution with the normalization after it) and rounds otherwise.
        """
        step = _traced_step(getattr(self._model, self._function, None))
        if step is not None:

            def of_any_length(tensor: Any) -> Any:
                if tensor is None:
                    return None
                return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype)

            step.get_concrete_function(tf.nest.map_structure(of_any_length, data))

    def _signature(self, tf: Any) -> Any:
        """The ranks and dtypes of the stream, from its first batch."""
        item = self._first()

        def spec(array: np.ndarray) -> Any:
            array = as_keras_dtype(array)
            dtype = tf.string if array.dtype.kind in "US" else tf.as_dtype(array.dtype)
            return tf.TensorSpec(shape=(None,) * array.ndim, dtype=dtype)  # other axes may differ too

        return self._conversion.data(item, spec)

    def _first(self) -> Delivered:
        """The first batch, before training begins; it is given again then."""
        item = self._shown[0] if self._shown else self.take()
        if item is None:
            self._on_early_end()
            raise InternalError(f"{self._what} gave nothing, and was not found to have ended")
        return item


class _Iterable:
    """Something ``iter`` gives a new iterator of; Keras keeps it and iterates once per epoch."""

    def __init__(self, make: Callable[[], Iterator[Any]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Any]:
        return self._make()


class _Loader:
    """Keras' own torch loader, which draws a number when it is iterated anew; and its data set, which draws none."""

    def __init__(self, adapter: FeedAdapter, loader: Any) -> None:
        self._adapter = adapter
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loader if self._adapter.draws() else self._loader.dataset)


class _Tensors:
    """The rest of the current slice as tensors, for TensorFlow's step function in Python."""

    def __init__(self, adapter: FeedAdapter, tf: Any) -> None:
        self._adapter = adapter
        self._tf = tf
        self._is_first = True
        adapter.stage(tf)

    def __iter__(self) -> _Tensors:
        return self

    def __next__(self) -> Any:
        item = self._adapter.take()
        if item is None:
            # The step function would swallow a StopIteration and stumble over the missing result.
            raise self._tf.errors.OutOfRangeError(None, None, "the source ran out of data")
        data = self._adapter.tensors(item, self._tf)
        if self._is_first:
            self._is_first = False
            self._adapter.trace(data, self._tf)
        return data


def _traced_step(function: Any) -> Any:
    """The ``tf.function`` of one step inside of what Keras' ``make_train_function`` made; None where users made it."""
    if not isinstance(function, types.FunctionType):
        return None
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    cell = cells.get("one_step_on_data")
    step = getattr(cell.cell_contents, "__wrapped__", cell.cell_contents) if cell is not None else None
    return step if hasattr(step, "get_concrete_function") else None


def _is_default_strategy(tf: Any, strategy: Any) -> bool:
    return strategy is tf.distribute.get_strategy() and not tf.distribute.has_strategy()
