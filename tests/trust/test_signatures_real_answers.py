"""Answers that a real server signed. What one changed bit does: ``test_conformance_rsa``, and fuzzing."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from support.shared import shared_path

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
