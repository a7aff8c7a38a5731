"""What every situation is given: a collector, an authority, the product's secrets, and how its end is judged."""

import contextlib
import functools
import itertools
import json
import os
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

from support.canary import Canaries
from support.sockets import Authority, Behaviour, Server, asked, relay, tls

from agent.collector import Collector

from . import ROOT, TESTS
from .product import LICENCE, USAGE, Distant, Product

TIMEOUT_S = 10.0  # of a request that is meant to come through
SHORT_S = 0.5  # of one that is not
Run = Union[Product, Distant]


class Verdict(NamedTuple):
    """What a delivery came to, in the words of ``status()``, and after how many seconds that was known."""

    outcome: str
    seconds: float


class Stage(contextlib.ExitStack):
    """One situation's servers, products and verdicts; leaving it ends them all."""

    def __init__(self, directory: Path, secrets: Optional[Canaries] = None) -> None:
        super().__init__()
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.secrets = directory, secrets or Canaries()
        self.login = self.secrets.proxy_user, self.secrets.proxy_password
        self.state_dir = directory / "state"
        self.log = directory / "product.log"  # what products in processes of their own print
        self.programs = directory / "programs.log"  # what the programs around them print
        self.shown: list[str] = []  # what they showed to those who asked, but
        self.previews: list[str] = []  # the next requests, which show all but keys
        self.verdicts: list[Verdict] = []
        # Of each record, how often the server must end up with it: once, but where an answer is lost on its way.
        self.copies: dict[str, Counter[str]] = {LICENCE: Counter(), USAGE: Counter()}
        self.authority = Authority(directory, "Acme Root CA")
        self._running: Optional[Run] = None
        self._numbers = itertools.count()
        self._usage = False
        self._delivered = 0

    @functools.cached_property
    def collector(self) -> Collector:
        """The vendor's server, without TLS."""
        licences = (self.secrets.licence_key,)
        collector = Collector(api_keys=(self.secrets.api_key,), license_keys=licences)
        return self.enter_context(collector)

    # -- servers ---------------------------------------------------------------------------------

    def serve(self, behaviour: Behaviour, listener: Optional[socket.socket] = None) -> Server:
        """``behaviour`` behind a port, on loopback unless a listening socket is given."""
        return self.enter_context(Server(behaviour, listener))

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

    def upstream(self) -> socket.socket:
        """A connection to the collector."""
        return socket.create_connection(("127.0.0.1", int(self.collector.url.rpartition(":")[2])))

    def to_collector(self, connection: socket.socket, server: Server) -> None:
        """Pass on both ways between ``connection`` and the collector."""
        with self.upstream() as upstream:
            relay(connection, upstream)

    def answering(
        self, act: Callable[[int, socket.socket, Callable[[], bytes]], object]
    ) -> Behaviour:
        """Each request is an ``act(number, connection, ask)``; ``ask`` gives what the collector answers to it."""
        numbers = itertools.count(1)

        def behaviour(connection: socket.socket, server: Server) -> None:
            while request := server.read_request(connection):
                act(
                    next(numbers), connection, functools.partial(asked, self.collector.url, request)
                )

        return behaviour

    # -- products --------------------------------------------------------------------------------

    def product(
        self,
        url: str,
        *,
        environ: Optional[Mapping[str, str]] = None,
        command: Optional[Sequence[str]] = None,
        python_path: Path = TESTS,
        usage: bool = False,
        ca: Optional[Path] = None,
        **config: Any,
    ) -> Run:
        """A new run of the product. ``command``: its own process, with ``environ`` as its real environment."""
        self.end()
        config.setdefault("request_timeout_s", TIMEOUT_S)
        self._usage = usage
        ca = self.authority.path if ca is None else ca
        bundle = str(ca) if ca.name else None
        settings = {
            "url": url,
            "keys": [key["public_key"] for key in self.collector.keys],
            "secrets": [self.secrets.api_key, *self.secrets.licence],
            "usage": usage,
            "config": {"state_dir": str(self.state_dir), "ca_bundle": bundle, **config},
        }
        if command is None:
            self._running = Product(settings, {} if environ is None else environ)
        else:
            path = os.pathsep.join(map(str, (ROOT, TESTS, python_path)))
            kept = {n: v for n, v in os.environ.items() if n in ("PATH", "HOME", "TMPDIR", "LANG")}
            around = {**kept, "PYTHONPATH": path, "AGENT_DEBUG": "1", **(environ or {})}
            with self.log.open("ab") as log:
                self._running = Distant(command, settings, around, log)
        self.callback(self.end)
        return self._running

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

    def record(self, product: Run, count: int = 1, copies: int = 1) -> None:
        """Record ``count`` texts that the server has to end up with."""
        texts = ["r%03d" % next(self._numbers) for _ in range(count)]
        for name in (LICENCE, USAGE)[: 1 + self._usage]:
            self.copies[name].update({text: copies for text in texts})
        product.record(*texts)

    def delivers(self, product: Run, count: int = 1, *, tries: int = 1) -> Verdict:
        """Record, deliver: nothing may be left after ``tries``, and the server must have all as often as it should."""
        self.record(product, count)
        found = product.flush(50.0)
        while tries > 1 and not found["drained"]:
            time.sleep(0.1)
            found, tries = product.flush(50.0), tries - 1
        assert found["drained"] and not found["dead"], found
        self.arrived()
        self._delivered = sum(map(len, self.copies.values()))
        return self._note("delivered", found)

    def fails(self, product: Run, outcome: str, delivered: int = 0, **how: Any) -> Verdict:
        """Record, try to deliver: all but ``delivered`` must be kept, the reason must match ``outcome``."""
        self.record(product, **how)
        found = product.flush(20.0)
        reason = found["reasons"][LICENCE]
        assert re.fullmatch(outcome, reason), "%r is not %r" % (reason, outcome)
        verdict = self._note(reason, found)
        assert (found["delivered"], found["dead"], found["drained"]) == (delivered, 0, False), found
        self._delivered += delivered
        assert found["pending"] == sum(map(len, self.copies.values())) - self._delivered, found
        return verdict

    def arrived(self) -> None:
        """The server has every record as often as it should, no more and no less."""
        texts: dict[str, Counter[str]] = {LICENCE: Counter(), USAGE: Counter()}
        for record in self.collector.records():
            fields = record["fields"]
            if record["endpoint"] == LICENCE:
                texts[LICENCE][fields["text_data"]] += 1
            else:
                texts[USAGE][fields["meta"]["text"]] += 1
        assert texts == self.copies, texts

    def settled(self) -> None:
        """What holds at the end of every situation: all of it was delivered in the end."""
        assert self.verdicts and self.verdicts[-1].outcome == "delivered"
        self.arrived()

    def _note(self, outcome: str, found: Mapping[str, Any]) -> Verdict:
        self.shown.append(json.dumps(found))
        self.verdicts.append(Verdict(outcome, found["seconds"]))
        return self.verdicts[-1]
