"""``python -m tests.fuzz``: fuzz the targets one after the other, print what was found, exit with 1 where one broke."""

import argparse
import base64
import random
import sys

from . import engine, target as targets
from .engine import Finding

EXAMPLES = """
targets:
%s

examples:
  python -m tests.fuzz --seconds 60
  python -m tests.fuzz line --seconds 10 --seed 7
  python -m tests.fuzz envelope --input eyJzaWduYXR1cmUiOiIifQ==    one input, as a crash shows it
  python -m tests.fuzz book --seconds 600 --keep                    renew tests/golden/fuzz/book.txt
""" % "\n".join("  %-10s%s" % row for row in targets.TARGETS.items())


def _name(text: str) -> str:
    if text not in targets.TARGETS:
        raise argparse.ArgumentTypeError("no target %r" % text)
    return text


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description="Fuzz what reads hostile bytes. Exit status: 0 nothing found, 1 a crash, 2 usage.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("targets", nargs="*", type=_name, metavar="TARGET", help="which (default: all)")
    add("--seconds", type=float, default=60, metavar="N", help="for each target (default: 60)")
    add("--seed", type=int, metavar="N", help="repeat a run; else drawn, and printed")
    add("--keep", action="store_true", help="afterwards renew tests/golden/fuzz with what is new")
    add("--input", type=base64.b64decode, metavar="BASE64", help="execute this one, and no more")
    options = parser.parse_args(argv)
    names = options.targets or list(targets.TARGETS)
    if options.input is not None:
        print(targets.make(names[0]).run(options.input))
        return 0
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print("seed", seed)
    broken = 0
    for name in names:
        found, target = Finding(name, seed), targets.make(name)
        try:
            inputs = engine.run(target, found, seconds=options.seconds)
        finally:
            print(found, flush=True)
        broken += len(found.crashes)
        if options.keep and not found.crashes:
            engine.keep(target, inputs)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
