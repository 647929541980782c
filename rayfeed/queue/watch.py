"""What the conductor looks at by the clock: places that are waited for, the number of producers, slow batches."""

from __future__ import annotations

import time
from collections.abc import Collection

from rayfeed.producer.crew import Crew, Down
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
                for slow in found.slow:
                    state.out.put(Notice(self._told(state, slow)))
        downs = [self._crew.hangs(worker, waited_s) for worker, waited_s in hanging.items()]
        return [down for down in downs if down is not None]

    def _move(self, windows: list[Window]) -> None:
        """Have producers whose node will go finish what they hold, and others started in their place.

        A generator's copy stays where it is, for as long as that is: elsewhere it would begin anew.
        """
        for worker in self._crew.draining():
            if any(isinstance(window, LaneWindow) and worker < len(window.lanes) for window in windows):
                continue
            for window in windows:
                window.leave(worker)
            if not any(window.held.get(worker) for window in windows):
                for window in windows:
                    window.worker_lost(worker)
                self._crew.retire(worker)
                self._crew.grow(1)

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
