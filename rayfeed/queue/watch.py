"""What the conductor looks at by the clock: places that are waited for, the number of producers, what takes long."""

from __future__ import annotations

import time
from collections.abc import Collection

from rayfeed.producer.crew import Crew, Down, Stands
from rayfeed.queue.lane_window import LaneWindow
from rayfeed.queue.scaling import Scaling
from rayfeed.queue.stream import Notice, StreamState
from rayfeed.queue.watchdog import HANGS, Slow, Watchdog
from rayfeed.queue.window import Window


class Watch:
    """Looks at a crew and its streams. Used by the conductor's thread.

    Args:
        crew: Who makes the batches.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._scaling = Scaling(crew)
        self._watchdogs: dict[int, Watchdog] = {}
        self._told_cramped: set[int] = set()  # streams

    def stands(self, event: Stands) -> None:
        """A producer has told what it makes."""
        now = time.monotonic()
        for at in event.places:
            if at.stream in self._watchdogs:
                self._watchdogs[at.stream].stands(event.worker, at, now)

    def look(self, streams: Collection[StreamState], seconds: float) -> list[Down]:
        """Look at the streams that are open.

        Args:
            streams: The conductor's.
            seconds: Time since the look before.

        Returns:
            Producers that hang.

        Raises:
            PlacementError: A producer found no place in time, and the streams need it.
        """
        waits = self._crew.look(_awaited(streams))
        if waits is not None:
            for state in streams:
                state.out.put(Notice(waits))
        self._scaling.look(streams, seconds)
        self._move([state.window for state in streams if state.started])
        self._watchdogs = {
            state.number: self._watchdogs.get(state.number) or Watchdog(self._crew.batch_timeout_s) for state in streams
        }
        now = time.monotonic()
        hanging: dict[int, float] = {}
        for state in streams:
            if state.started and not state.window.over:
                found = self._watchdogs[state.number].look(state.window, now)
                hanging |= found.hanging
                for worker in found.asked:
                    self._crew.ask(worker)
                for text in [
                    *[self._told(state, slow) for slow in found.slow],
                    state.canonical.look(now, self._crew.batch_timeout_s) if state.canonical is not None else None,
                    self._cramped(state),
                ]:
                    if text is not None:
                        state.out.put(Notice(text))
        downs = [self._crew.hangs(worker, waited_s) for worker, waited_s in hanging.items()]
        return [down for down in downs if down is not None]

    def _move(self, windows: list[Window]) -> None:
        """Have producers whose node will go finish what they hold, and others started in their place.

        A generator's copy stays where it is, for as long as that is: elsewhere it would begin anew.
        """
        draining = [
            worker
            for worker in self._crew.draining()
            if not any(isinstance(window, LaneWindow) and worker < len(window.lanes) for window in windows)
        ]
        leaving = [worker for worker in draining if any(worker in window.leaving for window in windows)]
        others = len(self._crew.working()) - len(draining)
        number = may_leave(len(draining), len(leaving), others, self._crew.num_starting())
        for worker in [*leaving, *[worker for worker in draining if worker not in leaving][:number]]:
            for window in windows:
                window.leave(worker)
            if not any(window.held.get(worker) for window in windows):
                for window in windows:
                    window.worker_lost(worker)
                self._crew.retire(worker)
                self._crew.grow(1)

    def _cramped(self, state: StreamState) -> str | None:
        """What is said, once, where not all producers can be busy because their batches are so large."""
        window = state.window
        if window.limit >= window.slots or not window.sizer.bytes_per_batch or state.number in self._told_cramped:
            return None
        self._told_cramped.add(state.number)
        size, room = window.sizer.bytes_per_batch, window.bound.room_bytes or 0
        return (
            f"a batch of {state.record.name} ({state.record.info.type_name}) has {size:,.0f} bytes, and of those that "
            f"wait or are being made the object store of the consumer's node has room for {room:,} bytes: at most "
            f"{window.limit} of {window.slots} workers are busy.\n"
            "  To use more, make smaller batches, or start Ray there with a larger object_store_memory."
        )

    def _told(self, state: StreamState, slow: Slow) -> str:
        timeout_s = self._crew.batch_timeout_s
        text = (
            f"waiting {slow.waited_s:.0f} s for {slow.ticket} of {state.record.name} "
            f"({state.record.info.type_name}) from {self._crew.describe(slow.worker)}.\n"
        )
        if self._crew.can_replace:
            text += f"  After {HANGS * timeout_s:.0f} s it is taken for lost and replaced. "
        else:
            text += "  It is waited for without end. "
        return text + f"Where batches take so long, raise ProducerOptions.batch_timeout_s (now {timeout_s:g})."


def _awaited(streams: Collection[StreamState]) -> set[int]:
    """Producers without which a stream cannot go on."""
    awaited: set[int] = set()
    for state in streams:
        if state.started and isinstance(state.window, LaneWindow):
            awaited |= state.window.awaited()
    return awaited


def may_leave(draining: int, leaving: int, others: int, starting: int) -> int:
    """How many more producers may leave nodes that will go.

    All of them, where as many work elsewhere. Else half of those that stay, when those that were asked for before have
    come; never the last that works: nobody would make batches while a place for others is waited for.

    Args:
        draining: Producers on such nodes.
        leaving: Of these, those that leave already.
        others: Producers that work on other nodes.
        starting: Producers that were asked for and have not come.
    """
    staying = draining - leaving
    if others >= draining:
        return staying
    if starting or leaving:
        return 0
    return min((staying + 1) // 2, staying + others - 1)
