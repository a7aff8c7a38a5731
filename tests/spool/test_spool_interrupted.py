"""Ctrl-C, and memory that runs out, at any moment: what was acknowledged is not lost to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.spool import (
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

from agent import files, jsonline
from agent.spool import lines, names, records, view
from agent.spool.backlog import Backlog
from agent.spool.facts import Facts
from agent.spool.records import Record
from agent.spool.view import SegmentView

INTERRUPTS = [KeyboardInterrupt, MemoryError]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "state"


def interrupting(real: Any, at: int, error: type[BaseException]) -> Any:
    """``real``, but its call number ``at`` raises instead."""
    calls = [0]

    def called(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == at:
            raise error
        return real(*args)

    return called


@pytest.mark.parametrize("error", INTERRUPTS)
@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("what", ["parse", "decode", "read"])
def test_a_reading_that_is_interrupted_loses_no_record(
    place: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], at: int, what: str
) -> None:
    write_segment(place, [line("a"), line("b"), line("c")])
    target = spool(place)
    sent: list[str] = []
    end = target.backlog.ledger.end

    def settle(record: Record, **more: Any) -> None:
        end(record, **more)
        sent.append(record.id)

    monkeypatch.setattr(target.backlog.ledger, "end", settle)
    owner, name = {
        "parse": (records, "parse"),
        "decode": (jsonline, "decode"),
        "read": (files, "read_from"),
    }[what]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, interrupting(getattr(owner, name), at, error))
        try:
            deliver(target)
        except error:
            pass
    deliver(target)
    assert sorted(sent) == ["a", "b", "c"] and not segments(place)


@pytest.mark.parametrize("error", INTERRUPTS)
def test_a_view_that_left_something_out_removes_nothing(
    place: Path, error: type[BaseException]
) -> None:
    path = write_segment(place, [line("a"), line("b")])
    view = SegmentView(str(place), path.name)
    view.refresh()
    view.records.clear()  # as after an interrupt at the worst moment
    assert view.seize()
    assert sorted(id for _, id in view.records) == ["a", "b"]
    view.let_go()


@pytest.mark.parametrize("error", INTERRUPTS)
def test_a_segment_whose_seizure_is_interrupted_is_free_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    path = write_segment(place, [line("a")])
    view = SegmentView(str(place), path.name)
    with monkeypatch.context() as patch:
        patch.setattr(records, "parse", interrupting(records.parse, 1, error))
        with pytest.raises(error):
            view.seize()
    assert SegmentView(str(place), path.name).seize()


@pytest.mark.parametrize("error", INTERRUPTS)
@pytest.mark.parametrize("at", range(1, 7))
def test_a_sidecar_whose_reading_is_interrupted_is_read_once_and_whole(
    place: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], at: int
) -> None:
    path = write_segment(place, [line("a"), line("b")])
    entries = [
        ["b", "server", "a", "one"],
        ["b", "server", "a", "two"],
        ["b", "server", "b", "two"],
        ["s", "server", "b", 1, 0, 0, 0, -1],
        ["b", "server", "a", "three"],
    ]
    sidecar = place / names.sidecar(path.name)
    sidecar.write_bytes(b"".join(map(jsonline.encode, entries)))
    sidecar.chmod(0o600)
    straight = look(place).ledger.get(("server", "a"))
    found = Backlog(str(place), [])
    with monkeypatch.context() as patch:
        patch.setattr(jsonline, "decode", interrupting(jsonline.decode, at, error))
        try:
            found.refresh()
        except error:
            pass
    found.refresh()
    assert found.ledger.is_settled(("server", "b"))
    again = found.ledger.get(("server", "a"))
    assert straight is not None and again is not None
    assert vars(again) == vars(straight) and again.suspicion == 3


@pytest.mark.parametrize("error", INTERRUPTS)
def test_facts_whose_reading_is_interrupted_are_read_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    place.mkdir(mode=0o700)
    writer, reader = Facts(str(place)), Facts(str(place))
    for tag in ("one", "two"):
        lane = writer.lane(tag)
        lane.prove()
        writer.save(lane)
    with monkeypatch.context() as patch:
        patch.setattr(jsonline, "decode", interrupting(jsonline.decode, 2, error))
        with pytest.raises(error):
            reader.refresh()
    reader.refresh()
    assert reader.lane("one").proofs == reader.lane("two").proofs == 1


# --- while recording ------------------------------------------------------------------------------


@pytest.mark.parametrize("error", INTERRUPTS)
@pytest.mark.parametrize("moment", ["before", "half", "after"])
@pytest.mark.parametrize("earlier", [True, False])
def test_an_interrupt_while_writing_lets_no_later_failure_cut_a_record_off(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
    moment: str,
    earlier: bool,
) -> None:
    target = spool(place)
    if earlier:
        keep(target, "first")
    real = files.write_whole

    def interrupted(fd: int, data: bytes) -> None:
        os.write(fd, {"before": b"", "half": data[:50], "after": data}[moment])
        raise error

    def short(fd: int, data: bytes) -> None:
        os.write(fd, data[:10])
        monkeypatch.setattr(files, "write_whole", real)
        raise OSError(28, "short write")

    monkeypatch.setattr(files, "write_whole", interrupted)
    with pytest.raises(error):
        target.record(licence("interrupted", "x" * 500), sync=True)
    monkeypatch.setattr(files, "write_whole", real)
    keep(target, "second")
    monkeypatch.setattr(files, "write_whole", short)
    keep(target, "third")
    expected = {"second", "third"} | ({"first"} if earlier else set())
    assert expected <= set(waiting(place)) <= expected | {"interrupted"}


def test_a_file_that_grew_by_more_than_our_line_is_not_cut(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spool(place)
    keep(target, "first")
    (path,) = segments(place)
    with open(path, "ab") as file:
        file.write(line("somebody's") * 3)

    real, fail = os.fsync, [True]

    def fsync(fd: int) -> None:
        if fail and fail.pop():
            raise OSError(5, "the disk is ill")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    keep(target, "second")
    assert set(waiting(place)) == {"first", "somebody's", "second"}


# --- more than can be read at once ----------------------------------------------------------------


@pytest.mark.parametrize("garbage", [b"\0", b"x\n"])
def test_a_record_behind_a_lot_of_garbage_is_read_before_its_segment_goes(
    place: Path, monkeypatch: pytest.MonkeyPatch, garbage: bytes
) -> None:
    monkeypatch.setattr(lines, "CHUNK_BYTES", 1000)
    bulk = garbage * (70_000 // len(garbage))
    write_segment(place, [line("a"), bulk, b"\n", line("valuable")])
    assert waiting(place) == ["a", "valuable"]
    assert deliver(spool(place)) == ["a", "valuable"] and not segments(place)


@pytest.mark.parametrize("chunk", [150, 177, 1000, 1 << 20])
def test_chunks_of_any_length_give_the_same_lines(
    place: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(lines, "CHUNK_BYTES", chunk)
    ids = ["id-%03d" % n for n in range(100)]
    path = write_segment(place, [*map(line, ids)])
    assert len(line(ids[0])) < 150
    assert waiting(place) == ids
    path.write_bytes(path.read_bytes()[:-1])  # only the last newline is missing
    assert waiting(place) == ids


def test_a_file_too_large_to_be_ours_is_read_up_to_there_and_goes(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be read again by every start, and fill the quota, for ever."""
    monkeypatch.setattr(lines, "CHUNK_BYTES", 1000)
    monkeypatch.setattr(view, "READ_BYTES", 5000)
    write_segment(place, [line("a"), b"\0" * 10_000, b"\n", line("b")])
    assert deliver(spool(place)) == ["a"]
    assert not segments(place) and (place / "damaged").read_bytes().count(b"\n") == 5


def test_millions_of_damaged_lines_are_not_all_held(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_segment(place, [b"x\n" * 200_000, line("a")])
    found = SegmentView(str(place), path.name)
    found.refresh()
    assert len(found.damaged) == 10_000 and len(found.records) == 1
