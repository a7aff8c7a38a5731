"""What verifying one answer costs, ours beside other libraries, in turns and in processor time.

Raw ``pow()`` is the arithmetic alone: the rest of ours is SHA-256 and comparing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from .measure import Context, Result, Table

# An answer's base64 text has about this length.
MESSAGE = b"eyJjb2RlIjo4MzAs" * 12
CALLS, TURNS = 20, 11

# Where it is coarse (Windows: 16 ms), wall-clock time has to do.
FINE = time.get_clock_info("thread_time").resolution <= 1e-6
clock_s = time.thread_time if FINE else time.perf_counter

Rows = dict[str, tuple[str, Callable[[], object]]]  # name: what it is compared with, what to do


def rows() -> Rows:
    """What is measured; each call verifies one good signature."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from nacl.signing import VerifyKey
    from support.signatures import RSA_2048, RSA_3072, RSA_4096, Ed25519Signer

    found: Rows = {}

    def add(name: str, against: str, verify: Callable[..., object], *given: Any) -> None:
        found[name] = against, lambda: verify(*given)

    for bits, signer in ((2048, RSA_2048), (3072, RSA_3072), (4096, RSA_4096)):
        signature, other = signer.sign(MESSAGE), "RSA-%d cryptography" % bits
        theirs: Any = rsa.RSAPublicNumbers(signer.e, signer.n).public_key()
        number = int.from_bytes(signature, "big")
        add("RSA-%d ours" % bits, other, signer.key.verify, MESSAGE, signature)
        add("RSA-%d raw pow()" % bits, other, pow, number, signer.e, signer.n)
        how = (padding.PKCS1v15(), hashes.SHA256())
        add(other, other, theirs.verify, signature, MESSAGE, *how)
    ed = Ed25519Signer()
    add("Ed25519 ours", "Ed25519 PyNaCl", ed.key.verify, MESSAGE, ed.sign(MESSAGE))
    add("Ed25519 PyNaCl", "Ed25519 PyNaCl", VerifyKey(ed.public).verify, MESSAGE, ed.sign(MESSAGE))
    return found


def once_us(work: Callable[[], object]) -> float:
    """Microseconds of one call."""
    started = clock_s()
    for _ in range(CALLS):
        work()
    return (clock_s() - started) / CALLS * 1e6


def group(context: Context) -> Result:
    work = rows()
    context.say("verify: %d rows, %d turns" % (len(work), TURNS * context.rounds))
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(TURNS * context.rounds):
        for name, (_, verify) in work.items():
            times[name].append(once_us(verify))
    table = Table("Verifying one answer", ["us", "times the other library"])
    for name, (against, _) in work.items():
        share = statistics.median(times[name]) / statistics.median(times[against])
        table.add(name, times[name], "%.2f" % share)
    return Result([table])
