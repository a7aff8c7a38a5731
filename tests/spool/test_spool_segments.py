"""What a writer, a reader and a reaper do to one segment: torn, taken over, purged, forked.

Files cut at each byte, flipped, copied, joined, edited: ``campaign/damage.py``.
"""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from support.spool import (
    ROOT,
    START,
    Calls,
    deliver,
    keep,
    licence,
    line,
    look,
    segments,
    spool,
    waiting,
    window,
    write_segment,
)
from support.systems import of_posix

from agent import lines
from agent.spool import record as records
from agent.spool.store import MEMORY

# --- lines --------------------------------------------------------------------------------------


def test_a_line_of_the_notes_checks_and_is_known_and_every_kind_is_shown() -> None:
    notes = (ROOT / "vendor_notes" / "SPOOL.md").read_text("utf-8")
    kinds = set()
    for example in re.findall(r"^[0-9a-f]{8} .*$", notes, re.MULTILINE):
        value = lines.decode(example.encode("ascii"))
        assert lines.encode(value) == example.encode("ascii") + b"\n"
        kinds.add(value["k"])
        if value["k"] in records.KINDS:
            assert isinstance(records.parse(value), records.Record)
    expected = {"licence", "usage", "aggregate", "export", "book", "record", "lane", "floor"}
    assert expected | {"home", "import"} <= kinds


@pytest.mark.parametrize(
    "change",
    [{"at": 10**400}, {"at": True, "b": 1}, {"k": "other"}, {"v": "1"}, {"v": 0}, {"id": 7}]
    + [{"r": 1}, {"c": 1.5}, {"end": "x"}, {"end": 1e12}, {"b": []}, {"at": "1"}],
)
def test_a_line_that_checks_but_is_no_record_is_damage(place: Path, change: Any) -> None:
    write_segment(place, [lines.encode({**licence("a").to_json(), **change}), line("b")])
    assert waiting(place) == ["b"] and look(place).census()["damaged"] == 1


# --- writers ------------------------------------------------------------------------------------


def append(path: Path, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)


def test_a_torn_tail_is_left_to_its_writer_and_goes_without_one(place: Path) -> None:
    target, other = spool(place), spool(place)
    keep(target, "a")
    (path,) = segments(place)
    append(path, line("b")[:-10])
    assert deliver(other) == ["a"] and segments(place) == [path]
    assert look(place).census()["damaged"] == 0
    append(path, line("b")[-10:])
    assert deliver(other) == ["b"]
    append(path, b"0000")
    target.seal()
    assert deliver(other) == [] and segments(place) == []


@pytest.mark.parametrize("what", ["file", *of_posix("directory")])
def test_a_failed_sync_puts_the_record_once_more_elsewhere_and_adopts_nothing(
    place: Path, calls: Calls, what: str
) -> None:
    """The next sync of a file may succeed without the pages that were lost."""
    write_segment(place, [line("old")], ms=2**43)
    target, other = spool(place), spool(place)
    keep(other, "theirs")  # in the old one
    later = write_segment(place, [line("later")], ms=2**43 + 9)
    syncs: list[int] = []

    def fails(fd: int) -> bool:
        syncs.append(fd)
        if len(syncs) != 1 + (what == "directory"):
            return False
        other.seal()  # and so there is something to adopt
        write_segment(place, [line("latest")], ms=2**43 + 99)
        return True

    calls.fail("fsync", 5, fails)
    keep(target, "b", "c")
    assert later.read_bytes().count(b'"id"') == 2  # adopted, before the failure
    (fresh,) = [path for path in segments(place) if b'"c"' in path.read_bytes()]
    assert fresh.read_bytes().count(b'"id"') == 2
    assert sorted(waiting(place)) == ["b", "c", "later", "latest", "old", "theirs"]


def test_a_record_whose_disk_refuses_twice_stays_in_memory_and_is_sent_once(
    place: Path, calls: Calls
) -> None:
    """Both lines may be whole on disk all the same."""
    target = spool(place)
    calls.fail("fsync", 5)
    assert target.record(licence("a"), sync=True) == MEMORY
    calls.heal()
    assert deliver(target) == ["a"] and not target.memory
    target.seal()
    assert deliver(spool(place)) == [] and segments(place) == []


def test_a_file_system_that_cannot_sync_a_directory_is_no_trouble(
    place: Path, calls: Calls
) -> None:
    calls.fail("fsync", 22, lambda fd: os.path.isdir("/proc/self/fd/%d" % fd))
    target = spool(place)
    keep(target, "a")
    assert target.trouble == {} and len(segments(place)) == 1


@pytest.mark.parametrize(
    "how", ["truncated", "longer", *of_posix("unlinked", "another in its place")]
)
def test_a_record_goes_elsewhere_once_its_segment_is_no_longer_what_its_writer_knows(
    place: Path, how: str
) -> None:
    target = spool(place)
    keep(target, "a")
    (path,) = segments(place)
    if how == "truncated":
        os.truncate(path, 0)
    elif how == "longer":
        append(path, line("somebody's"))
    else:
        path.unlink()
    if how == "another in its place":
        path.touch(0o600)
    keep(target, "b", "c")
    assert {"b", "c"} <= set(waiting(place)) <= {"a", "b", "c", "somebody's"}
    assert path not in segments(place) or path.stat().st_size < 400
    assert sum(b'"c"' in path.read_bytes() for path in segments(place)) == 1


def test_processes_that_record_once_and_end_share_a_segment_that_nobody_writes(
    place: Path,
) -> None:
    first = spool(place)
    keep(first, "a")
    for n in range(20):
        target = spool(place)
        keep(target, "id-%02d" % n)
        target.seal()
    keep(first, "b")
    assert len(segments(place)) == 2
    assert sorted(waiting(place)) == ["a", "b", *("id-%02d" % n for n in range(20))]


@pytest.mark.parametrize(
    "content",
    [b"noise\n", b"", b"torn", lines.encode({**licence("a").to_json(), "v": 2})],
    ids=["damaged", "empty", "torn", "newer"],
)
def test_a_segment_that_is_not_plainly_ours_is_not_taken_over(place: Path, content: bytes) -> None:
    path = write_segment(place, [line("old"), content] if content else [])
    before = path.read_bytes()
    keep(spool(place), "new")
    assert path.read_bytes() == before and len(list(place.glob("*.seg"))) == 2


# --- counters -----------------------------------------------------------------------------------


def sent(target: Any) -> dict[str, int]:
    """What can be sent now: the counts by id."""
    assert target.claim()
    found = {record.id: record.body["count"] for record in target.waiting(())}
    target.release()
    return found


def test_a_full_segment_is_let_go_only_after_its_successor_holds_every_window(
    place: Path, calls: Calls
) -> None:
    """A window between two segments was taken for closed, and sent with 5 of 40."""
    target, other = spool(place, max_bytes=64_000), spool(place)  # segments of 1,000 bytes
    epoch = target.consent.ensure()
    idle = window("idle", 7, epoch)
    assert target.keep_counters([idle], [idle])
    found: list[dict[str, int]] = []
    looks = [False]

    def at_each_call(*_: object) -> None:
        if not looks[0]:
            looks[0] = True
            found.append(sent(other))
            looks[0] = False

    calls.fail("fsync", 0, at_each_call)
    calls.fail("close", 0, at_each_call)
    for n in range(1, 41):
        busy = window("busy", n, epoch)
        assert target.keep_counters([busy], [busy, idle])
    calls.heal()
    assert len(found) > 40 and not any(found)
    target.seal()
    assert sent(other) == {"idle": 7, "busy": 40}
    deliver(other)
    assert segments(place) == []


def test_a_window_found_unlocked_may_go_on_in_a_segment_that_was_not_seen_yet(place: Path) -> None:
    """The reader knew the old segment alone; its writer moved on between the reading and the look at the lock."""
    target, other = spool(place, max_bytes=64_000), spool(place)
    epoch = target.consent.ensure()
    first = window("a", 5, epoch)
    assert target.keep_counters([first], [first])
    assert other.claim()
    later = other.waiting(())
    for n in range(6, 20):
        more = window("a", n, epoch)
        assert target.keep_counters([more], [more])
    assert len(segments(place, "c")) > 1
    assert list(later) == []
    other.release()
    target.seal()
    assert sent(other) == {"a": 19}


@pytest.mark.parametrize("what", ["failed sync", "refused", *of_posix("purged")])
def test_counters_whose_segment_is_gone_are_written_whole_elsewhere(
    place: Path, calls: Calls, what: str
) -> None:
    target, other = spool(place), spool(place)
    epoch = target.consent.ensure()
    a, b = window("a", 5, epoch), window("b", 6, epoch)
    assert target.keep_counters([a, b], [a, b])
    if what == "purged":
        segments(place, "c")[0].unlink()
    elif what == "failed sync":
        calls.fail("fsync", 5, times=1)
    else:
        calls.fail("write", 28)
        assert not target.keep_counters([window("a", 6, epoch)], [a, b])
        assert target.trouble["counters"]
        calls.heal()
        assert sent(other) == {}, "no window is closed by it"
    a = window("a", 9, epoch)
    assert target.keep_counters([a], [a, b]) and target.trouble == {}
    target.seal()
    assert sent(other) == {"a": 9, "b": 6}


# --- what goes, and what stays ------------------------------------------------------------------


def test_what_is_settled_leaves_the_disk_also_where_its_writer_lives(place: Path) -> None:
    target, other = spool(place), spool(place)
    keep(target, "a")
    keep(other, "b")
    assert sorted(deliver(target)) == ["a", "b"]
    assert [path.read_bytes().count(b'"id":"b"') for path in segments(place)] == [1]
    other.seal()
    deliver(target)
    assert not list(place.glob("*.seg"))  # closed first: Windows unlinks no open file


# ENOLCK, EOPNOTSUPP, EINVAL, EBADF, EACCES, which says on Windows that a lock is held.
@pytest.mark.parametrize("error", [37, 95, 22, 9, *of_posix(13)])
def test_without_locks_delivery_goes_on_and_nothing_young_is_reaped(
    place: Path, calls: Calls, error: int
) -> None:
    calls.fail_locks(error)
    target, other = spool(place), spool(place)
    keep(target, "a")
    target.seal()
    assert deliver(other) == ["a"] and not other.book.alone
    assert deliver(other) == [] and len(segments(place)) == 1
    old = START - 8 * 86400
    os.utime(segments(place)[0], (old, old))
    assert deliver(other) == [] and segments(place) == []
