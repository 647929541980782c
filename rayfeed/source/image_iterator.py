"""Keras' image iterators: what `ImageDataGenerator.flow`, `flow_from_directory` and `flow_from_dataframe` return.

They draw their order when the first batch is asked for, and seed each batch by the number of batches made before.
Copies of one in several processes would each have an order and a count of their own: samples would come twice or never.
So the order is drawn once, before copies are made, on a copy of the caller's own; and the count is that of a plain loop
over the passes, whoever makes the batch. What is given:

- every sample once a pass, for any number of workers, and a fresh order after each pass where the iterator shuffles;
- with the iterator's ``seed``: Keras' order of the first pass, and batches that are a function of the seed, the pass
  and the index. Random changes of batch i are those of a plain loop, but for the very first batch, where the loop's
  come after the drawing of the order. Threads of one process share NumPy's random stream, here as in Keras.

They are known by what they are made of, in Keras 3, tf_keras and keras_preprocessing alike; none is imported here.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from rayfeed.batch import Batch
from rayfeed.source.seeding import seeded
from rayfeed.source.sequence import SequenceSource

METHODS = ("_set_index_array", "_flow_index", "_get_batches_of_transformed_samples")
ATTRIBUTES = ("index_array", "index_generator", "lock", "seed", "total_batches_seen")

ORDER_INDEX = (1 << 32) - 3
"""Stands for the drawing of the first order where a batch's index stands in a seed; no pass has so many batches."""


def is_image_iterator(source: object) -> bool:
    """Whether a Sequence is one of Keras' image iterators."""
    kind, members = type(source), getattr(source, "__dict__", {})
    return all(hasattr(kind, name) for name in METHODS) and all(name in members for name in ATTRIBUTES)


def settled(source: Any, root: int | None) -> Any:
    """A source of which copies can be made: an image iterator is one once its order is drawn; others are already.

    Runs in the caller's process, before the source is sent. The caller's own iterator is not changed; what it holds is
    not copied.

    Args:
        source: The user's source.
        root: The stream's root seed, where the caller gave one.
    """
    if not is_image_iterator(source):
        return source
    own = copy.copy(source)
    own.lock = threading.Lock()
    own.index_generator = own._flow_index()  # noqa: SLF001 - the user's may have been started, by a look at a batch
    if own.index_array is None:
        if own.seed is None and root is not None:
            with seeded(root, 0, ORDER_INDEX):
                own._set_index_array()  # noqa: SLF001 - what its own __getitem__ would do
        else:
            with _seeded_as_keras(own):
                own._set_index_array()  # noqa: SLF001 - as above
    return own


class ImageIteratorSource(SequenceSource):
    """An image iterator, settled, in the process that runs it."""

    def make(self, index: int) -> Batch:
        one = copy.copy(self.sequence)  # of its attributes: threads count on copies of their own
        one.total_batches_seen += index
        return one[index]

    def end_pass(self) -> None:
        self.sequence.total_batches_seen += self.length()
        with _seeded_as_keras(self.sequence):
            super().end_pass()


def open_sequence(sequence: Any) -> SequenceSource:
    """The source that runs a Sequence which was `settled`."""
    return ImageIteratorSource(sequence) if is_image_iterator(sequence) else SequenceSource(sequence)


@contextmanager
def _seeded_as_keras(iterator: Any) -> Iterator[None]:
    """NumPy's random stream as the iterator's seed and count say; the process' own is restored after."""
    if iterator.seed is None:
        yield
        return
    state = np.random.get_state()  # noqa: NPY002 - the stream that Keras uses
    np.random.seed(iterator.seed + iterator.total_batches_seen)  # noqa: NPY002 - as above
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002 - as above
