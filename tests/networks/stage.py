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
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

from support.sockets import Authority, Behaviour, Server

from agent.collector import Collector

from . import ROOT, TESTS
from .product import LICENCE, USAGE, Distant, Product

TIMEOUT_S = 10.0  # of a request that is meant to come through
SHORT_S = 0.5  # of one that is not


class Secrets(NamedTuple):
    """What must be found nowhere but where it belongs; others may be put in to search for."""

    api_key: str = "networks-api-key"
    license_key: str = "networks-license-key"
    activation_identifier: str = "networks-activation"
    proxy_user: str = "networks-user"
    proxy_password: str = "networks-password"


SECRETS = Secrets()


class Verdict(NamedTuple):
    """What a delivery came to, in the words of ``status()``, and after how many seconds that was known."""

    outcome: str
    seconds: float


class Stage:
    """One situation's servers, products and verdicts; leaving it ends them all."""

    def __init__(self, directory: Path, secrets: Secrets = SECRETS, clock: Any = None) -> None:
        self.directory, self.secrets, self.clock = directory, secrets, clock
        self.state_dir = directory / "state"
        self.log = directory / "product.log"  # what products in processes of their own print
        self.programs = directory / "programs.log"  # what the programs around them print
        self.shown: list[str] = []  # what they showed to those who asked, but
        self.previews: list[str] = []  # the next requests, which show all but keys
        self.verdicts: list[Verdict] = []
        # Of each record, how often the server must end up with it: once, but where an answer is lost on its way.
        self.copies: dict[str, Counter[str]] = {LICENCE: Counter(), USAGE: Counter()}
        self.open = contextlib.ExitStack()
        self._running: Union[Product, Distant, None] = None
        self._numbers = itertools.count()
        self._usage = False
        self._delivered = 0

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
        behaviour: Optional[Behaviour] = None,
    ) -> Behaviour:
        """The collector, or ``behaviour``, behind TLS, as ``hosts``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        configure(context)
        context.load_cert_chain(certificate or self.authority.issue(*hosts or ("localhost",)))
        return tls(context, behaviour or self.to_collector)

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

    def answering(
        self,
        before: Callable[[int, socket.socket], object] = lambda number, connection: None,
        after: Callable[
            [int, socket.socket, bytes], object
        ] = lambda number, connection, answer: None,
    ) -> Behaviour:
        """As ``to_collector``, request by request: ``before`` the collector sees each, ``after`` it has answered.

        Either may end the connection, or raise ``OSError`` to let it end.
        """
        numbers = itertools.count(1)

        def behaviour(connection: socket.socket, server: Server) -> None:
            where = "127.0.0.1", int(self.collector.url.rpartition(":")[2])
            while True:
                request = server.read_request(connection)
                if not request:
                    return
                number = next(numbers)
                before(number, connection)
                with socket.create_connection(where) as upstream:
                    upstream.sendall(request)
                    answer = _message(upstream)
                after(number, connection, answer)
                connection.sendall(answer)

        return behaviour

    # -- products --------------------------------------------------------------------------------

    def product(
        self,
        url: str,
        *,
        environ: Optional[Mapping[str, str]] = None,
        command: Optional[Sequence[str]] = None,
        python_path: tuple[Path, ...] = (),
        usage: bool = False,
        ca: Optional[Path] = None,
        **config: Any,
    ) -> Union[Product, Distant]:
        """A new run of the product. ``command``: its own process, with ``environ`` as its real environment."""
        self.end()
        config.setdefault("request_timeout_s", TIMEOUT_S)
        self._usage = usage
        ca = self.authority.path if ca is None else ca
        settings = {
            "url": url,
            "keys": [key["public_key"] for key in self.collector.keys],
            "api_key": self.secrets.api_key,
            "license_key": self.secrets.license_key,
            "activation_identifier": self.secrets.activation_identifier,
            "state_dir": str(self.state_dir),
            "usage": usage,
            "config": {"ca_bundle": str(ca) if ca.name else None, **config},
        }
        made: Union[Product, Distant]
        if command is None:
            made = Product(settings, environ={} if environ is None else environ, clock=self.clock)
        else:
            path = os.pathsep.join(map(str, (ROOT, TESTS, *python_path)))
            kept = {n: v for n, v in os.environ.items() if n in ("PATH", "HOME", "TMPDIR", "LANG")}
            log = self.open.enter_context(self.log.open("ab"))
            made = Distant(
                [*command],
                settings,
                {**kept, "PYTHONPATH": path, "AGENT_DEBUG": "1", **(environ or {})},
                log,
            )
        self._running = made
        return made

    def end(self) -> None:
        """End the run of the product, after a look at all that it shows."""
        running, self._running = self._running, None
        if running is not None:
            try:
                shown = running.look()
                self.previews.append(json.dumps(shown.pop("preview")))
                self.shown.append(json.dumps(shown, default=str))
            finally:
                running.close()

    # -- what came of it -------------------------------------------------------------------------

    def record(
        self, product: Union[Product, Distant], count: int = 1, copies: int = 1, padding: int = 0
    ) -> None:
        """Record ``count`` texts that the server has to end up with, longer by ``padding`` characters."""
        texts = ["r%03d" % next(self._numbers) + "x" * padding for _ in range(count)]
        for name in (LICENCE, USAGE)[: 1 + self._usage]:
            self.copies[name].update({text: copies for text in texts})
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
        verdict = self.said(found, outcome)
        assert not found["delivered"] and not found["dead"] and not found["drained"], found
        assert found["pending"] == sum(map(len, self.copies.values())) - self._delivered, found
        return verdict

    def said(self, found: Mapping[str, Any], outcome: str) -> Verdict:
        """Note the reason of a delivery that a situation has judged by itself; it must match ``outcome``."""
        reason = found["reasons"][LICENCE]
        assert re.fullmatch(outcome, reason), "%r is not %r" % (reason, outcome)
        self._note(found)
        return self._verdict(reason, found)

    def arrived(self) -> None:
        """The server has every record as often as it should, no more and no less."""
        texts: dict[str, Counter[str]] = {LICENCE: Counter(), USAGE: Counter()}
        for record in self.collector.records():
            fields = record["fields"]
            licence = record["endpoint"] == LICENCE
            text = fields["text_data"] if licence else _meta(fields)["text"]
            texts[LICENCE if licence else USAGE][text] += 1
        assert texts == self.copies, texts

    def settled(self) -> None:
        """What holds at the end of every situation: all of it was delivered in the end."""
        assert self.verdicts and self.verdicts[-1].outcome == "delivered"
        self.arrived()

    def _verdict(self, outcome: str, found: Mapping[str, Any]) -> Verdict:
        self.verdicts.append(Verdict(outcome, found["seconds"]))
        return self.verdicts[-1]

    def _note(self, found: Mapping[str, Any]) -> None:
        self._delivered += found["delivered"]
        self.shown.append(json.dumps(found))


def _meta(fields: Mapping[str, Any]) -> dict[str, Any]:
    meta = fields["meta"]
    found: dict[str, Any] = json.loads(meta) if isinstance(meta, str) else meta
    return found


def tls(context: ssl.SSLContext, behaviour: Behaviour) -> Behaviour:
    """``behaviour`` after a handshake."""

    def wrapped(connection: socket.socket, server: Server) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            server.knows(secure)
            behaviour(secure, server)

    return wrapped


def relay(one: socket.socket, two: socket.socket) -> None:
    """Pass on both ways until one of them ends."""
    while True:
        for ready in select.select([one, two], [], [])[0]:
            data = _available(ready)
            if data == b"":
                return
            if data:
                (two if ready is one else one).sendall(data)


def _available(ready: socket.socket) -> Optional[bytes]:
    """What there is to read, b"" at the end; None for a message of TLS itself, which ``select`` cannot know."""
    if not isinstance(ready, ssl.SSLSocket):
        return ready.recv(65536)
    ready.setblocking(False)
    try:
        data = ready.recv(65536)
        while ready.pending():
            data += ready.recv(65536)
        return data
    except ssl.SSLWantReadError:
        return None
    finally:
        ready.setblocking(True)


def _message(sock: socket.socket) -> bytes:
    """A head and the body whose length it gives."""
    head, found = b"", None
    while b"\r\n\r\n" not in head:
        head += sock.recv(65536)
    head, _, body = head.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    while len(body) < int(found[1] if found else 0):
        body += sock.recv(65536)
    return head + b"\r\n\r\n" + body
