"""The versions of one stream's source in the object store: of each, only what the one before had not is sent.

A version is a `Payload`: what pickle wrote of the source, small, sent whole each time; and the places of its large
pieces (`rayfeed.source.packed`), which lie in *parcels*, objects of their own that later versions refer to again. So an
array of 500 MB that `on_epoch_end` leaves alone is sent once, however often the index array beside it is shuffled.

Whether a piece changed is decided by its bytes and nothing else: it is compared with what was sent. Where to look is a
guess, and a wrong one costs only that the piece is sent again: the memory from which a piece of this length was sent
before (a list of arrays may have been shuffled), the same position in the version before (an array may have been
replaced by an equal one), another piece of this length (something before it came or went). What is compared is the
whole array; a difference near its beginning ends it at once.

What is new and less than `PARCEL_BYTES` in all rides along in its payload, and is sent anew with each version. A parcel
of which less than half is wanted still is given up, and so are the smaller ones where there are more than
`MAX_PARCELS`: what is wanted of them is sent anew. The store thus holds at most twice what the source has.

The producers' side is `rayfeed.producer.loading`: it takes parcels once per node, not once per producer. A producer
loads each version anew, also one in which nothing changed: a hook may undo what only the producers did to their copies,
such as fill a cache, and of that the canonical copy shows nothing. With nothing large to copy it takes milliseconds.

What pickle keeps is kept, identity among it; what it does not is not: a view arrives as an array of its own.

Measured with ``python examples/benchmarks/versions.py`` on 2026-11-22, 2 cores busy with other work, 4 producers and an
array of 200 MB; before, when the whole state was sent and loaded, in the same minutes:

    on_epoch_end     pause between passes, median     4 producers' own memory     with their shares
    shuffles         0.08 s    before 1.41 s          244 MB    before 1,049 MB     391 MB    before 1,391 MB
    and changes it   0.45 s    before 1.41 s          268 MB    before 1,049 MB     868 MB    before 1,549 MB

Four producers of a Sequence of 1 MB have 250 MB of their own.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import numpy as np

from rayfeed.producer.loading import received
from rayfeed.producer.messages import RIDES_ALONG, Parcel, Payload
from rayfeed.source.packed import Packed
from rayfeed.source.shipping import put_together

PARCEL_BYTES = 1 << 20
"""What is worth an object of its own, which costs the same control work whatever its size."""

MAX_PARCELS = 8
"""Parcels of one version; each is an open file in every producer."""

COMPARED_BYTES = 1 << 18
"""Bytes compared in one go: small enough for a core's cache, large enough for NumPy."""

Place = tuple[str, int]
"""A parcel's key, and a piece's position in it."""


class Versions:
    """Sends the versions of a source. Used by one thread at a time.

    Args:
        store: Puts an object into the store and gives what `fetch` takes.
        fetch: Gives the object.
    """

    def __init__(self, store: Callable[[Any], Any], fetch: Callable[[Any], Any]) -> None:
        self._store = store
        self._fetch = fetch
        self._payload: Payload | None = None
        self._parcels: dict[str, Parcel] = {}
        self._by_position: list[Place | None] = []
        self._by_memory: dict[tuple[int, int], Place] = {}
        self._by_length: dict[int, Place] = {}

    def send(self, packed: Packed) -> Any:
        """Send the next version.

        Args:
            packed: The source in this version. Nothing may change it meanwhile; afterwards its pieces are not used.

        Returns:
            What the producers are given: a reference to a `Payload`.
        """
        places = self._unchanged(packed)
        self._give_up(places)
        new = [position for position, place in enumerate(places) if place is None]
        own: list[np.ndarray] = []
        if sum(packed.pieces[position].nbytes for position in new) >= PARCEL_BYTES:
            parcel = self._send_parcel([packed.pieces[position] for position in new])
            for number, position in enumerate(new):
                places[position] = (parcel.key, number)
        else:
            own = [packed.pieces[position] for position in new]
        self._by_position = places
        self._by_memory = _by_memory(packed.pieces, places)
        self._by_length = {length: place for (_, length), place in self._by_memory.items()}
        self._payload = self._payload_of(packed, own)
        return self._store(self._payload)

    def load(self) -> Any:
        """The source in the last version, as its producers have it; private to the caller, and writable."""
        if self._payload is None:
            raise ValueError("nothing was sent yet")
        packed = received(self._payload, self._fetch)
        self._by_memory = _by_memory([np.frombuffer(piece, np.uint8) for piece in packed.pieces], self._by_position)
        return put_together(packed)

    def _unchanged(self, packed: Packed) -> list[Place | None]:
        """Of each piece, where its bytes lie already."""
        contents = {key: self._fetch(parcel.ref) for key, parcel in self._parcels.items()}
        found: list[Place | None] = []
        for position, piece in enumerate(packed.pieces):
            guesses = (
                self._by_memory.get(_memory(piece)),
                self._by_position[position] if position < len(self._by_position) else None,
                self._by_length.get(piece.nbytes),
            )
            found.append(
                next(
                    (guess for guess in guesses if guess is not None and _same(piece, contents[guess[0]][guess[1]])),
                    None,
                )
            )
        return found

    def _give_up(self, places: list[Place | None]) -> None:
        """Let go of parcels that are not worth keeping; what is wanted of them has no place any more."""
        wanted = dict.fromkeys(self._parcels, 0)
        for key, number in {place for place in places if place is not None}:
            wanted[key] += self._parcels[key].sizes[number]
        kept = [key for key, parcel in self._parcels.items() if 2 * wanted[key] >= sum(parcel.sizes)]
        if len(kept) >= MAX_PARCELS:
            kept = [max(kept, key=wanted.__getitem__)]
        self._parcels = {key: self._parcels[key] for key in kept}
        for position, place in enumerate(places):
            if place is not None and place[0] not in self._parcels:
                places[position] = None

    def _send_parcel(self, pieces: list[np.ndarray]) -> Parcel:
        parcel = Parcel(uuid.uuid4().hex, tuple(piece.nbytes for piece in pieces), self._store(pieces))
        self._parcels[parcel.key] = parcel
        return parcel

    def _payload_of(self, packed: Packed, own: list[np.ndarray]) -> Payload:
        numbers = {key: number for number, key in enumerate(self._parcels)}
        places: list[tuple[int, int]] = []
        num_own = 0
        for place in self._by_position:
            if place is None:
                places.append((RIDES_ALONG, num_own))
                num_own += 1
            else:
                places.append((numbers[place[0]], place[1]))
        return Payload(packed.stream, packed.cuts, tuple(places), tuple(self._parcels.values()), own)


def _memory(piece: np.ndarray) -> tuple[int, int]:
    """Where a piece lies in this process, and how long it is."""
    return piece.__array_interface__["data"][0], piece.nbytes


def _by_memory(pieces: Any, places: list[Place | None]) -> dict[tuple[int, int], Place]:
    return {_memory(piece): place for piece, place in zip(pieces, places, strict=True) if place is not None}


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two runs of bytes are the same."""
    if one.nbytes != other.nbytes:
        return False
    step = COMPARED_BYTES
    return all(np.array_equal(one[at : at + step], other[at : at + step]) for at in range(0, one.nbytes, step))
