"""The book: attempts, answers, dead letters, facts and history, as several processes and several lives see them."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from support.spool import (
    START,
    Calls,
    begin,
    book,
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
from support.systems import posix

from agent import files, lines
from agent.spool import book as books
from agent.spool.segment import Reading
from agent.spool.store import Spool

# A line that is never removed, and so is its segment.
NEWER = lines.encode({"v": 9, "k": "licence"})


@pytest.fixture
def target(place: Path) -> Spool:
    return spool(place)


def attempt(target: Spool, id: str = "", *, counted: int = 0, end: bool = True) -> str:
    """Try one record, as one pass: the first that waits, or this one; its id."""
    assert target.claim()
    for record in target.waiting(()):
        if id in ("", record.id):
            assert target.try_(record)
            if end:
                target.answer(record, verdict("offline"), START, failed=True, counted=counted)
            target.release()
            return record.id
    raise AssertionError("nothing waits")


def state(place: Path, id: str) -> tuple[int, int, bool, int]:
    """(failed, counted, left open, suspicion) as a process that has just started finds it."""
    target = look(place)
    found = {record.id: record for record in [*target.records(), *target.records(dead=True)]}
    known = target.book.states.get(found[id].key, books.UNTRIED)
    return known.failed, known.counted, known.left_open, known.suspicion


def compacted(place: Path) -> int:
    """The book is made so long that the next pass rewrites it; its size then."""
    path, target = place / "agent.book", spool(place)
    size = path.stat().st_size
    while path.stat().st_size < size + 300_000:
        target.book.note("filler", "x", n="x" * 9000 + os.urandom(8).hex())
    deliver(target, limit=0)
    assert path.stat().st_size < size + 100_000
    return path.stat().st_size


def test_a_thousand_planted_facts_push_out_no_endpoints_wait(place: Path) -> None:
    target = spool(place)
    keep(target, "a")
    for kind in ("lane", "floor"):
        target.book.note(kind, "ours", wait="held")
    for number in range(books.FACTS + 9):
        target.book.note("planted", str(number))
    target.book.note("lane", "later", wait="held")
    seen = look(place)
    seen.refresh()
    found = [seen.book.fact(*slot) for slot in (("lane", "ours"), ("floor", "ours"))]
    found += [seen.book.fact("lane", "later"), seen.book.fact("planted", str(books.FACTS))]
    assert all(found) and not seen.book.fact("planted", "0")


# --- attempts -----------------------------------------------------------------------------------


def test_attempts_are_absolute_and_outlive_reading_twice_and_compaction(
    place: Path, target: Spool
) -> None:
    """Increments doubled at each compaction: 6, 12, 24, 48."""
    keep(target, "a", "b")
    for n in range(3):
        attempt(spool(place), "a", counted=n % 2)
    assert state(place, "a") == (3, 1, False, 1)
    path = place / "agent.book"
    path.write_bytes(path.read_bytes() * 2)
    assert state(place, "a") == (3, 1, False, 1)
    for _ in range(4):
        compacted(place)
        assert state(place, "a") == (3, 1, False, 1)
    assert waiting(place) == ["b", "a"]


@pytest.mark.parametrize("locks", [True, False])
def test_an_attempt_of_our_own_run_or_of_one_that_may_live_is_not_held_against_its_record(
    place: Path, target: Spool, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    if not locks:
        monkeypatch.setattr(files.File, "lock", lambda file: None)
    keep(target, "a")
    other = target if locks else spool(place)
    for _ in range(3):
        attempt(target, end=False)
        assert other.claim()
        (record,) = other.records()
        assert other.book.states.get(record.key, books.UNTRIED).suspicion == 0
        other.release()


def test_a_record_is_loaded_again_when_its_turn_comes(place: Path, target: Spool) -> None:
    """Another process may have evicted, delivered or replaced it meanwhile."""
    path = write_segment(place, [line("a"), line("b"), line("c")])
    assert target.claim()
    found = target.waiting(())
    assert next(found).id == "a"
    path.write_bytes(line("a") + line("x") + line("c"))
    assert [record.id for record in found] == ["c"]
    path.write_bytes(line("z"))  # shorter: read from its start
    assert [record.id for record in target.records()] == ["z"]
    target.release()


# --- settled ------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["delivered", "flagged"])
def test_what_is_settled_stays_so_in_a_segment_that_stays(place: Path, outcome: str) -> None:
    write_segment(place, [line("a"), NEWER, line("b")])
    assert deliver(spool(place), outcome=outcome) == ["a", "b"]
    # Where locks do not work another may have tried it meanwhile.
    with open(place / "agent.book", "ab") as file:
        late = {"v": 1, "k": "record", "e": "server", "id": "a", "run": "0badcafe"}
        file.write(lines.encode(late))
    for _ in range(2):
        compacted(place)
        assert deliver(spool(place)) == [] and waiting(place) == []


def test_lines_in_another_order_bring_no_dead_letter_back(place: Path) -> None:
    """An editor, a merge or a repaired disk turned them round: a record that had been given up was sent."""
    write_segment(place, [line("a"), line("b"), NEWER])
    assert deliver(spool(place), outcome="rejected") == ["a", "b"]
    head, *rest = (place / "agent.book").read_bytes().splitlines(keepends=True)
    (place / "agent.book").write_bytes(head + b"".join(reversed(rest)))
    assert waiting(place) == [] and waiting(place, dead=True) == ["a", "b"]
    assert deliver(spool(place)) == []
    target = spool(place)
    assert target.claim() and target.revive() == 2
    target.release()
    assert deliver(spool(place)) == ["a", "b"]


def test_a_book_of_another_generation_is_read_from_its_start(place: Path) -> None:
    """Two inodes alternate on a quiet ext4: 657 records were delivered twice."""
    write_segment(place, [line("a"), line("b"), NEWER])
    reader = spool(place)
    deliver(spool(place), limit=1)
    assert reader.census()["pending"] == {"server": 1}
    path = place / "agent.book"
    for n in range(20):
        content = [lines.encode({"v": 1, "k": "book", "tag": "%016x" % n, "size": 0})]
        entry = {"v": 1, "k": "record", "e": "server", "id": "ab"[n % 2], "outcome": "delivered"}
        content.append(lines.encode(entry))
        content.append(lines.encode({"v": 1, "k": "filler", "tag": "x", "pad": "x" * 50 * n}))
        os.unlink(path)
        path.write_bytes(b"".join(content))
        path.chmod(0o600)
        (left,) = reader.records()
        assert left.id == "ba"[n % 2]


@posix
def test_a_book_that_was_replaced_meanwhile_takes_no_answer_with_it(
    place: Path, target: Spool
) -> None:
    """Where locks do not work two deliverers may compact."""
    write_segment(place, [line("a"), line("b"), NEWER])
    assert target.claim()
    for record in target.waiting(()):
        assert target.try_(record)
        head = lines.encode({"v": 1, "k": "book", "tag": os.urandom(8).hex(), "size": 0})
        files.replace(str(place / "agent.book"), head)
        target.answer(record, verdict("delivered"), START)
    target.release()
    assert waiting(place) == ["a"]  # what the other did not know is sent again


def test_a_book_that_cannot_be_written_is_known_in_memory_until_it_can(
    place: Path, target: Spool, calls: Calls
) -> None:
    write_segment(place, [line("a"), line("b"), line("c")])
    calls.fail("write", 28, lambda file, _: file.path.endswith("agent.book"), of=files.File)
    assert deliver(target, limit=1) == ["a"]  # the segment can be truncated
    assert deliver(target, limit=1) == ["b"] and waiting(place) == ["a", "b", "c"]
    files.replace(str(place / "agent.book"), lines.encode({"v": 1, "k": "book", "tag": "new"}))
    assert [record.id for record in target.records()] == ["c"]
    calls.heal()
    target.book.note("any", "thing")
    assert waiting(place) == ["c"]
    assert deliver(target) == ["c"] and segments(place) == []


# --- aged --------------------------------------------------------------------------------------


def test_what_is_dropped_for_its_age_is_reported_first_under_one_id(
    place: Path, target: Spool, calls: Calls
) -> None:
    keep(target, "a", "b", "c")
    old = list(target.records())[:2]
    assert target.claim()
    calls.fail("write", 28, lambda fd, data: b"dropped-" in data)
    assert target.drop(old, why="age") == 0
    calls.heal()
    assert target.drop(old, why="age") == 2 and target.drop(old, why="age") == 0
    target.release()
    ids = waiting(place)
    assert ids[0] == "c" and ids[1].startswith("dropped-") and ids[1].endswith("-2")
    assert look(place).history(9) == []
    assert target.claim()
    assert target.drop(list(target.records()), why="export") == 2
    target.release()
    assert waiting(place) == []


# --- facts --------------------------------------------------------------------------------------


def test_facts_that_cannot_be_written_are_remembered(place: Path, target: Spool) -> None:
    target.book.note("lane", "tag", failures=3)
    target.refresh()
    assert target.book.fact("lane", "tag")["failures"] == 3 and not place.exists()
    keep(target, "a")
    target.book.note("lane", "other", failures=1)
    fresh = look(place)
    fresh.refresh()
    assert fresh.book.fact("lane", "tag")["failures"] == 3


def test_compaction_keeps_the_newest_lanes_what_it_does_not_know_open_attempts_and_origins(
    place: Path, target: Spool
) -> None:
    one = window("sum", 3, target.consent.ensure(), ended_at=START)
    assert target.keep_counters([one], [])
    keep(target, "a")
    unknown: list[Any] = [{"v": 2, "k": "lane", "tag": "x"}, ["moon", "server", "x", 1], {"odd": 1}]
    target.book.note("import", "0123456789abcdef")
    with open(place / "agent.book", "ab") as file:
        file.write(b"noise\n" + b"".join(map(lines.encode, unknown)))
    for n in range(books.LANES + 6):
        target.book.note("lane", "tag-%d" % n, failures=n)
    assert target.claim()
    for record in target.waiting(()):
        if record.kind == "aggregate":
            record.body["domain"] = "acme.example"
        assert target.try_(record, sync=record.kind == "aggregate")
    target.release()
    compacted(place)
    values = book(place)
    assert len(values) < 100 and None not in values
    assert all(value in values for value in unknown)
    lanes = {value["tag"] for value in values if type(value) is dict and value.get("k") == "lane"}
    assert lanes - {"x"} == {"tag-%d" % n for n in range(6, books.LANES + 6)}
    fresh = look(place)
    found = {record.id: record for record in fresh.records()}
    assert (
        fresh.book.fact("import", "0123456789abcdef")
        and fresh.book.fact("lane", "tag-9")["failures"] == 9
    )
    assert found["sum"].body["domain"] == "acme.example"
    assert state(place, "a") == (0, 0, True, 1)


TWO = """
from agent import files
files.File.lock = lambda file: None   # locks do not work
target = spool(directory, max_bytes=20_000)
for n in range(150):
    target.book.note("lane", sys.argv[2], n=n)
    deliver(target)
print(target.trouble)
"""


def test_two_that_compact_at_once_leave_no_file_behind(place: Path, target: Spool) -> None:
    """One fixed name lost all of 3,000 answers."""
    keep(target, "a")
    for process in begin(TWO, 3, directory=place):
        assert done(process).strip() == "{}"
    assert not list(place.glob("*.tmp")) and (place / "agent.book").stat().st_size < 20_000


def test_temporary_files_of_an_hour_ago_are_removed(place: Path, target: Spool) -> None:
    keep(target, "a")
    young, old = (place / ("agent.book.%016x.tmp" % n) for n in range(2))
    for path in (young, old, place / "notes.tmp"):
        path.touch()
        os.utime(path, (START, START) if path != young else None)
    deliver(target)
    assert young.exists() and not old.exists() and (place / "notes.tmp").exists()


# --- history ------------------------------------------------------------------------------------


def test_history_tells_answers_in_order_and_survives_compaction_bounded(
    place: Path, target: Spool
) -> None:
    write_segment(place, [line("id-%d" % n) for n in range(books.ANSWERS)])
    assert target.claim()
    for record in target.waiting(()):
        target.answer(record, verdict("held", code=101, reason="no"), START)
        target.answer(record, verdict("flagged", code=831, errors={"a": ["b"]}), START + 1)
    target.release()
    assert compacted(place) < 70_000
    for found in (target.history(3), look(place).history(3)):
        assert [answer["verdict"] for answer in found] == ["flagged", "held", "flagged"]
        assert found[-1] == {
            "at": START + 1,
            "endpoint": "server",
            "kind": "licence",
            "event_id": "id-%d" % (books.ANSWERS - 1),
            "verdict": "flagged",
            "code": 831,
            "reason": "",
            "errors": {"a": ["b"]},
        }
    assert target.history(0) == [] and len(target.history(9999)) == books.ANSWERS


# -- beside who looks, and records that are gone -----------------------------------------------------


def test_who_looks_beside_a_compaction_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spool(tmp_path / "state")
    keep(target, *map(str, range(20)))
    assert target.claim()
    target.book.note("home", "", id="1")
    target.book._compact_bytes = 0
    winners, looked = target.backlog.winners, threading.Event()

    def winners_beside_a_look() -> Any:
        """The other thread has read the segments' names and is about to read the book."""
        looks.start()
        assert looked.wait(10)
        return winners()

    reads = target.book.refresh

    def refresh() -> None:
        if threading.current_thread() is looks:
            looked.set()
        reads()

    monkeypatch.setattr(target.book, "refresh", refresh)
    looks = threading.Thread(target=target.count, daemon=True)
    ends = threading.Thread(target=lambda: target.book.compact(winners_beside_a_look), daemon=True)
    ends.start()
    ends.join(10)
    looks.join(10)
    assert not ends.is_alive() and not looks.is_alive()


def test_an_empty_consent_file_that_somebody_has_open_is_written_anew(place: Path) -> None:
    target = spool(place)
    assert target.consent.ensure()
    (place / "agent.consent").write_bytes(b"")
    with files.open_append(str(place / "agent.consent")):
        assert target.consent.ensure()


# -- gone --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["refused", "removed"])
def test_an_attempt_that_was_left_open_at_a_record_that_is_gone_slows_no_later_start(
    tmp_path: Path, how: str
) -> None:
    """Each start took it for one more product that ended before an answer came."""
    killed = spool(tmp_path / "state")
    killed.record(usage("one", killed.consent.ensure()), sync=True)
    killed.record(licence("two"), sync=True)
    assert killed.claim()
    assert all(killed.try_(record) for record in killed.waiting(()))
    killed._let_go()
    killed.seal()

    later = look(tmp_path / "state")
    if how == "refused":
        later.refuse_usage()
    else:
        segments(tmp_path / "state", "u")[0].unlink()
    assert later.claim()
    assert not later.left_open("reo") and later.left_open("server")
    later.release()
    assert waiting(tmp_path / "state") == ["two"]


@pytest.mark.skipif(os.name == "nt", reason="needs files with holes")
@pytest.mark.parametrize("what", ["segment", "agent.book", "agent.consent", "agent.lock"])
def test_a_file_of_any_size_in_the_place_of_ours_holds_up_nobody(place: Path, what: str) -> None:
    """20 GB, as a damaged disk may say, were read for 100 s on the thread that recorded."""
    target = spool(place)
    keep(target, "one")
    target.book.note("lane", "tag", failures=1)
    planted = place / (what if what != "segment" else "l-000000000001-0000000000000001.seg")
    planted.touch(0o600)
    os.truncate(planted, 20 << 30)  # whatever was in it stands before the hole
    reading = Reading(str(planted))
    reading.refresh()
    assert reading.cursor < 1 << 28
    keep(target, "two")
    assert waiting(place) == ["one", "two"]
    target.seal()
    assert sorted(deliver(spool(place))) == ["one", "two"] and deliver(spool(place)) == []
