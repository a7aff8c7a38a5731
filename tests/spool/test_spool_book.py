"""The book: attempts, answers, dead letters, facts and history, as several processes and several lives see them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.spool import (
    START,
    book,
    child,
    deliver,
    done,
    keep,
    licence,
    line,
    look,
    segments,
    spool,
    usage,
    verdict,
    waiting,
    window,
    write_segment,
)

from agent import files, lines
from agent.spool import book as books
from agent.spool.store import MEMORY, Spool


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "state"


def attempt(target: Spool, id: str = "", *, counted: int = 0, end: bool = True) -> str:
    """Try one record, as one pass: the first that waits, or this one; its id."""
    assert target.claim()
    for record in target.waiting(()):
        if id in ("", record.id):
            assert target.try_(record)
            if end:
                target.end(record, failed=True, counted=counted)
            target.release()
            return record.id
    raise AssertionError("nothing waits")


def state(place: Path, id: str) -> tuple[int, int, bool, int]:
    """(failed, counted, left open, suspicion) as a process that has just started finds it."""
    target = look(place)
    found = {record.id: record for record in [*target.records(), *target.records(dead=True)]}
    known = target.attempts(found[id])
    return known.failed, known.counted, known.left_open, known.suspicion


def grow(target: Spool, by: int) -> None:
    """Facts of no weight, until the book is so much longer."""
    path = Path(target.directory or "") / "agent.book"
    size = path.stat().st_size
    while path.stat().st_size < size + by:
        target.note_fact("filler", "x", n=os.urandom(8).hex())


# --- attempts -----------------------------------------------------------------------------------


def test_attempts_are_absolute_and_outlive_reading_twice_and_compaction(place: Path) -> None:
    """Increments doubled at each compaction: 6, 12, 24, 48."""
    keep(spool(place), "a", "b")
    for n in range(3):
        attempt(spool(place), "a", counted=n % 2)
    assert state(place, "a") == (3, 1, False, 1)
    path = place / "agent.book"
    path.write_bytes(path.read_bytes() * 2)
    assert state(place, "a") == (3, 1, False, 1)
    for _ in range(4):
        grow(spool(place), 300_000)
        deliver(spool(place), limit=0)
        assert state(place, "a") == (3, 1, False, 1)
    assert path.stat().st_size < 400_000
    assert waiting(place) == ["b", "a"]


CRASH = """
target = spool(directory)
assert target.claim()
record = next(iter(target.waiting(())))
assert target.try_(record)
os.kill(os.getpid(), 9)
"""


def test_a_record_that_was_under_way_when_its_process_died_goes_last_and_counts_once(
    place: Path,
) -> None:
    keep(spool(place), "a", "b")
    child(CRASH, directory=place).communicate(timeout=30)
    for _ in range(3):
        assert state(place, "a") == (0, 0, True, 1)
    assert waiting(place) == ["b", "a"]
    assert attempt(spool(place), "a") == "a"
    assert state(place, "a") == (1, 0, False, 0)


def test_an_attempt_of_our_own_run_is_not_held_against_its_record(place: Path) -> None:
    keep(spool(place), "a")
    target = spool(place)
    for _ in range(3):
        attempt(target, end=False)
        (record,) = target.records()
        assert target.attempts(record).suspicion == 0


def test_without_locks_an_open_attempt_may_be_that_of_a_living_process(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.File, "lock", lambda file: None)
    keep(spool(place), "a")
    one, two = spool(place), spool(place)
    for _ in range(3):
        attempt(one, end=False)
        assert two.claim()
        (record,) = two.records()
        assert two.attempts(record).suspicion == 0
        two.release()


def test_what_failed_goes_last_while_its_endpoint_is_doubted(place: Path) -> None:
    keep(spool(place), "a", "b", "c")
    attempt(spool(place), "a")
    target = spool(place)
    assert target.claim()
    assert [record.id for record in target.waiting(["server"])] == ["b", "c", "a"]
    assert [record.id for record in target.waiting(["other"])] == ["a", "b", "c"]
    target.release()


def test_a_record_is_loaded_again_when_its_turn_comes(place: Path) -> None:
    """Another process may have evicted, delivered or replaced it meanwhile."""
    path = write_segment(place, [line("a"), line("b"), line("c")])
    target = spool(place)
    assert target.claim()
    found = target.waiting(())
    assert next(found).id == "a"
    path.write_bytes(line("a") + line("x") + line("c"))
    assert [record.id for record in found] == ["c"]
    target.release()


# --- settled ------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["delivered", "flagged"])
def test_what_is_settled_stays_so_in_a_segment_that_stays(place: Path, outcome: str) -> None:
    newer = lines.encode({"v": 9, "k": "licence"})  # never removed, and so is its segment
    write_segment(place, [line("a"), newer, line("b")])
    assert deliver(spool(place), outcome=outcome) == ["a", "b"]
    for _ in range(2):
        grow(spool(place), 300_000)
        assert deliver(spool(place)) == [] and waiting(place) == []


@pytest.mark.parametrize("how", ["torn", "noise", "doubled", "older line", "zeros", "emptied"])
def test_damage_to_the_book_repeats_at_most_and_settles_nothing(place: Path, how: str) -> None:
    write_segment(place, [line("a"), line("b")])
    assert deliver(spool(place), limit=1) == ["a"]
    path = place / "agent.book"
    whole = path.read_bytes()
    older = lines.encode(["end", "server", "a", 1, 0])
    path.write_bytes(
        {
            "torn": whole[:-10],
            "noise": b"\x00" * 4096 + b"\nnoise\n" + whole,
            "doubled": whole * 2,
            "older line": whole + older,
            "zeros": bytes(len(whole)),
            "emptied": b"",
        }[how]
    )
    repeated = how in ("torn", "zeros", "emptied")
    assert sorted(deliver(spool(place))) == ["a"] * repeated + ["b"]
    assert segments(place) == [] and deliver(spool(place)) == []


def test_a_writer_that_died_in_a_line_swallows_no_later_entry(place: Path) -> None:
    write_segment(place, [line(id) for id in "abc"])
    for id in "abc":
        assert deliver(spool(place), limit=1) == [id]
        with open(place / "agent.book", "ab") as file:
            file.write(b'0badc0de ["answer","server","b"')
        spool(place).note_fact("fact", id)
        fresh = look(place)
        fresh.refresh_facts()
        assert fresh.fact("fact", id)
    assert segments(place) == []


def test_a_book_of_another_generation_is_read_from_its_start(place: Path) -> None:
    """Two inodes alternate on a quiet ext4: 657 records were delivered twice."""
    write_segment(place, [line("a"), line("b"), lines.encode({"v": 9, "k": "licence"})])
    reader, writer = spool(place), spool(place)
    deliver(writer, limit=1)
    assert reader.census()["pending"] == {"server": 1}
    path = place / "agent.book"
    for n in range(20):
        content = [lines.encode({"v": 1, "k": "book", "tag": "%016x" % n, "size": 0})]
        content += [
            lines.encode(["answer", "server", "ab"[n % 2], "delivered", START, 830, "", None])
        ]
        content += [lines.encode({"v": 1, "k": "filler", "tag": "x", "pad": "x" * 50 * n})]
        os.unlink(path)
        path.write_bytes(b"".join(content))
        path.chmod(0o600)
        (left,) = reader.records()
        assert left.id == "ba"[n % 2]


def test_a_book_that_was_replaced_meanwhile_takes_no_answer_with_it(place: Path) -> None:
    """Where locks do not work two deliverers may compact."""
    write_segment(place, [line("a"), line("b"), lines.encode({"v": 9, "k": "licence"})])
    target = spool(place)
    assert target.claim()
    for record in target.waiting(()):
        assert target.try_(record)
        head = lines.encode({"v": 1, "k": "book", "tag": os.urandom(8).hex(), "size": 0})
        files.replace(str(place / "agent.book"), head)
        target.answer(record, verdict("delivered"), START)
    target.release()
    assert waiting(place) == ["a"]  # what the other did not know is sent again


def test_a_book_that_cannot_be_written_is_known_in_memory_until_it_can(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_segment(place, [line("a"), line("b"), line("c")])
    target = spool(place)
    real = files.File.write

    def write(file: files.File, data: bytes) -> None:
        if file.path.endswith("agent.book"):
            raise OSError(28, "No space left on device")
        real(file, data)

    monkeypatch.setattr(files.File, "write", write)
    assert deliver(target, limit=1) == ["a"]  # the segment can be truncated
    assert deliver(target, limit=1) == ["b"] and waiting(place) == ["a", "b", "c"]
    monkeypatch.undo()
    target.note_fact("any", "thing")
    assert waiting(place) == ["c"]
    assert deliver(target) == ["c"] and segments(place) == []


def test_what_can_neither_be_written_nor_removed_is_not_sent(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_segment(place, [line("a")])
    target, real = spool(place), os.open

    def read_only(path: str, flags: int, *more: Any, **named: Any) -> int:
        if flags & (os.O_RDWR | os.O_CREAT):
            raise OSError(30, "Read-only file system")
        return real(path, flags, *more, **named)

    monkeypatch.setattr(os, "open", read_only)
    assert target.record(licence("b"), sync=True) == MEMORY
    assert deliver(target) == ["b"]  # what is in memory is
    assert "ead-only" in target.trouble["write"] and "lock" in target.trouble


# --- dead letters -------------------------------------------------------------------------------


def test_a_dead_letter_keeps_its_place_and_its_reason_and_may_come_back(place: Path) -> None:
    target = spool(place)
    keep(target, "a", "b")
    for _ in range(3):
        attempt(target, "a", counted=1)
        assert deliver(target, outcome="rejected") == ["b", "a"]
        assert waiting(place) == [] and waiting(place, dead=True) == ["b", "a"]
        census = look(place).census()
        assert (census["pending"], census["dead"]) == ({}, 2)
        grow(target, 300_000)
        deliver(target)
        assert sorted(waiting(place, dead=True)) == ["a", "b"]
        assert target.claim() and target.revive() == 2
        target.release()
        assert waiting(place) == ["a", "b"] and state(place, "a") == (0, 0, False, 0)
    assert sorted(deliver(spool(place))) == ["a", "b"]
    target.seal()
    deliver(target)
    assert waiting(place, dead=True) == [] and segments(place) == []
    assert look(place).history(99)[-1]["verdict"] == "delivered"


# --- aged and exported --------------------------------------------------------------------------


def test_what_is_dropped_for_its_age_is_reported_first_under_one_id(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spool(place)
    keep(target, "a", "b", "c")
    old = list(target.records())[:2]
    assert target.claim()
    with monkeypatch.context() as patch:
        patch.setattr(target, "_report", refused := Refused())
        assert target.drop(old, why="age") == 0 and refused.count == 2
    assert target.drop(old, why="age") == 2 and target.drop(old, why="age") == 0
    target.release()
    ids = waiting(place)
    assert ids[0] == "c" and ids[1].startswith("dropped-") and ids[1].endswith("-2")
    assert look(place).history(9) == []
    assert target.claim()
    assert target.drop(list(target.records()), why="export") == 2
    target.release()
    assert waiting(place) == []


class Refused:
    """A report that cannot be made."""

    def __call__(self, count: int, id: str) -> Any:
        self.count = count
        raise OSError(28, "No space left on device")


# --- memory -------------------------------------------------------------------------------------


def test_records_in_memory_are_moved_to_the_disk_once_and_in_order(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spool(place)
    keep(target, "a")

    def full(file: files.File, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.File, "write", full)
    assert [target.record(licence(id), sync=True) for id in "bcd"] == [MEMORY] * 3
    assert target.census()["pending"] == {"server": 4}
    assert deliver(target, limit=0) == [] and len(target.memory) == 3
    monkeypatch.undo()
    for _ in range(2):
        assert deliver(target, limit=0) == []
    assert target.memory == [] and waiting(place) == ["a", "b", "c", "d"]
    assert sum(path.read_bytes().count(b'"id"') for path in segments(place)) == 4
    assert deliver(target) == ["a", "b", "c", "d"]


def test_settled_records_of_memory_are_forgotten() -> None:
    target = spool(None)
    for n in range(50):
        assert target.record(licence("id-%d" % n), sync=True) == MEMORY
        assert deliver(target) == ["id-%d" % n]
    assert not target.memory and len(target.history(99)) == 50


# --- facts --------------------------------------------------------------------------------------


def test_facts_are_known_to_every_process_and_the_last_one_counts(place: Path) -> None:
    one, two = spool(place), spool(place)
    keep(one, "a")
    one.note_fact("lane", "tag", failures=1)
    one.note_fact("floor", "tag", floor=7)
    two.refresh_facts()
    assert two.fact("lane", "tag")["failures"] == 1 and two.fact("floor", "tag")["floor"] == 7
    two.note_fact("lane", "tag", failures=2)
    size = (place / "agent.book").stat().st_size
    two.note_fact("lane", "tag", failures=2)
    assert (place / "agent.book").stat().st_size == size
    one.refresh_facts()
    assert one.fact("lane", "tag")["failures"] == 2 and one.fact("lane", "none") == {}


def test_facts_that_cannot_be_written_are_remembered(place: Path) -> None:
    target = spool(place / "nowhere" / "yet")
    target.note_fact("lane", "tag", failures=3)
    target.refresh_facts()
    assert target.fact("lane", "tag")["failures"] == 3 and not place.exists()
    keep(target, "a")
    target.note_fact("lane", "other", failures=1)
    assert look(place / "nowhere" / "yet").fact("lane", "tag") == {}  # not read yet
    fresh = look(place / "nowhere" / "yet")
    fresh.refresh_facts()
    assert fresh.fact("lane", "tag")["failures"] == 3


def test_compaction_keeps_the_newest_lanes_and_whatever_it_does_not_know(place: Path) -> None:
    target = spool(place)
    keep(target, "a")
    unknown: list[Any] = [{"v": 2, "k": "lane", "tag": "x"}, ["moon", "server", "x", 1], {"odd": 1}]
    target.note_fact("import", "0123456789abcdef")
    with open(place / "agent.book", "ab") as file:
        file.write(b"noise\n" + b"".join(map(lines.encode, unknown)))
    for n in range(books.LANES + 6):
        target.note_fact("lane", "tag-%d" % n, failures=n)
    grow(target, 300_000)
    deliver(target, limit=0)
    values = book(place)
    assert len(values) < 100 and None not in values
    assert all(value in values for value in unknown)
    lanes = {value["tag"] for value in values if type(value) is dict and value.get("k") == "lane"}
    assert lanes - {"x"} == {"tag-%d" % n for n in range(6, books.LANES + 6)}
    fresh = look(place)
    fresh.refresh_facts()
    assert fresh.fact("import", "0123456789abcdef") and fresh.fact("lane", "tag-9")["failures"] == 9


def test_compaction_keeps_open_attempts_and_origins(place: Path) -> None:
    target = spool(place)
    epoch = target.consent.ensure()
    one = window("sum", 3, epoch, ended_at=START)
    assert target.keep_counters([one], [])
    keep(target, "a")
    assert target.claim()
    for record in target.waiting(()):
        if record.kind == "aggregate":
            record.body["domain"] = "acme.example"
        assert target.try_(record, sync=record.kind == "aggregate")
    grow(target, 300_000)
    target.release()
    assert (place / "agent.book").stat().st_size < 5000
    found = {record.id: record for record in look(place).records()}
    assert found["sum"].body["domain"] == "acme.example"
    assert state(place, "a") == (0, 0, True, 1)


def test_a_book_that_was_compacted_grows_to_twice_its_size_before_the_next(place: Path) -> None:
    write_segment(place, [line("id-%05d" % n) for n in range(4000)] + [lines.encode({"v": 9})])
    assert len(deliver(spool(place))) == 4000
    sizes, heads = [], set()
    for _ in range(6):
        grow(spool(place), 60_000)
        deliver(spool(place))
        sizes.append((place / "agent.book").stat().st_size)
        heads.add(book(place)[0]["tag"])
    assert len(heads) <= 3 and max(sizes) < 1_200_000
    assert waiting(place) == []


TWO = """
from agent import files
files.File.lock = lambda file: None   # locks do not work
target = spool(directory, max_bytes=20_000)
for n in range(150):
    target.note_fact("lane", sys.argv[2], n=n)
    deliver(target)
print(target.trouble)
"""


def test_two_that_compact_at_once_leave_no_file_behind(place: Path) -> None:
    keep(spool(place), "a")
    for process in [child(TWO, n, directory=place) for n in range(3)]:
        assert done(process).strip() == "{}"
    assert not list(place.glob("*.tmp")) and (place / "agent.book").stat().st_size < 20_000


def test_temporary_files_of_an_hour_ago_are_removed(place: Path) -> None:
    keep(spool(place), "a")
    young, old = (place / ("agent.book.%016x.tmp" % n) for n in range(2))
    for path in (young, old, place / "notes.tmp"):
        path.touch()
        os.utime(path, (START, START) if path != young else None)
    deliver(spool(place))
    assert young.exists() and not old.exists() and (place / "notes.tmp").exists()


# --- history ------------------------------------------------------------------------------------


def test_history_tells_answers_in_order_and_survives_compaction_bounded(place: Path) -> None:
    target = spool(place)
    for n in range(books.ANSWERS + 50):
        keep(target, "id-%d" % n)
        assert target.claim()
        (record,) = target.waiting(())
        target.told(record, verdict("held", code=101, reason="no"), START + n)
        target.answer(record, verdict("flagged", code=831, errors={"a": ["b"]}), START + n)
        target.release()
    grow(target, 300_000)
    deliver(target)
    assert (place / "agent.book").stat().st_size < 60_000
    for found in (target.history(3), look(place).history(3)):
        assert [answer["verdict"] for answer in found] == ["flagged", "held", "flagged"]
        assert found[-1] == {
            "at": START + books.ANSWERS + 49,
            "endpoint": "server",
            "kind": "licence",
            "event_id": "id-%d" % (books.ANSWERS + 49),
            "verdict": "flagged",
            "code": 831,
            "reason": "",
            "errors": {"a": ["b"]},
        }
    assert target.history(0) == [] and len(target.history(9999)) == books.ANSWERS


def test_no_text_of_a_usage_server_is_kept(place: Path) -> None:
    target = spool(place)
    target.record(usage("u", target.consent.ensure()), sync=True)
    assert target.claim()
    (record,) = target.waiting(())
    target.told(record, verdict("retry", reason="CANARY", errors={"CANARY": ["x"]}), START)
    target.answer(record, verdict("rejected", reason="CANARY"), START)
    target.release()
    assert [answer["verdict"] for answer in target.history(9)] == ["retry", "rejected"]
    assert b"CANARY" not in (place / "agent.book").read_bytes()
    target.refuse_usage()
    assert target.history(9) == [] and look(place).history(9) == []
