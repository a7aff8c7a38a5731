"""The short form of ``python -m tests.campaign crowd``; what takes longest here runs in the full form alone."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fcntl")

from campaign import crowd, report  # noqa: E402 - needs fcntl

pytestmark = pytest.mark.once

# Several seconds each, of what others below do too.
IN_FULL = ("locks fail: EOPNOTSUPP", "multiprocessing: fork", "multiprocessing: forkserver")


@pytest.mark.campaign
@pytest.mark.parametrize("what", [what for what in crowd.CROWDS if what not in IN_FULL])
def test_in_short(tmp_path: Path, what: str) -> None:
    quiet = report.Progress(quiet=True)
    rows = crowd.run(rounds=crowd.SHORT_ROUNDS, seed=1, progress=quiet, work=tmp_path, only=(what,))
    (row,) = rows
    assert row.ok, report.text(report.Result("crowd", "", 1, 0.0, "", "", rows))
    assert row.rounds == 1 and row.recorded == row.delivered > 0
    if what == "deliverer killed":
        assert "%d kills" % crowd.SHORT.kills in row.note and "went on after" in row.note
    if what.startswith("locks fail"):
        assert row.duplicated > 0
    if what == "reaper beside writers":
        assert int(row.note.split()[0]) > 60  # segments
