"""The demo tells the truth: ten steps that hold, each of which can be made to fail for a real reason."""

import os
from pathlib import Path

import pytest
from support.cli import run, spawn

pytestmark = pytest.mark.once

HOSTILE = {"DO_NOT_TRACK": "1", "HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "socks5://x:1"}


def test_every_step_holds_and_nothing_is_left(tmp_path: Path) -> None:
    watched = {**HOSTILE, "AGENT_DEBUG": "1"}
    done = spawn("demo", "--json", env={"TMPDIR": str(tmp_path), **watched})
    assert done.status == 0, done.err
    steps = done.json["steps"]
    assert [step["step"] for step in steps] == list(range(1, 11))
    assert all(step["ok"] and step["title"] and step["detail"] for step in steps)
    assert done.json["ok"] is True
    told = [line for line in done.err.splitlines() if line[:4].strip().isdigit()]
    assert [int(line.split()[0]) for line in told] == list(range(1, 11))
    assert os.listdir(tmp_path) == []


# What is lost in the sixth step cannot be replayed in the seventh, and so on: the last are the consequences.
FAULTS: list[tuple[list[str], list[int], list[int]]] = [
    ([], [6], [7]),
    ([], [1, 2, 3, 4, 5, 7, 8, 9, 10], []),
    (["--rotation"], [1, 4, 6], []),
    (["--rotation"], [2, 5], [3, 4, 6]),
    (["--rotation"], [3], [4]),
]


@pytest.mark.parametrize(("form", "faulty", "more"), FAULTS)
def test_a_fault_in_a_step_is_noticed(form: list[str], faulty: list[int], more: list[int]) -> None:
    injected = [word for step in faulty for word in ("--inject", str(step))]
    done = run("demo", "--json", *form, *injected)
    assert (done.status, done.json["ok"]) == (1, False)
    failed = [found["step"] for found in done.json["steps"] if not found["ok"]]
    assert failed == sorted(faulty + more)
    assert "Traceback" not in done.err


def test_the_rotation_holds_and_leaves_nothing(tmp_path: Path) -> None:
    done = spawn("demo", "--rotation", "--json", env={"TMPDIR": str(tmp_path), **HOSTILE})
    assert done.status == 0, done.err
    assert [step["ok"] for step in done.json["steps"]] == [True] * 6
    assert os.listdir(tmp_path) == []
