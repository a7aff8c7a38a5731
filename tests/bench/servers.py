"""What the measured programs talk to: the bundled collector in a process of its own, and servers that do not answer."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from support import sockets
from support.sockets import Behaviour

from . import measure

DRIPS = sockets.drips(b"HTTP/1.1 200 OK\r\nX-Drip: ", every_s=0.05)
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


@contextlib.contextmanager
def refusing() -> Iterator[int]:
    """A port that is bound and does not listen."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextlib.contextmanager
def serving(behaviour: Behaviour) -> Iterator[int]:
    """A server on loopback that misbehaves."""
    with sockets.Server(behaviour) as server:
        yield server.port


def silent() -> contextlib.AbstractContextManager[int]:
    """Accepts and never answers."""
    return serving(sockets.silent)


HOLES: dict[str, Callable[[], contextlib.AbstractContextManager[int]]] = {
    "server refuses": refusing,
    "server accepts, never answers": silent,
    "server drops every SYN": sockets.full_queue,
    "server drips": lambda: serving(DRIPS),
}
