"""What a start, the first and a later record, a pass, status and close cost beside up to 100,000 pending records.

Each figure is the median over fresh processes, which are taken in turn so that whatever else the machine does meets all
sizes alike. Held to it are processor times of the calling thread: a busy machine stretches those the least.
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
from pathlib import Path
from typing import Any, Optional

from . import report
from .bounds_spool import fill
from .processes import Child
from .stores import PEERS, peer

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

Key = tuple[str, int, int]  # store, pending, segments


class Curve:
    """All measurements of one campaign."""

    def __init__(self, place: Path, keys: list[Key]) -> None:
        self._place, self.keys = place, keys
        self.found: dict[Key, list[dict[str, Any]]] = {key: [] for key in keys}
        text = json.dumps({"text_data": "CALL HOME", "more": "x" * 280})
        for key in keys:
            store, pending, segments = key
            if store == report.AGENT:
                fill(self._at(key), pending, segments=segments)
            else:
                made = peer(store, self._at(key))
                made.fill([("%032x" % n, text) for n in range(pending)])
                made.close()

    def _at(self, key: Key) -> Path:
        return self._place / ("%s-%d-%d" % key).replace(" ", "-")

    def measure(self, key: Key, *, whole: bool, kept: bool = True) -> None:
        """One fresh process; ``whole`` also with a pass and status."""
        role = "measured" if key[0] == report.AGENT else "measured_peer"
        place = str(self._at(key))
        child = Child("bounds_spool", role, place=place, store=key[0], whole=whole)
        found = json.loads(child.said())
        if kept:
            self.found[key].append(found)

    def median(self, key: Key, name: str, which: int = 0) -> Optional[float]:
        values = [found[name] for found in self.found[key] if name in found]
        flat = [value[which] if isinstance(value, list) else value for value in values]
        return float(statistics.median(flat)) if flat else None

    def row(self, key: Key) -> report.Row:
        store, pending, segments = key
        none = next(one for one in self.keys if one[0] == store)
        title = format(pending, ",") + " pending"
        if store == report.AGENT:
            title += " in %s segments" % format(segments, ",")
        row = report.Row(title, store, rounds=len(self.found[key]), recorded=pending)
        row.delivered = min(pending, *(f.get("pending", pending) for f in self.found[key]), pending)
        row.lost = pending - row.delivered
        first, base = self.median(key, "first", 1), self.median(none, "first", 1)
        row.note = "ms (of the processor): %s; first record %.1f times that with nothing pending"
        row.note %= ", ".join(self._shown(key)), (first or 0) / (base or 1)
        if store == report.AGENT:
            row.broken = self._broken(key, none)
        return row

    def _shown(self, key: Key) -> list[str]:
        times = [(name, self.median(key, name), self.median(key, name, 1)) for name in TIMES]
        spaces = [(name[:-3], self.median(key, name)) for name in SPACES]
        shown = ["%s %.2f (%.2f)" % (n, a, b or 0) for n, a, b in times if a is not None]
        return shown + ["%s %.1f MB" % (name, kb / 1024) for name, kb in spaces if kb is not None]

    def _broken(self, key: Key, none: Key) -> list[str]:
        broken = []
        slack_ms = SPREAD_MS * key[2] / SPREAD + SLACK_MS + COUNTED_MS * key[1] / 1000
        for name in ("start", "first", "later", "close"):
            ours, least = self.median(key, name, 1) or 0, self.median(none, name, 1) or 0
            if ours > FACTOR * least + slack_ms:
                broken.append("%s takes %.1f ms instead of %.1f" % (name, ours, least))
        for name, most in (("idle_kb", IDLE_KB), ("pass_kb", PASS_KB + RECORD_KB * key[1])):
            grown = (self.median(key, name) or 0) - (self.median(none, name) or 0)
            if grown > most:
                broken.append("%s grew by %d KB" % (name, grown))
        return broken


def run(
    rounds: int, chance: random.Random, progress: report.Progress, place: Path
) -> list[report.Row]:
    short = rounds < 10
    sizes = SHORT_SIZES if short else SIZES
    keys: list[Key] = [(report.AGENT, n, -(-n // PER_SEGMENT)) for n in sizes]
    if not short:
        keys.append((report.AGENT, sizes[-1], SPREAD))
        keys += [(store, n, 1) for store in PEERS for n in sizes]
    curve = Curve(place, keys)
    for key in keys:
        curve.measure(key, whole=False, kept=False)  # files in memory, modules compiled
    times = 2 if short else max(3, rounds)
    for done in range(times):
        for key in chance.sample(keys, len(keys)):
            curve.measure(key, whole=done < (1 if short else 2))
        progress.step("curve", done + 1, times)
    rows = [curve.row(key) for key in keys]
    shutil.rmtree(place)
    return rows
