"""A refusal of usage against everything at once: other threads, forks, a full disk, planted marks."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from support.spool import START, keep, spool, usage, waiting

from agent import files
from agent.spool import lines, names
from agent.spool.consent import ConsentMark
from agent.spool.facts import Facts, History
from agent.spool.store import DISK
from agent.spool.view import SegmentView


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "state"


def marks(place: Path) -> list[str]:
    return sorted(name for name in os.listdir(place) if name.startswith(names.CONSENT))


@pytest.mark.parametrize("moment", ["check_directory", "create", "sync_directory"])
def test_a_look_by_another_thread_in_the_middle_of_a_refusal_changes_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    target = spool(place)
    epoch = target.consent.current(anchor=True)
    assert target.record(usage("before", epoch), sync=True) == DISK
    epoch = target.consent.current(anchor=True)
    real = getattr(files, moment)
    looked: list[object] = []

    def interrupted(path: str) -> Any:
        if threading.current_thread() is threading.main_thread() and not looked:
            looked.append(moment)
            other = threading.Thread(target=lambda: target.consent.current(anchor=True))
            other.start()
            other.join()
        return real(path)

    monkeypatch.setattr(files, moment, interrupted)
    target.consent.refuse(START)  # itself, for the spool tries again
    assert looked
    assert target.consent.current() > epoch and marks(place) == ["consent-1"]
    target.refuse_usage()
    assert target.trouble == "" and waiting(place) == []


def test_refusing_and_looking_all_the_time_raises_nothing_and_begins_every_epoch(
    place: Path,
) -> None:
    place.mkdir(mode=0o700)
    mark, over = ConsentMark(str(place)), threading.Event()
    failed: list[Exception] = []

    def look() -> None:
        seen = -1
        while not over.is_set():
            try:
                now = mark.current(anchor=True)
                assert now >= seen
                seen = now
            except Exception as error:
                failed.append(error)
                return

    lookers = [threading.Thread(target=look) for _ in range(3)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(100):
            before = mark.current()
            mark.refuse(START)
            assert mark.current() > before
    finally:
        over.set()
        for looker in lookers:
            looker.join()
    assert failed == []
    assert ConsentMark(str(place)).current() == mark.current()


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, UnboundLocalError])
def test_a_refusal_purges_whatever_the_mark_raises_and_raises_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    target = spool(place)
    keep(target, "licence")
    assert target.record(usage("a"), sync=True) == DISK

    def refuse(now: float) -> None:
        raise error

    monkeypatch.setattr(target.consent, "refuse", refuse)
    target.refuse_usage()
    assert error.__name__ in target.trouble
    assert waiting(place) == ["licence"]


def test_an_interrupt_during_a_refusal_reaches_the_host_after_purge_and_mark(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spool(place)
    assert target.record(usage("a", target.consent.current()), sync=True) == DISK
    real = files.check_directory

    def interrupted(path: str) -> None:
        monkeypatch.setattr(files, "check_directory", real)
        raise KeyboardInterrupt

    other = ConsentMark(str(place))
    before = other.current(anchor=True)
    monkeypatch.setattr(files, "check_directory", interrupted)
    with pytest.raises(KeyboardInterrupt):
        target.refuse_usage()
    assert waiting(place) == [] and other.current() > before


def test_a_segment_that_cannot_be_read_does_not_keep_the_others_from_the_purge(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spool(place)
    for id in ("a", "b"):
        assert target.record(usage(id), sync=True) == DISK
        target.seal()
    real, failing = SegmentView.purge, [MemoryError]

    def purge(view: SegmentView) -> None:
        if failing:
            raise failing.pop()
        real(view)

    monkeypatch.setattr(SegmentView, "purge", purge)
    target.refuse_usage()
    assert waiting(place) == ["a"] and "MemoryError" in target.trouble
    epoch = target.consent.current()
    assert epoch > 0  # what stayed is below it


def test_a_child_forked_while_the_mark_was_changed_is_not_stuck(place: Path) -> None:
    target = spool(place)
    keep(target, "a")
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with target.consent._lock:
            held.set()
            go_on.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(30)
    pid = os.fork()
    if pid == 0:
        target.after_fork()
        done = threading.Thread(target=target.consent.current)
        done.daemon = True
        done.start()
        done.join(10)
        os._exit(1 if done.is_alive() else 0)
    go_on.set()
    holder.join()
    assert os.waitpid(pid, 0)[1] == 0


# --- a disk without room for a file ---------------------------------------------------------------


def full(error: int = errno.ENOSPC) -> Any:
    def create(path: str) -> int:
        raise OSError(error, os.strerror(error), path)

    return create


def test_without_room_for_a_file_the_old_mark_takes_the_new_name(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, other = spool(place), spool(place)
    keep(target, "licence")
    before = other.consent.current(anchor=True)
    monkeypatch.setattr("agent.spool.consent.files.create", full())
    target.refuse_usage()
    assert target.trouble == "" and marks(place) == ["consent-%d" % (before + 1)]
    assert other.consent.current() > before


def test_a_mark_that_found_no_room_is_tried_again_behind_the_purge(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spool(place)
    assert target.record(usage("a"), sync=True) == DISK
    real = files.create

    def create(path: str) -> int:
        if names.listing(str(place))[0]:  # what the purge removes
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path)

    monkeypatch.setattr(files, "create", create)
    target.refuse_usage()
    assert target.trouble == "" and marks(place) == ["consent-%d" % target.consent.current()]


def test_a_full_disk_never_puts_a_mark_over_somebody_elses(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.mkdir(mode=0o700)
    ours, others = ConsentMark(str(place)), ConsentMark(str(place))
    ours.current(anchor=True)
    overtaken: list[int] = []

    def create(path: str) -> int:
        if not overtaken:
            monkeypatch.undo()
            others.refuse(START)
            overtaken.append(others.current())
            monkeypatch.setattr(files, "create", full())
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "create", create)
    try:
        ours.refuse(START)
    except OSError:
        ours.refuse(START)
    assert ours.current() > overtaken[0]


# --- planted marks --------------------------------------------------------------------------------


@pytest.mark.parametrize("digits", ["9" * 247, "9" * 16, "007", "00", "", "-1", "\u0663"])
def test_a_mark_with_a_number_that_is_not_ours_is_nobodys(place: Path, digits: str) -> None:
    place.mkdir(mode=0o700)
    planted = place / (names.CONSENT + "-" + digits)
    planted.touch()
    assert not names.is_ours(planted.name)
    target, other = spool(place), spool(place)
    assert other.consent.current(anchor=True) == 0
    target.refuse_usage()
    assert target.trouble == "" and other.consent.current() == target.consent.current() == 1
    assert planted.exists()


def test_the_last_number_of_all_ends_in_an_error_and_not_in_a_loop(place: Path) -> None:
    place.mkdir(mode=0o700)
    (place / (names.CONSENT + "-" + "9" * names.EPOCH_DIGITS)).touch()
    target = spool(place)
    assert target.record(usage("a"), sync=True) == DISK
    target.refuse_usage()
    assert "consent" in target.trouble and waiting(place) == []
    assert target.consent.current() > 10**names.EPOCH_DIGITS - 1


@pytest.mark.parametrize("now", [-1e300, 1e300, float("inf"), float("-inf")])
def test_a_clock_far_off_keeps_no_refusal_from_its_mark(place: Path, now: float) -> None:
    place.mkdir(mode=0o700)
    mark = ConsentMark(str(place))
    mark.refuse(now)
    assert ConsentMark(str(place)).current() == mark.current() > 0


# --- what servers answered ------------------------------------------------------------------------


def answered(target: History, *kinds: str) -> None:
    for kind in kinds:
        target.add({"kind": kind, "reason": "echo of " + kind})


@pytest.mark.parametrize("in_memory", [True, False])
def test_answers_about_usage_leave_the_history_with_the_usage(place: Path, in_memory: bool) -> None:
    target = spool(None if in_memory else place)
    if not in_memory:
        keep(target, "a")
    answered(target.history, "usage", "licence", "aggregate", "licence")
    target.history.add({"verdict": "of an earlier version, which says no kind"})
    target.refuse_usage()
    assert [answer["kind"] for answer in target.history.last(9)] == ["licence", "licence"]
    answered(target.history, "licence")
    assert len(target.history.last(9)) == 3
    if not in_memory:
        assert b"usage" not in (place / names.HISTORY).read_bytes()


def test_a_history_that_cannot_be_rewritten_goes_whole(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spool(place)
    keep(target, "a")
    answered(target.history, "usage", "licence")
    monkeypatch.setattr(files, "create", full())
    target.refuse_usage()
    assert not (place / names.HISTORY).exists()


def test_a_history_without_usage_is_left_as_it_is(place: Path) -> None:
    target = spool(place)
    keep(target, "a")
    target.refuse_usage()
    assert not (place / names.HISTORY).exists()
    answered(target.history, "licence")
    before = os.stat(place / names.HISTORY).st_ino
    target.refuse_usage()
    assert os.stat(place / names.HISTORY).st_ino == before


@pytest.mark.parametrize("kind", ["in memory", "on disk", "of another process"])
def test_reasons_of_usage_lanes_leave_the_facts_with_the_usage(place: Path, kind: str) -> None:
    """A server may repeat what was recorded in what it answers, and the reason of a wait was kept."""
    target = spool(None if kind == "in memory" else place)
    other = spool(place) if kind == "of another process" else target
    place.mkdir(mode=0o700)
    for tag, reason in [("usage", "CANARY 1"), ("licence", "the key"), ("usage", "CANARY 2")]:
        lane = other.facts.lane(tag)
        lane.back_off(START, 0.5, reason)
        other.facts.save(lane)
    if kind != "in memory":
        lines.append(str(place / names.FACTS), {"v": 1, "k": "keyring", "tag": "t", "version": 3})
        lines.append(
            str(place / names.FACTS), {"v": 1, "k": "later", "reason": "of a later version"}
        )
    waits_s = other.facts.lane("usage").remaining_s(START)
    target.refuse_usage(["licence"])
    other.facts.refresh()
    lane = other.facts.lane("usage")
    assert (lane.reason, lane.failures, lane.remaining_s(START)) == ("", 2, waits_s)
    assert other.facts.lane("licence").reason == "the key"
    other.facts.save(lane)
    if kind != "in memory":
        kept = (place / names.FACTS).read_bytes()
        assert b"CANARY" not in kept and b"of a later version" in kept
        afresh = Facts(str(place))
        afresh.refresh()
        assert afresh.keyring_version("t") == 3 and afresh.lane("usage").failures == 2
        before = os.stat(place / names.FACTS).st_ino
        target.refuse_usage(["licence"])
        assert os.stat(place / names.FACTS).st_ino == before  # nothing to blank


def test_reasons_that_cannot_be_blanked_are_named(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spool(place)
    keep(target, "a")
    lane = target.facts.lane("usage")
    lane.back_off(START, 0.5, "CANARY")
    target.facts.save(lane)
    monkeypatch.setattr(files, "create", full())
    target.refuse_usage([])
    assert "purge" in target.trouble and lane.reason == ""
