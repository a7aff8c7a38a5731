"""Eight processes that record, offline, far more than fits; the directory measured from outside all the time."""

from __future__ import annotations

import os
import random
import time
from functools import partial
from pathlib import Path
from typing import Any, Optional

from support.spool import DISK, Dropped, licence, look, size_of, spool

from . import report
from .bounds_spool import fill
from .processes import Child, said, together

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


def _quota(kind: tuple[Any, ...], records: int, place: Path) -> report.Row:
    name, max_bytes, max_records, sizes, mixed = kind
    directory = place / name.split()[0]
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


def run(
    rounds: int, chance: random.Random, progress: report.Progress, place: Path
) -> list[report.Row]:
    rows = []
    kinds = KINDS[3:] if rounds == 1 else KINDS
    for number, kind in enumerate(kinds):
        progress.step("quota", number + 1, len(kinds))
        # Three times and more of what fits.
        fits = min(kind[1] / (sum(kind[3]) / 2 + 130), kind[2])
        records = int(fits * (1.3 if rounds == 1 else 4) / WRITERS)
        rows.append(_quota(kind, records, place))
    rows.append(_order(chance, place / "order"))
    return rows
