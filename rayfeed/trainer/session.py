"""`rayfeed.Trainer`: the calls on one model, and the actor that is kept alive for them.

Arguments are checked, by `planning`, before any process is started; the actor starts with the first call that needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Self

import keras

from rayfeed.errors import FeedClosedError, OptionError
from rayfeed.options import ProducerOptions, StreamOptions, TrainerOptions
from rayfeed.producer.cluster import ensure_ray
from rayfeed.producer.placement import producer_claim
from rayfeed.stats import FeedStats
from rayfeed.trainer.callbacks import listed
from rayfeed.trainer.class_weight import outputs_of
from rayfeed.trainer.driver_callbacks import unwrapped
from rayfeed.trainer.messages import Job, Method, Outcome
from rayfeed.trainer.planning import plan_fit, plan_single
from rayfeed.trainer.remote import LocalTrainer, RemoteTrainer
from rayfeed.trainer.transport import check_compiled, check_model, made_model


class FeedHistory(keras.callbacks.History):
    """Keras' `History`, and how the data came.

    Attributes:
        feed_stats: The figures of the training stream.
    """

    feed_stats: FeedStats


class Trainer:
    """A trainer actor that is kept alive across calls, with its producers.

    A call that asks for the same number of producers, threads and `ProducerOptions` as the one before has the same
    processes, and a Sequence that did not change is not sent to them again.

    Its methods take the arguments of the functions of the same name, without the model. As a context manager it
    ends the actor when it is left.

    Args:
        model: A compiled Keras model, built or not; after each fit it has the trained weights and optimizer state. Or a
            function without arguments that builds and compiles one in the trainer; ``history.model`` then is it.
        **options: The fields of `rayfeed.TrainerOptions`, such as ``num_gpus=1``.

    Raises:
        OptionError: `model` is no Keras model and no function, or an option is out of range.
        PlacementError: No node could ever hold the actor.

    Example:
        >>> with rayfeed.Trainer(model, num_gpus=1) as trainer:
        ...     trainer.fit_generator(images, epochs=3, workers=8, use_multiprocessing=True)
        ...     trainer.evaluate_generator(held_out, workers=8, use_multiprocessing=True)
    """

    def __init__(self, model: keras.Model | Callable[[], keras.Model], **options: Any) -> None:
        check_model(model)
        self._model = model
        self._options: TrainerOptions | Literal["driver"] = _trainer_options(options)
        self._runner: LocalTrainer | RemoteTrainer | None = None
        self._is_closed = False

    def fit_generator(
        self,
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
    ) -> FeedHistory:
        """Train the model; see `rayfeed.fit_generator`."""
        self._check_compiled("fit_generator")
        flat = listed(callbacks)
        options = StreamOptions(
            workers=workers,
            use_multiprocessing=use_multiprocessing,
            max_queue_size=max_queue_size,
            max_queue_bytes=max_queue_bytes,
            shuffle=shuffle,
            seed=seed,
        )
        job = plan_fit(
            generator,
            options=options,
            producers=producers,
            ships=self._ships(options),
            steps_per_epoch=steps_per_epoch,
            epochs=epochs,
            initial_epoch=initial_epoch,
            verbose=verbose,
            class_weight=class_weight,
            outputs=outputs_of(self._model),
            validation_data=validation_data,
            validation_steps=validation_steps,
            validation_freq=validation_freq,
        )
        history: Any = next((one for one in flat if isinstance(one, keras.callbacks.History)), None) or FeedHistory()
        if epochs <= initial_epoch:
            return _untrained(self._made(), history, unwrapped(flat), job)
        outcome = self._run(job, flat)
        model = self._made()
        history.set_model(model)
        history.set_params(outcome.params)
        history.history, history.epoch = outcome.history, outcome.epochs
        history.feed_stats = outcome.stats
        model.history = history
        return history

    def evaluate_generator(
        self,
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
    ) -> Any:
        """Evaluate the model; see `rayfeed.evaluate_generator`."""
        self._check_compiled("evaluate_generator")
        options = StreamOptions(
            workers, use_multiprocessing, max_queue_size, max_queue_bytes=max_queue_bytes, seed=seed
        )
        return self._single("evaluate", generator, steps, callbacks, verbose, options, producers)

    def predict_generator(
        self,
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
    ) -> Any:
        """Predict with the model; see `rayfeed.predict_generator`."""
        options = StreamOptions(
            workers,
            use_multiprocessing,
            max_queue_size,
            max_queue_bytes=max_queue_bytes,
            seed=seed,
            bare_inputs=True,
        )
        return self._single("predict", generator, steps, callbacks, verbose, options, producers)

    def close(self) -> None:
        """End the actor and wait until it is gone. May be called twice."""
        self._is_closed = True
        if self._runner is not None:
            self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _single(
        self,
        method: Method,
        generator: Any,
        steps: int | None,
        callbacks: Any,
        verbose: int | str,
        options: StreamOptions,
        producers: ProducerOptions | None,
    ) -> Any:
        """One round over a source: Keras' return value."""
        job = plan_single(
            method,
            generator,
            options=options,
            producers=producers,
            ships=self._ships(options),
            steps=steps,
            verbose=verbose,
        )
        return self._run(job, listed(callbacks)).value

    def _check_compiled(self, call: str) -> None:
        if isinstance(self._model, keras.Model):  # what a function makes is looked at where it is made
            check_compiled(self._model, call=call)

    def _made(self) -> Any:
        """The caller's model; of a function, the one it made here."""
        if isinstance(self._model, keras.Model):
            return self._model
        return self._runner.model if self._runner is not None else made_model(self._model)

    def _ships(self, options: StreamOptions) -> bool:
        """Whether sources run in another process than the caller's."""
        return isinstance(self._options, TrainerOptions) or not options.is_inline

    def _run(self, job: Job, callbacks: list[keras.callbacks.Callback]) -> Outcome:
        if self._is_closed:
            raise FeedClosedError("this trainer is closed: open a new one.")
        options, wanted = self._options, job.stream.options
        if isinstance(options, TrainerOptions) and not wanted.is_inline:
            ensure_ray()
            producer_claim(job.producers, wanted.num_producers)  # refused here, before the trainer is started for it
        if self._runner is None:
            if isinstance(options, TrainerOptions):
                self._runner = RemoteTrainer(self._model, options)
            else:
                self._runner = LocalTrainer(self._model)
        return self._runner.run(job, callbacks)


class OneCall(Trainer):
    """A trainer for one call, from that call's ``trainer`` argument."""

    def __init__(self, model: Any, trainer: TrainerOptions | Literal["driver"] | None) -> None:
        super().__init__(model)
        if trainer is not None:
            if trainer != "driver" and not isinstance(trainer, TrainerOptions):
                raise OptionError(f'trainer must be a rayfeed.TrainerOptions, "driver" or None, got {trainer!r}.')
            self._options = trainer


def _trainer_options(options: dict[str, Any]) -> TrainerOptions:
    known = TrainerOptions.__dataclass_fields__
    for name in options:
        if name not in known:
            raise OptionError(f"Trainer has no option {name!r}; TrainerOptions has {', '.join(known)}.")
    return TrainerOptions(**options)


def _untrained(model: keras.Model, history: Any, callbacks: list[keras.callbacks.Callback], job: Job) -> FeedHistory:
    """No epoch is left to train (C9): the hooks of a training's begin and end run here, as Keras runs them."""
    members = callbacks if history in callbacks else [*callbacks, history]
    container = keras.callbacks.CallbackList(
        members, model=model, verbose=job.verbose, epochs=job.epochs, steps=job.steps or job.stream.info.length
    )
    container.on_train_begin()
    container.on_train_end()
    history.feed_stats = FeedStats()
    return history
