"""Ed25519: small-order keys, and what happens where PyNaCl is missing or is not PyNaCl."""

import builtins
import sys
from typing import Any

import pytest
from support.signatures import ED25519_ALGORITHM, RSA_2048, Ed25519Signer, envelope, pem, spki

from agent.errors import SignatureInvalid, Unverifiable
from agent.signatures.envelope import verify
from agent.signatures.keys import PublicKey

MESSAGE = b"eyJjb2RlIjo4MzB9"
SIGNER = Ed25519Signer()


def key_of(public: bytes) -> PublicKey:
    return PublicKey.from_pem(pem(spki(public, ED25519_ALGORITHM)))


def test_a_signed_answer_verifies_and_a_flipped_bit_does_not() -> None:
    assert verify(envelope(signer=SIGNER), (SIGNER.key,)).code == 830
    good = SIGNER.sign(MESSAGE)
    SIGNER.key.verify(bytearray(MESSAGE), memoryview(good))  # type: ignore[arg-type]
    for bit in range(0, 512, 5):
        signature = bytearray(good)
        signature[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SignatureInvalid):
            SIGNER.key.verify(MESSAGE, bytes(signature))


SMALL_ORDER = (
    "01" + "00" * 31,
    "00" * 32,
    "00" * 31 + "80",
    "ec" + "ff" * 30 + "7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
)


@pytest.mark.parametrize("public", SMALL_ORDER)
def test_a_small_order_key_signs_nothing(public: str) -> None:
    """Under the neutral element the signature (neutral, 0) would fit every message."""
    for start in ("01" + "00" * 31, public):
        with pytest.raises(SignatureInvalid):
            key_of(bytes.fromhex(public)).verify(MESSAGE, bytes.fromhex(start) + bytes(32))


def block(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    real = builtins.__import__

    def refusing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "nacl":
            raise error
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.partition(".")[0] == "nacl"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", refusing)


BROKEN = (ImportError("no module"), OSError("libsodium.so.23"), AttributeError("half a package"))


@pytest.mark.parametrize("error", BROKEN, ids=lambda error: type(error).__name__)
def test_a_broken_pynacl_is_never_an_acceptance(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, answer = SIGNER.sign(MESSAGE), envelope(signer=SIGNER)
    block(monkeypatch, error)
    for signature in (good, bytes(64)):
        with pytest.raises(Unverifiable, match=type(error).__name__):
            SIGNER.key.verify(MESSAGE, signature)
    with pytest.raises(SignatureInvalid):
        SIGNER.key.verify(MESSAGE, good[:-1])  # whatever checks it
    with pytest.raises(Unverifiable):
        verify(answer, (RSA_2048.key, SIGNER.key, RSA_2048.key))
    # RSA does not need it, and a signature that fits is enough.
    assert verify(envelope(), (SIGNER.key, RSA_2048.key)).code == 830
