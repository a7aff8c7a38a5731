"""Strictness of keys where a lenient reader has a second reading: every level of the DER, every odd number, every size.

``test_signatures_keys`` has the list of malformed keys; here the same is done to every element, and what we accept is
held against ``cryptography``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from support.signatures import (
    ED25519_ALGORITHM,
    RSA_2048,
    Ed25519Signer,
    der,
    integer,
    pem,
    refusal,
    sequence,
    spki,
)

from agent.signatures.keys import PublicKey

N, E = RSA_2048.n, RSA_2048.e
ED = Ed25519Signer()


# -- every element of a key, written in every wrong way ------------------------------------------

Tree = tuple[int, object]  # tag, and bytes or a list of trees
OID = bytes.fromhex("2a864886f70d010101")
RSA_TREE: Tree = (
    0x30,
    [
        (0x30, [(0x06, OID), (0x05, b"")]),
        (0x03, [(0x00, b""), (0x30, [(2, integer(N)[4:]), (2, integer(E)[2:])])]),
    ],
)
ED_TREE: Tree = (0x30, [(0x30, [(0x06, bytes.fromhex("2b6570"))]), (0x03, b"\0" + ED.public)])


def write(tree: Tree, path: tuple[int, ...] = (), wrong: str = "") -> bytes:
    """DER of ``tree``, with the element at ``path`` written in the way that ``wrong`` names."""
    tag, content = tree
    if tag == 0:  # the octet of unused bits, which is no element
        return b"\0"
    if isinstance(content, list):
        inner = b"".join(
            write(part, path[1:] if path and path[0] == at else (-1,), wrong)
            for at, part in enumerate(content)
        )
    else:
        assert isinstance(content, bytes)
        inner = content
    if path or not wrong:
        return der(tag, inner)
    size = len(inner)
    length = size.to_bytes(2, "big")
    return {
        "indefinite": bytes((tag | 0x20, 0x80)) + inner + b"\0\0",
        "indefinite, primitive": bytes((tag, 0x80)) + inner + b"\0\0",
        "length too long by a byte": bytes((tag, 0x83, 0)) + length + inner,
        "length of eight bytes": bytes((tag, 0x88)) + bytes(6) + length + inner,
        "length of 126 bytes": bytes((tag, 0xFE)) + bytes(124) + length + inner,
        "length reserved": bytes((tag, 0xFF)) + length + inner,
        "length of 4 GB": bytes((tag, 0x84)) + b"\xff" * 4 + inner,
        "length of 2^64": bytes((tag, 0x89, 1)) + bytes(8) + inner,
        "trailing zero": der(tag, inner + b"\0"),
        "trailing zero outside": der(tag, inner) + b"\0",
        "trailing NULL outside": der(tag, inner) + b"\5\0",
        "twice": der(tag, inner) * 2,
        "missing": b"",
        "empty": der(tag, b""),
        "one byte short": der(tag, inner)[:-1],
        "another class": der(tag | 0x40, inner),
        "constructed or not": der(tag ^ 0x20, inner),
        "context tag": der(0xA0, inner),
        "long tag": bytes((tag & 0xE0 | 0x1F, tag & 0x1F)) + der(tag, inner)[1:],
    }[wrong]


WRONGS = """indefinite|indefinite, primitive|length too long by a byte|length of eight bytes|length of 126 bytes|\
length reserved|length of 4 GB|length of 2^64|trailing zero|trailing zero outside|trailing NULL outside|twice|missing|\
empty|one byte short|another class|constructed or not|context tag|long tag""".split(
    "|"
)


def paths(tree: Tree, here: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    tag, content = tree
    if tag:
        yield here
    if isinstance(content, list):
        for at, part in enumerate(content):
            yield from paths(part, (*here, at))


@pytest.mark.parametrize("wrong", WRONGS)
@pytest.mark.parametrize("tree", [RSA_TREE, ED_TREE], ids=["rsa", "ed25519"])
def test_every_element_written_wrongly(tree: Tree, wrong: str) -> None:
    good = write(tree)
    assert good in (spki(RSA_2048.pkcs1), spki(ED.public, ED25519_ALGORITHM))
    seen = 0
    for path in paths(tree):
        bad = write(tree, path, wrong)
        if bad == good:  # an empty NULL
            assert wrong == "empty"
            continue
        refusal(pem(bad))
        seen += 1
    assert seen >= 4


def test_another_object_identifier() -> None:
    """Every one that is a bit away from rsaEncryption: sha256WithRSA, PSS and OAEP are among the neighbours."""
    for changed in range(8 * len(OID)):
        oid = bytearray(OID)
        oid[changed // 8] ^= 1 << changed % 8
        refusal(pem(spki(RSA_2048.pkcs1, sequence(der(6, bytes(oid)), b"\5\0"))))


# -- numbers -------------------------------------------------------------------------------------

EXPONENTS = [0, 1, 2, 4, 65_536, 2**32, 2**33, 2**33 + 1, 2**63, 2**64, 2**64 + 1, 2**64 + 65_537]
EXPONENTS += [2**256 + 1, N - 2, N, N + 2, 2**16_000 + 1]


@pytest.mark.parametrize("e", EXPONENTS, ids=lambda e: "%d bits" % e.bit_length())
def test_an_exponent_that_is_none(e: int) -> None:
    refusal(pem(spki(sequence(integer(N), integer(e)))))


@pytest.mark.parametrize("value", [-1, -3, -65_537, -(2**64), -N, -(2**2048) + 1])
def test_a_negative_number(value: int) -> None:
    written = der(2, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))
    for key in (sequence(integer(N), written), sequence(written, integer(E))):
        refusal(pem(spki(key)))


MODULI = [(1 << bits) - 1 for bits in (1, 8, 512, 1024, 2047, 8193, 16_384, 40_000, 60_000)]
MODULI += [N + 1, N - 1, 2 * N, 1 << 2048, (1 << 8192) - 2]  # even ones


@pytest.mark.parametrize("n", MODULI, ids=lambda n: "%d bits" % n.bit_length())
def test_a_modulus_that_is_none(n: int) -> None:
    refusal(pem(spki(sequence(integer(n), integer(E)))))


@pytest.mark.parametrize("bits", [2048, 2049, 2055, 2056, 2057, 3001, 4095, 4097, 6000, 8191, 8192])
@pytest.mark.parametrize("e", [3, 17, 257, 65_537, (1 << 33) - 1])
def test_what_is_accepted_is_what_another_implementation_reads(bits: int, e: int) -> None:
    n = (1 << bits) - 1
    key = spki(sequence(integer(n), integer(e)))
    other = serialization.load_der_public_key(key)
    assert isinstance(other, rsa.RSAPublicKey)
    assert other.public_numbers() == rsa.RSAPublicNumbers(e, n)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    assert other.public_bytes(serialization.Encoding.DER, form) == key
    assert PublicKey.from_pem(pem(key)).algorithm == "rsa-pkcs1v15-sha256"
