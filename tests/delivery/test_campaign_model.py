"""The short form of ``python -m tests.campaign model``: other histories than those of ``test_spool_model``."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("fcntl")

from campaign import model, report  # noqa: E402 - needs flock

pytestmark = pytest.mark.once


@pytest.mark.campaign
def test_histories_against_a_model(tmp_path: Path) -> None:
    progress = report.Progress(quiet=True)
    rows = model.run(rounds=model.SHORT_ROUNDS, seed=1, progress=progress, work=tmp_path)
    assert all(row.ok for row in rows), [row.broken for row in rows]
    (row,) = rows
    assert row.rounds == model.SHORT_ROUNDS and row.recorded > row.delivered > 0
    assert "kill in a call" in row.note and "power cut" in row.note
