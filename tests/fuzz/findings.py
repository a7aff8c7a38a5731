"""What a run of one target found: figures, and each crash once, with the smallest input that leads there."""

from __future__ import annotations

import base64
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Where the tree lies is nobody's business.
_ROOT = str(Path(__file__).resolve().parents[2]) + "/"
# A target that breaks at every input needs no more examples.
CRASHES_MAX = 20


@dataclass
class Crash:
    """One way to break a promise."""

    where: str
    error: str
    traceback: str
    input_base64: str
    times: int = 1


@dataclass
class Finding:
    """The result of one target. ``new``: edges (Atheris) or outcomes (plain) beyond those of the seeds."""

    target: str
    engine: str
    seed: int
    seconds: float = 0.0
    executions: int = 0
    corpus: int = 0
    new: int = 0
    skipped: str = ""
    crashes: list[Crash] = field(default_factory=list)

    def add(self, data: bytes, error: BaseException) -> bool:
        """Note a crash; whether it is a new one, or a smaller input for a known one."""
        last = traceback.extract_tb(error.__traceback__)[-2:]
        place = ", ".join("%s:%s in %s" % (f.filename, f.lineno, f.name) for f in last)
        where = "%s at %s" % (type(error).__name__, place.replace(_ROOT, ""))
        text = base64.b64encode(data).decode("ascii")
        told = "".join(traceback.format_exception(type(error), error, error.__traceback__)).replace(
            _ROOT, ""
        )
        for known in self.crashes:
            if known.where == where:
                known.times += 1
                if len(text) < len(known.input_base64):
                    known.input_base64, known.traceback, known.error = text, told, str(error)
                    return True
                return False
        if len(self.crashes) < CRASHES_MAX:
            self.crashes.append(Crash(where, str(error)[:1000], told, text))
            return True
        return False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Finding:
        return cls(**{**value, "crashes": [Crash(**crash) for crash in value["crashes"]]})


COLUMNS = ("target", "engine", "seconds", "executions", "corpus", "new coverage", "crashes")


def table(findings: list[Finding]) -> str:
    """All targets, one line each; below it every crash."""
    lines = [list(COLUMNS)]
    for one in findings:
        figures = ["%.0f" % one.seconds, *map(str, (one.executions, one.corpus, one.new))]
        lines.append([one.target, one.engine, *figures, str(len(one.crashes))])
    widths = [max(len(line[n]) for line in lines) for n in range(len(COLUMNS))]
    shown = []
    for line, finding in zip(lines, [None, *findings]):
        cells = [c.ljust(w) if n < 2 else c.rjust(w) for n, (c, w) in enumerate(zip(line, widths))]
        mark = "" if finding is None else "  FAILED" if finding.crashes else "  ok"
        if finding is not None and finding.skipped:
            mark = "  skipped: " + finding.skipped
        shown.append(" ".join(cells) + mark)
    for finding in findings:
        for crash in finding.crashes:
            shown.append("\n%s: %s (%d times)" % (finding.target, crash.where, crash.times))
            shown.append("input in base64: %s\n%s" % (crash.input_base64, crash.traceback))
    return "\n".join(shown)
