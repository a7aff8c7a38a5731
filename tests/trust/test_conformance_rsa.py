"""Our RSA against ``cryptography``: the same word for every case, over all sizes of keys, random and mutated.

The long form has more than 10,000 cases. Keys of odd sizes are products of known primes and a small one; blocks that a
lenient verifier might take are signed for real, so what is compared is not only noise.
"""

import hashlib
import random
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from support.signatures import (
    DIGEST_INFO,
    PRIMES,
    RSA_2048,
    RSA_3072,
    RsaSigner,
    integer,
    pem,
    sequence,
    spki,
)

from agent.errors import SignatureInvalid
from agent.signatures.keys import PublicKey

Case = tuple[bytes, bytes]  # message, signature

# 2^k - 1 is prime for these k; together they fill a modulus up to its last bit.
MERSENNE = tuple((1 << k) - 1 for k in (5, 19, 107, 127, 1279))
# name: primes by index, others, exponent
KEYS: dict[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "2048": ((0, 1), (), 65537),
    "2050": ((0, 1), (3,), 65537),
    "2056": ((0, 1), (251,), 257),
    "2560, e = 17": ((0, 2), (), 17),
    "3081, e = 2^33 - 9": ((2, 3), (509,), (1 << 33) - 9),
    "4101": ((4, 5), (31,), 65537),
    "5632": ((0, 1, 2, 4), (), 65537),
    "8192": ((0, 3, 4, 5), MERSENNE, 65537),
    "8191": ((0, 2, 3, 4, 5), (), 65537),
}
SHORT = 60
# More of those that cost less.
LONG = {name: 1_800 if name < "4" else 330 for name in KEYS}
assert sum(LONG.values()) >= 10_000


def signer_of(name: str) -> RsaSigner:
    primes, small, exponent = KEYS[name]
    return RsaSigner(*(PRIMES[index] for index in primes), *small, e=exponent)


def blocks(dice: random.Random, signer: RsaSigner, message: bytes) -> Iterator[bytes]:
    """Encoded messages that are not the one, but look like it."""
    good, digest = signer.encode(message), hashlib.sha256(message).digest()
    start = good.index(b"\0\x30")
    yield good[: start - 1] + good[start:] + b"\0"  # one byte of padding less, one behind
    yield good[:10].ljust(start - 20, b"\xff") + good[start:] + dice.randbytes(20)
    for head in (b"\0\0", b"\0\2", b"\1\1"):
        yield head + good[2:]
    yield good.replace(b"\xff\0\x30", b"\xff\xff\x30")
    yield message[: signer.size - 1].rjust(signer.size, b"\0")
    for _ in range(4):
        at = dice.randrange(2, signer.size)
        yield good[:at] + bytes([good[at] ^ 1 << dice.randrange(8)]) + good[at + 1 :]
    sha1 = bytes.fromhex("3021300906052b0e03021a05000414")
    for tail in (
        digest,
        DIGEST_INFO + digest + b"\0",
        b"\x30\x81\x31" + DIGEST_INFO[2:] + digest,
        b"\x30\x33" + DIGEST_INFO[2:] + digest + b"\5\0",
        bytes.fromhex("302f300b06096086480165030402010420") + digest,  # no NULL
        sha1 + hashlib.sha1(message).digest(),
        sha1 + digest,
    ):
        yield b"\0\1" + b"\xff" * (signer.size - 3 - len(tail)) + b"\0" + tail


def cases(name: str) -> Iterator[Case]:
    """Without end: an honest signature, then everything that is nearly one."""
    dice, signer = random.Random(name), signer_of(name)
    while True:
        message = dice.randbytes(dice.choice((0, 1, 55, 64, dice.randrange(2_000))))
        good = signer.sign(message)
        number = int.from_bytes(good, "big")
        yield message, good
        yield message + b"\0", good
        yield hashlib.sha256(message).digest(), good
        for changed in (b"", good[:-1], good + b"\0", b"\0" + good, good[::-1]):
            yield message, changed
        for other in (0, 1, signer.n - 1, signer.n, signer.n - number, signer.n + number):
            if other < 1 << 8 * signer.size:
                yield message, other.to_bytes(signer.size, "big")
        for _ in range(30):
            at, bit = dice.randrange(signer.size), 1 << dice.randrange(8)
            yield message, good[:at] + bytes([good[at] ^ bit]) + good[at + 1 :]
        for _ in range(10):
            yield message, dice.randbytes(signer.size)
        # Signing is what costs time here: a few of them each round.
        for block in dice.sample(list(blocks(dice, signer, message)), 3):
            if int.from_bytes(block, "big") < signer.n:
                yield message, signer.raw(block)


def compare(name: str, count: int) -> dict[bool, int]:
    """How many cases both accept (True) and both refuse (False)."""
    signer = signer_of(name)
    ours, theirs = signer.key, rsa.RSAPublicNumbers(signer.e, signer.n).public_key()
    both = {True: 0, False: 0}
    for _, (message, signature) in zip(range(count), cases(name)):
        try:
            theirs.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
            expected = True
        except InvalidSignature:
            expected = False
        try:
            ours.verify(message, signature)
            accepted = True
        except SignatureInvalid:
            accepted = False
        assert accepted is expected, (name, message.hex(), signature.hex())
        both[expected] += 1
    return both


@pytest.mark.parametrize("name", KEYS)
def test_agreement(name: str) -> None:
    assert signer_of(name).n.bit_length() == int(name.partition(",")[0])
    both = compare(name, SHORT)
    assert both[True] >= 1 and both[False] > both[True]


@pytest.mark.full
@pytest.mark.parametrize("name", KEYS)
def test_agreement_in_ten_thousand_cases(name: str) -> None:
    both = compare(name, LONG[name])
    assert both[True] >= LONG[name] // 80 and sum(both.values()) == LONG[name]


def test_a_signed_block_that_is_not_the_one_is_refused() -> None:
    message = b"eyJjb2RlIjo4MzB9"
    found = list(blocks(random.Random(1), RSA_2048, message))
    assert len(found) > 15 and RSA_2048.encode(message) not in found
    for block in found:
        assert len(block) == RSA_2048.size
        with pytest.raises(SignatureInvalid):
            RSA_2048.key.verify(message, RSA_2048.raw(block))


def test_bleichenbacher_2006_against_exponent_three() -> None:
    """A cube root of `00 01 ff .. 00 DigestInfo || rubbish` fools who looks only at the front."""
    key = PublicKey.from_pem(pem(spki(sequence(integer(RSA_3072.n), integer(3)))))
    front = b"\0\1" + b"\xff" * 8 + b"\0" + DIGEST_INFO + hashlib.sha256(b"").digest()
    target = int.from_bytes(front.ljust(384, b"\0"), "big")
    low, high = 0, 1 << 1024
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if middle**3 < target else (low, middle)
    assert (low**3).to_bytes(384, "big").startswith(front)
    with pytest.raises(SignatureInvalid):
        key.verify(b"", low.to_bytes(384, "big"))


def test_text_is_a_mistake_not_a_bad_signature() -> None:
    for message, signature in (("text", b""), (b"", None)):
        with pytest.raises(TypeError):
            RSA_2048.key.verify(message, signature)  # type: ignore[arg-type]
    given: Any = bytearray(b"m"), memoryview(RSA_2048.sign(b"m"))
    RSA_2048.key.verify(*given)
