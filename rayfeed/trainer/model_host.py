"""The model in the trainer's process: built from what the caller sent, kept between jobs, its changes given back.

The caller sends a `Blueprint` when it is another than before, then the `Layout` of its variables, then their values in
parts. After a job the host tells what is there (`Leaving`), and gives the changed values in parts for as long as it is
asked, from the first again where the caller was interrupted. No Ray here; the actor hosts it, in the one thread that
runs jobs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from rayfeed.errors import InternalError
from rayfeed.source.missing import naming_missing_modules
from rayfeed.source.shipping import unpack
from rayfeed.trainer.blueprint import unpack_blueprint
from rayfeed.trainer.transport import (
    Layout,
    Place,
    Values,
    conform,
    differing,
    digest,
    digests,
    groups,
    layout,
    made_model,
    read,
    write,
)


@dataclass(frozen=True)
class Blueprint:
    """What a model is built from.

    Attributes:
        data: As `pack_blueprint` gave it; or, of a function that makes the model, as `pack` did.
        is_function: Whether it is a function.
        floatx: ``keras.config.floatx()`` of the caller.
        image_data_format: ``keras.config.image_data_format()`` likewise.
        dtype_policy: ``keras.config.dtype_policy()`` likewise.
        model_policy: The dtype policy that the model was made under.
    """

    data: bytes
    is_function: bool
    floatx: str
    image_data_format: str
    dtype_policy: Any
    model_policy: Any

    @classmethod
    def of(cls, data: bytes, *, model: Any = None) -> Blueprint:
        """A blueprint under this process' settings; without a model that of a function."""
        policy = keras.config.dtype_policy()
        return cls(
            data=data,
            is_function=model is None,
            floatx=keras.config.floatx(),
            image_data_format=keras.config.image_data_format(),
            dtype_policy=keras.saving.serialize_keras_object(policy),
            model_policy=keras.saving.serialize_keras_object(policy if model is None else model.dtype_policy),
        )


@dataclass(frozen=True)
class Leaving:
    """The model's state after a job.

    Attributes:
        layout: Its variables.
        digests: Of the value at each place.
        stop_training: Its flag.
    """

    layout: Layout
    digests: list[list[bytes]]
    stop_training: bool


class ModelHost:
    """Holds the model of one trainer process."""

    def __init__(self) -> None:
        self._model: Any = None
        self._digests: list[list[bytes]] | None = None  # of the values there are; None where nobody looked
        self._inputs: Any = None
        self._changed: Sequence[Place] = ()  # by the last job
        self._leaving: Iterator[Values] = iter(())

    @property
    def model(self) -> Any:
        """The model; None before a blueprint came."""
        return self._model

    def receive(self, message: Blueprint | Layout | Values) -> None:
        """Take what the caller sends on."""
        match message:
            case Blueprint():
                keras.config.set_floatx(message.floatx)
                keras.config.set_image_data_format(message.image_data_format)
                keras.config.set_dtype_policy(keras.saving.deserialize_keras_object(message.model_policy))
                try:
                    with naming_missing_modules("model"):
                        found = unpack(message.data) if message.is_function else unpack_blueprint(message.data)
                    self._model = made_model(found) if message.is_function else found
                finally:
                    keras.config.set_dtype_policy(keras.saving.deserialize_keras_object(message.dtype_policy))
                self._digests = None
            case Layout():
                conform(self._model, message)
                if self._digests is not None and [*map(len, self._digests)] != [*map(len, groups(self._model))]:
                    self._digests = None
            case list():
                write(self._model, message)
                if self._digests is not None:
                    for (group, number), value in message:
                        self._digests[group][number] = digest(value)
            case _:
                raise InternalError(f"unknown message {message!r}")

    def begin(self) -> None:
        """A job begins: what differs from now on has changed."""
        if self._digests is None:
            self._digests = digests(self._model)
        self._inputs = None

    def tell_inputs(self, inputs: Any) -> None:
        """The first batch's inputs, told where they build the model."""
        self._inputs = inputs

    def leave(self) -> Leaving:
        """A job is over: tell what the model is now."""
        before, now = self._digests or [], digests(self._model)
        self._digests = now
        self._changed = differing(now, before)
        return Leaving(layout(self._model, self._inputs), now, bool(getattr(self._model, "stop_training", False)))

    def give(self, number: int) -> Values | None:
        """A part of the changed values, None after the last. Parts are asked for in order; number 0 begins again."""
        if number == 0:
            self._leaving = read(self._model, self._changed)
        return next(self._leaving, None)
