"""Fuzz what reads hostile bytes: the targets one after the other; print what was found.

Exit status: 0 nothing found, 1 a crash, 2 usage.

targets:
  envelope  an answer's bytes -> verify -> a receipt that an independent reader agrees with, or one reason
  answer    an HTTP answer -> the verdicts of the signed, the unsigned and the Reo adapter
  line      a segment's bytes -> records that read back alike, and their requests
  book      a book's bytes -> what is known of records and lanes, the same in one reading as in two
  consent   the consent file's bytes -> one epoch to all who look, another behind a refusal
  head      an import's bytes -> the head of a file that is whole, or a refusal of all of it
  message   what the delivering process is told -> a configuration, told again in the same words, or none
  keyring   a keyring document -> read_document -> a document that enough roots signed, or one reason

examples:
  python -m tests.fuzz --seconds 60
  python -m tests.fuzz line --seconds 10 --seed 7
  python -m tests.fuzz envelope --input eyJzaWduYXR1cmUiOiIifQ==    one input, as a crash shows it
  python -m tests.fuzz book --seconds 600 --keep                    renew tests/golden/fuzz/book.txt
"""

import argparse
import base64
import random
import sys

from . import engine, target as targets
from .engine import Finding


def _name(text: str) -> str:
    if text not in targets.TARGETS:
        raise argparse.ArgumentTypeError("no target %r" % text)
    return text


def main(argv: list[str]) -> int:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m tests.fuzz", None, __doc__, formatter_class=formatter
    )
    add = parser.add_argument
    add("targets", nargs="*", type=_name, metavar="TARGET", help="which (default: all)")
    add("--seconds", type=float, default=60, metavar="N", help="for each target (default: 60)")
    add("--seed", type=int, metavar="N", help="repeat a run; else drawn, and printed")
    add("--keep", action="store_true", help="afterwards renew tests/golden/fuzz with what is new")
    add("--input", type=base64.b64decode, metavar="BASE64", help="execute this one, and no more")
    options = parser.parse_args(argv)
    names = options.targets or targets.TARGETS
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
