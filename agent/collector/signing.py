"""Signs answers the way the licence server does, with the published test keys.

A signature covers the ASCII bytes of the base64 text, not the JSON inside it (established from the vendor's own
published answers). RSA is plain Python, so that a demo needs no compiled package; Ed25519 asks for PyNaCl. Which key
signs, and what, is decided above.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from typing import Any, Dict, List

from ..errors import ConfigError
from .testkeys import ED25519_SEED_LABELS, NAMES, RSA_PRIMES

RSA_EXPONENT = 65537
# RFC 8017, section 9.2, note 1: DigestInfo of SHA-256 up to the digest itself.
_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")
# RFC 8410, section 4: SubjectPublicKeyInfo of Ed25519 up to the key itself.
_ED25519_PREFIX = bytes.fromhex("302a300506032b6570032100")
_RSA_ALGORITHM_DER = bytes.fromhex("300d06092a864886f70d0101010500")


class Signer:
    """One test key: ``name``, ``algorithm``, ``public_key`` (PEM) and ``sign``."""

    algorithm = ""

    def __init__(self, name: str, public_key_der: bytes) -> None:
        self.name = name
        self.public_key = _pem(public_key_der)

    def sign(self, message: bytes) -> bytes:
        """The signature of ``message``, the same bytes every time."""
        raise NotImplementedError

    def describe(self) -> Dict[str, str]:
        """What a client needs to trust this key, JSON-ready."""
        return {"name": self.name, "algorithm": self.algorithm, "public_key": self.public_key}


class RsaSigner(Signer):
    """RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017, section 8.2.1)."""

    algorithm = "rsa-pkcs1v15-sha256"

    def __init__(self, name: str, p: int, q: int) -> None:
        self._p, self._q, self._modulus = p, q, p * q
        private_exponent = pow(RSA_EXPONENT, -1, (p - 1) * (q - 1))
        self._d_p, self._d_q = private_exponent % (p - 1), private_exponent % (q - 1)
        self._q_inverse = pow(q, -1, p)
        numbers = _der(0x30, _der_integer(self._modulus) + _der_integer(RSA_EXPONENT))
        super().__init__(name, _der(0x30, _RSA_ALGORITHM_DER + _der(0x03, b"\0" + numbers)))

    def sign(self, message: bytes) -> bytes:
        size_bytes = (self._modulus.bit_length() + 7) // 8
        digest_info = _SHA256_PREFIX + hashlib.sha256(message).digest()
        padding = b"\xff" * (size_bytes - len(digest_info) - 3)
        encoded = int.from_bytes(b"\0\x01" + padding + b"\0" + digest_info, "big")
        by_p = pow(encoded, self._d_p, self._p)
        by_q = pow(encoded, self._d_q, self._q)
        signature = by_q + self._q * (self._q_inverse * (by_p - by_q) % self._p)
        return signature.to_bytes(size_bytes, "big")


class Ed25519Signer(Signer):
    """Ed25519 (RFC 8032) through PyNaCl; ``ConfigError`` where it cannot be loaded."""

    algorithm = "ed25519"

    def __init__(self, name: str, seed: bytes) -> None:
        try:
            from nacl.signing import SigningKey
        except Exception as error:  # a broken native library raises more than ImportError
            message = "ed25519 needs PyNaCl, which cannot be loaded here (%s); use rsa" % error
            raise ConfigError(message, "algorithm") from error
        self._key = SigningKey(seed)
        super().__init__(name, _ED25519_PREFIX + bytes(self._key.verify_key))

    def sign(self, message: bytes) -> bytes:
        return bytes(self._key.sign(message).signature)


class Keys:
    """The test keys of one algorithm: those a client may trust, the one in use, and a stranger."""

    def __init__(self, algorithm: str) -> None:
        signers = _signers(algorithm)
        self.published, self.stranger = signers[:-1], signers[-1]
        self.active = self.published[0]

    def use(self, key: object) -> None:
        """Sign with the published key of that index or name from now on."""
        for index, signer in enumerate(self.published):
            if key in (index, signer.name):
                self.active = signer
                return
        names = ", ".join(signer.name for signer in self.published)
        raise ConfigError("no published key %r; there are: %s" % (key, names), "key")


def seal(response: Dict[str, Any], signer: Signer) -> Dict[str, Any]:
    """The answer envelope around ``response``, in the published shape and order.

    ``private_key_used`` lies outside the signed bytes: a hint of the vendor's, always "global" here.
    """
    text = base64.b64encode(compact(response))
    return {
        "response": response,
        "response_base64": text.decode("ascii"),
        "private_key_used": "global",
        "signature": _signature_base64(signer, text),
    }


# A signature takes 8 ms, and a busy second has one timestamp: most of its answers are equal.
@functools.lru_cache(maxsize=256)
def _signature_base64(signer: Signer, text: bytes) -> str:
    return base64.b64encode(signer.sign(text)).decode("ascii")


def compact(value: Any) -> bytes:
    """JSON without a space and in ASCII, as the published answers have it."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")


@functools.lru_cache(maxsize=None)
def _signers(algorithm: str) -> List[Signer]:
    if algorithm == "rsa":
        primes = [(int(p, 16), int(q, 16)) for p, q in RSA_PRIMES]
        return [RsaSigner(name, p, q) for name, (p, q) in zip(NAMES, primes)]
    if algorithm == "ed25519":
        seeds = [hashlib.sha256(label.encode("ascii")).digest() for label in ED25519_SEED_LABELS]
        return [Ed25519Signer(name, seed) for name, seed in zip(NAMES, seeds)]
    raise ConfigError("algorithm must be rsa or ed25519, not %r" % (algorithm,), "algorithm")


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    size_bytes = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size_bytes))) + size_bytes + content


def _der_integer(value: int) -> bytes:
    # One bit more than the number has: a leading one would make it negative.
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _pem(der: bytes) -> str:
    text = base64.b64encode(der).decode("ascii")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----\n" % "\n".join(lines)
