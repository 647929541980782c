"""A module that a user's object needs and this process has not: said as what it is, with the ways to send it along.

On one machine every process finds the modules of the script's folder; on a cluster only what was sent or installed is
there. The exception is the machinery's, not the user's code's, and so it has rayfeed's type.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rayfeed.errors import SourceError


@contextmanager
def naming_missing_modules(what: str) -> Iterator[None]:
    """Run a block that loads a user's object.

    Args:
        what: The argument by which it came.

    Raises:
        SourceError: A module that it needs cannot be imported in this process.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise SourceError(
            f"{what} cannot be loaded in this process: the module {error.name!r} that it needs is not on this node.\n"
            '  Send your folder with the job: ray.init(runtime_env={"working_dir": "."}) before the call, or '
            "`ray job submit --working-dir . -- python train.py`; a package is installed on every node, or named in "
            'runtime_env={"pip": [...]}.'
        ) from error
