"""Links with a latency: what goes in at one interface of a pair comes out of the other some time later, both ways.

    python delay.py MILLISECONDS NEAR:FAR [NEAR:FAR ...]

For kernels that are built without `tc netem`. Runs in the network namespace that holds the interfaces, as root, until
it is ended; `hosts.sh delay` starts it. Frames are taken as the kernel has them, with the header in which it notes that
a TCP frame of up to 64 KB is still to be cut for the wire: a gigabit is then some two thousand frames a second.
"""

import collections
import contextlib
import select
import socket
import sys
import time

SOL_PACKET = 263  # linux/socket.h
PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 15, 23  # linux/if_packet.h
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33  # asm-generic/socket.h: root is not held to the limits
ETH_P_ALL = 3
BUFFER_BYTES = 64 * 2**20
FRAME_BYTES = 2**17
FRAMES_AT_ONCE = 64
"""Frames taken from one interface before the others are looked at, and before what is due is sent."""


def opened(interface: str) -> socket.socket:
    """What sends and receives an interface's frames."""
    found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    found.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    found.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    found.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, BUFFER_BYTES)
    found.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    found.bind((interface, ETH_P_ALL))
    found.settimeout(0)
    return found


def received(interface: socket.socket) -> list[bytes]:
    """The frames that wait."""
    frames: list[bytes] = []
    with contextlib.suppress(OSError):  # there are no more; or, told once, the interface went down
        while len(frames) < FRAMES_AT_ONCE:
            frames.append(interface.recv(FRAME_BYTES))
    return frames


def relay(pairs: list[tuple[socket.socket, socket.socket]], delay_s: float) -> None:
    """Pass frames on, each after the delay; does not return."""
    ways = {one: other for near, far in pairs for one, other in ((near, far), (far, near))}
    on_their_way: collections.deque[tuple[float, socket.socket, bytes]] = collections.deque()  # all wait equally long
    while True:
        while on_their_way and on_their_way[0][0] <= time.monotonic():
            _, way_out, frame = on_their_way.popleft()
            try:
                way_out.send(frame)
            except OSError:  # its queue is full, or it is down: lost, as on a wire
                continue
        wait_s = max(0.0, on_their_way[0][0] - time.monotonic()) if on_their_way else None
        for ready in select.select([*ways], [], [], wait_s)[0]:
            due = time.monotonic() + delay_s
            on_their_way.extend((due, ways[ready], frame) for frame in received(ready))


def main(milliseconds: str, *pairs: str) -> None:
    """Open all interfaces, say so, and begin."""
    ends = [tuple(opened(interface) for interface in pair.split(":")) for pair in pairs]
    print("ready", flush=True)
    relay([(near, far) for near, far in ends], float(milliseconds) / 1000)


if __name__ == "__main__":
    main(*sys.argv[1:])
