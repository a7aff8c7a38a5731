"""What a start, the first and a later record, a pass, status and close cost beside up to 100,000 pending records.

Each figure is the median over fresh processes, which are taken in turn so that whatever else the machine does meets all
sizes alike. Held to it are processor times of the calling thread: a busy machine stretches those the least.
"""

from __future__ import annotations

import json
import random
import statistics
from pathlib import Path
from typing import Any, Optional

from . import report
from .bounds_spool import fill
from .processes import Child

SIZES = (0, 10, 100, 1_000, 10_000, 100_000)
SHORT_SIZES = (0, 2_000)
PER_SEGMENT = 600  # 256 KiB of them
SPREAD = 1_000  # and once in so many segments
# How much longer than with nothing pending: the kernel lists a directory's names, 170 or 1,000 of them.
FACTOR, SLACK_MS, SPREAD_MS = 2.0, 1.5, 12.0
# Where so many bytes may be more records than the quota takes, the first record has the lines of all segments counted.
COUNTED_MS = 0.3  # for each 1,000 records
IDLE_KB, PASS_KB, RECORD_KB = 2_000, 4_000, 1.2
TIMES = ("start", "first", "later", "close", "pass", "status")
SPACES = ("idle_kb", "pass_kb", "status_kb")

Key = tuple[int, int]  # pending, segments


class Curve:
    """All measurements of one campaign."""

    def __init__(self, place: Path, keys: list[Key]) -> None:
        self._place, self.keys = place, keys
        self.found: dict[Key, list[dict[str, Any]]] = {key: [] for key in keys}
        for key in keys:
            fill(self._at(key), key[0], segments=key[1])

    def _at(self, key: Key) -> Path:
        return self._place / ("%d-%d" % key)

    def measure(self, key: Key, *, whole: bool, kept: bool = True) -> None:
        """One fresh process; ``whole`` also with a pass and status."""
        child = Child("bounds_spool", "measured", place=str(self._at(key)), whole=whole)
        found = json.loads(child.said())
        if kept:
            self.found[key].append(found)

    def median(self, key: Key, name: str, which: int = 0) -> Optional[float]:
        values = [found[name] for found in self.found[key] if name in found]
        flat = [value[which] if isinstance(value, list) else value for value in values]
        return float(statistics.median(flat)) if flat else None

    def row(self, key: Key) -> report.Row:
        (pending, segments), none = key, self.keys[0]
        title = "{:,} pending in {:,} segments".format(pending, segments)
        row = report.Row(title, rounds=len(self.found[key]), recorded=pending)
        row.delivered = min(pending, *(f.get("pending", pending) for f in self.found[key]), pending)
        row.lost = pending - row.delivered
        first, base = self.median(key, "first", 1), self.median(none, "first", 1)
        row.note = "ms (of the processor): %s; first record %.1f times that with nothing pending"
        row.note %= ", ".join(self._shown(key)), (first or 0) / (base or 1)
        row.broken = self._broken(key, none)
        return row

    def _shown(self, key: Key) -> list[str]:
        times = [(name, self.median(key, name), self.median(key, name, 1)) for name in TIMES]
        spaces = [(name[:-3], self.median(key, name)) for name in SPACES]
        shown = ["%s %.2f (%.2f)" % (n, a, b or 0) for n, a, b in times if a is not None]
        return shown + ["%s %.1f MB" % (name, kb / 1024) for name, kb in spaces if kb is not None]

    def _broken(self, key: Key, none: Key) -> list[str]:
        broken = []
        slack_ms = SPREAD_MS * key[1] / SPREAD + SLACK_MS + COUNTED_MS * key[0] / 1000
        for name in ("start", "first", "later", "close"):
            ours, least = self.median(key, name, 1) or 0, self.median(none, name, 1) or 0
            if ours > FACTOR * least + slack_ms:
                broken.append("%s takes %.1f ms instead of %.1f" % (name, ours, least))
        for name, most in (("idle_kb", IDLE_KB), ("pass_kb", PASS_KB + RECORD_KB * key[0])):
            grown = (self.median(key, name) or 0) - (self.median(none, name) or 0)
            if grown > most:
                broken.append("%s grew by %d KB" % (name, grown))
        return broken


def curve(
    rounds: int, chance: random.Random, progress: report.Progress, place: Path
) -> list[report.Row]:
    short = rounds < 10
    sizes = SHORT_SIZES if short else SIZES
    keys: list[Key] = [(n, -(-n // PER_SEGMENT)) for n in sizes]
    if not short:
        keys.append((sizes[-1], SPREAD))
    found = Curve(place, keys)
    for key in keys:
        found.measure(key, whole=False, kept=False)  # files in memory, modules compiled
    times = 2 if short else max(3, rounds)
    for done in range(times):
        for key in chance.sample(keys, len(keys)):
            found.measure(key, whole=done < (1 if short else 2))
        progress.step("curve", done + 1, times)
    return [found.row(key) for key in keys]
