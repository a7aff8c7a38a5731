"""``python -m tests.bench``: what the host pays, beside a bare interpreter, beside floors, beside peers."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from . import cold, exit, interference, measure, peers, replay, report, verify, warm
from .measure import Context, Result

EXAMPLES = """
examples:
  python -m tests.bench
  python -m tests.bench import cold --rounds 31
  python -m tests.bench --json bench.json --report vendor_notes/PERFORMANCE.md
  python -m tests.bench --from bench.json --report vendor_notes/PERFORMANCE.md

groups: %s
Peers are installed from PyPI into .bench/peers on first use; state lies below .bench, on the disk of the checkout.
"""
GROUPS: dict[str, Callable[[Context], Result]] = {
    "import": cold.importing,
    "cold": cold.group,
    "warm": warm.group,
    "exit": exit.group,
    "interference": interference.group,
    "replay": replay.group,
    "verify": verify.group,
}


def say(text: str) -> None:
    sys.stderr.write(text + "\n")  # in one piece: several threads say something
    sys.stderr.flush()


def about(rounds: int) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "python": platform.python_version(),
        "platform": "%s %s" % (platform.system(), platform.machine()),
        "cpus": os.cpu_count() or 0,
        "load": "%.1f" % os.getloadavg()[0] if hasattr(os, "getloadavg") else "unknown",
        "date": datetime.date.today().isoformat(),
        "rounds": rounds,
    }


def measured(groups: list[str], rounds: int, with_peers: bool) -> dict[str, Any]:
    """Run the groups; the result as JSON-ready values."""
    with_peers &= bool({"import", "warm", "exit"} & set(groups))
    found, missing = peers.install(say) if with_peers else ({}, {})
    for name, why in missing.items():
        say("%s: left out: %s" % (name, why))
    measure.HERE.mkdir(exist_ok=True)
    results: dict[str, Any] = {"about": about(rounds), "groups": {}}
    for name in groups:
        began = time.perf_counter()
        work = Path(tempfile.mkdtemp(prefix="work-", dir=measure.HERE))
        try:
            result = GROUPS[name](Context(rounds, found, work, say, missing))
        finally:
            shutil.rmtree(work, ignore_errors=True)
        results["groups"][name] = measure.as_json(result)
        say("%s: %.0f s" % (name, time.perf_counter() - began))
    return results


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="What the host pays: medians of fresh processes that take turns, and the aims they are held to.",
        epilog=EXAMPLES % " ".join(GROUPS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("groups", nargs="*", metavar="GROUP", help="default: all")
    made.add_argument("--rounds", type=int, default=11, metavar="N", help="turns (11)")
    made.add_argument("--no-peers", dest="peers", action="store_false", help="ours and floors only")
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    made.add_argument("--from", dest="source", type=Path, metavar="FILE", help="measure nothing")
    made.add_argument("--report", type=Path, metavar="FILE", help="fill the blocks of a document")
    return made


def main(argv: Optional[list[str]] = None) -> int:
    """Measure, print, write; the exit status. A missed aim is told, and no failure: machines differ."""
    options = parser()
    given = options.parse_args(argv)
    unknown = [name for name in given.groups if name not in GROUPS]
    if unknown:
        options.error("no group %r; known are %s" % (unknown[0], " ".join(GROUPS)))
    if given.rounds < 1:
        options.error("--rounds: at least 1")
    if given.source:
        results = json.loads(given.source.read_text("utf-8"))
    else:
        results = measured(given.groups or list(GROUPS), given.rounds, given.peers)
    for name, result in results["groups"].items():
        print("== %s\n%s\n" % (name, report.terminal(result)))
    print(report.summary(results["groups"]))
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    if given.report:
        for name in report.fill(given.report, results["groups"], results["about"]):
            say("%s has no block for %r" % (given.report, name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
