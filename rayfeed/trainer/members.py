"""The user's own objects and functions inside a Keras object, and how they are kept out of its configuration."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

PART = "rayfeed_part"
"""In a configuration: the number of an object that travels beside it."""

FUNCTION = "rayfeed_function_{}"
"""In a configuration: the name of a function that travels beside it."""

NOT_FOLLOWED = frozenset({"build", "quantize", "_inbound_nodes", "_outbound_nodes", "_tracker", "_call_signature"})
"""Attributes of Keras' layers that lead back to the layer itself, or through the whole graph."""

FRAMEWORKS = frozenset({"keras", "tensorflow", "jax", "jaxlib", "torch", "numpy", "builtins", "ml_dtypes"})


TORCH_OWN = "_torch_params"
"""The attribute in which Keras shows torch the variables of a layer."""


def is_keras(cls: type) -> bool:
    """Whether a class is Keras' own."""
    return cls.__module__.split(".")[0] == "keras"


def is_users(cls: type) -> bool:
    """Whether a class is of neither Keras nor a framework."""
    return cls.__module__.split(".")[0] not in FRAMEWORKS


@dataclass
class Members:
    """What was found inside one Keras object.

    Attributes:
        objects: Objects of the user's classes; what is inside these is theirs.
        functions: Functions that are not Keras' own.
        initializers: Keras' random initializers.
        optimizers: Optimizers, in whatever they are.
        lookups: Keras' layers that look words up in a vocabulary they were adapted to.
    """

    objects: list[Any] = field(default_factory=list)
    functions: list[types.FunctionType] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)
    optimizers: list[Any] = field(default_factory=list)
    lookups: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, root: Any, *, all_layers: bool = False) -> Members:
        """Look through an object.

        Args:
            root: The object.
            all_layers: Whether to look into the user's layers too, which are taken down by themselves.
        """
        found = cls()
        # What a model was compiled with is where it is used too; there another may have taken its place since.
        seen = {id(root)} | ({id(vars(root).get("_compile_config"))} if all_layers else set())
        waiting = list(_members(root))
        while waiting:
            obj = waiting.pop()
            if id(obj) in seen:
                continue
            seen.add(id(obj))
            match obj:
                case str() | bytes() | int() | float() | type() | None:
                    continue
                case types.FunctionType():
                    if not (obj.__module__ or "").startswith("keras."):
                        found.functions.append(obj)
                case Mapping() | list() | tuple() | set():
                    waiting.extend(_members(obj))
                case keras.Variable() | keras.KerasTensor():
                    continue
                case keras.Optimizer() if not is_users(type(obj)) or all_layers:
                    found.optimizers.append(obj)
                    if not all_layers:  # its schedule may be the user's; the optimizer it wraps is part of it
                        waiting.extend(_members(obj))
                case _ if is_keras(type(obj)):
                    if hasattr(obj, "_init_seed"):
                        found.initializers.append(obj)
                    if hasattr(obj, "get_vocabulary") and getattr(obj, "input_vocabulary", None) is None:
                        found.lookups.append(obj)
                    waiting.extend(_members(obj))
                case _ if is_users(type(obj)) and hasattr(obj, "__dict__"):
                    found.objects.append(obj)
                    if all_layers and isinstance(obj, keras.layers.Layer):
                        waiting.extend(_members(obj))
                case _:
                    continue
        return found

    @contextlib.contextmanager
    def vocabularies(self) -> Iterator[None]:
        """Within, configurations hold the vocabularies that layers were adapted to: they are no variables."""
        for layer in self.lookups:
            words = layer.get_vocabulary(include_special_tokens=False)
            if words:
                vars(layer)["get_config"] = _Answer({**layer.get_config(), "vocabulary": words})
        try:
            yield
        finally:
            for layer in self.lookups:
                vars(layer).pop("get_config", None)

    @contextlib.contextmanager
    def stand_ins(self) -> Iterator[None]:
        """Within, a configuration has a number in place of each object, and a made-up name for each function."""
        names = [function.__name__ for function in self.functions]
        for place, function in enumerate(self.functions):
            function.__name__ = FUNCTION.format(place)
        hidden = ("get_config", "get_build_config", "get_compile_config")
        kept = [{name: vars(obj)[name] for name in hidden if name in vars(obj)} for obj in self.objects]
        for place, obj in enumerate(self.objects):
            # On the object, past its __setattr__: Keras asks it, whatever its class says.
            vars(obj)["get_config"] = _Answer({PART: place})
            vars(obj)["get_build_config"] = vars(obj)["get_compile_config"] = _Answer(None)
        try:
            yield
        finally:
            for function, name in zip(self.functions, names, strict=True):
                function.__name__ = name
            for obj, own in zip(self.objects, kept, strict=True):
                for name in hidden:
                    del vars(obj)[name]
                vars(obj).update(own)

    def used_in(self, config: Any) -> tuple[dict[int, Any], dict[str, Any]]:
        """The objects by number, and the functions by name, that a configuration refers to."""
        numbers: set[int] = set()
        words: set[str] = set()
        waiting = [config]
        while waiting:
            match waiting.pop():
                case str() as word:
                    words.add(word)
                case Mapping() as members:
                    if PART in members:
                        numbers.add(members[PART])
                    waiting.extend(members.values())
                case list() | tuple() as members:
                    waiting.extend(members)
                case _:
                    continue
        functions: dict[str, Any] = {}
        for place, function in enumerate(self.functions):
            registered = keras.saving.get_registered_name(function)
            name = FUNCTION.format(place) if registered == function.__name__ else registered
            if name in words:
                functions[name] = function
        return {number: self.objects[number] for number in sorted(numbers)}, functions


def attributes_of(obj: Any) -> dict[str, Any]:
    """What is set on an object. With the torch backend a layer is a torch module, which keeps its layers apart."""
    modules = vars(obj).get("_modules")
    if not isinstance(modules, dict):
        return vars(obj)
    return vars(obj) | {name: value for name, value in modules.items() if name != TORCH_OWN}


def found_in(model: Any) -> Members:
    """All there is in a model, in the user's layers too."""
    return Members.of(model, all_layers=True)


@dataclass(frozen=True)
class _Answer:
    """A method that answers the same to whoever asks."""

    value: Any

    def __call__(self) -> Any:
        return self.value


def _members(obj: Any) -> Iterator[Any]:
    match obj:
        case Mapping():
            yield from obj.values()
        case list() | tuple() | set():
            yield from obj
        case _:
            yield from (value for name, value in vars(obj).items() if name not in NOT_FOLLOWED)
