"""Keys: which PEM texts are one, and how every other is refused: quickly, by name, without quoting it."""

from __future__ import annotations

import copy
import hashlib
import pickle
import time
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
    RsaSigner,
    der,
    integer,
    pem,
    sequence,
    spki,
)

from agent.errors import ConfigError
from agent.signatures.keys import PublicKey

N, E = RSA_2048.n, RSA_2048.e
ED = Ed25519Signer()
ED_SPKI = spki(ED.public, ED25519_ALGORITHM)
BODY = RSA_2048.pem.split("\n")[1]


def refusal(text: Any, **name: Any) -> str:
    started = time.perf_counter()
    with pytest.raises(ConfigError) as caught:
        PublicKey.from_pem(text, **name)
    assert time.perf_counter() - started < 1
    assert caught.value.field == "keys"
    message = str(caught.value)
    assert message.startswith("keys: ") and len(message) < 200
    return message


@pytest.mark.parametrize("signer", [RSA_2048, RSA_3072, RSA_4096], ids=["2048", "3072", "4096"])
def test_both_rsa_forms_are_the_same_key(signer: RsaSigner) -> None:
    key = PublicKey.from_pem(signer.pem)
    assert PublicKey.from_pem(pem(signer.pkcs1, "RSA PUBLIC KEY")) == key
    other = serialization.load_pem_public_key(signer.pem.encode())
    content = other.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert key.fingerprint == hashlib.sha256(content).hexdigest()
    assert (key.name, key.algorithm) == ("global", "rsa-pkcs1v15-sha256")


def test_ed25519() -> None:
    key = PublicKey.from_pem(ED.pem, name="next")
    assert (key.name, key.algorithm) == ("next", "ed25519")
    assert key.fingerprint == hashlib.sha256(ED_SPKI).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.encode(),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\n\n" + text.replace("\n", "\n        ") + "\t\n",
        lambda text: text.replace("\n", "\n\n"),
        lambda text: text[:-26]
        .replace("KEY-----\n", "KEY-----")
        .replace("\n", "")
        .replace("KEY-----", "KEY-----\n")
        + text[-26:],
    ],
    ids=["str", "bytes", "no newline", "CRLF", "indented", "blank lines", "one line"],
)
def test_spellings_that_people_paste(change: Any) -> None:
    assert PublicKey.from_pem(change(RSA_2048.pem)) == RSA_2048.key


def cut(text: str, start: int, count: int = 1) -> str:
    return text[:start] + text[start + count :]


P = RSA_2048.pem
BAD_TEXTS = {
    "empty": "",
    "a file name": "/etc/ssl/key.pem",
    "text before": "key:\n" + P,
    "two blocks": P + P,
    "two keys": P + RSA_3072.pem,
    "labels differ": P.replace("END PUBLIC", "END RSA PUBLIC"),
    "four dashes": P.replace("KEY-----\n", "KEY----\n"),
    "lower-case label": P.replace("PUBLIC KEY", "public key"),
    "no content": "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----",
    "inner space": P.replace(BODY, BODY[:9] + " " + BODY[9:]),
    "a character missing": cut(P, 100),
    "padding missing": ED.pem.replace("=", ""),
    "unused bits": ED.pem.replace("=", "").replace("\n-----END", "A\n-----END"),
    "padding added": P.replace("\n-----END", "=\n-----END"),
    "padding in the middle": P.replace(BODY, BODY[:60] + "===="),
    "NUL": P.replace(BODY, BODY[:9] + "\0" + BODY[9:]),
    "byte order mark": "\ufeff" + P,
    "UTF-16": P.encode("utf-16"),
    "huge": P.replace(BODY, "A" * 2_000_000),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_a_text_that_is_not_exactly_one_block_is_refused(name: str) -> None:
    refusal(BAD_TEXTS[name])


def test_something_that_is_no_text_is_refused_by_its_type() -> None:
    for value in (None, 5, Path("key.pem"), bytearray(b"x"), ["x"]):
        assert type(value).__name__ in refusal(value)


def test_a_name_that_cannot_be_shown_is_refused() -> None:
    for name in (None, 5, b"global", "", "x" * 65, "a\nb", "a\x1b[2J", "\ud800"):
        refusal(RSA_2048.pem, name=name)


def key_of(n: int = N, e: int = E) -> bytes:
    return spki(sequence(integer(n), integer(e)))


def rsa_bits(content: bytes, unused: bytes = b"\0") -> bytes:
    return sequence(RSA_ALGORITHM, der(3, unused + content))


def algorithm(content: str) -> bytes:
    return spki(RSA_2048.pkcs1, sequence(bytes.fromhex(content)))


RSA_OID = "06092a864886f70d010101"
GOOD = spki(RSA_2048.pkcs1)
BAD_DER = {
    "nothing": b"",
    "trailing in the bits": rsa_bits(RSA_2048.pkcs1 + b"\0"),
    "trailing in the key": rsa_bits(sequence(integer(N), integer(E), integer(0))),
    "no exponent": rsa_bits(sequence(integer(N))),
    "exponent first": rsa_bits(sequence(integer(E), integer(N))),
    "key not a sequence": rsa_bits(integer(N) + integer(E)),
    "bare bits": sequence(RSA_ALGORITHM, RSA_2048.pkcs1),
    "octets, not bits": sequence(RSA_ALGORITHM, der(4, b"\0" + RSA_2048.pkcs1)),
    "NULL missing": algorithm(RSA_OID),
    "OID of RSA-PSS": algorithm("06092a864886f70d01010a0500"),
    "Ed25519 OID, RSA key": spki(RSA_2048.pkcs1, ED25519_ALGORITHM),
    "Ed25519 with NULL": spki(ED.public, sequence(bytes.fromhex("06032b65700500"))),
    "Ed25519 of 31 bytes": spki(ED.public[:-1], ED25519_ALGORITHM),
    "X25519": spki(ED.public, sequence(bytes.fromhex("06032b656e"))),
    "deeply nested": b"\x30\x82\x20\x00" * 2048,
}


@pytest.mark.parametrize("name", BAD_DER)
def test_der_with_a_second_reading_is_refused(name: str) -> None:
    refusal(pem(BAD_DER[name]))
    refusal(pem(BAD_DER[name], "RSA PUBLIC KEY"))


def private_keys() -> dict[str, bytes]:
    found = {}
    keys: dict[str, Any] = {
        "rsa": rsa.generate_private_key(65537, 2048),
        "ed25519": ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32),
        "ec": ec.derive_private_key(5, ec.SECP256R1()),
    }
    for name, key in keys.items():
        locks = serialization.NoEncryption(), serialization.BestAvailableEncryption(b"x")
        for form, lock in (("PKCS8", 0), ("PKCS8", 1), ("TraditionalOpenSSL", 0)):
            if name == "ed25519" and form != "PKCS8":
                continue
            kind = getattr(serialization.PrivateFormat, form)
            found["%s %s %d" % (name, form, lock)] = key.private_bytes(
                serialization.Encoding.PEM, kind, locks[lock]
            )
    return found


PRIVATE_KEYS = private_keys()


@pytest.mark.parametrize("name", PRIVATE_KEYS)
def test_a_private_key_is_refused_by_that_name_and_never_quoted(name: str) -> None:
    text = PRIVATE_KEYS[name].decode()
    disguised = text
    for label in ("ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY"):
        disguised = disguised.replace(label, "PUBLIC KEY")
    texts = [text, P + text, text.replace("PRIVATE", "Private")]
    if name[-1] == "0":  # what is encrypted does not show what it is
        texts += [disguised, disguised.replace("PUBLIC", "RSA PUBLIC")]
    for given_text in texts:
        message = refusal(given_text)
        assert ("private key" in message) is ("PRIVATE" in given_text.upper())
        for line in text.split("\n")[1:-2]:
            assert line not in message and line[:8] not in message
    refusal(disguised)


def test_a_form_under_the_other_form_s_label_is_refused() -> None:
    refusal(pem(RSA_2048.pkcs1))
    refusal(pem(GOOD, "RSA PUBLIC KEY"))
    refusal(pem(ED_SPKI, "RSA PUBLIC KEY"))


def test_a_key_of_another_algorithm_is_refused() -> None:
    for private in (
        ec.derive_private_key(5, ec.SECP256R1()),
        x25519.X25519PrivateKey.from_private_bytes(b"\1" * 32),
        ed448.Ed448PrivateKey.from_private_bytes(b"\1" * 57),
    ):
        data = private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        assert "not Ed25519, nor RSA" in refusal(pem(data))


@settings(max_examples=150)
@given(st.data())
def test_no_bytes_break_the_reader_and_no_change_goes_unseen(data: st.DataObject) -> None:
    good = data.draw(st.sampled_from([GOOD, ED_SPKI]))
    at = data.draw(st.integers(0, len(good)))
    gone = data.draw(st.integers(0, 4))
    changed = good[:at] + data.draw(st.binary(max_size=4)) + good[at + gone :]
    try:
        key = PublicKey.from_pem(pem(changed))
    except ConfigError:
        return
    # Accepted: then it is the one encoding of the key that it holds.
    assert key.fingerprint == hashlib.sha256(changed).hexdigest()
    assert (key == PublicKey.from_pem(pem(good))) is (changed == good)
    other: Any = serialization.load_der_public_key(changed)
    again = other.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert again == changed


@settings(max_examples=40)
@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_no_text_breaks_the_reader(text: Any) -> None:
    refusal(text)


def test_a_key_is_a_value() -> None:
    key, same = RSA_2048.key, PublicKey.from_pem(RSA_2048.pem)
    renamed = PublicKey.from_pem(RSA_2048.pem, name="next")
    assert key == same and hash(key) == hash(same) and key != renamed and key != RSA_3072.key
    assert len({key, same, renamed, ED.key}) == 3
    assert key != "global" and key is not None
    for attribute in ("name", "algorithm", "fingerprint", "_material", "other"):
        with pytest.raises(AttributeError):
            setattr(key, attribute, "x")
        with pytest.raises(AttributeError):
            delattr(key, attribute)
    assert not hasattr(key, "__dict__")
    assert key.fingerprint[:16] in repr(key) and key.fingerprint not in repr(key)


@pytest.mark.parametrize("signer", [RSA_2048, ED], ids=["rsa", "ed25519"])
def test_a_key_survives_pickling_and_copying(signer: Any) -> None:
    key = signer.key
    copies = [copy.copy(key), copy.deepcopy(key)]
    copies += [pickle.loads(pickle.dumps(key, p)) for p in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    for copied in copies:
        assert copied == key and copied.fingerprint == key.fingerprint
        assert PublicKey.from_pem(copied.pem) == key
        copied.verify(b"m", signer.sign(b"m"))
