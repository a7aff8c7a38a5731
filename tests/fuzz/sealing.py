"""Answers signed on demand, and the two readers' keys: the collector's test keys.

An input may begin with a mark; then what follows is signed before it is read, or a mutation of bytes would never get
past the signature: ``\\0`` signed JSON, ``\\1`` its base64 text, ``\\2`` as ``\\0`` with RSA, which takes much longer.
"""

import base64
import json
import random
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from agent.collector.signing import Keys, Signer
from agent.signatures.keys import PublicKey

from . import mutate
from .strict import Check, Pairs

NOW = 1_708_999_200
JSON, TEXT, RSA_JSON = b"\0", b"\1", b"\2"

RSA, ED25519 = Keys("rsa").active, Keys("ed25519").active
_STRANGER = Keys("ed25519").stranger


_PEMS = {"ed25519": ED25519.public_key, "rsa": RSA.public_key}


def keys() -> list[PublicKey]:
    """The trusted keys, each under a name of its own."""
    return [PublicKey.from_pem(pem, name=name) for name, pem in _PEMS.items()]


def checks() -> list[tuple[str, Check]]:
    """The same keys for the independent reader, checked by OpenSSL."""
    return [(name, _check(pem)) for name, pem in _PEMS.items()]


def _check(pem: str) -> Check:
    key: Any = serialization.load_pem_public_key(pem.encode("ascii"))
    more = (padding.PKCS1v15(), hashes.SHA256()) if hasattr(key, "public_numbers") else ()

    def check(message: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, message, *more)
        except InvalidSignature:
            return False
        return True

    return check


def sealed(text: bytes, signer: Signer = ED25519) -> bytes:
    """The envelope around a signed base64 text, in the published shape."""
    signature = base64.b64encode(signer.sign(text)).decode("ascii")
    quoted = mutate.spelled(text.decode("latin-1"), None)
    form = '{"response":null,"response_base64":%s,"private_key_used":"global","signature":"%s"}'
    return (form % (quoted, signature)).encode("utf-8")


def unmarked(data: bytes) -> bytes:
    """An answer's bytes, signed where a mark asks for it."""
    mark, rest = data[:1], data[1:]
    if mark in (JSON, RSA_JSON) and mark:
        return sealed(base64.b64encode(rest), ED25519 if mark == JSON else RSA)
    return sealed(rest) if mark == TEXT else data


def contents() -> list[bytes]:
    """What the licence server signs."""
    found: list[dict[str, Any]] = [
        {"code": code, "message": "m", "errors": [], "timestamp": NOW}
        for code in (830, 100, 101, 102, 103, 150, 200)
    ]
    errors = {"license_key": ["does not exist"], "product_id": ["is required", "é"]}
    found.append({"code": 831, "message": "red flags", "errors": errors, "timestamp": NOW})
    found.append({"code": 830, "message": "old", "timestamp": NOW - 90000})
    return [json.dumps(one, separators=(",", ":")).encode() for one in found]


def mutated(data: bytes, rnd: random.Random) -> bytes:
    """Another answer: marked or not, its outer JSON, its texts, or what is signed."""
    mark, rest = data[:1], data[1:]
    if mark in (JSON, TEXT, RSA_JSON) and mark:
        if mark == TEXT:
            return mark + mutate.of_base64(rest.decode("latin-1"), rnd).encode("latin-1", "replace")
        change = rnd.random()
        if change < 0.02:
            return RSA_JSON + rest
        mark = JSON  # RSA costs too much to stay with it
        if change < 0.1:
            return sealed(base64.b64encode(rest))
        if change < 0.15:
            return TEXT + base64.b64encode(rest)
        return mark + (mutate.of_json if change < 0.8 else mutate.of_bytes)(rest, rnd)
    if rnd.random() < 0.2:
        return mutate.of_bytes(data, rnd)
    try:
        pairs = mutate.strict.read(data, depth_max=100)
    except ValueError:
        return mutate.of_bytes(data, rnd)
    if not isinstance(pairs, Pairs) or rnd.random() < 0.4:
        return mutate.of_json(data, rnd)
    found = Pairs((name, _text(name, value, rnd)) for name, value in pairs)
    if rnd.random() < 0.5:
        found = _signed_again(found, rnd)
    odd = rnd if rnd.random() < 0.3 else None
    return mutate.spelled(found, odd).encode("utf-8", "surrogatepass")


def _text(name: str, value: Any, rnd: random.Random) -> Any:
    likely = name in ("response_base64", "signature") and isinstance(value, str)
    return mutate.of_base64(value, rnd) if likely and rnd.random() < 0.4 else value


def _signed_again(pairs: Pairs, rnd: random.Random) -> Pairs:
    """The envelope with its signed text changed and signed by a key that is trusted, or by one that is not."""
    named = dict(pairs)
    text = named.get("response_base64")
    if not isinstance(text, str) or not text.isascii():
        return pairs
    try:
        inner = base64.b64decode(text)
    except ValueError:
        inner = b""
    raw = base64.b64encode(mutate.of_json(inner, rnd))
    signer = RSA if rnd.random() < 0.02 else _STRANGER if rnd.random() < 0.1 else ED25519
    new = {
        "response_base64": raw.decode("ascii"),
        "signature": base64.b64encode(signer.sign(raw)).decode("ascii"),
    }
    return Pairs((name, new.get(name, value)) for name, value in pairs)
