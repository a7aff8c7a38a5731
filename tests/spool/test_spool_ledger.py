"""Sidecars, facts, consent, history and transfer: what several processes believe of one another's files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.spool import (
    START,
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
    waiting,
    write_segment,
)

import agent
from agent import files, jsonline
from agent.spool import facts, ledger, names, transfer
from agent.spool.consent import ConsentMark
from agent.spool.facts import Facts, History, Lane
from agent.spool.ledger import Ledger
from agent.spool.records import Record, count_line
from agent.spool.store import DISK, MEMORY, Spool


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "state"


def attempt(target: Spool, *, proofs: int | None = None, crash: bool = False) -> int:
    """Try the first record that waits, as one pass; its suspicion before the attempt."""
    claim = target.claim()
    assert claim is not None
    target.backlog.refresh()
    record = next(iter(target.backlog.records()))
    known = target.backlog.attempts(record)
    suspicion = known.suspicion if known is not None else 0
    target.backlog.ledger.begin(record)
    if not crash:
        target.backlog.ledger.end(record, settled=False, proofs=proofs)
    target.release(claim)
    return suspicion


# --- sidecars -----------------------------------------------------------------------------------


def sidecars(place: Path) -> list[Path]:
    return sorted(place.glob("*.ack"))


@pytest.mark.parametrize(
    "how", ["swapped", "renamed", "emptied", "doubled", "torn", "noise", "of another"]
)
def test_a_sidecar_in_the_wrong_place_settles_nothing_that_was_not_settled(
    place: Path, how: str
) -> None:
    for ms in range(2):
        write_segment(place, [line("%d-%s" % (ms, id)) for id in "ab"], ms=ms)
    claimant = spool(place)
    claim = claimant.claim()
    claimant.backlog.refresh()
    for record in claimant.backlog.records():
        if record.id.endswith("a"):
            claimant.backlog.ledger.begin(record)
            claimant.backlog.ledger.end(record, settled=True)
    claimant.release(claim or -1)
    first, second = sidecars(place)
    if how == "swapped":
        os.rename(first, place / "x")
        os.rename(second, first)
        os.rename(place / "x", second)
    elif how == "renamed":
        os.rename(first, place / names.sidecar(names.segment("l", 99)))
    elif how == "emptied":
        first.write_bytes(b"")
    elif how == "doubled":
        second.write_bytes(first.read_bytes() * 2 + second.read_bytes())
    elif how == "torn":
        first.write_bytes(first.read_bytes()[:-10])
    elif how == "noise":
        first.write_bytes(b"\x00" * 4096 + b"\nnoise\n" + first.read_bytes())
    elif how == "of another":
        first.write_bytes(
            jsonline.encode(["s", "other", "0-b", 1, 0, 0, 0, -1]) + first.read_bytes()
        )
    found = deliver(spool(place))
    assert {"0-b", "1-b"} <= set(found) <= {"0-a", "0-b", "1-b"}
    assert ("0-a" in found) == (how in ("emptied", "torn"))  # repeated, never lost
    assert not segments(place) and not sidecars(place)


@pytest.mark.parametrize("order", [1, 3])
def test_a_line_that_was_moved_to_a_segment_that_stays_is_not_delivered_again(
    place: Path, order: int
) -> None:
    """What its own segment's sidecar said of it went with that segment."""
    write_segment(place, [line("a"), line("b")], ms=2)
    newer = jsonline.encode({"v": 9, "k": "licence"})  # never removed, and so is its segment
    write_segment(place, [line("b"), newer], ms=order)
    assert sorted(deliver(spool(place))) == ["a", "b"]
    assert len(segments(place)) == 1
    for _ in range(3):
        assert deliver(spool(place)) == [] and waiting(place) == []
    (kept,) = sidecars(place)
    assert kept.read_bytes().count(b'"b"') <= 4  # and is noted once, not in each pass


def test_a_sidecar_whose_writer_died_in_a_line_loses_no_later_entry(place: Path) -> None:
    write_segment(place, [line("a"), line("b"), line("c"), line("d")], ms=1)
    assert deliver(spool(place), limit=1) == ["a"]
    for next_one in "bc":
        with open(sidecars(place)[0], "ab") as file:
            file.write(b'0badc0de ["s","server","b"')
        target = spool(place)
        target.backlog.refresh()
        record = next(iter(target.backlog.records()))
        assert record.id == next_one
        target.backlog.ledger.end(record, settled=True)
        target.backlog.ledger.close()
    target.backlog.refresh()
    target.backlog.ledger.begin(next(iter(target.backlog.records())))
    with open(sidecars(place)[0], "ab") as file:
        file.write(b"torn")
    target.backlog.ledger.abandon(next(iter(target.backlog.records())))
    (left,) = look(place).records()
    assert left.id == "d" and look(place).attempts(left).suspicion == 0  # type: ignore[union-attr]


def test_an_older_entry_read_after_a_newer_one_takes_nothing_back(place: Path) -> None:
    write_segment(place, [line("a"), line("b")], ms=1)
    assert deliver(spool(place), limit=1) == ["a"]
    with open(sidecars(place)[0], "ab") as file:
        file.write(jsonline.encode(["s", "server", "a", 0, 1, 0, 0, -1]))
    assert deliver(spool(place)) == ["b"]


def test_what_cannot_be_written_down_is_remembered_until_the_segment_goes(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spool(place)
    write_segment(place, [line("a"), line("b")], ms=1)
    monkeypatch.setattr(ledger.files, "open_append", refuse(names.SIDECAR))
    assert deliver(target, limit=1) == ["a"]
    assert target.backlog.ledger.trouble
    assert not sidecars(place)
    assert deliver(target) == ["b"] and not segments(place)  # and unlinking frees the disk


def refuse(end: str) -> Any:
    """An ``open_append`` for which a full disk holds no file of this ending."""
    real = ledger.files.open_append

    def open_append(path: str, *, missing_ok: bool = True) -> int:
        if path.endswith(end):
            raise OSError(28, "No space left on device")
        return real(path, missing_ok=missing_ok)

    return open_append


def test_an_attempt_counts_only_if_the_endpoint_proved_another_record_meanwhile(
    place: Path,
) -> None:
    keep(spool(place), "a")
    for proofs in (0, 0, 0, 1, 1, 2, 5):
        attempt(spool(place), proofs=proofs)
    known = next(iter(look(place).ledger._attempts.values()))
    assert (known.failed, known.counted, known.crashed) == (7, 3, 0)


CRASH = """
target = spool(directory)
target.claim()
target.backlog.refresh()
record = next(iter(target.backlog.records()))
target.backlog.ledger.begin(record)
os.kill(os.getpid(), 9)
"""


def test_a_killed_sender_counts_once_however_often_the_sidecar_is_read(place: Path) -> None:
    keep(spool(place), "a")
    for n in range(3):
        child(CRASH, directory=place).communicate(timeout=30)
        reader = spool(place)
        for _ in range(3):
            reader.backlog.refresh()
        (record,) = reader.backlog.records()
        assert reader.backlog.attempts(record).suspicion == n + 1  # type: ignore[union-attr]
    assert attempt(spool(place), proofs=0) == 3
    known = next(iter(look(place).ledger._attempts.values()))
    assert (known.crashed, known.open) == (3, "")


def test_an_attempt_given_up_by_an_orderly_exit_counts_for_nothing(place: Path) -> None:
    keep(spool(place), "a")
    target = spool(place)
    attempt(target, crash=True)
    target.backlog.ledger.abandon(next(iter(target.backlog.records())))
    assert attempt(spool(place), proofs=0) == 0


def test_an_end_that_could_not_be_written_is_no_crash_of_ours(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(spool(place), "a")
    target = spool(place)
    real = ledger.files.write_whole

    def write_whole(fd: int, data: bytes) -> None:
        if b'["s"' in data:
            raise OSError(28, "No space left on device")
        real(fd, data)

    monkeypatch.setattr(ledger.files, "write_whole", write_whole)
    assert [attempt(target, proofs=0) for _ in range(4)] == [0, 0, 0, 0]
    monkeypatch.undo()
    assert attempt(target, proofs=0) == 0


def test_without_locks_a_begun_attempt_may_be_that_of_a_living_process(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.files.lock", lambda fd: None)
    keep(spool(place), "a")
    one, two = spool(place), spool(place)
    for _ in range(12):
        attempt(one, crash=True)
        assert attempt(two, crash=True) <= 1
    known = two.backlog.attempts(next(iter(two.backlog.records())))
    assert known is not None and known.crashed == 0


def test_a_sum_is_frozen_on_disk_before_it_is_first_sent(place: Path) -> None:
    body = {"activity_type": "RENDER", "count": 3}
    total = Record("aggregate", "reo", "a", START, body, ended_at=START + 1)
    later = {"v": 1, "k": "count", "e": "reo", "id": "a", "n": 9}
    path = write_segment(place, [jsonline.encode(total.to_json())], class_="c")
    target = spool(place)
    target.backlog.refresh()
    (record,) = target.backlog.records()
    record.body = {**record.body, "domain": "acme.example"}
    assert target.backlog.ledger.freeze(record)
    target.release(-1)
    with open(path, "ab") as file:
        file.write(jsonline.encode(later))
    for reading in (target.backlog, look(place)):
        reading.refresh()
        (again,) = reading.records()
        assert again.body == {**body, "domain": "acme.example"}
    assert target.backlog.ledger.freeze(again)  # once


def test_a_sum_that_cannot_be_frozen_is_not_sent(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = Record("aggregate", "reo", "a", START, {"count": 3}, ended_at=START + 1)
    write_segment(place, [jsonline.encode(total.to_json())], class_="c")
    target = spool(place)
    target.backlog.refresh()
    (record,) = target.backlog.records()
    monkeypatch.setattr(ledger.files, "open_append", refuse(names.SIDECAR))
    assert not target.backlog.ledger.freeze(record)


def test_the_last_total_wins_whatever_the_order_of_its_lines(place: Path) -> None:
    total = Record("aggregate", "reo", "a", START, {"count": 1})
    lines: list[Any] = [total.to_json()]
    lines += [{"v": 1, "k": "count", "e": "reo", "id": "a", "n": n} for n in (5, 12, 9)]
    lines += [{"v": 1, "k": "count", "e": "reo", "id": "of nothing", "n": 99}]
    write_segment(place, list(map(jsonline.encode, lines)), class_="c")
    found = look(place)
    assert [(r.id, r.body["count"]) for r in found.records()] == [("a", 12)]
    assert not any(view.damaged for view in found.views())


@pytest.mark.parametrize("ended_at", [START + 60, None])  # in order, or killed
def test_a_writer_that_adds_and_ends_after_its_counter_was_read(place: Path, ended_at: Any) -> None:
    """Found gone, it was taken for ended at what had been read: the sum that was sent was too small."""
    writer = spool(place)
    total = Record("aggregate", "reo", "a", START, {"count": 4})
    assert writer.append(names.COUNTERS, total.to_json(), sync=False) == DISK
    reading = look(place)
    (record,) = reading.records()
    assert not reading.is_closed(record)
    more = count_line("reo", "a", 9, ended_at)
    assert writer.append(names.COUNTERS, more, sync=False) == DISK
    writer.seal()
    assert reading.is_closed(record)
    assert (record.body["count"], record.ended_at) == (9, ended_at)


def test_a_frozen_sum_stays_as_it_was_sent(place: Path) -> None:
    write_segment(
        place,
        [jsonline.encode(Record("aggregate", "reo", "a", START, {"count": 4}).to_json())],
        class_="c",
    )
    target = spool(place)
    target.backlog.refresh()
    (record,) = target.backlog.records()
    record.body = {**record.body, "domain": "acme.example"}
    assert target.backlog.ledger.freeze(record)
    (again,) = target.backlog.records()
    assert target.backlog.is_closed(again) and again.body == {"count": 4, "domain": "acme.example"}


def test_an_overgrown_sidecar_is_rewritten_with_all_that_it_says(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_segment(place, [line("a"), line("b"), line("c")], ms=1)
    child(CRASH, directory=place).communicate(timeout=30)
    monkeypatch.setattr(ledger, "COMPACT_BYTES", 2000)
    newer = jsonline.encode(["z", "of a newer version", {"x": 1}])
    with open(sidecars(place)[0], "ab") as file:
        file.write(newer + b"noise\n")
    target = spool(place)
    for n in range(60):
        attempt(target, proofs=n)
    assert deliver(target, limit=1) == ["a"]
    target.backlog.refresh()  # as the next pass does
    target.sweep(None)
    (sidecar,) = sidecars(place)
    content = sidecar.read_bytes()
    assert len(content) < 500 and newer in content and b"noise" not in content
    fresh = Ledger(str(place))
    fresh.refresh([segments(place)[0].name], [sidecar.name])
    known = fresh.get(("server", "a"))
    assert known is not None and (known.settled, known.failed, known.counted, known.crashed) == (
        1,
        60,
        59,
        1,
    )
    assert deliver(target) == ["b", "c"]


def test_sidecars_without_a_segment_and_old_temporary_files_are_swept(place: Path) -> None:
    keep(spool(place), "a")
    orphan = place / names.sidecar(names.segment("l", 5))
    orphan.write_bytes(jsonline.encode(["s", "server", "z", 1, 0, 0, 0, -1]))
    young, old = place / "facts.0000000000000001.tmp", place / "facts.0000000000000002.tmp"
    for path in (young, old):
        path.touch()
    os.utime(old, (START, START))
    deliver(spool(place))
    assert not orphan.exists() and young.exists() and not old.exists()


def test_settling_ten_thousand_segments_takes_no_quadratic_time(place: Path) -> None:
    known = Ledger(str(place), "run")
    sidecar_names = [names.sidecar(names.segment("l", n)) for n in range(10_000)]
    for n, name in enumerate(sidecar_names):
        known._apply(["s", "server", "id-%d" % n, 1, 0, 0, 0, -1], name)
    for name in sidecar_names:
        known.drop(name)  # 10,000 times 10,000 comparisons took seconds
    assert known.is_settled(("server", "id-9999")) and not known._attempts


def test_settled_records_of_memory_are_forgotten() -> None:
    target = spool(None)
    for n in range(50):
        assert target.record(licence("id-%d" % n), sync=True) == MEMORY
        assert deliver(target) == ["id-%d" % n]
    assert not target.memory and not target.backlog.ledger._attempts


# --- memory -------------------------------------------------------------------------------------


def test_records_in_memory_are_moved_to_the_disk_once_and_in_order(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spool(place)
    keep(target, "a")
    target.seal()
    monkeypatch.setattr(ledger.files, "write_whole", full_disk)
    assert [target.record(licence(id), sync=True) for id in "bcd"] == [MEMORY] * 3
    target.rescue()
    assert [record.id for record in target.memory] == ["b", "c", "d"]
    target.backlog.refresh()
    assert [record.id for record in target.backlog.records()] == ["a", "b", "c", "d"]
    monkeypatch.undo()
    target.rescue()
    target.rescue()
    assert target.memory == [] and waiting(place) == ["a", "b", "c", "d"]
    assert sum(path.read_bytes().count(b"\n") for path in segments(place)) == 4
    assert deliver(target) == ["a", "b", "c", "d"]


def full_disk(fd: int, data: bytes) -> None:
    raise OSError(28, "No space left on device")


def test_a_record_sent_from_memory_is_not_written_to_the_disk_afterwards(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spool(place)
    monkeypatch.setattr(ledger.files, "write_whole", full_disk)
    assert target.record(licence("a"), sync=True) == MEMORY
    assert deliver(target) == ["a"]
    monkeypatch.undo()
    target.rescue()
    assert waiting(place) == []


# --- facts --------------------------------------------------------------------------------------


def test_a_wait_outlives_the_process_and_a_new_key_voids_it(place: Path) -> None:
    one = spool(place)
    keep(one, "a")
    lane = one.facts.lane("tag-of-the-old-key")
    lane.hold(START, "held: 101")
    one.facts.save(lane)
    two = Facts(str(place))
    two.refresh()
    assert two.lane("tag-of-the-old-key").remaining_s(START + 600) == 3000
    assert two.lane("tag-of-the-new-key").remaining_s(START + 600) == 0
    assert two.lane("tag-of-the-old-key").to_json() == lane.to_json()


def test_a_clock_that_went_back_or_a_planted_wait_delays_nobody_for_long() -> None:
    lane = Lane("tag")
    lane.pause(START + 10 * 365 * 86400, 3600, "asked for")
    assert lane.remaining_s(START) == 0
    lane.take({"wait": facts.PAUSE, "set_at": START, "delay_s": 1e12})
    assert lane.remaining_s(START + 60) == 86400 - 60


def test_backoff_is_jittered_from_the_first_failure_and_bounded() -> None:
    delays = set()
    for chance in (0.0, 0.25, 0.5, 0.999):
        lane = Lane("tag")
        for failures in range(40):
            lane.back_off(START, chance, "offline")
            assert 30 <= lane.delay_s <= min(6 * 3600, 30 * 2 ** (failures + 1))
            if not failures:
                delays.add(lane.delay_s)
    assert len(delays) == 4  # after one shared outage no two products ask at the same second


@pytest.mark.parametrize(
    "value",
    [
        {"failures": "many"},
        {"failures": True},
        {"proven": 1},
        {"floor": "x"},
        {"set_at": None},
        {"wait": 3},
    ],
)
def test_a_fact_of_the_wrong_type_is_ignored(value: dict[str, Any]) -> None:
    lane = Lane("tag")
    lane.take(value)
    assert lane.to_json() == Lane("tag").to_json()


def test_compaction_keeps_the_last_of_each_lane_and_whatever_it_does_not_know(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "COMPACT_BYTES", 4000)
    target = spool(place)
    keep(target, "a")
    unknown = [{"v": 1, "k": "of a newer version"}, {"v": 2, "k": "lane", "tag": "x"}, ["a list"]]
    lines = b"".join(map(jsonline.encode, unknown))
    (place / names.FACTS).write_bytes(lines + b"noise\n")
    for n in range(70):
        lane = target.facts.lane("tag-%d" % n)
        lane.prove()
        target.facts.save(lane)
        lane.prove()
        target.facts.save(lane)
    target.facts.refresh()
    target.facts.compact()
    content = (place / names.FACTS).read_bytes()
    assert content.startswith(lines) and b"noise" not in content
    assert content.count(b"\n") == 3 + facts.LANES
    fresh = Facts(str(place))
    fresh.refresh()
    assert fresh.lane("tag-69").proofs == 2 and fresh.lane("tag-0").proofs == 0  # long gone


def test_facts_that_cannot_be_written_are_remembered(place: Path) -> None:
    target = Facts(str(place / "nowhere"))
    lane = target.lane("tag")
    lane.hold(START, "x")
    target.save(lane)
    target.refresh()
    assert target.trouble and target.lane("tag").remaining_s(START) == 3600


# --- history ------------------------------------------------------------------------------------


def test_history_is_bounded_and_a_torn_line_swallows_no_answer(place: Path) -> None:
    place.mkdir()
    target = History(str(place), 4000)
    with open(place / names.HISTORY, "wb") as file:
        file.write(b"0000")
    (place / names.HISTORY).chmod(0o600)
    for n in range(500):
        target.add({"at": n, "verdict": "delivered"})
        assert target.last(1)[0]["at"] == n
        assert (place / names.HISTORY).stat().st_size < 4200
    assert [answer["at"] for answer in target.last(3)] == [497, 498, 499]
    assert target.last(0) == [] and len(History(None).last(5)) == 0


# --- consent ------------------------------------------------------------------------------------


def test_a_refusal_is_seen_by_every_process_that_knew_the_epoch(place: Path) -> None:
    place.mkdir()
    marks = [ConsentMark(str(place)) for _ in range(3)]
    assert {mark.current(anchor=True) for mark in marks} == {0}
    for n in range(5):
        marks[n % 3].refuse(START)
        epochs = {mark.current(anchor=bool(n % 2)) for mark in marks}
        assert epochs == {n + 1}
    assert sorted(os.listdir(place)) == ["consent-5"]


REFUSE = """
from agent.spool.consent import ConsentMark
mark = ConsentMark(directory)
sys.stdin.readline()
for _ in range(30):
    mark.refuse(1.0)
    print(mark.current(), flush=True)
"""


def test_refusals_at_the_same_time_each_begin_an_epoch_of_their_own(place: Path) -> None:
    place.mkdir()
    mark = ConsentMark(str(place))
    mark.current(anchor=True)
    children = [child(REFUSE, directory=place) for _ in range(3)]
    for process in children:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    seen = [list(map(int, done(process).split())) for process in children]
    assert mark.current() == max(map(max, seen)) >= 90
    assert all(epochs == sorted(set(epochs)) for epochs in seen)  # each of its own
    assert os.listdir(place) == ["consent-%d" % mark.current()]


def test_a_refusal_that_others_overtook_begins_an_epoch_all_the_same(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.mkdir()
    ours, others = ConsentMark(str(place)), ConsentMark(str(place))
    ours.current(anchor=True)
    create = files.create

    def overtaken(path: str) -> int:
        monkeypatch.undo()
        others.refuse(START)
        others.refuse(START)  # its first mark, the name that we are about to take, is gone again
        return create(path)

    monkeypatch.setattr(files, "create", overtaken)
    ours.refuse(START)
    assert ours.current() == others.current() > 2
    assert os.listdir(place) == ["consent-%d" % ours.current()]


def test_a_lost_mark_never_makes_refused_usage_current_again(place: Path) -> None:
    place.mkdir()
    old, fresh = ConsentMark(str(place)), ConsentMark(str(place))
    old.refuse(START)
    refused = old.current()
    old.refuse(START)
    os.unlink(place / ("consent-%d" % old.current()))
    lost = old.current()
    assert lost > refused  # whoever saw an epoch remembers it
    fresh.refuse(START + 1)
    assert ConsentMark(str(place)).current() == old.current() > lost


def test_a_directory_that_cannot_be_read_now_gives_no_consent(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.mkdir()
    ConsentMark(str(place)).refuse(START)
    mark = ConsentMark(str(place))

    def listdir(path: str) -> list[str]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "listdir", listdir)
    mark.current()
    assert not mark.known
    monkeypatch.undo()
    assert mark.current() > 0 and mark.known


def test_a_refusal_purges_usage_alone_also_where_the_mark_cannot_be_left(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, other = spool(place), spool(place)
    keep(target, "licence")
    assert other.record(usage("theirs"), sync=True) == DISK
    assert target.record(usage("ours"), sync=True) == DISK
    assert target.bury(usage("dead"), "rejected")
    (place / names.DAMAGED).write_bytes(b"pieces of usage\n")

    def create(path: str) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agent.spool.consent.files.create", create)
    target.refuse_usage()
    assert "consent" in target.trouble
    assert waiting(place) == ["licence"] and waiting(place, dead=True) == []
    assert not (place / names.DAMAGED).exists()
    monkeypatch.undo()
    assert other.record(usage("later"), sync=True) == DISK  # its segment went: it begins another
    assert waiting(place) == ["licence", "later"]


def test_a_refusal_without_a_disk_forgets_what_is_in_memory() -> None:
    target = spool(None)
    before = target.consent.current()
    target.record(usage("a"), sync=False)
    target.record(licence("b"), sync=False)
    target.refuse_usage()
    assert [record.id for record in target.memory] == ["b"] and target.consent.current() > before


def test_a_refusal_before_there_is_anything_creates_nothing(place: Path) -> None:
    target = spool(place)
    target.refuse_usage()
    assert not place.exists()
    assert target.consent.current() > 0


# --- export and import --------------------------------------------------------------------------


def export(place: Path, path: Path) -> list[Record]:
    return transfer.write_export(str(path), list(look(place).records()), at=START)


def test_an_export_is_taken_once_and_arrives_as_it_was(place: Path, tmp_path: Path) -> None:
    keep(spool(place), "a", "b")
    spool(place).record(usage("c"), sync=False)
    path = tmp_path / "waiting.spool"
    assert len(export(place, path)) == 3
    target = spool(tmp_path / "other")
    target.consent.refuse(START)
    keep(target, "own")
    target.refuse_usage()
    for expected in (3, 0, 0):
        assert transfer.put_import(target, transfer.read_export(path)) == expected
    arrived = {record.id: record for record in look(tmp_path / "other").records()}
    assert sorted(arrived) == ["a", "b", "c", "own"]
    assert arrived["a"].to_json() == next(iter(look(place).records())).to_json()
    assert arrived["c"].epoch == target.consent.current() > 0
    assert arrived["a"].run != target.run == arrived["own"].run


def test_an_export_never_overwrites_and_leaves_nothing_behind(place: Path, tmp_path: Path) -> None:
    keep(spool(place), "a")
    path = tmp_path / "waiting.spool"
    path.write_text("precious")
    for target in (path, tmp_path / "no directory" / "x"):
        with pytest.raises(OSError):
            export(place, target)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nothing yet")
    with pytest.raises(FileExistsError):
        export(place, link)
    assert path.read_text() == "precious"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "state", "waiting.spool"]


@pytest.mark.parametrize(
    "how", ["cut", "flipped", "empty", "text", "newer", "other file", "header only"]
)
def test_a_damaged_export_is_refused_whole(place: Path, tmp_path: Path, how: str) -> None:
    keep(spool(place), "a", "b")
    path = tmp_path / "waiting.spool"
    export(place, path)
    whole = path.read_bytes()
    header = whole[: whole.index(b"\n") + 1]
    changed = {
        "cut": whole[:-20],
        "flipped": whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:],
        "empty": b"",
        "text": b"hello\n",
        "newer": jsonline.encode({"v": 2, "k": "export"}) + whole[len(header) :],
        "other file": whole[len(header) :],
        "header only": header,
    }[how]
    path.write_bytes(changed)
    with pytest.raises(agent.EventError):
        transfer.read_export(str(path))


def test_an_import_that_was_killed_before_its_mark_can_be_repeated(
    place: Path, tmp_path: Path
) -> None:
    keep(spool(place), "a", "b", "c")
    path = tmp_path / "waiting.spool"
    export(place, path)
    other = tmp_path / "other"
    code = """
from agent.spool import transfer
from agent import files
real = files.open_append
def open_append(path, **more):
    if "imported-" in path:
        os.kill(os.getpid(), 9)
    return real(path, **more)
files.open_append = open_append
transfer.put_import(spool(directory), transfer.read_export(sys.argv[2]))
"""
    child(code, path, directory=other).communicate(timeout=30)
    assert waiting(other) == ["a", "b", "c"]
    target = spool(other)
    assert transfer.put_import(target, transfer.read_export(str(path)))
    assert not transfer.put_import(target, transfer.read_export(str(path)))
    target.seal()
    assert deliver(spool(other)) == ["a", "b", "c"] and not segments(other)


def test_an_import_that_finds_no_room_says_so_and_leaves_no_mark(
    place: Path, tmp_path: Path
) -> None:
    keep(spool(place), *("id-%d" % n for n in range(50)), text="x" * 900)
    path = tmp_path / "waiting.spool"
    export(place, path)
    target = spool(tmp_path / "other", max_bytes=1000)
    with pytest.raises(agent.EventError, match="quota"):
        transfer.put_import(target, transfer.read_export(str(path)))
    assert not list((tmp_path / "other").glob("imported-*"))
    assert segments(tmp_path / "other") == []
