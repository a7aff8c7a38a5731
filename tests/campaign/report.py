"""What a campaign found: rows, their table, and progress while people wait."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from support import tables

SHOWN = 10  # broken promises of one row
COLUMNS = ("treatment", "rounds", "recorded", "delivered", "lost", "duplicated", "wrong")


@dataclass
class Row:
    """One treatment, of one round or summed over all of them."""

    treatment: str
    rounds: int = 0
    recorded: int = 0  # acknowledged by the call that recorded them
    delivered: int = 0  # distinct
    lost: int = 0  # acknowledged, intact on disk or never damaged, and not delivered
    duplicated: int = 0  # deliveries beyond the first
    wrong: int = 0  # delivered with a content that nobody recorded
    causes: Counter[str] = field(default_factory=Counter)  # of the duplicates
    note: str = ""
    broken: list[str] = field(default_factory=list)  # promises of ours that did not hold, in words
    figures: dict[str, list[float]] = field(default_factory=dict)  # of the rounds, by what they are

    def figure(self, what: str, value: float) -> None:
        """Keep a figure of one round: whole ones are summed, of others the greatest counts."""
        self.figures.setdefault(what, []).append(value)

    def total(self, what: str) -> int:
        return int(sum(self.figures.get(what, ())))

    def breaks(self, fault: object, words: str) -> None:
        """Where there is a ``fault``, a promise is broken."""
        if fault:
            self.broken.append(words)

    def add(self, other: Row) -> None:
        """Sum up what another came to."""
        for name in COLUMNS[1:]:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.causes += other.causes
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

    def told(self) -> str:
        """What stands below the table."""
        parts = [self.note]
        for what, values in self.figures.items():
            if all(isinstance(value, int) for value in values):
                parts.append("%d %s" % (sum(values), what) if any(values) else "")
            else:
                parts.append("at most %.2f %s" % (max(values), what))
        parts.append(", ".join("%s: %d" % cause for cause in sorted(self.causes.items())))
        return "; ".join(part for part in (*parts, *self.broken) if part)


def markdown(head: str, rows: list[Row]) -> str:
    """The table, as a terminal shows it and ``RELIABILITY.md`` has it."""
    cells = [[str(getattr(row, name)) for name in COLUMNS] for row in rows]
    lines = [*tables.folded(head), "", *tables.table(COLUMNS, cells, "---:"), ""]
    for row in rows:
        if row.told():
            lines += tables.folded("- %s: %s." % (row.treatment, row.told()))
    return "\n".join(lines).rstrip()


class Progress:
    """Where a campaign is, on stderr: a line every ten seconds, and what has to be said at once."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet, self._began_at = quiet, time.monotonic()
        self._shown_at = self._began_at

    def step(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` rounds of ``what`` are over."""
        now = time.monotonic()
        if done >= total or now - self._shown_at > 10:
            self._shown_at = now
            self.say("%s: %d of %d, %.0f s" % (what, done, total, now - self._began_at))

    def say(self, line: str) -> None:
        if not self._quiet:
            print(line, file=sys.stderr, flush=True)
