"""System calls that fail: a sample of the campaign, and that the shim fails what it is told to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.faults import ONCE, STAYS, Fault, Shim

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
    assert {"open fails", "write fails", "stat fails"} < {row.treatment for row in rows}


def test_the_shim_fails_what_it_is_told_to_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "state"
    place.mkdir()
    shim = Shim(place, Fault("write", 2, "torn", ONCE))
    with shim.installed():
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
    with Shim(place, Fault("list", 2, "EACCES", STAYS)).installed():
        assert os.listdir(place) == ["file"] and os.listdir(tmp_path)
        for _ in range(2):
            with pytest.raises(PermissionError):
                os.listdir(place)
    assert os.listdir(place) == ["file"]
