"""What crosses between feed and producer arrives as it left."""

import numpy as np
import pytest

from rayfeed.batch import flatten
from rayfeed.frame.codec import decode, encode
from rayfeed.frame.schema import FrameSchema
from rayfeed.producer.messages import Ended, Made, Raised, Run, Ticket
from rayfeed.producer.results import SMALL_BYTES, from_result, to_result
from rayfeed.source.failure import Failure


def answer_of(num_bytes):
    batch = (np.arange(num_bytes, dtype="uint8"), None)
    structure, arrays = flatten(batch, where="here")
    return Made(Run(encode([arrays], FrameSchema.of(structure, arrays)), 1, 0.1, 0.2, asked=True, make_s=0.4))


@pytest.mark.parametrize(
    "ticket",
    [Ticket(5, 1, 2, 30, (7, 3, 1), lane=4, version=6, attempt=2), Ticket(0, 0, 0, 0, (0,))],
    ids=["all", "the least"],
)
def test_a_ticket_in_bytes_is_the_same_ticket(ticket):
    assert Ticket.from_bytes(ticket.to_bytes()) == ticket


@pytest.mark.parametrize(("num_bytes", "kind"), [(10, bytes), (SMALL_BYTES - 64, bytes), (SMALL_BYTES, Made)])
def test_a_small_answer_crosses_as_bytes_and_a_large_one_as_it_is(num_bytes, kind):
    answer = answer_of(num_bytes)
    result = to_result(answer)
    assert type(result) is kind
    found = from_result(result)
    assert isinstance(found, Made)
    assert found.run.frame is not None
    assert (found.run.num_batches, found.run.make_s, found.run.asked) == (1, 0.4, True)
    assert np.array_equal(decode(found.run.frame).arrays(0)[0], np.arange(num_bytes, dtype="uint8"))


def test_what_holds_no_batch_crosses_as_bytes():
    nothing = Run(None, 0, 0.0, 0.0, asked=False)
    assert from_result(to_result(Ended(nothing))) == Ended(nothing)
    raised = from_result(to_result(Raised(nothing, Failure.of(ValueError("no"), "here"))))
    assert isinstance(raised, Raised)
    assert isinstance(raised.failure.error(), ValueError)
