"""A training's checkpoints as files: whole or not there, whenever the process that writes them is killed.

    checkpoint-00000012.rayfeed    the newest has the highest number
    checkpoint-00000013-RUN.part   one that is being written, or was when its process died: nobody reads it

A file is written under its ``.part`` name and renamed when it is closed; then what was there before is removed. Between
the two there are two whole files, of which the newer counts. On an object store a name appears when all of it is
stored, which serves as well.

    magic line | `Label` as a line of JSON | records, each after its length | length 0 | SHA-256 of all before it

The label says what the file holds without loading it. All of a file is compared with its digest before any record is
used, since records are pickles and change a model as they come. A digest tells a cut file, not a forged one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import ArrowException, fs

from rayfeed.errors import CheckpointError, OptionError

MAGIC = b"rayfeed checkpoint 1\n"
"""The first line, with the version of all that follows."""

NAME = re.compile(r"checkpoint-(\d+)\.rayfeed")
UNFINISHED = re.compile(r"checkpoint-(\d+)-(\w+)\.part")

LENGTH_BYTES = 8
DIGEST_BYTES = 32

CHUNK_BYTES = 4 << 20
"""How much is read at once while a file is compared with its digest."""

LABEL_BYTES = 4096
"""A label is shorter; a longer first line is no label."""


@dataclass(frozen=True)
class Label:
    """What a checkpoint holds.

    Attributes:
        run: The call that saved it.
        epoch: The epoch it goes on in, from 0.
        step: Batches of that epoch that were trained.
        is_stopped: Whether a callback, or the data's end, had stopped the training.
        saved_at: When, in seconds since 1970 by the clock of the trainer's node.
    """

    run: str
    epoch: int
    step: int
    is_stopped: bool
    saved_at: float

    def __str__(self) -> str:
        return f"epoch {self.epoch}, batch {self.step}"


@dataclass(frozen=True)
class Found:
    """A checkpoint that was found.

    Attributes:
        name: Its file's name.
        label: What it holds.
    """

    name: str
    label: Label


class CheckpointFiles:
    """The checkpoints in one directory.

    Args:
        location: A path or URL.
        directory: The caller's working directory, which a relative path is of.

    Raises:
        OptionError: Arrow knows no file system for the URL.
    """

    def __init__(self, location: str, directory: str) -> None:
        self.location = location
        if "://" not in location:
            self.location = str(Path(directory, location))
            self._files: Any = fs.LocalFileSystem()
            self._path = self.location
            return
        try:
            self._files, path = fs.FileSystem.from_uri(location)
        except (ArrowException, ValueError, ImportError) as error:
            raise OptionError(
                f"TrainerOptions.checkpoint_dir={location!r} is no URL that Arrow takes: {error}.\n"
                "  Give a path, or a URL such as s3://bucket/folder; for a file system of fsspec, fsspec+NAME://..."
            ) from error
        self._path = path.rstrip("/")

    def newest(self) -> Found | None:
        """The newest whole checkpoint; None where there is none.

        Raises:
            CheckpointError: It is none of ours.
        """
        names = self._names(NAME)
        if not names:
            return None
        with self._opened(names[-1]) as file:
            return Found(names[-1], self._label(file, names[-1]))

    def read(self, name: str) -> Iterator[bytes]:
        """The records of a checkpoint that `check` has looked through."""
        with self._opened(name) as file:
            self._label(file, name)
            while length := int.from_bytes(file.read(LENGTH_BYTES), "little"):
                yield file.read(length)

    def write(self, label: Label, records: Iterable[bytes], *, replaces: str | None = None) -> str:
        """Save a checkpoint in the place of those before.

        Args:
            label: What it holds.
            records: What to save; made one after the other, while they are written.
            replaces: Another run whose checkpoint may be replaced: that with which the training began.

        Returns:
            Its name.

        Raises:
            CheckpointError: The newest one there is another training's, which runs as well.
        """
        self._files.create_dir(self._path, recursive=True)
        runs = {label.run, replaces}
        found = self.newest()
        if found is not None and found.label.run not in runs:
            raise CheckpointError(
                f"{self.location} got the checkpoint of another training, at {found.label} ({found.name}), while this "
                f"one ran up to {label}: they would replace each other's.\n"
                "  Give each training a checkpoint_dir of its own."
            )
        before = self._names(NAME)
        number = int(before[-1].partition("-")[2].partition(".")[0]) + 1 if before else 0
        name, unfinished = f"checkpoint-{number:08}.rayfeed", f"checkpoint-{number:08}-{label.run}.part"
        with contextlib.closing(self._files.open_output_stream(self.at(unfinished))) as file:
            digest = hashlib.sha256()

            def put(data: bytes) -> None:
                digest.update(data)
                file.write(data)

            put(MAGIC)
            put(json.dumps(dataclasses.asdict(label)).encode() + b"\n")
            for record in records:
                put(len(record).to_bytes(LENGTH_BYTES, "little"))
                put(record)
            put(bytes(LENGTH_BYTES))
            file.write(digest.digest())
        self._files.move(self.at(unfinished), self.at(name))
        left = [one for one in self._names(UNFINISHED) if one.removesuffix(".part").rpartition("-")[2] in runs]
        for other in [*before, *left]:
            self._files.delete_file(self.at(other))
        return name

    def at(self, name: str) -> str:
        """Where a file of this name is."""
        return f"{self._path}/{name}"

    def _names(self, kind: re.Pattern[str]) -> list[str]:
        """The files of this kind, by their numbers."""
        found = self._files.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
        names = [kind.fullmatch(info.base_name) for info in found]
        return [match[0] for match in sorted((match for match in names if match), key=lambda match: int(match[1]))]

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[Any]:
        with contextlib.closing(self._files.open_input_file(self.at(name))) as file:
            yield file

    def _label(self, file: Any, name: str) -> Label:
        """The label of a file that was just opened, which stands behind it afterwards."""
        if file.read(len(MAGIC)) != MAGIC:
            raise CheckpointError(
                f"{self.at(name)} is no checkpoint that this rayfeed reads: it does not begin with {MAGIC!r}.\n"
                "  Remove it, or give another checkpoint_dir."
            )
        line, _, _ = file.read(LABEL_BYTES).partition(b"\n")
        try:
            label = Label(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise self._cut(name) from error
        file.seek(len(MAGIC) + len(line) + 1)
        return label

    def check(self, name: str) -> None:
        """Look a checkpoint through, before anything of it is used.

        Raises:
            CheckpointError: It was cut or changed, or is none of ours.
        """
        with self._opened(name) as file:
            left = file.size() - DIGEST_BYTES
            digest = hashlib.sha256()
            while left > 0 and (data := file.read(min(left, CHUNK_BYTES))):
                digest.update(data)
                left -= len(data)
            if left or file.read(DIGEST_BYTES) != digest.digest():
                file.seek(0)
                self._label(file, name)  # one that is none of ours is told as that
                raise self._cut(name)

    def _cut(self, name: str) -> CheckpointError:
        return CheckpointError(
            f"{self.at(name)} was cut or changed after it was written: it does not have the digest that it ends with.\n"
            "  Remove it: the training begins with an older checkpoint of the directory then, or at its beginning."
        )
