"""``python -m tests.fuzz``: fuzz the targets one after the other, print their table, exit with 1 where one broke."""

from __future__ import annotations

import argparse
import base64
import json
import platform
import random
import sys
import tempfile
import time
from pathlib import Path

from . import corpus, findings, guided, plain, target as targets
from .findings import Finding

EXAMPLES = """
targets:
%s

examples:
  python -m tests.fuzz --seconds 60
  python -m tests.fuzz envelope answer --seconds 600 --corpus corpus --json results.json
  python -m tests.fuzz line --seconds 10 --engine plain --seed 7
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
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="which (default: all)")
    parser.add_argument(
        "--seconds", type=float, default=60, metavar="N", help="for each target (default: 60)"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="repeat a run; else drawn, and printed"
    )
    parser.add_argument("--json", metavar="FILE", help="write the result here too")
    parser.add_argument(
        "--corpus", metavar="DIR", help="inputs are read from DIR/TARGET and added there"
    )
    parser.add_argument(
        "--engine",
        choices=("auto", "atheris", "plain"),
        default="auto",
        help="atheris, guided by coverage, where it can be imported (default), else plain",
    )
    parser.add_argument(
        "--keep", action="store_true", help="afterwards renew tests/golden/fuzz with what is new"
    )
    parser.add_argument("--input", metavar="BASE64", help="execute this one input and nothing else")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


class Progress:
    """A line that is rewritten on a terminal, one every ten seconds elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet, self._live, self._shown_at = quiet, sys.stderr.isatty(), time.monotonic()

    def __call__(self, found: Finding) -> None:
        now = time.monotonic()
        if not self._quiet and now - self._shown_at > (0.1 if self._live else 10):
            self._shown_at = now
            line = "%s: %.0f s, %d executions, corpus %d, new coverage %d, crashes %d" % (
                *(found.target, found.seconds, found.executions, found.corpus, found.new),
                len(found.crashes),
            )
            self.say(line, end="" if self._live else "\n")

    def say(self, line: str, end: str = "\n") -> None:
        if not self._quiet:
            clear = "\r\x1b[K" if self._live else ""
            print(clear + line, end=end, file=sys.stderr, flush=True)


def _fuzz(found: Finding, options: argparse.Namespace, work: Path) -> None:
    name, seconds = found.target, options.seconds
    found.skipped = targets.missing(name)
    if found.skipped:
        return
    place = Path(options.corpus or work / "corpus").absolute() / name
    progress = Progress(quiet=options.quiet)
    progress.say("%s: seed %d, %s" % (name, found.seed, found.engine))
    if found.engine == "plain":
        target = targets.make(name)
        plain.run(target, found, seconds=seconds, directory=place, progress=progress)
    else:
        guided.run(found, seconds=seconds, work=work, directory=place, progress=progress)
    if options.keep and not found.crashes:
        target = targets.make(name, shared=False)
        inputs = target.seeds() + (corpus.load(place) if place.is_dir() else [])
        progress.say("%s: %d inputs kept" % (name, corpus.keep(target, inputs)))


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
    if options.engine == "atheris" and not guided.is_there():
        parser.error("--engine: atheris cannot be imported (pip install atheris)")
    if options.engine == "auto":
        options.engine = "atheris" if guided.is_there() else "plain"
    return options


def _result(command: str, seed: int, engine: str, found: list[Finding]) -> dict[str, object]:
    return {
        "command": command,
        "engine": engine,
        "seed": seed,
        "python": "Python " + platform.python_version(),
        "platform": "%s, %s" % (platform.system(), platform.machine()),
        "targets": [one.to_json() for one in found],
        "ok": not any(one.crashes for one in found),
    }


def main(argv: list[str]) -> int:
    options = _options(argv)
    names, engine = options.targets or list(targets.TARGETS), options.engine
    if options.input is not None:
        print(targets.make(names[0]).run(options.input))
        return 0
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    found: list[Finding] = []
    status = 0
    try:
        for name in names:
            with tempfile.TemporaryDirectory(prefix="fuzz-") as work:
                found.append(Finding(name, engine, seed))
                _fuzz(found[-1], options, Path(work))
    except KeyboardInterrupt:
        status = 130
    command = "python -m tests.fuzz %s --seconds %g --seed %d --engine %s"
    command %= (" ".join(names), options.seconds, seed, engine)
    print("%s\n%s" % (command, findings.table(found)), flush=True)
    result = _result(command, seed, engine, found)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return status or int(not result["ok"])


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
