"""Keys: which PEM texts are one, and how every other is refused: quickly, by name, without quoting it."""

import copy
import hashlib
import pickle
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from hypothesis import given, settings, strategies as st
from support.signatures import (
    ED25519_ALGORITHM,
    RSA_2048,
    RSA_3072,
    RSA_4096,
    RSA_ALGORITHM,
    Ed25519Signer,
    der,
    integer,
    pem,
    refusal,
    sequence,
    spki,
)

from agent.errors import ConfigError, SignatureInvalid
from agent.signatures.keys import PublicKey

N, E = RSA_2048.n, RSA_2048.e
ED = Ed25519Signer()
ED_SPKI = spki(ED.public, ED25519_ALGORITHM)
BODY = RSA_2048.pem.split("\n")[1]


@pytest.mark.parametrize("text", [RSA_2048.pem, RSA_3072.pem, RSA_4096.pem, ED.pem])
def test_a_key_is_what_others_read(text: str) -> None:
    key = PublicKey.from_pem(text, name="next")
    other = serialization.load_pem_public_key(text.encode())
    assert key.fingerprint == hashlib.sha256(der_of(other)).hexdigest()
    is_rsa = isinstance(other, rsa.RSAPublicKey)
    assert (key.name, key.algorithm) == ("next", "rsa-pkcs1v15-sha256" if is_rsa else "ed25519")


def der_of(key: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_bytes(serialization.Encoding.DER, form))


def test_spellings_that_people_paste() -> None:
    text = RSA_2048.pem
    one_line = text.replace("\n", "")
    for spelt in (
        text.encode(),
        text.rstrip("\n"),
        text.replace("\n", "\r\n"),
        "\n\n" + text.replace("\n", "\n        ") + "\t\n",
        text.replace("\n", "\n\n"),
        one_line,
    ):
        assert PublicKey.from_pem(spelt) == RSA_2048.key  # type: ignore[arg-type]


def cut(text: str, start: int, count: int = 1) -> str:
    return text[:start] + text[start + count :]


P = RSA_2048.pem
BAD_TEXTS = {
    "empty": "",
    "text before": "key:\n" + P,
    "two blocks": P + P,
    "labels differ": P.replace("END PUBLIC", "END RSA PUBLIC"),
    "no content": "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----",
    "PKCS#1": pem(RSA_2048.pkcs1, "RSA PUBLIC KEY"),
    "another label": P.replace("PUBLIC", "RSA PUBLIC"),
    "a character missing": cut(P, 100),
    "unused bits": ED.pem.replace("=", "").replace("\n-----END", "A\n-----END"),
    "padding added": P.replace("\n-----END", "=\n-----END"),
    "NUL": P.replace(BODY, BODY[:9] + "\0" + BODY[9:]),
    "byte order mark": "\ufeff" + P,
    "huge": P.replace(BODY, "A" * 2_000_000),
    "huge inside": pem(spki(der(2, b"\x7f" * 125_000))),
    "deep inside": pem(b"\x30\x80" * 6_000),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_a_text_that_is_not_exactly_one_block_is_refused(name: str) -> None:
    refusal(BAD_TEXTS[name])


def test_a_mistake_is_named() -> None:
    for value in (None, 5, Path("key.pem"), ["x"]):
        refusal(value)
    for name in (None, 5, b"global", "", "x" * 65, "a\nb", "a\x1b[2J", "\ud800"):
        refusal(RSA_2048.pem, name=name)


GOOD_RSA = spki(RSA_2048.pkcs1)
OTHERS = {
    "nothing": b"",
    "length too long by a byte": b"\x30\x83\0" + GOOD_RSA[2:],
    "indefinite length": b"\x30\x80" + GOOD_RSA[4:] + b"\0\0",
    "trailing zero": GOOD_RSA + b"\0",
    "trailing zero inside": spki(RSA_2048.pkcs1 + b"\0"),
    "a byte short": GOOD_RSA[:-1],
    "twice": GOOD_RSA * 2,
    "Ed25519, twice": ED_SPKI * 2,
    "no number": spki(sequence(integer(N))),
    "an empty number": spki(sequence(integer(N), der(2, b""))),
    "exponent first": spki(sequence(integer(E), integer(N))),
    "octets, not bits": sequence(RSA_ALGORITHM, der(4, b"\0" + RSA_2048.pkcs1)),
    "OID of RSA-PSS": spki(RSA_2048.pkcs1, sequence(bytes.fromhex("06092a864886f70d01010a0500"))),
    "Ed25519 OID, RSA key": spki(RSA_2048.pkcs1, ED25519_ALGORITHM),
    "Ed25519 with NULL": spki(ED.public, sequence(bytes.fromhex("06032b65700500"))),
    "Ed25519 of 31 bytes": spki(ED.public[:-1], ED25519_ALGORITHM),
    "P-256": der_of(ec.derive_private_key(5, ec.SECP256R1()).public_key()),
    "X25519": der_of(x25519.X25519PrivateKey.from_private_bytes(b"\1" * 32).public_key()),
    "Ed448": der_of(ed448.Ed448PrivateKey.from_private_bytes(b"\1" * 57).public_key()),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_key_is_refused(name: str) -> None:
    assert "Ed25519, or RSA" in refusal(pem(OTHERS[name]))


@pytest.mark.parametrize("good, size", [(GOOD_RSA, 32), (ED_SPKI, 12)], ids=["rsa", "ed25519"])
def test_every_bit_of_what_stands_before_the_key_counts(good: bytes, size: int) -> None:
    for bit in range(8 * size):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        refusal(pem(bytes(changed)))


EXPONENTS = [0, 1, 2, 4, 65_536, 2**32, 2**33, 2**33 + 1, 2**63, 2**64, 2**64 + 1, 2**64 + 65_537]
EXPONENTS += [2**256 + 1, N - 2, N, N + 2, 2**16_000 + 1]
NEGATIVE = [-1, -3, -65_537, -(2**64), -N, -(2**2048) + 1]
MODULI = [(1 << bits) - 1 for bits in (1, 8, 512, 1024, 2047, 8193, 16_384, 40_000, 60_000)]
MODULI += [N + 1, N - 1, 2 * N, 1 << 2048, (1 << 8192) - 2]  # even ones


def test_numbers_that_make_no_key() -> None:
    for e in EXPONENTS:
        refusal(pem(spki(sequence(integer(N), integer(e)))))
    for n in MODULI:
        refusal(pem(spki(sequence(integer(n), integer(E)))))
    for value in NEGATIVE:
        size = value.bit_length() // 8 + 1
        written = der(2, value.to_bytes(size, "big", signed=True))
        refusal(pem(spki(sequence(integer(N), written))))
        refusal(pem(spki(sequence(written, integer(E)))))


@pytest.mark.parametrize("e", [3, 17, 257, 65_537, (1 << 33) - 1])
def test_what_is_accepted_is_what_another_implementation_reads(e: int) -> None:
    for bits in (2048, 2049, 2055, 2056, 2057, 3001, 4095, 4097, 6000, 8191, 8192):
        n = (1 << bits) - 1
        key = spki(sequence(integer(n), integer(e)))
        other: Any = serialization.load_der_public_key(key)
        assert other.public_numbers() == rsa.RSAPublicNumbers(e, n) and der_of(other) == key
        assert PublicKey.from_pem(pem(key)).algorithm == "rsa-pkcs1v15-sha256"


def private_keys() -> dict[str, str]:
    found = {}
    keys: dict[str, Any] = {
        "rsa": rsa.generate_private_key(65537, 2048),
        "ed25519": ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32),
        "ec": ec.derive_private_key(5, ec.SECP256R1()),
    }
    locks = serialization.NoEncryption(), serialization.BestAvailableEncryption(b"x")
    for name, key in keys.items():
        for form, lock in (("PKCS8", 0), ("PKCS8", 1), ("TraditionalOpenSSL", 0)):
            if name != "ed25519" or form == "PKCS8":
                kind = getattr(serialization.PrivateFormat, form)
                text = key.private_bytes(serialization.Encoding.PEM, kind, locks[lock])
                found["%s %s %d" % (name, form, lock)] = text.decode()
    return found


PRIVATE_KEYS = private_keys()


@pytest.mark.parametrize("name", PRIVATE_KEYS)
def test_a_private_key_is_refused_by_that_name_and_never_quoted(name: str) -> None:
    text = PRIVATE_KEYS[name]
    disguised = text
    for label in ("ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY"):
        disguised = disguised.replace(label, "PUBLIC KEY")
    for given_text in (text, P + text, text.replace("PRIVATE", "Private"), disguised):
        message = refusal(given_text)
        assert ("private key" in message) is ("PRIVATE" in given_text.upper())
        for line in text.split("\n")[1:-2]:
            assert line not in message and line[:8] not in message


@settings(max_examples=150)
@given(st.data())
def test_no_bytes_break_the_reader_and_no_change_goes_unseen(data: st.DataObject) -> None:
    good = data.draw(st.sampled_from([spki(RSA_2048.pkcs1), ED_SPKI]))
    at = data.draw(st.integers(0, len(good)))
    gone = data.draw(st.integers(0, 4))
    changed = good[:at] + data.draw(st.binary(max_size=4)) + good[at + gone :]
    try:
        key = PublicKey.from_pem(pem(changed))
    except ConfigError:
        return
    # Accepted: then it is the one encoding of the key that it holds.
    with pytest.raises(SignatureInvalid):  # and a signature that nobody made fits nothing
        key.verify(b"anything", bytes(64 if key.algorithm == "ed25519" else len(changed) - 38))
    assert key.fingerprint == hashlib.sha256(changed).hexdigest()
    assert (key == PublicKey.from_pem(pem(good))) is (changed == good)
    assert der_of(serialization.load_der_public_key(changed)) == changed


@settings(max_examples=100)
@given(st.data())
def test_but_for_white_space_a_key_has_one_text(data: st.DataObject) -> None:
    good = data.draw(st.sampled_from([RSA_2048.pem, ED.pem]))
    at = data.draw(st.integers(0, len(good)))
    gone = data.draw(st.integers(0, 70))
    more = st.sampled_from(
        ["\n", "\r\n\t ", "\x0c", "\x1c", "=", "-", "A", "\0", "\u2028", "PRIVATE"]
    )
    changed = good[:at] + data.draw(more | st.text(max_size=4) | st.just("")) + good[at + gone :]
    try:
        key = PublicKey.from_pem(changed)
    except ConfigError:
        return
    assert "".join(changed.split()) == "".join(key.pem.split())


@pytest.mark.parametrize("signer", [RSA_2048, ED], ids=["rsa", "ed25519"])
def test_a_key_is_a_value(signer: Any) -> None:
    key = signer.key
    copies = [copy.copy(key), copy.deepcopy(key), PublicKey.from_pem(key.pem)]
    copies += [pickle.loads(pickle.dumps(key, p)) for p in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    for copied in copies:
        assert copied == key and hash(copied) == hash(key)
        copied.verify(b"m", signer.sign(b"m"))
    for other in (PublicKey.from_pem(signer.pem, name="next"), RSA_3072.key, "global", None):
        assert key != other
    for attribute in ("name", "algorithm", "fingerprint", "_material", "other"):
        with pytest.raises(AttributeError):
            setattr(key, attribute, "x")
    assert key.fingerprint[:16] in repr(key) and len(repr(key)) < 300
