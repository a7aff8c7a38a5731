"""The processes of the kill campaign: writers, deliverers, one that drains, and a collector with a witness.

Everything that a process did is in a log of its own, one line in one write, before (``sent``, ``try``) or after
(``recorded``, ``answered``) it happened; a log survives the death of its process. What may be concluded from the logs
is ``kill``'s; who lives and dies is decided in ``kill_zygote``.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlencode, urlsplit

import agent
from agent.collector import Collector
from agent.collector.answers import Answer, Received
from agent.collector.book import Book
from agent.collector.faults import Fault
from agent.collector.handler import Handler
from agent.collector.listener import Connection
from agent.transport import Request, Response, Unreachable
from agent.transport.http import HttpTransport

from . import stores

REQUEST = "X-Test-Request"
KINDS = ("text", "value", "point", "track", "call_home", "count")
# Of the collector, for one to three requests each. The first four strike after a record was taken in.
FAULTS = ("drop-answer", "truncated", "drip-body", "not-json") * 2 + (
    "drip-headers",
    "blackhole",
    "refuse",
    "500",
    "429",
)
# A drain, and processes that should end by themselves, may take so long.
PATIENCE_S = 25.0


# -- what was recorded --------------------------------------------------------------------------------------------


def content(marker: str, kind: str) -> dict[str, Any]:
    """What a record of this marker must look like at the collector, computed on both sides."""
    number = zlib.crc32(marker.encode())
    text = marker + " " + "%08x" % number * (number % 400 if number % 10 == 0 else number % 20)
    if kind == "value":
        return {"numeric_data_single_value": str(number)}
    if kind == "point":
        return {"numeric_data_x": str(number), "numeric_data_y": str(number % 1000)}
    if kind == "track":
        return {"meta": {"marker": marker, "text": text}}
    return {"text_data": "CALL HOME" if kind == "call_home" else text}


class Log:
    """One process's log; a forked child begins its own with its first line."""

    def __init__(self, directory: str, role: str) -> None:
        self._directory, self._role = directory, role
        self._pid = self._fd = -1
        self._token, self._numbers = "", itertools.count(1)

    @property
    def token(self) -> str:
        """The name of this process, unlike its number never used again."""
        if self._pid != os.getpid():
            parent, self._token, self._pid = self._token, os.urandom(6).hex(), os.getpid()
            path = os.path.join(self._directory, "%d-%s.log" % (self._pid, self._token))
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self("process", self._pid, self._role, parent)
        return self._token

    def number(self) -> str:
        """The number of a request, never given again."""
        return "%s-%d" % (self.token, next(self._numbers))

    def __call__(self, *entry: Any) -> None:
        assert self.token
        os.write(self._fd, json.dumps(entry).encode() + b"\n")


class Traced:
    """The real transport; its requests are numbered, and what became of each is in the log.

    ``over`` says that the deliverer has gone on: whatever it wanted to write down about the answer is written.
    """

    def __init__(self, log: Log) -> None:
        self._log, self._pid, self._open = log, -1, ""
        self._real: HttpTransport

    def _transport(self) -> HttpTransport:
        if self._pid != os.getpid():  # connections are the parent's
            self._pid, self._open, self._real = os.getpid(), "", HttpTransport(proxy="direct")
        return self._real

    def send(self, request: Request, *, timeout_s: float) -> Response:
        real = self._transport()
        self._over()
        number = self._log.number()
        began_at = time.monotonic()
        self._log("sent", number, began_at)
        self._open = number
        headers = {**request.headers, REQUEST: number}
        try:
            numbered = Request(request.method, request.url, headers, request.body)
            response = real.send(numbered, timeout_s=timeout_s)
        except Unreachable as error:
            late = time.monotonic() - began_at >= timeout_s
            self._log("unreachable", number, late, error.reason)
            raise
        self._log("answered", number, response.status, response.complete)
        return response

    def _over(self) -> None:
        number, self._open = self._open, ""
        if number:
            self._log("over", number)

    def rest(self) -> None:
        real = self._transport()
        self._over()
        real.rest()

    def close(self) -> None:
        self._transport().close()

    def interrupt(self) -> None:
        self._transport().interrupt()


def configuration(spec: dict[str, Any], **changes: Any) -> agent.Config:
    keys = tuple(agent.PublicKey.from_pem(key["public_key"]) for key in spec["keys"])
    key = "demo-api-key"
    settings: dict[str, Any] = {
        "endpoints": (
            agent.GetKeyManager(base_url=spec["url"], api_key=key, keys=keys),
            agent.Reo(base_url=spec["url"], api_key=key, domain="acme.example"),
        ),
        "start_delay_s": 0,
        **spec["settings"],
        **changes,
    }
    return agent.Config(
        vendor="Acme",
        product_name="Studio",
        product_id="42",
        product_version="5.2.5",
        usage_consent=True,
        state_dir=spec["state"],
        **settings,
    )


# -- writers ------------------------------------------------------------------------------------------------------


class Writer:
    """A run of the product: some threads that record, count, flush and fork, and some way to end."""

    def __init__(self, spec: dict[str, Any], log: Log) -> None:
        self._spec, self._log = spec, log
        self._current = threading.local()
        self._closing = False
        self._manual = spec["settings"]["deliver"] == "manual"
        self._product = agent.Agent(
            configuration(spec),
            lambda: ("demo-license-key", getattr(self._current, "marker", "nobody")),
            transport=Traced(log),
        )

    def run(self) -> None:
        spec, log = self._spec, self._log
        threads = [
            threading.Thread(target=self._record, args=(n, random.Random(seed)), daemon=True)
            for n, seed in enumerate(spec["threads"])
        ]
        for thread in threads:
            thread.start()
        if spec["end"] == "close early":  # while they record
            time.sleep(spec["rest_s"])
            self._close()
        for thread in threads:
            thread.join()
        time.sleep(spec["rest_s"])
        if spec["end"] == "close":
            self._close()
            log("complete")
        elif spec["end"] == "exit":
            log("complete")
        elif spec["end"] == "linger":
            time.sleep(600)
        elif spec["end"] == "abrupt":
            os._exit(0)

    def _close(self) -> None:
        self._closing = True
        self._call(self._product.close)

    def _call(self, verb: Callable[..., Any], *given: Any, **named: Any) -> Any:
        try:
            return verb(*given, **named)
        except Exception as error:
            self._log("raised", "%s: %r" % (getattr(verb, "__name__", verb), error))

    def _record(self, name: int, rng: random.Random) -> None:
        log = self._log
        activity = "COUNT-%s-%d" % (log.token, name)
        for number in range(rng.randint(1, self._spec["records"])):
            if rng.random() < self._spec["forks"] and os.fork() == 0:
                self._child(rng)
            self._one("%s-%d-%d" % (log.token, name, number), activity, rng)
            if rng.random() < 0.08:
                self._call(self._product.flush, timeout=rng.uniform(0, 0.3))
                self._note_kept(activity)
            if rng.random() < 0.3:
                time.sleep(rng.uniform(0, 0.02))

    def _one(self, marker: str, activity: str, rng: random.Random) -> None:
        log, product = self._log, self._product
        self._current.marker = marker
        kind = rng.choice(KINDS)
        data = content(marker, kind)
        if kind == "count":
            n = rng.randint(1, 5)
            log("counting", activity, n)
            self._call(product.count, activity, n)
            log("counted", activity, n)
            return
        log("try", marker, kind)
        if kind == "call_home":
            id = self._call(product.call_home)
        elif kind == "track":
            id = self._call(product.track, "EXPORT", meta=data["meta"])
        elif kind == "text":
            id = self._call(product.record_text, data["text_data"], data_group="kill")
        else:
            verb = product.record_value if kind == "value" else product.record_point
            id = self._call(verb, *map(int, data.values()), data_group="kill")
        if id is not None:
            # Closed meanwhile by another thread, a call home may have kept the first of its two.
            half = kind == "call_home" and self._closing
            log("recorded", marker, "half" if half else kind, id)
            if self._manual:
                self._note_kept(activity)
        elif not self._closing:
            log("refused", marker, kind)

    def _note_kept(self, activity: str) -> None:
        """What was counted so far is on disk, unless it came too late."""
        if not self._closing:
            self._log("kept", activity)

    def _child(self, rng: random.Random) -> None:
        """What a forked child does: records of its own, then one end or another; never returns."""
        activity = "COUNT-%s-child" % self._log.token
        for number in range(rng.randint(1, 6)):
            self._one("%s-child-%d" % (self._log.token, number), activity, rng)
            time.sleep(rng.uniform(0, 0.02))
        if rng.random() < 0.4:
            self._call(self._product.flush, timeout=rng.uniform(0, 0.5))
            self._note_kept(activity)
        if rng.random() < 0.5:
            whole = not self._closing  # nor closed in the parent before the fork
            self._call(self._product.close)
            if whole:
                self._log("complete")
        os._exit(0)


def deliver(spec: dict[str, Any], log: Log) -> None:
    """A process that mostly delivers: in a thread, by hand, or as the command line does."""
    rng = random.Random(spec["seed"])
    ends_at = time.monotonic() + spec["for_s"]
    if spec["way"] == "cli":
        with _traced_everywhere(log):
            while time.monotonic() < ends_at:
                timeout = "%.3f" % rng.uniform(0.05, 2 * spec["for_s"])
                arguments = ["spool", "replay", "--json", "--timeout", timeout]
                agent.main(arguments, config=configuration(spec))
        return
    with agent.Agent(configuration(spec, deliver=spec["way"]), transport=Traced(log)) as product:
        while time.monotonic() < ends_at:
            product.flush(timeout=rng.uniform(0, 0.5))
            time.sleep(rng.uniform(0, 0.03))


@contextlib.contextmanager
def _traced_everywhere(log: Log) -> Iterator[None]:
    """The command line takes no transport: it gets the traced one where it looks for the real one."""
    transport: Any = agent.transport
    real = transport.HttpTransport
    transport.HttpTransport = lambda **_: Traced(log)
    try:
        yield
    finally:
        transport.HttpTransport = real


def drain(spec: dict[str, Any], log: Log) -> None:
    """One healthy process that delivers until nothing is left, and says what it found."""
    ends_at = time.monotonic() + PATIENCE_S
    changes = {"deliver": "manual", "request_timeout_s": 10.0}
    with agent.Agent(configuration(spec, **changes), transport=Traced(log)) as product:
        report = product.flush(timeout=10)
        while not report.drained and time.monotonic() < ends_at:
            report = product.flush(timeout=10)
        revived = report.dead
        if revived:
            with _traced_everywhere(log):
                agent.main(["spool", "replay", "--dead", "--json"], config=configuration(spec))
            report = product.flush(timeout=10)
        product.flush()  # what went last, alone, is reaped by the next pass
        status = product.status()
        trouble = {name: text for name, text in status["trouble"].items() if text}
    left = [name for name in sorted(os.listdir(spec["state"])) if name.endswith((".seg", ".ack"))]
    damaged = status["damaged"]
    log("drained", report.pending + report.dead, revived, damaged, left, trouble)


# -- the peers ----------------------------------------------------------------------------------------------------


def write_to_peer(spec: dict[str, Any], log: Log) -> None:
    """Threads that record into SQLite or a file, each through a connection of its own."""

    def record(name: int, rng: random.Random) -> None:
        try:
            store = stores.peer(spec["store"], Path(spec["state"]))
        except Exception as error:
            return log("raised", "open: %r" % error)
        for number in range(rng.randint(1, spec["records"])):
            marker = "%s-%d-%d" % (log.token, name, number)
            log("try", marker, "text")
            try:
                store.record(marker, content(marker, "text")["text_data"])
            except Exception as error:
                log("raised", "record: %r" % error)
            else:
                log("recorded", marker, "text", marker)
            if rng.random() < 0.3:
                time.sleep(rng.uniform(0, 0.02))
        store.close()

    threads = [
        threading.Thread(target=record, args=(n, random.Random(seed)), daemon=True)
        for n, seed in enumerate(spec["threads"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if spec["end"] == "linger":
        time.sleep(600)


def deliver_from_peer(spec: dict[str, Any], log: Log) -> None:
    """Read what waits, in order; POST each; settle it on a 200. One deliverer at a time."""
    sender = PeerSender(spec["url"], log)
    ends_at = time.monotonic() + spec["for_s"]
    left: Any = None
    troubles = 0
    while time.monotonic() < ends_at and troubles < 20 and left != 0:
        try:
            with _only_one(spec["state"]):
                left = _deliver_once(spec, sender)
        except Exception as error:
            log("raised", "deliver: %r" % error)
            troubles += 1
        if spec["role"] == "deliver" and left == 0:
            left = None
            time.sleep(0.02)
    if spec["role"] == "drain":
        log("drained", left or 0, 0, 0, [], {})


def _deliver_once(spec: dict[str, Any], sender: PeerSender) -> int:
    store = stores.peer(spec["store"], Path(spec["state"]))
    try:
        waiting = store.pending()
        for place, (id, text) in enumerate(waiting):
            if not sender.send(id, text, 0.5):
                return len(waiting) - place
            store.settle(id)
            sender.over()
        return 0
    finally:
        store.close()


@contextlib.contextmanager
def _only_one(directory: str) -> Iterator[None]:
    import fcntl

    fd = os.open(os.path.join(directory, "deliverer.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class PeerSender:
    """http.client and nothing around it."""

    def __init__(self, url: str, log: Log) -> None:
        self._where, self._log, self._number = urlsplit(url).netloc, log, ""

    def send(self, id: str, text: str, timeout_s: float) -> bool:
        """POST one record; whether a 200 came back, whole."""
        self._number = number = self._log.number()
        fields = {
            "api_key": "demo-api-key",
            "data_type": "text",
            "text_data": text,
            "data_group": "kill",
            "product_id": "42",
            "product_version": "5.2.5",
            "user_identifier": "peer",
            "license_key": "demo-license-key",
            "activation_identifier": id,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded", REQUEST: number}
        began_at = time.monotonic()
        connection = http.client.HTTPConnection(self._where, timeout=timeout_s)
        self._log("sent", number, began_at)
        try:
            body = urlencode(fields)
            connection.request("POST", "/api/v1/send-telemetry-data", body, headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            late = time.monotonic() - began_at >= timeout_s
            self._log("unreachable", number, late, repr(error))
            time.sleep(0.005)
            return False
        finally:
            connection.close()
        self._log("answered", number, answer.status, True)
        if answer.status != 200:
            self.over()
        return answer.status == 200

    def over(self) -> None:
        """The answer was acted upon."""
        self._log("over", self._number)


# -- the collector ------------------------------------------------------------------------------------------------


class _Seen(threading.local):
    request: Optional[str] = None


class WitnessBook(Book):
    """Writes down what is taken in before it is answered, so that no death of the collector forgets it."""

    def __init__(self, log: Log, seen: _Seen) -> None:
        super().__init__(time.time)
        self._log, self._seen = log, seen

    def note_record(self, endpoint: str, received: Received, fault: Optional[str]) -> None:
        self._log("accepted", self._seen.request, endpoint, fault, received.code, received.fields)

    def note_request(self, **request: Any) -> None:
        """Not kept: the witness has what it needs."""


class Witness(Collector):
    """The reference collector, which also writes down which answers left it."""

    def __init__(self, log: Log, **options: Any) -> None:
        super().__init__(**options)
        seen = _Seen()
        self._desk.book = WitnessBook(log, seen)

        class WitnessHandler(Handler):
            def _protocol(self, path: str) -> None:
                seen.request = self.headers.get(REQUEST)
                super()._protocol(path)

            def _send(self, answer: Answer, fault: Optional[Fault] = None) -> None:
                super()._send(answer, fault)
                log("gave", seen.request)

        self._handler = WitnessHandler

    def _serve(self, client: Connection) -> None:
        self._handler(client, self._desk)


def collect(spec: dict[str, Any], log: Log) -> None:
    """Serve until killed; with a ``seed`` in changing states of health."""
    with Witness(log, port=spec["port"], algorithm=spec["algorithm"]) as collector:
        if spec["seed"] is None:
            time.sleep(600)
        rng = random.Random(spec["seed"])
        while True:
            collector.answer_delay_s = rng.choice((0, 0, 0.002, 0.01, 0.03))
            collector._desk.drip_interval_s = rng.choice((0.0005, 0.2))
            collector.fault(None)
            time.sleep(rng.uniform(0.01, 0.12))
            if rng.random() < 0.1:
                collector.fault("refuse")
            else:
                collector.fault(rng.choice(FAULTS), count=rng.randint(1, 3))
            time.sleep(rng.uniform(0.005, 0.06))


# -- any of them ---------------------------------------------------------------------------------------------------

ROLES: dict[str, Callable[[dict[str, Any], Log], None]] = {
    "write": lambda spec, log: Writer(spec, log).run(),
    "deliver": deliver,
    "drain": drain,
    "collect": collect,
}
PEER_ROLES: dict[str, Callable[[dict[str, Any], Log], None]] = {
    "write": write_to_peer,
    "deliver": deliver_from_peer,
    "drain": deliver_from_peer,
}


def act(spec: dict[str, Any]) -> None:
    """Be the process that ``spec`` describes."""
    log = Log(spec["logs"], spec["role"])
    assert log.token
    roles = ROLES if spec["store"] == "agent" or spec["role"] == "collect" else PEER_ROLES
    try:
        roles[spec["role"]](spec, log)
    except Exception as error:
        log("raised", repr(error))
        raise
