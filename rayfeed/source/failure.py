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
    _set(error, "args", form.args)
    error.__dict__.update(form.state)
    return error


def _set(error: BaseException, name: str, value: Any) -> None:
    """Set an attribute, also of a class that refuses it, such as a frozen dataclass."""
    BaseException.__setattr__(error, name, value)


def _text(error: BaseException) -> str:
    """The message; an exception whose ``__str__`` fails has none."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a user's __str__ that fails must not hide the error
        return ""


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
        """Take an exception down. One that cannot be rebuilt from its pickle is replaced by a `RemoteError`.

        Of the forms that can be rebuilt, the first is taken that keeps the message: an ``__init__`` that makes its
        message from its argument would, called with that message, make another.
        """
        text = "".join(traceback.format_exception(error))
        if isinstance(error, StopIteration):  # raised from an iterator's __next__ it would end the stream in silence
            error = RuntimeError(f"the source raised StopIteration({error.value!r}) while making a batch")
        elif isinstance(error, (SystemExit, KeyboardInterrupt)):  # it would end the caller's process in silence
            error = RuntimeError(f"the source raised {error!r} while making a batch")
        second_best: bytes | None = None
        for form in (
            error,
            _Bare(type(error), error.args, dict(error.__dict__)),
            _Bare(type(error), (_text(error),), dict(error.__dict__)),
            _Bare(type(error), (_text(error),), {}),
        ):
            try:
                pickled = pack(form, name="error")
                rebuilt = _rebuilt(unpack(pickled))
            except Exception:  # noqa: BLE001, S112 - the user's class may raise anything here; the next form is tried
                continue
            if type(rebuilt) is type(error):
                if _text(rebuilt) == _text(error):
                    return cls(pickled, text, where)
                second_best = second_best or pickled
        if second_best is not None:
            return cls(second_best, text, where)
        described = f"{type(error).__module__}.{type(error).__qualname__}: {_text(error)}"
        stand_in = RemoteError(f"{described}\n  (its own class cannot be sent to another process)")
        return cls(pack(stand_in, name="error"), text, where)

    def error(self) -> BaseException:
        """The exception to raise in this process: its own type, a note that says where, its traceback as the cause."""
        try:
            error = _rebuilt(unpack(self.pickled))
        except Exception as reason:  # noqa: BLE001 - its class' module may be missing here, or fail on import
            described = self.traceback.rstrip().rsplit("\n", 1)[-1]
            error = RemoteError(f"{described}\n  (its own class cannot be loaded in this process: {reason!r})")
        _set(error, "__cause__", RemoteTraceback(self.traceback))
        notes: list[str] = list(getattr(error, "__notes__", ()))
        note = f"rayfeed: raised in {self.where}"
        if note not in notes:
            _set(error, "__notes__", [*notes, note])
        return error
