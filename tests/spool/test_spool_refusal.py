"""Consent by the size of one file: refusals against everything at once, and epochs that are lost or planted."""

import os
import time
from pathlib import Path

import pytest
from support.faults import interrupted_at
from support.spool import (
    Calls,
    begin,
    deliver,
    done,
    keep,
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
def target(place: Path) -> Spool:
    return spool(place)


def consent(place: Path) -> Consent:
    return Consent(str(place))


def capture(target: Spool, id: str, epoch: int = 0) -> None:
    """Record usage as an agent does, under the epoch of now unless told another."""
    epoch = epoch or target.consent.ensure()
    assert target.record(usage(id, epoch), sync=True) == DISK


# --- the epoch ------------------------------------------------------------------------------------


def begun_twice(mark: Consent, number: int) -> list[int]:
    """What ``ensure`` gives, and to a signal handler at the so manieth line of it; then what stands there."""
    given: list[int] = []
    with interrupted_at(number, lambda: given.append(mark.ensure())):
        given.append(mark.ensure())
    return [*given, mark.current()]


def test_a_signal_handler_that_captures_while_consent_begins_has_the_same_epoch(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each wrote dots of its own: one epoch became another, and what was counted under it went as if refused."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # nobody waits for the lock
    number, found = 0, [0, 0, 0]
    while len(found) == 3:
        number += 1
        found = begun_twice(consent(place / str(number)), number)
        assert len(set(found)) == 1 and found[0] > 0, (number, found)
    assert number > 40


def test_there_is_no_epoch_before_usage_is_captured_and_looking_begins_none(place: Path) -> None:
    mark = consent(place)
    spool(place).refuse_usage()
    assert (mark.current(), mark.look(), place.exists()) == (0, 0, False)
    epoch = mark.ensure()
    assert 1 <= epoch <= 255 and (place / "agent.consent").read_bytes() == b"." * epoch
    assert mark.ensure() == consent(place).ensure() == epoch == consent(place).current()
    assert sorted(os.listdir(place)) == ["agent.consent"]


def test_all_who_begin_at_once_agree(place: Path) -> None:
    code = "sys.stdin.readline(); print(spool(directory).consent.ensure())"
    epochs = {int(done(process)) for process in begin(code, 6, directory=place)}
    assert epochs == {consent(place).current()} and len(os.listdir(place)) == 1


def test_an_empty_file_is_no_epoch_and_makes_way(place: Path, target: Spool) -> None:
    """What a power cut may leave."""
    place.mkdir(mode=0o700)
    (place / "agent.consent").touch(0o600)
    assert consent(place).current() == 0
    capture(target, "a", 7)
    assert waiting(place) == [] and consent(place).ensure() > 0


def test_a_lost_epoch_comes_back_as_another_but_by_chance(place: Path) -> None:
    seen = set()
    for _ in range(12):
        seen.add(consent(place).ensure())
        os.unlink(place / "agent.consent")
    assert len(seen) > 6


@pytest.mark.parametrize("error", [1, 38, 95])  # EPERM, ENOSYS, EOPNOTSUPP
def test_a_file_system_without_links_has_consent_too(place: Path, calls: Calls, error: int) -> None:
    calls.fail("link", error)
    epoch = consent(place).ensure()
    assert epoch and consent(place).ensure() == epoch and len(os.listdir(place)) == 1


def test_an_epoch_that_cannot_be_read_now_sends_nothing_and_loses_nothing(
    place: Path, target: Spool, calls: Calls
) -> None:
    """Taken for another epoch, all usage would be reaped for want of a descriptor."""
    capture(target, "a")
    target.seal()
    calls.fail("open", 24, lambda path, *_: str(path).endswith("agent.consent"))
    other = spool(place)
    assert (other.consent.current(), other.consent.look()) == (0, None)
    assert deliver(other) == [] and other.census()["pending"] == {"reo": 1}
    calls.heal()
    assert deliver(other) == ["a"]


def test_usage_of_any_other_size_is_nothing(place: Path, target: Spool) -> None:
    epoch = target.consent.ensure()
    values = [usage("id-%d" % n, n).to_json() for n in range(epoch + 20)]
    write_segment(place, list(map(lines.encode, values)), class_="u")
    assert waiting(place) == ["id-%d" % epoch]
    assert deliver(target) == ["id-%d" % epoch] and segments(place) == []


# --- refusing -------------------------------------------------------------------------------------


def test_a_refusal_purges_all_usage_and_is_seen_by_every_process(
    place: Path, target: Spool
) -> None:
    other = spool(place)
    keep(target, "licence")
    epoch = target.consent.ensure()
    capture(target, "ours")
    capture(other, "theirs")
    # It may be usage, or no longer anybody's to look after.
    write_segment(place, [lines.encode({"v": 9, "k": "usage"})], class_="u")
    newer = write_segment(place, [lines.encode({"v": 9, "k": "licence"})])
    one = window("window", 3, epoch)
    assert other.keep_counters([one], [one])
    target.refuse_usage()
    assert target.trouble == {} and waiting(place) == ["licence"]
    assert segments(place, "uc") == []
    assert newer in segments(place) and other.consent.current() == epoch + 1
    # What was captured before is on its way to the disk still; its segment went: it begins another.
    capture(other, "late", epoch)
    assert not other.keep_counters([one], [one]) or waiting(place) == ["licence"]
    assert waiting(place) == ["licence"] and deliver(target) == ["licence"]
    assert segments(place, "u") == [] or deliver(spool(place)) == []
    capture(other, "after")
    assert waiting(place) == ["after"]


REFUSE = """
target = spool(directory)
sys.stdin.readline()
for _ in range(100):
    target.refuse_usage()
assert target.trouble == {}, target.trouble
"""


def test_refusals_at_the_same_time_each_begin_an_epoch_of_their_own(place: Path) -> None:
    before = consent(place).ensure()
    for process in begin(REFUSE, 4, directory=place):
        done(process)
    assert consent(place).current() == before + 400


@pytest.mark.parametrize("how", ["write", "fsync", "open"])
def test_a_refusal_that_cannot_be_written_blocks_usage_here_until_it_can(
    place: Path, target: Spool, calls: Calls, how: str
) -> None:
    other = spool(place)
    keep(target, "licence")
    capture(other, "theirs")
    epoch = target.consent.current()
    mark = (place / "agent.consent").stat().st_ino
    if how == "open":
        calls.fail(how, 30, lambda p, how, *_: str(p).endswith("consent") and how & os.O_RDWR)
    else:
        calls.fail(how, 28, lambda fd, *_: os.fstat(fd).st_ino == mark)
    target.refuse_usage()
    assert target.consent.blocked and "consent" in target.trouble
    assert target.consent.current() == 0 == target.consent.ensure()
    assert waiting(place) == ["licence"]
    capture(other, "later", epoch)
    assert deliver(target) == ["licence"]  # and no usage, whatever others say
    calls.heal()
    assert deliver(target) == [] and not target.consent.blocked and target.trouble == {}
    assert waiting(place) == [] and target.consent.ensure() > epoch


def test_a_full_disk_has_room_for_the_dot_once_usage_is_purged(
    place: Path, target: Spool, calls: Calls
) -> None:
    capture(target, "a")
    before = target.consent.current()
    calls.fail("write", 28, lambda *_: segments(place, "u"))
    target.refuse_usage()
    assert target.trouble == {} and target.consent.current() > before


def test_a_segment_that_cannot_be_removed_keeps_no_other_and_is_named(
    place: Path, target: Spool, calls: Calls
) -> None:
    capture(target, "a")
    write_segment(place, segments(place, "u")[0].read_bytes().splitlines(True), class_="u", ms=1)
    calls.fail("ftruncate", 5, times=1)
    target.refuse_usage()
    assert "purge" in target.trouble and waiting(place) == []
    assert len(segments(place, "u")) == 1


def test_nothing_of_a_records_file_is_left_where_its_name_stays(
    place: Path, target: Spool, calls: Calls
) -> None:
    capture(target, "secret")
    calls.fail("unlink", 13)
    target.refuse_usage()
    assert [path.stat().st_size for path in place.glob("u-*.seg")] == [0]
    assert files.read(str(place / "agent.consent"), 999)


def test_a_refusal_without_a_disk_forgets_what_is_in_memory() -> None:
    target = spool(None)
    before = target.consent.ensure()
    assert target.record(usage("a", before), sync=False) == MEMORY
    target.refuse_usage()
    assert target.memory == [] and target.consent.current() > before
