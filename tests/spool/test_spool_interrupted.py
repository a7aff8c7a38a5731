"""Ctrl-C, and memory that runs out, at any moment: what was acknowledged is not lost to it, and nobody is stuck."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import spool as support
from support.faults import interrupted_at
from support.spool import (
    START,
    deliver,
    keep,
    licence,
    line,
    segments,
    spool,
    usage,
    verdict,
    waiting,
    window,
    write_segment,
)

from agent.spool import segment
from agent.spool.store import DISK, Spool

INTERRUPTS = [KeyboardInterrupt, MemoryError]


def everywhere(
    place: Path, begin: Callable[[Path], Spool], act: Callable[[Spool], Any], step: int
) -> Iterator[tuple[Spool, Path]]:
    """``act`` interrupted at every ``step``-th line in turn, on a spool of its own each time."""
    number = 1
    while True:
        here = place / str(number)
        target = begin(here)
        try:
            with interrupted_at(number, INTERRUPTS[number // step % 2]) as count:
                act(target)
        except (KeyboardInterrupt, MemoryError):
            pass
        yield target, here
        if count[0] < number:
            return
        number += step


def two_records(place: Path) -> Spool:
    target = spool(place)
    keep(target, "a")
    write_segment(place, [line("b")], ms=1)
    return target


def counts(target: Spool, count: int) -> bool:
    one = window("u", count, target.consent.ensure())
    return target.keep_counters([one], [one])


@pytest.mark.parametrize("begin", [two_records, spool])
def test_recording_interrupted_anywhere_loses_nothing_that_was_acknowledged(
    place: Path, begin: Callable[[Path], Spool]
) -> None:
    def act(target: Spool) -> None:
        target.record(licence("c"), sync=True)

    for target, here in everywhere(place, begin, act, step=3):
        keep(target, "d")
        expected = {"a", "b", "d"} if begin is two_records else {"d"}
        assert expected <= set(waiting(here)) <= expected | {"c"}
        target.seal()
        sent = deliver(spool(here))
        assert expected <= set(sent) and len(sent) == len(set(sent))


def test_a_segment_ended_by_a_signal_handler_while_it_is_ended(place: Path) -> None:
    target, number, count = spool(place), 1, [1]
    epoch, ids = target.consent.ensure(), iter(range(10_000))

    def end() -> None:
        target.seal()
        record()

    def record() -> None:
        kept = target.record(usage(str(next(ids)), epoch), sync=False)
        assert kept == DISK, (number, target.trouble)

    while count[0] >= number:
        record()
        with interrupted_at(number, end) as count:
            target.seal()
        number += 1
    assert len(waiting(place)) == next(ids) and number > 30


def test_a_pass_interrupted_anywhere_loses_nothing_and_is_followed_by_another(place: Path) -> None:
    def act(target: Spool) -> None:
        if target.claim():
            for record in target.waiting(()):
                if target.try_(record):
                    target.answer(record, verdict("offline"), START, failed=True)
            target.release()

    for target, here in everywhere(place, two_records, act, step=7):
        assert set(waiting(here)) == {"a", "b"}
        assert set(deliver(target)) == {"a", "b"}, "claimed again"
        assert not target.claimed and spool(here).claim()


def test_settling_interrupted_anywhere_repeats_at_most(place: Path) -> None:
    for target, here in everywhere(place, two_records, deliver, step=11):
        again = deliver(target)
        assert len(again) == len(set(again))
        for file in list(support.open_now):  # the process ends, and with it what was left locked
            file.close()
        deliver(spool(here))
        assert deliver(spool(here)) == []
        assert not any(path.stat().st_size for path in segments(here))


def test_counting_interrupted_anywhere_keeps_the_greatest_total(place: Path) -> None:
    def begin(here: Path) -> Spool:
        target = spool(here)
        assert counts(target, 5)
        return target

    for target, here in everywhere(place, begin, lambda target: counts(target, 6), step=3):
        assert deliver(spool(here)) == [], "the window is open"
        assert counts(target, 7)
        target.seal()
        (found,) = spool(here).records()
        assert found.body["count"] == 7 and deliver(spool(here)) == ["u"]


def test_a_refusal_interrupted_anywhere_is_followed_by_a_whole_one(place: Path) -> None:
    def begin(here: Path) -> Spool:
        target = two_records(here)
        assert counts(target, 1)
        return target

    for target, here in everywhere(place, begin, lambda target: target.refuse_usage(), step=7):
        target.refuse_usage()
        assert target.trouble == {} and not target.consent.blocked
        assert set(waiting(here)) == {"a", "b"} and segments(here, "uc") == []


# --- more than can be read at once ----------------------------------------------------------------


@pytest.mark.parametrize("chunk", [150, 177, 1000, 1 << 20])
def test_chunks_of_any_length_give_the_same_lines(
    place: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(segment, "CHUNK_BYTES", chunk)
    ids = ["id-%03d" % n for n in range(100)]
    write_segment(place, [*map(line, ids), b"torn"])
    assert len(line(ids[0])) < 150
    assert waiting(place) == ids and deliver(spool(place)) == ids
