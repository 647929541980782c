"""An object by its Keras configuration, with what a configuration only names travelling beside it.

See `rayfeed.trainer.blueprint` for which objects go this way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from rayfeed.errors import SourceError
from rayfeed.trainer.members import PART, Members, is_users


def configured(obj: Any, serialize: Callable[[], Any], cls: type | None) -> tuple[Any, ...]:
    """A configuration, and what it refers to: the user's objects by number, functions by name, and its own class."""
    members = Members.of(obj)
    with members.stand_ins(), members.vocabularies(), _seeds_told(members.initializers):
        config = without_rates(serialize())
    parts, functions = members.used_in(config)
    own = cls if cls is not None and is_users(cls) else None
    named = [*(type(part) for part in parts.values()), *functions.values(), *([own] if own is not None else [])]
    return config, parts, functions, own, [(keras.saving.get_registered_name(one), one) for one in named]


def without_rates(config: Any) -> Any:
    """The configuration with one learning rate for all: it is a variable, which a callback may change in every call.

    A model whose configuration is what it was is not built again.
    """
    match config:
        case {"module": "keras.optimizers", "config": {"learning_rate": float()} as inner}:
            return {**config, "config": {**without_rates({**inner, "learning_rate": None}), "learning_rate": 1.0}}
        case dict():
            return {name: without_rates(value) for name, value in config.items()}
        case list() | tuple():
            return type(config)(without_rates(value) for value in config)
        case _:
            return config


@contextlib.contextmanager
def _seeds_told(initializers: list[Any]) -> Iterator[None]:
    """Have initializers that drew their seed themselves tell it; their configuration would have another drawn."""
    silent = [one for one in initializers if one._init_seed is None]  # noqa: SLF001 - nothing public tells
    for one in silent:
        one._init_seed = one.seed  # noqa: SLF001 - as above
    try:
        yield
    finally:
        for one in silent:
            one._init_seed = None  # noqa: SLF001 - as above


def from_configuration(
    config: Any, parts: dict[int, Any], functions: dict[str, Any], own: type | None, named: list[tuple[str, Any]]
) -> Any:
    """Have Keras build an object, or compile arguments, from a configuration."""

    class StandIn:
        """In the configuration's place for each class of the user's."""

        @staticmethod
        def from_config(inner: dict[str, Any]) -> Any:
            if PART in inner:
                return parts[inner[PART]]
            if own is None:
                raise SourceError(f"the model's configuration refers to a class that did not travel: {inner!r:.200}")
            build: Any = own
            return build.from_config(inner)

    with _named({name: StandIn if isinstance(one, type) else one for name, one in named} | functions):
        # safe_mode guards against code in files of unknown origin; this configuration is the caller's own.
        built = keras.saving.deserialize_keras_object(config, safe_mode=False)
    for name, one in named:
        # What is registered with Keras there must be so here: a model that is saved here is loaded there.
        if ">" in name and name != keras.saving.get_registered_name(one):
            keras.saving.register_keras_serializable(*name.split(">", 1))(one)
    return built


@contextlib.contextmanager
def _named(objects: dict[str, Any]) -> Iterator[None]:
    """Have Keras find these under their names, also where the user's module registers a class under one of them."""
    known = keras.saving.get_custom_objects()  # the registered ones, which go before a scope's
    before = {name: known[name] for name in objects if name in known}
    known.update(objects)
    try:
        yield
    finally:
        for name in objects:
            del known[name]
        known.update(before)
