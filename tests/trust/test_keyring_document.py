"""Keyring documents: who may sign one, what it may say, and every way of talking around that."""

import json
import pickle
import sys
import time
from typing import Any

import pytest
from support.keyring import CONTEXT, KEYS, NEW, OLD, ROOTS, content, document, entry, signature
from support.signatures import NOW, RSA_3072, Ed25519Signer, envelope, text64

import agent
from agent.errors import ConfigError, EnvelopeMalformed, SignatureInvalid, Unverifiable
from agent.extras.keyring import Keyring, read_document


def read(data: bytes, threshold: int = 1) -> Any:
    return read_document(data, KEYS, threshold)


def refused(data: bytes, reason: type[Exception], threshold: int = 1) -> str:
    with pytest.raises(reason) as caught:
        read(data, threshold)
    assert type(caught.value) is reason
    return str(caught.value)


def test_a_document_is_read_as_it_was_signed() -> None:
    found = read(document(content(expires=NOW + 9, threshold=2), ROOTS[:2]), 2)
    numbers = {"version": 2, "issued": NOW, "expires": NOW + 9, "threshold": 2}
    assert found == {**numbers, "keys": (NEW,)}


# --- who signed ---------------------------------------------------------------------------------

TEXT = json.dumps(content()).encode()
STRANGER = Ed25519Signer(b"\x66" * 32, "stranger")


ROOT = ROOTS[0].key.fingerprint
UNSIGNED: dict[str, dict[str, str]] = {
    "nobody we know": signature(STRANGER, TEXT),
    "a stranger under a root's fingerprint": {**signature(STRANGER, TEXT), "root": ROOT},
    "a root under another's fingerprint": {**signature(ROOTS[1], TEXT), "root": ROOT},
    "a root, without the context": signature(ROOTS[0], TEXT, b""),
    "a signature of no length": {"root": ROOT, "signature": ""},
}


@pytest.mark.parametrize("name", UNSIGNED)
def test_a_document_that_no_root_signed_is_refused(name: str) -> None:
    data = document(TEXT, signatures=[UNSIGNED[name]])
    assert "0 of the 1" in refused(data, SignatureInvalid)


def test_one_root_signing_often_is_one_root_and_nobody_is_none() -> None:
    pairs = [signature(ROOTS[0], TEXT)] * 5
    assert "1 of the 2" in refused(document(TEXT, signatures=pairs), SignatureInvalid, 2)
    assert "0 of the 1" in refused(document(TEXT, signatures=[]), SignatureInvalid)
    pairs = [{"root": "%d" % n, "signature": ""} for n in range(32)] + pairs  # too many to look at
    assert "0 of the 1" in refused(document(TEXT, signatures=pairs), SignatureInvalid)


def test_a_bad_signature_beside_enough_good_ones_does_no_harm() -> None:
    pairs = [signature(STRANGER, TEXT), signature(ROOTS[1], TEXT + b" "), signature(ROOTS[1], TEXT)]
    assert read(document(TEXT, signatures=pairs))["keys"] == (NEW,)


def test_a_document_may_ask_for_more_roots_and_never_for_fewer() -> None:
    assert "1 of the 2" in refused(document(content(threshold=2)), SignatureInvalid)
    assert "1 of the 2" in refused(document(content(threshold=1)), SignatureInvalid, 2)


def test_an_answer_is_no_document_and_a_document_no_answer() -> None:
    # A vendor who uses one Ed25519 key for both must not have made each forge the other.
    root = ROOTS[0]
    text = text64(json.dumps(content()).encode()).encode()
    pairs = [{"root": root.key.fingerprint, "signature": text64(root.sign(text))}]
    refused(document(text, signatures=pairs), SignatureInvalid)
    signed = envelope(signature=text64(root.sign(CONTEXT + text)))
    with pytest.raises(SignatureInvalid):
        agent.verify(signed, [root.key])


# --- what it is ---------------------------------------------------------------------------------

MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "a list": b"[]",
    "too large": document(pad="x" * 65536),
    "no text": document(signed=...),
    "text not ASCII": document().replace(b"keyring/1", b"keyring/\\u00e9"),
    "no signatures": document(signatures=...),
    "a signature not canonical": document(TEXT, signatures=[{"root": ROOT, "signature": "AA="}]),
    "a signature without a root": document(TEXT, signatures=[{"signature": "AAAA"}]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_no_document_is_refused_in_no_time(name: str) -> None:
    began = time.monotonic()
    refused(MALFORMED[name], EnvelopeMalformed)
    assert time.monotonic() - began < 5


BAD: tuple[dict[str, Any], ...] = (
    {"format": "keyring/2"},
    {"version": 0},
    {"version": 1 << 60},
    {"issued": ...},
    {"expires": "never"},
    {"threshold": 0},
    {"keys": []},
    {"keys": [None]},
    {"keys": [entry(NEW, RSA_3072.pem, algorithm="ed25519")]},
    {"keys": [entry(NEW, "x")]},
    {"keys": [entry(NEW, RSA_3072.pem, name=str(n)) for n in range(33)]},
)


TWICE = json.dumps(content()).encode().replace(b'"version": 2', b'"version": 2, "version": 3')


@pytest.mark.parametrize("signed", [b"{}", b"[]", b"nonsense", TWICE, *(content(**c) for c in BAD)])
def test_signed_nonsense_is_refused(signed: Any) -> None:
    assert "is signed, but" in refused(document(signed), EnvelopeMalformed)


def test_what_is_not_signed_is_not_read_and_new_names_are_left_alone() -> None:
    refused(document(b"nonsense", by=[STRANGER]), SignatureInvalid)
    assert read(document(content(comment="hello"), note="outer"))["version"] == 2


# --- the keyring in a product's source ----------------------------------------------------------


MISTAKES: list[tuple[str, dict[str, Any]]] = [
    ("keys", {"keys": ()}),
    ("keys", {"keys": (OLD,) * 33}),
    ("roots", {"roots": (OLD,)}),
    ("roots", {"roots": (KEYS[0], KEYS[0])}),
    ("roots", {"document": document()}),
    ("threshold", {"roots": KEYS, "threshold": 4}),
    ("version", {"version": -1}),
    ("document", {"roots": KEYS, "document": 7}),
    ("url", {"roots": KEYS, "url": "http://keys.acme.example/keyring.json"}),
]


@pytest.mark.parametrize("field, given", MISTAKES)
def test_a_mistake_is_named(field: str, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        Keyring(**{"keys": (OLD,), **given})
    assert caught.value.field == field and str(caught.value).startswith(field + ": ")


def test_a_keyring_is_a_value() -> None:
    ring = Keyring((OLD,), roots=KEYS, document=document(), threshold=2)
    assert pickle.loads(pickle.dumps(ring)) == ring and hash(ring) == hash(ring)
    with pytest.raises(AttributeError):
        ring.threshold = 1
    assert isinstance(Keyring((OLD,), roots=KEYS, document="x.json").document, str)
    assert len(repr(ring)) < 300


def test_a_keyring_given_to_verify_is_a_mistake() -> None:
    # Its embedded keys may have been replaced: who verifies by hand says which ones are meant.
    with pytest.raises(TypeError):
        agent.verify(envelope(), Keyring((OLD,)))  # type: ignore[arg-type]


# --- what is in force ---------------------------------------------------------------------------


def test_without_pynacl_the_embedded_keys_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    data = document()
    monkeypatch.setitem(sys.modules, "nacl.bindings", None)
    refused(data, Unverifiable)
    trust = Keyring((OLD,), roots=KEYS).trusted()
    trust.offer(data, "test")
    assert (trust.version, trust.keys) == (0, (OLD,)) and "PyNaCl fails" in trust.trouble


def test_versions_only_go_up_and_an_expired_one_works_and_says_so() -> None:
    trust = Keyring((OLD,), roots=KEYS).trusted()
    for number in (3, 2):
        trust.offer(document(content(version=number, expires=NOW)), "test")
    assert (trust.version, trust.keys) == (3, (NEW,)) and "older than 3" in trust.trouble
    assert [trust.report(at)["expired"] for at in (NOW, NOW + 1)] == [False, True]
