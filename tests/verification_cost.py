"""``python -m tests.verification_cost``: what one verification costs, ours beside others, in one run.

Everything is measured in turns and in CPU time, so that a busy machine tells the same; the ratio column is what to
quote, for microseconds belong to the machine. Raw ``pow()`` is the arithmetic alone: the rest of ours is SHA-256 and
comparing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for place in (Path(__file__).resolve().parent, Path(__file__).resolve().parent.parent):
    sys.path.insert(0, str(place))

from support.signatures import RSA_2048, RSA_3072, RSA_4096, Ed25519Signer  # noqa: E402

EXAMPLES = """
examples:
  python -m tests.verification_cost
  python -m tests.verification_cost --turns 401 --json > cost.json
"""
# An answer's base64 text has about this length.
MESSAGE = b"eyJjb2RlIjo4MzAs" * 12
# One turn of one row lasts about as long as this, so that the clock's own cost does not matter.
TURN_S = 0.002

# Where it is coarse (Windows: 16 ms), wall-clock time has to do.
FINE = time.get_clock_info("thread_time").resolution <= 1e-6
clock_s = time.thread_time if FINE else time.perf_counter

Rows = dict[str, tuple[str, Callable[[], object]]]  # name: what it is compared with, what to do


def rows() -> Rows:
    """What is measured; each call verifies one good signature."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from nacl.signing import VerifyKey

    found: Rows = {}
    for bits, signer in ((2048, RSA_2048), (3072, RSA_3072), (4096, RSA_4096)):
        signature = signer.sign(MESSAGE)
        ours, number = signer.key, int.from_bytes(signature, "big")
        theirs = rsa.RSAPublicNumbers(signer.e, signer.n).public_key()
        name = "RSA-%d " % bits

        def check(ours: Any = ours, signature: bytes = signature) -> None:
            ours.verify(MESSAGE, signature)

        def raw(number: int = number, e: int = signer.e, n: int = signer.n) -> None:
            pow(number, e, n)

        def other(theirs: Any = theirs, signature: bytes = signature) -> None:
            theirs.verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())

        found[name + "ours"] = name + "cryptography", check
        found[name + "raw pow()"] = name + "cryptography", raw
        found[name + "cryptography"] = name + "cryptography", other
    ed = Ed25519Signer()
    signature, key, verify_key = ed.sign(MESSAGE), ed.key, VerifyKey(ed.public)
    found["Ed25519 ours (PyNaCl)"] = "Ed25519 PyNaCl", lambda: key.verify(MESSAGE, signature)
    found["Ed25519 PyNaCl"] = "Ed25519 PyNaCl", lambda: verify_key.verify(MESSAGE, signature)
    return found


def once_us(work: Callable[[], object], calls: int) -> float:
    """Microseconds of one call, over that many."""
    started = clock_s()
    for _ in range(calls):
        work()
    return (clock_s() - started) / calls * 1e6


def measure(turns: int) -> list[dict[str, Any]]:
    """The median of each row over ``turns`` turns, in each of which every row has its go."""
    work = rows()
    calls = {}
    for name, (_, do) in work.items():
        do()  # what is loaded on first use is loaded
        calls[name] = max(1, round(TURN_S * 1e6 / once_us(do, 3)))
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(turns):
        names = list(work)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(once_us(work[name][1], calls[name]))
    medians = {name: statistics.median(found) for name, found in times.items()}
    return [
        {
            "name": name,
            "median_us": round(medians[name], 1),
            "least_us": round(min(times[name]), 1),
            "compared_with": against,
            "ratio": round(medians[name] / medians[against], 2),
        }
        for name, (against, _) in work.items()
    ]


def table(result: dict[str, Any]) -> str:
    lines = ["Python %(python)s on %(machine)s, %(cpus)s CPUs, %(turns)d turns" % result, ""]
    lines.append("%-24s %10s %10s %7s" % ("one verification", "median us", "least us", "ratio"))
    for row in result["rows"]:
        facts = row["name"], row["median_us"], row["least_us"], row["ratio"]
        lines.append("%-24s %10.1f %10.1f %7.2f" % facts)
    lines += ["", "ratio: to `cryptography` at the same size; for Ed25519 to PyNaCl"]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Print the table; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.verification_cost",
        description="What verifying one answer costs: our RSA, its arithmetic alone, other libraries. All in one run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--turns", type=int, default=101, metavar="N", help="medians of N turns (101, about 3 s)"
    )
    parser.add_argument("--json", action="store_true", help="JSON on standard output")
    given = parser.parse_args(argv)
    if given.turns < 1:
        parser.error("--turns: at least 1")
    result = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "turns": given.turns,
        "message_bytes": len(MESSAGE),
        "rows": measure(given.turns),
    }
    print(json.dumps(result, indent=2) if given.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
