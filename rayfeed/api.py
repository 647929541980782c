"""`fit_generator`, `evaluate_generator` and `predict_generator`.

The first fourteen parameters of `fit_generator` keep the names, order and defaults they had in Keras 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import keras  # noqa: TC002 - the annotations are read at run time by documentation tools

from rayfeed.options import ProducerOptions, TrainerOptions
from rayfeed.trainer.session import FeedHistory, OneCall


def fit_generator(
    model: keras.Model | Callable[[], keras.Model],
    generator: Any,
    steps_per_epoch: int | None = None,
    epochs: int = 1,
    verbose: int | str = 1,
    callbacks: Any = None,
    validation_data: Any = None,
    validation_steps: int | None = None,
    class_weight: Any = None,
    max_queue_size: int = 10,
    workers: int | Literal["auto"] | tuple[int, int] = 1,
    use_multiprocessing: bool = False,
    shuffle: bool = True,
    initial_epoch: int = 0,
    *,
    validation_freq: Any = 1,
    seed: int | None = None,
    max_queue_bytes: int | None = None,
    producers: ProducerOptions | None = None,
    trainer: TrainerOptions | Literal["driver"] | None = None,
) -> FeedHistory:
    """Train a model on batches that a generator or Sequence makes in Ray actors.

    The arguments up to `initial_epoch` are those of Keras 2's `Model.fit_generator`, in its order.

    Args:
        model: A compiled Keras model of any make, built or not. It ends with the trained weights and optimizer state.
            Or a function without arguments that builds and compiles one: it is called in the trainer, and the trained
            model is the result's ``model``.
        generator: A `rayfeed.Sequence` (or any object with ``__getitem__`` and ``__len__`` giving batches, such as a
            Keras ``PyDataset``, whose own ``workers`` are not used, an ``ImageDataGenerator.flow``, or a torch data set
            of whole batches); a generator object or other iterator; or a function that returns one. A batch is
            ``(inputs, targets)`` or ``(inputs, targets, sample_weights)``, of arrays or tensors. It is sent to the
            producers. A generator that cannot be sent (it was started, or holds an open file) runs in a thread of this
            process, with a warning, unless `use_multiprocessing`; it ends at the last batch that was asked for, and the
            caller may go on with it.
        steps_per_epoch: Batches of an epoch. Required for a generator. For a Sequence the default is its length, read
            again for each pass; with a number, passes follow each other without regard to epochs.
        epochs: The final epoch: ``initial_epoch=3, epochs=5`` trains epochs 3 and 4.
        verbose: 0 silent, 1 Keras' progress bar, 2 one line per epoch. Where standard output is no terminal and no
            notebook, the bar is drawn once per epoch, full. "auto" is 1, and 2 there.
        callbacks: Keras callbacks. They run beside the model in the trainer; the caller's objects end with their state.
            Those marked by `rayfeed.on_driver` run in the caller's process.
        validation_data: A Sequence, a generator, ``(x, y)`` or ``(x, y, sample_weights)``.
        validation_steps: Batches of each validation. Required for a generator, which is one stream: each validation
            takes its next batches. A Sequence starts at its first batch each time.
        class_weight: Class number -> weight of its samples in the training loss; multiplies sample weights. For a model
            with several outputs: output name -> such a dict, for each output whose classes are weighted.
        max_queue_size: Finished batches that may wait, besides one in each worker's hands.
        workers: Producers, or threads of one producer without `use_multiprocessing`; 0 runs the source in the trainer.
            "auto", or the least and the most as a tuple: for a Sequence, producers over the cluster, whose number
            follows how long the trainer waits. "auto" means at most the CPUs that there are when the call begins, also
            where an autoscaler could add some.
        use_multiprocessing: Whether `workers` counts processes over the cluster. Each then runs its own copy of a
            generator, which asks `rayfeed.get_worker_info` for its share.
        shuffle: Whether each pass of a Sequence has a fresh random order of its batches; without effect when
            `steps_per_epoch` is given.
        initial_epoch: The first epoch, from 0.
        validation_freq: Validate every so many epochs, or after the epochs of a list, counted from 1.
        seed: Root of every random order; for a Sequence also seeds `random` and `numpy.random` before each batch,
            and the global streams of TensorFlow, torch and Keras where the producer has imported them.
        max_queue_bytes: Bound on the bytes of the waiting batches. None: a quarter of the object store of the trainer's
            node, shared by training and validation.
        producers: What each producer needs of the cluster.
        trainer: What the trainer needs of the cluster, and what becomes of a training whose trainer is lost; "driver"
            trains in this process.

    Returns:
        Keras' `History`, with the attributes ``model``, the trained model, and ``feed_stats``, a `rayfeed.FeedStats`.

    Raises:
        OptionError: An argument is out of range or missing. Nothing was started, but for the trainer where its node's
            object store cannot hold `max_queue_bytes`.
        SourceError: A source is none or is empty, or something cannot be sent; the attribute in question is named.
        BatchError: The source gave something that is no batch; names worker, pass and index.
        PlacementError: An actor can never be placed, or was not in time.
        ProducerDiedError: Producers were lost, and the stream cannot go on.
        TrainerDiedError: The trainer's process was lost, more often than `TrainerOptions.max_failures`.
        CheckpointError: A file in `TrainerOptions.checkpoint_dir` is no checkpoint, or not a whole one.
        Exception: What the source, a callback or the model raised, with its own type.
    """
    with OneCall(model, trainer) as one:
        return one.fit_generator(
            generator,
            steps_per_epoch,
            epochs,
            verbose,
            callbacks,
            validation_data,
            validation_steps,
            class_weight,
            max_queue_size,
            workers,
            use_multiprocessing,
            shuffle,
            initial_epoch,
            validation_freq=validation_freq,
            seed=seed,
            max_queue_bytes=max_queue_bytes,
            producers=producers,
        )


def evaluate_generator(
    model: keras.Model | Callable[[], keras.Model],
    generator: Any,
    steps: int | None = None,
    callbacks: Any = None,
    max_queue_size: int = 10,
    workers: int | Literal["auto"] | tuple[int, int] = 1,
    use_multiprocessing: bool = False,
    verbose: int | str = 0,
    *,
    seed: int | None = None,
    max_queue_bytes: int | None = None,
    producers: ProducerOptions | None = None,
    trainer: TrainerOptions | Literal["driver"] | None = None,
) -> Any:
    """Evaluate a model on batches that a generator or Sequence makes in Ray actors.

    Args:
        model: A compiled Keras model, or a function without arguments that makes one.
        generator: As of `fit_generator`.
        steps: Batches to read. Required for a generator; a Sequence's default is one pass.
        callbacks: Keras callbacks, run in the trainer.
        max_queue_size: As of `fit_generator`.
        workers: As of `fit_generator`.
        use_multiprocessing: As of `fit_generator`.
        verbose: 0 silent, 1 Keras' progress bar, 2 one line; "auto" as of `fit_generator`.
        seed: As of `fit_generator`.
        max_queue_bytes: As of `fit_generator`.
        producers: As of `fit_generator`.
        trainer: As of `fit_generator`.

    Returns:
        What ``model.evaluate`` returns: the loss, or a list of loss and metrics.

    Raises:
        RayfeedError: As of `fit_generator`.
        Exception: What the source, a callback or the model raised, with its own type.
    """
    with OneCall(model, trainer) as one:
        return one.evaluate_generator(
            generator,
            steps,
            callbacks,
            max_queue_size,
            workers,
            use_multiprocessing,
            verbose,
            seed=seed,
            max_queue_bytes=max_queue_bytes,
            producers=producers,
        )


def predict_generator(
    model: keras.Model | Callable[[], keras.Model],
    generator: Any,
    steps: int | None = None,
    callbacks: Any = None,
    max_queue_size: int = 10,
    workers: int | Literal["auto"] | tuple[int, int] = 1,
    use_multiprocessing: bool = False,
    verbose: int | str = 0,
    *,
    seed: int | None = None,
    max_queue_bytes: int | None = None,
    producers: ProducerOptions | None = None,
    trainer: TrainerOptions | Literal["driver"] | None = None,
) -> Any:
    """Predict for batches that a generator or Sequence makes in Ray actors.

    Args:
        model: A Keras model, or a function without arguments that makes one.
        generator: As of `fit_generator`; a batch may also be inputs alone. Targets and weights are ignored.
        steps: Batches to read. Required for a generator; a Sequence's default is one pass.
        callbacks: Keras callbacks, run in the trainer.
        max_queue_size: As of `fit_generator`.
        workers: As of `fit_generator`.
        use_multiprocessing: As of `fit_generator`.
        verbose: 0 silent, 1 Keras' progress bar, 2 one line; "auto" as of `fit_generator`.
        seed: As of `fit_generator`.
        max_queue_bytes: As of `fit_generator`.
        producers: As of `fit_generator`.
        trainer: As of `fit_generator`.

    Returns:
        What ``model.predict`` returns: predictions in the order of the source, for each output of the model.

    Raises:
        RayfeedError: As of `fit_generator`.
        Exception: What the source, a callback or the model raised, with its own type.
    """
    with OneCall(model, trainer) as one:
        return one.predict_generator(
            generator,
            steps,
            callbacks,
            max_queue_size,
            workers,
            use_multiprocessing,
            verbose,
            seed=seed,
            max_queue_bytes=max_queue_bytes,
            producers=producers,
        )
