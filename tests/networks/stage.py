"""What every situation is given: a collector, an authority, the product's secrets, and how its end is judged."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import select
import socket
import ssl
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

from support_sockets import Authority, Behaviour, Server

from agent.collector import Collector

from . import ROOT, TESTS
from .product import LICENCE, USAGE, Distant, Product

TIMEOUT_S = 10.0  # of a request that is meant to come through
SHORT_S = 0.6  # of one that is not


class Secrets(NamedTuple):
    """What must be found nowhere but where it belongs; others may be put in to search for."""

    api_key: str = "networks-api-key"
    license_key: str = "networks-license-key"
    activation_identifier: str = "networks-activation"
    proxy_user: str = "networks-user"
    proxy_password: str = "networks-password"


class Verdict(NamedTuple):
    """What a delivery came to, in the words of ``status()``, and after how many seconds that was known."""

    outcome: str
    seconds: float


class Stage:
    """One situation's servers, products and verdicts; leaving it ends them all."""

    def __init__(self, directory: Path, secrets: Secrets = Secrets(), clock: Any = None) -> None:
        self.directory, self.secrets, self.clock = directory, secrets, clock
        self.state_dir = directory / "state"
        self.log = directory / "product.log"  # what the products and the programs print
        self.shown: list[str] = []  # what they showed to those who asked
        self.verdicts: list[Verdict] = []
        self.copies: Counter[str] = Counter()  # of each record, that the server must end up with
        self.open = contextlib.ExitStack()
        self._running: Union[Product, Distant, None] = None
        self._numbers = itertools.count()
        self._usage = False

    def __enter__(self) -> Stage:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.collector = self.open.enter_context(
            Collector(
                api_keys=(self.secrets.api_key,),
                license_keys=(self.secrets.license_key,),
                clock=self.clock,
            )
        )
        self.authority = Authority(self.directory, "Acme Root CA")
        return self

    def __exit__(self, *_: object) -> None:
        with self.open:
            self.end()

    # -- servers ---------------------------------------------------------------------------------

    def serve(self, behaviour: Behaviour, listener: Optional[socket.socket] = None) -> Server:
        """``behaviour`` behind a port, on loopback unless a listening socket is given."""
        return self.open.enter_context(Server(behaviour, listener))

    def behind_tls(
        self,
        *hosts: str,
        certificate: Optional[Path] = None,
        configure: Callable[[ssl.SSLContext], object] = lambda context: None,
    ) -> Behaviour:
        """The collector behind TLS, as ``hosts``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate or self.authority.issue(*hosts or ("localhost",)))
        configure(context)
        return tls(context, self.to_collector)

    def https(self, *hosts: str, **options: Any) -> str:
        """The collector's address as one of ``hosts`` behind TLS on loopback."""
        host = (hosts or ("localhost",))[0]
        server = self.serve(self.behind_tls(*hosts, **options))
        return "https://%s:%d" % ("[%s]" % host if ":" in host else host, server.port)

    def to_collector(self, connection: socket.socket, server: Server) -> None:
        """Pass on both ways between ``connection`` and the collector."""
        where = "127.0.0.1", int(self.collector.url.rpartition(":")[2])
        with socket.create_connection(where) as upstream:
            relay(connection, upstream)

    # -- products --------------------------------------------------------------------------------

    def product(
        self,
        url: str,
        *,
        environ: Optional[Mapping[str, str]] = None,
        command: Optional[Sequence[str]] = None,
        python_path: tuple[Path, ...] = (),
        usage: bool = False,
        pins: tuple[str, ...] = (),
        ca: Optional[Path] = None,
        **config: Any,
    ) -> Union[Product, Distant]:
        """A new run of the product. ``command``: its own process, with ``environ`` as its real environment."""
        self.end()
        config.setdefault("request_timeout_s", TIMEOUT_S)
        self._usage |= usage
        ca = self.authority.path if ca is None else ca
        settings = {
            "url": url,
            "keys": [key["public_key"] for key in self.collector.keys],
            "api_key": self.secrets.api_key,
            "license_key": self.secrets.license_key,
            "activation_identifier": self.secrets.activation_identifier,
            "state_dir": str(self.state_dir),
            "usage": usage,
            "pins": pins,
            "config": {"ca_bundle": str(ca) if ca.name else None, **config},
        }
        made: Union[Product, Distant]
        if command is None:
            made = Product(settings, environ=environ or {}, clock=self.clock)
        else:
            path = os.pathsep.join(map(str, (ROOT, TESTS, *python_path)))
            kept = {n: v for n, v in os.environ.items() if n in ("PATH", "HOME", "TMPDIR", "LANG")}
            log = self.open.enter_context(self.log.open("ab"))
            made = Distant([*command], settings, {**kept, "PYTHONPATH": path, **(environ or {})}, log)
        self._running = made
        return made

    def end(self) -> None:
        """End the run of the product, after a look at all that it shows."""
        running, self._running = self._running, None
        if running is not None:
            try:
                self.shown.append(json.dumps(running.look(), default=str))
            finally:
                running.close()

    # -- what came of it -------------------------------------------------------------------------

    def record(self, product: Union[Product, Distant], count: int = 1, copies: int = 1) -> None:
        """Record ``count`` texts that the server has to end up with."""
        texts = ["r%03d" % next(self._numbers) for _ in range(count)]
        self.copies.update({text: copies for text in texts})
        product.record(*texts)

    def delivers(
        self, product: Union[Product, Distant], count: int = 1, *, timeout_s: float = 20.0
    ) -> Verdict:
        """Record, deliver: nothing may be left, and the server must have everything as often as it should."""
        self.record(product, count)
        found = product.flush(timeout_s)
        self._note(found)
        assert found["drained"] and not found["dead"], found
        self.arrived()
        return self._verdict("delivered", found)

    def fails(
        self,
        product: Union[Product, Distant],
        outcome: str,
        count: int = 1,
        *,
        timeout_s: float = 20.0,
        copies: int = 1,
    ) -> Verdict:
        """Record, try to deliver: every record must be kept, the reason must match ``outcome``."""
        self.record(product, count, copies)
        found = product.flush(timeout_s)
        self._note(found)
        reason = found["reasons"][LICENCE]
        assert re.fullmatch(outcome, reason), "%r is not %r" % (reason, outcome)
        assert not found["delivered"] and not found["dead"] and not found["drained"], found
        assert found["pending"] == len(self.copies) * (1 + self._usage), found
        return self._verdict(reason, found)

    def arrived(self) -> None:
        """The server has every record as often as it should, no more and no less."""
        texts: dict[str, Counter[str]] = {}
        for record in self.collector.records():
            fields = record["fields"]
            licence = record["endpoint"] == LICENCE
            text = fields["text_data"] if licence else _meta(fields)["text"]
            texts.setdefault(LICENCE if licence else USAGE, Counter())[text] += 1
        for name in (LICENCE, USAGE)[: 1 + self._usage]:
            assert texts.get(name) == self.copies, texts

    def _verdict(self, outcome: str, found: Mapping[str, Any]) -> Verdict:
        self.verdicts.append(Verdict(outcome, found["seconds"]))
        return self.verdicts[-1]

    def _note(self, found: Mapping[str, Any]) -> None:
        self.shown.append(json.dumps(found))


def _meta(fields: Mapping[str, Any]) -> dict[str, Any]:
    meta = fields["meta"]
    found: dict[str, Any] = json.loads(meta) if isinstance(meta, str) else meta
    return found


def tls(context: ssl.SSLContext, behaviour: Behaviour) -> Behaviour:
    """``behaviour`` after a handshake."""

    def wrapped(connection: socket.socket, server: Server) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            behaviour(secure, server)

    return wrapped


def relay(one: socket.socket, two: socket.socket) -> None:
    """Pass on both ways until one of them ends."""
    while True:
        for ready in select.select([one, two], [], [])[0]:
            other = two if ready is one else one
            data = ready.recv(65536)
            while isinstance(ready, ssl.SSLSocket) and ready.pending():
                data += ready.recv(65536)
            if not data:
                return
            other.sendall(data)


def quietly(work: Callable[[], object]) -> threading.Thread:
    """``work`` in a thread beside."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


PYTHON = sys.executable
