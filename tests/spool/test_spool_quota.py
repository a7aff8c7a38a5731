"""Bounds: bytes, records; who goes first, and that every loss is counted once, by whoever finds the spool full.

Many writers at once, and dead letters among what goes: ``campaign/bounds_quota.py``.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.spool import (
    Calls,
    Dropped,
    FakeClock,
    begin,
    deliver,
    done,
    keep,
    licence,
    line,
    look,
    size_of,
    spool,
    usage,
    waiting,
    write_segment,
)

from agent import files, lines
from agent.spool.record import DROPPED
from agent.spool.store import DISK, FULL, MEMORY

pytestmark = pytest.mark.once


@pytest.fixture
def full(place: Path) -> Path:
    """A segment of 40 records, 36 KB."""
    return write_segment(place, [line("id-%d" % n, "x" * 900) for n in range(40)], ms=1)


def counted(place: Path) -> tuple[int, int]:
    """(records that wait, records that reports on disk say were dropped)."""
    found = list(look(place).records())
    reports = [record for record in found if record.id.startswith(DROPPED)]
    return len(found) - len(reports), sum(record.weight for record in reports)


def test_whoever_looks_beside_an_eviction_sends_no_record_into_memory(place: Path) -> None:
    target, over = spool(place, power=False, max_bytes=20_000), threading.Event()

    def look_on() -> None:
        while not over.is_set():
            target.census()

    with ThreadPoolExecutor(2) as pool:
        looking = [pool.submit(look_on) for _ in range(2)]
        many = range(150 if os.name == "nt" else 1500)  # under Wine each takes ten times as long
        kept = {target.record(licence("id-%d" % n, "x" * 200), sync=False) for n in many}
        over.set()
    assert kept == {DISK} and not any(one.result() for one in looking)


@pytest.mark.parametrize("max_records", [1, 3, 64, 200])
def test_every_record_is_on_disk_or_in_the_count_of_a_report(place: Path, max_records: int) -> None:
    target = spool(place, power=False, max_records=max_records)
    for n in range(1, 301):
        assert target.record(licence("id-%d" % n, "x" * 60), sync=False) == DISK
        if not n % 60:
            there, lost = counted(place)
            assert there + lost == n
            # Reports are records too: one of them may come on top.
            assert there <= max_records and len(waiting(place)) <= max_records + 1


MANY = """
target = spool(directory, power=False, max_bytes=60_000)
sys.stdin.readline()
print(*[target.record(licence("%s-%d" % (sys.argv[2], n), "x" * 900), sync=False) for n in range(60)])
"""


def test_what_twelve_processes_evict_is_what_they_report(place: Path) -> None:
    said = " ".join([done(process) for process in begin(MANY, 12, directory=place)]).split()
    there, lost = counted(place)
    assert there + lost == said.count(DISK) and lost


def test_of_many_that_find_it_full_at_once_one_makes_room(place: Path, calls: Calls) -> None:
    """16 processes evicted 16 segments, 15 of licence, where one would do."""
    for ms in range(4):
        write_segment(place, [line("%d-%03d" % (ms, n), "x" * 900) for n in range(100)], ms=ms)
    target, other = spool(place, max_bytes=400_000), spool(place, max_bytes=400_000)
    begun: list[str] = []

    def other_is_quicker(path: str, **_: Any) -> None:
        if not begun:
            begun.append(path)
            keep(other, "other", text="x" * 3000)

    calls.fail("locked", 0, other_is_quicker, of=files)
    keep(target, "one", text="x" * 3000)
    assert begun and counted(place) == (302, 100)


def test_a_record_that_can_never_fit_evicts_nobody(place: Path) -> None:
    target = spool(place, max_bytes=50_000)
    keep(target, "a")
    target.seal()
    assert target.record(licence("b", "x" * 60_000), sync=True) == MEMORY
    assert target.record(usage("u" * 60_000, 1), sync=True) == FULL
    assert "quota" in target.trouble and waiting(place) == ["a"]
    keep(target, "c")
    assert deliver(target) == ["a", "c", "b"]  # by this run
    assert deliver(target) == [] and target.trouble == {}


def test_whoever_waits_too_long_for_room_gives_up(place: Path, full: Path) -> None:
    with files.open_append(str(place / "agent.room")) as room:
        assert room.lock()
        began = time.monotonic()
        assert spool(place, max_bytes=30_000).record(usage("u", 1), sync=False) == FULL
        assert 0.15 < time.monotonic() - began < 5
    assert len(waiting(place)) == 40
    assert spool(place, max_bytes=30_000).record(usage("u", 1), sync=False) == DISK


def test_the_deliverer_keeps_a_part_free_so_that_others_need_not_evict(place: Path) -> None:
    target = spool(place, max_bytes=200_000)
    fill(target, 300)
    deliver(target, limit=1, outcome="held")
    assert size_of(place) <= 200_000 * 15 // 16
    dropped = Dropped()
    fill(spool(place, max_bytes=200_000, report=dropped), 7)
    assert dropped == []


def fill(target: Any, count: int, name: str = "new") -> None:
    for n in range(count):
        target.record(licence("%s-%d" % (name, n), "x" * 900), sync=False)


def test_nothing_that_a_living_process_writes_is_evicted(place: Path) -> None:
    other = spool(place, max_bytes=100_000)
    keep(other, "theirs")
    fill(spool(place, power=False, max_bytes=100_000), 150)
    keep(other, "theirs too")
    assert {"theirs", "theirs too"} <= set(waiting(place))


def test_what_is_nothing_is_not_counted_when_it_goes_and_a_newer_format_is(
    place: Path, full: Path
) -> None:
    """Nothing: settled, or refused."""
    dropped = Dropped()
    newer = [lines.encode({"v": 2, "k": "licence", "pad": "x" * 900}) for _ in range(3)]
    full.write_bytes(full.read_bytes() + b"".join(newer))
    refused = [usage("u-%d" % n, epoch=999).to_json() for n in range(40)]
    write_segment(place, list(map(lines.encode, refused)), class_="u", ms=1)
    spool(place).consent.ensure()
    assert len(deliver(spool(place), limit=30)) == 30
    fill(spool(place, max_bytes=60_000, report=dropped), 40)
    assert dropped[0][0] == 10 + 3


def test_the_evicted_report_hands_its_count_on(place: Path) -> None:
    fill(spool(place, power=False, max_bytes=20_000), 250)
    there, lost = counted(place)
    assert there + lost == 250 and len(waiting(place)) < 40
    for odd in ("", "-1", "1e9", "9" * 40, "\u0665"):
        assert 1 <= licence("dropped-x-" + odd).weight <= 9
    assert licence("dropped-x-41").weight == 41 and licence("x-41").weight == 1


def test_a_report_that_cannot_be_written_keeps_what_it_would_report(
    place: Path, full: Path, calls: Calls
) -> None:
    calls.fail("write", 28, lambda fd, data: b'"dropped-' in data)
    target = spool(place, max_bytes=30_000)
    assert target.record(licence("a"), sync=True) == MEMORY
    assert len(waiting(place)) == 40


def test_without_anybody_to_tell_what_goes_goes_all_the_same(place: Path) -> None:
    fill(spool(place, power=False, max_bytes=30_000, report=lambda count, id: None), 100)
    assert size_of(place) <= 31_000 and len(waiting(place)) > 20


def test_a_segment_that_cannot_be_truncated_is_passed_over_and_reported_once(
    place: Path, full: Path, calls: Calls
) -> None:
    inode, dropped = full.stat().st_ino, Dropped()
    calls.fail("ftruncate", 1, lambda fd, size: os.fstat(fd).st_ino == inode)
    fill(spool(place, power=False, max_bytes=60_000, report=dropped), 100)
    assert len(waiting(place)) > 40 and full.exists()
    assert [count for count, _ in dropped].count(40) == 1


def test_where_locks_do_not_work_nothing_young_is_evicted(place: Path, calls: Calls) -> None:
    calls.fail_locks(37)
    target = spool(place, max_bytes=20_000)
    kept = [target.record(licence("id-%d" % n, "x" * 900), sync=False) for n in range(40)]
    assert kept.count(DISK) >= 15 and kept[-1] == MEMORY and "quota" in target.trouble
    assert target.record(usage("u" * 900, 1), sync=False) == FULL
    assert len(deliver(target)) == 40  # it always reports


def test_a_living_crowd_larger_than_the_number_of_segments_finds_room(place: Path) -> None:
    for n, target in enumerate([spool(place, max_bytes=1_000_000) for _ in range(150)]):
        keep(target, "id-%d" % n)
    assert len(waiting(place)) == 150


def test_threads_that_record_and_deliver_at_once_do_not_disturb_one_another(place: Path) -> None:
    target = spool(place, max_bytes=200_000, power=False)
    sent: list[str] = []

    def looks() -> int:
        for _ in range(20):
            target.sync()
            target.census()
            sent.extend(deliver(target, limit=3))
        return 0

    works: list[Callable[[], object]] = [lambda: fill(target, 200), lambda: fill(target, 200, "b")]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(3) as pool:
            for under_way in [pool.submit(work) for work in [*works, looks]]:
                under_way.result(60)
    finally:
        sys.setswitchinterval(before)
    assert target.trouble == {}
    there, lost = counted(place)
    # What is evicted while it is under way may be counted and delivered.
    gone = sum(licence(id).weight for id in sent)
    assert 400 <= there + lost + gone <= 400 + len(sent) and len(set(sent)) == len(sent)


def test_thousands_of_segments_cost_the_next_start_little(place: Path) -> None:
    for n in range(3_000):
        write_segment(place, [line("id-%d" % n, "x" * 60)], ms=n)
    target, dropped = spool(place, max_records=100_000), Dropped()
    began = time.perf_counter()
    keep(target, "new")
    assert time.perf_counter() - began < (0.5 if os.name == "posix" else 3)
    keep(spool(place, power=False, max_records=2_700, report=dropped), "newer", text="x" * 20_000)
    assert 300 <= sum(count for count, _ in dropped) <= 400 and len(dropped) < 5
    assert len(deliver(target)) > 2_500


def test_a_clock_far_off_harms_no_quota(place: Path) -> None:
    for at in (-5e9, 0.0, 4e12):
        keep(spool(place, clock=FakeClock(at)), "at-%d" % at)
    assert len(waiting(place)) == 3
