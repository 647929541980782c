"""What a Keras model is made of, without its values: how it is taken down here and built again in another process.

Keras' own configuration names classes and functions, and the other process may not find them by name: those of a
script, of a notebook, of another function. So each object of a model goes one of two ways:

- **by its configuration**, if its class is Keras' or has a ``get_config`` of its own. Objects of the user's classes
  inside it stand in the configuration as numbers, functions as made-up names, and they travel beside it;
- **by its attributes**, if its class is the user's and has no ``get_config``: a new object of that class, initialised
  as Keras' base class does it and without the user's ``__init__``, takes on the attributes one by one, which has Keras
  track layers and variables as it did when the user set them.

Classes and functions travel as cloudpickle sends them: by name where the other process can import them, else whole.
Variables travel as their shape and dtype; `rayfeed.trainer.transport` sends the values. An initializer that drew its
seed by itself travels with that seed, so that what is built elsewhere begins with the same weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Any

import keras

from rayfeed.errors import SourceError
from rayfeed.source.shipping import pack, unpack
from rayfeed.trainer.members import PART, Members, is_keras, is_users

BASES = (keras.Model, keras.layers.Layer, keras.metrics.Metric)
"""Classes whose objects track what is set on them: they are filled attribute by attribute."""

COPIED = ("built", "_trainable", "_build_shapes_dict", "_auto_config", "_supports_masking", "_input_spec", "_called")
"""Attributes of Keras' bases that a user's layer may have changed."""


def pack_blueprint(model: Any) -> bytes:
    """Take a model down.

    Raises:
        SourceError: Something in it cannot travel; names it and says what to do.
    """
    try:
        return pack(model, name="model", how=_Parts())
    except SourceError as error:
        error.add_note("A function without arguments that builds and compiles the model may be passed in its place.")
        raise


def unpack_blueprint(data: bytes) -> Any:
    """Build a model again. Its variables have their initial values.

    Raises:
        SourceError: Keras cannot build it from its configuration.
    """
    return unpack(data)


class _Parts:
    """How Keras' objects are taken down, for `pack`."""

    def reduce(self, obj: Any) -> Any:
        if isinstance(obj, keras.Variable):
            return _new_variable, _variable_spec(obj)
        for plain in (list, dict, set):  # Keras' tracking lists and dicts: the owner tracks anew what is set on it
            if isinstance(obj, plain) and type(obj) is not plain and is_keras(type(obj)):
                return plain, (plain(obj),)
        match _way(obj):
            case Way.ATTRIBUTES:
                return _new_object, (type(obj), _base_arguments(obj)), _attributes(obj), None, None, _set_attributes
            case Way.PLAIN:
                return _new_plain, (type(obj),), dict(vars(obj))
            case Way.CONFIGURATION:
                return _from_config, _configured(obj, lambda: keras.saving.serialize_keras_object(obj), type(obj))
            case None:
                return NotImplemented

    def members(self, obj: Any) -> Iterable[tuple[str, object]] | None:
        match _way(obj):
            case Way.ATTRIBUTES:
                return [(f".{name}", value) for name, value in _users(obj).items()]
            case Way.CONFIGURATION:
                found = Members.of(obj)
                return [(f"'s {type(one).__name__}", one) for one in [*found.objects, *found.functions]]
            case Way.PLAIN | None:
                return None


class Way(Enum):
    """How an object is taken down; see the module's docstring."""

    ATTRIBUTES = "attributes, set one by one"
    PLAIN = "attributes, as pickle does"
    CONFIGURATION = "configuration"


def _way(obj: Any) -> Way | None:
    """The way of a Keras object; None for all else."""
    if not hasattr(type(obj), "get_config") or isinstance(obj, type):
        return None
    if isinstance(obj, BASES) and _goes_by_attributes(obj):
        return Way.ATTRIBUTES
    if is_users(type(obj)) and not _has_own(obj, "get_config") and not isinstance(obj, (*BASES, keras.Optimizer)):
        return Way.PLAIN  # losses, initializers and the like, which track nothing
    return Way.CONFIGURATION


# By attributes


def _goes_by_attributes(obj: Any) -> bool:
    if not is_users(type(obj)) or isinstance(obj, keras.Sequential) or hasattr(obj, "_operations"):
        return False  # functional models are graphs, which only their configuration describes
    own_compile = _has_own(obj, "compile") and not _has_own(obj, "compile_from_config")
    return own_compile or not _has_own(obj, "get_config")


def _has_own(obj: Any, method: str) -> bool:
    """Whether a class of the user's defines the method."""
    return any(method in vars(cls) for cls in type(obj).__mro__ if is_users(cls))


def _base(cls: type) -> Any:
    return next(base for base in BASES if issubclass(cls, base))


def _base_arguments(obj: Any) -> dict[str, Any]:
    return {"name": obj.name, "dtype": obj.dtype if isinstance(obj, keras.metrics.Metric) else obj.dtype_policy}


def _internal_names(obj: Any) -> set[str]:
    """Attributes that Keras itself sets on every object of this kind, when made, built or compiled."""
    base = _base(type(obj))
    bare = base(name="bare")
    if base is keras.Model:
        bare.compile("sgd", "mse")
    compiled = {"train_function", "test_function", "predict_function", "optimizer", "loss", "stop_training", "history"}
    return set(vars(bare)) | compiled


def _users(obj: Any) -> dict[str, Any]:
    internal = _internal_names(obj)
    return {name: value for name, value in vars(obj).items() if name not in internal}


def _attributes(obj: Any) -> dict[str, Any]:
    """What the user set on an object, in that order; what of Keras' own differs from a new one; how it is compiled."""
    own = vars(obj)
    state = {
        "users": _users(obj),
        "copied": {name: own[name] for name in COPIED if name in own},
        "activity_regularizer": getattr(obj, "activity_regularizer", None),
        "compiled": None,
    }
    if isinstance(obj, keras.Model) and obj.compiled:
        state["compiled"] = _configured(obj, lambda: keras.Model.get_compile_config(obj), None)
    return state


def _new_object(cls: Any, arguments: dict[str, Any]) -> Any:
    obj = cls.__new__(cls)
    _base(cls).__init__(obj, **arguments)
    return obj


def _set_attributes(obj: Any, state: dict[str, Any]) -> None:
    for name, value in state["users"].items():
        setattr(obj, name, value)
    if state["activity_regularizer"] is not None:
        obj.activity_regularizer = state["activity_regularizer"]
    vars(obj).update(state["copied"])
    if state["compiled"] is not None:
        keras.Model.compile(obj, **_from_config(*state["compiled"]))


def _new_plain(cls: Any) -> Any:
    return cls.__new__(cls)


# Variables


def _variable_spec(variable: Any) -> tuple[Any, ...]:
    settings = {
        "dtype": variable.dtype,
        "trainable": variable.trainable,
        "autocast": variable._autocast,  # noqa: SLF001 - nothing public tells
        "aggregation": variable.aggregation,
        "name": variable.name,
    }
    return tuple(variable.shape), settings, variable.regularizer, variable.constraint


def _new_variable(shape: tuple[int, ...], settings: dict[str, Any], regularizer: Any, constraint: Any) -> Any:
    variable = keras.Variable(initializer="zeros", shape=shape, **settings)
    variable.regularizer, variable.constraint = regularizer, constraint
    return variable


# By configuration


def _configured(obj: Any, serialize: Callable[[], Any], cls: type | None) -> tuple[Any, ...]:
    """A configuration, and what it refers to: the user's objects by number, functions by name, and its own class."""
    members = Members.of(obj)
    with members.stand_ins(), _seeds_told(members.initializers):
        config = _without_rates(serialize())
    parts, functions = members.used_in(config)
    own = cls if cls is not None and is_users(cls) else None
    named = [*(type(part) for part in parts.values()), *functions.values(), *([own] if own is not None else [])]
    return config, parts, functions, own, [(keras.saving.get_registered_name(one), one) for one in named]


def _without_rates(config: Any) -> Any:
    """The configuration with one learning rate for all: it is a variable, which a callback may change in every call.

    A model whose configuration is what it was is not built again.
    """
    match config:
        case {"module": "keras.optimizers", "config": {"learning_rate": float()} as inner}:
            return {**config, "config": {**_without_rates({**inner, "learning_rate": None}), "learning_rate": 1.0}}
        case dict():
            return {name: _without_rates(value) for name, value in config.items()}
        case list() | tuple():
            return type(config)(_without_rates(value) for value in config)
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


def _from_config(
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
