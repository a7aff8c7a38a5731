"""A name server (RFC 1035) that says what it is told to say, or nothing."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import threading
from collections.abc import Mapping, Sequence

_A, _AAAA = 1, 28
SERVFAIL, NXDOMAIN = 2, 3


class NameServer:
    """Answers for ``hosts`` (name -> addresses) at a bound UDP socket, or each time with ``code``, or never."""

    def __init__(self, sock: socket.socket, hosts: Mapping[str, Sequence[str]]) -> None:
        self.hosts, self.code, self.silent = dict(hosts), 0, False
        self._socket = sock
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> NameServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # it is not connected, and wakes all the same
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                query, client = self._socket.recvfrom(4096)
            except OSError:
                return
            if not query:
                return
            if not self.silent:
                self._socket.sendto(self._answer(query), client)

    def _answer(self, query: bytes) -> bytes:
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode("ascii"))
            at += 1 + query[at]
        question = query[12 : at + 5]
        (kind,) = struct.unpack("!H", query[at + 1 : at + 3])
        name = ".".join(labels).lower()
        found = [ipaddress.ip_address(text) for text in self.hosts.get(name, ())]
        wanted = {_A: 4, _AAAA: 6}.get(kind)
        records = [one.packed for one in found if one.version == wanted and not self.code]
        code = self.code or (0 if name in self.hosts else NXDOMAIN)
        head = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0)
        body = b"".join(
            b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, 1, len(data)) + data for data in records
        )
        return head + question + body
