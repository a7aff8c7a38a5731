"""What the measured programs talk to: the bundled collector in a process of its own, and servers that do not answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from . import measure

COLLECTOR = measure.ours("""
from agent.collector import Collector
with Collector(answer_delay_s=float(sys.argv[1])) as collector:
    told["url"], told["pem"] = collector.url, collector.keys[0]["public_key"]
    tell()
    sys.stdout.write("\\n")
    sys.stdout.flush()
    sys.stdin.read()
""")


@dataclass(frozen=True)
class Server:
    url: str
    pem: str


@contextlib.contextmanager
def collector(delay_s: float = 0.0) -> Iterator[Server]:
    """The bundled collector; each answer is held back ``delay_s``."""
    process = measure.start(COLLECTOR, delay_s)
    assert process.stdout is not None and process.stderr is not None
    try:
        told = measure.read(process.stdout.readline())[1]
        if not told:
            raise RuntimeError(process.stderr.read().decode())
        yield Server(told["url"], told["pem"])
    finally:
        process.kill()
        process.communicate()


# --- servers for the exit ------------------------------------------------------------------------


@contextlib.contextmanager
def refusing() -> Iterator[int]:
    """A port that is bound and does not listen."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextlib.contextmanager
def dropping() -> Iterator[int]:
    """A port whose queue is full: the kernel drops what knocks, as a firewall does."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        while True:
            knocking = stack.enter_context(socket.socket())
            knocking.settimeout(0.1)
            try:
                knocking.connect(listener.getsockname())
            except OSError:
                break
        yield listener.getsockname()[1]


@contextlib.contextmanager
def _accepting(behave: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    ended = threading.Event()
    connections: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            behave(connection, ended)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                connections.append(listener.accept()[0])
                threading.Thread(target=serve, args=connections[-1:], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        ended.set()
        for sock in [listener, *connections]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def _hold(connection: socket.socket, ended: threading.Event) -> None:
    ended.wait()


def silent() -> contextlib.AbstractContextManager[int]:
    """Accepts and never answers."""
    return _accepting(_hold)


def _drip(connection: socket.socket, ended: threading.Event) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    while not ended.wait(0.05):
        connection.sendall(b"x")


def dripping() -> contextlib.AbstractContextManager[int]:
    """Answers one byte at a time, for ever."""
    return _accepting(_drip)


HOLES: dict[str, Callable[[], contextlib.AbstractContextManager[int]]] = {
    "server refuses": refusing,
    "server accepts, never answers": silent,
    "server drops every SYN": dropping,
    "server drips": dripping,
}
