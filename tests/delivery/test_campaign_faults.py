"""System calls that fail: a sample of the campaign."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fcntl")

from campaign import faults, report  # noqa: E402 - needs flock

pytestmark = pytest.mark.once


@pytest.mark.campaign
def test_a_sample_of_the_faults_campaign(tmp_path: Path) -> None:
    quiet = report.Progress(quiet=True)
    rows = faults.run(rounds=faults.SHORT_ROUNDS, seed=3, progress=quiet, work=tmp_path)
    assert all(row.ok for row in rows), report.text(report.Result("faults", "", 3, 0, "", "", rows))
    assert sum(row.rounds for row in rows) == faults.SHORT_ROUNDS
    assert sum(row.recorded for row in rows) > 5 * faults.SHORT_ROUNDS
    assert sum(row.total("hit") for row in rows) > 0.9 * faults.SHORT_ROUNDS
    assert {"open fails", "write fails", "stat fails"} < {row.treatment for row in rows}
