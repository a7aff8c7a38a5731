"""Target ``key``: a PEM text makes a key that is written in one way only, or ``ConfigError``; never anything else.

What is accepted is written again by the tests' own DER and must be the same key, to OpenSSL too. An input that begins
with ``\\0`` or ``\\1`` is the DER of a ``PUBLIC KEY`` or ``RSA PUBLIC KEY`` and gets its PEM around it.
"""

from __future__ import annotations

import base64
import hashlib
import random
from typing import Any

from cryptography.hazmat.primitives import serialization
from support.signatures import (
    ED25519_ALGORITHM,
    PRIMES,
    Ed25519Signer,
    RsaSigner,
    integer,
    pem,
    sequence,
    spki,
)

from agent.errors import ConfigError, SignatureInvalid
from agent.signatures.keys import PublicKey

from . import mutate
from .target import Target, promise, wording

# Spellings of a length.
LENGTHS = [b"\x80", b"\x81\x01", b"\x82\0\x01", b"\x83\0\x01\0"]
LENGTHS += [b"\x84" + bytes(4), b"\0", b"\xff"]
LABELS = {b"\0": "PUBLIC KEY", b"\1": "RSA PUBLIC KEY"}


class Key(Target):
    name = "key"

    def seeds(self) -> list[bytes]:
        rsa, ed25519 = RsaSigner(*PRIMES[2048]), Ed25519Signer()
        texts = [rsa.pem, pem(rsa.pkcs1, "RSA PUBLIC KEY"), ed25519.pem]
        texts.append(ed25519.pem.replace("\n", "\r\n\t "))
        texts += [ed25519.pem.replace("PUBLIC", "PRIVATE"), "key.pem"]
        small = [b"\0" + spki(ed25519.public, ED25519_ALGORITHM), b"\0" + spki(rsa.pkcs1)]
        odd = sequence(integer(rsa.n), integer(3))
        even = sequence(integer(rsa.n + 1), integer(rsa.e))
        short = sequence(integer(rsa.n >> 1 | 1), integer(rsa.e))
        ders = [*small, b"\1" + rsa.pkcs1, b"\1" + odd, b"\1" + even, b"\1" + short]
        # Points of small order: signatures by them fit nearly anything.
        ders += [
            b"\0" + spki(point.to_bytes(32, "little"), ED25519_ALGORITHM)
            for point in (0, 1, 2**255 - 20)
        ]
        return [text.encode("ascii") for text in texts] + ders

    def run(self, data: bytes) -> str:
        if data[:1] in LABELS and data:
            data = pem(data[1:], LABELS[data[:1]]).encode("ascii")
        found = [self._made(given) for given in (data, data.decode("latin-1"))]
        if data.isascii():
            promise(found[0] == found[1], "bytes and text differ: %r" % found)
        if isinstance(found[0], str):
            return found[0]
        outcome = self._judge(found[0])
        self._judge_spelling(data, _der(found[0]))
        return outcome

    def _made(self, given: Any) -> Any:
        try:
            return PublicKey.from_pem(given, name="fuzzed")
        except ConfigError as error:
            promise(error.field == "keys", "the field is %r" % error.field)
            return wording(error)

    def _judge(self, key: PublicKey) -> str:
        der = _der(key)
        if key.algorithm == "ed25519":
            signatures = [bytes(64), b"\1" + bytes(63)]
        else:
            modulus, exponent = key._material
            size = (modulus.bit_length() + 7) // 8
            promise(2048 <= modulus.bit_length() <= 8192 and modulus % 2, "modulus %x" % modulus)
            promise(3 <= exponent < 1 << 33 and exponent % 2, "exponent %x" % exponent)
            signatures = [bytes(size), (modulus - 1).to_bytes(size, "big"), b"\xff" * size]
        promise(hashlib.sha256(der).hexdigest() == key.fingerprint, "made of another DER")
        again = PublicKey.from_pem(pem(der), name="fuzzed")
        promise(again == key, "not the same key when it is written")
        self._compare(key, serialization.load_der_public_key(der))
        for signature in signatures:
            try:
                key.verify(b"anything", signature)
            except SignatureInvalid:
                continue
            promise(False, "a signature that nobody made: %s" % signature.hex())
        return "key: " + key.algorithm

    def _judge_spelling(self, data: bytes, der: bytes) -> None:
        """But for white space there is one PEM text of a key, or two where it is RSA."""
        # The second: what is behind the head of a SubjectPublicKeyInfo.
        texts = [pem(der), pem(der[24:], "RSA PUBLIC KEY")]
        bare = ["".join(text.split()) for text in (data.decode("latin-1"), *texts)]
        promise(bare[0] in bare[1:], "accepted in another spelling: %r" % data)

    def _compare(self, key: PublicKey, known: Any) -> None:
        if key.algorithm == "ed25519":
            promise(known.public_bytes_raw() == key._material, "another point")
        else:
            numbers = known.public_numbers()
            promise((numbers.n, numbers.e) == key._material, "other numbers")

    def mutate(self, data: bytes, rnd: random.Random) -> bytes:
        mark, rest = data[:1], data[1:]
        if mark in LABELS and mark:
            change = rnd.random()
            if change < 0.1:
                return pem(rest, rnd.choice(list(LABELS.values()))).encode("ascii")
            return mark + (_of_der(rest, rnd) if change < 0.8 else mutate.of_bytes(rest, rnd))
        lines = data.split(b"\n")
        at = rnd.randrange(len(lines))
        change = rnd.randrange(6)
        if change == 0:
            lines[at] = mutate.of_base64(lines[at].decode("latin-1"), rnd).encode("utf-8")
        elif change == 1:
            lines.insert(rnd.randrange(len(lines) + 1), lines[at])
        elif change == 2:
            before = rnd.choice((b" ", b"\t", b"\x0c", b"\x1c", b"\0", b"- "))
            lines[at] = before + lines[at] + b"\r"
        elif change == 3:
            del lines[at]
        elif change == 4:
            try:
                return b"\0" + base64.b64decode(b"".join(lines[1:-2]))
            except ValueError:
                return b"\0" + data
        else:
            return mutate.of_bytes(data, rnd)
        return b"\n".join(lines)


def _der(key: PublicKey) -> bytes:
    """The SubjectPublicKeyInfo of a key, by the tests' own DER."""
    if key.algorithm == "ed25519":
        return spki(key._material, ED25519_ALGORITHM)
    modulus, exponent = key._material
    return spki(sequence(integer(modulus), integer(exponent)))


def _of_der(data: bytes, rnd: random.Random) -> bytes:
    """Another spelling of a length or a number near the head, where DER's freedom would be."""
    known = (2, 3, 4, 5, 6, 0x30, 0x80, 0x82)
    heads = [at for at in range(min(len(data), 40)) if data[at] in known]
    if not heads:
        return mutate.of_bytes(data, rnd)
    at = rnd.choice(heads)
    new = rnd.choice(LENGTHS)
    cut = at + 1 + rnd.choice((0, 0, 1, 2, 3))
    return data[: at + 1] + new + data[cut:]


TARGET = Key
