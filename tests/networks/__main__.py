"""An agent in every network of the list: the rows of ``vendor_notes/NETWORKS.md``, as they come.

    python -m tests.networks
    python -m tests.networks -k squid-password

What is not there is left out and said so: the programs squid, tinyproxy, microsocks, openssl and iproute2, the package
PySocks, and root for network namespaces.
"""

import argparse
import datetime
import os
import platform
import ssl
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Optional

from .situations import Situation, everything, missing
from .stage import LICENCE, Stage

HEAD = "\n**%s**\n\n| situation | outcome | s | `-k` |\n|---|---|---|---|"
WRONG = "**not as expected**"


def play(one: Situation) -> tuple[str, str]:
    """Build it, deliver through it: how the first delivery ended, and how many seconds that took."""
    why = missing(one.needs)
    if why:
        return "left out: " + why, ""
    with tempfile.TemporaryDirectory(prefix="networks-") as place:
        try:
            with Stage(Path(place) / "stage") as stage:
                one.play(stage)
                stage.settled()
        except Exception:
            traceback.print_exc()
            return WRONG, ""
    first, copies = stage.verdicts[0], max(stage.copies[LICENCE].values())
    more = "; arrived %d times" % copies if copies > 1 else ""
    return first.outcome + more, "%.2f" % max(first.seconds, 0.01)


def main(argv: Optional[list[str]] = None) -> int:
    """The exit status: 1 where something went otherwise than the list says."""
    formatter = argparse.RawDescriptionHelpFormatter
    options = argparse.ArgumentParser(
        "python -m tests.networks", None, __doc__, formatter_class=formatter
    )
    options.add_argument("-k", metavar="NAME", help="this one, or those whose name begins so")
    given = options.parse_args(argv)
    begun = [one for one in everything() if one.name.startswith(given.k or "")]
    chosen = [one for one in begun if one.name == given.k] or begun
    if not chosen:
        options.error("no situation %r" % given.k)
    facts = len(chosen), platform.python_version(), ssl.OPENSSL_VERSION, platform.system()
    on = os.cpu_count() or 0, os.getloadavg()[0], datetime.date.today().isoformat()
    print("%d situations, Python %s, %s, %s, %d CPUs, load %.1f, %s." % (*facts, *on))
    group, wrong = "", False
    for one in chosen:
        if one.group != group:
            group = one.group
            print(HEAD % group)
        outcome, seconds = play(one)
        wrong |= outcome == WRONG
        row = one.words, outcome.replace("|", "\\|"), seconds, one.name
        print("| %s | %s | %s | `%s` |" % row, flush=True)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
