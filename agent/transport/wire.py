"""A connected socket on which no call outlasts the request's deadline.

Everything that can block asks the ``Deadline`` for the time that is left and waits no longer, so no thread has to
watch and a server that drips one byte a second gains nothing. ``Wire`` is what ``http.client`` is given in place of a
socket. Only the owner closes a socket; another thread may only shut it down, for a descriptor closed under a reader is
soon somebody else's file. Connecting: ``dial``.
"""

from __future__ import annotations

import errno
import os
import time
from _thread import RLock
from _weakref import ref

from .values import MAX_ANSWER_BYTES, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import io
    import ssl
    from typing import Any, Callable, Optional

# Longer heads are no heads of ours.
_HEAD_MAX_BYTES = 16384
# Where a shutdown does not wake a reader, an interrupt is seen after this long.
_SLICE_S = 0.5
# Headers, chunk sizes and endless "100 Continue" included; http.client alone would hold 100 lines of 64 KB.
_RECEIVED_MAX_BYTES = 4 * MAX_ANSWER_BYTES


class Deadline:
    """The time that one request may take; reusable: ``begin``, then any number of ``left_s``, then ``end``.

    Another thread may end a request early: it sets a flag that ``left_s`` sees, and calls ``waker``, which ends the
    wait under way.
    """

    __slots__ = (
        "_end_at",
        "_entered_at",
        "_lock",
        "_lock_pid",
        "_pid",
        "_timeout_s",
        "interrupted",
        "received_bytes",
        "stage",
        "took_s",
        "waker",
        "wires",
    )

    def __init__(self) -> None:
        self._pid = self._lock_pid = 0
        self._entered_at = 0.0
        self.stage = ""
        self.took_s: dict[str, float] = {}
        self.waker: Optional[Callable[[], object]] = None
        # Open ones, weakly: a transport that is dropped closes them at once.
        self.wires: dict[int, Any] = {}

    def begin(self, timeout_s: float) -> None:
        """Start the clock: ``timeout_s`` seconds from now."""
        # A fork may have copied a lock that its thread will never release.
        if self._lock_pid != os.getpid():
            # An interrupt concerns one request: it may not shut the connection that the next one goes on using.
            self._lock, self._lock_pid = RLock(), os.getpid()
        with self._lock:
            self.interrupted = False
            self.received_bytes = 0
            self.stage, self.took_s = "", {}
            self._timeout_s = timeout_s
            self._end_at = time.monotonic() + timeout_s
            self._pid = os.getpid()

    def enter(self, stage: str) -> None:
        """What comes now, for the reason of a failure and for ``took_s``."""
        now = time.monotonic()
        if self.stage:
            self.took_s[self.stage] = now - self._entered_at + self.took_s.get(self.stage, 0.0)
        self.stage, self._entered_at = stage, now

    def end(self) -> None:
        """From here on an interrupt concerns nobody."""
        self.enter(self.stage)
        with self._lock:
            self._pid = 0
            self.waker = None

    def left_s(self) -> float:
        """Seconds left, above 0; raises ``Unreachable`` once there are none or somebody interrupted."""
        if self.interrupted:
            raise Unreachable("interrupted")
        left_s = self._end_at - time.monotonic()
        if left_s <= 0:
            raise self.late()
        return left_s

    def late(self) -> Unreachable:
        """What to raise when the time is over."""
        return Unreachable("no answer within %g s" % self._timeout_s)

    def interrupt(self) -> None:
        """End the request under way; from any thread, but not from a fork: the sockets are the parent's."""
        if self._pid != os.getpid():
            return
        with self._lock:
            if not self._pid:
                return  # it has ended meanwhile
            self.interrupted = True
            # Read after the flag is set; a sender sets the waker before it reads the flag. One of both is in time.
            waker = self.waker
            if waker is not None:
                waker()


class Wire:
    """As much of a socket as ``http.client``, urllib3 and TLS inside TLS use."""

    __slots__ = ("__weakref__", "_closed", "_deadline", "_held", "_lock", "_readers", "_sock")

    def __init__(self, sock: Any, deadline: Deadline) -> None:
        import threading

        self._sock = sock
        self._deadline = deadline
        # Between the owner's close and another thread's shutdown. Reentrant: Ctrl-C may leave it taken.
        self._lock = threading.RLock()
        self._closed = False
        self._readers = 0
        self._held = b""  # a request's head, which waits for its body
        deadline.wires[id(self)] = ref(self)

    def start_tls(self, context: ssl.SSLContext, hostname: str) -> Wire:
        """This connection with TLS on it; raises ``ssl.SSLError``, ``OSError`` or ``Unreachable``."""
        if hasattr(self._sock, "unwrap"):  # TLS already, to a proxy
            from urllib3.util.ssltransport import SSLTransport

            return Wire(SSLTransport(self, context, hostname), self._deadline)  # type: ignore[arg-type]
        from socket import timeout

        plain = self._sock
        # Of one that was reset already the ssl module makes a socket without TLS, or loses track.
        if not self.peer():
            raise Unreachable("the connection was lost before the handshake")
        # TLS takes the descriptor over and shows it only after the handshake: keep another to shut down.
        handle = plain.dup()
        self._replace(handle)
        try:
            # The ssl module spends this as one total over the whole handshake, not per read.
            plain.settimeout(self._left_s())
            self._replace(context.wrap_socket(plain, server_hostname=hostname))
        except timeout:
            raise self._deadline.late() from None
        finally:
            plain.close()  # nothing is left of it after a handshake
        handle.close()
        return self

    def sendall(self, data: bytes) -> None:
        """Write all of ``data``; the head of a request, by the latest before the next reading.

        ``http.client`` sends head and body apart. Two packets, and two system calls, are a sixth of a request.
        """
        if not self._held and len(data) < _HEAD_MAX_BYTES and data[-4:] == b"\r\n\r\n":
            self._held = bytes(data)
            return
        self._send(self._held + data if self._held else data)

    def _send(self, data: bytes) -> None:
        self._held = b""
        left = memoryview(data)  # not unpacked from a tuple: Nuitka 4.3 cannot compile that
        while len(left):
            left = left[self._patiently(self._sock.send, left) :]

    def recv_into(self, buffer: memoryview) -> int:
        """Read what there is, at least a byte, into ``buffer``; 0 at the end."""
        if self._held:
            self._send(self._held)
        count = self._patiently(self._sock.recv_into, buffer)
        self._deadline.received_bytes += count
        if self._deadline.received_bytes > _RECEIVED_MAX_BYTES:
            raise ConnectionAbortedError(errno.EMSGSIZE, "more than any answer needs")
        return count

    def _patiently(self, call: Callable[[memoryview], int], data: memoryview) -> int:
        from socket import timeout

        while True:
            self._sock.settimeout(min(self._left_s(), _SLICE_S))
            try:
                return call(data)
            except timeout:
                continue

    def recv(self, size: int) -> bytes:
        """As ``recv_into``, giving at most ``size`` bytes."""
        buffer = bytearray(size)
        return bytes(buffer[: self.recv_into(memoryview(buffer))])

    def makefile(self, mode: str = "rb", buffering: Optional[int] = None) -> io.BufferedReader:
        """A reader; the socket stays open until it is closed too, as with ``socket.makefile``."""
        import io
        import socket

        self._readers += 1
        return io.BufferedReader(socket.SocketIO(self, "r"))  # type: ignore[arg-type]

    def _decref_socketios(self) -> None:  # what SocketIO calls when it is closed
        self._readers -= 1
        if self._closed:
            self.close()

    def certificate(self) -> bytes:
        """The peer's, verified, in DER."""
        return bytes(self._sock.getpeercert(binary_form=True))

    def peer(self) -> str:
        """Address and port of whoever is at the other end; "" where nobody is any more."""
        try:
            host, port = self._sock.getpeername()[:2]
        except OSError:
            return ""
        return ("[%s]:%d" if ":" in host else "%s:%d") % (host, port)

    def version(self) -> tuple[str, str]:
        """Of TLS, and its cipher."""
        return self._sock.version() or "", (self._sock.cipher() or ("",))[0]

    def fileno(self) -> int:
        """The descriptor, for polling."""
        return int(self._sock.fileno())

    def settimeout(self, _timeout_s: Optional[float]) -> None:
        """Nothing: the deadline rules."""

    def close(self) -> None:
        """Close, once nobody reads any more."""
        with self._lock:
            self._closed = True
            if self._readers <= 0:
                self.drop()

    def drop(self) -> None:
        """Give back the descriptor, without a word to anyone: in a forked child the connection is the parent's."""
        self._deadline.wires.pop(id(self), None)
        self._sock.close()

    __del__ = drop  # of a host that closes nothing: no ResourceWarning

    def shut(self) -> None:
        """End whatever waits on this connection, from any thread."""
        import socket

        with self._lock:
            try:
                # Not SSLSocket.shutdown: that one forgets the TLS state, and a reader would go on in clear text.
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)
            except (OSError, TypeError):
                pass  # closed already; or TLS inside TLS, whose outer wire was told

    def _replace(self, sock: Any) -> None:
        with self._lock:
            self._sock = sock

    def _left_s(self) -> float:
        self._deadline.waker = self.shut
        return self._deadline.left_s()
