"""Clocks that jump, two months in one process, and whether the count of the dropped reaches the server once."""

from __future__ import annotations

import os
import random
import threading
import tracemalloc
from pathlib import Path
from typing import Any

from support.agent import FakeClock, config, desk, fields, pass_, work_until
from support.scripted import Network
from support.spool import size_of

import agent
from agent.collector import Collector

from . import report

DAY_S, HOUR_S, YEAR_S = 86400.0, 3600.0, 365 * 86400.0
DROPPED_AT_ONCE = 8  # records of one of the smallest segments
JUMPS_S = (0.0, 0.0, 3600.0, -3600.0, 10 * YEAR_S, -10 * YEAR_S, 2 * YEAR_S, -2 * YEAR_S)
LICENCE: dict[str, Any] = {"only": "licence", "durability": "process"}
AGED: dict[str, Any] = {**LICENCE, "max_age_days": 90}


class _Local(FakeClock):
    """The machine's clock: the true one, and how far it is off."""

    def __init__(self, true: FakeClock) -> None:
        super().__init__(true.at)
        self.true, self.off_s = true, 0.0

    def time(self) -> float:
        return self.true.at + self.off_s

    def monotonic(self) -> float:
        return self.true.since_boot


def _flush(product: agent.Agent) -> None:
    """A pass that skips our own backoff."""
    product._delivery.skip = ("backoff",)
    pass_(product)


def _reports(collector: Collector) -> dict[str, int]:
    """What reports of drops that were sent said, by the event that they are known by."""
    found = [
        (one["headers"].get("idempotency-key", ""), fields(one)) for one in collector.requests()
    ]
    return {
        id: int(given["numeric_data_single_value"])
        for id, given in found
        if given["data_group"] == "agent-dropped"
    }


def _walk(chance: random.Random, place: Path) -> report.Row:
    """Runs with clocks that are off by years, forward and back; then a right one, and a network."""
    true = FakeClock()
    local = _Local(true)
    row = report.Row("clocks that jump", rounds=1)
    captured: set[str] = set()
    early = waiting = 0
    with Collector(clock=true) as collector:
        settings = config(collector.url, collector.public_keys, place, **AGED)
        for number in range(12):
            last = number == 11
            local.off_s = 0.0 if last else chance.choice(JUMPS_S)
            collector.fault(None if last else chance.choice((None, "refuse", "stale")))
            with agent.Agent(settings, ("demo-license-key", "activation-1"), clock=local) as made:
                for n in range(chance.randint(1, 4)):
                    text = "run %d, %d" % (number, n)
                    if made.record_text(text, data_group="g"):
                        captured.add(text)
                    if chance.random() < 0.3:
                        local.off_s = 0.0 if last else chance.choice(JUMPS_S)
                    pass_(made)
                    true.advance(chance.choice((1.0, 60.0, HOUR_S)))
                for _ in range(4 if last else 1):
                    _flush(made)
                    true.advance(HOUR_S if not last else 1.0)
                status = made.status()
                waiting = status["pending"] + status["dead"]
                early += status["not_recorded"].get("dropped", 0)
            true.advance(chance.choice((60.0, HOUR_S, DAY_S)))
        texts = {one["fields"].get("text_data", "") for one in collector.records()}
    row.recorded, row.delivered = len(captured), len(texts & captured)
    # One whose answer came too late waits although it was delivered.
    row.lost = max(0, row.recorded - row.delivered - waiting)
    row.figure("wait for a day that their clock had", waiting)
    row.breaks(early, "%d dropped although none was old" % early)
    return row


def _lost_answer(chance: random.Random, place: Path) -> report.Row:
    """The server takes a report, its answer is lost, it is sent again: under the same event id."""
    row = report.Row("the report's answer is lost", rounds=1)
    with desk(place) as at:
        count = chance.randint(200, 300)
        with at.agent(**LICENCE, max_bytes=40_000, max_records=1_000) as product:
            for n in range(count):
                product.record_text("%d" % n, data_group="g")
            dropped = product.status()["not_recorded"]["dropped"]
            unanswered = chance.randint(1, 3)
            at.collector.fault("drop-answer", count=unanswered)
            for _ in range(20):
                product.flush()
                at.clock.advance(7 * HOUR_S)
        by_id = _reports(at.collector)
        texts = set(at.texts()) - {""}
    said, gone = sum(by_id.values()), count - len(texts)
    row.recorded, row.delivered = count, len(texts) + said
    row.lost = max(0, count - row.delivered)
    row.figure("dropped", gone)
    row.figure("reported", said)
    # A record whose answer was lost may make room, and is told of, like any other.
    most = gone + unanswered * DROPPED_AT_ONCE
    row.breaks(not gone <= said <= most, "dropped %d, reported %d" % (gone, said))
    row.breaks(dropped > gone, "status() counts %d dropped of %d" % (dropped, gone))
    return row


def _sixty_days(
    days: int, chance: random.Random, place: Path, progress: report.Progress
) -> report.Row:
    """One process, records every few hours, a network that comes and goes."""
    clock, network = FakeClock(), Network()
    given = config("http://127.0.0.1:9", (), place, durability="process")
    row = report.Row("%d days in one process" % days, rounds=1)
    ends_at = clock.at + days * DAY_S
    wakes, next_day, down_sent, outages = 0, clock.at, 0, 0
    seen: list[dict[str, int]] = []
    try:
        with agent.Agent(given, ("key", "activation"), clock=clock, transport=network) as product:
            row.recorded += 2 * bool(product.call_home())
            pass_(product)  # loads what delivering needs
            tracemalloc.start()
            while clock.at < ends_at:
                was, before = network.up, len(network.sent)
                network.up = chance.random() < 0.7
                outages += was and not network.up
                for act in chance.sample(("home", "value", "track", "count"), 2):
                    if act == "home":
                        row.recorded += 2 * bool(product.call_home())
                    elif act == "value":
                        row.recorded += bool(product.record_value(1.5, data_group="g"))
                    elif act == "track":
                        row.recorded += bool(product.track("EXPORT"))
                    else:
                        product.count("RENDER")
                wakes += len(work_until(product, clock, clock.at + chance.uniform(1, 8) * HOUR_S))
                down_sent += 0 if network.up else len(network.sent) - before
                if clock.at >= next_day:
                    next_day += DAY_S
                    seen.append(_used(place))
                    progress.step("days", len(seen), days)
            network.up = True
            clock.advance(DAY_S)
            row.lost = product.flush().pending
            sums = product._delivery.totals["delivered"]
    finally:
        tracemalloc.stop()
    row.delivered = row.recorded - row.lost
    early, late = seen[len(seen) // 4 : len(seen) // 2], seen[-len(seen) // 4 :]
    for name, slack in (
        ("threads", 0),
        ("files open", 3),  # a segment of each class
        ("files", 6),
        ("bytes", 100_000),
        ("memory", 250_000),
    ):
        most, later = (max(one[name] for one in part) for part in (early, late))
        row.figure("%s in the last quarter" % name, later)
        row.breaks(later > most + slack, "%s grew from %d to %d" % (name, most, later))
    # Two endpoints, each with a backoff that doubles up to six hours, anew for each outage.
    most = 2 * (14 * outages + 8 * days)
    row.breaks(down_sent > most, "%d requests without a network" % down_sent)
    row.figure("wakes", wakes)
    row.figure("requests", len(network.sent))
    row.figure("of them in %d outages" % outages, down_sent)
    row.breaks(sums < row.recorded, "%d delivered of %d" % (sums, row.recorded))
    return row


def _used(place: Path) -> dict[str, int]:
    descriptors = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    return {
        "threads": threading.active_count(),
        "files open": len(os.listdir(descriptors)),
        "files": len(os.listdir(place)),
        "bytes": size_of(place),
        "memory": tracemalloc.get_traced_memory()[0],
    }


def run(
    rounds: int, chance: random.Random, progress: report.Progress, place: Path
) -> list[report.Row]:
    rows: dict[str, report.Row] = {}

    def add(row: report.Row) -> None:
        rows.setdefault(row.treatment, report.Row(row.treatment)).add(row)

    for number in range(rounds):
        own = place / str(number)
        own.mkdir()
        for walk in range(4):
            add(_walk(chance, own / ("walk%d" % walk)))
        add(_lost_answer(chance, own / "answer"))
        progress.step("clocks and counts", number + 1, rounds)
    add(_sixty_days(60 if rounds >= 10 else 4, chance, place / "days", progress))
    return list(rows.values())
