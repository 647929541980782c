"""What a producer's call returns for an answer, and back.

Small answers cross as plain bytes: Ray takes these as they are, where it would pickle an object with a pickler of its
own, made for the call. Whoever reads them takes no more than an answer's own classes and Arrow's: bytes that name
anything else are refused, and nothing of them is run. Larger ones are pickled by Ray, so that their arrays are written
to the object store without a copy; for those Ray's own trust counts, as for every call between its processes.
"""

from __future__ import annotations

import concurrent.futures
import io
import pickle
from typing import Any

from rayfeed.errors import BatchError
from rayfeed.producer.messages import Answer, Unanswered

SMALL_BYTES = 90_000
"""Below this an answer crosses as bytes. Ray sends results of less than 100 KiB with the call's reply instead of by the
object store, and copies bytes when they are read."""

NAMED = {
    "rayfeed.producer.messages": {"Made", "Ended", "Raised", "Run", "OutOfTurn", "Forgotten", "NotFetched"},
    "rayfeed.frame.layout": {"Frame", "Column", "Form"},
    "rayfeed.source.failure": {"Failure"},
    "pyarrow.lib": {"_restore_array", "type_for_alias", "py_buffer"},
}
"""What an answer is made of: module -> names."""


class _Answers(pickle.Unpickler):
    """Reads answers, and nothing else."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if global_name not in NAMED.get(module_name, ()):
            raise BatchError(
                f"a producer's answer names {module_name}.{global_name}, which is no part of an answer: it was not "
                "read.\n  It was damaged, or made by other code or another version of rayfeed: use the same version on "
                "all nodes."
            )
        return super().find_class(module_name, global_name)


def to_result(answer: Answer) -> Answer | bytes:
    """What a producer's call returns for an answer."""
    frame = None if isinstance(answer, Unanswered) else answer.run.frame
    is_small = frame is None or frame.num_bytes < SMALL_BYTES
    return pickle.dumps(answer, pickle.HIGHEST_PROTOCOL) if is_small else answer


def from_result(result: Answer | bytes) -> Answer:
    """The answer that a producer's call returned.

    Raises:
        BatchError: It names what is no part of an answer.
    """
    return _Answers(io.BytesIO(result)).load() if isinstance(result, bytes) else result


def answer_of(call: concurrent.futures.Future[Any]) -> tuple[Answer | None, BaseException | None]:
    """The answer of a call that has ended, or why there is none. Called in Ray's thread, which tells of no errors."""
    error = call.exception()
    if error is not None:
        return None, error
    try:
        return from_result(call.result()), None
    except Exception as damage:  # noqa: BLE001 - whatever is wrong with it, its ticket must not wait for ever
        return None, damage
