"""Which copies of a generator make the same batches."""

import numpy as np
import pytest

from rayfeed.producer.twins import Twins, digest

ONE, TWO, THREE, FOUR = (bytes([number]) for number in range(4))


def test_a_digest_follows_from_bytes_dtypes_and_shapes_alone():
    values = np.arange(6, dtype="int32")
    same = [[values], [values.copy()], [np.arange(12, dtype="int32")[:6]], [np.arange(6)[::-1].astype("int32")[::-1]]]
    assert len({digest(arrays) for arrays in same}) == 1
    others = [[values + 1], [values.view("uint32")], [values.reshape(2, 3)], [values, values], [values[:5]], []]
    assert len({digest(arrays) for arrays in [same[0], *others]}) == 7


def test_strings_of_no_fixed_width_are_told_apart_by_what_they_say():
    def strings(*values):
        return digest([np.array(values, np.dtypes.StringDType())])

    long = "a string that is too long to lie in the array itself"
    assert strings("one", long) == strings("one", long[:5] + long[5:])
    assert strings("one", long) != strings("one", long + "!")


def test_copies_are_twins_when_their_first_three_batches_are_the_same_however_they_come():
    twins = Twins()
    assert twins.hear(0, 0, [ONE, TWO]) is None
    assert twins.hear(1, 0, [ONE]) is None
    assert twins.hear(2, 0, [ONE, TWO, FOUR]) is None
    assert twins.hear(1, 1, [TWO, THREE]) is None
    assert twins.hear(0, 2, [THREE]) == (0, 1)


def test_an_answer_that_comes_again_makes_no_copy_its_own_twin():
    twins = Twins()
    assert [twins.hear(0, 0, [ONE, TWO, THREE]) for _ in range(2)] == [None, None]


@pytest.mark.parametrize("digests", [[ONE, ONE, ONE], [ONE, TWO]], ids=["constant", "too short"])
def test_what_says_nothing_is_not_compared(digests):
    twins = Twins()
    assert [twins.hear(lane, 0, digests) for lane in (0, 1)] == [None, None]
