"""The values of a model's variables on their way between the caller and the trainer, a part at a time.

A model's variables have fixed *places*: a group, and a number in it. The first group are the model's own (weights, and
other state such as the seeds of dropout), then comes one group for each optimizer. The order is the same on both sides
for the same blueprint. Metrics hold no state between calls and stay.

Only what differs travels: each side knows the digests of what the other holds. A frozen backbone goes to the trainer
once and never comes back; of a model with adapters only these and their optimizer's slots come home.

Values are sent straight out of the variables' memory and written straight into them, in parts of at most `PART_BYTES`:
neither side holds a second copy of the model in memory, and the object store a part or two.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from rayfeed.errors import OptionError, SourceError
from rayfeed.trainer.members import found_in

PART_BYTES = 64 << 20
"""Bytes of values that travel in one object: large enough that Ray's work per object does not count."""

Place = tuple[int, int]
"""A group and a number in it."""

Values = list[tuple[Place, np.ndarray]]
"""Places and their values."""

NUMBER = re.compile(r"_\d+$")
"""What Keras adds to the names of layers that nobody named."""

FIRST_OF_OPTIMIZER = ("iteration", "learning_rate")
"""Variables that an optimizer has before it is built; they stand first in its group, so that a place stays one."""


@dataclass(frozen=True)
class InputSpec:
    """One input of a model.

    Attributes:
        shape: Its shape, the batch's length first.
        dtype: Its dtype's name.
    """

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Layout:
    """Which variables a model has.

    Attributes:
        variables: The model's own variables, each as its layer's name, its own name, shape and dtype.
        optimizers: For each optimizer the numbers of the variables it was built for; None where it is not built.
        undecayed: For each optimizer the numbers of the variables that were excluded from its weight decay.
        inputs: An `InputSpec` for each input, in the structure the model takes them; of a model that data built.
    """

    variables: tuple[tuple[str, str, tuple[int, ...], str], ...]
    optimizers: tuple[tuple[int, ...] | None, ...]
    undecayed: tuple[tuple[int, ...], ...] = ()
    inputs: Any = None


def check_model(model: Any) -> None:
    """Raise `OptionError` unless this is a Keras model, or something that makes one."""
    if not isinstance(model, keras.Model) and not callable(model):
        raise OptionError(
            "model must be a keras.Model, or a function without arguments that builds and compiles one; got "
            f"{type(model).__module__}.{type(model).__name__}."
        )


def made_model(make: Any) -> Any:
    """The model that a function of the user's makes.

    Raises:
        OptionError: It made something else.
    """
    model = make()
    if not isinstance(model, keras.Model):
        name = getattr(make, "__name__", type(make).__name__)
        raise OptionError(f"model: {name}() must return a keras.Model, got {type(model).__name__}.")
    return model


def check_compiled(model: Any, *, call: str) -> None:
    """Raise `OptionError` unless the model was compiled."""
    if not model.compiled:
        raise OptionError(f"model {model.name!r} must be compiled before {call}: call model.compile(...) first.")


def groups(model: Any) -> list[list[Any]]:
    """The model's variables, then those of each of its optimizers."""
    return [_own(model), *(sorted(one.variables, key=_is_later) for one in optimizers(model))]


def places(model: Any) -> list[Place]:
    """All places of a model."""
    return [(group, number) for group, members in enumerate(groups(model)) for number in range(len(members))]


def optimizers(model: Any) -> list[Any]:
    """The optimizer the model was compiled with, then others by their names: those of GANs, of compiled submodels."""
    first = model.optimizer if model.compiled else None
    others = [one for one in found_in(model).optimizers if one is not first]
    return ([first] if first is not None else []) + sorted(others, key=lambda one: one.name)


def layout(model: Any, inputs: Any = None) -> Layout:
    """Describe the model's variables."""
    own = _own(model)
    place_of = {id(variable): place for place, variable in enumerate(own)}
    owners = _owners(model)
    return Layout(
        variables=tuple((owners.get(id(one), ""), one.name, tuple(one.shape), one.dtype) for one in own),
        optimizers=tuple(_built_for(optimizer, place_of) for optimizer in optimizers(model)),
        undecayed=tuple(_undecayed(optimizer, own) for optimizer in optimizers(model)),
        inputs=inputs,
    )


def _owners(model: Any) -> dict[int, str]:
    """The name of the layer that has each variable as its own, without the number that Keras gives in each process."""
    return {
        id(variable): NUMBER.sub("", layer.name)
        for layer in layers_of(model)
        for variable in (*layer._trainable_variables, *layer._non_trainable_variables)  # noqa: SLF001 - nothing public
    }


def conform(model: Any, wanted: Layout) -> None:
    """Have the model own the same variables as the other side's: build what is not built, and compare.

    Raises:
        SourceError: It has others, or in another order.
    """
    if len(_own(model)) < len(wanted.variables) and wanted.inputs is not None:
        build(model, wanted.inputs)
    own = _own(model)
    here, there = layout(model).variables, wanted.variables
    if here != there:
        differing = next((i for i, pair in enumerate(zip(here, there, strict=False)) if pair[0] != pair[1]), None)
        first = f"the first difference is at number {differing}" if differing is not None else "one has more"
        raise SourceError(
            f"model {model.name!r} ({type(model).__name__}) is not the same at both ends: {len(there)} variables were "
            f"sent and {len(here)} are there, {first}.\n"
            "  Keep every weight and layer as an attribute of its layer or give its class get_config(); or pass a "
            "function without arguments that builds and compiles the model."
        )
    mine = layout(model).optimizers
    for optimizer, numbers in zip(optimizers(model), wanted.undecayed, strict=True):
        if numbers:
            keys = {optimizer._var_key(own[number]) for number in numbers}  # noqa: SLF001 - refused once it is built
            optimizer._exclude_from_weight_decay = keys  # noqa: SLF001 - as above
            optimizer._exclude_from_weight_decay_cache = {}  # noqa: SLF001 - as above
    for optimizer, built_for, built in zip(optimizers(model), wanted.optimizers, mine, strict=True):
        if built_for is None or built == built_for:
            continue
        # Built by Keras for what is trainable now, where the other side's was for what was trainable once.
        fresh = optimizer if built is None else _replaced(model, optimizer)
        fresh.build([own[number] for number in built_for])


def build(model: Any, inputs: Any) -> None:
    """Build a model as Keras does for its first batch: by a call on symbols of that shape and dtype."""
    model(keras.tree.map_structure(lambda spec: keras.KerasTensor((None, *spec.shape[1:]), dtype=spec.dtype), inputs))


def digests(model: Any) -> list[list[bytes]]:
    """A digest of each place's value, by group."""
    return [[digest(_value(variable)) for variable in members] for members in groups(model)]


def read(model: Any, wanted: Iterable[Place]) -> Iterator[Values]:
    """The values of some places, in parts of at most `PART_BYTES`; a larger variable goes alone.

    Where the backend allows, they are views of the variables' memory.
    """
    variables = groups(model)
    part: Values = []
    size = 0
    for place in wanted:
        value = _value(variables[place[0]][place[1]])
        if part and size + value.nbytes > PART_BYTES:
            yield part
            part, size = [], 0
        part.append((place, value))
        size += value.nbytes
    if part:
        yield part


def write(model: Any, values: Values) -> None:
    """Give places these values."""
    variables = groups(model)
    for (group, number), value in values:
        variables[group][number].assign(value)
    for layer in layers_of(model):
        if hasattr(layer, "finalize_state"):  # an adapted layer computes with what follows from its variables
            layer.finalize_state()


def differing(mine: Sequence[Sequence[bytes]], theirs: Sequence[Sequence[bytes]]) -> list[Place]:
    """The places whose value the other side does not have."""
    if len(mine) != len(theirs) or len(mine[0]) != len(theirs[0]):  # built meanwhile: its places are others
        theirs = [[] for _ in mine]
    return [
        (group, number)
        for group, (own, other) in enumerate(zip(mine, theirs, strict=True))
        for number, digest in enumerate(own)
        if number >= len(other) or other[number] != digest
    ]


def _own(model: Any) -> list[Any]:
    metrics = {id(variable) for variable in model.metrics_variables}
    return [variable for variable in model.variables if id(variable) not in metrics]


def _replaced(model: Any, optimizer: Any) -> Any:
    """A new optimizer of the same configuration, in the model in the old one's place."""
    fresh = type(optimizer).from_config(optimizer.get_config())
    for name in [name for name, value in vars(model).items() if value is optimizer]:
        setattr(model, name, fresh)
    return fresh


def objects_of(model: Any) -> list[Any]:
    """The model and what is in it, in an order that is the same at both ends, for others to refer to by number."""
    if model is None:
        return [_NO_MODEL]
    variables = [variable for members in groups(model) for variable in members]
    return [model, *layers_of(model)[1:], *optimizers(model), *variables]


_NO_MODEL = object()
"""In the place of a model that is not made yet: nobody refers to it."""


def layers_of(model: Any) -> list[Any]:
    """The model and all layers in it, in an order that is the same at both ends."""
    return list(model._flatten_layers())  # noqa: SLF001 - `layers` leaves out those inside of layers


def _undecayed(optimizer: Any, own: list[Any]) -> tuple[int, ...]:
    if not getattr(optimizer, "_exclude_from_weight_decay", None) and not getattr(
        optimizer, "_exclude_from_weight_decay_pattern", None
    ):
        return ()
    return tuple(n for n, variable in enumerate(own) if not optimizer._use_weight_decay(variable))  # noqa: SLF001


def _is_later(variable: Any) -> bool:
    return variable.name not in FIRST_OF_OPTIMIZER


def _built_for(optimizer: Any, place_of: dict[int, int]) -> tuple[int, ...] | None:
    if not optimizer.built:
        return None
    inner = getattr(optimizer, "inner_optimizer", optimizer)  # loss scaling wraps another
    # Not the model's trainable variables: layers may have been frozen since.
    return tuple(place_of[id(variable)] for variable in inner._trainable_variables)  # noqa: SLF001 - nothing public


def _value(variable: Any) -> np.ndarray:
    """A variable's value; a view of its memory where that is the host's. What is viewed TensorFlow does not change."""
    value = variable.value
    tensor: Any = value.read_value() if hasattr(value, "read_value") else value
    try:
        return np.asarray(memoryview(tensor))
    except (TypeError, ValueError, BufferError):  # no host memory, or of a dtype that buffers have no word for
        copied: Any = keras.ops.convert_to_numpy(variable)
        return copied


def digest(value: np.ndarray) -> bytes:
    """What tells a value from others."""
    data: Any = np.ascontiguousarray(value).view(np.uint8) if value.size else b""
    return hashlib.sha256(data).digest()
