"""Every group of every Wycheproof file that lies in ``vectors/wycheproof``, whatever its key size, hash or curve.

``valid`` is accepted where we claim the algorithm, ``invalid`` is refused, and so is ``acceptable``, unless
``ACCEPTED`` names it with the decision record that says why. A file of another key size is checked by being put there.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from support.shared import shared_path
from support.signatures import (
    ED25519_ALGORITHM,
    PRIMES,
    RSA_3072,
    RSA_4096,
    RsaSigner,
    pem,
    spki,
)

from agent.errors import ConfigError, SignatureInvalid
from agent.signatures import PublicKey

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


# -- the check itself ----------------------------------------------------------------------------


def file_of(signer: RsaSigner, sha: str = "SHA-256") -> dict[str, Any]:
    """A file in Wycheproof's format, made here."""
    message = b"\x31\x32\x33\x34\x30\x30"
    good, block = signer.sign(message), signer.encode(message)
    no_null = block.replace(bytes.fromhex("0201050004"), bytes.fromhex("02010004"))
    cases = [
        ("valid", good),
        ("invalid", good[:-1] + bytes([good[-1] ^ 1])),
        ("invalid", good + b"\0"),
        ("invalid", signer.raw(b"\0\2" + block[2:])),
        ("acceptable", signer.raw(no_null.rjust(signer.size, b"\0"))),
    ]
    tests = [
        {"tcId": id, "comment": "", "msg": message.hex(), "sig": sig.hex(), "result": result}
        for id, (result, sig) in enumerate(cases, 1)
    ]
    group = {
        "type": "RsassaPkcs1Verify",
        "sha": sha,
        "keySize": signer.n.bit_length(),
        "publicKeyAsn": signer.pkcs1.hex(),
        "publicKeyPem": signer.pem,
        "tests": tests,
    }
    return {"numberOfTests": len(tests), "testGroups": [group]}


SMALL = RsaSigner(PRIMES[2048][0], 3, 5, 17)
LARGE = RsaSigner(*PRIMES[2048], *PRIMES[3072], PRIMES[4096][0])


@pytest.mark.parametrize("signer", [RSA_3072, RSA_4096, LARGE], ids=["3072", "4096", "7168"])
def test_a_file_of_another_key_size_is_checked_as_it_is(signer: RsaSigner) -> None:
    assert check("made here", file_of(signer)) == ([], 5)


def test_what_is_not_ours_is_refused_whole() -> None:
    """A key that is too small verifies nothing; under another hash nothing of ours may be accepted."""
    wrong, _ = check("made here", file_of(SMALL))
    assert wrong == []  # the key is refused, and is none that we claim
    wrong, _ = check("made here", file_of(RSA_3072, "SHA-512"))
    assert wrong == ["1 valid: "]  # signed with SHA-256 in truth, so the claim of the file is wrong


def test_a_wrong_result_does_not_go_unseen() -> None:
    for number, test in enumerate(file_of(RSA_3072)["testGroups"][0]["tests"]):
        suite = copy.deepcopy(file_of(RSA_3072))
        changed = suite["testGroups"][0]["tests"][number]
        changed["result"] = "invalid" if test["result"] == "valid" else "valid"
        assert len(check("made here", suite)[0]) == 1
