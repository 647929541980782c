"""Where a stream stands: what of it was consumed, as it is kept and as it is saved (contract G3).

Producers work ahead; what they made and nobody took does not count. A saved state is a small dict of plain numbers, so
that JSON and every checkpoint format take it. It says nothing of workers: any number of them goes on from it.
"""

from __future__ import annotations

import bisect
import functools
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rayfeed.errors import OptionError, SourceError
from rayfeed.options import check_bool, check_integer

STATE_VERSION = 1


@dataclass(frozen=True)
class Position:
    """A place in a stream.

    Attributes:
        pass_index: The pass that is being read; 0 for generators.
        consumed: Batches of it that were taken from its beginning on, without a gap.
        beyond: Places behind the first gap that were taken too, where delivery is unordered.
    """

    pass_index: int = 0
    consumed: int = 0
    beyond: frozenset[int] = frozenset()

    def is_taken(self, place: int) -> bool:
        """Whether the batch at this place of the pass was taken."""
        return place < self.consumed or place in self.beyond

    def check(self, length: int) -> None:
        """Raise `SourceError` unless the pass, of this length, can have been read so far."""
        last = max(self.consumed - 1, *self.beyond) if self.beyond else self.consumed - 1
        if last >= length:
            raise SourceError(
                f"the saved state has batch {last} of pass {self.pass_index} consumed, which has {length} batches: it "
                "is of another source, or the hooks leave another length each time."
            )

    def next_place(self, place: int) -> int:
        """The first place from this one on that was not taken."""
        while self.is_taken(place):
            place = max(place + 1, self.consumed)
        return place

    def end_of_gap(self, place: int, stop: int) -> int:
        """The first place after this one that was taken, or `stop` where none before it was."""
        following = bisect.bisect_right(self.ordered, place)
        return min(stop, self.ordered[following]) if following < len(self.ordered) else stop

    def end_of(self, place: int, count: int) -> int:
        """Where `count` batches end that begin at this place and were not taken."""
        end = place + count
        for taken in self.ordered[bisect.bisect_left(self.ordered, place) :]:
            if taken >= end:
                break
            end += 1
        return end

    @functools.cached_property
    def ordered(self) -> list[int]:
        """`beyond`, from the lowest on."""
        return sorted(self.beyond)


START = Position()


class Reading:
    """The position of a consumer, kept up to date as it reads. Any thread may ask for it."""

    def __init__(self, start: Position = START) -> None:
        self._at = (start.pass_index, start.consumed)  # changed at once
        self._beyond: set[int] = set()
        for place in start.ordered:
            if place >= start.consumed:
                self.took(place)

    def took(self, place: int) -> None:
        """The batch at this place of the pass was taken."""
        pass_index, consumed = self._at
        if place != consumed:
            self._beyond.add(place)
            return
        consumed += 1
        while consumed in self._beyond:
            self._beyond.remove(consumed)
            consumed += 1
        self._at = (pass_index, consumed)

    def took_next(self) -> None:
        """One batch more was taken, of a stream that has no places."""
        self._at = (self._at[0], self._at[1] + 1)

    def ended_pass(self) -> None:
        """The end of the pass was read."""
        self._beyond = set()
        self._at = (self._at[0] + 1, 0)

    def position(self) -> Position:
        """Where it stands now."""
        return Position(*self._at, frozenset(self._beyond.copy()))


@dataclass(frozen=True)
class SavedState:
    """What `Feed.state_dict` gives, checked.

    Attributes:
        is_sequence: Whether the stream is a Sequence's; else a generator's.
        seed: Its root seed.
        seeded: Whether the caller gave that seed.
        shuffle: Whether each pass has a random order.
        length: Batches of a Sequence's first pass; None of a generator's.
        copies: Copies of a generator that take turns; 1 of a Sequence's.
        position: What was consumed.
    """

    is_sequence: bool
    seed: int
    seeded: bool
    shuffle: bool
    length: int | None
    copies: int
    position: Position

    def to_dict(self) -> dict[str, Any]:
        """The state in plain numbers."""
        return {
            "version": STATE_VERSION,
            "is_sequence": self.is_sequence,
            "seed": self.seed,
            "seeded": self.seeded,
            "shuffle": self.shuffle,
            "length": self.length,
            "copies": self.copies,
            "pass": self.position.pass_index,
            "consumed": self.position.consumed,
            "beyond": _ranges(self.position.ordered),
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> SavedState:
        """The state that `to_dict` gave.

        Raises:
            OptionError: It is none.
        """
        if not isinstance(state, Mapping):
            raise OptionError(
                f"state must be what Feed.state_dict() gave, got {state!r:.100} ({type(state).__name__})."
            )
        if state.get("version") != STATE_VERSION:
            raise OptionError(
                f"state has version {state.get('version')!r}; this rayfeed reads version {STATE_VERSION} of what "
                "Feed.state_dict() gives."
            )
        wanted = ("is_sequence", "seed", "seeded", "shuffle", "length", "copies", "pass", "consumed", "beyond")
        missing = [name for name in wanted if name not in state]
        if missing:
            raise OptionError(f"state lacks {', '.join(map(repr, missing))}: it is not what Feed.state_dict() gave.")
        for name in ("is_sequence", "seeded", "shuffle"):
            check_bool(f"state[{name!r}]", state[name])
        numbers = {}
        for name in ("seed", "copies", "pass", "consumed"):
            check_integer(f"state[{name!r}]", state[name], least=0)
            numbers[name] = operator.index(state[name])
        check_integer("state['length']", state["length"], least=0, or_none=True)
        beyond = state["beyond"]
        if not isinstance(beyond, (list, tuple)) or not all(
            isinstance(one, (list, tuple)) and len(one) == 2 for one in beyond
        ):
            raise OptionError(f"state['beyond'] must be a list of pairs, got {beyond!r:.100}.")
        for place in (place for pair in beyond for place in pair):
            check_integer("state['beyond']'s members", place, least=0)
        if not state["is_sequence"] and (numbers["pass"] or beyond):
            raise OptionError("state['pass'] must be 0 and state['beyond'] empty: a generator has one pass, in order.")
        return cls(
            is_sequence=state["is_sequence"],
            seed=numbers["seed"],
            seeded=state["seeded"],
            shuffle=state["shuffle"],
            length=None if state["length"] is None else operator.index(state["length"]),
            copies=numbers["copies"],
            position=Position(
                numbers["pass"],
                numbers["consumed"],
                frozenset(place for first, stop in beyond for place in range(first, stop)),
            ),
        )


def _ranges(places: Iterable[int]) -> list[list[int]]:
    """Ordered numbers as ranges: the first, and the one after the last."""
    found: list[list[int]] = []
    for place in places:
        if found and found[-1][1] == place:
            found[-1][1] += 1
        else:
            found.append([place, place + 1])
    return found
