"""`rayfeed.install`: `fit_generator`, `evaluate_generator` and `predict_generator` as methods of `keras.Model` again.

Keras 3 has none of the three. With them a script written for Keras 2 trains on the cluster as it stands:

    rayfeed.install()
    model.fit_generator(batches(), steps_per_epoch=len(x) / 32, epochs=10, workers=8, use_multiprocessing=True)

They are the functions of `rayfeed.api` with the model in front. (The file is not called install: a module of that name
would stand in the place of the function.)
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import keras

from rayfeed.api import evaluate_generator, fit_generator, predict_generator

STEPS = ("steps_per_epoch", "validation_steps", "steps")
"""Arguments that scripts for Keras 2 often give as a quotient, which Keras 2 rounded up."""

_ABSENT = object()
"""Stands for a method that the class did not define itself."""


class Installation:
    """Methods that `install` put on `keras.Model`, until `uninstall` or the end of a ``with`` block.

    Args:
        methods: Name -> function.
    """

    def __init__(self, methods: dict[str, Callable[..., Any]]) -> None:
        self._methods = methods
        self._before = {name: vars(keras.Model).get(name, _ABSENT) for name in methods}
        for name, method in methods.items():
            setattr(keras.Model, name, method)

    def uninstall(self) -> None:
        """Put back what was there before. May be called twice; what others put there meanwhile is left alone."""
        for name, method in self._methods.items():
            if vars(keras.Model).get(name) is not method:
                continue
            if self._before[name] is _ABSENT:
                delattr(keras.Model, name)
            else:
                setattr(keras.Model, name, self._before[name])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.uninstall()


def install() -> Installation:
    """Put `fit_generator`, `evaluate_generator` and `predict_generator` back on `keras.Model`.

    They take the arguments of the functions of the same name in their order, which is that of Keras 2; numbers of steps
    may be fractions, which count as the next whole number. To call this again changes nothing.

    Returns:
        A handle with ``uninstall()``, which restores what was there before; also a context manager that does so. The
        handle of a call that found the methods in place leaves them there.

    Example:
        >>> rayfeed.install()
        >>> model.fit_generator(generator, steps_per_epoch=100, epochs=5)
    """
    return Installation(_METHODS)


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a model and more as a method of the model."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def method(self: keras.Model, *args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(self, *args, **kwargs).arguments
        for name in STEPS:
            if isinstance(arguments.get(name), float) and math.isfinite(arguments[name]):
                arguments[name] = math.ceil(arguments[name])
        return function(**arguments)

    method.__qualname__ = f"Model.{function.__name__}"
    lines = (function.__doc__ or "").splitlines(keepends=True)
    method.__doc__ = "".join(line for line in lines if not line.lstrip().startswith("model: "))
    return method


_METHODS = {function.__name__: _method(function) for function in (fit_generator, evaluate_generator, predict_generator)}
