"""What a Keras model is made of, without its values: how it is taken down here and built again in another process.

Keras' own configuration names classes and functions, and the other process may not find them by name: those of a
script, of a notebook, of another function. So each object of a model goes one of these ways:

- **by its configuration**, if its class is Keras' or has a ``get_config`` of its own. Objects of the user's classes
  inside it stand in the configuration as numbers, functions as made-up names, and they travel beside it;
- **by its attributes**, if its class is the user's and has no ``get_config``: a new object of that class, initialised
  as Keras' base class does it and without the user's ``__init__``, takes on the attributes one by one, which has Keras
  track layers and variables as it did when the user set them. What tracks nothing (losses, initializers) is pickled;
  of a functional or Sequential model the graph or stack goes by its configuration, and of an optimizer what Keras' base
  class knows of it, before the attributes are set.

Classes and functions travel as cloudpickle sends them: by name where the other process can import them, else whole.
Variables travel as their shape and dtype; `rayfeed.trainer.transport` sends the values. An initializer that drew its
seed by itself travels with that seed, so that what is built elsewhere begins with the same weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

import keras

from rayfeed.errors import SourceError
from rayfeed.source.missing import naming_missing_modules
from rayfeed.source.shipping import pack, unpack
from rayfeed.trainer.configuring import configured, from_configuration, without_rates
from rayfeed.trainer.members import Members, attributes_of, is_keras, is_users

BASES = (keras.Model, keras.layers.Layer, keras.metrics.Metric)
"""Classes whose objects track what is set on them: they are filled attribute by attribute."""

TRACKED_IN = ("_trainable_variables", "_non_trainable_variables", "_layers", "_seed_generators")
"""Lists in which Keras' bases keep what was set on them; their order is that of the weights."""

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
        SourceError: Keras cannot build it from its configuration, or a module of it is not on this node.
    """
    try:
        with naming_missing_modules("model"):
            return unpack(data)
    except SourceError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise SourceError(
            f"the model cannot be built again in the trainer: {type(error).__name__}: {reason[0]}\n"
            "  Where a class has get_config(), its arguments must be those of __init__; a class without it travels "
            "attribute by attribute. Or pass a function without arguments that builds and compiles the model."
        ) from error


class _Parts:
    """How Keras' objects are taken down, for `pack`."""

    def reduce(self, obj: Any) -> Any:
        if isinstance(obj, keras.Variable):
            return _new_variable, _variable_spec(obj)
        for plain in (list, dict, set):  # Keras' tracking lists and dicts: the owner tracks anew what is set on it
            if isinstance(obj, plain) and type(obj) is not plain and is_keras(type(obj)):
                return plain, (plain(obj),)
        reduced: Any
        match _way(obj):
            case Way.ATTRIBUTES:
                reduced = _new_object, (type(obj), _base_arguments(obj)), _attributes(obj), None, None, _set_attributes
            case Way.PLAIN:
                reduced = _new_plain, (type(obj),), dict(vars(obj))
            case Way.GRAPH:
                reduced = _new_graph, (type(obj), *_graph(obj)), _attributes(obj), None, None, _set_attributes
            case Way.OPTIMIZER:
                reduced = _new_optimizer, (type(obj), *_optimizer_base(obj)), _users(obj), None, None, _set_plainly
            case Way.CONFIGURATION:
                reduced = (
                    from_configuration,
                    configured(obj, lambda: keras.saving.serialize_keras_object(obj), type(obj)),
                )
            case None:
                reduced = NotImplemented
        return reduced

    def members(self, obj: Any) -> Iterable[tuple[str, object]] | None:
        match _way(obj):
            case Way.ATTRIBUTES | Way.GRAPH | Way.OPTIMIZER:
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
    GRAPH = "the graph or stack of layers, then attributes"
    OPTIMIZER = "configuration of Keras' base class, then attributes"
    CONFIGURATION = "configuration"


def _way(obj: Any) -> Way | None:
    """The way of a Keras object; None for all else."""
    if not hasattr(type(obj), "get_config") or isinstance(obj, type):
        return None
    if not is_users(type(obj)) or not _has_to_go_by_attributes(obj):
        return Way.CONFIGURATION
    if isinstance(obj, keras.Sequential) or hasattr(obj, "_operations"):
        return Way.GRAPH
    if isinstance(obj, BASES):
        return Way.ATTRIBUTES
    return Way.OPTIMIZER if isinstance(obj, keras.Optimizer) else Way.PLAIN


# By attributes


def _has_to_go_by_attributes(obj: Any) -> bool:
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
    if isinstance(obj, keras.Optimizer):
        base, config = _optimizer_base(obj)
        bare = base.from_config(config)
        bare.build([keras.Variable(0.0)])
        return set(vars(bare))
    base = _base(type(obj))
    bare = base(name="bare")
    if base is keras.Model:
        bare.compile("sgd", "mse")
    if _way(obj) is Way.GRAPH:
        vars(bare).update(vars(keras.Sequential() if isinstance(obj, keras.Sequential) else _graph(obj)[0]))
    compiled = {"train_function", "test_function", "predict_function", "optimizer", "loss", "stop_training", "history"}
    return set(attributes_of(bare)) | compiled | {name for name in vars(obj) if name.startswith("_self_")}


def _users(obj: Any) -> dict[str, Any]:
    internal = _internal_names(obj)
    own = {name: value for name, value in attributes_of(obj).items() if name not in internal}
    if isinstance(obj, keras.Optimizer):  # its variables are made when it is built
        return {name: value for name, value in own.items() if not _holds_variables(value)}
    return own


def _holds_variables(value: Any) -> bool:
    return any(isinstance(leaf, keras.Variable) for leaf in keras.tree.flatten(value))


def _attributes(obj: Any) -> dict[str, Any]:
    """What the user set on an object, in that order; what of Keras' own differs from a new one; how it is compiled."""
    own = vars(obj)
    is_graph = _way(obj) is Way.GRAPH  # what it is made of has told that already
    state = {
        "users": _users(obj),
        "copied": {name: own[name] for name in COPIED if name in own and not is_graph},
        "activity_regularizer": getattr(obj, "activity_regularizer", None),
        "tracked": {name: list(own[name]) for name in TRACKED_IN if name in own and not is_graph},
        "compiled": None,
    }
    if isinstance(obj, keras.Model) and obj.compiled:
        state["compiled"] = configured(obj, lambda: keras.Model.get_compile_config(obj), None)
    return state


def _graph(obj: Any) -> tuple[Any, ...]:
    """What a functional model or a stack of layers is made of, without its class: that model, or the layers."""
    if isinstance(obj, keras.Sequential):
        return None, list(vars(obj)["_layers"]), obj.name  # `layers` leaves out the input
    plain = keras.Model(obj._inputs_struct, obj._outputs_struct, name=obj.name)  # noqa: SLF001 - `inputs` is flat
    return plain, None, obj.name


def _new_graph(cls: Any, plain: Any, layers: list[Any] | None, name: str) -> Any:
    obj = cls.__new__(cls)
    if layers is not None:
        keras.Sequential.__init__(obj, layers, name=name)
    else:
        struct = plain._inputs_struct, plain._outputs_struct  # noqa: SLF001 - as in `_graph`
        # Keras' functional class, which it puts among the bases of such a class when its first object is made.
        base: Any = next(one for one in cls.__mro__ if is_keras(one))
        base.__init__(obj, *struct, name=name)
    return obj


def _optimizer_base(obj: Any) -> tuple[Any, dict[str, Any]]:
    """Keras' own class of an optimizer, and its configuration as that class gives it."""
    base: Any = next(cls for cls in type(obj).__mro__ if is_keras(cls))
    return base, without_rates({"module": "keras.optimizers", "config": base.get_config(obj)})["config"]


def _new_optimizer(cls: Any, base: Any, config: dict[str, Any]) -> Any:
    obj = cls.__new__(cls)
    made = keras.saving.deserialize_keras_object(config, safe_mode=False)
    base.__init__(obj, **made)
    return obj


def _set_plainly(obj: Any, state: dict[str, Any]) -> None:
    for name, value in state.items():
        setattr(obj, name, value)


def _new_object(cls: Any, arguments: dict[str, Any]) -> Any:
    obj = cls.__new__(cls)
    _base(cls).__init__(obj, **arguments)
    return obj


def _set_attributes(obj: Any, state: dict[str, Any]) -> None:
    for name, value in state["users"].items():
        setattr(obj, name, value)
    if state["activity_regularizer"] is not None:
        obj.activity_regularizer = state["activity_regularizer"]
    for name, members in state["tracked"].items():
        here = vars(obj).get(name)
        if here is not None and {id(one) for one in here} == {id(one) for one in members}:
            here[:] = members  # attributes that were set anew come in another order than they were first set in
    vars(obj).update(state["copied"])
    if state["compiled"] is not None:
        keras.Model.compile(obj, **from_configuration(*state["compiled"]))


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
