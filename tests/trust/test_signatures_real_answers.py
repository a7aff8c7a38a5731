"""Answers that a real server signed, and everything that one changed bit may do to them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from support.shared import shared_path

from agent.errors import EnvelopeMalformed, SignatureInvalid
from agent.signatures.envelope import verify
from agent.signatures.keys import PublicKey

CODES = [100, 101, 102, 103, 150, 830, 831]


def published(name: str) -> bytes:
    return shared_path("vectors", "getkeymanager", name).read_bytes()


@pytest.fixture(scope="module")
def key() -> PublicKey:
    return PublicKey.from_pem(published("demo_public_key.pem"))


@pytest.fixture(scope="module")
def answers() -> dict[int, dict[str, Any]]:
    vectors = json.loads(published("signed_responses.json"))["vectors"]
    return {int(vector["name"][:3]): vector["envelope"] for vector in vectors}


@pytest.mark.parametrize("code", CODES)
def test_a_real_answer_verifies_at_its_time(
    code: int, key: PublicKey, answers: dict[int, dict[str, Any]]
) -> None:
    assert sorted(answers) == CODES
    inside = json.loads(base64.b64decode(answers[code]["response_base64"]))
    receipt = verify(json.dumps(answers[code]).encode(), (key,), now=inside["timestamp"])
    told = inside["message"], inside.get("errors") or {}, inside["timestamp"], "global"
    assert receipt.facts() == (code, *told)


def test_a_flipped_bit_of_text_or_signature_is_refused(
    key: PublicKey, answers: dict[int, dict[str, Any]]
) -> None:
    for code, step in ((830, 3), (831, 23)):
        text = answers[code]["response_base64"].encode("ascii")
        signature = base64.b64decode(answers[code]["signature"])
        key.verify(text, signature)
        for bit in range(0, 8 * len(text), step):
            with pytest.raises(SignatureInvalid):
                key.verify(flipped(text, bit), signature)
        for bit in range(0, 8 * len(signature), 2 * step):
            with pytest.raises(SignatureInvalid):
                key.verify(text, flipped(signature, bit))


def test_a_flipped_bit_of_the_envelope_s_two_strings_is_refused(
    key: PublicKey, answers: dict[int, dict[str, Any]]
) -> None:
    answer = answers[150]
    raw = json.dumps(answer).encode()
    for name in ("response_base64", "signature"):
        start = raw.index(answer[name].encode())
        assert raw.count(answer[name].encode()) == 1
        for bit in range(8 * start, 8 * (start + len(answer[name])), 3):
            changed = flipped(raw, bit)
            with pytest.raises((SignatureInvalid, EnvelopeMalformed)):
                verify(changed, (key,))


def flipped(data: bytes, bit: int) -> bytes:
    found = bytearray(data)
    found[bit // 8] ^= 1 << bit % 8
    return bytes(found)
