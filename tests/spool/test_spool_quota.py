"""Bounds: bytes, records, dead letters, age; who goes first, and that every loss is counted once."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import pytest
from support.spool import (
    START,
    Dropped,
    FakeClock,
    child,
    deliver,
    done,
    keep,
    licence,
    line,
    look,
    segments,
    size_of,
    spool,
    usage,
    waiting,
    write_segment,
)

from agent.spool import names, quota
from agent.spool.records import DROPPED, Record
from agent.spool.store import DISK, MEMORY, Spool

pytestmark = pytest.mark.once


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "state"


class Reporter:
    """Records what was dropped as the agent does: as a record of its own, in the middle of another's append."""

    def __init__(self) -> None:
        self.spool: Optional[Spool] = None
        self.ids: list[str] = []

    def __call__(self, count: int, id: str, told: int = 0) -> None:
        assert self.spool is not None
        self.ids.append(id)
        body = {"data_group": "agent-dropped", "numeric_data_single_value": str(count)}
        assert self.spool.record(Record("licence", "server", id, START, body), sync=True) == DISK


def reporting(place: Path, **changes: Any) -> Spool:
    reporter = Reporter()
    reporter.spool = spool(place, dropped=reporter, **changes)
    return reporter.spool


def counted(place: Path) -> tuple[int, int]:
    """(records that wait, records that reports on disk say were dropped)."""
    found = list(look(place).records())
    reports = [record for record in found if record.id.startswith(DROPPED)]
    lost = sum(int(record.body["numeric_data_single_value"]) for record in reports)
    return len(found) - len(reports), lost


@pytest.mark.parametrize("max_records", [1, 2, 3, 10, 64, 200])
def test_every_record_is_on_disk_or_in_the_count_of_a_report(place: Path, max_records: int) -> None:
    target = reporting(place, max_records=max_records)
    for n in range(1, 301):
        assert target.record(licence("id-%d" % n), sync=False) == DISK
        if not n % 60:
            there, lost = counted(place)
            assert there + lost == n
            # Reports are records too: one of them may come on top.
            assert there <= max_records and len(waiting(place)) <= max_records + 1


@pytest.mark.parametrize("max_bytes", [40_000, 200_000, 1_000_000])
def test_the_directory_never_exceeds_its_bytes_by_more_than_a_record(
    place: Path, max_bytes: int
) -> None:
    target = reporting(place, max_bytes=max_bytes)
    size = 1000
    for n in range(2 * max_bytes // size):
        target.record(licence("id-%d" % n, "x" * size), sync=False)
        if not n % 10:
            assert size_of(place) <= max_bytes + 2 * size
    there, lost = counted(place)
    assert there + lost == 2 * max_bytes // size and there * size > max_bytes * 0.7
    # What is kept is the newest.
    kept = [int(id[3:]) for id in waiting(place) if id.startswith("id-")]
    assert sorted(kept) == list(range(2 * max_bytes // size - there, 2 * max_bytes // size))


WRITER = """
lost = []
target = spool(directory, max_bytes=400_000, power=False, dropped=lambda n, id, told=0: lost.append(n))
sys.stdin.readline()
kept = sum(target.record(licence("%s-%d" % (sys.argv[2], n), "x" * 500), sync=False) == DISK for n in range(200))
print(kept, sum(lost))
"""


def test_many_writers_together_stay_below_the_quota(place: Path) -> None:
    children = [child(WRITER, n, directory=place) for n in range(12)]
    for process in children:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    most = 0
    while any(process.poll() is None for process in children):
        if place.exists():
            most = max(most, size_of(place))
        time.sleep(0.002)
    results = [tuple(map(int, done(process).split())) for process in children]
    assert 200_000 < most <= 400_000 + 12 * 700
    kept, lost = (sum(numbers) for numbers in zip(*results))
    assert kept - lost == len(waiting(place))  # what is gone was reported, by one of them, once


def test_delivering_from_a_full_directory_does_not_exceed_it(place: Path) -> None:
    target = spool(place, max_bytes=200_000)
    for n in range(1500):
        target.record(licence("id-%d" % n, "x" * 100), sync=False)
        assert n % 5 or size_of(place) <= 200_000 - 3_000  # left for sidecars
    for number, record in enumerate(look(place).records()):
        if number >= 10:
            break
        target.backlog.ledger.begin(record)
        target.backlog.ledger.end(record, settled=False, proofs=number)
    target.facts.save(target.facts.lane("tag"))
    assert 180_000 < size_of(place) <= 200_000


def test_dead_usage_goes_first_and_licence_last(place: Path) -> None:
    body = [line("id-%d" % n, "x" * 900) for n in range(30)]
    order = []
    for ms, class_ in enumerate("lucxy" * 2):
        order.append((class_, ms, write_segment(place, body, class_=class_, ms=ms)))
    gone = []
    target = spool(place, max_bytes=310_000 + 310_000 // 60)
    for n in range(100_000):
        if target.record(licence("new-%d" % n, "x" * 2000), sync=False) != DISK:
            break
        gone += [path for _, _, path in order if not path.exists() and path not in gone]
        if len(gone) == 10:
            break
    expected = sorted(order, key=lambda entry: ("yxcul".index(entry[0]), entry[1]))
    assert gone == [path for _, _, path in expected]


def test_nothing_that_a_living_process_writes_is_evicted(place: Path) -> None:
    other = spool(place, max_bytes=100_000)
    keep(other, "theirs")
    target = spool(place, max_bytes=100_000)
    for n in range(300):
        target.record(licence("id-%d" % n, "x" * 900), sync=False)
    assert "theirs" in waiting(place)
    keep(other, "theirs too")
    assert {"theirs", "theirs too"} <= set(waiting(place))


def test_a_record_that_can_never_fit_evicts_nobody(place: Path) -> None:
    target = spool(place, max_bytes=50_000)
    keep(target, "a")
    target.seal()
    assert target.record(licence("b", "x" * 60_000), sync=True) == MEMORY
    assert "quota" in target.trouble
    assert waiting(place) == ["a"]
    keep(target, "c")
    assert deliver(target) == ["a", "c", "b"]  # by this run
    assert deliver(target) == [] and target.trouble == ""


def test_what_was_settled_is_not_reported_as_lost(place: Path) -> None:
    dropped = Dropped()
    write_segment(place, [line("id-%d" % n, "x" * 900) for n in range(40)], ms=1)
    assert len(deliver(spool(place), limit=30)) == 30
    target = spool(place, max_bytes=60_000, dropped=dropped)
    for n in range(40):
        target.record(licence("new-%d" % n, "x" * 900), sync=False)
    assert dropped[0][0] == 10


def test_the_count_of_a_report_that_is_dropped_goes_on(place: Path) -> None:
    body = {"numeric_data_single_value": "41"}
    report = Record("licence", "server", DROPPED + "x", START, body)
    assert report.weight == 41 and licence("x").weight == 1
    for odd in ("", "-1", "1e9", "9" * 40, "\u0665"):
        record = Record(
            "licence", "server", DROPPED + "x", START, {"numeric_data_single_value": odd}
        )
        assert 1 <= record.weight <= 9


def test_a_living_crowd_larger_than_the_number_of_segments_finds_room(place: Path) -> None:
    crowd = [spool(place, max_bytes=1_000_000) for _ in range(150)]
    for n, target in enumerate(crowd):
        keep(target, "id-%d" % n)
    assert len(waiting(place)) == 150


# --- dead letters -------------------------------------------------------------------------------


def test_dead_letters_stay_below_their_tenth_and_cost_the_living_nothing(place: Path) -> None:
    dropped = Dropped()
    target = spool(place, max_bytes=400_000, dropped=dropped)
    keep(target, *("id-%d" % n for n in range(100)))
    for n in range(400):
        assert target.bury(licence("dead-%d" % n, "x" * 900), "rejected: HTTP 400")
        assert sum(path.stat().st_size for path in segments(place, names.DEAD_CLASSES)) <= 40_000
    left = waiting(place, dead=True)
    assert left == ["dead-%d" % n for n in range(400 - len(left), 400)] and len(left) > 20
    assert sum(count for count, _ in dropped) == 400 - len(left)
    assert len(waiting(place)) == 100


def test_dead_letters_age_once_the_clock_is_corroborated(place: Path) -> None:
    dropped = Dropped()
    target = spool(place, dropped=dropped)
    assert target.bury(licence("old"), "rejected")
    target.seal()
    (path,) = segments(place)
    os.utime(path, (START, START))
    for before_at in (None, START - 1):
        target.sweep(before_at)
        assert waiting(place, dead=True) == ["old"]
    target.sweep(START + 1)
    assert waiting(place, dead=True) == [] and [count for count, _ in dropped] == [1]


def test_threads_that_record_and_bury_at_once_do_not_disturb_one_another(place: Path) -> None:
    target = reporting(place, max_bytes=200_000, power=False)
    failures: list[BaseException] = []

    def run(what: Callable[[int], object]) -> None:
        try:
            for n in range(300):
                what(n)
        except BaseException as error:  # noqa: B036 - shown below
            failures.append(error)

    works: list[Callable[[int], object]] = [
        lambda n: target.record(licence("a-%d" % n, "x" * 900), sync=False),
        lambda n: target.record(usage("b-%d" % n), sync=False),
        lambda n: target.bury(licence("c-%d" % n, "x" * 900), "rejected"),
        lambda n: target.sweep(START) if not n % 20 else target.sync(),
    ]
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    sys.setswitchinterval(before)
    assert not failures and target.trouble == ""
    found = [*look(place).records(), *look(place).records(dead=True)]
    assert sum(record.weight for record in found) == 900


def test_sweeping_waits_for_whoever_records(place: Path) -> None:
    target = spool(place)
    keep(target, "a")
    thread = threading.Thread(target=target.sweep, args=(START,))
    with target._lock:
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join(30)


def test_a_dead_letter_revived_and_dead_again_is_another_each_time(place: Path) -> None:
    target = spool(place)
    keep(target, "a")
    for n in range(3):
        target.backlog.refresh()
        (record,) = target.backlog.records()
        assert target.bury(record, "rejected %d" % n)
        target.backlog.ledger.end(record, settled=True)
        target.backlog.refresh()
        assert list(target.backlog.records()) == []
        (dead,) = target.backlog.records(dead=True)
        assert (dead.why, dead.revived, dead.id) == ("rejected %d" % n, n, "a")
        assert target.revive(dead)
        target.backlog.ledger.end(dead, settled=True)
        assert waiting(place, dead=True) == []
    target.seal()
    assert deliver(spool(place)) == ["a"] and deliver(spool(place)) == []


# --- many small files ---------------------------------------------------------------------------


def test_thousands_of_segments_cost_the_next_start_no_parsing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.mkdir(mode=0o700)
    for n in range(4_000):
        with open(place / names.segment("l", n), "wb", opener=private) as file:
            file.write(line("id-%d" % n))
    opened: list[str] = []
    real = quota.files.open_append

    def open_append(path: str, *, missing_ok: bool = True) -> int:
        opened.append(path)
        return real(path, missing_ok=missing_ok)

    monkeypatch.setattr(quota.files, "open_append", open_append)
    target = spool(place, max_records=100_000)
    began = time.perf_counter()
    keep(target, "new")
    print("first record beside 4,000 segments: %.0f ms" % (1000 * (time.perf_counter() - began)))
    assert len(opened) <= 4  # one of them is taken over
    del opened[:]
    # A quota of records that is exceeded costs one look at each, and then evicts many at once.
    dropped = Dropped()
    target = spool(place, max_records=3_600, dropped=dropped)
    began = time.perf_counter()
    keep(target, "newer")
    print("with the eviction of hundreds: %.0f ms" % (1000 * (time.perf_counter() - began)))
    assert 400 <= sum(count for count, _ in dropped) <= 600 and len(dropped) <= 20
    began = time.perf_counter()
    assert len(deliver(target)) > 3_000
    print("all of them delivered: %.1f s" % (time.perf_counter() - began))


def private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def test_a_clock_far_off_harms_no_quota(place: Path) -> None:
    for at in (-5e9, 0.0, 4e12):
        keep(spool(place, clock=FakeClock(at)), "at-%d" % at)
    assert len(waiting(place)) == 3
    assert spool(place).record(usage("u"), sync=False) == DISK
