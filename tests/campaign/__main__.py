"""Fault campaigns against the spool: run one, or all, and print its table.

Exit status: 0 every promise held, 1 one did not, 2 usage.

campaigns:
  model   random histories of a few processes against a model, with kills and power cuts
  kill    processes killed with SIGKILL while they record and deliver, against a collector that dies
  damage  files cut, flipped, overwritten, emptied, swapped, replaced
  faults  every system call of recording, delivery and start-up made to fail, one after the other
  crowd   many processes and threads on one spool; a reaper racing writers
  bounds  quotas, 100,000 pending records, two months in one process

examples:
  python -m tests.campaign kill --rounds 1000
  python -m tests.campaign all --short
  python -m tests.campaign damage --seed 7 --into vendor_notes/RELIABILITY.md
"""

import argparse
import importlib
import platform
import random
import sys
import tempfile
import time
from pathlib import Path

from support import tables

from . import report

CAMPAIGNS = "model kill damage faults crowd bounds".split()


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m tests.campaign", None, __doc__, formatter_class=formatter
    )
    add = parser.add_argument
    add("campaign", metavar="CAMPAIGN", choices=[*CAMPAIGNS, "all"], help="one, or all")
    add("--rounds", type=int, metavar="N", help="how many (default: the full number)")
    add("--short", action="store_true", help="the few rounds of the test suite")
    add("--seed", type=int, metavar="N", help="repeat a run; else drawn, and printed")
    add("--work", metavar="DIR", help="where spools are made (default: a temporary directory)")
    add("--into", metavar="DOCUMENT", help="fill its block of this document")
    return parser


def run(name: str, options: argparse.Namespace) -> bool:
    """One campaign, whose module is imported only now; whether every promise held."""
    module = importlib.import_module("." + name, __package__)
    rounds = options.rounds or (module.SHORT_ROUNDS if options.short else module.ROUNDS)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    command = "python -m tests.campaign %s --rounds %d --seed %d" % (name, rounds, seed)
    progress = report.Progress()
    progress.say(command)
    began_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="campaign-", dir=options.work) as work:
        rows = module.run(rounds=rounds, seed=seed, progress=progress, work=Path(work))
    facts = platform.python_version(), platform.system(), platform.machine()
    where = "seed %d, %.0f s, Python %s on %s, %s" % (seed, time.monotonic() - began_at, *facts)
    text = report.markdown("`%s`: %s" % (command, where), rows)
    print(text + "\n", flush=True)
    for row in rows:
        if not row.ok:
            print("FAILED: " + row.treatment)
    if options.into and not tables.fill(Path(options.into), "results", name, text):
        raise SystemExit("%s has no block for %r" % (options.into, name))
    return all(row.ok for row in rows)


def main(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    names = CAMPAIGNS if options.campaign == "all" else [options.campaign]
    return int(not all([run(name, options) for name in names]))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
