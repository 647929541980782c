"""Random numbers that no seed of a batch reaches: those that a `tf.function` draws in its graph.

TensorFlow writes the seeds of a graph's operations into it when it is traced, and begins their streams anew with every
`tf.random.set_seed`. So a graph that was traced for one batch draws the same numbers for every other, and other ones in
a producer that traced it for another batch. Nobody outside can give it new seeds; `GraphDraws` finds it, to be told.

Functions of a `tf.data` pipeline are left out: one that a batch makes for itself is traced for it, with its seed.
"""

from __future__ import annotations

import re
import sys
from typing import Any

CONTEXT = "tensorflow.python.eager.context"
"""Where TensorFlow keeps its graphs; nothing public lists them."""

SEED = "seed2"
"""The attribute by which an operation that draws from a stream of its own is known; stateless ones have none."""

NAME = re.compile(r"__(?:inference|forward|backward)_(?!Dataset_)(.+)_\d+")
"""What TensorFlow makes of a function's name; bodies of loops and the like have other names."""


class GraphDraws:
    """Looks for such functions in this process, each once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._found: dict[str, None] = {}

    def look(self) -> tuple[str, ...]:
        """The functions that draw in their graphs, in the order they were found."""
        module = sys.modules.get(CONTEXT)
        if module is not None:
            context: Any = module.context()
            names = set(context.list_function_names())
            for name in sorted(names - self._seen):
                match = NAME.fullmatch(name)
                if match and _draws(context, name):
                    self._found[match[1]] = None
            self._seen = names
        return tuple(self._found)


def _draws(context: Any, name: str) -> bool:
    """Whether a function draws, or one that it calls."""
    left, known = [name], {name}
    while left:
        for node in context.get_function_def(left.pop()).node_def:
            if SEED in node.attr:
                return True
            called = {value.func.name for value in node.attr.values() if value.func.name} - known
            left += called
            known |= called
    return False
