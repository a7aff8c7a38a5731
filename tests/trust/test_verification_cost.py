"""The cost table prints what it says it does; what the numbers are is the machine's affair."""

from __future__ import annotations

import json

import pytest
import verification_cost

pytestmark = pytest.mark.once


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert verification_cost.main(["--turns", "1"]) == 0
    out = capsys.readouterr().out
    for name in ("RSA-2048 ours", "RSA-3072 raw pow()", "RSA-4096 cryptography", "Ed25519 PyNaCl"):
        assert name in out
    assert verification_cost.main(["--turns", "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 11
