"""Attacks on whoever reads an answer: two readings of one text, odd encodings, numbers and depths.

The worst case is assumed: the odd text is signed with the server's own key, so that nothing but the reading is between
it and an acknowledgement. No record is lost, none is believed, and ``status()`` and ``history()`` say what happened.
"""

import base64
import gzip
import json
from collections.abc import Callable

import pytest
from support.attacks import (
    START,
    STRANGER,
    TRUSTED,
    Scene,
    body_of,
    http_answer,
    receipt,
    signed,
)
from support.signatures import text64

GOOD = json.dumps(receipt(START)).encode()


def with_(name: str, value: str) -> bytes:
    """The signed text of a good receipt with one member spelt as given."""
    return json.dumps({**receipt(START), name: "@"}).replace('"@"', value).encode()


def parametrized(cases: dict[str, dict[str, bytes]]) -> pytest.MarkDecorator:
    """Reason -> name -> text, as a test's parameters."""
    found = [
        pytest.param(text, why, id=name)
        for why, texts in cases.items()
        for name, text in texts.items()
    ]
    return pytest.mark.parametrize(("text", "reason"), found)


# -- the signed text -----------------------------------------------------------------------------

NOT_JSON = "NaN Infinity -Infinity 0x68E78E00 01760000000 +1760000000 ١٧٦٠٠٠٠٠٠٠".split()
SIGNED: dict[str, dict[str, bytes]] = {
    "the signed text: not JSON that everybody reads alike": {
        "duplicate code, 830 last": b'{"code":831,' + GOOD[1:],
        "duplicate code, 830 first": GOOD[:-1] + b',"code":100}',
        "duplicate code, one escaped": GOOD[:-1] + b',"\\u0063ode":100}',
        "duplicate timestamp": b'{"timestamp":0,' + GOOD[1:],
        "duplicate key further down": with_("errors", '{"a":["x"],"a":["y"]}'),
        "UTF-16": GOOD.decode().encode("utf-16"),
        "UTF-7": GOOD.replace(b'"', b"+ACI-"),
        "two byte order marks": b"\xef\xbb\xbf" * 2 + GOOD,
        "not UTF-8": GOOD.replace(b"Correct", b"Corr\xffct"),
        "a NUL behind it": GOOD + b"\0",
        "another document behind it": GOOD + GOOD,
        "compressed": gzip.compress(GOOD, mtime=0),
        **{"timestamp " + value: with_("timestamp", value) for value in NOT_JSON},
        "code NaN": with_("code", "NaN"),
        "lists, 20,000 deep": with_("extra", "[" * 20_000 + "]" * 20_000),
        "objects, 6,000 deep": with_("extra", '{"a":' * 6_000 + "1" + "}" * 6_000),
        "deep and never closed": b"[" * 45_000,
        "a list": b"[" + GOOD + b"]",
        "a text that holds JSON": json.dumps(GOOD.decode()).encode(),
    },
    "no proper `timestamp`": {"a text": with_("timestamp", '"%d"' % START)},
    "no proper `code`": {"2^64 + 830": with_("code", "%d" % (2**64 + 830))},
}


@parametrized(SIGNED)
def test_a_signed_text_with_no_reading_or_with_two(line: Scene, text: bytes, reason: str) -> None:
    line.says(signed(text))
    line.withstands("untrusted", reason)


# -- base64 --------------------------------------------------------------------------------------

TEXT = base64.b64encode(GOOD).decode().rstrip("=")
assert len(TEXT) % 4, "its last group is padded"
PADDED = text64(GOOD)
NOT_CANONICAL = {
    "no padding": TEXT,
    "padding twice": PADDED + "====",
    "unused bits set": TEXT[:-1] + chr(ord(TEXT[-1]) + 1) + "=" * (-len(TEXT) % 4),
    "a line break": PADDED[:76] + "\n" + PADDED[76:],
    "CRLF at the end": PADDED + "\r\n",
    "a blank": " " + PADDED,
    "a NUL": PADDED[:8] + "\0" + PADDED[8:],
    "a star": PADDED[:8] + "*" + PADDED[8:],
    "padding in the middle": PADDED[:8] + "=" + PADDED[8:],
    "url-safe": base64.urlsafe_b64encode(GOOD.replace(b"Correct", b"\xc3\xbe\xc3\xbf>?")).decode(),
    "two documents": PADDED + PADDED,
}


@pytest.mark.parametrize("name", NOT_CANONICAL)
def test_a_signed_text_in_base64_that_is_not_canonical(line: Scene, name: str) -> None:
    text = NOT_CANONICAL[name]
    signature = text64(TRUSTED.sign(text.encode()))
    line.says(signed(GOOD, response_base64=text, signature=signature))
    line.withstands("untrusted", "the signed text: ")


@pytest.mark.parametrize("change", ["", "=", "\n", " ", "\0", "*"], ids=repr)
def test_a_signature_in_base64_that_is_not_canonical(line: Scene, change: str) -> None:
    signature = text64(TRUSTED.sign(PADDED.encode()))
    line.says(signed(GOOD, signature=signature + change if change else signature.rstrip("=")))
    line.withstands("untrusted", "the answer: ")


# -- the envelope --------------------------------------------------------------------------------

ENVELOPE = signed(GOOD)
FORGED = signed(receipt(START, code=831), STRANGER)


def member(envelope: bytes, name: str) -> bytes:
    """That member again, to stand before or behind others."""
    return json.dumps({name: json.loads(envelope)[name]})[1:-1].encode()


TWICE = member(FORGED, "response_base64")
ENVELOPES: dict[str, dict[str, bytes]] = {
    "no `response_base64` in ASCII": {
        "an envelope in an envelope": b'{"response": ' + ENVELOPE + b"}",
        "names in capitals": ENVELOPE.replace(b"response_base64", b"Response_Base64"),
        "a text that is a number": signed(GOOD, response_base64=10**30),
    },
    "the answer: not JSON that everybody reads alike": {
        "the text twice, the forged one last": ENVELOPE[:-1] + b"," + TWICE + b"}",
        "the text twice, the forged one first": b"{" + TWICE + b"," + ENVELOPE[1:],
        "the signature twice": ENVELOPE[:-1] + b"," + member(FORGED, "signature") + b"}",
        "a second outer response": b'{"response": {"code": 1e999}, ' + ENVELOPE[1:],
        "an envelope in a list": b"[" + ENVELOPE + b"]",
        "a whole second envelope": ENVELOPE + FORGED,
        "two byte order marks": b"\xef\xbb\xbf" * 3 + ENVELOPE,
        "UTF-16": ENVELOPE.decode().encode("utf-16"),
        "NaN beside it": ENVELOPE[:-1] + b', "x": NaN}',
        "30,000 lists deep beside it": ENVELOPE[:-1] + b', "x": ' + b"[" * 30_000,
    },
    "the answer broke off, or is too long": {"more than 64 KiB": ENVELOPE + b" " * 66_000},
}


@parametrized(ENVELOPES)
def test_an_envelope_with_no_reading_or_with_two(line: Scene, text: bytes, reason: str) -> None:
    line.says(text)
    line.withstands("untrusted", reason)


ODD: dict[str, Callable[[bytes], bytes]] = {
    "white space": lambda found: b"\r\n " + found + b"\t\n",
    "a byte order mark": lambda found: b"\xef\xbb\xbf" + found,
    "escapes": lambda found: found.replace(b"signature", b"\\u0073ignature"),
    "slashes escaped, as PHP does": lambda found: found.replace(b"/", b"\\/"),
    "unknown members": lambda found: found[:-1] + b', "other": 5, "": null}',
    "4,000 digits beside it": lambda found: found[:-1] + b', "x": %b}' % (b"7" * 4_000),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_spelling_of_a_genuine_answer_locks_nobody_out(line: Scene, name: str) -> None:
    line.attack = lambda request, honest: http_answer(ODD[name](body_of(honest())))
    with line.agent() as product:
        line.delivers(product, "first")
