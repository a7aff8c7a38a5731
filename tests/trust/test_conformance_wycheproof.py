"""Every group of every Wycheproof file that lies in ``vectors/wycheproof``, whatever its key size, hash or curve.

``valid`` is accepted where we claim the algorithm, ``invalid`` is refused, and so is ``acceptable`` (a signature whose
DigestInfo lacks the NULL). A file of another key size is checked by being put there.
"""

import json
from typing import Any

from support.shared import shared_path
from support.signatures import ED25519_ALGORITHM, pem, spki

from agent.errors import ConfigError, SignatureInvalid
from agent.signatures.keys import PublicKey

KNOWN = {"rsa_signature_2048_sha256_test.json": 259, "ed25519_test.json": 151}


def content_of(group: dict[str, Any]) -> bytes:
    """The SubjectPublicKeyInfo of a group."""
    if "publicKeyAsn" in group:
        return spki(bytes.fromhex(group["publicKeyAsn"]))
    if "publicKeyDer" in group:
        return bytes.fromhex(group["publicKeyDer"])
    return spki(bytes.fromhex(group["publicKey"]["pk"]), ED25519_ALGORITHM)


def is_ours(group: dict[str, Any]) -> bool:
    """Whether we claim to verify a group's signatures."""
    if group["type"] == "RsassaPkcs1Verify":
        return bool(group["sha"] == "SHA-256" and 2048 <= group["keySize"] <= 8192)
    assert group["type"] in ("EddsaVerify", "EDDSAVer"), "no file of ours: " + group["type"]
    return bool(group["publicKey"]["curve"] == "edwards25519")


def accepted(group: dict[str, Any], test: dict[str, Any]) -> bool:
    try:
        key = PublicKey.from_pem(pem(content_of(group)))
        key.verify(bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
    except (ConfigError, SignatureInvalid):
        return False
    return True


def wrong(suite: dict[str, Any]) -> list[str]:
    """The cases that are not decided as they should be."""
    return [
        "%d %s: %s" % (test["tcId"], test["result"], test["comment"])
        for group in suite["testGroups"]
        for test in group["tests"]
        if accepted(group, test) is not (is_ours(group) and test["result"] == "valid")
    ]


def test_all_that_is_there_is_checked() -> None:
    places = sorted(shared_path("vectors", "wycheproof").glob("*_test.json"))
    found = {path.name: json.loads(path.read_bytes()) for path in places}
    assert set(KNOWN) <= set(found)
    for name, suite in found.items():
        assert wrong(suite) == [], name
        assert sum(len(group["tests"]) for group in suite["testGroups"]) >= KNOWN.get(name, 1)
