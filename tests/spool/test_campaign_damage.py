"""The short form of the damage campaign, and what it found broken, each by itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from campaign import damage, report
from support.spool import (
    Dropped,
    deliver,
    keep,
    licence,
    line,
    look,
    segments,
    spool,
    waiting,
    write_segment,
)

from agent import jsonline
from agent.spool import facts, lines, names, records
from agent.spool.records import Record

pytestmark = pytest.mark.once


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.mark.campaign
def test_the_short_form_of_the_damage_campaign(tmp_path: Path) -> None:
    quiet = report.Progress(quiet=True)
    rows = damage.run(rounds=damage.SHORT_ROUNDS, seed=3, progress=quiet, work=tmp_path)
    ours = [row for row in rows if row.store == report.AGENT]
    assert [(row.treatment, row.broken) for row in ours if not row.ok] == []
    assert all(row.rounds and row.recorded and row.delivered for row in ours)
    assert sum(row.delivered for row in ours) < sum(row.recorded for row in ours)
    assert any(row.causes for row in ours)
    peers = [row for row in rows if row.store != report.AGENT]
    assert sum(row.lost for row in peers) and sum(row.wrong for row in peers)


# --- found by it ----------------------------------------------------------------------------------


def test_a_segment_under_the_name_of_another_class_holds_what_it_holds(place: Path) -> None:
    """A renamed segment made dead letters of records that wait, and the other way round."""
    dead = jsonline.encode({**licence("dead").to_json(), "why": "refused"})
    write_segment(place, [line("a"), line("b")], class_="x", ms=1)
    write_segment(place, [dead, line("c")], class_="l", ms=2)
    assert waiting(place, dead=True) == ["dead"]
    assert deliver(spool(place)) == ["a", "b", "c"]
    assert waiting(place, dead=True) == ["dead"] and len(segments(place)) == 1


def test_a_segment_of_dead_letters_that_holds_none_any_more_goes(place: Path) -> None:
    write_segment(place, [b"damage\n"], class_="x")
    assert deliver(spool(place)) == [] and segments(place) == []


def counter(id: str) -> bytes:
    body = {"activity_type": "RENDER", "count": 1, "meta": {"window_start": 0, "window_end": 9}}
    return jsonline.encode(Record("aggregate", "reo", id, 1.0, body).to_json())


def test_totals_that_come_before_their_record_count(place: Path) -> None:
    totals = [
        jsonline.encode(records.count_line("reo", "a", n, end)) for n, end in [(7, 5.0), (4, None)]
    ]
    write_segment(place, [*totals, counter("a"), counter("b")], class_="c")
    found = {record.id: record for record in look(place).records()}
    assert (found["a"].body["count"], found["a"].ended_at) == (7, 5.0)
    assert found["a"].body["meta"] == {"window_start": 0, "window_end": 5}
    assert (found["b"].body["count"], found["b"].ended_at) == (1, None)


def test_line_ends_of_another_system_damage_nothing(place: Path) -> None:
    target = spool(place)
    keep(target, "a", "b")
    assert deliver(target, limit=1) == ["a"]
    target.seal()
    for path in place.glob("l-*"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert deliver(spool(place)) == ["b"] and segments(place) == []


@pytest.mark.parametrize("kind", ["directory", "full directory", "pipe", "link"])
def test_what_stands_in_the_place_of_a_file_gives_way(
    place: Path, tmp_path: Path, kind: str
) -> None:
    """A directory in place of its sidecar kept a counter from being frozen, and so from being sent, for ever."""
    segment = write_segment(place, [counter("a")], class_="c")
    stays = [place / "consent-5", place / ("imported-%016x" % 1)]
    for path in [
        Path(names.sidecar(str(segment))),
        place / names.LOCK,
        place / names.FACTS,
        *stays,
    ]:
        if kind.endswith("directory"):
            path.mkdir()
            if kind.startswith("full"):
                (path / "content").write_bytes(b"somebody's")
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(tmp_path / "nowhere")
    spool(place).sweep(None)
    target = spool(place)
    target.backlog.refresh()
    (record,) = target.backlog.records()
    assert target.backlog.ledger.freeze(record)
    target.backlog.ledger.close()
    assert all(path.is_symlink() or path.exists() for path in stays)  # what counts is their name
    moved = [entry.name for entry in place.glob("*.tmp")]
    # A directory by a common name goes where it is empty, and stays where it holds something of somebody's.
    assert len(moved) == (1 if kind.endswith("directory") else 3)
    assert all(map(names.is_ours, moved))
    assert (place / names.LOCK).is_dir() is (place / names.FACTS).is_dir() is (kind[:4] == "full")
    assert len(list(place.glob("*/content"))) == (5 if kind.startswith("full") else 0)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_file_of_ours_that_we_may_not_read_is_made_readable(place: Path) -> None:
    target = spool(place)
    keep(target, "a")
    target.seal()
    (segment,) = segments(place)
    segment.chmod(0)
    assert deliver(spool(place)) == []
    assert deliver(spool(place)) == ["a"]


def test_files_get_their_permissions_back(place: Path) -> None:
    target = spool(place)
    keep(target, "a")
    (place / names.FACTS).touch(0o000)
    (place / ("identity-%016x" % 1)).touch(0o000)
    target.sweep(None)
    assert (place / names.FACTS).stat().st_mode & 0o777 == 0o600
    assert (place / ("identity-%016x" % 1)).stat().st_mode & 0o777 == 0


def test_a_history_that_grew_too_long_takes_answers_again(place: Path) -> None:
    target = spool(place)
    keep(target, "a")
    path = place / names.HISTORY
    for size in (facts.HISTORY_BYTES + 1, 10 * facts.HISTORY_BYTES):
        path.write_bytes(b"\0" * size)
        path.chmod(0o600)
        for n in range(3):
            target.history.add({"at": n})
        assert [answer["at"] for answer in target.history.last(3)] == [0, 1, 2]
        assert path.stat().st_size < 200


def test_a_file_of_damage_that_nobody_of_ours_wrote_goes(place: Path) -> None:
    target = spool(place)
    keep(target, "a")
    path = place / names.DAMAGED
    path.write_bytes(b"x")
    os.truncate(path, 1 << 20)
    target.sweep(None)
    assert not path.exists()
    path.write_bytes(b"-\n" * lines.CHUNK_BYTES.bit_length())
    target.sweep(None)
    assert path.exists()


@pytest.mark.parametrize(
    "name", [names.segment("l", 10**12), names.FACTS, names.LOCK, names.HISTORY, names.DAMAGED]
)
def test_a_file_of_300_mb_evicts_nothing_else_and_stops_no_recording(
    place: Path, name: str
) -> None:
    """It counted against the quota: all that could be evicted went, and then nothing was recorded any more."""
    target = spool(place)
    keep(target, "a", "b")
    target.seal()
    path = place / name
    path.touch(0o600)
    os.truncate(path, 300 << 20)
    other = spool(place, dropped=(dropped := Dropped()))
    keep(other, "c")
    assert dropped == [] and sorted(deliver(other)) == ["a", "b", "c"]
