"""A training's checkpoints: files of one directory, of which the newest whole one counts.

    checkpoint-00000012-RUN-1.rayfeed       the newest has the highest number
    checkpoint-00000013-RUN-2.rayfeed.part  one that is being written, or was when its process died: nobody reads it

RUN is the call that saves, the last number which of its trainers does: whoever writes a file has a name of its own,
also where two trainers of one call live, of which the first is cut off from its caller. A file is whole or not there
(`WholeFiles`); when it is there, those before are removed. Between the two there are two, of which the newer counts.

    magic line | `Label` as a line of JSON | records, each after its length | length 0 | SHA-256 of all before it

The label says what the file holds without loading it. All of a file is compared with its digest before any record is
used, since records are pickles and change a model as they come. A digest tells a cut file, not a forged one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rayfeed.errors import CheckpointError
from rayfeed.trainer.whole_files import PART, WholeFiles

MAGIC = b"rayfeed checkpoint 1\n"
"""The first line, with the version of all that follows."""

NAME = re.compile(r"checkpoint-(\d+)-(\w+)-(\d+)\.rayfeed((?:\.part)*)")
"""A file's number, run, attempt, and whether it is unfinished; an unfinished probe has two ends."""

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
        attempt: Which of the call's trainers saved it, from 1.
    """

    run: str
    epoch: int
    step: int
    is_stopped: bool
    saved_at: float
    attempt: int = 1

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


@dataclass(frozen=True, order=True)
class _File:
    """A file as its name tells it; the order is that in which checkpoints count."""

    number: int
    run: str
    attempt: int
    name: str
    is_part: bool


class CheckpointFiles:
    """The checkpoints in one directory.

    Args:
        location: A path or URL.
        directory: The caller's working directory, which a relative path is of.

    Raises:
        OptionError: Arrow knows no file system for the URL.
    """

    def __init__(self, location: str, directory: str) -> None:
        self._files = WholeFiles(location, directory)
        self.location = self._files.location

    def newest(self) -> Found | None:
        """The newest whole checkpoint; None where there is none. Called before a training.

        A single one is not looked through: there is no other to take.

        Raises:
            CheckpointError: It is none of ours.
            OptionError: The directory cannot be read.
        """
        with self._files.naming("read"):
            names = [one.name for one in self._listed() if not one.is_part]
        while len(names) > 1 and not self._is_whole(names[-1]):
            names.pop()
        if not names:
            return None
        with self._files.opened(names[-1]) as file:
            return Found(names[-1], self._label(file, names[-1]))

    def check_writable(self, run: str, attempt: int) -> None:
        """Raise `OptionError` unless a training can save here. Called before it begins.

        Args:
            run: The call.
            attempt: Which of its trainers asks.
        """
        self._files.check_writable(_name(0, run, attempt) + PART)

    def read(self, name: str) -> Iterator[bytes]:
        """The records of a checkpoint that `check` has looked through."""
        with self._files.opened(name) as file:
            self._label(file, name)
            while length := int.from_bytes(file.read(LENGTH_BYTES), "little"):
                yield file.read(length)

    def write(self, label: Label, records: Iterable[bytes], *, replaces: str | None = None) -> str:
        """Save a checkpoint in the place of those before, and of what was never finished.

        Args:
            label: What it holds.
            records: What to save; made one after the other, while they are written.
            replaces: Another run whose checkpoint may be replaced: that with which the training began.

        Returns:
            Its name.

        Raises:
            CheckpointError: The newest one there is another training's, which runs as well; or another trainer carries
                on this one.
        """
        runs = {label.run, replaces}
        there = self._listed()
        before = [one for one in there if not one.is_part]
        self._check_alone(label, runs, there)
        number = before[-1].number + 1 if before else 0
        name = _name(number, label.run, label.attempt)
        try:
            self._write(name, label, records)
        except FileNotFoundError:  # whoever goes on in this one's place has removed what it was writing
            self._check_alone(label, runs, self._listed())
            raise
        for one in there:
            if not one.is_part or one.run in runs or one.number < number:
                self._files.remove(one.name)
        return name

    def _write(self, name: str, label: Label, records: Iterable[bytes]) -> None:
        with self._files.writing(name) as write:
            digest = hashlib.sha256()

            def put(data: bytes) -> None:
                digest.update(data)
                write(data)

            put(MAGIC)
            put(json.dumps(dataclasses.asdict(label)).encode() + b"\n")
            for record in records:
                put(len(record).to_bytes(LENGTH_BYTES, "little"))
                put(record)
            put(bytes(LENGTH_BYTES))
            write(digest.digest())

    def _check_alone(self, label: Label, runs: set[str | None], there: list[_File]) -> None:
        """Raise `CheckpointError` where what is there says that somebody else saves here now."""
        newer = next((one for one in reversed(there) if one.run == label.run and one.attempt > label.attempt), None)
        if newer is not None:
            raise CheckpointError(
                f"{self.location} has a file of attempt {newer.attempt} at this training ({newer.name}), while attempt "
                f"{label.attempt} ran up to {label}: the caller lost sight of this trainer and started another, which "
                "goes on in its place.\n"
                "  This one ends, and saves nothing more; nothing is to be done."
            )
        found = next((one for one in reversed(there) if not one.is_part), None)
        if found is not None and found.run not in runs:
            with self._files.opened(found.name) as file:
                theirs = self._label(file, found.name)
            raise CheckpointError(
                f"{self.location} got the checkpoint of another training, at {theirs} ({found.name}), while this "
                f"one ran up to {label}: they would replace each other's.\n"
                "  Give each training a checkpoint_dir of its own."
            )

    def at(self, name: str) -> str:
        """Where a file of this name is."""
        return self._files.at(name)

    def _listed(self) -> list[_File]:
        """The files that are there, the newest last."""
        matches = [match for match in map(NAME.fullmatch, self._files.names()) if match]
        return sorted(_File(int(one[1]), one[2], int(one[3]), one[0], bool(one[4])) for one in matches)

    def _check_magic(self, file: Any, name: str) -> None:
        if file.read(len(MAGIC)) != MAGIC:
            raise CheckpointError(
                f"{self.at(name)} is no checkpoint that this rayfeed reads: it does not begin with {MAGIC!r}.\n"
                "  Remove it, or give another checkpoint_dir."
            )

    def _label(self, file: Any, name: str) -> Label:
        """The label of a file that was just opened, which stands behind it afterwards."""
        self._check_magic(file, name)
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
        if not self._is_whole(name):
            raise self._cut(name)

    def _is_whole(self, name: str) -> bool:
        with self._files.opened(name) as file:
            self._check_magic(file, name)
            file.seek(0)
            left = file.size() - DIGEST_BYTES
            digest = hashlib.sha256()
            while left > 0 and (data := file.read(min(left, CHUNK_BYTES))):
                digest.update(data)
                left -= len(data)
            return not left and file.read(DIGEST_BYTES) == digest.digest()

    def _cut(self, name: str) -> CheckpointError:
        return CheckpointError(
            f"{self.at(name)} was cut or changed after it was written: it does not have the digest that it ends with.\n"
            "  Remove it: the training begins with an older checkpoint of the directory then, or at its beginning."
        )


def _name(number: int, run: str, attempt: int) -> str:
    return f"checkpoint-{number:08}-{run}-{attempt}.rayfeed"
