"""Envelopes, as functions see them; what each odd answer does to an agent is tried in ``attacks``."""

from __future__ import annotations

import copy
import json
import math
import pickle
import sys
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from support.signatures import (
    NOW,
    RSA_2048,
    RSA_3072,
    Ed25519Signer,
    content,
    envelope,
    sealed,
)

from agent.errors import (
    AnswerStale,
    CodeUnknown,
    EnvelopeMalformed,
    SignatureInvalid,
    VerificationError,
)
from agent.signatures.envelope import Receipt, read_json, verify
from agent.signatures.keys import PublicKey

KEY = RSA_2048.key
GOOD = envelope()
SEALED = sealed(json.dumps(content()).encode())
TEXT, SIGNATURE = SEALED["response_base64"], SEALED["signature"]


def with_raw(**raw: str) -> bytes:
    """An envelope whose values are given as JSON text, so that it may hold anything."""
    found = {name: json.dumps(value) for name, value in SEALED.items()}
    found.update(raw)
    return ("{%s}" % ",".join('"%s":%s' % item for item in found.items())).encode("utf-8")


def refused(data: bytes, reason: type[VerificationError], keys: Any = (KEY,), **now: Any) -> str:
    with pytest.raises(VerificationError) as caught:
        verify(data, keys, **now)
    assert type(caught.value) is reason, caught.value
    message = str(caught.value)
    assert 0 < len(message) < 160
    return message


def test_a_good_answer() -> None:
    receipt = verify(GOOD, (KEY,), now=NOW)
    assert receipt.facts() == (830, "Correct format data saved", {}, NOW, "global")
    assert type(receipt) is Receipt


# What is not signed decides nothing.


@pytest.mark.parametrize(
    "response",
    [
        "null",
        "1e999",
        "9" * 6000,
        '{"code":101,"message":"Inactive API Key","timestamp":1}',
        '{"code":830,"code":101},"response":7',
        '{"response_base64":"x","signature":"y","private_key_used":"z"}',
        '{"a":' * 50 + "1" + "}" * 50,
        "[" + "[]," * 200 + "[]]",
        '"' + "[{" * 100 + '"',
        '"\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["',
        '"\\ud800"',
    ],
    ids=lambda text: text[:24],
)
def test_the_outer_response_decides_nothing(response: str) -> None:
    assert verify(with_raw(response=response), (KEY,)).code == 830


def test_rotation_old_and_new_key_are_both_believed_and_named() -> None:
    new = PublicKey.from_pem(RSA_3072.pem, name="next")
    assert verify(envelope(), (KEY, new)).key_name == "global"
    assert verify(envelope(signer=RSA_3072), (KEY, new)).key_name == "next"
    edwards = Ed25519Signer(name="edwards")
    assert verify(envelope(signer=edwards), (KEY, new, edwards.key)).key_name == "edwards"
    refused(envelope(signer=Ed25519Signer(b"\2" * 32)), SignatureInvalid, (KEY, new, edwards.key))


def test_a_byte_order_mark_is_no_reason_to_fail_and_two_are() -> None:
    mark = b"\xef\xbb\xbf"
    assert verify(mark + GOOD, (KEY,)).code == 830
    assert verify(envelope(mark + json.dumps(content()).encode()), (KEY,)).code == 830
    refused(mark * 2 + GOOD, EnvelopeMalformed)


def test_the_reader_gives_every_object_to_whom_it_is_told() -> None:
    assert read_json(b'{"a":[1,2.5,"x",null]}') == {"a": [1, 2.5, "x", None]}
    assert read_json(b'{"a":{"b":1},"a":2}', tuple) == (("a", (("b", 1),)), ("a", 2))
    for data in (b'{"a":1,"a":1}', b"NaN", b"\xff", b"[" * 300, b"", b"{"):
        with pytest.raises(ValueError, match="is not JSON that everybody reads alike"):
            read_json(data)


# Not an envelope.

BAD_ENVELOPES = {
    "empty": b"",
    "HTML": b"<html><body>Please sign in</body></html>",
    "number": b"830",
    "trailing brace": GOOD + b"}",
    "Latin-1": GOOD[:-1] + b',"x":"\xe9"}',
    "surrogate in UTF-8": GOOD[:-1] + b',"x":"\xed\xa0\x80"}',
    "deep arrays": with_raw(response="[" * 20000 + "]" * 20000),
    "deep behind a string": with_raw(response='["]]]]]]]]\\\\",' * 257 + "1" + "]" * 257),
    "too large": GOOD + b" " * 65536,
    "huge": b"{" * 2_000_000,
}


@pytest.mark.parametrize("name", BAD_ENVELOPES)
def test_what_is_no_envelope_is_malformed(name: str) -> None:
    started = time.perf_counter()
    refused(BAD_ENVELOPES[name], EnvelopeMalformed)
    assert time.perf_counter() - started < 1


def test_the_largest_answer_is_read_and_one_byte_more_is_not() -> None:
    assert verify(GOOD.ljust(65536), (KEY,)).code == 830
    refused(GOOD.ljust(65537), EnvelopeMalformed)


@pytest.mark.parametrize("limit", [250, 1_000_000])
def test_deep_nesting_is_refused_whatever_the_host_s_recursion_limit(limit: int) -> None:
    """With a raised limit the parser would overflow the small stack of a thread and kill the host."""
    outcomes: list[str] = []

    def run() -> None:
        sys.setrecursionlimit(limit)
        try:
            for data in (b"[" * 65536, with_raw(response="[" * 30000 + "]" * 30000)):
                outcomes.append(refused(data, EnvelopeMalformed))
        finally:
            sys.setrecursionlimit(before)

    before = sys.getrecursionlimit()
    size = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(size)
        sys.setrecursionlimit(before)
    assert len(outcomes) == 2


@pytest.mark.parametrize("name", ["response_base64", "signature"])
def test_a_signed_member_is_there_once_as_ascii_text(name: str) -> None:
    assert name in refused(envelope(**{name: ...}), EnvelopeMalformed)
    refused(envelope(response=SEALED, **{name: ...}), EnvelopeMalformed)
    refused(
        GOOD.replace(b'"%s"' % name.encode(), b'"%s"' % name.title().encode()), EnvelopeMalformed
    )
    for value in ("null", "5", "[]", "{}", json.dumps([SEALED[name]])):
        assert name in refused(with_raw(**{name: value}), EnvelopeMalformed)
    for char in ("\u00e9", "\\ud800", "\u0430", "\u212a"):
        refused(with_raw(**{name: '"%s%s"' % (char, SEALED[name][1:])}), EnvelopeMalformed)
    for value in (json.dumps(SEALED[name]).encode(), b"null", b'""'):
        for data in (
            GOOD[:-1] + b',"%s":%s}' % (name.encode(), value),
            b'{"%s":%s,' % (name.encode(), value) + GOOD[1:],
            b'{"\\u00%02x%s":%s,' % (ord(name[0]), name[1:].encode(), value) + GOOD[1:],
        ):
            assert name in refused(data, EnvelopeMalformed)


# The signature comes first.


def test_without_a_key_nothing_is_proven() -> None:
    none_at_all: list[Any] = [(), [], {}, iter(())]
    for keys in none_at_all:
        assert "no key is configured" in refused(GOOD, SignatureInvalid, keys)
    refused(b"x", EnvelopeMalformed, ())


@pytest.mark.parametrize("signature", ["", "AA==", SIGNATURE[:-4] + "AAA=", "AAAA" * 1000])
def test_a_signature_that_fits_no_key(signature: str) -> None:
    refused(envelope(signature=signature), SignatureInvalid)


def test_unsigned_content_is_not_even_read() -> None:
    for signed in (b"not json", b"\xff", b'{"code":999}', b'{"code":830,"code":830}'):
        refused(envelope(signed, RSA_3072), SignatureInvalid, now=0)


# The signed text.


def raw_content(**raw: str) -> bytes:
    found = {name: json.dumps(value) for name, value in content().items()}
    found.update(raw)
    return ("{%s}" % ",".join('"%s":%s' % item for item in found.items())).encode()


NUMBERS = ["...", "830.0", "8.3e2", "true", "null", "[]", "[830]", "{}", "-1", "9007199254740993"]
NUMBERS += ["9" * 20, "9" * 6000, "1e999", '""', '"x"', '" 830"', '"+830"', '"8_3_0"', '"\u0668"']


@pytest.mark.parametrize("name", ["code", "timestamp"])
@pytest.mark.parametrize("value", NUMBERS, ids=lambda text: text[:20])
def test_a_number_that_is_no_plain_integer_is_malformed(name: str, value: str) -> None:
    signed = raw_content(**{name: value}) if value != "..." else content(**{name: ...})
    assert name in refused(envelope(signed), EnvelopeMalformed)


def test_a_code_may_be_text_and_a_time_may_not() -> None:
    for code in (830, 831, 150):
        assert verify(envelope(content(code=str(code))), (KEY,)).code == code
    for text in ("8300", "9" * 5000, "83"):
        refused(envelope(content(code=text)), CodeUnknown if len(text) < 9 else EnvelopeMalformed)
    refused(envelope(content(timestamp=str(NOW))), EnvelopeMalformed)


# What explains may have any shape.

MESSAGES = {
    "...": "",
    "null": "",
    '""': "",
    '"caf\u00e9\\n"': "caf\u00e9\n",
    "5": "5",
    "[]": "",
    '["x",["y"]]': "x; y",
    '{"a":"x"}': "x",
    '"\\ud800"': "?",
}


@pytest.mark.parametrize("value", MESSAGES)
def test_a_message_of_any_shape_refuses_no_receipt(value: str) -> None:
    signed = raw_content(message=value) if value != "..." else content(message=...)
    assert verify(envelope(signed), (KEY,)).message == MESSAGES[value]


ERRORS: dict[str, dict[str, list[str]]] = {
    "...": {},
    "null": {},
    "[]": {},
    "{}": {},
    '"x"': {"": ["x"]},
    "5": {"": ["5"]},
    '["x","y"]': {"": ["x", "y"]},
    '[{"a":"x"},[["y"]]]': {"": ["x", "y"]},
    '{"a":[]}': {"a": []},
    '{"a":null,"b":"x","c":7}': {"a": [], "b": ["x"], "c": ["7"]},
    '{"a":["x","y"],"b":["\u00e9\\n"]}': {"a": ["x", "y"], "b": ["\u00e9\n"]},
    '{"a":{"b":["x",{"c":"y"}]}}': {"a": ["x", "y"]},
    '{"\\udc00":["\\udc00"]}': {"?": ["?"]},
}


@pytest.mark.parametrize("value", ERRORS)
def test_errors_of_any_shape_refuse_no_receipt(value: str) -> None:
    signed = raw_content(errors=value) if value != "..." else content(errors=...)
    assert verify(envelope(signed), (KEY,)).errors == ERRORS[value]


def test_errors_are_bounded() -> None:
    many = {"f%d" % n: ["m%d" % m for m in range(40)] for n in range(40)}
    found = verify(envelope(content(errors=many)), (KEY,)).errors
    assert list(found) == ["f%d" % n for n in range(32)]
    assert all(messages == ["m%d" % m for m in range(8)] for messages in found.values())
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    assert verify(envelope(content(errors=deep)), (KEY,)).errors == {"": ["x"]}
    assert len(verify(envelope(content(errors=["x"] * 900)), (KEY,)).errors[""]) == 8


def test_further_names_in_the_signed_text_are_left_alone() -> None:
    signed = raw_content(data='{"a":[1.5,null,{"b":' + "9" * 6000 + "}]}")
    assert verify(envelope(signed), (KEY,)).code == 830


@pytest.mark.parametrize("code", [830, 831, 100, 101, 102, 103, 150])
def test_known_codes(code: int) -> None:
    assert verify(envelope(content(code=code)), (KEY,)).code == code


@pytest.mark.parametrize("code", [0, 99, 104, 151, 829, 832, 1 << 53])
def test_a_signed_code_that_is_no_receipt_is_unknown(code: int) -> None:
    with pytest.raises(CodeUnknown) as caught:
        verify(envelope(content(code=code, timestamp=1)), (KEY,), now=NOW)
    assert caught.value.code == code and str(code) in str(caught.value)


# Time.


@pytest.mark.parametrize("skew", [-86400, -1, 0, 1, 86400])
@pytest.mark.parametrize("kind", [int, float])
def test_an_answer_within_a_day_of_now(skew: int, kind: Any) -> None:
    assert verify(envelope(), (KEY,), now=kind(NOW - skew)).timestamp == NOW


@pytest.mark.parametrize(
    "skew, shown",
    [(-86401, -86401), (86401, 86401), (86400.5, 86400), (-315360000, -315360000), (NOW, NOW)],
)
def test_an_answer_more_than_a_day_from_now_is_stale(skew: float, shown: int) -> None:
    with pytest.raises(AnswerStale) as caught:
        verify(envelope(), (KEY,), now=NOW - skew)
    assert caught.value.skew_s == shown and type(caught.value.skew_s) is int
    assert "%+d s" % shown in str(caught.value)


# Mistakes.


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_of_every_kind_are_read(kind: Any) -> None:
    assert verify(kind(GOOD), (KEY,)).code == 830
    refused(kind(b"\xff"), EnvelopeMalformed)


def test_a_mistake_is_named() -> None:
    for value in ("text", None, [1]):
        with pytest.raises(TypeError, match="envelope: .*" + type(value).__name__):
            verify(value, (KEY,))  # type: ignore[arg-type]
    for keys in (None, KEY, 5, "global", (KEY, None), [RSA_2048.pem], {"a": 1}):
        with pytest.raises(TypeError, match="keys: "):
            verify(GOOD, keys)  # type: ignore[arg-type]
    for now in ("now", True, 1j, b"1", ()):
        with pytest.raises(TypeError, match="now: .*" + type(now).__name__):
            verify(GOOD, (KEY,), now=now)  # type: ignore[arg-type]
    for never in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError, match="now: "):
            verify(GOOD, (KEY,), now=never)


# Nothing else ever comes out.


@settings(max_examples=150)
@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    with pytest.raises(VerificationError):
        verify(data, (KEY,))


@settings(max_examples=150)
@given(st.data())
def test_no_change_of_an_answer_raises_anything_else_or_changes_what_is_believed(
    data: st.DataObject,
) -> None:
    at = data.draw(st.integers(0, len(GOOD)))
    gone = data.draw(st.integers(0, 6))
    changed = GOOD[:at] + data.draw(st.binary(max_size=6)) + GOOD[at + gone :]
    try:
        receipt = verify(changed, (KEY,), now=NOW)
    except VerificationError:
        return
    assert receipt == verify(GOOD, (KEY,))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=30)
@given(st.fixed_dictionaries({}, optional={name: json_values for name in content()}))
def test_no_signed_content_raises_anything_else(changes: dict[str, Any]) -> None:
    signed = json.dumps(dict(content(), **changes)).encode()
    try:
        receipt = verify(envelope(signed), (KEY,), now=NOW)
    except VerificationError:
        return
    assert type(receipt.code) is int and type(receipt.message) is str
    assert all(type(text) is str for texts in receipt.errors.values() for text in texts)


def test_a_receipt_is_a_value() -> None:
    receipt = verify(envelope(content(code=831, errors={"a": ["x"]})), (KEY,))
    for copied in (copy.copy(receipt), copy.deepcopy(receipt)):
        assert copied == receipt
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(receipt, protocol)) == receipt
    for attribute in ("code", "message", "errors", "timestamp", "key_name", "other"):
        with pytest.raises(AttributeError):
            setattr(receipt, attribute, 830)
        with pytest.raises(AttributeError):
            delattr(receipt, attribute)
    assert receipt != verify(GOOD, (KEY,)) and receipt != 831
    assert "831" in repr(receipt) and "'a': ['x']" in repr(receipt)


def test_errors_survive_pickling_with_their_facts() -> None:
    unknown = envelope(content(code=7))
    for data, now in ((b"", None), (envelope(signature=""), None), (unknown, None), (GOOD, 0)):
        with pytest.raises(VerificationError) as caught:
            verify(data, (KEY,), now=now)
        error = caught.value
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(error, protocol))
            assert type(again) is type(error)
            assert str(again) == str(error) and vars(again) == vars(error)


def test_errors_quote_nothing_of_the_answer() -> None:
    canary = "CANARY-7f3a"
    for data in (
        canary.encode(),
        envelope(response_base64=canary),
        envelope(signature=canary),
        envelope(content(code=canary, message=canary)),
        envelope(canary.encode()),
        envelope(content(code=5, errors={canary: canary})),
        GOOD[:-1] + ('"%s":NaN' % canary).encode(),
    ):
        with pytest.raises(VerificationError) as caught:
            verify(data, (KEY,))
        assert canary not in str(caught.value) and canary not in repr(caught.value)
