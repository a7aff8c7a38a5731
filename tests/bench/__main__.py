"""What the host pays, beside a bare interpreter and beside floors: medians of fresh processes that take turns.

groups: import cold warm exit interference replay; each with the aims that it is held to.

examples:
  python -m tests.bench
  python -m tests.bench import cold --rounds 31
  python -m tests.bench --report vendor_notes/PERFORMANCE.md

State lies below .bench, on the disk of the checkout.
"""

import argparse
import datetime
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Optional

from support import tables

from . import cold, exit, interference, measure, replay, warm
from .measure import Aim, Context, Result

GROUPS: dict[str, Callable[[Context], Result]] = {
    "import": cold.importing,
    "cold": cold.group,
    "warm": warm.group,
    "exit": exit.group,
    "interference": interference.group,
    "replay": replay.group,
}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def about(name: str) -> str:
    """What the figures depend on."""
    load = "%.1f" % os.getloadavg()[0] if hasattr(os, "getloadavg") else "unknown"
    facts = platform.system(), platform.machine(), os.cpu_count() or 0, load
    where = "Python %s on %s %s, %d CPUs, load %s" % (platform.python_version(), *facts)
    return "`python -m tests.bench %s`: %s, %s." % (name, where, datetime.date.today().isoformat())


def measured(name: str, rounds: int) -> Result:
    """Run one group, in a directory of its own."""
    began = time.perf_counter()
    measure.HERE.mkdir(exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="work-", dir=measure.HERE))
    try:
        return GROUPS[name](Context(rounds, work, say))
    finally:
        shutil.rmtree(work, ignore_errors=True)
        say("%s: %.0f s" % (name, time.perf_counter() - began))


def parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    made = argparse.ArgumentParser(
        "python -m tests.bench", None, __doc__, formatter_class=formatter
    )
    made.add_argument("groups", nargs="*", metavar="GROUP", help="default: all")
    made.add_argument("--rounds", type=int, default=11, metavar="N", help="turns (11)")
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
    aims: list[Aim] = []
    for name in given.groups or GROUPS:
        told = about(name)
        result = measured(name, given.rounds)
        text = "\n".join([told, "", *result.lines()])
        print(text + "\n", flush=True)
        aims += result.aims
        if given.report and not tables.fill(given.report, "bench", name, text):
            say("%s has no block for %r" % (given.report, name))
    print("%d of %d aims met" % (sum(aim.met for aim in aims), len(aims)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
