"""Is nothing lost, and nothing twice, while producers are killed?

    python -m rayfeed.testing.chaos [--epochs 20] [--workers 4] [--kill-every 1.0] [--seed 0]

A Sequence that shuffles its order in `on_epoch_end` and draws random numbers for every batch is read twice with one
seed: in line, without producers, and from producers of which one is killed (SIGKILL) every so often, in a random order
that the seed decides. Each batch that is delivered is hashed into a ledger with its pass; the two ledgers must be the
same line by line: each (pass, index) exactly once, in order, of the same bytes. Producers are killed where they run, on
this machine or on another node of the cluster that this process joins.

Exits with 0 when the ledgers are the same, with 1 and their first difference when they are not.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rayfeed.batch import Batch
from rayfeed.options import ProducerOptions
from rayfeed.queue.feed import Feed
from rayfeed.source.sequence import Sequence
from rayfeed.source.worker_info import rng
from rayfeed.testing.killing import Killer

LENGTH = 100
"""Batches of an epoch."""

MAKE_S = 0.02
"""What a batch takes to make."""

SAMPLES = 16
FEATURES = 256

NO_LIMIT = 1_000_000
"""Of restarts: here the deaths are no sign that something is wrong."""


class Ledger(Sequence):
    """Batches that depend on all that rayfeed promises to keep: the pass, the order, the seeds."""

    def __init__(self, length: int, make_s: float) -> None:
        self.order = np.arange(length)
        self.num_passes = 0
        self.make_s = make_s

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(self.make_s)  # as one that waits for a disk: it leaves the processors to others
        inputs = rng().random((SAMPLES, FEATURES), "float32")
        inputs += np.random.random(FEATURES) + random.random()  # noqa: NPY002, S311 - the global streams are seeded too
        return inputs, np.array([[self.num_passes, self.order[index], index]] * SAMPLES)

    def on_epoch_end(self) -> None:
        np.random.shuffle(self.order)  # noqa: NPY002 - as users do
        self.num_passes += 1


@dataclass(frozen=True)
class Entry:
    """One line of a ledger.

    Attributes:
        pass_index: The pass that the batch says it is of.
        index: The index for which it says it was made.
        digest: Of its bytes.
    """

    pass_index: int
    index: int
    digest: str

    @classmethod
    def of(cls, batch: Batch) -> Entry:
        """The entry of a delivered batch."""
        inputs, targets = batch
        digest = hashlib.blake2b(inputs.tobytes() + targets.tobytes(), digest_size=16)
        return cls(int(targets[0, 0]), int(targets[0, 2]), digest.hexdigest())


@dataclass(frozen=True)
class Report:
    """What a run found.

    Attributes:
        expected: The ledger of the run in line.
        found: That of the run with producers.
        num_kills: Producers that were killed.
        num_lost: Producers whose loss the feed noticed.
        num_remade: Tickets that were made again.
        run_s: Seconds from the first batch to the last.
        longest_gap_s: The longest wait for a batch after the first.
    """

    expected: list[Entry]
    found: list[Entry]
    num_kills: int
    num_lost: int
    num_remade: int
    run_s: float
    longest_gap_s: float

    def difference(self) -> str | None:
        """The first line in which the ledgers differ, in words; None where they do not."""
        for line, (wanted, entry) in enumerate(zip(self.expected, self.found, strict=False)):
            if wanted != entry:
                return f"line {line}: wanted {wanted}, found {entry}"
        if len(self.expected) != len(self.found):
            return f"wanted {len(self.expected)} batches, found {len(self.found)}"
        return None

    def __str__(self) -> str:
        return (
            f"{len(self.found):,} batches in {self.run_s:.1f} s, {self.num_kills} producers killed, "
            f"{self.num_remade} tickets made again, longest gap {self.longest_gap_s:.2f} s: "
            + (self.difference() or "each (pass, index) exactly once, in order, of the same bytes")
        )


def run(
    *, epochs: int, workers: int, kill_every_s: float, seed: int, length: int = LENGTH, make_s: float = MAKE_S
) -> Report:
    """Read the Sequence with and without producers and kills.

    Args:
        epochs: Passes to read.
        workers: Producers.
        kill_every_s: Seconds between two kills; 0 for none.
        seed: Of the batches, and of who is killed.
        length: Batches of a pass.
        make_s: Seconds that a batch takes to make.
    """
    with Feed(Ledger(length, 0.0), workers=0, shuffle=True, seed=seed) as feed:
        expected = [Entry.of(batch) for _ in range(epochs) for batch in feed]
    found: list[Entry] = []
    gaps: list[float] = []
    options = ProducerOptions(max_restarts=NO_LIMIT)
    with Feed(
        Ledger(length, make_s), workers, use_multiprocessing=True, shuffle=True, seed=seed, producers=options
    ) as feed:
        killer = Killer(feed, kill_every_s, seed)
        for batch, gap_s in _timed(batch for _ in range(epochs) for batch in feed):
            if not found:
                killer.start()
            found.append(Entry.of(batch))
            gaps.append(gap_s)
        killer.stop()
        stats = feed.stats()
    return Report(
        expected=expected,
        found=found,
        num_kills=killer.num_kills,
        num_lost=stats.lost_producers,
        num_remade=stats.remade_tickets,
        run_s=sum(gaps[1:]),
        longest_gap_s=max(gaps[1:], default=0.0),
    )


def _timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds that it was waited for."""
    asked = time.perf_counter()
    for batch in batches:
        yield batch, time.perf_counter() - asked
        asked = time.perf_counter()


def main(arguments: list[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m rayfeed.testing.chaos", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kill-every", type=float, default=1.0, metavar="SECONDS", help="0 kills nobody")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    report = run(epochs=asked.epochs, workers=asked.workers, kill_every_s=asked.kill_every, seed=asked.seed)
    sys.stdout.write(f"{report}\n")
    return 1 if report.difference() else 0


if __name__ == "__main__":
    sys.exit(main())
