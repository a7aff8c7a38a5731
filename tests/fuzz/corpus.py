"""Inputs on disk: one file each while fuzzing, one line each where they are kept.

A kept line is the outcome that is pinned, a tab, the input in base64. ``tests/golden/fuzz/TARGET.txt`` holds a few
dozen, the smallest that reach what no smaller one reaches.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .target import Target, kind

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests" / "golden" / "fuzz"
KEPT_MAX = 48
KEPT_MAX_BYTES = 2048


def kept(name: str, directory: Path = KEPT) -> list[tuple[str, bytes]]:
    """(outcome, input) of every kept line of a target; [] if there are none."""
    try:
        lines = (directory / (name + ".txt")).read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return []
    pairs = [line.partition("\t")[::2] for line in lines if line and not line.startswith("#")]
    return [(outcome, base64.b64decode(text, validate=True)) for outcome, text in pairs]


def load(directory: Path) -> list[bytes]:
    """The inputs in a directory, in the order of their names."""
    return [path.read_bytes() for path in sorted(directory.iterdir()) if path.is_file()]


def save(directory: Path, data: bytes) -> None:
    """One more input, under the name of its content, as libFuzzer has it."""
    directory.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha1(data).hexdigest()  # no secret: libFuzzer's own names
    (directory / digest).write_bytes(data)


def keep(target: Target, found: Iterable[bytes], directory: Path = KEPT) -> int:
    """Write anew what is kept of a target, out of what was kept and ``found``; how many.

    The target must not depend on anything that others may not have.
    """
    before = [data for _, data in kept(target.name, directory)]
    inputs = sorted({*before, *found}, key=lambda data: (data not in before, len(data), data))
    seen: set[Any] = set()
    lines: list[str] = []
    for data in inputs:
        if len(data) <= KEPT_MAX_BYTES and len(lines) < KEPT_MAX:
            try:
                outcome, reached = _reached(target, data)
            except Exception:
                continue  # a finding, kept once it is mended
            if reached - seen:
                seen |= reached
                lines.append("%s\t%s" % (kind(outcome), base64.b64encode(data).decode("ascii")))
    directory.mkdir(parents=True, exist_ok=True)
    head = "# python -m tests.fuzz %s --keep; outcome, tab, input in base64" % target.name
    text = "\n".join([head, *lines]) + "\n"
    (directory / (target.name + ".txt")).write_text(text, encoding="ascii")
    return len(lines)


def _reached(target: Target, data: bytes) -> tuple[str, set[Any]]:
    """The outcome, and the steps from line to line in the package that lead there."""
    package = str(ROOT / "agent")
    steps: set[Any] = set()

    def trace(frame: Any, event: str, _: Any) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(package):
            return None
        last = frame.f_lineno

        def step(frame: Any, event: str, _: Any) -> Any:
            nonlocal last
            steps.add((file, event == "exception", last, frame.f_lineno))
            last = frame.f_lineno
            return step

        return step

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        outcome = target.run(data)
    finally:
        sys.settrace(before)
    return outcome, {*steps, outcome}
