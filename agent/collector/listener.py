"""Sockets and threads of the collector: accepts on loopback, one thread per connection, and gives all of it back.

After ``close`` no thread and no socket remains, whatever the clients are doing: waiting threads are woken by shutting
their sockets down. A refused port stays bound without listening, so that nobody else can take it meanwhile. What is
spoken on a connection belongs to ``handler``.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Callable, List, Optional

from .faults import Fault

_BACKLOG = 128
# How long, and how far, an answered client may go on sending what nobody reads.
_LINGER_S = 1.0
_LINGER_BYTES = 64_000_000
# What was recorded was as a rule answered too: a closing collector lets answers out that much longer.
_GRACE_S = 1.0


class Connection:
    """One accepted socket, its thread, and the fault that makes its client wait, if any."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.thread: threading.Thread
        self.held_by: Optional[Fault] = None
        self.idle = True  # no request is being answered
        self._reset = False
        self._gone = threading.Event()
        # A descriptor that is closed may be given away at once: never shut it down from another thread then.
        self._lock = threading.Lock()

    def hold(self, fault: Fault) -> None:
        """Read and never answer, until the client goes, the fault is over or the collector closes."""
        self.held_by = fault
        while not fault.over.is_set() and self.socket.recv(65536):
            pass

    def pause(self, seconds: float) -> bool:
        """Wait; True as soon as this connection is cut."""
        return self._gone.wait(seconds)

    def reset(self) -> None:
        """Make the end of this connection a TCP reset instead of an orderly one."""
        layout = "hh" if os.name == "nt" else "ii"
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(layout, 1, 0))
        self._reset = True

    def linger(self) -> None:
        """Let the client read an early answer: closing on unread bytes would reset it."""
        self.socket.shutdown(socket.SHUT_WR)
        self.socket.settimeout(_LINGER_S)
        left_bytes = _LINGER_BYTES
        while left_bytes > 0:
            chunk = self.socket.recv(65536)
            if not chunk:
                return
            left_bytes -= len(chunk)

    def cut(self, how: int = socket.SHUT_RDWR) -> None:
        """Wake whoever waits here, from any thread; SHUT_RD lets an answer that is being written end."""
        self._gone.set()
        with self._lock:
            with suppress(OSError):  # closed already, or the client was first
                self.socket.shutdown(how)
            # A shutdown wakes nobody on Windows. The object knows that its descriptor is gone.
            if os.name == "nt" and (self.idle or how == socket.SHUT_RDWR):
                with suppress(OSError):
                    socket.close(self.socket.detach())

    def finish(self) -> None:
        """Close, from the connection's own thread."""
        if not self._reset:
            self.cut()  # a forked child's copy would keep the connection open
        with self._lock:
            self.socket.close()


class Listener:
    """A loopback port: reserved, listening or closed. Its methods belong to one thread at a time."""

    def __init__(self, host: str, port: int, serve: Callable[[Connection], None]) -> None:
        self.host, self.port = host, port
        self._serve = serve
        self._lock = threading.Lock()
        self._connections: List[Connection] = []
        self._socket: Optional[socket.socket] = None
        self._acceptor: Optional[threading.Thread] = None
        self._wake: Optional[socket.socket] = None

    @property
    def accepting(self) -> bool:
        """Whether connects succeed."""
        return self._acceptor is not None

    def reserve(self) -> None:
        """Bind without listening: the port is ours and refuses connects. ``OSError`` where it is taken."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if os.name != "nt":  # there it would let two programs share a port
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((self.host, self.port))
        except OSError:
            self._socket.close()
            self._socket = None
            raise
        self.port = self._socket.getsockname()[1]

    def listen(self) -> None:
        """Accept from now on; the port must be reserved."""
        assert self._socket is not None
        if self.accepting:
            return
        self._socket.listen(_BACKLOG)
        self._wake, woken = socket.socketpair()
        self._acceptor = threading.Thread(
            target=self._accept, args=(self._socket, woken), name="collector-accept", daemon=True
        )
        self._acceptor.start()

    def refuse(self) -> None:
        """Cut every connection and refuse new ones, keeping the port."""
        if self.accepting:
            self.close()
            self.reserve()

    def close(self) -> None:
        """Give back the port, every connection and every thread."""
        if self._acceptor is not None and self._wake is not None:
            self._wake.send(b"!")  # closing alone says nothing while a forked child has a copy
            self._acceptor.join()
            self._wake.close()
            self._acceptor = self._wake = None
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)  # for a forked child's copy
            except OSError:
                pass
            self._socket.close()
            self._socket = None
        with self._lock:
            ended, self._connections = self._connections, []
        for connection in ended:
            connection.cut(socket.SHUT_RD)
        deadline = time.monotonic() + _GRACE_S
        for connection in ended:
            connection.thread.join(max(0.0, deadline - time.monotonic()))
            connection.cut()
            connection.thread.join()

    def release_held(self) -> None:
        """Cut the connections whose fault is over."""
        with self._lock:
            held = [c for c in self._connections if c.held_by and c.held_by.over.is_set()]
        for connection in held:
            connection.cut()

    def _accept(self, listening: socket.socket, woken: socket.socket) -> None:
        listening.setblocking(False)
        with selectors.DefaultSelector() as selector, woken:
            selector.register(listening, selectors.EVENT_READ)
            selector.register(woken, selectors.EVENT_READ)
            while all(key.fileobj is not woken for key, _ in selector.select()):
                try:
                    accepted, _ = listening.accept()
                except OSError:
                    continue  # the client left between select and accept
                accepted.setblocking(True)
                self._start(Connection(accepted))

    def _start(self, connection: Connection) -> None:
        connection.thread = threading.Thread(
            target=self._run, args=(connection,), name="collector-connection", daemon=True
        )
        with self._lock:
            # A thread cannot outlive its place in this list: closing joins every one of them.
            self._connections = [c for c in self._connections if c.thread.is_alive()]
            self._connections.append(connection)
        connection.thread.start()

    def _run(self, connection: Connection) -> None:
        try:
            self._serve(connection)
        except OSError:
            pass  # the client went, or the collector closes
        finally:
            connection.finish()
