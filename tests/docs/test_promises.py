"""PROMISES.md and SECURITY.md against the tests: each promise, each kind of trouble is held by tests that are there."""

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


def test_what_holds_against_attackers_is_what_is_attacked() -> None:
    """Word for word, and nothing else is said to hold."""
    text = (ROOT.parent / "vendor_notes" / "SECURITY.md").read_text("utf-8")
    section = text.partition("## What holds\n")[2].partition("\n## ")[0]
    said = [" ".join(one.split()).rstrip(".") for one in section.split("\n- ")[1:]]
    assert len(said) > 15 and set(said) <= {row[0] for row in ROWS}
