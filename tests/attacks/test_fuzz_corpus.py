"""What fuzzing kept is replayed, and each target fuzzed for a moment; ``python -m tests.fuzz`` does it for longer."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import corpus, findings, mutate, plain, strict, target as targets
from fuzz.__main__ import main

pytestmark = pytest.mark.once

EXECUTIONS = 100


def made(name: str) -> targets.Target:
    reason = targets.missing(name)
    if reason:
        pytest.skip(reason)
    return targets.make(name, shared=False)


def kept() -> list[str]:
    return sorted(path.stem for path in corpus.KEPT.glob("*.txt"))


def test_inputs_are_kept_for_known_targets_and_small() -> None:
    assert {"answer", "envelope", "key", "line"} <= set(kept()) <= set(targets.TARGETS)
    for name in kept():
        inputs = [data for _, data in corpus.kept(name)]
        assert 5 < len(inputs) <= corpus.KEPT_MAX and len(set(inputs)) == len(inputs)
        assert max(map(len, inputs)) <= corpus.KEPT_MAX_BYTES


@pytest.mark.parametrize("name", kept())
def test_a_kept_input_has_the_outcome_it_had(name: str) -> None:
    target = made(name)
    for outcome, data in corpus.kept(name):
        assert targets.kind(target.run(data)) == outcome, data


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
def test_a_moment_of_fuzzing_finds_nothing(name: str) -> None:
    found = findings.Finding(name, "plain", seed=1)
    plain.run(made(name), found, seconds=20, executions=EXECUTIONS)
    assert not found.crashes, findings.table([found])
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
    found = findings.Finding("breaking", "plain", seed=1)
    plain.run(Breaking(), found, seconds=20, executions=3000)
    assert sorted(crash.where.split()[0] for crash in found.crashes) == ["Broken", "SystemExit"]
    assert all(len(crash.input_base64) <= 8 for crash in found.crashes)
    assert all(crash.times > 1 and "in run" in crash.traceback for crash in found.crashes)
    assert findings.Finding.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert "FAILED" in findings.table([found])


def test_a_seed_repeats_a_run(tmp_path: Path) -> None:
    runs = [findings.Finding("key", "plain", seed=7) for _ in range(2)]
    for found, place in zip(runs, ("1", "2")):
        plain.run(made("key"), found, seconds=20, executions=300, directory=tmp_path / place)
    assert runs[0].new == runs[1].new
    assert corpus.load(tmp_path / "1") == corpus.load(tmp_path / "2") != []


def test_what_is_kept_is_as_small_as_it_may_be(tmp_path: Path) -> None:
    target = made("envelope")
    corpus.keep(target, [b"{}", b"{ }", b"[]", b"[ ]", b"x" * 5000], tmp_path)
    assert [data for _, data in corpus.kept("envelope", tmp_path)] == [b"[]", b"{}"]


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
    arguments = ["key", "--seconds", "0.1", "--seed", "1", "--engine", "plain", "--quiet"]
    assert main([*arguments, "--json", str(file)]) == 0
    shown = capfd.readouterr()
    assert not shown.err
    assert "--seed 1 --engine plain" in shown.out and "key    plain" in shown.out
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
        ["--engine", "magic"],
    ):
        with pytest.raises(SystemExit) as raised:
            main(arguments)
        assert raised.value.code == 2


def test_help_loads_nothing_of_the_package() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "tests.fuzz", "--help"]
    done = subprocess.run(command, cwd=corpus.ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and "examples:" in done.stdout
    assert "| agent" not in done.stderr.replace("|   ", "| ")
