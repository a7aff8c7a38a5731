"""Bounds: bytes, records; who goes first, and that every loss is counted once, by whoever finds the spool full."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.spool import (
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
    verdict,
    waiting,
    window,
    write_segment,
)

from agent import lines
from agent.spool.record import DROPPED
from agent.spool.store import DISK, FULL, MEMORY

pytestmark = pytest.mark.once


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "state"


def counted(place: Path) -> tuple[int, int]:
    """(records that wait, records that reports on disk say were dropped)."""
    found = list(look(place).records())
    reports = [record for record in found if record.id.startswith(DROPPED)]
    return len(found) - len(reports), sum(record.weight for record in reports)


@pytest.mark.parametrize("max_records", [1, 2, 3, 10, 64, 200])
def test_every_record_is_on_disk_or_in_the_count_of_a_report(place: Path, max_records: int) -> None:
    target = spool(place, max_records=max_records)
    for n in range(1, 301):
        assert target.record(licence("id-%d" % n, "x" * 60), sync=False) == DISK
        if not n % 60:
            there, lost = counted(place)
            assert there + lost == n
            # Reports are records too: one of them may come on top.
            assert there <= max_records and len(waiting(place)) <= max_records + 1


@pytest.mark.parametrize("max_bytes", [40_000, 200_000, 1_000_000])
def test_the_directory_never_exceeds_its_bytes_by_more_than_a_record(
    place: Path, max_bytes: int
) -> None:
    target = spool(place, max_bytes=max_bytes)
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
target = spool(directory, max_bytes=400_000, power=False)
sys.stdin.readline()
print(sum(target.record(licence("%s-%d" % (sys.argv[2], n), "x" * 500), sync=False) == "disk" for n in range(200)))
"""


def test_many_writers_together_stay_below_the_quota_and_count_what_goes(place: Path) -> None:
    """No deliverer among them."""
    children = [child(WRITER, n, directory=place) for n in range(8)]
    for process in children:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    most = 0
    while any(process.poll() is None for process in children):
        if place.exists():
            most = max(most, size_of(place))
        time.sleep(0.002)
    kept = sum(int(done(process)) for process in children)
    assert 200_000 < most <= 400_000 + 8 * 1200
    there, lost = counted(place)
    assert kept == there + lost and kept > 1500


ONE = """
target = spool(directory, max_bytes=400_000)
sys.stdin.readline()
print(target.record(licence(sys.argv[2], "x" * 3000), sync=True))
"""


def test_of_many_that_find_it_full_at_once_one_makes_room(place: Path) -> None:
    """16 processes evicted 16 segments, 15 of licence, where one would do."""
    for ms in range(4):
        write_segment(place, [line("%d-%03d" % (ms, n), "x" * 900) for n in range(100)], ms=ms)
    children = [child(ONE, n, directory=place) for n in range(6)]
    for process in children:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    assert [done(process).strip() for process in children] == [DISK] * 6
    there, lost = counted(place)
    assert lost in (100, 200) and there + lost == 406


@pytest.mark.parametrize("suspended", ["claimed", "nobody"])
def test_eviction_needs_no_deliverer_and_the_oldest_usage_goes_before_licence(
    place: Path, suspended: str
) -> None:
    epoch = spool(place).consent.ensure()
    order = []
    for ms, class_ in enumerate("luc" * 2):
        one = {"l": licence, "u": usage, "c": window}[class_]
        records = [one("%d-%d" % (ms, n), *[1] * (class_ == "c")) for n in range(120)]  # type: ignore[operator]
        for record in records:
            record.epoch = epoch
            record.body["pad"] = "x" * 200
        content = [lines.encode(record.to_json()) for record in records]
        order.append((class_, ms, write_segment(place, content, class_=class_, ms=ms)))
    other = spool(place)
    assert suspended == "nobody" or other.claim()
    gone: list[Path] = []
    target = spool(place, max_bytes=400_000)
    for n in range(1000):
        if target.record(licence("new-%d" % n, "x" * 2000), sync=False) != DISK:
            break
        gone += [path for _, _, path in order if not path.exists() and path not in gone]
        if len(gone) == 6:
            break
    expected = sorted(order, key=lambda entry: ("cul".index(entry[0]), entry[1]))
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
    assert target.record(usage("u" * 60_000, 1), sync=True) == FULL
    assert "quota" in target.trouble and waiting(place) == ["a"]
    keep(target, "c")
    assert deliver(target) == ["a", "c", "b"]  # by this run
    assert deliver(target) == [] and target.trouble == {}


def fill(target: Any, count: int, name: str = "new") -> None:
    for n in range(count):
        target.record(licence("%s-%d" % (name, n), "x" * 900), sync=False)


def test_what_is_nothing_is_not_counted_when_it_goes(place: Path) -> None:
    """Settled, or refused."""
    dropped = Dropped()
    write_segment(place, [line("id-%d" % n, "x" * 900) for n in range(40)], ms=1)
    refused = [usage("u-%d" % n, epoch=999).to_json() for n in range(40)]
    write_segment(place, list(map(lines.encode, refused)), class_="u", ms=1)
    spool(place).consent.ensure()
    assert len(deliver(spool(place), limit=30)) == 30
    target = spool(place, max_bytes=60_000, report=dropped)
    fill(target, 40)
    assert dropped[0][0] == 10


def test_lines_of_a_newer_format_count_when_they_go(place: Path) -> None:
    dropped = Dropped()
    newer = [lines.encode({"v": 2, "k": "licence", "pad": "x" * 9000}) for _ in range(3)]
    write_segment(place, [*newer, line("a")], ms=1)
    fill(spool(place, max_bytes=40_000, report=dropped), 20)
    assert dropped[0][0] == 4


def test_the_evicted_report_hands_its_count_on(place: Path) -> None:
    target = spool(place, max_bytes=20_000)
    fill(target, 500)
    there, lost = counted(place)
    assert there + lost == 500 and len(waiting(place)) < 40
    for odd in ("", "-1", "1e9", "9" * 40, "\u0665"):
        assert 1 <= licence("dropped-x-" + odd).weight <= 9
    assert licence("dropped-x-41").weight == 41 and licence("x-41").weight == 1


def test_a_report_that_cannot_be_written_keeps_what_it_would_report(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_segment(place, [line("id-%d" % n, "x" * 900) for n in range(40)], ms=1)
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if b'"dropped-' in data:
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    target = spool(place, max_bytes=30_000)
    assert target.record(licence("a"), sync=True) == MEMORY
    assert len(waiting(place)) == 40


def test_without_anybody_to_tell_what_goes_goes_all_the_same(place: Path) -> None:
    target = spool(place, max_bytes=30_000, report=lambda count, id: None)
    fill(target, 100)
    assert size_of(place) <= 31_000 and len(waiting(place)) > 20


def test_a_segment_that_cannot_be_truncated_is_passed_over_and_reported_once(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = Dropped()
    first = write_segment(place, [line("id-%d" % n, "x" * 900) for n in range(20)], ms=1)
    inode = first.stat().st_ino
    real = os.ftruncate

    def ftruncate(fd: int, size: int) -> None:
        if os.fstat(fd).st_ino == inode:
            raise OSError(1, "Operation not permitted")
        real(fd, size)

    monkeypatch.setattr(os, "ftruncate", ftruncate)
    target = spool(place, max_bytes=40_000, report=dropped)
    fill(target, 100)
    assert len(waiting(place)) > 20 and first.exists()
    assert sum(id.startswith(DROPPED + first.name[15:31]) for _, id in dropped) == 1


def test_a_record_that_is_under_way_goes_only_where_nothing_else_is_left(place: Path) -> None:
    write_segment(place, [line("a", "x" * 9000)], ms=1)
    write_segment(place, [line("b", "x" * 9000)], ms=2)
    other = spool(place)
    assert other.claim()
    assert other.try_(next(iter(other.waiting(()))))
    target = spool(place, max_bytes=20_000)
    keep(target, "c", text="x" * 3000)
    assert "a" in waiting(place) and "b" not in waiting(place)
    for n in range(9):
        assert target.record(licence("d-%d" % n, "x" * 3000), sync=False) == DISK


def test_where_locks_do_not_work_nothing_young_is_evicted(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(fd: int, how: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    target = spool(place, max_bytes=20_000)
    kept = [target.record(licence("id-%d" % n, "x" * 900), sync=False) for n in range(40)]
    assert kept.count(DISK) >= 15 and kept[-1] == MEMORY and "quota" in target.trouble
    assert target.record(usage("u" * 900, 1), sync=False) == FULL
    assert len(deliver(target)) == 40  # it always reports


def test_whoever_waits_too_long_for_room_gives_up(place: Path) -> None:
    write_segment(place, [line("id-%d" % n, "x" * 900) for n in range(40)], ms=1)
    with open(os.open(place / "agent.room", os.O_CREAT | os.O_RDWR, 0o600), "wb") as room:
        fcntl.flock(room, fcntl.LOCK_EX)
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


def test_a_living_crowd_larger_than_the_number_of_segments_finds_room(place: Path) -> None:
    crowd = [spool(place, max_bytes=1_000_000) for _ in range(150)]
    for n, target in enumerate(crowd):
        keep(target, "id-%d" % n)
    assert len(waiting(place)) == 150


def test_dead_letters_count_and_go_like_what_waits(place: Path) -> None:
    target = spool(place, max_bytes=100_000)
    fill(target, 60, "dead")
    assert len(deliver(target, outcome="rejected")) == 60
    fill(target, 200)
    found = [*look(place).records(), *look(place).records(dead=True)]
    assert sum(record.weight for record in found) == 260
    assert size_of(place) <= 102_000


def test_threads_that_record_and_deliver_at_once_do_not_disturb_one_another(place: Path) -> None:
    target = spool(place, max_bytes=200_000, power=False)
    failures: list[BaseException] = []
    sent: list[str] = []

    def run(what: Callable[[int], object]) -> None:
        try:
            for n in range(200):
                what(n)
        except BaseException as error:  # noqa: B036 - shown below
            failures.append(error)

    def one_pass(n: int) -> None:
        if not n % 10 and target.claim():
            for number, record in enumerate(target.waiting(())):
                if number == 3:
                    break
                assert target.try_(record)
                target.answer(record, verdict("delivered"), 1.0)
                sent.append(record.id)
            target.release()

    works: list[Callable[[int], object]] = [
        lambda n: target.record(licence("a-%d" % n, "x" * 900), sync=False),
        lambda n: target.record(licence("b-%d" % n, "y" * 90), sync=False),
        one_pass,
        lambda n: target.census() if not n % 20 else target.sync(),
    ]
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(before)
    assert not failures and target.trouble == {}
    there, lost = counted(place)
    # What is evicted while it is under way may be counted and delivered.
    mine = sum(not id.startswith(DROPPED) for id in sent)
    handed = sum(licence(id).weight for id in sent if id.startswith(DROPPED))
    assert 400 <= there + lost + mine + handed <= 400 + len(sent)
    assert len(set(sent)) == len(sent)


def test_thousands_of_segments_cost_the_next_start_little(place: Path) -> None:
    for n in range(3_000):
        write_segment(place, [line("id-%d" % n, "x" * 60)], ms=n)
    target = spool(place, max_records=100_000)
    began = time.perf_counter()
    keep(target, "new")
    first_s = time.perf_counter() - began
    dropped = Dropped()
    began = time.perf_counter()
    keep(spool(place, max_records=2_700, report=dropped), "newer", text="x" * 20_000)
    evicting_s = time.perf_counter() - began
    print("beside 3,000 segments: %.3f s; with eviction: %.3f s" % (first_s, evicting_s))
    assert first_s < 0.5 and 300 <= sum(count for count, _ in dropped) <= 400 and len(dropped) < 5
    assert len(deliver(target)) > 2_500


def test_a_clock_far_off_harms_no_quota(place: Path) -> None:
    for at in (-5e9, 0.0, 4e12):
        keep(spool(place, clock=FakeClock(at)), "at-%d" % at)
    assert len(waiting(place)) == 3
    assert len(segments(place)) >= 1
