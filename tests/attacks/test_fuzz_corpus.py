"""What fuzzing kept is replayed, and each target fuzzed for a moment; ``python -m tests.fuzz`` does it for longer."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import engine, mutate, strict, target as targets
from fuzz.__main__ import main

pytestmark = pytest.mark.once

EXECUTIONS = 100


def kept() -> list[str]:
    return sorted(path.stem for path in engine.KEPT.glob("*.txt"))


def test_inputs_are_kept_for_known_targets_and_small() -> None:
    assert set(kept()) == set(targets.TARGETS)
    for name in kept():
        inputs = [data for _, data in engine.kept(name)]
        assert 5 < len(inputs) <= engine.KEPT_MAX and len(set(inputs)) == len(inputs)
        assert max(map(len, inputs)) <= engine.KEPT_MAX_BYTES


@pytest.mark.parametrize("name", kept())
def test_a_kept_input_has_the_outcome_it_had(name: str) -> None:
    target = targets.make(name, shared=False)
    for outcome, data in engine.kept(name):
        assert targets.kind(target.run(data)) == outcome, data


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
def test_a_moment_of_fuzzing_finds_nothing(name: str) -> None:
    found = engine.Finding(name, seed=1)
    engine.run(targets.make(name, shared=False), found, seconds=20, executions=EXECUTIONS)
    assert not found.crashes, engine.table([found])
    assert found.executions > EXECUTIONS and found.corpus > 5


class Breaking(targets.Target):
    """Breaks at every input with a bracket, in one place and in two ways."""

    name = "breaking"

    def seeds(self) -> list[bytes]:
        return [b"{}", b"0123456789"]

    def run(self, data: bytes) -> str:
        if b"[" in data:
            raise SystemExit(1)
        targets.promise(b"{" not in data, "a brace")
        return "fine: %d" % len(data)

    def mutate(self, data: bytes, rnd: random.Random) -> bytes:
        return mutate.of_bytes(data, rnd)


def test_what_breaks_is_reported_once_each_with_a_small_input() -> None:
    found = engine.Finding("breaking", seed=1)
    engine.run(Breaking(), found, seconds=20, executions=3000)
    assert sorted(crash.where.split()[0] for crash in found.crashes) == ["Broken", "SystemExit"]
    assert all(len(crash.input_base64) <= 8 for crash in found.crashes)
    assert all(crash.times > 1 and "in run" in crash.traceback for crash in found.crashes)
    assert json.loads(json.dumps(found.to_json()))["crashes"][0]["times"] > 1
    assert "FAILED" in engine.table([found])


def test_a_seed_repeats_a_run() -> None:
    runs = []
    for _ in range(2):
        found = engine.Finding("key", seed=7)
        runs.append(engine.run(targets.make("key"), found, seconds=20, executions=300))
    assert runs[0] == runs[1]


def test_what_is_kept_is_as_small_as_it_may_be(tmp_path: Path) -> None:
    target = targets.make("envelope")
    engine.keep(target, [b"{ }", b"{}", b"x" * 5000], tmp_path)
    assert [data for _, data in engine.kept("envelope", tmp_path)] == [b"{}"]


@pytest.mark.parametrize(
    "text",
    ['{"a":1,"a":2}', '"\\ud83d\\ude00 \\u00e9"', "[1.5e3,-0,0.10]", " [ ] ", '{"":{"":[null]}}'],
)
def test_the_second_reader_reads_what_the_first_reads(text: str) -> None:
    assert strict.as_dict(strict.read(text.encode()), once=False) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    ["", "01", "1.", "NaN", '"\t"', '"\\x"', "[1,]", '{"a"}', "{'a':1}", "[] 1", '"', "\ufeff1"],
)
def test_the_second_reader_refuses_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError):
        strict.read(text.encode())


def test_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "result.json"
    arguments = ["key", "--seconds", "0.1", "--seed", "1", "--quiet"]
    assert main([*arguments, "--json", str(file)]) == 0
    shown = capfd.readouterr()
    assert not shown.err
    assert "--seed 1" in shown.out and "key " in shown.out
    result = json.loads(file.read_text("utf-8"))
    assert result["ok"] and result["targets"][0]["executions"] > 0


def test_one_input_is_executed(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["envelope", "--input", "e30="]) == 0
    assert capfd.readouterr().out.startswith("EnvelopeMalformed")


def test_a_wrong_use_is_told_apart_from_a_crash() -> None:
    for arguments in (
        ["nothing"],
        ["--input", "e30="],
        ["key", "--input", "?"],
    ):
        with pytest.raises(SystemExit) as raised:
            main(arguments)
        assert raised.value.code == 2


def test_help_loads_nothing_of_the_package() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "tests.fuzz", "--help"]
    done = subprocess.run(command, cwd=engine.ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and "examples:" in done.stdout
    assert "| agent" not in done.stderr.replace("|   ", "| ")
