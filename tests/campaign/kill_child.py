"""The processes of the kill campaign: writers, deliverers, one that drains, and a collector with a witness.

Everything that a process did is in a log of its own, one line in one write, before (``sent``, ``try``) or after
(``recorded``, ``answered``) it happened; a log survives the death of its process. What may be concluded from the logs
is ``kill_account``'s; who lives and dies is decided in ``kill_zygote``.
"""

import os
import random
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any, Optional

from support.agent import config

import agent
from agent.collector import Collector
from agent.collector.answers import Answer, Received
from agent.collector.book import Book
from agent.collector.faults import Fault
from agent.collector.handler import Handler
from agent.collector.listener import Connection

from .processes import REQUEST, Log, Traced

KINDS = ("text", "value", "point", "track", "call_home", "count")
# Of the collector, for one to three requests each. The first four strike after a record was taken in.
FAULTS = ["drop-answer", "truncated", "drip-body", "not-json"] * 2
FAULTS += ["drip-headers", "blackhole", "refuse", "500", "429"]
# A drain, and processes that should end by themselves, may take so long.
PATIENCE_S = 25.0


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


def product(spec: dict[str, Any], log: Log, marker_of: Callable[[], str]) -> agent.Agent:
    licence = lambda: ("demo-license-key", marker_of())  # noqa: E731 - asked once per record
    keys = tuple(agent.PublicKey.from_pem(key["public_key"]) for key in spec["keys"])
    given = config(spec["url"], keys, spec["state"], **spec["settings"])
    return agent.Agent(given, licence, transport=Traced(log))


# -- writers ------------------------------------------------------------------------------------------------------


class Writer:
    """A run of the product: some threads that record, count, flush and fork, and some way to end."""

    def __init__(self, spec: dict[str, Any], log: Log) -> None:
        self._spec, self.log = spec, log
        self._current = threading.local()
        self._closing = False
        self._manual = spec["settings"]["deliver"] == "manual"
        marker_of = lambda: getattr(self._current, "marker", "nobody")  # noqa: E731
        self.product = product(spec, log, marker_of)

    def run(self) -> None:
        spec, log = self._spec, self.log
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
        if spec["end"] in ("close", "exit"):
            log("complete")
        elif spec["end"] == "linger":
            time.sleep(600)
        elif spec["end"] == "abrupt":
            os._exit(0)

    def _close(self) -> None:
        self._closing = True
        self.call(self.product.close)

    def call(self, verb: Callable[..., Any], *given: Any, **named: Any) -> Any:
        try:
            return verb(*given, **named)
        except Exception as error:
            self.log("raised", "%s: %r" % (getattr(verb, "__name__", verb), error))

    def _record(self, name: int, rng: random.Random) -> None:
        log = self.log
        activity = "COUNT-%s-%d" % (log.token, name)
        for number in range(rng.randint(1, self._spec["records"])):
            if rng.random() < self._spec["forks"] and os.fork() == 0:
                self._child(rng)
            self._one("%s-%d-%d" % (log.token, name, number), activity, rng)
            if rng.random() < 0.08:
                self._flush(activity, rng.uniform(0, 0.3))
            if rng.random() < 0.3:
                time.sleep(rng.uniform(0, 0.02))

    def _one(self, marker: str, activity: str, rng: random.Random) -> None:
        kind = rng.choice(KINDS)
        if kind == "count":
            self.count(activity, rng.randint(1, 5))
        elif self.record(marker, kind) and self._manual:
            self._note_kept(activity)

    def count(self, activity: str, n: int) -> None:
        self.log("counting", activity, n)
        self.call(self.product.count, activity, n)

    def record(self, marker: str, kind: str) -> Any:
        """One record, written down once the call acknowledged it; its id."""
        made, data = self.product, content(marker, kind)
        self._current.marker = marker
        self.log("try", marker, kind)
        if kind == "call_home":
            id = self.call(made.call_home)
        elif kind == "track":
            id = self.call(made.track, "EXPORT", meta=data["meta"])
        elif kind == "text":
            id = self.call(made.record_text, data["text_data"], data_group="kill")
        else:
            verb = made.record_value if kind == "value" else made.record_point
            id = self.call(verb, *map(int, data.values()), data_group="kill")
        if id is not None:
            # Closed meanwhile by another thread, a call home may have kept the first of its two.
            half = kind == "call_home" and self._closing
            self.log("recorded", marker, "half" if half else kind, id)
        elif not self._closing:
            self.log("refused", marker, kind)
        return id

    def _flush(self, activity: str, timeout: float) -> None:
        self.call(self.product.flush, timeout=timeout)
        self._note_kept(activity)

    def _note_kept(self, activity: str) -> None:
        """What was counted so far is on disk, unless it came too late."""
        if not self._closing:
            self.log("kept", activity)

    def _child(self, rng: random.Random) -> None:
        """What a forked child does: records of its own, then one end or another; never returns."""
        activity = "COUNT-%s-child" % self.log.token
        for number in range(rng.randint(1, 6)):
            self._one("%s-child-%d" % (self.log.token, number), activity, rng)
            time.sleep(rng.uniform(0, 0.02))
        if rng.random() < 0.4:
            self._flush(activity, rng.uniform(0, 0.5))
        if rng.random() < 0.5:
            whole = not self._closing  # nor closed in the parent before the fork
            self.call(self.product.close)
            if whole:
                self.log("complete")
        os._exit(0)


# -- deliverers ---------------------------------------------------------------------------------------------------


def deliver(spec: dict[str, Any], log: Log) -> None:
    """A process that mostly delivers: in a thread, or by hand."""
    rng = random.Random(spec["seed"])
    ends_at = time.monotonic() + spec["for_s"]
    made = product(spec, log, lambda: "nobody")
    while time.monotonic() < ends_at:
        made.flush(timeout=rng.uniform(0, 0.5))
        time.sleep(rng.uniform(0, 0.03))
    made.close()


def drain(spec: dict[str, Any], log: Log) -> None:
    """One healthy process that delivers until nothing is left, and says what it found."""
    ends_at = time.monotonic() + PATIENCE_S
    spec["settings"] = {**spec["settings"], "deliver": "manual", "request_timeout_s": 10.0}
    made = product(spec, log, lambda: "nobody")
    report, revived = made.flush(timeout=10), 0
    while not report.drained and time.monotonic() < ends_at:
        report = made.flush(timeout=10)
    if report.dead and made._spool.claim():  # as the command line does
        revived = made._spool.revive()
        made._spool.release()
    for _ in range(2):  # what went last, alone, is reaped by the next pass
        report = made.flush(timeout=10)
    status = made.status()
    made.close()
    trouble = {name: text for name, text in status["trouble"].items() if text}
    left = [name for name in sorted(os.listdir(spec["state"])) if name.endswith(".seg")]
    pending = report.pending + report.dead
    log("drained", pending, revived, status["damaged"], left, trouble)


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

    def __init__(self, witness: Log, **options: Any) -> None:
        super().__init__(**options)
        log, seen = witness, _Seen()
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


def write(spec: dict[str, Any], log: Log) -> None:
    """A run of the product."""
    Writer(spec, log).run()


ROLES = {role.__name__: role for role in (write, deliver, drain, collect)}


def act(spec: dict[str, Any]) -> None:
    """Be the process that ``spec`` describes."""
    log = Log(spec["logs"], spec["role"])
    assert log.token
    try:
        ROLES[spec["role"]](spec, log)
    except Exception as error:
        log("raised", repr(error))
        raise
