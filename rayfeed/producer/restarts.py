"""How often, and how soon, a producer that was lost is replaced."""

from __future__ import annotations

WITHIN_S = 60.0
"""The time within which restarts are counted: a run of days may lose many producers, one by one."""

BACK_OFF_S = 0.5
"""How long the replacement of one that did not come up waits; each further one waits twice as long."""

MOST_BACK_OFF_S = 8.0


class Restarts:
    """The restarts of one producer. Has no clock.

    Args:
        most: How many there may be within `WITHIN_S`.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._used: list[float] = []
        self._in_vain = 0  # restarts since one came up

    def next(self, now: float) -> float | None:
        """When the replacement of a producer that is lost now may start; None where it may not be replaced."""
        self._used = [at for at in self._used if at + WITHIN_S > now]  # added, as in `again`: rounded alike
        if len(self._used) >= self._most:
            return None
        self._used.append(now)
        delay_s = min(BACK_OFF_S * 2 ** (self._in_vain - 1), MOST_BACK_OFF_S) if self._in_vain else 0.0
        self._in_vain += 1
        return now + delay_s

    def again(self) -> float | None:
        """When one that may not be replaced now may be again; None where there are no restarts at all."""
        return self._used[0] + WITHIN_S if self._used else None

    def came_up(self) -> None:
        """The replacement is there: the next one need not wait."""
        self._in_vain = 0

    def renew(self) -> None:
        """Count from here."""
        self._used.clear()
        self._in_vain = 0

    def __str__(self) -> str:
        return (
            f"{len(self._used)} of {self._most} restarts within {WITHIN_S:.0f} s are used "
            "(ProducerOptions.max_restarts)"
        )
