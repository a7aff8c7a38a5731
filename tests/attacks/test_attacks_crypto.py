"""Attacks on the means to check: PyNaCl missing, broken, or replaced, in a product whose server signs with Ed25519.

What cannot be checked is neither believed nor called forged: the record waits, the reason is told, and a product that
can check delivers it. RSA needs nothing that could be missing.
"""

import sys
import types
from typing import Any

import pytest
from support.attacks import START, Scene, http_answer, receipt, signed
from support.signatures import Ed25519Signer

ED = Ed25519Signer()
FORGER = Ed25519Signer(b"\2" * 32)
ANSWERS = {"genuine": signed(receipt(START), ED), "forged": signed(receipt(START), FORGER)}


@pytest.fixture(autouse=True)
def ed25519(line: Scene) -> None:
    line.keys = (ED.key,)


def block(patch: pytest.MonkeyPatch) -> None:
    """As in a bundle that was made without it."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "nacl"]:
        patch.delitem(sys.modules, name)
    patch.setitem(sys.modules, "nacl", None)


@pytest.mark.parametrize("answer", ANSWERS)
def test_pynacl_missing_from_the_bundle(
    line: Scene, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.says(ANSWERS[answer])
    with monkeypatch.context() as patch:
        block(patch)
        with line.agent() as product:
            line.record(product, "first", "second")
            line.fails(product, "untrusted", "Ed25519 cannot be checked here")
    # The next version of the product has it.
    line.attack = lambda request, honest: (
        honest(),
        http_answer(signed(receipt(line.server_time()), ED)),
    )[1]
    with line.agent() as product:
        assert product.flush().delivered == 2
        line.intact(product)


def refuse(signed: bytes, key: bytes) -> Any:
    from nacl.exceptions import BadSignatureError

    raise BadSignatureError


OTHERS: dict[str, Any] = {
    "fails in the call": lambda signed, key: signed.encode(),
    "says nothing": lambda signed, key: None,
    "says yes": lambda signed, key: True,
    "opens everything": lambda signed, key: signed[64:],
    "opens something else": lambda signed, key: signed[64:] + b"x",
    "refuses everything": refuse,
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_something_else_called_nacl(
    line: Scene, answer: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked first what everybody knows: one good signature, one bad."""
    bindings: Any = types.ModuleType("nacl.bindings")
    bindings.crypto_sign_open = OTHERS[name]
    monkeypatch.setitem(sys.modules, "nacl.bindings", bindings)
    line.says(ANSWERS[answer])
    with line.agent() as product:
        line.record(product, "first")
        line.fails(product, "untrusted", "Ed25519 cannot be checked here")
