"""Bounds: quotas under many writers, 100,000 pending records, two months in one process, drop counts.

``--rounds`` says how often each fresh process of the curve is measured; from ten on the sizes are those of the full
form. The curve stands in the notes of its rows.
"""

import os
import random
import threading
import time
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any, Optional

from support.agent import FakeClock, config, pass_, work_until
from support.scripted import Network
from support.spool import DISK, Dropped, licence, look, size_of, spool

import agent

from . import report
from .bounds_curve import curve
from .bounds_spool import fill
from .processes import Child, said, together

ROUNDS, SHORT_ROUNDS = 15, 1


# -- quotas --------------------------------------------------------------------------------------

WRITERS = 8
EVICTION = "cul"

# name, max_bytes, max_records, bytes of a text (from, to), with everything else that takes room
KINDS = (
    ("tiny records", 400_000, 100_000, (1, 60), False),
    ("64 KB records", 6_000_000, 100_000, (60_000, 64_000), False),
    ("a number of records", 50_000_000, 640, (1, 400), False),
    ("dead letters, attempts, facts, history", 1_000_000, 100_000, (1, 3_000), True),
)


def measured(directory: Path) -> Optional[int]:
    """The bytes of a directory, None where files came or went meanwhile: then nobody knows them together."""
    try:
        before = sorted(os.listdir(directory))
        size = size_of(directory)
        return size if sorted(os.listdir(directory)) == before else None
    except FileNotFoundError:
        return None


def _quota(kind: tuple[Any, ...], times: float, directory: Path) -> report.Row:
    """So many times what fits is recorded."""
    name, max_bytes, max_records, sizes, mixed = kind
    records = int(min(max_bytes / (sum(sizes) / 2 + 130), max_records) * times / WRITERS)
    given = {"max_bytes": max_bytes, "max_records": max_records, "sizes": sizes, "mixed": mixed}
    given.update(place=str(directory), records=records)
    writers = [partial(Child, "bounds_spool", "writer", number=n, **given) for n in range(WRITERS)]
    largest = samples = 0
    with together(*writers) as children:
        while any(one.process.poll() is None for one in children):
            size = measured(directory)
            samples += size is not None
            largest = max(largest, size or 0)
            time.sleep(0.001)
        acked = sum(map(int, said(children)))
    largest = max(largest, size_of(directory))
    reading = look(directory)
    found = [*reading.records(), *reading.records(dead=True)]
    reports = [record for record in found if record.id.startswith("dropped-")]
    there = len(found) - len(reports)
    counted = sum(record.weight for record in reports)
    row = report.Row("8 writers offline: " + name, rounds=1, recorded=acked)
    row.delivered, row.lost = there + counted, max(0, acked - there - counted)
    figures = (largest, max_bytes, samples, there, counted, len(reports))
    row.note = "most %d of %d bytes in %d samples; %d kept, %d in %d reports" % figures
    row.breaks(there + counted > acked, "%d counted twice" % (there + counted - acked))
    above = largest - max_bytes
    row.breaks(above > WRITERS * (sizes[1] + 400), "%d bytes above the quota" % above)
    row.breaks(there > max_records + WRITERS, "%d records above the quota" % (there - max_records))
    row.breaks(not counted, "nothing was dropped: not far more than fits")
    return row


def _order(chance: random.Random, place: Path) -> report.Row:
    """Counters, usage, licence, oldest first, beside an idle deliverer; each with a report of what went."""
    classes = list(EVICTION * 5)
    chance.shuffle(classes)
    for at, class_ in enumerate(classes):
        fill(place, 20, segments=1, at=1000.0 + at, text="x" * 700, class_=class_)

    def turn(name: str) -> tuple[int, str]:
        return EVICTION.index(name[0]), name[2:]

    reports, idle = Dropped(), spool(place)
    assert idle.claim()
    target = spool(place, max_bytes=300_000, power=False, report=reports)
    row = report.Row("eviction order", rounds=1, recorded=300)
    left = {path.name for path in place.glob("*.seg")}
    gone: list[str] = []
    for n in range(2_000):
        if target.record(licence("new-%d" % n, "x" * 1_000), sync=False) != DISK or not left:
            break
        now = {path.name for path in place.glob("*.seg")}
        gone += sorted(left - now, key=turn)
        left &= now
    order = "".join(name[0] for name in gone)
    row.breaks(gone != sorted(gone, key=turn), "wrong order: %s" % gone)
    row.delivered = 20 * len(gone)
    row.lost = 300 - row.delivered
    row.note = "%d segments went in the order %s, in %d reports" % (len(gone), order, len(reports))
    return row


# -- two months ----------------------------------------------------------------------------------

DAY_S, HOUR_S = 86400.0, 3600.0


def _sixty_days(days: int, chance: random.Random, place: Path) -> report.Row:
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


# -- the campaign --------------------------------------------------------------------------------


def run(*, rounds: int, seed: int, progress: report.Progress, work: Path) -> list[report.Row]:
    """Every treatment in turn; the sizes of the full form from ten rounds on."""
    chance, short = random.Random(seed), rounds < 10
    rows: dict[str, report.Row] = {}

    def add(*found: report.Row) -> None:
        for row in found:
            rows.setdefault(row.treatment, report.Row(row.treatment)).add(row)

    for number, kind in enumerate(KINDS[3:] if rounds == 1 else KINDS):
        add(_quota(kind, 1.3 if rounds == 1 else 4, work / ("quota%d" % number)))
    add(_order(chance, work / "order"))
    progress.say("quotas were held")
    rows.update({row.treatment: row for row in curve(rounds, chance, progress, work)})
    add(_sixty_days(4 if short else 60, chance, work / "days"))
    return list(rows.values())
