"""The demo tells the truth: ten steps that hold, each of which can be made to fail for a real reason."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from support.cli import ROOT, command, run, spawn

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


@pytest.mark.parametrize(
    ("faulty", "differing"),
    [
        ([6], [6, 7]),  # what is lost in the sixth step cannot be replayed in the seventh
        ([1, 2, 3, 4, 5, 7, 8, 9, 10], [1, 2, 3, 4, 5, 7, 8, 9, 10]),
    ],
)
def test_a_fault_in_a_step_is_noticed(faulty: list[int], differing: list[int]) -> None:
    injected = [word for step in faulty for word in ("--inject", str(step))]
    done = run("demo", "--json", *injected)
    assert (done.status, done.json["ok"]) == (1, False)
    assert [found["step"] for found in done.json["steps"] if not found["ok"]] == differing
    assert "Traceback" not in done.err


def test_a_copy_under_another_name_tells_it_too(tmp_path: Path) -> None:
    place = tmp_path / "product" / "acme" / "_vendor"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "agent", place / "calls_home", ignore=ignored)
    (place / "__init__.py").write_text("")
    (place.parent / "__init__.py").write_text("import sys; sys.argv or exit('loaded')\n")
    done = spawn("demo", cwd=tmp_path / "product", package="acme._vendor.calls_home")
    assert done.status == 0, done.out
    assert "every step holds" in done.out and done.err == ""


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C reaches a whole console there")
def test_interrupted_it_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        command("demo"),
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        assert child.stderr.read() == "interrupted\n" and child.wait(20) == 130
    assert os.listdir(tmp_path) == []


def test_the_rotation_holds_and_leaves_nothing(tmp_path: Path) -> None:
    done = spawn("demo", "--rotation", "--json", env={"TMPDIR": str(tmp_path), **HOSTILE})
    assert done.status == 0, done.err
    assert [step["ok"] for step in done.json["steps"]] == [True] * 6
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("step", range(1, 7))
def test_a_fault_in_a_step_of_the_rotation_is_noticed(step: int) -> None:
    done = run("demo", "--rotation", "--json", "--inject", str(step))
    assert (done.status, done.json["ok"]) == (1, False)
    assert step in [found["step"] for found in done.json["steps"] if not found["ok"]]
