"""What comes back from a producer's call is an answer, or refused: nothing else in it is loaded, and nothing is run."""

import concurrent.futures
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from rayfeed.batch import flatten
from rayfeed.errors import BatchError
from rayfeed.frame import FrameSchema, encode
from rayfeed.producer.messages import Ended, Forgotten, Made, NotFetched, OutOfTurn, Raised, Run
from rayfeed.producer.results import answer_of, from_result, to_result
from rayfeed.source.failure import Failure

DTYPES = [
    "?",
    "i1",
    "<u2",
    "<i4",
    ">i4",
    "<u8",
    "<f2",
    "<f4",
    "<f8",
    "<c8",
    "<c16",
    "<U3",
    "S5",
    "<M8[s]",
    [("a", "<i4")],
]


def run_of(dtype):
    structure, arrays = flatten((np.zeros((3, 2), dtype), None), where="test")
    return Run(encode([arrays], FrameSchema.of(structure, arrays)), 1, 0.0, 0.0, asked=False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_batches_of_every_kind_of_dtype_are_read(dtype):
    found = from_result(to_result(Made(run_of(dtype))))
    assert found.run.frame.num_bytes == run_of(dtype).frame.num_bytes


@pytest.mark.parametrize(
    "answer",
    [
        Ended(Run(None, 0, 0.0, 0.0, asked=True, digests=(b"x",))),
        Raised(Run(None, 0, 0.0, 0.0, asked=False), Failure.of(KeyError("x"), "producer 0")),
        OutOfTurn(),
        Forgotten(),
        NotFetched("too slow"),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_every_answer_is_read_as_it_was(answer):
    assert from_result(to_result(answer)) == answer


class Planted:
    """Would run something where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


class Call:
    """Would run a program."""

    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize("inside", [False, True])
def test_an_answer_that_would_run_something_is_refused_by_name_and_runs_nothing(inside, tmp_path):
    planted = Planted(tmp_path / "planted")
    data = pickle.dumps(Made(planted) if inside else planted)
    with pytest.raises(BatchError, match=r"a producer's answer names pathlib\.[\w.]+, which is no part of an answer"):
        from_result(data)
    with pytest.raises(BatchError, match=r"names posix\.system, (.|\n)*It was damaged, or made by other code"):
        from_result(pickle.dumps(Call()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("data", "error"), [(b"\x80", Exception), (pickle.dumps(Call()), BatchError)])
def test_a_call_whose_answer_cannot_be_read_has_an_error_in_its_place(data, error):
    call = concurrent.futures.Future()
    call.set_result(data)
    answer, found = answer_of(call)
    assert answer is None
    assert isinstance(found, error)


def test_a_call_that_failed_has_its_error():
    call = concurrent.futures.Future()
    call.set_exception(OSError("gone"))
    assert isinstance(answer_of(call)[1], OSError)
