"""Eight processes that record, offline, far more than fits; the directory measured from outside all the time."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Optional

from support.spool import child, done, look, size_of

from agent.spool import names

from . import report

WRITERS = 8

# name, max_bytes, max_records, bytes of a text (from, to), with everything else that takes room
KINDS = (
    ("tiny records", 400_000, 100_000, (1, 60), False),
    ("64 KB records", 6_000_000, 100_000, (60_000, 64_000), False),
    ("a number of records", 50_000_000, 640, (1, 400), False),
    ("dead letters, sidecars, facts, history", 1_000_000, 100_000, (1, 3_000), True),
)

WRITER = """
import random
number, rounds, max_bytes, max_records, least, most, mixed = map(int, sys.argv[2:9])
chance = random.Random(number)
from agent.spool.records import Record
acked = [0]

def dropped(count, id, told=0):
    body = {"data_group": "agent-dropped", "numeric_data_single_value": str(count)}
    kept = target.record(Record("licence", "server", id, START, body), sync=False)
    if kept != DISK:
        print("a report was not kept", file=sys.stderr)
        acked[0] -= count

target = spool(directory, max_bytes=max_bytes, max_records=max_records, power=False, dropped=dropped)
sys.stdin.readline()
for n in range(rounds):
    id = "%d-%d" % (number, n)
    text = "x" * chance.randint(least, most)
    if mixed and n % 3 == 1:
        one = Record("usage", "reo", id, START, {"activity_type": text})
    else:
        one = licence(id, text)
    if mixed and n % 7 == 2:
        acked[0] += target.bury(one, "rejected: HTTP 400")
    else:
        acked[0] += target.record(one, sync=False) == DISK
    if mixed and n % 40 == 39:
        claim = target.claim()
        if claim is not None:
            target.backlog.refresh()
            for count, record in enumerate(target.backlog.waiting()):
                if count >= 5:
                    break
                target.backlog.ledger.begin(record)
                target.backlog.ledger.end(record, settled=False, proofs=n)
                target.history.add({"at": n, "reason": "x" * 200})
            lane = target.facts.lane("tag")
            lane.back_off(START + n, 0.5, "offline")
            target.facts.save(lane)
            target.release(claim)
print(acked[0])
"""


def measured(directory: Path) -> Optional[int]:
    """The bytes of a directory, None where files came or went meanwhile: then nobody knows them together."""
    try:
        before = sorted(os.listdir(directory))
        size = size_of(directory)
        return size if sorted(os.listdir(directory)) == before else None
    except FileNotFoundError:
        return None


def _quota(
    kind: tuple[str, int, int, tuple[int, int], bool], records: int, place: Path
) -> report.Row:
    name, max_bytes, max_records, (least, most), mixed = kind
    directory = place / name.split()[0]
    arguments = (records, max_bytes, max_records, least, most, int(mixed))
    children = [child(WRITER, n, *arguments, directory=directory) for n in range(WRITERS)]
    for process in children:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    largest = samples = 0
    while any(process.poll() is None for process in children):
        size = measured(directory)
        samples += size is not None
        largest = max(largest, size or 0)
        time.sleep(0.001)
    acked = sum(int(done(process, 300)) for process in children)
    largest = max(largest, size_of(directory))
    reading = look(directory)
    found = [*reading.records(), *reading.records(dead=True)]
    reports = [record for record in found if record.weight > 1 or record.id.startswith("dropped-")]
    there = len(found) - len(reports)
    counted = sum(record.weight for record in reports)
    row = report.Row(
        "8 writers offline: " + name,
        rounds=1,
        recorded=acked,
        delivered=there + counted,
        lost=max(0, acked - there - counted),
    )
    row.note = "most %d of %d bytes in %d samples; %d kept, %d in %d reports" % (
        largest, max_bytes, samples, there, counted, len(reports))  # fmt: skip
    if there + counted > acked:
        row.broken.append("%d counted twice" % (there + counted - acked))
    if largest > max_bytes + WRITERS * (most + 400):
        row.broken.append("%d bytes above the quota" % (largest - max_bytes))
    if there > max_records + WRITERS:
        row.broken.append("%d records above the quota" % (there - max_records))
    if not counted:
        row.broken.append("nothing was dropped: not far more than fits")
    return row


def run(
    rounds: int, chance: random.Random, progress: report.Progress, place: Path
) -> list[report.Row]:
    rows = []
    kinds = KINDS[3:] if rounds == 1 else KINDS
    for number, kind in enumerate(kinds):
        progress.step("quota", number + 1, len(kinds), kind[0])
        # Three times and more of what fits.
        most = sum(kind[3]) / 2 + 130
        fits = min(kind[1] / most, kind[2])
        records = int(fits * (1.3 if rounds == 1 else 4) / WRITERS)
        rows.append(_quota(kind, records, place))
    rows.append(_order(chance, place / "order"))
    return rows


def _order(chance: random.Random, place: Path) -> report.Row:
    """Dead usage, dead licence, counters and usage, licence; each with a report of what went."""
    from support.spool import DISK, Record, licence, spool

    from .bounds_spool import fill

    classes = list("lucxy" * 3)
    chance.shuffle(classes)
    for at, class_ in enumerate(classes):
        fill(place, 20, segments=1, at=1000.0 + at, text="x" * 700, class_=class_)
    # The same ids lie in several classes, and one record is known by its id: make them differ.
    for path in place.glob("*.seg"):
        _renamed(path)
    reports: list[int] = []

    def dropped(count: int, id: str, told: int = 0) -> None:
        reports.append(count)
        body = {"numeric_data_single_value": str(count)}
        target.record(Record("licence", "server", id, 0.0, body), sync=False)

    target = spool(place, max_bytes=300_000, power=False, dropped=dropped)
    row = report.Row("eviction order", rounds=1, recorded=300)
    gone: list[str] = []
    left = {path.name for path in place.glob("*.seg")}
    for n in range(2_000):
        if target.record(licence("new-%d" % n, "x" * 1_000), sync=False) != DISK or not left:
            break
        now = {path.name for path in place.glob("*.seg")}
        gone += sorted(
            left - now, key=lambda name: (names.EVICTION.index(name[0]), names.order(name))
        )
        left &= now
    if [name[0] for name in gone] != sorted((n[0] for n in gone), key=names.EVICTION.index):
        row.broken.append("wrong order: " + "".join(name[0] for name in gone))
    row.delivered = 20 * len(gone)
    row.lost = 300 - row.delivered
    row.note = "%d segments went in the order %s, in %d reports" % (
        len(gone), "".join(name[0] for name in gone), len(reports))  # fmt: skip
    return row


def _renamed(path: Path) -> None:
    from agent import jsonline

    lines = []
    for line in path.read_bytes().splitlines():
        value = jsonline.decode(line)
        value["id"] = path.name[15:23] + value["id"]
        lines.append(jsonline.encode(value))
    path.write_bytes(b"".join(lines))
