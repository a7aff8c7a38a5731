"""What a start, the first and a later record, a pass, status and close cost beside up to 100,000 pending records.

Each figure is the median over fresh processes, which are taken in turn so that whatever else the machine does meets all
sizes alike. Held to it are processor times of the calling thread: a busy machine stretches those the least.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import statistics
from pathlib import Path
from typing import Any, Optional

from support.agent import run_python

from . import report
from .bounds_spool import fill
from .stores import PEERS, peer

SIZES = (0, 10, 100, 1_000, 10_000, 100_000)
SHORT_SIZES = (0, 2_000)
PER_SEGMENT = 600  # 256 KiB of them
SPREAD = 1_000  # and once in so many segments
# How much longer than with nothing pending: the kernel lists a directory's names, 170 or 1,000 of them.
FACTOR, SLACK_MS, SPREAD_MS = 2.0, 1.5, 12.0
PASS_KB = 12_000

SETUP = """
import sys, time, json, resource
sys.path[:0] = [%r]
directory = sys.argv[1]
def peak_kb():
    try:  # of this program alone: what getrusage gives begins with the peak of whoever started it
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 + 1023 * (sys.platform == "darwin"))
""" % str(Path(__file__).resolve().parent.parent)

AGENT = SETUP + """
import agent
from support.agent import config
from campaign.bounds_spool import Network
given = config("http://127.0.0.1:9", (), directory, max_records=150_000,
               max_bytes=100_000_000, max_age_days=36500, deliver=sys.argv[2])
network = Network(up=False)
found = {}
class timed:
    def __init__(self, name, times=1): self.name, self.times = name, times
    def __enter__(self): self.at = time.perf_counter(), time.thread_time()
    def __exit__(self, *unused):
        wall, own = time.perf_counter() - self.at[0], time.thread_time() - self.at[1]
        found[self.name] = wall * 1000 / self.times, own * 1000 / self.times
with timed("start"): product = agent.Agent(given, "key", transport=network)
with timed("first"): product.record_text("CALL HOME", data_group="g")
with timed("later", 10):
    for _ in range(10): product.record_text("CALL HOME", data_group="g")
found["idle_kb"] = peak_kb()
if sys.argv[3] == "1":
    # Nothing waits for the other endpoint, so the pass looks at every record.
    with timed("pass"): product._engine.courier.deliver(skip=("backoff",), timeout_s=lambda: 5.0)
    found["pass_kb"] = peak_kb()
    with timed("status"): found["pending"] = product.status()["pending"]
    found["status_kb"] = peak_kb()
with timed("close"): product.close()
print(json.dumps(found))
"""

PEER = SETUP + """
from pathlib import Path
from campaign.stores import peer
at = time.perf_counter(), time.thread_time()
store = peer(sys.argv[2], Path(directory))
store.record("id", "CALL HOME")
found = {"first": [(time.perf_counter() - at[0]) * 1000, (time.thread_time() - at[1]) * 1000]}
found["idle_kb"] = peak_kb()
if sys.argv[3] == "1":
    at = time.perf_counter(), time.thread_time()
    found["pending"] = len(store.pending())
    found["pass"] = [(time.perf_counter() - at[0]) * 1000, (time.thread_time() - at[1]) * 1000]
    found["pass_kb"] = peak_kb()
store.close()
print(json.dumps(found))
"""

Key = tuple[str, int, int]  # store, pending, segments


def _fill_peer(name: str, directory: Path, pending: int) -> None:
    store = peer(name, directory)
    text = json.dumps({"text_data": "CALL HOME", "more": "x" * 280})
    if name == "JSON lines":
        lines = (json.dumps({"id": "%032x" % n, "body": text}) + "\n" for n in range(pending))
        (directory / "queue.jsonl").write_text("".join(lines), encoding="utf-8")
    else:
        database = sqlite3.connect(str(directory / "queue.db"))
        values = (("%032x" % n, text) for n in range(pending))
        database.executemany("insert into queue (id, body) values (?, ?)", values)
        database.commit()
        database.close()
    store.close()


class Curve:
    """All measurements of one campaign."""

    def __init__(self, place: Path, keys: list[Key]) -> None:
        self._place, self.keys = place, keys
        self.found: dict[Key, list[dict[str, Any]]] = {key: [] for key in keys}
        for store, pending, segments in keys:
            directory = self._at((store, pending, segments))
            if store == report.AGENT:
                fill(directory, pending, segments=segments)
            else:
                _fill_peer(store, directory, pending)

    def _at(self, key: Key) -> Path:
        return self._place / ("%s-%d-%d" % key).replace(" ", "-")

    def measure(self, key: Key, *, whole: bool, kept: bool = True) -> None:
        """One fresh process; ``whole`` also with a pass and status."""
        code, what = (AGENT, "manual") if key[0] == report.AGENT else (PEER, key[0])
        ran = run_python(code, str(self._at(key)), what, str(int(whole)), timeout_s=120)
        assert ran.returncode == 0, ran.stderr
        if kept:
            self.found[key].append(json.loads(ran.stdout))

    def median(self, key: Key, name: str, which: int = 0) -> Optional[float]:
        values = [found[name] for found in self.found[key] if name in found]
        if not values:
            return None
        flat = [value[which] if isinstance(value, list) else value for value in values]
        return float(statistics.median(flat))

    def clear(self) -> None:
        for key in self.keys:
            shutil.rmtree(self._at(key))


TIMES = ("start", "first", "later", "close", "pass", "status")


def _line(curve: Curve, key: Key) -> str:
    cells = ["%-15s %7d in %4d" % key]
    for name in TIMES:
        value = curve.median(key, name)
        cells.append("%9s" % ("-" if value is None else "%.2f" % value))
    for name in ("idle_kb", "pass_kb", "status_kb"):
        value = curve.median(key, name)
        cells.append("%7s" % ("-" if value is None else "%.1f" % (value / 1024)))
    return " ".join(cells)


def _row(curve: Curve, key: Key, none: Key) -> report.Row:
    store, pending, segments = key
    first, base = curve.median(key, "first", 1), curve.median(none, "first", 1)
    row = report.Row(
        "%s pending in %s segments" % (format(pending, ","), format(segments, ",")), store
    )
    if store != report.AGENT:
        row.treatment = "%s pending" % format(pending, ",")
    row.rounds, row.recorded = len(curve.found[key]), pending
    whole = [found["pending"] for found in curve.found[key] if "pending" in found]
    row.delivered = min(pending, *whole) if whole else pending
    row.lost = pending - row.delivered
    shown = [
        "%s %.2f (%.2f)" % (name, value, curve.median(key, name, 1) or 0)
        for name in TIMES
        for value in [curve.median(key, name)]
        if value is not None
    ]
    shown += [
        "%s %.1f MB" % (name[:-3], value / 1024)
        for name in ("idle_kb", "pass_kb", "status_kb")
        for value in [curve.median(key, name)]
        if value is not None
    ]
    row.note = "ms (of the processor): %s; first record %.1f times that with nothing pending" % (
        ", ".join(shown), (first or 0) / (base or 1))  # fmt: skip
    if store == report.AGENT:
        slack_ms = SPREAD_MS * segments / SPREAD + SLACK_MS
        for name in ("start", "first", "later", "close"):
            ours, least = curve.median(key, name, 1) or 0, curve.median(none, name, 1) or 0
            if ours > FACTOR * least + slack_ms:
                row.broken.append("%s takes %.1f ms instead of %.1f" % (name, ours, least))
        for name in ("idle_kb", "pass_kb"):
            grown = (curve.median(key, name) or 0) - (curve.median(none, name) or 0)
            if grown > (2_000 if name == "idle_kb" else PASS_KB):
                row.broken.append("%s grew by %d KB" % (name, grown))
    return row


def _plot(curve: Curve, path: Path) -> str:
    """Draw it where matplotlib is there; what was made of it."""
    try:
        import matplotlib  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return "no picture: matplotlib is not installed"
    matplotlib.use("Agg")
    from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4))
    for store in (report.AGENT, *PEERS):
        keys = [k for k in curve.keys if k[0] == store and (k[2] < SPREAD or store != report.AGENT)]
        sizes = [max(1, key[1]) for key in keys]
        axes[0].plot(sizes, [curve.median(key, "first") for key in keys], "o-", label=store)
        memory = [curve.median(key, "pass_kb") for key in keys]
        axes[1].plot(sizes, [(kb or 0) / 1024 for kb in memory], "o-", label=store)
    for one, what in zip(axes, ("open and record one, ms", "memory of a pass over all, MB")):
        one.set_xscale("log")
        one.set_ylim(bottom=0)
        one.set_xlabel("records pending (1: none)")
        one.set_ylabel(what)
        one.legend()
    figure.tight_layout()
    figure.savefig(path)
    return "picture: %s" % path


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
    times = max(3, rounds) if not short else 2
    for done in range(times):
        for key in chance.sample(keys, len(keys)):
            curve.measure(key, whole=done < (1 if short else 2))
        progress.step("curve", done + 1, times)
    head = "%-32s %s   MB idle, pass, status" % ("pending", " ".join("%9s" % n for n in TIMES))
    for line in (head + " (ms)", *(_line(curve, key) for key in keys)):
        progress.say(line)
    if not short:
        given = os.environ.get("BOUNDS_PLOT")
        progress.say(
            _plot(curve, Path(given)) if given else "no picture: BOUNDS_PLOT names no file"
        )
    rows = [_row(curve, key, next(k for k in keys if k[0] == key[0])) for key in keys]
    curve.clear()
    return rows
