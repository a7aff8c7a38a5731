"""What a campaign found: rows, their table, and progress while people wait."""

from __future__ import annotations

import sys
import textwrap
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

WIDTH = 118
SHOWN = 10  # broken promises of one row
COLUMNS = ("treatment", "rounds", "recorded", "delivered", "lost", "duplicated", "wrong")


@dataclass
class Row:
    """One treatment, summed over all rounds."""

    treatment: str
    rounds: int = 0
    recorded: int = 0  # acknowledged by the call that recorded them
    delivered: int = 0  # distinct
    lost: int = 0  # acknowledged, intact on disk or never damaged, and not delivered
    duplicated: int = 0  # deliveries beyond the first
    wrong: int = 0  # delivered with a content that nobody recorded
    causes: dict[str, int] = field(default_factory=dict)  # of the duplicates
    note: str = ""
    broken: list[str] = field(default_factory=list)  # promises of ours that did not hold, in words
    figures: dict[str, list[float]] = field(default_factory=dict)  # of the rounds, for the note

    def figure(self, what: str, value: float) -> None:
        """Keep a figure of one round."""
        self.figures.setdefault(what, []).append(value)

    def total(self, what: str) -> int:
        return int(sum(self.figures.get(what, ())))

    def add(self, other: Row) -> None:
        """Sum up what another came to."""
        for name in COLUMNS[1:]:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.causes = dict(Counter(self.causes) + Counter(other.causes))
        self.broken += other.broken[: SHOWN - len(self.broken)]
        for what, values in other.figures.items():
            self.figures.setdefault(what, []).extend(values)

    def deliver(self, recorded: Collection[str], sent: Counter[str]) -> None:
        """Count one round: what was acknowledged, and how often what arrived."""
        self.rounds += 1
        self.recorded += len(recorded)
        self.delivered += len(sent)
        self.lost += len(set(recorded) - sent.keys())
        self.duplicated += sum(sent.values()) - len(sent)

    @property
    def ok(self) -> bool:
        """Whether every promise held."""
        unexplained = self.duplicated - sum(self.causes.values())
        return not (self.lost or self.wrong or unexplained or self.broken)


@dataclass
class Result:
    """One run of one campaign."""

    campaign: str
    command: str
    seed: int
    seconds: float
    python: str
    platform: str
    rows: list[Row]

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)


def _cells(row: Row) -> list[str]:
    return [str(getattr(row, name)) for name in COLUMNS]


def _notes(row: Row) -> str:
    causes = ", ".join("%s: %d" % cause for cause in sorted(row.causes.items()))
    return "; ".join(part for part in (row.note, causes, *row.broken) if part)


def markdown(result: Result) -> str:
    """The table, as a terminal shows it and ``RELIABILITY.md`` has it."""
    head = "`%s`: seed %d, %.0f s, %s on %s" % (
        result.command,
        result.seed,
        result.seconds,
        result.python,
        result.platform,
    )
    lines = [*textwrap.wrap(head, WIDTH), "", "| %s |" % " | ".join(COLUMNS)]
    lines.append("|---|" + "---:|" * (len(COLUMNS) - 1))
    lines += ["| %s |" % " | ".join(_cells(row)) for row in result.rows]
    lines.append("")
    for row in filter(_notes, result.rows):
        note = "- %s: %s." % (row.treatment, _notes(row))
        lines += textwrap.wrap(note, WIDTH, subsequent_indent="  ")
    return "\n".join(lines).rstrip()


def fill(path: Path, result: Result) -> None:
    """Put it into its block of a document."""
    begin, end = "<!-- results %s -->\n" % result.campaign, "<!-- /results -->\n"
    before, _, rest = path.read_text("utf-8").partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit("%s has no block for %r" % (path, result.campaign))
    path.write_text(before + begin + markdown(result) + "\n" + end + after, "utf-8")


class Progress:
    """Where a campaign is: a line that is rewritten on a terminal, one every ten seconds elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live = sys.stderr.isatty()
        self._began_at = self._shown_at = time.monotonic()

    def step(self, what: str, done: int, total: int, more: str = "") -> None:
        """``done`` of ``total`` rounds of ``what`` are over."""
        now = time.monotonic()
        last = done >= total
        if self._quiet or not (last or now - self._shown_at > (0.1 if self._live else 10)):
            return
        self._shown_at = now
        line = "%s: %d of %d, %.0f s%s" % (
            what,
            done,
            total,
            now - self._began_at,
            more and "; " + more,
        )
        end = "\n" if last or not self._live else ""
        print(("\r\x1b[K" if self._live else "") + line, end=end, file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """A line that stays."""
        if not self._quiet:
            print(("\r\x1b[K" if self._live else "") + line, file=sys.stderr, flush=True)
