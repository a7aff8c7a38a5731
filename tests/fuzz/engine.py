"""The engine: random mutations, seeded, nothing measured but outcomes; what it found; the inputs that are kept.

An input with an outcome that no other had joins those that are mutated further. Without coverage that is the only sign
of progress, so outcomes are worded finely; in return it costs nothing, and runs wherever the tests run. A kept line is
the outcome that is pinned, a tab, the input in base64: ``tests/golden/fuzz/TARGET.txt`` holds the smallest of each.
"""

import base64
import random
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Optional

from .target import Target, kind

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests" / "golden" / "fuzz"
KEPT_MAX, KEPT_MAX_BYTES = 48, 2048
POOL_MAX_BYTES = 8 * 1024
# A target that breaks at every input needs no more examples.
CRASHES_MAX = 20


class Crash(NamedTuple):
    """One way to break a promise, with the smallest input that leads there."""

    data: bytes
    told: str
    times: int = 1


@dataclass
class Finding:
    """The result of one target. ``new``: outcomes beyond those of the seeds; a crash is known by where it is."""

    target: str
    seed: int
    executions: int = 0
    corpus: int = 0
    new: int = 0
    crashes: dict[str, Crash] = field(default_factory=dict)

    def add(self, data: bytes, error: BaseException) -> None:
        """Note a crash, or a smaller input for a known one."""
        root = str(ROOT) + "/"  # where the tree lies is nobody's business
        last = traceback.extract_tb(error.__traceback__)[-2:]
        place = ", ".join("%s:%s in %s" % (f.filename, f.lineno, f.name) for f in last)
        told = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        where = "%s at %s" % (type(error).__name__, place.replace(root, ""))
        known = self.crashes.get(where)
        if known is None and len(self.crashes) < CRASHES_MAX:
            self.crashes[where] = Crash(data, told.replace(root, ""))
        elif known:
            smaller = min(known.data, data, key=len)
            self.crashes[where] = Crash(smaller, known.told, known.times + 1)

    def __str__(self) -> str:
        """One line; below it every crash."""
        figures = self.target, self.executions, self.corpus, self.new, len(self.crashes)
        lines = ["%-10s%8d executions, %4d inputs, %4d outcomes new, %d crashes" % figures]
        for where, crash in self.crashes.items():
            text = base64.b64encode(crash.data).decode("ascii")
            lines.append("\n%s (%d times)\ninput in base64: %s" % (where, crash.times, text))
            lines.append(crash.told)
        return "\n".join(lines)


def run(
    target: Target, found: Finding, *, seconds: float, executions: Optional[int] = None
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
