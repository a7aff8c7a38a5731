"""An agent in every network of the list: outcome, and time until it was known.

    python -m tests.networks
    python -m tests.networks -k squid-password
    python -m tests.networks --report vendor_notes/NETWORKS.md

What is not there is left out and said so: the programs squid, tinyproxy, microsocks, openssl and iproute2, the package
PySocks, and root for network namespaces.
"""

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


def play(situation: Situation) -> Row:
    """Build it, deliver through it; how that ended."""
    why = missing(situation.needs)
    if why:
        return Row(situation, [], 0, why, "")
    with tempfile.TemporaryDirectory(prefix="networks-") as place:
        try:
            with Stage(Path(place) / "stage") as stage:
                situation.play(stage)
                stage.settled()
            copies = max(stage.copies[LICENCE].values())
            return Row(situation, stage.verdicts, copies, "", "")
        except Exception as error:
            traceback.print_exc()
            return Row(situation, [], 0, "", "%s: %s" % (type(error).__name__, error))


def main(argv: Optional[list[str]] = None) -> int:
    """The exit status: 1 where something went otherwise than the list says."""
    formatter = argparse.RawDescriptionHelpFormatter
    options = argparse.ArgumentParser(
        "python -m tests.networks", None, __doc__, formatter_class=formatter
    )
    options.add_argument("-k", metavar="NAME", help="this one, or those whose name begins so")
    options.add_argument("--report", type=Path, metavar="FILE", help="fill the table of a document")
    given = options.parse_args(argv)
    begun = [one for one in everything() if one.name.startswith(given.k or "")]
    chosen = [one for one in begun if one.name == given.k] or begun
    if not chosen:
        options.error("no situation %r" % given.k)
    if given.report and given.k:
        options.error("--report: the table has all of them, not those of -k")
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
