"""A product, its licence server, and somebody in the middle who may answer in the server's place.

Whoever is in the middle sees every request of the product and says what it gets to read; the collector behind is
honest. ``Scene`` keeps three lists that every attack is measured by: what was recorded, what the product believes
to have arrived, and what did arrive. Time is simulated: it passes alike for product and server, and either wall clock
can be set wrong.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import socket
from typing import Any, Optional

from support.agent import config, endpoint, pass_
from support.signatures import content, envelope
from support.sockets import Server, asked
from support.spool import START, FakeClock, waiting

from agent import Agent, Outcome, PublicKey
from agent.collector import Collector
from agent.collector.signing import Keys

HOUR_S, DAY_S, YEAR_S = 3600.0, 86_400.0, 365 * 86_400.0
# The longest backoff of our own, which no forged answer may outlast.
BACKOFF_MAX_S = 6 * HOUR_S
TRUSTED, STRANGER = Keys("rsa").active, Keys("rsa").stranger
OLD = "signed, but older than an answer seen before"
FAR = "signed, but too far from the local clock"
CUT = "the server closed the connection without an answer"

Honest = Callable[[], bytes]
# Bytes to send, or None to hang up; given the request and a way to let it through to the server.
Attack = Callable[[bytes, Honest], Optional[bytes]]


def http_answer(body: bytes, status: int = 200, *headers: str) -> bytes:
    """A whole HTTP answer with a length."""
    lines = ["HTTP/1.1 %d X" % status, "Content-Length: %d" % len(body), *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def signed(content: Any, signer: Any = TRUSTED, **outer: Any) -> bytes:
    """An envelope around ``content``; ``outer`` changes its members, ``...`` leaves one out."""
    return envelope(content, signer, **outer)


def receipt(at: float, **changes: Any) -> dict[str, Any]:
    """What the server signs at ``at`` for a record that is right."""
    return content(timestamp=int(at), **changes)


def edited(answer: bytes, **changes: Any) -> bytes:
    """An honest answer with other members in its envelope; ``...`` leaves one out."""
    found = {**json.loads(body_of(answer)), **changes}
    return http_answer(json.dumps({k: v for k, v in found.items() if v is not ...}).encode())


class Scene:
    """One product on one machine and the line to its server. The product's wall clock is ``clock.at``."""

    def __init__(self, state_dir: Path, clock: FakeClock) -> None:
        self.state_dir, self.clock, self.server_off_s = state_dir, clock, 0.0
        self._epoch = clock.at - clock.since_boot
        self.collector = Collector(clock=self.server_time)
        self.attack: Optional[Attack] = None
        self.keys: tuple[PublicKey, ...] = self.collector.public_keys
        self.recorded: dict[str, str] = {}  # event id -> text
        self.told: list[Outcome] = []
        self.middle = Server(self._serve)

    @property
    def asked(self) -> int:
        """Requests that the product made so far."""
        return len(self.middle.requests)

    def _serve(self, connection: socket, server: Server) -> None:
        while request := server.read_request(connection):

            def honest(request: bytes = request) -> bytes:
                return self.let_through(request)

            answer = self.attack(request, honest) if self.attack else honest()
            if answer is None:
                return
            connection.sendall(answer)

    def server_time(self) -> float:
        """The true time, as long as ``server_off_s`` is 0, whatever the product's clock is set to."""
        return self._epoch + self.clock.since_boot + self.server_off_s

    def let_through(self, request: bytes) -> bytes:
        """What the honest server says to it."""
        return asked(self.collector.url, request)

    def replays(self, answer: bytes) -> None:
        """From now on every request gets this answer and reaches nobody."""
        self.attack = lambda request, honest: answer

    def says(self, body: bytes, status: int = 200, *headers: str) -> None:
        """The same, of an answer with this body."""
        self.replays(http_answer(body, status, *headers))

    def agent(self, **changes: Any) -> Agent:
        """A run of the product."""
        settings: dict[str, Any] = {"state_dir": self.state_dir, "only": "licence", **changes}
        settings.setdefault("durability", "process")  # no attacker here cuts the power
        keys = settings.pop("keys", self.keys)
        licence = settings.pop("license_key", ("demo-license-key", "activation-1"))
        of = config("http://127.0.0.1:%d" % self.middle.port, keys, **settings)
        return Agent(of, licence, on_outcome=self.told.append, clock=self.clock, environ={})

    def wait(self, seconds: float) -> None:
        """Time passes, on every clock."""
        self.clock.advance(seconds)

    # -- what everything is measured by ----------------------------------------------------------

    def record(self, product: Agent, *texts: str) -> None:
        for text in texts:
            event_id = product.record_text(text, data_group="g")
            assert event_id is not None
            self.recorded[event_id] = text

    def delivers(self, product: Agent, *texts: str, lied: int = 0) -> None:
        """These arrive, and nothing is wrong."""
        self.record(product, *texts)
        assert product.flush().delivered == len(texts)
        self.intact(product, lied=lied)

    def capture(self, product: Agent, text: str = "captured") -> bytes:
        """Deliver one record honestly; what went over the wire."""
        heard: list[bytes] = []

        def listen(request: bytes, honest: Honest) -> bytes:
            heard.append(honest())
            return heard[0]

        self.attack = listen
        self.delivers(product, text)
        self.attack = None
        return heard[0]

    def arrived(self) -> set[str]:
        return {record["fields"].get("text_data", "") for record in self.collector.records()}

    def believed(self) -> set[str]:
        return {self.recorded[outcome.event_id] for outcome in self.told}

    def on_disk(self) -> set[str]:
        return {self.recorded[event_id] for event_id in waiting(self.state_dir)}

    def intact(self, product: Agent, *, lied: int = 0) -> None:
        """Nothing is lost, and nothing is believed that is not so; but for ``lied``, which no signature can tell."""
        assert {o.verdict for o in self.told} <= {"delivered", "flagged"}
        assert len(self.believed() - self.arrived()) == lied
        assert self.on_disk() | self.believed() == set(self.recorded.values())
        assert not self.on_disk() & self.believed()
        status = product.status()
        assert (status["pending"], status["dead"]) == (len(self.on_disk()), 0)

    def fails(self, product: Agent, verdict: str, reason: str, *, lied: int = 0) -> None:
        """The attack is made once; the product refuses it by this name and says so everywhere."""
        before, waited, heard = self.asked, self.on_disk(), len(product.history())
        report = product.flush()
        assert self.asked == before + 1
        assert (report.delivered, report.flagged, report.dead) == (0, 0, 0)
        assert report.pending == len(waited) and self.on_disk() == waited
        assert report.untrusted == (verdict == "untrusted")
        self.says_so(product, verdict, reason)
        assert len(product.history()) == heard + (verdict != "offline")
        self.intact(product, lied=lied)

    def says_so(self, product: Agent, verdict: str, reason: str) -> None:
        """``status()`` and ``history()`` name what happened; our own backoff is all it cost."""
        seen = endpoint(product)
        assert reason in seen["reason"], seen["reason"]
        if verdict in ("throttled", "held"):
            assert seen["waiting"] == {"throttled": "pause", "held": "held"}[verdict]
        else:
            assert seen["reason"].startswith(verdict + ": ") and seen["waiting"] == "backoff"
            assert 0 < seen["retry_in_s"] <= BACKOFF_MAX_S
        if verdict != "offline":
            last = product.history()[-1]
            assert last["verdict"] == verdict and reason in last["reason"]

    def recovers(self, product: Agent, *, lied: int = 0) -> None:
        """The attacker leaves: all that waits is delivered, after our own backoff at the latest."""
        self.attack = None
        retry_in_s = endpoint(product)["retry_in_s"]
        assert retry_in_s <= BACKOFF_MAX_S
        self.wait(retry_in_s + 1)
        pass_(product)
        assert product.status()["pending"] == 0 and endpoint(product)["proven"]
        assert product.history()[-1]["verdict"] == "delivered"
        self.intact(product, lied=lied)
        assert len(set(self.recorded.values()) - self.arrived()) == lied

    def withstands(self, verdict: str, reason: str) -> None:
        """The whole of it for an attack that is switched on: two records, refused, then delivered."""
        with self.agent() as product:
            self.record(product, "first", "second")
            self.fails(product, verdict, reason)
            self.recovers(product)


@contextmanager
def scene(state_dir: Path, at: float = START) -> Iterator[Scene]:
    """A scene, with an honest line as long as no attack is set."""
    found = Scene(state_dir, FakeClock(at))
    with found.collector, found.middle:
        yield found
