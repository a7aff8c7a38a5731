"""A wire between two network namespaces, in pure Python: it delays, loses, reorders, drops what is large, and is cut.

Two TUN devices, one in each namespace, and a thread that carries packets from one to the other.
"""

import contextlib
import heapq
import itertools
import os
import random
import selectors
import struct
import threading
import time
from collections.abc import Callable

from .spaces import Space

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
NEAR, FAR = "10.77.0.1", "10.77.0.2"
NEAR6, FAR6 = "fd77::1", "fd77::2"


class Packet:
    """One packet of IP; ``outbound``: from the near side."""

    def __init__(self, data: bytes, outbound: bool) -> None:
        self.data, self.outbound = data, outbound
        self.version = data[0] >> 4
        tcp = data[(data[0] & 15) * 4 :] if self.version == 4 and data[9] == 6 else b""
        # What of TCP is content, and not an acknowledgement or the end.
        self.content = len(tcp) - (tcp[12] >> 4) * 4 if tcp else 0


def nothing(packet: Packet) -> bool:
    """Of these is lost."""
    return False


class Link:
    """Both ends are up when this is made; the weather may be changed at any time."""

    def __init__(self, near: Space, far: Space) -> None:
        self.delay_s = self.jitter_s = self.loss = 0.0
        # Sees each first, and may change it.
        self.watch: Callable[[Packet], object] = lambda packet: None
        self.drops: Callable[[Packet], object] = nothing
        self._chance = random.Random(1)
        self._numbers = itertools.count()
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._ends = [near.within(_tun), far.within(_tun)]
        self._stop, self._stopping = os.pipe()
        for space, v4, v6 in ((near, NEAR, NEAR6), (far, FAR, FAR6)):
            space.ip("addr add %s/24 dev tun0" % v4, "link set tun0 up")
            space.ip("addr add %s/64 dev tun0 nodad" % v6)
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The end of the wire."""
        os.write(self._stopping, b"x")
        self._thread.join()
        for fd in (*self._ends, self._stop, self._stopping):
            os.close(fd)

    def _carry(self) -> None:
        with selectors.DefaultSelector() as selector:
            for fd in (*self._ends, self._stop):
                selector.register(fd, selectors.EVENT_READ)
            while True:
                wait_s = self._waiting[0][0] - time.monotonic() if self._waiting else None
                for key, _ in selector.select(wait_s if wait_s is None else max(wait_s, 0)):
                    if key.fd == self._stop:
                        return
                    self._take(key.fd)
                while self._waiting and self._waiting[0][0] <= time.monotonic():
                    _, _, end, data = heapq.heappop(self._waiting)
                    with contextlib.suppress(OSError):  # the other end is gone
                        os.write(end, data)

    def _take(self, end: int) -> None:
        try:
            data = os.read(end, 65536)
        except OSError:
            return
        packet = Packet(data, end == self._ends[0])
        self.watch(packet)
        if self.drops(packet) or self._chance.random() < self.loss:
            return
        due = time.monotonic() + self.delay_s + self._chance.uniform(0, self.jitter_s)
        other = self._ends[1 if packet.outbound else 0]
        heapq.heappush(self._waiting, (due, next(self._numbers), other, data))


def _tun() -> int:
    import fcntl  # Windows has none

    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"tun0", _IFF_TUN | _IFF_NO_PI))
    return fd
