"""How user objects travel: as cloudpickle bytes, with what cloudpickle alone cannot send.

Bytes, not actor arguments: Ray hands arguments over as read-only views, and a Sequence that shuffles its index array in
place would fail. Beyond cloudpickle travel

- a generator *object* that has not been started: its code, arguments and closure, called anew at the other end;
- unlocked locks, as new locks: the usual ``threadsafe_iter`` around a generator holds one;
- functions of a script with ``functools.lru_cache``, as functions with an empty cache: cloudpickle sends them by name.

`pack` gives one run of bytes. `take_apart` gives a source's large arrays beside the rest, so that they can be kept
where they did not change (`rayfeed.source.packed`). Both mean the same object: what pickle makes of it.

A started generator has a position in its code that cannot be sent, an open file one in the system; for these `pack`
raises `SourceError` with the attribute's name, before anything is started.
"""

from __future__ import annotations

import functools
import inspect
import io
import pickle
import sys
import threading
import types
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from ray import cloudpickle

from rayfeed.errors import SourceError
from rayfeed.source.packed import Packed, PackedWriter, reader_of

LOCK_TYPES = {type(threading.Lock()): threading.Lock, type(threading.RLock()): threading.RLock}
CACHED_FUNCTION_TYPE = type(functools.lru_cache(lambda: None))
STANDARD_STREAMS = ("stdout", "stderr", "__stdout__", "__stderr__")
"""Files that every process has: sent by name. A logging handler often holds one."""

MAX_DEPTH = 6
"""How deep the search for the member that cannot travel goes; deeper, the last one found is named."""


class How(Protocol):
    """How objects of some kinds, such as Keras', are taken down."""

    def reduce(self, obj: Any) -> Any:
        """As `pickle.Pickler.reducer_override`; `NotImplemented` for objects of other kinds."""
        ...

    def members(self, obj: Any) -> Iterable[tuple[str, object]] | None:
        """What it is taken down to, each with what follows the object's name; None for objects of other kinds."""
        ...


def pack(source: object, *, name: str, by_reference: Sequence[object] = (), how: How | None = None) -> bytes:
    """Serialise a user object.

    Args:
        source: A Sequence, generator object, generator function, callback or the like.
        name: What to call it in an error: the argument's name.
        by_reference: Objects that stay here; where `source` refers to them, the other end's objects take their place.
        how: How objects of some kinds are taken down; asked before anything else.

    Raises:
        SourceError: Something in it cannot travel; names the attribute and says what to do.
    """
    try:
        return _dumps(source, by_reference, how)
    except Exception as error:
        raise _refusal(source, name, error, how) from error


def take_apart(source: object, *, name: str) -> Packed:
    """Serialise a source as `pack` does, with its large pieces apart. They are views of its memory, not copies.

    Args:
        source: A Sequence, generator object, generator function or the like.
        name: What to call it in an error: the argument's name.

    Raises:
        SourceError: As of `pack`.
    """
    writer = PackedWriter()
    try:
        _Pickler(writer, (), None, writer.take).dump(source)
    except Exception as error:
        raise _refusal(source, name, error, None) from error
    return writer.packed()


def put_together(packed: Packed) -> Any:
    """Load what `take_apart` made. The pieces become the object's arrays: they must be private and writable."""
    file, buffers = reader_of(packed)
    with file:
        return pickle.Unpickler(file, buffers=buffers).load()


def unpack(data: Any, *, by_reference: Sequence[object] = ()) -> Any:
    """Load what `pack` made; `data` is bytes or a buffer of them. Arrays are private and writable.

    Args:
        data: What `pack` gave.
        by_reference: This end's objects, in the order of those that `pack` was given.
    """
    with io.BytesIO(data) as file:
        return _Unpickler(file, by_reference).load()


def is_fresh(generator: Generator[Any, Any, Any]) -> bool:
    """Whether a generator object has not been started."""
    return inspect.getgeneratorstate(generator) == inspect.GEN_CREATED


class _Pickler(cloudpickle.Pickler):
    """Cloudpickle, and fresh generators, unlocked locks and cached functions."""

    def __init__(
        self,
        file: Any,
        by_reference: Sequence[object],
        how: How | None,
        take: Callable[[pickle.PickleBuffer], Any] | None = None,
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=take)
        self._by_reference = {id(other): place for place, other in enumerate(by_reference)}
        self._how = how

    def persistent_id(self, obj: Any) -> int | None:
        return self._by_reference.get(id(obj))

    def reducer_override(self, obj: Any) -> Any:
        if self._how is not None:
            reduced = self._how.reduce(obj)
            if reduced is not NotImplemented:
                return reduced
        if isinstance(obj, types.GeneratorType):
            if not is_fresh(obj):
                raise TypeError("it was already started")
            return _call, (_function_of(obj), _arguments_of(obj))
        if isinstance(obj, io.IOBase) and (obj.closed or not isinstance(obj, (io.BytesIO, io.StringIO))):
            return _reduced_file(obj)
        make_lock = LOCK_TYPES.get(type(obj))
        if make_lock is not None:
            lock: Any = obj
            if not lock.acquire(blocking=False):
                raise TypeError("it is locked")
            lock.release()
            return make_lock, ()
        if isinstance(obj, CACHED_FUNCTION_TYPE) and not _can_be_imported(obj):
            cached: Any = obj
            return _cached, (cached.__wrapped__, cached.cache_parameters())
        return super().reducer_override(obj)


class _Unpickler(pickle.Unpickler):
    """Puts this end's objects in the places of those that stayed at the other."""

    def __init__(self, file: io.BytesIO, by_reference: Sequence[object]) -> None:
        super().__init__(file)
        self._by_reference = by_reference

    def persistent_load(self, pid: Any) -> object:
        return self._by_reference[pid]


def _dumps(obj: object, by_reference: Sequence[object] = (), how: How | None = None) -> bytes:
    with io.BytesIO() as file:
        _Pickler(file, by_reference, how).dump(obj)
        return file.getvalue()


def _refusal(source: object, name: str, error: Exception, how: How | None) -> SourceError:
    """What says which member of an object cannot travel, and what to do."""
    path, culprit, reason = _culprit(source, name, error, how)
    return SourceError(
        f"{name} ({type(source).__name__}) cannot be sent to another process: {path} is a "
        f"{type(culprit).__name__} ({reason}).\n"
        f"  {_advice(culprit)}"
    )


def _reduced_file(file: io.IOBase) -> Any:
    if file.closed:
        return _closed_file, ()
    for name in STANDARD_STREAMS:
        if file is getattr(sys, name):
            return getattr, (sys, name)
    raise TypeError("it is open in this process")  # cloudpickle would send a copy of the whole content


def _closed_file() -> io.StringIO:
    """Stands for a file that was closed before it was sent."""
    file = io.StringIO()
    file.close()
    return file


def _can_be_imported(function: Any) -> bool:
    return function.__module__ != "__main__" and _named(function.__module__, function.__qualname__) is function


def _cached(function: Any, parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def _call(function: Any, arguments: tuple[list[Any], dict[str, Any]]) -> Any:
    positional, keywords = arguments
    return function(*positional, **keywords)


def _function_of(generator: Any) -> types.FunctionType:
    """The function whose call would give this generator, remade from its code, globals and closure."""
    code, frame = generator.gi_code, generator.gi_frame
    named = _named(frame.f_globals.get("__name__"), generator.__qualname__)
    if getattr(named, "__code__", None) is code:
        return named  # the module's own function, which cloudpickle sends by name
    values = frame.f_locals
    cells = tuple(types.CellType(values[name]) if name in values else types.CellType() for name in code.co_freevars)
    function = types.FunctionType(code, frame.f_globals, generator.__name__, None, cells)
    function.__qualname__ = generator.__qualname__
    function.__module__ = frame.f_globals.get("__name__", "__main__")
    # Keyword-only arguments are passed by name; positional ones, defaults included, by position.
    return function


def _named(module: Any, qualname: str) -> Any:
    """What a module defines under a qualified name, or None."""
    found = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def _arguments_of(generator: Any) -> tuple[list[Any], dict[str, Any]]:
    """The arguments the generator was called with, as its unstarted frame still holds them."""
    code, values = generator.gi_code, generator.gi_frame.f_locals
    names = iter(code.co_varnames)
    positional = [values[next(names)] for _ in range(code.co_argcount)]
    keyword_names = [next(names) for _ in range(code.co_kwonlyargcount)]
    keywords = {name: values[name] for name in keyword_names}
    if code.co_flags & inspect.CO_VARARGS:
        positional.extend(values[next(names)])
    if code.co_flags & inspect.CO_VARKEYWORDS:
        keywords.update(values[next(names)])
    return positional, keywords


def _culprit(obj: object, path: str, error: Exception, how: How | None, depth: int = 0) -> tuple[str, object, str]:
    """Follow the members of `obj` down to the one that fails to pickle by itself."""
    if depth < MAX_DEPTH:
        special = how.members(obj) if how is not None else None
        for name, member in _members(obj) if special is None else special:
            try:
                _dumps(member, (), how)
            except Exception as inner:  # noqa: BLE001 - as in pack
                return _culprit(member, path + name, inner, how, depth + 1)
    return path, obj, str(error) or type(error).__name__


def _members(obj: object) -> Iterator[tuple[str, object]]:
    if isinstance(obj, io.IOBase):
        return  # what it is made of is not the user's
    if isinstance(obj, Mapping):
        yield from ((f"[{key!r}]", value) for key, value in obj.items())
    elif isinstance(obj, (list, tuple)):
        yield from ((f"[{place}]", value) for place, value in enumerate(obj))
    elif isinstance(obj, types.GeneratorType) and is_fresh(obj):
        captured = inspect.getgeneratorlocals(obj)
        yield from ((f".gi_frame.f_locals[{key!r}]", value) for key, value in captured.items())
    elif isinstance(obj, types.MethodType):
        yield ".__self__", obj.__self__
    elif isinstance(obj, functools.partial):
        yield from ((".func", obj.func), (".args", obj.args), (".keywords", obj.keywords))
    elif isinstance(obj, types.FunctionType):
        used = inspect.getclosurevars(obj)
        yield from ((f" (uses {key})", value) for key, value in {**used.nonlocals, **used.globals}.items())
    else:
        yield from ((f".{key}", value) for key, value in getattr(obj, "__dict__", {}).items())


def _advice(culprit: object) -> str:
    if isinstance(culprit, types.GeneratorType):
        return (
            "Pass it before its first next(), or pass the generator function instead of its result: both can be "
            "opened in a producer."
        )
    if isinstance(culprit, io.IOBase):
        return "Keep the file's path instead, and open it in the generator or on first use in __getitem__."
    return (
        "Make it where it is used (on first use in __getitem__, or in the generator's body), or leave it out in "
        "__getstate__."
    )
