"""Batches that are none, refused in the producer with its name and theirs (contract B2, B4, B5)."""

import re

import numpy as np
import pytest

import rayfeed

WHERE = r"producer 0 \(node [\d.]+, pid \d+\), source: batch 2 of pass 1: "


class Bad(rayfeed.Sequence):
    """Batch 2 of pass 1 is `value`."""

    def __init__(self, value):
        self.value = value
        self.passes = 0

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.value if (self.passes, index) == (1, 2) else (np.ones((3, 2)), np.ones(3))

    def on_epoch_end(self):
        self.passes += 1


CASES = {
    "B2 lengths": ((np.ones((3, 2)), np.ones(4)), r"the arrays of one batch differ in length: inputs: 3, targets: 4"),
    "B4 objects": ((np.array([object()] * 3), np.ones(3)), r"inputs has dtype dtype\('O'\).*holds Python objects"),
    "B4 one number": ((np.ones((3, 2)), 7), r"targets is int 7\."),
    "B4 0-d": ((np.ones((3, 2)), np.float64(7)), r"targets is a single value .* has no length"),
    "B5 text": ("x" * 1000, r"found str 'x{96}\.\.\.\.\n"),
    "B5 None": (None, r"found NoneType None"),
    "B5 bare": (np.ones(3), r"found ndarray array"),
    "other dtype": (
        (np.ones((3, 2), "float32"), np.ones(3)),
        r"inputs is float32 where this source's first batch had float64",
    ),
    "other structure": ((np.ones((3, 2)), None), r"targets is None where this source's first batch had one array"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_no_batch_is_a_value_error_that_says_what_it_is_and_who_made_it(name):
    value, message = CASES[name]
    with rayfeed.Feed(Bad(value), use_multiprocessing=True) as feed:
        with pytest.raises(ValueError, match=WHERE + message) as caught:
            list(feed.take(8))
        assert type(caught.value) is rayfeed.errors.BatchError
        assert feed.stats().batches == 6


def test_producers_that_disagree_on_the_dtype_are_told_so():
    def generate():
        dtype = "float32" if rayfeed.get_worker_info().id else "float64"
        while True:
            yield np.ones((3, 2), dtype), np.ones(3)

    with (
        rayfeed.Feed(generate, 2, use_multiprocessing=True) as feed,
        pytest.raises(
            rayfeed.errors.BatchError, match=r"producer \d .*inputs is float(32|64) where .* had float(64|32)"
        ),
    ):
        list(feed.take(4))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (17, "source must be a Sequence"),
        ([1, 2], "source must be a Sequence"),
        (np.ones(3), "source must be a Sequence"),
        (None, "got NoneType None"),
    ],
    ids=["number", "list", "array", "None"],
)
def test_what_is_no_source_is_refused_before_anything_is_started(source, message):
    with pytest.raises(rayfeed.errors.SourceError, match=re.escape(message)):
        rayfeed.Feed(source)


def test_an_empty_sequence_is_refused():
    class Empty(rayfeed.Sequence):
        def __len__(self):
            return 0

        def __getitem__(self, index):
            raise IndexError(index)

    with pytest.raises(rayfeed.errors.SourceError, match=r"source \(Empty\) is empty: its length is 0 batches"):
        rayfeed.Feed(Empty())


def test_what_cannot_travel_is_named(tmp_path):
    class Reading(rayfeed.Sequence):
        def __init__(self, file):
            self.parts = {"log": file}

        def __len__(self):
            return 3

    with (
        (tmp_path / "open").open("w") as file,
        pytest.raises(rayfeed.errors.SourceError, match=r"source\.parts\['log'\] is a TextIOWrapper.*\n.*path instead"),
    ):
        rayfeed.Feed(Reading(file))
