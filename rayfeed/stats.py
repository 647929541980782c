"""The figures of one stream of batches, and how to read them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FeedStats:
    """What one stream did so far.

    How to read it: `wait_s` is the time the consumer stood still for want of a batch; as a share of `run_s` it is what
    more producers could win at most. ``produce_s / num_workers`` near `run_s` means that every worker was busy with the
    source all the time: the source is the bottleneck.

    Attributes:
        batches: Batches delivered to the consumer.
        bytes: Bytes of their arrays.
        frames: Frames they came in (0 when the source runs in line).
        frame_bytes: Bytes of all frames that came: fewer than `bytes` where they are compressed.
        wait_s: Seconds the consumer waited for a batch, the first one included.
        first_wait_s: Seconds of `wait_s` before the first batch: starting producers, opening the source, making one.
        run_s: Seconds from opening the stream to now, or to its end.
        produce_s: Seconds spent in the source's own code, summed over workers.
        encode_s: Seconds spent laying batches into frames, summed over workers.
        num_producers: Producer processes the stream asked for (0 when the source runs in line, or in a thread of the
            caller's process).
        num_workers: Workers the stream asked for: processes times threads; 1 for the thread of the caller's process.
        lost_producers: Producers that died while the stream ran.
        remade_tickets: Tickets that were issued again because their producer died.
    """

    batches: int = 0
    bytes: int = 0
    frames: int = 0
    frame_bytes: int = 0
    wait_s: float = 0.0
    first_wait_s: float = 0.0
    run_s: float = 0.0
    produce_s: float = 0.0
    encode_s: float = 0.0
    num_producers: int = 0
    num_workers: int = 0
    lost_producers: int = 0
    remade_tickets: int = 0

    @property
    def wait_share(self) -> float:
        """Share of the time after the first batch that the consumer waited, from 0 to 1."""
        running_s = self.run_s - self.first_wait_s
        return (self.wait_s - self.first_wait_s) / running_s if running_s > 0 else 0.0

    def __str__(self) -> str:
        place = f"{self.num_producers} producers" if self.num_producers != 1 else "1 producer"
        if self.num_producers == 0:
            place = "the source in line" if self.num_workers == 0 else "a thread of the caller's process"
        waited_s = self.wait_s - self.first_wait_s
        return (
            f"{self.batches} batches ({self.bytes / 1e6:.1f} MB) from {place}: first batch after "
            f"{self.first_wait_s:.1f} s, then waited {waited_s:.1f} s for data ({self.wait_share:.0%} of "
            f"{max(self.run_s - self.first_wait_s, 0.0):.1f} s)"
        )
