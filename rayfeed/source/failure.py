"""How an exception of user code crosses processes and keeps its type, message and traceback.

It travels as a value, never as Ray's task error: Ray's dual classes would change its type, and a user's own
``TimeoutError`` or ``RayActorError`` would look like a failure of the machinery and be retried.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Any

from rayfeed.errors import RayfeedError, RemoteTraceback
from rayfeed.source.shipping import pack, unpack


class RemoteError(RayfeedError):
    """Stands in for an exception whose own class could not travel; names that class and its message."""


@dataclass(frozen=True)
class _Bare:
    """An exception in parts, for classes whose ``__init__`` does not take what ``args`` holds."""

    type: type[BaseException]
    args: tuple[Any, ...]
    state: dict[str, Any]


def _rebuilt(form: Any) -> BaseException:
    if not isinstance(form, _Bare):
        return form
    error = form.type.__new__(form.type)
    error.args = form.args
    error.__dict__.update(form.state)
    return error


def _same_class(one: type, other: type) -> bool:
    """Whether two classes are one class that travelled by value, and so is another object here."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


@dataclass(frozen=True)
class Failure:
    """An exception as it crosses a process boundary.

    Attributes:
        pickled: The exception itself.
        traceback: Its traceback as text, causes included.
        where: Who raised it: the worker, its node and process, the batch.
    """

    pickled: bytes
    traceback: str
    where: str

    @classmethod
    def of(cls, error: BaseException, where: str) -> Failure:
        """Take an exception down. One that cannot be rebuilt from its pickle is replaced by a `RemoteError`."""
        text = "".join(traceback.format_exception(error))
        if isinstance(error, StopIteration):  # raised from an iterator's __next__ it would end the stream in silence
            error = RuntimeError(f"the source raised StopIteration({error.value!r}) while making a batch")
        for form in (
            error,
            _Bare(type(error), error.args, dict(error.__dict__)),
            _Bare(type(error), (str(error),), {}),
        ):
            try:
                pickled = pack(form, name="error")
                rebuilt = _rebuilt(unpack(pickled))
            except Exception:  # noqa: BLE001, S112 - the user's class may raise anything here; the next form is tried
                continue
            if type(rebuilt) is type(error) or _same_class(type(rebuilt), type(error)):
                return cls(pickled, text, where)
        described = f"{type(error).__module__}.{type(error).__qualname__}: {error}"
        stand_in = RemoteError(f"{described}\n  (its own class cannot be sent to another process)")
        return cls(pack(stand_in, name="error"), text, where)

    def error(self) -> BaseException:
        """The exception to raise in this process: its own type, a note that says where, its traceback as the cause."""
        error = _rebuilt(unpack(self.pickled))
        error.__cause__ = RemoteTraceback(self.traceback)
        note = f"rayfeed: raised in {self.where}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        return error
