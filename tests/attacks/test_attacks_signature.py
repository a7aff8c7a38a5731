"""Attacks on the signature: answers that are unsigned, signed by somebody else, or signed for something else.

Each is made by somebody in the middle against a product on a real disk. What must hold every time: no record is lost,
none is believed to have arrived that did not, and ``status()`` and ``history()`` say what happened.
"""

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from support.attacks import (
    START,
    STRANGER,
    TRUSTED,
    Honest,
    Scene,
    body_of,
    edited,
    receipt,
    signed,
)
from support.shared import shared_path
from support.signatures import RSA_2048, Ed25519Signer, text64

import agent

NO_KEY_FITS = "not proven: no trusted key signed this answer"


def test_an_unsigned_answer_like_the_documented_one(line: Scene) -> None:
    line.says(json.dumps({"response": receipt(START)}).encode())
    line.withstands("untrusted", "no `response_base64` in ASCII")


@pytest.mark.parametrize("signature", [..., None, "", [], 0, "AAAA"], ids=repr)
def test_a_stripped_signature(line: Scene, signature: Any) -> None:
    """Of an honest answer, so the record did arrive: it is sent again rather than believed without proof."""
    line.attack = lambda request, honest: edited(honest(), signature=signature)
    shown = NO_KEY_FITS if signature in ("", "AAAA") else "no `signature` in ASCII"
    line.withstands("untrusted", shown)


HINTS: list[dict[str, Any]] = [
    {},
    {"private_key_used": "product"},
    {"private_key_used": "stranger"},
    {"private_key_used": "../../../../dev/null"},
    {"private_key_used": "http://127.0.0.1:9/key.pem"},
    {"private_key_used": None, "public_key": STRANGER.public_key, "jwk": {"kty": "RSA"}},
    {"x5u": "http://127.0.0.1:9/", "jku": "http://127.0.0.1:9/", "kid": "' OR 1=1 --"},
]


@pytest.mark.parametrize("hint", HINTS, ids=[", ".join(hint) for hint in HINTS])
def test_a_signature_under_a_key_that_is_not_ours(line: Scene, hint: dict[str, Any]) -> None:
    """Whatever hint points to that key."""
    line.says(signed(receipt(START), STRANGER, **hint))
    line.withstands("untrusted", NO_KEY_FITS)


@pytest.mark.parametrize("hint", ["product", "stranger", "", None, {}], ids=repr)
def test_a_hint_that_would_lock_the_honest_answer_out(line: Scene, hint: Any) -> None:
    """It lies outside the signed bytes: whoever changes it changes nothing."""
    line.attack = lambda request, honest: edited(honest(), private_key_used=hint)
    with line.agent() as product:
        line.delivers(product, "first", "second")


@pytest.mark.parametrize("other", [receipt(START, code=100), receipt(START - 10**7)])
def test_a_signature_borrowed_from_another_answer(line: Scene, other: dict[str, Any]) -> None:
    """Of a fresh refusal, or of an old answer that is to look fresh."""
    line.says(signed(receipt(START), signature=json.loads(signed(other))["signature"]))
    line.withstands("untrusted", NO_KEY_FITS)


def test_a_signature_over_the_decoded_text(line: Scene) -> None:
    """What the vendor's own clients check, and what the server never signs."""
    data = json.dumps(receipt(START)).encode()
    line.says(signed(data, signature=text64(TRUSTED.sign(data))))
    line.withstands("untrusted", NO_KEY_FITS)


# -- another answer of the same server -----------------------------------------------------------


@pytest.mark.parametrize("code", [200, 0, 829, 832, 8300, 104, 151])
def test_a_signed_answer_of_another_endpoint(line: Scene, code: int) -> None:
    """The server signs its licence checks with the same key: "Valid license key" is no telemetry receipt.

    All that is unsigned says 830: the status, the outer response, the hint and the headers.
    """
    verdict = receipt(START, code=code, message="Valid license key")
    line.says(signed(verdict, response=receipt(START), code=830), 200, "X-Code: 830")
    line.withstands("untrusted", "signed, but code %d is no telemetry receipt" % code)


@pytest.mark.parametrize("code", ["830", "831", "100", "101", "102", "103", "150"])
def test_a_receipt_that_the_vendor_published(line: Scene, code: str) -> None:
    """All seven kinds of real answers, under the real key: they are signed, and they are old."""
    key = shared_path("vectors", "getkeymanager", "demo_public_key.pem").read_bytes()
    answers = shared_path("vectors", "getkeymanager", "signed_responses.json").read_bytes()
    (found,) = (v for v in json.loads(answers)["vectors"] if v["name"].startswith(code))
    line.keys += (agent.PublicKey.from_pem(key, name="the vendor's"),)
    line.says(json.dumps(found["envelope"]).encode())
    line.withstands("skewed", "signed, but too far from the local clock")


# -- 831 and 830 ---------------------------------------------------------------------------------


def test_a_831_disguised_as_830_outside(line: Scene) -> None:
    """The user of an invalid licence edits the part that people read: the signed part decides."""
    line.attack = lambda request, honest: edited(honest(), response=receipt(START))
    with line.agent(license_key=("pirated", "activation-1")) as product:
        line.record(product, "first")
        assert product.flush().flagged == 1
        (outcome,), (answer,) = line.told, product.history()
        assert outcome.verdict == "flagged" and "license_key" in outcome.errors
        assert (answer["verdict"], answer["code"]) == ("flagged", 831)
        line.intact(product)
    (record,) = line.collector.records()
    assert record["answer"] == 831 and record["flags"]["has_red_flags"]


def test_a_830_disguised_as_831_outside(line: Scene) -> None:
    lie = receipt(START, code=831, errors={"license_key": ["stolen"]})
    line.attack = lambda request, honest: edited(honest(), response=lie)
    with line.agent() as product:
        line.delivers(product, "first")
        assert product.history()[-1]["errors"] in (None, {})


def test_a_831_whose_signed_text_is_edited_to_830(line: Scene) -> None:
    def edit(request: bytes, honest: Honest) -> bytes:
        answer = honest()
        inside = base64.b64decode(json.loads(body_of(answer))["response_base64"])
        assert b'"code":831' in inside
        better = inside.replace(b'"code":831', b'"code":830')
        return edited(answer, response_base64=text64(better))

    line.attack = edit
    with line.agent(license_key=("pirated", "activation-1")) as product:
        line.record(product, "first")
        line.fails(product, "untrusted", NO_KEY_FITS)
        line.attack = None
        assert product.flush().flagged == 1
        line.intact(product)


# -- algorithms ----------------------------------------------------------------------------------

ED = Ed25519Signer()


class Signer:
    """Signs with bytes of the attacker's choice, or with what everybody has as a shared secret: the public key."""

    def __init__(self, signature: bytes = b"", secret: bytes = b"") -> None:
        self.signature, self.secret = signature, secret

    def sign(self, message: bytes) -> bytes:
        if self.secret:
            return hmac.new(self.secret, message, hashlib.sha256).digest()
        return self.signature


ALGORITHMS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "RSA answer, Ed25519 key": (RSA_2048, (ED,)),
    "Ed25519 answer, RSA key": (ED, (RSA_2048,)),
    "HMAC with the RSA key's PEM": (Signer(secret=RSA_2048.pem.encode()), (RSA_2048, ED)),
    "HMAC with the Ed25519 key": (Signer(secret=ED.public), (ED, RSA_2048)),
    "no signature at all": (Signer(), (RSA_2048, ED)),
    "zeros as long as Ed25519's": (Signer(bytes(64)), (ED, RSA_2048)),
    "zeros as long as RSA's": (Signer(bytes(256)), (ED, RSA_2048)),
    "one as long as RSA's": (Signer((1).to_bytes(256, "big")), (RSA_2048,)),
    "the Ed25519 key itself, twice": (Signer(ED.public * 2), (ED,)),
    "an RSA signature cut to 64 bytes": (Signer(RSA_2048.sign(b"")[:64]), (ED, RSA_2048)),
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_algorithm_confusion(line: Scene, name: str) -> None:
    """The algorithm belongs to the key: what the answer says of itself chooses nothing."""
    signer, trusted = ALGORITHMS[name]
    line.keys = tuple(each.key for each in trusted)
    with line.agent() as product:
        line.record(product, "first")
        for claim in ("none", "HS256", "ed25519", "rsa-pkcs1v15-sha256"):
            line.says(signed(receipt(START), signer, alg=claim, algorithm=claim))
            line.fails(product, "untrusted", NO_KEY_FITS)
            line.wait(1)  # answers of one moment are one in the history
