"""Every group of every Wycheproof file that lies in ``vectors/wycheproof``, whatever its key size, hash or curve.

``valid`` is accepted where we claim the algorithm, ``invalid`` is refused, and so is ``acceptable``, unless
``ACCEPTED`` names it with the decision record that says why. A file of another key size is checked by being put there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.shared import shared_path
from support.signatures import ED25519_ALGORITHM, pem, spki

from agent.errors import ConfigError, SignatureInvalid
from agent.signatures.keys import PublicKey

# (file, tcId) -> decision record, for ``acceptable`` cases that are accepted. None is.
ACCEPTED: dict[tuple[str, int], str] = {}
KNOWN = {"rsa_signature_2048_sha256_test.json": 259, "ed25519_test.json": 151}


def content_of(group: dict[str, Any]) -> bytes:
    """The SubjectPublicKeyInfo of a group, in any of the shapes that the files have had."""
    for name in ("publicKeyDer", "keyDer"):
        if name in group:
            return bytes.fromhex(group[name])
    if "publicKeyAsn" in group:
        return spki(bytes.fromhex(group["publicKeyAsn"]))
    return spki(bytes.fromhex(group["key"]["pk"]), ED25519_ALGORITHM)


def is_ours(group: dict[str, Any]) -> bool:
    """Whether we claim to verify a group's signatures."""
    if group["type"] == "RsassaPkcs1Verify":
        return bool(group["sha"] == "SHA-256" and 2048 <= group["keySize"] <= 8192)
    assert group["type"] in ("EddsaVerify", "EDDSAVer"), "no file of ours: " + group["type"]
    key = group["publicKey"] if "publicKey" in group else group["key"]
    return bool(key["curve"] == "edwards25519")


def accepted(group: dict[str, Any], test: dict[str, Any], key: PublicKey) -> bool:
    try:
        key.verify(bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
    except SignatureInvalid:
        return False
    return True


def check(name: str, suite: dict[str, Any]) -> tuple[list[str], int]:
    """What went wrong and how many cases there were."""
    wrong, seen = [], 0
    for group in suite["testGroups"]:
        try:
            key = PublicKey.from_pem(pem(content_of(group)))
        except ConfigError:
            # A key that we refuse verifies nothing; where we claim it, that is a failure by itself.
            wrong += ["a key of %s" % group["type"]] * is_ours(group)
            seen += len(group["tests"])
            continue
        for text in (group.get("publicKeyPem"), group.get("keyPem")):
            if text is not None:
                assert PublicKey.from_pem(text) == key
        for test in group["tests"]:
            seen += 1
            expected = {
                "valid": is_ours(group),
                "invalid": False,
                "acceptable": (name, test["tcId"]) in ACCEPTED,
            }[test["result"]]
            if accepted(group, test, key) is not expected:
                wrong.append("%d %s: %s" % (test["tcId"], test["result"], test["comment"]))
    return wrong, seen


def files() -> list[Path]:
    return sorted(shared_path("vectors", "wycheproof").glob("*_test.json"))


def test_all_that_is_there_is_checked() -> None:
    found = {path.name: json.loads(path.read_bytes()) for path in files()}
    assert set(KNOWN) <= set(found)
    for name, suite in found.items():
        assert check(name, suite) == ([], suite["numberOfTests"]), name
        assert suite["numberOfTests"] >= KNOWN.get(name, 1)


def test_every_acceptance_of_a_doubtful_case_has_a_decision_record() -> None:
    notes = Path(__file__).resolve().parents[2] / "vendor_notes" / "decisions"
    for record in ACCEPTED.values():
        assert (notes / record).is_file()
    doubtful = [
        test["comment"]
        for path in files()
        for group in json.loads(path.read_bytes())["testGroups"]
        for test in group["tests"]
        if test["result"] == "acceptable"
    ]
    assert len(doubtful) >= 1  # a signature whose DigestInfo lacks the NULL
