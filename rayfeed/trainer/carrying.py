"""How the user's callbacks travel to the trainer, and how what they learnt comes home.

On the way there the caller's model is left out: where a callback refers to it, or to a layer, optimizer or variable of
it, it refers to the trainer's at the other end. Callbacks that refer to each other do so there too: all travel as one.
On the way back come the attributes that the run changed (`callback_state`), not the objects: the caller's own callbacks
keep their identity.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras  # noqa: TC002 - the backend is chosen: this file is only loaded beside a model

from rayfeed.source.missing import naming_missing_modules
from rayfeed.source.shipping import pack, unpack
from rayfeed.trainer.callback_state import OF_ONE_RUN, put_changes
from rayfeed.trainer.transport import objects_of


def pack_callbacks(callbacks: list[keras.callbacks.Callback], model: Any) -> bytes:
    """The user's callbacks, with `model` by reference.

    Raises:
        SourceError: One cannot travel; names the attribute.
    """
    with _of_no_run(callbacks):
        return pack(callbacks, name="callbacks", by_reference=objects_of(model))


@contextmanager
def _of_no_run(callbacks: list[keras.callbacks.Callback]) -> Iterator[None]:
    """Within, callbacks have no model and parameters of an earlier run.

    Taken off the callbacks themselves: a copy of one would travel beside those that the others refer to.
    """
    had = {id(one): {name: vars(one)[name] for name in OF_ONE_RUN if name in vars(one)} for one in callbacks}
    try:
        for callback in callbacks:
            vars(callback).update(dict.fromkeys(OF_ONE_RUN))
        yield
    finally:
        for callback in callbacks:
            own = vars(callback)
            for name in OF_ONE_RUN:
                own.pop(name, None)
            own.update(had[id(callback)])


def unpack_callbacks(data: bytes, model: Any) -> list[keras.callbacks.Callback]:
    """The callbacks, referring to this process' `model`."""
    with naming_missing_modules("callbacks"):
        return unpack(data, by_reference=objects_of(model))


def apply_changes(
    callbacks: list[keras.callbacks.Callback], packed: bytes, model: Any, params: dict[str, Any] | None
) -> None:
    """Bring the changes home to the caller's own callbacks, which then refer to the caller's `model`."""
    put_changes(packed, callbacks, [dict(vars(callback)) for callback in callbacks], model)
    for callback in callbacks:
        vars(callback).update({"_model": model, "params": params})
