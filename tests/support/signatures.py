"""Keys and envelopes for the signature tests: made here, published here, good for nothing else.

The keys are fixed, so that every run signs the same bytes; signing is a few lines of their
own, independent of the code under test. Odd key sizes are products of more than two of the primes below.
"""

import base64
import hashlib
import json
import time
from math import prod
from pathlib import Path
from typing import Any

from agent.errors import ConfigError
from agent.signatures.keys import PublicKey

# Two primes of each of three published RSA test keys: of 2048, 3072 and 4096 bits.
_FILE = Path(__file__).resolve().parents[1] / "golden" / "rsa-primes.txt"
PRIMES = [int(line, 16) for line in _FILE.read_text("ascii").split()]
NOW = 1_790_000_000
DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def integer(value: int) -> bytes:
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def sequence(*parts: bytes) -> bytes:
    return der(0x30, b"".join(parts))


RSA_ALGORITHM = sequence(bytes.fromhex("06092a864886f70d010101"), b"\5\0")
ED25519_ALGORITHM = sequence(bytes.fromhex("06032b6570"))


def spki(key: bytes, algorithm: bytes = RSA_ALGORITHM) -> bytes:
    return sequence(algorithm, der(3, b"\0" + key))


def pem(content: bytes, label: str = "PUBLIC KEY") -> str:
    text = base64.b64encode(content).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "-----BEGIN %s-----\n%s\n-----END %s-----\n" % (label, "\n".join(lines), label)


class RsaSigner:
    """A private RSA key of any number of primes."""

    def __init__(self, *primes: int, e: int = 65537, name: str = "global") -> None:
        self.e, self.n = e, prod(primes)
        self.d = pow(e, -1, prod(prime - 1 for prime in primes))
        # Chinese remainders: four times as fast as one pow() with two primes.
        self._parts = [
            (prime, self.d % (prime - 1), self.n // prime * pow(self.n // prime, -1, prime))
            for prime in primes
        ]
        self.size = (self.n.bit_length() + 7) // 8
        self.pkcs1 = sequence(integer(self.n), integer(e))
        self.pem = pem(spki(self.pkcs1))
        self.name = name

    @property
    def key(self) -> PublicKey:
        return PublicKey.from_pem(self.pem, name=self.name)

    def encode(self, message: bytes) -> bytes:
        tail = b"\0" + DIGEST_INFO + hashlib.sha256(message).digest()
        return b"\0\1" + b"\xff" * (self.size - 2 - len(tail)) + tail

    def raw(self, encoded: bytes) -> bytes:
        number = int.from_bytes(encoded, "big")
        signed = sum(pow(number, d, prime) * weight for prime, d, weight in self._parts) % self.n
        return signed.to_bytes(self.size, "big")

    def sign(self, message: bytes) -> bytes:
        return self.raw(self.encode(message))


class Ed25519Signer:
    """A private Ed25519 key from a fixed seed."""

    def __init__(self, seed: bytes = b"\1" * 32, name: str = "global") -> None:
        from nacl.signing import SigningKey

        self._key = SigningKey(seed)
        self.public = bytes(self._key.verify_key)
        self.pem = pem(spki(self.public, ED25519_ALGORITHM))
        self.name = name

    @property
    def key(self) -> PublicKey:
        return PublicKey.from_pem(self.pem, name=self.name)

    def sign(self, message: bytes) -> bytes:
        return bytes(self._key.sign(message).signature)


RSA_2048 = RsaSigner(*PRIMES[:2])
RSA_3072 = RsaSigner(*PRIMES[2:4])
RSA_4096 = RsaSigner(*PRIMES[4:])


def refusal(text: Any, **given: Any) -> str:
    """What is said of a key that is refused: soon, by its field, and without quoting it."""
    import pytest  # not what measures and fuzzes need

    started = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        PublicKey.from_pem(text, **given)
    assert time.monotonic() - started < 5, "a quadratic reader would take minutes"
    message = str(caught.value)
    assert caught.value.field == "keys" and message.startswith("keys: ") and len(message) < 200
    return message


def content(**changes: Any) -> dict[str, Any]:
    """What an 830 signs, with changes; a value of ``...`` leaves the name out."""
    found = {"code": 830, "message": "Correct format data saved", "errors": [], "timestamp": NOW}
    found.update(changes)
    return {name: value for name, value in found.items() if value is not ...}


def text64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def sealed(signed: bytes, signer: Any = RSA_2048) -> dict[str, Any]:
    """The envelope around ``signed``, as a dict."""
    text = text64(signed)
    return {
        "response": {"code": 830},
        "response_base64": text,
        "private_key_used": "global",
        "signature": text64(signer.sign(text.encode("ascii"))),
    }


def envelope(signed: Any = None, signer: Any = RSA_2048, **outer: Any) -> bytes:
    """The bytes of an answer; ``signed`` is bytes or a JSON value, ``outer`` changes the envelope."""
    if not isinstance(signed, bytes):
        signed = json.dumps(content() if signed is None else signed).encode()
    found = dict(sealed(signed, signer), **outer)
    return json.dumps({name: value for name, value in found.items() if value is not ...}).encode()
