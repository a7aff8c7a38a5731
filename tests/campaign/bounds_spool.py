"""Spools of any size, made at once; a server that takes everything, without a socket; the processes of ``bounds``."""

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.agent import START, config
from support.scripted import Network
from support.spool import DISK, licence, spool, usage, verdict, write_segment

import agent
from agent import lines
from agent.spool.record import Record

from .processes import begin, main, say

RUN = "1a2b3c4d"
EPOCH = 7


def record(n: int, at: float, text: str = "CALL HOME", class_: str = "l") -> Record:
    """What ``call_home`` leaves for the licence server, or a class of usage."""
    id = "%s%031x" % (class_, n)
    if class_ == "u":
        return Record("usage", "reo", id, at, {"activity_type": text}, run=RUN, epoch=EPOCH)
    body: dict[str, Any] = {
        "data_type": "text",
        "text_data": text,
        "data_group": "call-home",
        "user_identifier": "0123456789abcdef" * 2,
        "license_key": "demo-license-key",
        "activation_identifier": "activation-1",
        "product_id": "42",
        "product_version": "5.2.5",
    }
    if class_ == "l":
        return Record("licence", "getkeymanager", id, at, body, run=RUN)
    body = {"activity_type": text, "count": 1, "meta": {"window_start": 0, "window_end": 9}}
    return Record("aggregate", "reo", id, at, body, run=RUN, epoch=EPOCH)


def fill(
    place: Path,
    pending: int,
    *,
    segments: int,
    at: float = START,
    text: str = "CALL HOME",
    class_: str = "l",
) -> None:
    """Make a state directory in which ``pending`` records wait in about so many ``segments``."""
    each = max(1, -(-pending // max(1, segments)))
    for number, first in enumerate(range(0, pending, each)):
        numbers = range(first, min(first + each, pending))
        # Numbered by time too: the same ids in several files would be the same records.
        records = (record(n + int(at) * 1000, at + n / 1000, text, class_) for n in numbers)
        content = [lines.encode(one.to_json()) for one in records]
        write_segment(place, content, class_, int(at * 1000) + number)
    place.mkdir(mode=0o700, exist_ok=True)
    consent = place / "agent.consent"
    consent.write_bytes(b"." * EPOCH)
    consent.chmod(0o600)


# -- processes -----------------------------------------------------------------------------------


def report(count: int, id: str) -> Record:
    """What says that so many records went."""
    body = {"data_group": "agent-dropped", "numeric_data_single_value": str(count)}
    return Record("licence", "server", id, START, body)


def writer(settings: dict[str, Any]) -> None:
    """Records, offline, far more than fits; says how many were acknowledged."""
    number, (least, most) = settings["number"], settings["sizes"]
    chance = random.Random(number)
    quotas = {"max_bytes": settings["max_bytes"], "max_records": settings["max_records"]}
    target = spool(settings["place"], power=False, report=report, **quotas)
    acknowledged = 0
    begin()
    for n in range(settings["records"]):
        one = licence("%d-%d" % (number, n), "x" * chance.randint(least, most))
        if settings["mixed"] and n % 3 == 1:
            one = usage(one.id, target.consent.ensure())
            one.body["activity_type"] = "x" * chance.randint(least, most)
        acknowledged += target.record(one, sync=False) == DISK
        if settings["mixed"] and n % 40 == 39 and target.claim():
            for count, record in zip(range(6), target.waiting(())):
                target.try_(record)
                if count < 2:
                    target.answer(record, verdict("rejected", reason="x" * 200), START)
                else:
                    target.answer(record, verdict("offline"), START, failed=True, counted=1)
            target.book.note("lane", "tag", failures=n, wait="backoff")
            target.release()
    say(acknowledged)


def peak_mb() -> float:
    """Of this program alone: what getrusage gives begins with the peak of whoever started it."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))


@contextmanager
def timed(found: dict[str, float], name: str, times: int = 1) -> Iterator[None]:
    """Milliseconds of a block: by the wall, and of this thread's processor time."""
    wall, cpu = time.perf_counter(), time.thread_time()
    yield
    found[name + " ms"] = 1000 * (time.perf_counter() - wall) / times
    found[name + " CPU ms"] = 1000 * (time.thread_time() - cpu) / times


def measured(settings: dict[str, Any]) -> None:
    """The agent beside so much that waits; ``whole`` also with a pass and status."""
    bounds = {"max_records": 150_000, "max_bytes": 100_000_000, "max_age_days": 36500}
    given = config("http://127.0.0.1:9", (), settings["place"], **bounds)
    found: dict[str, float] = {}
    with timed(found, "start"):
        product = agent.Agent(given, "key", transport=Network(up=False))
    with timed(found, "first"):
        product.record_text("CALL HOME", data_group="g")
    with timed(found, "later", 10):
        for _ in range(10):
            product.record_text("CALL HOME", data_group="g")
    found["idle MB"] = peak_mb()
    if settings["whole"]:
        # Nothing waits for the other endpoint, so the pass looks at every record.
        with timed(found, "pass"):
            product._delivery.run()
        found["pass MB"] = peak_mb()
        with timed(found, "status"):
            found["pending"] = product.status()["pending"]
    with timed(found, "close"):
        product.close()
    say(json.dumps(found))


if __name__ == "__main__":
    main(writer, measured)
