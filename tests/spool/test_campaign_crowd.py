"""The crowd campaign, in short: many processes and threads on one spool, and what of it can be said exactly."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from campaign import crowd, report
from support.agent import Desk, FakeClock, desk, engine_of

from agent.courier import CLAIM_PATIENCE_S

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL"),
]

# The others differ by a number or a start method; forks beside threads has a test of its own.
IN_FULL = (
    "locks fail: EOPNOTSUPP",
    "multiprocessing: fork",
    "multiprocessing: forkserver",
    "forks beside threads",
)
IN_SHORT = [what for what in crowd.CROWDS if what not in IN_FULL]


@pytest.mark.campaign
@pytest.mark.parametrize("what", IN_SHORT)
def test_in_short(tmp_path: Path, what: str) -> None:
    rows = crowd.run(
        rounds=crowd.SHORT_ROUNDS,
        seed=1,
        progress=report.Progress(quiet=True),
        work=tmp_path,
        only=(what,),
    )
    (row,) = rows
    assert row.ok, report.text(report.Result("crowd", "", 1, 0.0, "", "", rows))
    assert row.rounds == 1 and row.recorded == row.delivered > 0
    if what == "deliverer killed":
        assert "%d kills" % crowd.SHORT.kills in row.note and "went on after" in row.note
    if what.startswith("locks fail"):
        assert row.duplicated > 0
    if what == "reaper beside writers":
        assert int(row.note.split()[0]) > 60  # segments


# -- who waits for the deliverer's lock ----------------------------------------------------------


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path / "state", FakeClock(time.time())) as found:
        yield found


def test_who_finds_the_lock_taken_asks_again_soon_and_after_ten_minutes_seldom(at: Desk) -> None:
    with at.agent() as product:
        courier = engine_of(product).courier
        product.call_home()
        with open(at.state_dir / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            waits: list[float] = []
            began_at = at.clock.monotonic()
            while at.clock.monotonic() < began_at + CLAIM_PATIENCE_S:
                waits.append(courier.turn() or 0.0)
                at.clock.advance(waits[-1])
            # Somebody has to go on within a second; a quarter is for loading and connecting.
            assert 0 < min(waits) and max(waits) <= 0.5
            assert courier.turn() == 5.0
        assert courier.turn() is None and not at.collector.requests() == []


def test_who_has_nothing_to_deliver_never_asks(at: Desk) -> None:
    with at.agent() as product:
        courier = engine_of(product).courier
        product.call_home()
        assert courier.turn() is None
        with open(at.state_dir / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert courier.next_in_s() is None and not courier.due
