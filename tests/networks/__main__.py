"""``python -m tests.networks``: an agent in every network of the list, and what came of it."""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Optional

from . import report
from .report import Row
from .situations import Situation, everything, missing
from .stage import LICENCE, Stage

EXAMPLES = """
examples:
  python -m tests.networks --list
  python -m tests.networks
  python -m tests.networks -k squid-password
  python -m tests.networks --report vendor_notes/NETWORKS.md

Programs and packages that the suite does not need (mitmproxy, proxy.py, truststore) are also looked for in the virtual
environment that AGENT_NETWORKS_TOOLS names. Network namespaces need root.
"""


def play(situation: Situation) -> Row:
    """Build it, deliver through it; how that ended."""
    why = missing(situation.needs)
    if why:
        return Row(situation, [], 0, why, "")
    with tempfile.TemporaryDirectory(prefix="networks-") as place:
        try:
            with Stage(Path(place) / "stage", clock=situation.clock()) as stage:
                situation.play(stage)
                stage.settled()
            copies = max(stage.copies[LICENCE].values())
            return Row(situation, stage.verdicts, copies, "", "")
        except Exception as error:
            traceback.print_exc()
            return Row(situation, [], 0, "", "%s: %s" % (type(error).__name__, error))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m tests.networks",
        description="Situations of real networks: outcome, and time until it was known.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("-k", metavar="NAME", help="this one, or those whose name begins so")
    made.add_argument("--list", action="store_true", help="what there is, and what it lacks here")
    made.add_argument("--report", type=Path, metavar="FILE", help="fill the table of a document")
    return made


def main(argv: Optional[list[str]] = None) -> int:
    """The exit status: 1 where something went otherwise than the list says."""
    options = parser()
    given = options.parse_args(argv)
    known = everything()
    chosen = [one for one in known if one.name == given.k] or [
        one for one in known if one.name.startswith(given.k or "")
    ]
    if not chosen:
        options.error("no situation %r; --list shows all" % given.k)
    if given.report and given.k:
        options.error("--report: the table has all of them, not those of -k")
    if given.list:
        for one in chosen:
            print("%-24s %s" % (one.name, missing(one.needs) or one.words))
        return 0
    rows = []
    for one in chosen:
        rows.append(play(one))
        print(report.line(rows[-1]), flush=True)
    print(report.summary(rows))
    if given.report and not report.fill(given.report, rows):
        options.error("%s has no place for the table" % given.report)
    return int(any(row.error for row in rows))


if __name__ == "__main__":
    sys.exit(main())
