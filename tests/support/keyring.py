"""Keyring documents for the tests: written and signed here, independently of the command line."""

import json
from collections.abc import Sequence
from typing import Any

from support.signatures import NOW, RSA_2048, RSA_3072, Ed25519Signer, text64

import agent
from agent.signatures.keys import PublicKey

CONTEXT = b"keyring document 1\n"
ROOTS = tuple(Ed25519Signer(bytes([40 + n]) * 32, "root-%d" % n) for n in range(3))
KEYS = tuple(root.key for root in ROOTS)
OLD, NEW = RSA_2048.key, RSA_3072.key


def entry(key: PublicKey, pem: str, **changes: Any) -> dict[str, Any]:
    found = {"name": key.name, "algorithm": key.algorithm, "public_key": pem, **changes}
    return {name: value for name, value in found.items() if value is not ...}


def content(**changes: Any) -> dict[str, Any]:
    """The signed part of a document of version 2 with one key; a value of ``...`` leaves the name out."""
    found = {
        "format": "keyring/1",
        "version": 2,
        "issued": NOW,
        "expires": None,
        "threshold": 1,
        "keys": [entry(NEW, RSA_3072.pem)],
        **changes,
    }
    return {name: value for name, value in found.items() if value is not ...}


def signature(root: Ed25519Signer, text: bytes, context: bytes = CONTEXT) -> dict[str, str]:
    return {"root": root.key.fingerprint, "signature": text64(root.sign(context + text))}


def document(value: Any = None, by: Sequence[Ed25519Signer] = ROOTS[:1], **outer: Any) -> bytes:
    """The bytes of a document around ``value`` (bytes or JSON); ``outer`` changes what is not signed."""
    text = value if isinstance(value, bytes) else json.dumps(value or content()).encode()
    found: dict[str, Any] = {"signed": text.decode()}
    found["signatures"] = [signature(root, text) for root in by]
    found.update(outer)
    return json.dumps({name: value for name, value in found.items() if value is not ...}).encode()


def ring(at: Any, source: Any = None, **given: Any) -> agent.Keyring:
    """What the product at a desk (``support.agent``) has: the old key, three roots, and where a document may be."""
    found = {"document": source, "roots": KEYS, **given}
    return agent.Keyring(at.collector.public_keys[:1], **found)
