"""Target ``keyring``: a document is believed only if enough roots signed it, whatever else its bytes say.

An input that begins with ``\\0`` is the signed text, and is signed by both roots first; with ``\\1`` by one of them.
"""

import base64
import json
import random
from typing import Any

from support.signatures import RSA_2048, Ed25519Signer

from agent.errors import VerificationError
from agent.extras import keyring

from . import mutate, strict
from .strict import Pairs
from .target import Target, promise, wording

ROOTS = [Ed25519Signer(bytes([n]) * 32, name="root-%d" % n) for n in (1, 2)]
CONTEXT: bytes = keyring.CONTEXT


class Keyring(Target):
    name = "keyring"

    def __init__(self) -> None:
        self._roots = [signer.key for signer in ROOTS]

    def seeds(self) -> list[bytes]:
        keys = [
            {"name": "global", "algorithm": "rsa-pkcs1v15-sha256", "public_key": RSA_2048.pem},
            {"name": "next", "algorithm": "ed25519", "public_key": Ed25519Signer().pem},
        ]
        document = {"format": "keyring/1", "version": 2, "threshold": 2, "keys": keys}
        document.update(issued=1708999200, expires=1740000000)
        small = {**document, "expires": None, "threshold": 1, "keys": keys[1:]}
        texts = [json.dumps(one).encode() for one in (document, small)]
        return [*(mark + text for mark in (b"\0", b"\1") for text in texts), *map(_signed, texts)]

    def run(self, data: bytes) -> str:
        if data[:1] in (b"\0", b"\1") and data:
            data = _signed(data[1:], ROOTS[: 2 - data[0]])
        found = []
        for threshold in (1, 2):
            try:
                document: Any = keyring.read_document(data, self._roots, threshold)
            except VerificationError as error:
                found.append(wording(error))
                continue
            self._judge(data, document, threshold)
            found.append("document: %d keys" % len(document["keys"]))
        promise("document" not in found[1] or "document" in found[0], "more roots, more trust")
        return found[0] if found[0] == found[1] else " then ".join(found)

    def _judge(self, data: bytes, document: Any, threshold: int) -> None:
        outer = strict.as_dict(strict.read(data), once=True)
        text = CONTEXT + outer["signed"].encode("ascii")
        signatures = {strict.base64_bytes(one["signature"]) for one in outer["signatures"]}
        by = {signer.name for signer in ROOTS if signer.sign(text) in signatures}
        promise(len(by) >= threshold, "signed by %r" % by)
        inner = strict.as_dict(strict.read(text[len(CONTEXT) :]), once=True)
        for name in ("version", "issued", "expires"):
            promise(repr(document.get(name)) == repr(inner.get(name)), "another " + name)
        names = [(key["name"], key["algorithm"]) for key in inner["keys"]]
        promise([(key.name, key.algorithm) for key in document["keys"]] == names, "other keys")

    def mutate(self, data: bytes, rnd: random.Random) -> bytes:
        mark, rest = data[:1], data[1:]
        if mark in (b"\0", b"\1") and mark:
            if rnd.random() < 0.1:
                return _signed(rest)
            return mark + (mutate.of_json if rnd.random() < 0.8 else mutate.of_bytes)(rest, rnd)
        return (mutate.of_json if rnd.random() < 0.8 else mutate.of_bytes)(data, rnd)


def _signed(text: bytes, roots: list[Ed25519Signer] = ROOTS) -> bytes:
    """The document around a signed text."""
    signatures = []
    for root in roots:
        signature = base64.b64encode(root.sign(CONTEXT + text)).decode("ascii")
        fingerprint: str = root.key.fingerprint
        signatures.append(Pairs([("root", fingerprint), ("signature", signature)]))
    found = Pairs([("signed", text.decode("latin-1")), ("signatures", signatures)])
    return mutate.spelled(found, None).encode("utf-8")


TARGET = Keyring
