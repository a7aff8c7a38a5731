"""What fuzzing kept is replayed, and each target fuzzed for a moment; ``python -m tests.fuzz`` does it for longer."""

import json
import random

import pytest
from fuzz import engine, mutate, strict, target as targets

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
    target = targets.make(name)
    for outcome, data in engine.kept(name):
        assert targets.kind(target.run(data)) == outcome, data


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
def test_a_moment_of_fuzzing_finds_nothing(name: str) -> None:
    found = engine.Finding(name, seed=1)
    engine.run(targets.make(name), found, seconds=20, executions=EXECUTIONS)
    assert not found.crashes, str(found)
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
    assert sorted(where.split()[0] for where in found.crashes) == ["Broken", "SystemExit"]
    for where, crash in found.crashes.items():
        assert len(crash.data) <= 6 and crash.times > 1 and "in run" in crash.told
        assert where in str(found)


def test_a_seed_repeats_a_run() -> None:
    runs = []
    for _ in range(2):
        found = engine.Finding("book", seed=7)
        runs.append(engine.run(targets.make("book"), found, seconds=20, executions=300))
    assert runs[0] == runs[1]


def test_the_second_reader_is_strict() -> None:
    text = '{"a":1,"a":{"b":[1.5e3]}}'
    assert strict.as_dict(strict.read(text.encode()), once=False) == json.loads(text)
    with pytest.raises(ValueError, match="twice"):
        strict.as_dict(strict.read(text.encode()), once=True)
    for other in ("NaN", "-Infinity", "[" * 401 + "]" * 401, "[" * 5000, "\ufeff1", "[] 1"):
        with pytest.raises(ValueError):
            strict.read(other.encode())
