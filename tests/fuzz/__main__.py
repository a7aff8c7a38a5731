"""``python -m tests.fuzz``: fuzz the targets one after the other, print their table, exit with 1 where one broke."""

from __future__ import annotations

import argparse
import base64
import json
import platform
import random
import sys
import time
from pathlib import Path

from . import engine, target as targets
from .engine import Finding

EXAMPLES = """
targets:
%s

examples:
  python -m tests.fuzz --seconds 60
  python -m tests.fuzz envelope answer --seconds 600 --json results.json
  python -m tests.fuzz line --seconds 10 --seed 7
  python -m tests.fuzz envelope --input eyJzaWduYXR1cmUiOiIifQ==    one input, as a crash shows it
  python -m tests.fuzz key --seconds 600 --keep                     renew tests/golden/fuzz/key.txt
""" % "\n".join("  %-10s%s" % row for row in targets.TARGETS.items())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description="Fuzz what reads hostile bytes. Exit status: 0 nothing found, 1 a crash, 2 usage, 130 interrupted.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("targets", nargs="*", metavar="TARGET", help="which (default: all)")
    add("--seconds", type=float, default=60, metavar="N", help="for each target (default: 60)")
    add("--seed", type=int, metavar="N", help="repeat a run; else drawn, and printed")
    add("--json", metavar="FILE", help="write the result here too")
    add("--keep", action="store_true", help="afterwards renew tests/golden/fuzz with what is new")
    add("--input", metavar="BASE64", help="execute this one input and nothing else")
    add("--quiet", action="store_true", help="no progress")
    return parser


class Progress:
    """A line that is rewritten on a terminal, one every ten seconds elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet, self._live, self._shown_at = quiet, sys.stderr.isatty(), time.monotonic()

    def __call__(self, found: Finding) -> None:
        now = time.monotonic()
        if not self._quiet and now - self._shown_at > (0.1 if self._live else 10):
            self._shown_at = now
            figures = (found.target, found.seconds, found.executions, found.new, len(found.crashes))
            line = "%s: %.0f s, %d executions, %d new, crashes %d" % figures
            start, end = ("\r\x1b[K", "") if self._live else ("", "\n")
            print(start + line, end=end, file=sys.stderr, flush=True)


def _options(argv: list[str]) -> argparse.Namespace:
    """What was asked for; ends the program with 2 where that cannot be."""
    parser = _parser()
    options = parser.parse_args(argv)
    for name in options.targets:
        if name not in targets.TARGETS:
            parser.error("no target %r; there are: %s" % (name, ", ".join(targets.TARGETS)))
    if options.input is not None:
        if len(options.targets) != 1:
            parser.error("--input: exactly one target is needed")
        try:
            options.input = base64.b64decode(options.input, validate=True)
        except ValueError as error:
            parser.error("--input: %s" % error)
    return options


def main(argv: list[str]) -> int:
    options = _options(argv)
    names = options.targets or list(targets.TARGETS)
    if options.input is not None:
        print(targets.make(names[0]).run(options.input))
        return 0
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    found: list[Finding] = []
    status = 0
    try:
        for name in names:
            found.append(Finding(name, seed))
            more = {"seconds": options.seconds, "progress": Progress(quiet=options.quiet)}
            inputs = engine.run(targets.make(name), found[-1], **more)
            if options.keep and not found[-1].crashes:
                engine.keep(targets.make(name, shared=False), inputs)
    except KeyboardInterrupt:
        status = 130
    command = "python -m tests.fuzz %s --seconds %g --seed %d"
    command %= (" ".join(names), options.seconds, seed)
    print("%s\n%s" % (command, engine.table(found)), flush=True)
    result = {
        "command": command,
        "seed": seed,
        "python": "Python " + platform.python_version(),
        "platform": "%s, %s" % (platform.system(), platform.machine()),
        "targets": [one.to_json() for one in found],
        "ok": not any(one.crashes for one in found),
    }
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return status or int(not result["ok"])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
