"""The campaigns in short, as ``python -m tests.campaign all --short`` runs them; and that verdicts can be bad ones."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fcntl")

from campaign import (  # noqa: E402 - they need flock, and fork
    bounds,
    crowd,
    damage,
    faults,
    kill,
    kill_account as accounts,
    model,
    report,
)
from campaign.kill_child import content  # noqa: E402

from agent import lines  # noqa: E402
from agent.spool import book, store  # noqa: E402

pytestmark = pytest.mark.once
QUIET = report.Progress(quiet=True)


def short(campaign: Any, place: Path, seed: int = 3, **more: Any) -> list[report.Row]:
    """The rows of the short form, in which every promise held."""
    work = place / "work"
    work.mkdir()
    given = {"rounds": campaign.SHORT_ROUNDS, "seed": seed, "progress": QUIET, "work": work, **more}
    rows: list[report.Row] = campaign.run(**given)
    assert [(row.treatment, row.broken) for row in rows if not row.ok] == []
    assert all(row.rounds and row.recorded and row.delivered for row in rows)
    return rows


@pytest.mark.campaign
def test_histories_against_a_model(tmp_path: Path) -> None:
    """Others than those of ``test_spool_model``."""
    (row,) = short(model, tmp_path, seed=1)
    assert row.rounds == model.SHORT_ROUNDS and row.recorded > row.delivered
    assert "kill in a call" in row.note and "power cut" in row.note


@pytest.mark.campaign
@pytest.mark.parametrize("what", crowd.CROWDS)
def test_a_crowd(tmp_path: Path, what: str) -> None:
    (row,) = short(crowd, tmp_path, seed=1, only=(what,))
    assert row.rounds == 1 and row.recorded == row.delivered
    if what == "deliverer killed":
        assert row.total("processes killed") == crowd.SHORT.kills
        assert "until another went on" in row.told()
    if what.startswith("locks fail"):
        assert row.duplicated > 0
    if what == "reaper beside writers":
        assert row.total("segments") > 60


@pytest.mark.campaign
def test_bounds(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    rows = bounds.run(rounds=1, seed=3, progress=QUIET, work=work)
    assert not [row for row in rows if not row.ok]
    assert len(rows) == 5 and sum(bool(row.recorded) for row in rows) == 4


@pytest.mark.campaign
def test_system_calls_that_fail(tmp_path: Path) -> None:
    rows = short(faults, tmp_path)
    assert sum(row.rounds for row in rows) == faults.SHORT_ROUNDS
    assert sum(row.recorded for row in rows) > 5 * faults.SHORT_ROUNDS
    assert sum(row.total("of them reached") for row in rows) > 0.9 * faults.SHORT_ROUNDS
    assert {"open fails", "write fails", "stat fails"} < {row.treatment for row in rows}


# --- damage -------------------------------------------------------------------------------------


@pytest.mark.campaign
def test_damaged_files(tmp_path: Path) -> None:
    rows = short(damage, tmp_path)
    assert sum(row.delivered for row in rows) < sum(row.recorded for row in rows)


def lying(spool: Any, *given: Any, real: Any = store.Spool._write) -> str:
    real(spool, *given)
    return store.DISK


@pytest.mark.campaign
@pytest.mark.parametrize(
    "campaign, planted, found",
    [
        (damage, (lines, "crc32", lambda data: 0), "wrong: "),
        (damage, (book, "SETTLED", ()), "delivered again: "),
        (faults, (store.Spool, "_write", lying), "is acknowledged and not on disk"),
    ],
)
def test_a_defect_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, campaign: Any, planted: Any, found: str
) -> None:
    monkeypatch.setattr(*planted)
    given = {"rounds": campaign.SHORT_ROUNDS, "seed": 3, "progress": QUIET, "work": tmp_path}
    assert [what for row in campaign.run(**given) for what in row.broken if found in what]


# --- kills --------------------------------------------------------------------------------------


@pytest.mark.campaign
def test_nothing_is_lost_when_writers_deliverers_and_the_collector_are_killed(
    tmp_path: Path,
) -> None:
    (row,) = short(kill, tmp_path)
    assert row.rounds == kill.SHORT_ROUNDS and row.recorded == row.delivered > 100
    assert row.total("processes killed") > 10
    assert row.total("collectors killed") > 2 * row.rounds
    # Answers are lost in every run; that senders are killed at the moment is a matter of luck.
    assert row.causes


class Logs:
    """Logs of one round, as processes would leave them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.statuses: list[list[int]] = []
        self.account = accounts.Account()

    def add(self, pid: int, role: str, *entries: list[Any], status: int = 0) -> None:
        lines = [["process", pid, role, ""], *entries]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (self._directory / ("%d-%d.log" % (pid, pid))).write_text(text, encoding="utf-8")
        self.statuses.append([pid, status])

    def row(self) -> report.Row:
        return self.account.round(self._directory, self.statuses)


def text(marker: str) -> dict[str, Any]:
    return {"activation_identifier": marker, **content(marker, "text")}


WRITTEN = (["try", "m", "text"], ["recorded", "m", "text", "id"])
SENT_1, SENT_2 = ["sent", "a-1", 1.0], ["sent", "b-1", 2.0]
FIRST = ["accepted", "a-1", "getkeymanager", None, 830, text("m")]
AGAIN = ["accepted", "b-1", "getkeymanager", None, 830, text("m")]
GAVE = ["gave", "a-1"]
ANSWERED, OVER = ["answered", "a-1", 200, True], ["over", "a-1"]
GONE, LATE = (["unreachable", "a-1", late, "gone"] for late in (False, True))


def test_what_did_not_arrive_and_what_nobody_recorded_is_told(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    logs.add(1, "write", *WRITTEN, ["try", "n", "value"])
    assert logs.row().broken == ["lost: getkeymanager m"]
    logs.add(2, "deliver", SENT_1)
    logs.add(3, "collect", [*FIRST[:5], {**text("m"), "text_data": "another"}])
    row = logs.row()
    assert row.wrong == 1 and "nobody recorded" in row.broken[0]


@pytest.mark.parametrize(
    "sender, collector, status, cause",
    [
        ([ANSWERED, OVER], [FIRST, GAVE], 0, ""),
        # Settled, and killed afterwards.
        ([ANSWERED, OVER], [FIRST, GAVE], -9, ""),
        ([ANSWERED], [FIRST, GAVE], -9, accounts.KILLED),
        ([], [FIRST], -9, accounts.KILLED),
        ([ANSWERED], [FIRST, GAVE], 0, accounts.ENDED),
        ([GONE, OVER], [FIRST], 0, accounts.LOST),
        ([GONE, OVER], [FIRST, GAVE], 0, ""),
        ([LATE, OVER], [FIRST, GAVE], 0, accounts.LATE),
        ([["unreachable", "a-1", False, "interrupted"], OVER], [FIRST, GAVE], 0, accounts.ENDED),
        ([ANSWERED, OVER], [[*FIRST[:3], "not-json", *FIRST[4:]], GAVE], 0, accounts.SPOILT),
    ],
)
def test_a_duplicate_has_the_cause_that_the_logs_show(
    tmp_path: Path, sender: Any, collector: Any, status: int, cause: str
) -> None:
    logs = Logs(tmp_path)
    logs.add(1, "write", *WRITTEN)
    logs.add(2, "deliver", SENT_1, *sender, status=status)
    logs.add(3, "deliver", SENT_2, ["answered", "b-1", 200, True], ["over", "b-1"])
    # Whichever the collector took in first.
    logs.add(4, "collect", AGAIN, *collector, status=-signal.SIGKILL)
    row = logs.row()
    assert (row.delivered, row.duplicated, row.lost, row.wrong) == (1, 1, 0, 0)
    assert row.ok == bool(cause) and dict(row.causes) == ({cause: 1} if cause else {})


@pytest.mark.parametrize(
    "whole, sums, ok",
    [(True, [5], 1), (True, [4], 0), (False, [3], 1), (False, [2], 0), (False, [3, 3], 0)],
)
def test_sums_are_held_to_what_was_counted_and_kept(
    tmp_path: Path, whole: bool, sums: list[int], ok: bool
) -> None:
    logs = Logs(tmp_path)
    counts: list[list[Any]] = [["counting", "C", 3], ["kept", "C"], ["counting", "C", 2]]
    logs.add(1, "write", *counts, *[["complete"]] * whole)
    logs.add(2, "deliver", SENT_1)
    arrived = [
        {"event_id": str(number), "activity_type": "C", "count": count}
        for number, count in enumerate(sums)
    ]
    accepted = ["accepted", "a-1", "reo-aggregate", None, 200]
    logs.add(3, "collect", *([*accepted, one] for one in arrived))
    assert logs.row().ok == ok
