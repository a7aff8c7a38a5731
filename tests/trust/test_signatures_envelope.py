"""Envelopes, as functions see them.

Answers with no reading or with two, and what each does to an agent: ``attacks``; against a second reader: ``fuzz``.
"""

import copy
import json
import math
import pickle
import sys
import threading
from typing import Any

import pytest
from support.signatures import NOW, RSA_2048, content, envelope, sealed

from agent.errors import (
    AnswerStale,
    CodeUnknown,
    EnvelopeMalformed,
    VerificationError,
)
from agent.signatures.envelope import Receipt, verify

KEY = RSA_2048.key
GOOD = envelope()
SEALED = sealed(json.dumps(content()).encode())
SIGNATURE = SEALED["signature"]


def with_raw(given: dict[str, Any] = SEALED, /, **raw: Any) -> bytes:
    """An object whose values are given as JSON text, so that it may hold anything; "..." leaves a name out."""
    found = {**{name: json.dumps(value) for name, value in given.items()}, **raw}
    shown = ['"%s":%s' % item for item in found.items() if item[1] != "..."]
    return ("{%s}" % ",".join(shown)).encode("utf-8")


def signed(**raw: str) -> bytes:
    """The answer around a signed text whose values are given as JSON text."""
    return envelope(with_raw(content(), **raw))


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
    assert verify(memoryview(GOOD), iter([KEY])) == receipt  # type: ignore[arg-type]
    # A byte order mark is no reason to fail.
    assert verify(envelope(b"\xef\xbb\xbf" + json.dumps(content()).encode()), (KEY,)).code == 830


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


# The signed text.

NUMBERS = ["...", "830.0", "true", "null", "[830]", "-1", "9007199254740993", "9" * 20]
NUMBERS += ["1e999", '""', '" 830"', '"8_3_0"', '"\u0668"']


@pytest.mark.parametrize("name", ["code", "timestamp"])
@pytest.mark.parametrize("value", NUMBERS, ids=ascii)
def test_a_number_that_is_no_plain_integer_is_malformed(name: str, value: str) -> None:
    assert "`%s`" % name in refused(signed(**{name: value}), EnvelopeMalformed)
    refused(signed(**{name: "9" * 6000}), EnvelopeMalformed)


def test_a_code_may_be_text_and_a_time_may_not() -> None:
    for code in (830, 831, 150):
        assert verify(signed(code='"%d"' % code), (KEY,)).code == code
    for text in ("8300", "9" * 5000, "83"):
        refused(signed(code='"%s"' % text), CodeUnknown)
    refused(signed(timestamp='"%d"' % NOW), EnvelopeMalformed)


def test_texts_of_any_shape_can_be_printed() -> None:
    odd = signed(errors='{"\\udc00":["\\udc00"]}', message="[" * 100 + '"x"' + "]" * 100)
    receipt = verify(odd, (KEY,))
    assert (receipt.errors, receipt.message) == ({"?": ["?"]}, "x")


def test_a_signed_member_is_ascii() -> None:
    for name in ("response_base64", "signature"):
        odd = with_raw(**{name: '"\u00e9%s"' % SEALED[name][1:]})
        assert name in refused(odd, EnvelopeMalformed)


# Time.


def test_an_answer_more_than_a_day_from_now_is_stale() -> None:
    for skew in (-86400, 0, 86400.0):
        assert verify(envelope(), (KEY,), now=NOW - skew).timestamp == NOW
    for skew in (-86401, 86401, 86400.5, -315360000, NOW):
        with pytest.raises(AnswerStale) as caught:
            verify(envelope(), (KEY,), now=NOW - skew)
        error = pickle.loads(pickle.dumps(caught.value))
        assert error.skew_s == int(skew) and type(error.skew_s) is int
        assert "%+d s" % skew in str(error)


def test_a_mistake_is_no_verdict() -> None:
    for value in ("text", None, [1]):
        with pytest.raises(TypeError):
            verify(value, (KEY,))  # type: ignore[arg-type]
    for keys in (None, KEY, 5, "global", (KEY, None), [RSA_2048.pem], {"a": 1}):
        with pytest.raises(TypeError):
            verify(GOOD, keys)  # type: ignore[arg-type]
    for never in ("now", b"1", (), math.nan, math.inf):
        with pytest.raises((TypeError, ValueError, OverflowError)):
            verify(GOOD, (KEY,), now=never)  # type: ignore[arg-type]


def test_a_receipt_is_a_value() -> None:
    receipt = verify(envelope(content(code=831, errors={"a": ["x"]})), (KEY,))
    assert copy.deepcopy(receipt) == pickle.loads(pickle.dumps(receipt)) == receipt
    with pytest.raises(AttributeError):
        receipt.code = 830
    assert receipt != verify(GOOD, (KEY,)) and receipt != 831
    assert "831" in repr(receipt) and "'a': ['x']" in repr(receipt)


def test_errors_quote_nothing_of_the_answer() -> None:
    canary = "CANARY-7f3a"
    for data in (
        canary.encode(),
        envelope(signature=canary),
        envelope(content(code=canary, message=canary)),
        envelope(content(code=5, errors={canary: canary})),
        GOOD[:-1] + ('"%s":NaN' % canary).encode(),
    ):
        with pytest.raises(VerificationError) as caught:
            verify(data, (KEY,))
        assert canary not in str(caught.value) and canary not in repr(caught.value)
