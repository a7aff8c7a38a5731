"""Consent by the size of one file: refusals against everything at once, and epochs that are lost or planted."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from support.spool import (
    child,
    deliver,
    done,
    keep,
    line,
    look,
    segments,
    spool,
    usage,
    waiting,
    window,
    write_segment,
)

from agent import files, lines
from agent.spool.record import Consent
from agent.spool.store import DISK, MEMORY, Spool


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "state"


def consent(place: Path) -> Consent:
    return Consent(str(place))


def capture(target: Spool, id: str, epoch: int = 0) -> None:
    """Record usage as an agent does, under the epoch of now unless told another."""
    epoch = epoch or target.consent.ensure()
    assert target.record(usage(id, epoch), sync=True) == DISK


# --- the epoch ------------------------------------------------------------------------------------


def test_there_is_no_epoch_before_usage_is_captured_and_looking_begins_none(place: Path) -> None:
    mark = consent(place)
    assert (mark.current(), mark.look(), place.exists()) == (0, 0, False)
    epoch = mark.ensure()
    assert 1 <= epoch <= 255 and (place / "agent.consent").read_bytes() == b"." * epoch
    assert mark.ensure() == consent(place).ensure() == epoch == consent(place).current()
    assert sorted(os.listdir(place)) == ["agent.consent"]


ENSURE = """
from agent.spool.record import Consent
mark = Consent(directory)
sys.stdin.readline()
print(mark.ensure())
"""


def test_all_who_begin_at_once_agree(place: Path) -> None:
    children = [child(ENSURE, directory=place) for _ in range(6)]
    for process in children:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    epochs = {int(done(process)) for process in children}
    assert epochs == {consent(place).current()} and len(os.listdir(place)) == 1


def test_an_empty_file_is_no_epoch_and_makes_way(place: Path) -> None:
    """What a power cut may leave."""
    place.mkdir(mode=0o700)
    (place / "agent.consent").touch(0o600)
    assert consent(place).current() == 0
    target = spool(place)
    assert target.record(usage("a", 7), sync=True) == DISK
    assert waiting(place) == []
    assert consent(place).ensure() > 0


def test_a_lost_epoch_comes_back_as_another_but_by_chance(place: Path) -> None:
    seen = set()
    for _ in range(12):
        seen.add(consent(place).ensure())
        os.unlink(place / "agent.consent")
    assert len(seen) > 6


@pytest.mark.parametrize("error", [1, 38, 95])  # EPERM, ENOSYS, EOPNOTSUPP
def test_a_file_system_without_links_has_consent_too(
    place: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def link(*args: Any) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "link", link)
    epoch = consent(place).ensure()
    assert epoch and consent(place).ensure() == epoch and len(os.listdir(place)) == 1


def test_an_epoch_that_cannot_be_read_now_sends_nothing_and_loses_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken for another epoch, all usage would be reaped for want of a descriptor."""
    target = spool(place)
    capture(target, "a")
    target.seal()
    real = os.open

    def refuse(path: Any, *args: Any, **more: Any) -> int:
        if str(path).endswith("agent.consent"):
            raise OSError(24, "Too many open files")
        return real(path, *args, **more)

    monkeypatch.setattr(os, "open", refuse)
    other = spool(place)
    assert (other.consent.current(), other.consent.look()) == (0, None)
    assert deliver(other) == [] and other.census()["pending"] == {"reo": 1}
    monkeypatch.undo()
    assert deliver(other) == ["a"]


def test_usage_of_any_other_size_is_nothing(place: Path) -> None:
    target = spool(place)
    epoch = target.consent.ensure()
    values = [usage("id-%d" % n, n).to_json() for n in range(epoch + 20)]
    write_segment(place, list(map(lines.encode, values)), class_="u")
    assert waiting(place) == ["id-%d" % epoch]
    assert deliver(target) == ["id-%d" % epoch] and segments(place) == []


# --- refusing -------------------------------------------------------------------------------------


def test_a_refusal_purges_all_usage_and_is_seen_by_every_process(place: Path) -> None:
    target, other = spool(place), spool(place)
    keep(target, "licence")
    epoch = target.consent.ensure()
    capture(target, "ours")
    capture(other, "theirs")
    one = window("window", 3, epoch)
    assert other.keep_counters([one], [one])
    (place / ("agent.book.%016x.tmp" % 1)).write_bytes(b"pieces of usage")
    target.refuse_usage()
    assert target.trouble == {} and waiting(place) == ["licence"]
    assert segments(place, "uc") == [] and not list(place.glob("*.tmp"))
    assert other.consent.current() == epoch + 1
    # What was captured before is on its way to the disk still; its segment went: it begins another.
    capture(other, "late", epoch)
    assert not other.keep_counters([one], [one]) or waiting(place) == ["licence"]
    assert waiting(place) == ["licence"] and deliver(target) == ["licence"]
    assert segments(place, "u") == [] or deliver(spool(place)) == []
    capture(other, "after")
    assert waiting(place) == ["after"]


def test_a_newer_format_is_purged_with_the_usage_for_it_may_be_some(place: Path) -> None:
    target = spool(place)
    capture(target, "a")
    write_segment(place, [lines.encode({"v": 9, "k": "usage"})], class_="u")
    kept = write_segment(place, [lines.encode({"v": 9, "k": "licence"}), line("b")])
    target.refuse_usage()
    assert segments(place) == [kept]


REFUSE = """
target = spool(directory)
sys.stdin.readline()
for _ in range(100):
    target.refuse_usage()
assert target.trouble == {}, target.trouble
"""


def test_refusals_at_the_same_time_each_begin_an_epoch_of_their_own(place: Path) -> None:
    before = consent(place).ensure()
    children = [child(REFUSE, directory=place) for _ in range(4)]
    for process in children:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in children:
        done(process)
    assert consent(place).current() == before + 400


CAPTURE = """
target = spool(directory)
print("ready", flush=True)
n = 0
while os.path.exists(directory + ".go"):
    epoch = target.consent.ensure()
    n += 1
    assert target.record(usage("%d-%d" % (epoch, n), epoch), sync=False) in ("disk", "memory")
"""


def test_usage_captured_before_a_refusal_is_never_seen_again(place: Path) -> None:
    go = Path(str(place) + ".go")
    go.touch()
    children = [child(CAPTURE, directory=place) for _ in range(2)]
    for process in children:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    target = spool(place)
    for _ in range(40):
        target.refuse_usage()
        now = target.consent.current()
        assert all(int(id.split("-")[0]) >= now for id in waiting(place))
    assert target.trouble == {}
    go.unlink()
    for process in children:
        done(process)


@pytest.mark.parametrize("how", ["write", "fsync", "open"])
def test_a_refusal_that_cannot_be_written_blocks_usage_here_until_it_can(
    place: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    target, other = spool(place), spool(place)
    keep(target, "licence")
    capture(other, "theirs")
    epoch = target.consent.current()
    real_open, real_write, real_sync = os.open, os.write, os.fsync
    mark = (place / "agent.consent").stat().st_ino

    def refuse_write(fd: int, data: bytes) -> int:
        if os.fstat(fd).st_ino == mark:
            raise OSError(28, "No space left on device")
        return real_write(fd, data)

    def refuse_sync(fd: int) -> None:
        if os.fstat(fd).st_ino == mark:
            raise OSError(5, "Input/output error")
        real_sync(fd)

    def refuse_open(path: Any, flags: int, *args: Any) -> int:
        if str(path).endswith("consent") and flags & os.O_RDWR:
            raise OSError(30, "Read-only file system")
        return real_open(path, flags, *args)

    given = {"write": refuse_write, "fsync": refuse_sync, "open": refuse_open}
    monkeypatch.setattr(os, how, given[how])
    target.refuse_usage()
    assert target.consent.blocked and "consent" in target.trouble
    assert target.consent.current() == 0 == target.consent.ensure()
    assert waiting(place) == ["licence"]
    capture(other, "later", epoch)
    assert deliver(target) == ["licence"]  # and no usage, whatever others say
    monkeypatch.undo()
    assert deliver(target) == [] and not target.consent.blocked and target.trouble == {}
    assert waiting(place) == [] and target.consent.ensure() > epoch


def test_a_full_disk_has_room_for_the_dot_once_usage_is_purged(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spool(place)
    capture(target, "a")
    before, real = target.consent.current(), os.write

    def write(fd: int, data: bytes) -> int:
        if segments(place, "u"):
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    target.refuse_usage()
    assert target.trouble == {} and target.consent.current() > before


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, OSError])
def test_a_segment_that_cannot_be_removed_keeps_no_other_and_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    target = spool(place)
    for id in ("a", "b"):
        capture(target, id)
        target.seal()
        spool(place)
    write_segment(place, segments(place, "u")[0].read_bytes().splitlines(True), class_="u", ms=1)
    real, failing = os.ftruncate, [error]

    def ftruncate(fd: int, size: int) -> None:
        if failing:
            raise failing.pop()
        real(fd, size)

    monkeypatch.setattr(os, "ftruncate", ftruncate)
    target.refuse_usage()
    assert "purge" in target.trouble and waiting(place) == []
    assert len(segments(place, "u")) == 1 or error is not OSError


def test_a_refusal_without_a_disk_forgets_what_is_in_memory() -> None:
    target = spool(None)
    before = target.consent.ensure()
    assert target.record(usage("a", before), sync=False) == MEMORY
    target.refuse_usage()
    assert target.memory == [] and target.consent.current() > before


def test_a_refusal_before_there_is_anything_creates_nothing(place: Path) -> None:
    target = spool(place)
    target.refuse_usage()
    assert not place.exists() and target.trouble == {}


def test_a_child_forked_in_the_middle_of_a_refusal_is_not_stuck(place: Path) -> None:
    target = spool(place)
    capture(target, "a")
    pid = os.fork()
    if pid == 0:
        target.after_fork()
        worker = threading.Thread(target=target.refuse_usage, daemon=True)
        worker.start()
        worker.join(20)
        os._exit(1 if worker.is_alive() else 0)
    assert os.waitpid(pid, 0)[1] == 0
    assert look(place).census()["pending"] == {}


def test_nothing_of_a_records_file_is_left_where_its_name_stays(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spool(place)
    capture(target, "secret")

    def unlink(path: Any) -> None:
        raise PermissionError(13, "in use")

    monkeypatch.setattr(os, "unlink", unlink)
    target.refuse_usage()
    assert [path.stat().st_size for path in segments(place)] == [0]
    assert files.read(str(place / "agent.consent"), 999)
