"""Measuring: fresh processes in turns, medians with quartiles, tables and aims.

A turn runs every program once, and each turn begins with another one, so that what a busy machine does to one it does
to all. Compared are figures of one turn; ratios survive a noisy machine, absolute figures do not.
"""

from __future__ import annotations

import ast
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support import tables

ROOT = Path(__file__).resolve().parents[2]
# The state directories: on the disk of the checkout, not in memory.
HERE = ROOT / ".bench"
LIMIT_S = 120.0
# Where this interpreter's own libraries are: urllib3 and PyNaCl among them.
SITE = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})


@dataclass(frozen=True)
class Figure:
    """What several measurements of one thing came to."""

    median: float
    low: float  # the quartiles
    high: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Figure:
        found = sorted(values)
        low, median, high = found[0], found[0], found[-1]
        if len(found) > 1:
            low, median, high = statistics.quantiles(found, n=4, method="inclusive")
        return cls(median, low, high, len(found))

    def __str__(self) -> str:
        if self.n == 1 or self.low == self.high:
            return number(self.median)
        return "%s (%s–%s)" % (number(self.median), number(self.low), number(self.high))


def number(value: float) -> str:
    """Three digits that mean something."""
    if value - value != 0:  # a floor that was lost in the noise
        return "n/a"
    if value == int(value) and abs(value) < 1e9 or abs(value) >= 100:
        return "{:,.0f}".format(value)
    return "%.*f" % (1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 3, value)


@dataclass
class Table:
    """Rows of figures under one heading; a column's name says its unit."""

    title: str
    columns: list[str]
    rows: dict[str, list[Any]] = field(default_factory=dict)  # a Figure, a number or a text
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, *cells: Any) -> None:
        assert len(cells) == len(self.columns)
        self.rows[name] = [Figure.of(cell) if isinstance(cell, list) else cell for cell in cells]

    def lines(self) -> list[str]:
        rows = [
            [name, *(number(c) if isinstance(c, (int, float)) else str(c) for c in cells)]
            for name, cells in self.rows.items()
        ]
        shown = ["**%s**" % self.title, "", *tables.table(["", *self.columns], rows), ""]
        for note in self.notes:
            shown += [*tables.folded(note), ""]
        return shown


@dataclass(frozen=True)
class Aim:
    """What a figure is to be."""

    text: str
    value: float
    limit: float
    unit: str = "x"
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def __str__(self) -> str:
        bound, verdict = "least" if self.at_least else "most", "met" if self.met else "**missed**"
        value, limit = ((number(v) + " " + self.unit).strip() for v in (self.value, self.limit))
        return "- %s: %s, aim at %s %s: %s" % (self.text, value, bound, limit, verdict)


@dataclass
class Result:
    """What one group measured."""

    tables: list[Table] = field(default_factory=list)
    aims: list[Aim] = field(default_factory=list)

    def lines(self) -> list[str]:
        """As a document has it; no line but those of tables is wide."""
        shown = [line for table in self.tables for line in table.lines()]
        return shown + [line for aim in self.aims for line in tables.folded(str(aim))]


@dataclass
class Context:
    """What the groups are told, and the directory that they may fill."""

    rounds: int
    work: Path
    say: Callable[[str], None]

    def directory(self) -> Path:
        """An empty directory of its own."""
        return Path(tempfile.mkdtemp(dir=self.work))

    def state(self) -> Path:
        """A state directory that does not exist yet."""
        return self.directory() / "state"

    def filled(self, n: int, url: str = "http://127.0.0.1:9") -> Path:
        """A state directory in which ``n`` records wait."""
        state = self.state()
        run(ours(FILL), state, n, url, limit_s=600)
        return state

    def copy(self, kept: Path) -> Path:
        return Path(shutil.copytree(kept, self.state()))


@dataclass(frozen=True)
class Run:
    """One fresh process from its start to its end. Seconds; ``marks`` count from its start too."""

    took_s: float
    marks: tuple[float, ...]
    told: dict[str, Any]  # what it printed

    @property
    def after_s(self) -> float:
        """From the last mark to the end."""
        return self.took_s - self.marks[-1]


# A program marks moments and prints one line at its end. perf_counter() is one clock for all processes of a machine.
PRELUDE = """
import sys
sys.path[:0] = %r
from time import perf_counter as _clock
marks, told = [], {}
mark = lambda: marks.append(_clock())
def tell():
    sys.stdout.write(repr((marks, told)))
    sys.stdout.flush()
"""


def program(source: str, paths: Sequence[str | Path] = SITE) -> str:
    """A whole program: it may call ``mark()``, fill ``told``, and calls ``tell()`` at its end."""
    return PRELUDE % [str(path) for path in paths] + source


def ours(source: str) -> str:
    """A program that finds the tree and this interpreter's libraries, and may call ``product``."""
    return program(PRODUCT + source, [ROOT, *SITE])


def start(source: str, *arguments: object) -> subprocess.Popen[bytes]:
    kept = ("PATH", "HOME", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP", "LANG")
    return subprocess.Popen(
        # No site: a virtual environment's .pth files are no part of what is measured. The same flags for everybody.
        [sys.executable, "-I", "-S", "-c", source, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Nothing of whoever measures: no proxy, no switch, no certificate.
        env={name: os.environ[name] for name in kept if name in os.environ},
    )


def run(source: str, *arguments: object, limit_s: float = LIMIT_S) -> Run:
    """Run one program; raises ``RuntimeError`` where it fails, ``TimeoutExpired`` where it takes too long."""
    began = time.perf_counter()
    process = start(source, *arguments)
    try:
        out, err = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    took_s = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(err.decode("utf-8", "replace").strip() or str(process.returncode))
    return Run(took_s, *read(out, began))


def read(out: bytes, began: float = 0.0) -> tuple[tuple[float, ...], dict[str, Any]]:
    """What a program told."""
    marks, told = ast.literal_eval(out.decode()) if out.strip() else ((), {})
    return tuple(mark - began for mark in marks), told


def in_turns(works: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """Each work's results, one per turn."""
    found: dict[str, list[Any]] = {name: [] for name in works}
    names = list(works)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(works[name]())
    return found


def over(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Differences in milliseconds, turn by turn."""
    return [1e3 * (value - other) for value, other in zip(values, base)]


def ratio(values: Sequence[float], base: Sequence[float]) -> float:
    """Of the medians."""
    below = statistics.median(base)
    return statistics.median(values) / below if below > 0 else float("inf")


def quantile(values: Sequence[float], share: float) -> float:
    found = sorted(values)
    return found[min(len(found) - 1, int(len(found) * share))]


PRODUCT = """
def product(state_dir, url="http://127.0.0.1:9", pem="", usage=False, **changes):
    import agent
    keys = (agent.PublicKey.from_pem(pem),) if pem else ()
    server = agent.GetKeyManager(base_url=url, api_key="demo-api-key", keys=keys, allow_unsigned=not keys)
    reo = (agent.Reo(base_url=url, api_key="demo-api-key", domain="acme.example"),) if usage else ()
    if usage:
        changes["usage_consent"] = True
    config = agent.Config(vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5",
                          endpoints=(server, *reo), state_dir=state_dir, **changes)
    return agent.Agent(config, ("demo-license-key", "activation-1"))
"""
FILL = """
n = int(sys.argv[2])
telemetry = product(sys.argv[1], sys.argv[3], deliver="manual", durability="process",
                    max_records=n + 1000, max_bytes=(n + 1000) * 2000)
for number in range(n):
    telemetry.record_value(number, data_group="bench")
telemetry.close()
tell()
"""
