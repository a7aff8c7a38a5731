"""PROMISES.md against the tests: each promise and each kind of trouble is held by tests that are there."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = [
    [cell.strip() for cell in line.strip("| ").split(" | ")]
    for line in (ROOT / "PROMISES.md").read_text("utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| promise |")
]


@lru_cache(maxsize=None)
def names_in(path: Path) -> frozenset[str]:
    """The names of the tests in a file, read and not run."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    names = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    return frozenset(name for name in names if name.startswith("test_"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_a_promise_is_held_by_tests_that_are_there(row: list[str]) -> None:
    promise, held_by = row
    named = re.findall(r"`([^`]+)`", held_by)
    assert promise and named
    for one in named:
        path, _, test = one.partition("::")
        assert (ROOT / path).is_file(), one
        assert names_in(ROOT / path), one
        assert not test or test in names_in(ROOT / path), one


def test_the_table_is_long_and_says_nothing_twice() -> None:
    promises = [row[0] for row in ROWS]
    assert len(promises) > 60
    assert len(set(promises)) == len(promises)
