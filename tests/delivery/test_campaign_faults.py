"""System calls that fail: a sample of the campaign, and what it found, one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from campaign import faults, report
from support.faults import ONCE, STAYS, Fault, Shim, descriptors
from support.spool import (
    START,
    Spool,
    deliver,
    keep,
    licence,
    line,
    look,
    spool,
    usage,
    waiting,
    write_segment,
)

from agent import files
from agent.spool import names, transfer
from agent.spool.facts import Facts
from agent.spool.store import DISK, MEMORY

pytestmark = [pytest.mark.once, pytest.mark.skipif(os.name == "nt", reason="needs flock")]


@pytest.mark.campaign
def test_a_sample_of_the_faults_campaign(tmp_path: Path) -> None:
    quiet = report.Progress(quiet=True)
    rows = faults.run(rounds=faults.SHORT_ROUNDS, seed=3, progress=quiet, work=tmp_path)
    assert all(row.ok for row in rows), report.text(report.Result("faults", "", 3, 0, "", "", rows))
    assert sum(row.rounds for row in rows) == faults.SHORT_ROUNDS
    assert sum(row.recorded for row in rows) > 5 * faults.SHORT_ROUNDS
    assert {"open fails", "write fails", "stat fails"} < {row.treatment for row in rows}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "state"


@contextmanager
def failing(
    place: Path, kind: str, at: int = 1, error: str = "EIO", mode: str = ONCE
) -> Iterator[Shim]:
    """While this lasts calls on ``place`` fail; at least one must."""
    shim = Shim(place, Fault(kind, at, error, mode))
    with shim.installed():
        yield shim
    assert shim.hits


def test_the_shim_fails_what_it_is_told_to_and_nothing_else(place: Path, tmp_path: Path) -> None:
    place.mkdir()
    with failing(place, "write", 2, "torn") as shim:
        with open(tmp_path / "other", "wb", buffering=0) as other:
            other.write(b"not ours")
        fd = os.open(place / "file", os.O_RDWR | os.O_CREAT, 0o600)
        assert os.write(fd, b"whole") == 5
        with pytest.raises(OSError, match="No space"):
            os.write(fd, b"in two")
        assert os.write(fd, b"whole") == 5
        os.close(fd)
    assert (place / "file").read_bytes() == b"wholein whole"
    assert shim.calls["write"] == 3 and [hit.call for hit in shim.hits] == ["write"]
    with failing(place, "list", 2, "EACCES", STAYS):
        assert os.listdir(place) == ["file"] and os.listdir(tmp_path)
        for _ in range(2):
            with pytest.raises(PermissionError):
                os.scandir(place)
    assert os.listdir(place) == ["file"]


def test_a_file_that_cannot_be_looked_at_is_closed(place: Path) -> None:
    place.mkdir(mode=0o700)
    with failing(place, "stat"), pytest.raises(OSError, match="Input/output"):
        files.create(str(place / "file"))
    assert descriptors(place) == []


def test_a_segment_that_cannot_be_read_is_neither_taken_over_nor_held(place: Path) -> None:
    write_segment(place, [line("a")])
    target = spool(place)
    with failing(place, "read"):
        keep(target, "b")
    target.seal()
    assert descriptors(place) == []
    assert deliver(target) == ["a", "b"] and names.listing(str(place)) == ([], [])


def test_a_refusal_whose_directory_cannot_be_looked_at_is_named(place: Path) -> None:
    other, target = spool(place), spool(place)
    assert other.record(usage("a"), sync=True) == DISK
    with failing(place, "any call", 1, "EACCES", STAYS):
        target.refuse_usage()
        assert "consent" in target.trouble and "purge" in target.trouble
    target.record(licence("b"), sync=True)
    assert "consent" in target.trouble  # no record says that a refusal is known
    deliver(target)
    assert target.trouble == ""
    assert spool(place).consent.current() == target.consent.current() > 0


@pytest.mark.parametrize("kind", ["fsync", "stat"])
def test_an_import_that_is_not_known_to_be_durable_or_new_is_no_success(
    place: Path, tmp_path: Path, kind: str
) -> None:
    keep(spool(tmp_path / "away"), "a", "b")
    path = tmp_path / "carried.spool"
    transfer.write_export(str(path), look(tmp_path / "away").records(), at=START)
    export = transfer.read_export(str(path))
    target = spool(place)
    keep(target, "c")
    target.seal()  # the shim knows only what is opened while it is there
    with failing(place, kind, 1, "EIO", STAYS), pytest.raises(OSError):
        transfer.put_import(target, export)
    assert not list(place.glob("imported-*"))
    assert transfer.put_import(target, export) == 2 and transfer.put_import(target, export) == 0
    assert sorted(deliver(target)) == ["a", "b", "c"]


def pass_(target: Spool) -> None:
    """A pass that finds nothing to do."""
    assert deliver(target) == []


@pytest.mark.parametrize("kind", ["open", "write", "fsync", "stat"])
def test_a_disk_that_is_well_again_is_trouble_no_more(place: Path, kind: str) -> None:
    target = spool(place)
    keep(target, "a")
    deliver(target)
    target.seal()
    with failing(place, kind, 1, "EROFS", STAYS):
        assert target.record(licence("b"), sync=True) == MEMORY
        assert target.trouble
        target.memory.clear()  # delivered
        target.rescue()
        assert target.trouble.startswith("write")
    pass_(target)
    assert target.trouble == "" and waiting(place) == []


def test_a_lock_that_can_be_taken_again_is_trouble_no_more(place: Path) -> None:
    target = spool(place)
    keep(target, "a")
    with failing(place, "open", 1, "EACCES", STAYS):
        claim = target.claim()
        assert claim == -1 and target.trouble.startswith("lock")
        target.release(claim)
    assert deliver(target) == ["a"]
    assert target.trouble == ""


def test_facts_that_can_be_read_and_written_again_are_trouble_no_more(place: Path) -> None:
    place.mkdir(mode=0o700)
    target = Facts(str(place))
    lane = target.lane("tag")
    lane.prove()
    with failing(place, "write", 1, "ENOSPC", STAYS):
        target.save(lane)
    target.refresh()
    assert target.trouble  # it is still not there for others
    target.save(lane)
    assert target.trouble == ""
    with failing(place, "open", 1, "EMFILE"):
        target.refresh()
        assert target.trouble
    target.refresh()
    assert target.trouble == ""
