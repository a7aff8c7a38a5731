"""The short form of the kill campaign, and that its verdicts can be bad ones."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fcntl")

from campaign import kill, kill_account as accounts, report  # noqa: E402 - needs fork
from campaign.kill_child import content  # noqa: E402

pytestmark = pytest.mark.once


@pytest.mark.campaign
def test_nothing_is_lost_when_writers_deliverers_and_the_collector_are_killed(
    tmp_path: Path,
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    quiet = report.Progress(quiet=True)
    rows = kill.run(rounds=kill.SHORT_ROUNDS, seed=3, progress=quiet, work=work)
    assert all(row.ok for row in rows), [row.broken for row in rows]
    (ours,) = rows
    assert ours.rounds == kill.SHORT_ROUNDS and ours.recorded == ours.delivered > 100
    killed, collectors = [int(n) for n in re.findall("[0-9]+", ours.note)][:2]
    assert killed > 10 and collectors > 2 * ours.rounds
    # Answers are lost in every run; that senders are killed at the moment is a matter of luck.
    assert ours.causes


class Logs:
    """Logs of one round, as processes would leave them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.statuses: list[list[int]] = []

    def add(self, pid: int, role: str, *entries: list[Any], status: int = 0) -> None:
        lines = [["process", pid, role, ""], *entries]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (self._directory / ("%d-%d.log" % (pid, pid))).write_text(text, encoding="utf-8")
        self.statuses.append([pid, status])

    def account(self) -> accounts.Account:
        account = accounts.Account()
        found = account.read(self._directory, self.statuses)
        assert account.add(found.arrived) == []
        return account


def text(marker: str) -> dict[str, Any]:
    return {"activation_identifier": marker, **content(marker, "text")}


WRITTEN = (["try", "m", "text"], ["recorded", "m", "text", "id"])
SENT_1, SENT_2 = ["sent", "a-1", 1.0], ["sent", "b-1", 2.0]
FIRST = ["accepted", "a-1", "getkeymanager", None, 830, text("m")]
AGAIN = ["accepted", "b-1", "getkeymanager", None, 830, text("m")]
GAVE = ["gave", "a-1"]
ANSWERED, OVER = ["answered", "a-1", 200, True], ["over", "a-1"]


def test_a_record_that_did_not_arrive_is_told(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    logs.add(1, "write", *WRITTEN, ["try", "n", "value"])
    assert logs.account().lost() == [("getkeymanager", "m")]


@pytest.mark.parametrize(
    "sender, collector, status, cause",
    [
        ([ANSWERED, OVER], [FIRST, GAVE], 0, accounts.UNEXPLAINED),
        # Settled, and killed afterwards.
        ([ANSWERED, OVER], [FIRST, GAVE], -9, accounts.UNEXPLAINED),
        ([ANSWERED], [FIRST, GAVE], -9, accounts.KILLED),
        ([], [FIRST], -9, accounts.KILLED),
        ([ANSWERED], [FIRST, GAVE], 0, accounts.ENDED),
        ([["unreachable", "a-1", False, "gone"], OVER], [FIRST], 0, accounts.LOST),
        ([["unreachable", "a-1", False, "gone"], OVER], [FIRST, GAVE], 0, accounts.UNEXPLAINED),
        ([["unreachable", "a-1", True, "timed out"], OVER], [FIRST, GAVE], 0, accounts.LATE),
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
    account = logs.account()
    assert list(account.duplicates()) == [(("getkeymanager", "m"), "a-1", cause)]
    assert account.lost() == [] and not list(account.duplicates())


def test_content_that_nobody_recorded_is_told(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    logs.add(1, "write", *WRITTEN)
    account = logs.account()
    arrival = accounts.Arrival("a-1", None, {**text("m"), "text_data": "another"})
    account.requests["a-1"] = accounts.Request(1, 1.0)
    assert "nobody recorded" in account.add([("getkeymanager", 830, arrival)])[0]


@pytest.mark.parametrize(
    "end, sums, wrong",
    [
        ([["complete"]], [5], 0),
        ([["complete"]], [4], 1),
        ([], [3], 0),
        ([], [2], 1),
        ([], [3, 3], 1),
    ],
)
def test_sums_are_held_to_what_was_counted_and_kept(
    tmp_path: Path, end: Any, sums: list[int], wrong: int
) -> None:
    logs = Logs(tmp_path)
    counts: list[list[Any]] = [
        ["counting", "C", 3],
        ["kept", "C"],
        ["counting", "C", 2],
    ]
    logs.add(1, "write", *counts, *end)
    arrived = [
        ["accepted", "a-1", "reo-aggregate", None, 200, aggregate(str(number), count)]
        for number, count in enumerate(sums)
    ]
    logs.add(2, "deliver", SENT_1)
    logs.add(3, "collect", *arrived)
    assert len(logs.account().miscounted()) == wrong


def aggregate(id: str, count: int) -> dict[str, Any]:
    return {"event_id": id, "activity_type": "C", "count": count}
