"""What travels to a producer, and what is refused with the name of the attribute that cannot."""

import functools
import gzip
import io
import itertools
import sys
import threading
import types

import numpy as np
import pytest

from rayfeed.errors import SourceError
from rayfeed.source.shipping import MAX_DEPTH, is_fresh, pack, unpack


def sent(source):
    return unpack(pack(source, name="generator"))


def refusal(source, name="generator"):
    with pytest.raises(SourceError) as caught:
        pack(source, name=name)
    return str(caught.value)


SCALE = 10


def by_position(start, stop):
    yield from range(start, stop)


def with_defaults(start, stop=4, *, step=1, scale=SCALE):
    yield from (scale * number for number in range(start, stop, step))


def with_rest(first, *rest, flag=False, **options):
    yield first
    yield rest
    yield flag
    yield options


def rebinding(number):
    number = number + 1
    while number < 4:
        yield number
        number += 1


def with_closure(factor):
    offset = np.arange(3)

    def batches(count):
        for number in range(count):
            yield offset * factor + number

    return batches(2)


def captured_argument(items):
    def first():
        return items[0]

    yield first()
    items = items[1:]
    yield first()


def doubled(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return (2 * item for item in function(*args, **kwargs))

    return wrapper


@doubled
def decorated(stop):
    yield from range(stop)


class Reader:
    def __init__(self):
        self.items = [1, 2]

    def batches(self, times=1):
        for _ in range(times):
            yield from self.items


YIELDS = lambda stop: (yield stop)  # noqa: E731 - a generator function without a name

FRESH = {
    "no arguments": (lambda: rebinding(1), [2, 3]),
    "positional": (lambda: by_position(2, 4), [2, 3]),
    "by name": (lambda: by_position(stop=4, start=3), [3]),
    "defaults": (lambda: with_defaults(1), [10, 20, 30]),
    "keyword-only": (lambda: with_defaults(0, 5, step=2, scale=1), [0, 2, 4]),
    "*args": (lambda: with_rest(1, 2, 3), [1, (2, 3), False, {}]),
    "**kwargs": (lambda: with_rest(1, flag=True, a=2), [1, (), True, {"a": 2}]),
    "argument in an inner function": (lambda: captured_argument([5, 6]), [5, 6]),
    "expression": (lambda: (number * SCALE for number in [1, 2]), [10, 20]),
    "expression over a range": (lambda: (number for number in range(3)), [0, 1, 2]),
    "expression over a generator": (lambda: (number for number in by_position(0, 2)), [0, 1]),
    "argument that is a generator": (lambda: captured_argument([by_position, 1]), None),
    "decorated": (lambda: decorated(3), [0, 2, 4]),
    "method": (lambda: Reader().batches(times=2), [1, 2, 1, 2]),
    "lambda": (lambda: YIELDS(3), [3]),
}


@pytest.mark.parametrize("case", FRESH)
def test_a_fresh_generator_object_arrives_as_it_would_have_run_here(case):
    make, items = FRESH[case]
    generator = make()
    arrived = sent(generator)
    assert isinstance(arrived, types.GeneratorType)
    assert (arrived.__name__, arrived.__qualname__) == (generator.__name__, generator.__qualname__)
    if items is not None:
        assert list(arrived) == items
    assert is_fresh(generator)  # the caller's own was not advanced


def test_a_generator_with_a_closure_arrives_with_what_it_captured():
    assert [item.tolist() for item in sent(with_closure(5))] == [[0, 5, 10], [1, 6, 11]]


def test_a_generator_of_a_modules_own_function_brings_nothing_of_the_module_along():
    assert len(pack(uses_the_module(), name="generator")) < 1000


BIG = np.zeros(1 << 16)


def uses_the_module():
    yield BIG


def test_a_generator_that_calls_itself_arrives():
    def depths(limit):
        def down(depth):
            yield depth
            if depth < limit:
                yield from down(depth + 1)

        return down(0)

    assert list(sent(depths(3))) == [0, 1, 2, 3]


class ThreadsafeIterator:
    """As in many a Keras example."""

    def __init__(self, iterator):
        self.iterator = iterator
        self.lock = threading.Lock()

    def __iter__(self):
        return self

    def __next__(self):
        with self.lock:
            return next(self.iterator)


def test_a_wrapper_object_with_a_lock_around_a_generator_arrives():
    arrived = sent(ThreadsafeIterator(ThreadsafeIterator(by_position(0, 3))))
    assert list(arrived) == [0, 1, 2]
    assert not arrived.lock.locked()


def test_one_generator_that_two_members_share_is_one_generator_there_too():
    generator = by_position(0, 4)
    one, other = sent([generator, generator])
    assert one is other


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock, threading.Condition, threading.Event])
def test_an_unlocked_lock_arrives_as_a_new_one(make):
    lock = make()
    arrived = sent({"lock": lock})["lock"]
    assert type(arrived) is type(lock)
    assert arrived is not lock


SCRIPT = types.ModuleType("__main__")
exec(  # noqa: S102 - as a user's script would define them
    """
import functools

@functools.cache
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

class Table:
    @functools.lru_cache(maxsize=7, typed=True)
    def row(self, n):
        return [fibonacci(n)]
""",
    SCRIPT.__dict__,
)


def test_cached_functions_of_a_script_arrive_with_empty_caches_of_their_size(monkeypatch):
    assert SCRIPT.fibonacci(9) == 34
    data = pack(SCRIPT.Table(), name="generator")
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))  # another process has another script
    table = unpack(data)
    assert table.row(8) == [21]
    assert type(table).row.cache_info()[1:] == (1, 7, 1)
    assert type(table).row.cache_parameters() == {"maxsize": 7, "typed": True}


@functools.cache
def of_a_module(number):
    return number


def test_a_cached_function_that_can_be_imported_is_that_of_the_module():
    assert sent(of_a_module) is of_a_module


def test_a_lock_is_left_as_it_was():
    lock, recursive = threading.Lock(), threading.RLock()
    pack([lock, recursive], name="generator")
    assert not lock.locked()
    assert not recursive._is_owned()


@pytest.mark.parametrize(
    "source",
    [itertools.count(3), iter([1, 2]), iter(range(3)), zip([1], [2], strict=True), functools.partial(by_position, 0)],
    ids=lambda source: type(source).__name__,
)
def test_iterators_of_python_itself_arrive(source):
    assert type(sent(source)) is type(source)


def test_arrays_arrive_private_and_writable():
    index = np.arange(5)
    small, large = sent([index, np.zeros(1 << 18)])
    small[0] = 9
    large[0] = 1
    assert index[0] == 0


def test_what_the_producer_gets_may_be_a_view_of_shared_memory():
    data = np.frombuffer(pack(np.arange(3), name="generator"), np.uint8)
    array = unpack(memoryview(data))
    array += 1
    assert array.tolist() == [1, 2, 3]


def test_an_object_of_a_class_that_other_processes_do_not_have_arrives_with_its_class(monkeypatch):
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    script = "class Batches:\n    def __getitem__(self, index):\n        return FACTOR * index\nFACTOR = 3"
    exec(script, module.__dict__)  # noqa: S102 - a script's own class
    data = pack(module.Batches(), name="generator")
    del module.Batches
    assert unpack(data)[2] == 6


def test_standard_streams_arrive_as_those_of_the_other_process():
    streams = [sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__]
    assert all(one is other for one, other in zip(sent(streams), streams, strict=True))


def test_a_file_that_was_closed_arrives_closed(tmp_path):
    path = tmp_path / "data.csv"
    with path.open("w") as file:
        pass
    in_memory = io.StringIO()
    in_memory.close()
    arrived = sent([file, in_memory, io.StringIO()])
    assert [one.closed for one in arrived] == [True, True, False]


def test_what_stays_here_is_replaced_by_what_is_there():
    model, there = Reader(), Reader()
    data = pack({"model": model, "members": [model, model.items]}, name="callbacks", by_reference=[model])
    arrived = unpack(data, by_reference=[there])
    assert arrived["model"] is there
    assert arrived["members"][0] is there
    assert arrived["members"][1] == [1, 2]


class Holder:
    def __init__(self, member):
        self.member = member

    def batches(self):
        yield self.member


def started():
    generator = by_position(0, 3)
    next(generator)
    return generator


def locked():
    lock = threading.Lock()
    lock.acquire()
    return lock


@pytest.mark.parametrize("nested", [False, True])
def test_a_started_generator_is_refused_with_what_to_do(nested):
    source = started()
    text = refusal(Holder({"a": [source]}) if nested else source)
    what = "generator (Holder)" if nested else "generator (generator)"
    path = "generator.member['a'][0]" if nested else "generator"
    assert text == (
        f"{what} cannot be sent to another process: {path} is a generator (it was already started).\n"
        "  Pass it before its first next(), or pass the generator function instead of its result: both can be opened "
        "in a producer."
    )


@pytest.mark.parametrize("opener", [open, functools.partial(open, mode="rb"), gzip.open], ids=["text", "bytes", "gzip"])
def test_an_open_file_is_refused_with_the_attribute_and_what_to_do(tmp_path, opener):
    path = tmp_path / "data.csv"
    path.write_bytes(gzip.compress(b"1,2"))
    with opener(path) as file:
        text = refusal(Holder(file))
        assert text.startswith(
            f"generator (Holder) cannot be sent to another process: generator.member is a {type(file).__name__} ("
            "it is open in this process).\n"
        )
    assert text.endswith("Keep the file's path instead, and open it in the generator or on first use in __getitem__.")


def test_a_locked_lock_is_refused_with_the_attribute():
    text = refusal(Holder(locked()), name="callbacks")
    assert text.startswith("callbacks (Holder) cannot be sent to another process: callbacks.member is a lock (it is l")
    assert "Make it where it is used" in text


def uses_a_file(file):
    def batches():
        yield file.read()

    return batches


def test_the_path_to_the_culprit_goes_through_whatever_holds_it(tmp_path):
    with (tmp_path / "data").open("w") as file:
        holder = Holder(file)
        for source, path in [
            (Holder(Holder(file)), "generator.member.member is"),
            ([0, (1, {"k": file})], "generator[1][1]['k'] is"),
            (uses_a_file(file), "generator (uses file) is"),
            (uses_a_file(file)(), "generator.gi_frame.f_locals['file'] is"),
            (captured_argument([file]), "generator.gi_frame.f_locals['items'][0] is"),
            (holder.batches, "generator.__self__.member is"),
            (functools.partial(by_position, file), "generator.args[0] is"),
            (functools.partial(by_position, stop=holder), "generator.keywords['stop'].member is"),
        ]:
            assert f": {path} a TextIOWrapper (it is open in this process)." in refusal(source)


def test_a_culprit_that_is_too_deep_is_named_by_the_last_member_that_was_looked_at():
    source = locked()
    for _ in range(MAX_DEPTH + 2):
        source = [source]
    assert ": generator" + "[0]" * MAX_DEPTH + " is a list (it is locked)" in refusal(source)


def test_something_that_refuses_to_be_pickled_is_named_with_its_own_reason():
    class Connection:
        def __reduce__(self):
            raise ConnectionError("a connection cannot be copied")

    text = refusal(Holder(Connection()))
    assert "generator.member is a Connection (a connection cannot be copied)" in text
    assert "or leave it out in __getstate__" in text


def test_the_pickling_error_is_the_cause():
    with pytest.raises(SourceError) as caught:
        pack(started(), name="generator")
    assert str(caught.value.__cause__) == "it was already started"


def test_what_leaves_the_culprit_out_of_its_state_travels():
    class Careful(Holder):
        def __getstate__(self):
            return {"member": None}

    assert sent(Careful(locked())).member is None
