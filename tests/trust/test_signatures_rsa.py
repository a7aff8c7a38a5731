"""RSA: forgeries that a lenient check of the padding or of the number lets in."""

from __future__ import annotations

import hashlib

import pytest
from support.signatures import DIGEST_INFO, RSA_2048, RSA_3072, integer, pem, sequence, spki

from agent.errors import SignatureInvalid
from agent.signatures.keys import PublicKey

MESSAGE = b"eyJjb2RlIjo4MzB9"


def paddings() -> dict[str, bytes]:
    digest = hashlib.sha256(MESSAGE).digest()
    size = RSA_2048.size
    good = RSA_2048.encode(MESSAGE)
    no_null = bytes.fromhex("302f300b0609608648016503040201") + bytes.fromhex("0420") + digest

    def filled(tail: bytes) -> bytes:
        return b"\0\1" + b"\xff" * (size - 3 - len(tail)) + b"\0" + tail

    sha1 = bytes.fromhex("3021300906052b0e03021a05000414")
    return {
        "block type 0": b"\0\0" + good[2:],
        "block type 2": b"\0\2" + good[2:],
        "first byte": b"\1\1" + good[2:],
        "no separator": good.replace(b"\xff\0\x30", b"\xff\xff\x30"),
        "short padding with trailing bytes": (good[:10] + good[good.index(b"\0\x30") :]).ljust(
            size, b"\0"
        ),
        "one odd padding byte": good[:9] + b"\xfe" + good[10:],
        "no NULL": filled(no_null),
        "no DigestInfo": filled(digest),
        "SHA-1": filled(sha1 + hashlib.sha1(MESSAGE).digest()),
        "SHA-1 named, SHA-256 given": filled(sha1 + digest),
        "BER length": filled(b"\x30\x81\x31" + DIGEST_INFO[2:] + digest),
        "trailing NULL": filled(b"\x30\x33" + DIGEST_INFO[2:] + digest + b"\5\0"),
        "raw message": MESSAGE.rjust(size, b"\0"),
    }


@pytest.mark.parametrize("name", paddings())
def test_a_signed_block_that_is_not_the_one_is_refused(name: str) -> None:
    block = paddings()[name]
    assert len(block) == RSA_2048.size and block != RSA_2048.encode(MESSAGE)
    with pytest.raises(SignatureInvalid):
        RSA_2048.key.verify(MESSAGE, RSA_2048.raw(block))


def test_bleichenbacher_2006_against_exponent_three() -> None:
    """A cube root of `00 01 ff .. 00 DigestInfo || rubbish` fools who looks only at the front."""
    n = RSA_3072.n
    key = PublicKey.from_pem(pem(spki(sequence(integer(n), integer(3)))))
    front = b"\0\1" + b"\xff" * 8 + b"\0" + DIGEST_INFO + hashlib.sha256(MESSAGE).digest()
    target = int.from_bytes(front.ljust(384, b"\0"), "big")
    low, high = 0, 1 << 1024
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if middle**3 < target else (low, middle)
    assert (low**3).to_bytes(384, "big").startswith(front)
    with pytest.raises(SignatureInvalid):
        key.verify(MESSAGE, low.to_bytes(384, "big"))


def test_text_is_a_mistake_not_a_bad_signature() -> None:
    for message, signature in (("text", b""), (b"", None)):
        with pytest.raises(TypeError):
            RSA_2048.key.verify(message, signature)  # type: ignore[arg-type]
    signature = RSA_2048.sign(MESSAGE)
    RSA_2048.key.verify(bytearray(MESSAGE), memoryview(signature))  # type: ignore[arg-type]
