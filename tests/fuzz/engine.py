"""The engine: random mutations, seeded, nothing measured but outcomes; what it found; the inputs that are kept.

An input with an outcome that no other had joins those that are mutated further. Without coverage that is the only sign
of progress, so outcomes are worded finely; in return it costs nothing, and runs wherever the tests run. A kept line is
the outcome that is pinned, a tab, the input in base64: ``tests/golden/fuzz/TARGET.txt`` holds the smallest of each.
"""

from __future__ import annotations

import base64
import random
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional

from .target import Target, kind

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests" / "golden" / "fuzz"
KEPT_MAX, KEPT_MAX_BYTES = 48, 2048
POOL_MAX_BYTES = 8 * 1024
# A target that breaks at every input needs no more examples.
CRASHES_MAX = 20
COLUMNS = ("target", "seconds", "executions", "corpus", "new", "crashes")


@dataclass
class Crash:
    """One way to break a promise, with the smallest input that leads there."""

    where: str
    error: str
    traceback: str
    input_base64: str
    times: int = 1


@dataclass
class Finding:
    """The result of one target. ``new``: outcomes beyond those of the seeds."""

    target: str
    seed: int
    seconds: float = 0.0
    executions: int = 0
    corpus: int = 0
    new: int = 0
    crashes: list[Crash] = field(default_factory=list)

    def add(self, data: bytes, error: BaseException) -> None:
        """Note a crash, or a smaller input for a known one."""
        root = str(ROOT) + "/"  # where the tree lies is nobody's business
        last = traceback.extract_tb(error.__traceback__)[-2:]
        place = ", ".join("%s:%s in %s" % (f.filename, f.lineno, f.name) for f in last)
        told = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        where = "%s at %s" % (type(error).__name__, place.replace(root, ""))
        text = base64.b64encode(data).decode("ascii")
        crash = Crash(where, str(error)[:1000], told.replace(root, ""), text)
        for number, known in enumerate(self.crashes):
            if known.where == where:
                known.times += 1
                if len(text) < len(known.input_base64):
                    crash.times = known.times
                    self.crashes[number] = crash
                return
        if len(self.crashes) < CRASHES_MAX:
            self.crashes.append(crash)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(
    target: Target,
    found: Finding,
    *,
    seconds: float,
    executions: Optional[int] = None,
    progress: Callable[[Finding], None] = lambda finding: None,
) -> list[bytes]:
    """Fuzz for so many seconds, or so many executions behind those of the seeds; inputs with outcomes of their own.

    ``found`` is filled in while it runs, so that an interrupted run shows what it has.
    """
    rnd, began_at = random.Random(found.seed), time.monotonic()
    pool = [*target.seeds(), *(data for _, data in kept(target.name))]
    seen: set[str] = set()
    for data in pool:
        _try(target, data, found, seen)
    before, seeds = len(seen), len(pool)
    while time.monotonic() - began_at < seconds:
        if executions is not None and found.executions >= executions + seeds:
            break
        data = rnd.choice(pool)
        for _ in range(rnd.choice((1, 1, 2, 4))):
            data = target.mutate(data, rnd)
        if len(data) <= POOL_MAX_BYTES and _try(target, data, found, seen):
            pool.append(data)
        found.corpus, found.new = len(pool), len(seen) - before
        found.seconds = time.monotonic() - began_at
        progress(found)
    return pool


def _try(target: Target, data: bytes, found: Finding, seen: set[str]) -> bool:
    """One execution; whether its outcome is new."""
    found.executions += 1
    try:
        outcome = target.run(data)
    except (Exception, SystemExit) as error:
        found.add(data, error)
        return False
    new = outcome not in seen
    seen.add(outcome)
    return new


def kept(name: str, directory: Path = KEPT) -> list[tuple[str, bytes]]:
    """(outcome, input) of every kept line of a target; [] if there are none."""
    try:
        lines = (directory / (name + ".txt")).read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return []
    pairs = [line.partition("\t")[::2] for line in lines if line and not line.startswith("#")]
    return [(outcome, base64.b64decode(text, validate=True)) for outcome, text in pairs]


def keep(target: Target, found: Iterable[bytes], directory: Path = KEPT) -> int:
    """Write anew what is kept of a target: what was, and the smallest input of each further outcome; how many.

    The target must not depend on anything that others may not have.
    """
    before = [data for _, data in kept(target.name, directory)]
    outcomes: dict[bytes, str] = {}
    for data in [*before, *sorted(found, key=len)]:
        try:
            outcome = target.run(data)
        except Exception:
            continue  # a finding, kept once it is mended
        wanted = data in before or outcome not in outcomes.values()
        if wanted and len(data) <= KEPT_MAX_BYTES and len(outcomes) < KEPT_MAX:
            outcomes[data] = outcome
    directory.mkdir(parents=True, exist_ok=True)
    lines = ["# python -m tests.fuzz %s --keep; outcome, tab, input in base64" % target.name]
    for data, outcome in outcomes.items():
        lines.append("%s\t%s" % (kind(outcome), base64.b64encode(data).decode("ascii")))
    path = directory / (target.name + ".txt")
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
    return len(outcomes)


def table(findings: list[Finding]) -> str:
    """All targets, one line each; below it every crash."""
    rows = [list(COLUMNS)]
    for one in findings:
        figures = (one.executions, one.corpus, one.new, len(one.crashes))
        rows.append([one.target, "%.0f" % one.seconds, *map(str, figures)])
    widths = [max(len(row[n]) for row in rows) for n in range(len(COLUMNS))]
    shown = []
    for row, finding in zip(rows, [None, *findings]):
        cells = [c.ljust(w) if n < 1 else c.rjust(w) for n, (c, w) in enumerate(zip(row, widths))]
        mark = "" if finding is None else "  FAILED" if finding.crashes else "  ok"
        shown.append(" ".join(cells) + mark)
    for finding in findings:
        for crash in finding.crashes:
            shown.append("\n%s: %s (%d times)" % (finding.target, crash.where, crash.times))
            shown.append("input in base64: %s\n%s" % (crash.input_base64, crash.traceback))
    return "\n".join(shown)
