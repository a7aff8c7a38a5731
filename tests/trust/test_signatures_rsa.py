"""RSA: Wycheproof, a second implementation, every key size, and forgeries that a lenient padding check lets in."""

from __future__ import annotations

import hashlib
import json
import random

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from support.shared import shared_path
from support.signatures import (
    DIGEST_INFO,
    PRIMES,
    RSA_2048,
    RSA_3072,
    RSA_4096,
    RsaSigner,
    integer,
    pem,
    sequence,
    spki,
)

from agent.errors import SignatureInvalid
from agent.signatures import PublicKey

MESSAGE = b"eyJjb2RlIjo4MzB9"
ALL_PRIMES = PRIMES[2048] + PRIMES[3072] + PRIMES[4096]


def accepts(key: PublicKey, message: bytes, signature: bytes) -> bool:
    try:
        key.verify(message, signature)
    except SignatureInvalid:
        return False
    return True


def test_wycheproof() -> None:
    path = shared_path("vectors", "wycheproof", "rsa_signature_2048_sha256_test.json")
    suite = json.loads(path.read_text(encoding="utf-8"))
    wrong, seen = [], 0
    for group in suite["testGroups"]:
        key = PublicKey.from_pem(group["publicKeyPem"])
        pkcs1 = pem(bytes.fromhex(group["publicKeyAsn"]), "RSA PUBLIC KEY")
        assert PublicKey.from_pem(pkcs1) == key
        for test in group["tests"]:
            seen += 1
            accepted = accepts(key, bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
            if accepted != (test["result"] == "valid"):  # "acceptable" (no NULL) is refused
                wrong.append(test["tcId"])
    assert (wrong, seen) == ([], suite["numberOfTests"])


@pytest.mark.parametrize("signer", [RSA_2048, RSA_3072, RSA_4096], ids=["2048", "3072", "4096"])
def test_agreement_with_another_implementation(signer: RsaSigner) -> None:
    other = serialization.load_pem_public_key(signer.pem.encode())
    assert isinstance(other, rsa.RSAPublicKey)
    key = signer.key
    dice = random.Random(signer.n)
    outcomes = {True: 0, False: 0}
    for _ in range(2):
        message = dice.randbytes(dice.randrange(0, 300))
        signature = signer.sign(message)
        for case in mutations(dice, signer, message, signature):
            try:
                other.verify(case[1], case[0], padding.PKCS1v15(), hashes.SHA256())
                expected = True
            except InvalidSignature:
                expected = False
            assert accepts(key, *case) is expected
            outcomes[expected] += 1
    assert outcomes[True] >= 2 and outcomes[False] >= 50


def mutations(
    dice: random.Random, signer: RsaSigner, message: bytes, signature: bytes
) -> list[tuple[bytes, bytes]]:
    cases = [(message, signature), (message + b"\0", signature), (message[:-1], signature[1:])]
    cases += [(message, changed) for changed in (b"", signature[:-1], signature + b"\0")]
    cases += [(message, b"\0" + signature), (message, dice.randbytes(signer.size))]
    number = int.from_bytes(signature, "big")
    for other in (0, 1, signer.n - 1, signer.n, signer.n - number):
        cases.append((message, other.to_bytes(signer.size, "big")))
    for _ in range(16):
        changed = bytearray(signature)
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        cases.append((message, bytes(changed)))
    return cases


# (bits, indices of primes, a small prime, exponent)
SIZES = [
    (2560, (0, 2), (), 17),
    (2560, (0, 2), (), (1 << 33) - 9),
    (3585, (0, 1, 2), (3,), 17),
    (5631, (0, 1, 2, 5), (), 65537),
    (8191, (0, 2, 3, 4, 5), (), 65537),
]


@pytest.mark.parametrize("bits, primes, small, exponent", SIZES)
def test_odd_sizes_and_exponents(
    bits: int, primes: tuple[int, ...], small: tuple[int, ...], exponent: int
) -> None:
    signer = RsaSigner(*(ALL_PRIMES[index] for index in primes), *small, e=exponent)
    assert signer.n.bit_length() == bits
    signature = signer.sign(MESSAGE)
    signer.key.verify(MESSAGE, signature)
    for wrong in (b"\0" + signature, signature[1:], signature[:-1] + b"\0"):
        assert not accepts(signer.key, MESSAGE, wrong)


def test_a_signature_with_the_modulus_added_is_refused() -> None:
    for number in range(100):
        message = b"%d" % number
        signature = int.from_bytes(RSA_2048.sign(message), "big")
        same = signature + RSA_2048.n
        if same.bit_length() <= 2048:
            break
    RSA_2048.key.verify(message, signature.to_bytes(256, "big"))
    assert pow(same, RSA_2048.e, RSA_2048.n) == int.from_bytes(RSA_2048.encode(message), "big")
    assert not accepts(RSA_2048.key, message, same.to_bytes(256, "big"))


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
    assert not accepts(RSA_2048.key, MESSAGE, RSA_2048.raw(block))


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
    assert not accepts(key, MESSAGE, low.to_bytes(384, "big"))


@pytest.mark.parametrize("number", [0, 1])
def test_fixed_points_are_refused(number: int) -> None:
    assert not accepts(RSA_2048.key, MESSAGE, number.to_bytes(256, "big"))


def test_text_is_a_mistake_not_a_bad_signature() -> None:
    with pytest.raises(TypeError, match="message"):
        RSA_2048.key.verify("text", b"")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="signature"):
        RSA_2048.key.verify(b"", None)  # type: ignore[arg-type]
    signature = RSA_2048.sign(MESSAGE)
    RSA_2048.key.verify(bytearray(MESSAGE), memoryview(signature))  # type: ignore[arg-type]
