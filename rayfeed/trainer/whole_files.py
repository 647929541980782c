"""A directory of files that are whole or not there, whenever the process that writes them is killed.

What that relies on, by where the directory is (Arrow 26):

    S3, Google, Azure     An object has its name once all of it was sent and its stream closed, so it is written under
                          its name. Nothing is renamed: Azure without a hierarchical namespace cannot, and S3 copies,
                          at most 5 GiB. On Azure an empty object has the name meanwhile; so empty files are not there.
    local, NFS            Written as ``NAME.part``, synced, renamed, and the directory synced: whatever is removed
                          after that is gone no earlier than the new file is on the disk.
    others: HDFS, fsspec  Written as ``NAME.part`` and renamed.

A process that is killed closes no stream; parts of an object that were sent stay without a name, until a lifecycle rule
of the bucket removes them. An exception is another matter: Arrow's streams cannot be given up from Python, and closing
one, which its destructor does as well, completes the file. So a file whose writing raised is completed, cut as it is,
and removed. Who is killed between the two leaves a cut object with a name: readers still compare digests.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pyarrow import ArrowException, fs

from rayfeed.errors import OptionError

PART = ".part"
"""Ends the name of a file that is being written, or was when its process died."""

OBJECT_STORES = frozenset({"s3", "gcs", "abfs"})
"""Arrow's own words (`FileSystem.type_name`) for those where a name comes with the whole object."""


class WholeFiles:
    """The files of one directory.

    Args:
        location: A path or URL.
        directory: The caller's working directory, which a relative path is of.

    Raises:
        OptionError: Arrow knows no file system for the URL.
    """

    def __init__(self, location: str, directory: str) -> None:
        self.location = location if "://" in location else str(Path(directory, location))
        self._files, self._path = file_system(self.location)

    def names(self) -> list[str]:
        """The names of all files, unfinished ones among them."""
        found = self._files.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
        return [info.base_name for info in found if info.size != 0 or info.base_name.endswith(PART)]

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        """A file, open for reading."""
        with contextlib.closing(self._files.open_input_file(self.at(name))) as file:
            yield file

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Callable[[bytes], Any]]:
        """Write a file, which is there once the context is left, unless by an exception: what takes its bytes."""
        self._files.create_dir(self._path, recursive=True)
        first = name if self._files.type_name in OBJECT_STORES else name + PART
        with contextlib.ExitStack() as undoing:
            undoing.callback(self.remove, first)
            with contextlib.closing(self._files.open_output_stream(self.at(first))) as file:
                yield file.write
            undoing.pop_all()
        if first != name:
            self._sync(self.at(first))
            self._files.move(self.at(first), self.at(name))
            self._sync(self._path)

    def remove(self, name: str) -> None:
        """Remove a file, unless another process has."""
        with contextlib.suppress(FileNotFoundError):
            self._files.delete_file(self.at(name))

    def check_writable(self, name: str) -> None:
        """Raise `OptionError` unless files can be written here and removed: done with a tiny one of this name."""
        with self.naming("write"):
            with self.writing(name) as put:
                put(b"\n")
            self.remove(name)

    @contextlib.contextmanager
    def naming(self, doing: str) -> Iterator[None]:
        """Tell what the file system raises, before a training has begun, as an error of the option."""
        try:
            yield
        except (OSError, ArrowException) as error:
            raise OptionError(
                f"TrainerOptions.checkpoint_dir={self.location!r}: the trainer cannot {doing} there: "
                f"{str(error).rstrip('.')}.\n"
                "  Nothing was trained. Give a directory, or a URL, that every node that the trainer may run on can "
                "write to."
            ) from error

    def at(self, name: str) -> str:
        """Where a file of this name is."""
        return f"{self._path}/{name}"

    def _sync(self, path: str) -> None:
        """Have a file, or a directory's names, outlast the machine's power, where this process can see to it."""
        if isinstance(self._files, fs.LocalFileSystem):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def file_system(location: str) -> tuple[Any, str]:
    """The file system of a path or URL, and the directory's path in it.

    Raises:
        OptionError: Arrow knows none.
    """
    if "://" not in location:
        return fs.LocalFileSystem(), location
    try:
        files, path = fs.FileSystem.from_uri(location)
    except (ArrowException, ValueError, ImportError) as error:
        raise OptionError(
            f"TrainerOptions.checkpoint_dir={location!r} is no URL that Arrow takes: {error}.\n"
            "  Give a path, or a URL such as s3://bucket/folder; for a file system of fsspec, fsspec+NAME://..."
        ) from error
    return files, path.rstrip("/")
