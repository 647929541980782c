"""An exception of user code keeps its type, message and traceback on its way to the caller."""

import dataclasses
import sys
import threading
import types

import pytest
from ray.exceptions import RayActorError

from rayfeed.errors import BatchError, RemoteTraceback
from rayfeed.source.failure import Failure, RemoteError

WHERE = "producer 3 (node 10.0.4.17, pid 8812), generator: batch 431 of pass 2"


def travelled(error):
    """What the caller gets for an exception that was raised elsewhere."""
    with pytest.raises(type(error)) as caught:
        raise error
    arrived = Failure.of(caught.value, WHERE).error()
    assert isinstance(arrived.__cause__, RemoteTraceback)
    assert f"rayfeed: raised in {WHERE}" in arrived.__notes__
    return arrived


class PlainError(Exception):
    pass


class FromNumberError(Exception):
    """Makes its message of its argument; called with the message it would make another."""

    def __init__(self, number):
        super().__init__(f"batch {number} is bad")
        self.number = number


class TwoArgumentsError(Exception):
    def __init__(self, path, line):
        super().__init__(f"{path}:{line}")
        self.path = path


class OddArgumentsError(Exception):
    """Its `args` are not what it is called with."""

    def __init__(self, path, line):
        super().__init__(path, line, "bad row")


class OwnTextError(Exception):
    def __str__(self):
        return f"code {self.code}"


class NoTextError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@dataclasses.dataclass(frozen=True)
class FrozenError(Exception):
    code: int


class HasEmptyLengthError(Exception):
    def __len__(self):
        return 0


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such label"),
        KeyError("x"),
        FileNotFoundError(2, "No such file", "data.csv"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        PlainError("a", 2, {"b": [1]}),
        FromNumberError(7),
        TwoArgumentsError("data.csv", 3),
        OddArgumentsError("data.csv", 3),
        HasEmptyLengthError("x"),
        ExceptionGroup("several", [ValueError("a"), KeyError("b")]),
        BatchError("made here"),
        TimeoutError("the user's own"),
        ConnectionError("the user's own"),
        RayActorError(),
        AssertionError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_arrives_with_its_type_message_and_arguments(error):
    arrived = travelled(error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    if type(error) is not RayActorError:
        assert repr(arrived.args) == repr(error.args)


def test_what_an_exception_carries_arrives_with_it():
    error = OwnTextError()
    error.code = 42
    assert str(travelled(error)) == "code 42"
    assert travelled(FromNumberError(7)).number == 7
    assert travelled(TwoArgumentsError("data.csv", 3)).path == "data.csv"
    assert travelled(FrozenError(5)).code == 5


def test_notes_arrive_and_the_place_is_noted_once():
    error = ValueError("x")
    error.add_note("while reading row 7")
    arrived = travelled(error)
    assert arrived.__notes__ == ["while reading row 7", f"rayfeed: raised in {WHERE}"]
    assert travelled(arrived).__notes__ == arrived.__notes__


def test_the_remote_traceback_is_the_cause_with_its_own_causes():
    def reads():
        try:
            {}["label"]
        except KeyError as error:
            raise ValueError("no label") from error

    with pytest.raises(ValueError, match="no label") as caught:
        reads()
    text = str(Failure.of(caught.value, WHERE).error().__cause__)
    assert "in reads" in text
    assert "KeyError: 'label'" in text
    assert "direct cause" in text
    assert text.endswith("ValueError: no label")


def test_an_exception_that_holds_what_cannot_travel_arrives_with_its_message():
    class HoldsError(Exception):
        pass

    error = HoldsError("in use")
    error.lock = threading.Lock()
    error.lock.acquire()
    arrived = travelled(error)
    assert type(arrived).__name__ == "HoldsError"
    assert str(arrived) == "in use"


def test_an_argument_that_cannot_travel_leaves_the_message_and_the_attributes():
    lock = threading.Lock()
    lock.acquire()
    error = PlainError("in use", lock)
    error.code = 3
    arrived = travelled(error)
    assert type(arrived) is PlainError
    assert str(arrived) == str(error)
    assert arrived.code == 3


def test_an_exception_whose_text_fails_still_arrives():
    assert type(travelled(NoTextError("x"))) is NoTextError


def test_a_class_that_cannot_travel_is_named_with_its_message():
    class BoundError(Exception):
        lock = sys.stdin

        def __reduce__(self):
            raise TypeError("no")

        def __new__(cls, *args):
            if not args:
                raise TypeError("needs arguments")
            return super().__new__(cls, *args)

    arrived = travelled(BoundError("in use"))
    assert type(arrived) is RemoteError
    assert str(arrived).startswith(f"{__name__}.")
    assert "BoundError: in use\n  (its own class cannot be sent to another process)" in str(arrived)


def test_a_class_whose_module_the_caller_does_not_have_is_named_with_its_message(monkeypatch):
    module = types.ModuleType("only_there")
    monkeypatch.setitem(sys.modules, "only_there", module)
    exec("class Absent(Exception):\n    pass", module.__dict__)  # noqa: S102 - a module of the producer's node
    failure = Failure.of(module.Absent("no disk"), WHERE)
    monkeypatch.delitem(sys.modules, "only_there")
    arrived = failure.error()
    assert type(arrived) is RemoteError
    assert str(arrived).startswith("only_there.Absent: no disk\n  (its own class cannot be loaded in this process: ")


def test_a_class_that_travels_by_value_keeps_its_name():
    Local = type("Local", (Exception,), {"__module__": "__main__"})  # noqa: N806 - a class of a script
    arrived = travelled(Local("x"))
    assert (type(arrived).__module__, type(arrived).__qualname__, str(arrived)) == ("__main__", "Local", "x")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (StopIteration(3), "the source raised StopIteration(3) while making a batch"),
        (SystemExit(1), "the source raised SystemExit(1) while making a batch"),
        (KeyboardInterrupt(), "the source raised KeyboardInterrupt() while making a batch"),
    ],
    ids=["StopIteration", "SystemExit", "KeyboardInterrupt"],
)
def test_what_would_end_a_loop_or_a_process_in_silence_arrives_as_an_error(error, text):
    arrived = travelled(error)
    assert type(arrived) is RuntimeError
    assert str(arrived) == text
    assert type(error).__name__ in str(arrived.__cause__)


def test_a_failure_says_where_it_was_raised():
    assert Failure.of(ValueError("x"), WHERE).where == WHERE
