"""What a start, the first and a later record, a pass, status and close cost beside up to 100,000 pending records.

Each figure is the median over fresh processes, which are taken in turn so that whatever else the machine does meets all
sizes alike. Held to it are processor times of the calling thread: a busy machine stretches those the least.
"""

import json
import random
import statistics
from pathlib import Path

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
IDLE_MB, PASS_MB, RECORD_MB = 2.0, 4.0, 0.0012

Key = tuple[int, int]  # pending, segments
Runs = list[dict[str, float]]


def curve(
    rounds: int, chance: random.Random, progress: report.Progress, place: Path
) -> list[report.Row]:
    """Fresh processes in turn; the first of each has files in memory and modules compiled, and does not count."""
    short = rounds < 10
    sizes = SHORT_SIZES if short else SIZES
    keys: list[Key] = [(n, -(-n // PER_SEGMENT)) for n in sizes]
    keys += [] if short else [(sizes[-1], SPREAD)]
    found: dict[Key, Runs] = {key: [] for key in keys}

    def measure(key: Key, *, whole: bool) -> dict[str, float]:
        child = Child("bounds_spool", "measured", place=str(place / ("%d-%d" % key)), whole=whole)
        told: dict[str, float] = json.loads(child.said())
        return told

    for key in keys:
        fill(place / ("%d-%d" % key), key[0], segments=key[1])
        measure(key, whole=False)
    times = 2 if short else max(3, rounds)
    for done in range(times):
        for key in chance.sample(keys, len(keys)):
            found[key].append(measure(key, whole=done < (1 if short else 2)))
        progress.step("curve", done + 1, times)
    return [_row(key, runs, found[keys[0]]) for key, runs in found.items()]


def _median(runs: Runs, name: str) -> float:
    return statistics.median(run[name] for run in runs if name in run)


def _row(key: Key, runs: Runs, none: Runs) -> report.Row:
    pending, segments = key
    title = "{:,} pending in {:,} segments".format(pending, segments)
    row = report.Row(title, rounds=len(runs), recorded=pending)
    row.delivered = int(min(run.get("pending", pending) for run in runs)) if pending else 0
    row.lost = max(0, pending - row.delivered)
    row.delivered = min(row.delivered, pending)
    medians = [(name, _median(runs, name)) for name in runs[0] if name != "pending"]
    row.note = ", ".join("%s %.2f" % found for found in medians)
    slack_ms = SPREAD_MS * segments / SPREAD + SLACK_MS + COUNTED_MS * pending / 1000
    for name in ("start", "first", "later", "close"):
        ours, least = (_median(of, name + " CPU ms") for of in (runs, none))
        slow = ours > FACTOR * least + slack_ms
        row.breaks(slow, "%s takes %.1f ms instead of %.1f" % (name, ours, least))
    for name, most in (("idle MB", IDLE_MB), ("pass MB", PASS_MB + RECORD_MB * pending)):
        grown = _median(runs, name) - _median(none, name)
        row.breaks(grown > most, "%s grew by %.1f" % (name, grown))
    return row
