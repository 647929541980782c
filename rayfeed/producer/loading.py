"""From a payload in the store to a source's pieces, private to this process and writable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rayfeed.producer.messages import RIDES_ALONG, Payload
from rayfeed.producer.node_memory import private_pieces
from rayfeed.source.packed import Packed


class NotFetchedError(Exception):
    """What a source consists of could not be had from the object store. Not an error of the source's.

    Attributes:
        is_full: Whether there was no room for it.
    """

    def __init__(self, reason: str, *, is_full: bool = False) -> None:
        super().__init__(reason)
        self.is_full = is_full


def received(payload: Payload, fetch: Callable[[Any], Any]) -> Packed:
    """What a payload stands for, ready to be put together; each call gives memory of its own.

    Args:
        payload: One version of a source.
        fetch: Gives what lies in the store; called for parcels that this node does not have yet.
    """
    pieces = {
        number: private_pieces(parcel.key, parcel.sizes, lambda ref=parcel.ref: fetch(ref))
        for number, parcel in enumerate(payload.parcels)
    }
    pieces[RIDES_ALONG] = [bytearray(piece) for piece in payload.own]
    taken: set[tuple[int, int]] = set()
    found: list[Any] = []
    for parcel, place in payload.places:
        piece = pieces[parcel][place]
        # Two arrays whose bytes are the same may have one place, but never one memory.
        found.append(bytearray(piece) if (parcel, place) in taken else piece)
        taken.add((parcel, place))
    return Packed(payload.stream, payload.cuts, found)
