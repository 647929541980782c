"""The caller's model and its twin in a trainer actor, kept alike.

Before a job the link sends what the actor does not have; after it, it brings home what the job changed. Where the
caller gave a function instead of a model, the actor's is the first, and the caller's is made when the first job ended.
"""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from typing import Any

import keras

from rayfeed.source.failure import Failure
from rayfeed.source.shipping import pack
from rayfeed.trainer.blueprint import pack_blueprint
from rayfeed.trainer.interrupts import interrupts_held_back
from rayfeed.trainer.lost import answer_of
from rayfeed.trainer.model_host import Blueprint, Leaving
from rayfeed.trainer.transport import conform, differing, digests, layout, made_model, places, read, write

PART_TIMEOUT_S = 300.0
"""How long one part may take: 64 MB, or one variable; the building of a model."""

MOST_IN_MEMORY = 64 << 20
"""Bytes of values that wait in memory to be written into the caller's model; more wait on disk."""


class ModelLink:
    """Sends and fetches.

    Args:
        model: The caller's model, or the function that makes one.
    """

    def __init__(self, model: Any) -> None:
        self._make = None if isinstance(model, keras.Model) else model
        self.model: Any = model if self._make is None else None
        self._blueprint: Blueprint | None = None
        self._built: bytes | None = None  # the digest of the blueprint that the actor's model was built from
        self._known: list[list[bytes]] | None = None  # the digests of the actor's values, once it told them
        self._is_ahead = False  # whether the caller's model, made by the function, has values of an actor's

    def made(self) -> Any:
        """The caller's model; where there is none yet, the function makes it."""
        if self._make is not None and self.model is None:
            self.model = made_model(self._make)
        return self.model

    def forget(self) -> None:
        """The actor was lost, and the next one has nothing."""
        self._built = self._known = None

    def pack(self) -> None:
        """Take the model down, before anything is sent.

        Raises:
            SourceError: It cannot travel.
        """
        if self._make is not None:
            if self._built is None:
                self._blueprint = Blueprint.of(pack(self._make, name="model"))
        else:
            self._blueprint = Blueprint.of(pack_blueprint(self.model), model=self.model)

    def send(self, actor: Any) -> None:
        """Bring the actor's model to the state of the caller's.

        Raises:
            Lost: The actor was lost.
            Exception: What building the model there raised.
        """
        if self._blueprint is not None:
            blueprint, self._blueprint = self._blueprint, None
            digest = hashlib.sha256(blueprint.data).digest()
            if digest != self._built:
                self._known = self._built = None
                _deliver(actor, blueprint)
                self._built = digest
        if self.model is None or (self._make is not None and not self._is_ahead):
            return  # the actor's is the first
        _deliver(actor, layout(self.model))
        mine = digests(self.model)
        # Until all has arrived nobody knows what the actor has: the caller may be interrupted.
        known, self._known = self._known, None
        for part in read(self.model, places(self.model) if known is None else differing(mine, known)):
            _deliver(actor, part)
        self._known = mine

    def fetch(self, actor: Any, leaving: Leaving) -> None:
        """Bring the caller's model to the state of the actor's.

        All parts are here before the first is written: where the actor is lost, or the caller interrupted, on the way,
        the model is what it was, and may be fetched again. Ctrl-C waits until the last is written. Parts wait on disk,
        which takes a second copy of the model where memory, or the object store, may not.

        Raises:
            Lost: The actor was lost.
        """
        model = self.made()
        self._known = None  # until all has arrived
        num_parts = 0
        with tempfile.SpooledTemporaryFile(max_size=MOST_IN_MEMORY) as parts:
            while True:
                values = answer_of(actor.give_values.remote(num_parts), timeout_s=PART_TIMEOUT_S)
                if values is None:
                    break
                pickle.dump(values, parts, protocol=5)
                num_parts += 1
            parts.seek(0)
            with interrupts_held_back():
                conform(model, leaving.layout)
                for _ in range(num_parts):
                    write(model, pickle.load(parts))
                self._known = leaving.digests
                self._is_ahead = True


def _deliver(actor: Any, message: Any) -> None:
    answer = answer_of(actor.receive.remote(message), timeout_s=PART_TIMEOUT_S)
    if isinstance(answer, Failure):
        raise answer.error()
