"""Target ``envelope``: whatever the bytes are, ``verify`` gives what the independent reader gives, or the same reason.

Not only may nothing forged be accepted: nothing proper may be refused, and no reason be taken for another.
"""

import random
from typing import Any

from agent.errors import AnswerStale, VerificationError
from agent.signatures.envelope import Receipt, verify

from . import sealing, strict
from .target import Target, promise, wording

DAY_S = 24 * 3600


class Envelope(Target):
    name = "envelope"

    def __init__(self) -> None:
        self._keys, self._checks = sealing.keys(), sealing.checks()

    def seeds(self) -> list[bytes]:
        contents = sealing.contents()
        raw = [sealing.unmarked(mark + contents[-2]) for mark in (sealing.JSON, sealing.RSA_JSON)]
        marked = [sealing.JSON + content for content in contents]
        text = sealing.TEXT + b"eyJjb2RlIjo4MzB9"
        return [*raw, *marked, text, sealing.RSA_JSON + contents[0]]

    def run(self, data: bytes) -> str:
        data = sealing.unmarked(data)
        try:
            expected: tuple[Any, ...] = strict.receipt(data, self._checks)
        except strict.Unproven as reason:
            expected = (str(reason),)
        try:
            receipt = verify(data, self._keys)
        except VerificationError as error:
            promise(expected == (type(error).__name__,), "%r, not %r" % (error, expected))
            return wording(error)
        found = receipt.code, receipt.timestamp, receipt.key_name
        promise(repr(found) == repr(expected), "%r, not %r" % (found, expected))
        for text in [receipt.message, *sum(receipt.errors.items(), ())]:
            promise("".join(text).encode("utf-8") is not None, "a text that nobody can print")
        self._judge_time(data, receipt)
        return "receipt %d: %d errors by %s" % (receipt.code, len(receipt.errors), receipt.key_name)

    def _judge_time(self, data: bytes, receipt: Receipt) -> None:
        at = receipt.timestamp
        for now in (at - DAY_S, at + DAY_S):
            promise(verify(data, self._keys, now=now) == receipt, "another at %d" % now)
        for now in (at - DAY_S - 1, at + DAY_S + 1):
            try:
                verify(data, self._keys, now=now)
            except AnswerStale as error:
                promise(error.skew_s == at - now, "a skew of %d s" % error.skew_s)
            else:
                promise(False, "fresh at %d" % now)

    def mutate(self, data: bytes, rnd: random.Random) -> bytes:
        return sealing.mutated(data, rnd)


TARGET = Envelope
