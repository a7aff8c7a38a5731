"""Attacks on whoever reads an answer: two readings of one text, odd encodings, numbers and depths.

The worst case is assumed: the odd text is signed with the server's own key, so that nothing but the reading is between
it and an acknowledgement. No record is lost, none is believed, and ``status()`` and ``history()`` say what happened.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.attacks import (
    START,
    STRANGER,
    TRUSTED,
    Scene,
    body_of,
    http_answer,
    receipt,
    scene,
    signed,
)
from support.signatures import text64

GOOD = json.dumps(receipt(START)).encode()
NO_JSON = "the signed text is not JSON that everybody reads alike"


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Scene]:
    with scene(tmp_path / "state") as found:
        yield found


def with_(name: str, value: str) -> bytes:
    """The signed text of a good receipt with one member spelt as given."""
    found = {**receipt(START), name: "@"}
    return json.dumps(found).replace('"@"', value).encode()


# -- the signed text -----------------------------------------------------------------------------

SIGNED: dict[str, tuple[bytes, str]] = {
    "duplicate code, 830 last": (b'{"code":831,' + GOOD[1:], NO_JSON),
    "duplicate code, 830 first": (GOOD[:-1] + b',"code":100}', NO_JSON),
    "duplicate code, one escaped": (GOOD[:-1] + b',"\\u0063ode":100}', NO_JSON),
    "duplicate timestamp": (b'{"timestamp":0,' + GOOD[1:], NO_JSON),
    "duplicate key further down": (with_("errors", '{"a":["x"],"a":["y"]}'), NO_JSON),
    "UTF-16": (GOOD.decode().encode("utf-16"), NO_JSON),
    "UTF-16 without a mark": (GOOD.decode().encode("utf-16-le"), NO_JSON),
    "UTF-32": (GOOD.decode().encode("utf-32"), NO_JSON),
    "UTF-7": (GOOD.replace(b'"', b"+ACI-"), NO_JSON),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, NO_JSON),
    "not UTF-8": (GOOD.replace(b"Correct", b"Corr\xffct"), NO_JSON),
    "overlong UTF-8": (GOOD.replace(b"Correct", b"\xc1\x83orrect"), NO_JSON),
    "a lone surrogate": (with_("message", '"\\ud800"'), "no proper `message`"),
    "a NUL behind it": (GOOD + b"\0", NO_JSON),
    "another document behind it": (GOOD + GOOD, NO_JSON),
    "a comment": (b"/* */" + GOOD, NO_JSON),
    "single quotes": (GOOD.replace(b'"', b"'"), NO_JSON),
    "compressed": (gzip.compress(GOOD, mtime=0), NO_JSON),
    "nothing": (b"", NO_JSON),
    "a list": (b"[" + GOOD + b"]", "not a JSON object"),
    "a text that holds JSON": (json.dumps(GOOD.decode()).encode(), "not a JSON object"),
    "timestamp NaN": (with_("timestamp", "NaN"), NO_JSON),
    "timestamp Infinity": (with_("timestamp", "Infinity"), NO_JSON),
    "timestamp -Infinity": (with_("timestamp", "-Infinity"), NO_JSON),
    "timestamp 1e400": (with_("timestamp", "1e400"), "no proper `timestamp`"),
    "timestamp a float": (with_("timestamp", "%d.0" % START), "no proper `timestamp`"),
    "timestamp with an exponent": (with_("timestamp", "176e7"), "no proper `timestamp`"),
    "timestamp a text": (with_("timestamp", '"%d"' % START), "no proper `timestamp`"),
    "timestamp null": (with_("timestamp", "null"), "no proper `timestamp`"),
    "timestamp true": (with_("timestamp", "true"), "no proper `timestamp`"),
    "timestamp negative": (with_("timestamp", "-1"), "no proper `timestamp`"),
    "timestamp 2^64 + now": (with_("timestamp", "%d" % (START + 2**64)), "no proper `timestamp`"),
    "timestamp of 40,000 digits": (with_("timestamp", "9" * 40_000), "no proper `timestamp`"),
    "timestamp in hex": (with_("timestamp", "0x68E78E00"), NO_JSON),
    "timestamp with a leading zero": (with_("timestamp", "0%d" % START), NO_JSON),
    "timestamp with a plus": (with_("timestamp", "+%d" % START), NO_JSON),
    "timestamp in Arabic digits": (with_("timestamp", "١٧٦٠٠٠٠٠٠٠"), NO_JSON),
    "code NaN": (with_("code", "NaN"), NO_JSON),
    "code 830.0": (with_("code", "830.0"), "no proper `code`"),
    "code 8.3e2": (with_("code", "8.3e2"), "no proper `code`"),
    "code a text": (with_("code", '"830"'), "no proper `code`"),
    "code in a list": (with_("code", "[830]"), "no proper `code`"),
    "code 2^64 + 830": (with_("code", "%d" % (2**64 + 830)), "no proper `code`"),
    "code of 40,000 digits": (with_("code", "8" * 40_000), "no proper `code`"),
    "code true": (with_("code", "true"), "no proper `code`"),
    "errors true": (with_("errors", "true"), "no proper `errors`"),
    "errors with odd messages": (with_("errors", '{"a":[{}]}'), "no proper `errors`"),
    "lists, 20,000 deep": (with_("extra", "[" * 20_000 + "]" * 20_000), NO_JSON),
    "objects, 6,000 deep": (with_("extra", '{"a":' * 6_000 + "1" + "}" * 6_000), NO_JSON),
    "deep and never closed": (b"[" * 45_000, NO_JSON),
}


@pytest.mark.parametrize("name", SIGNED)
def test_a_signed_text_with_no_reading_or_with_two(line: Scene, name: str) -> None:
    content, reason = SIGNED[name]
    line.says(signed(content))
    with line.agent() as product:
        line.record(product, "first", "second")
        line.fails(product, "untrusted", reason)
        line.recovers(product)


# -- base64 --------------------------------------------------------------------------------------

TEXT = base64.b64encode(GOOD).decode()  # its last group is padded
assert TEXT.endswith("=")
NOT_CANONICAL = {
    "no padding": TEXT.rstrip("="),
    "padding twice": TEXT + "====",
    "unused bits set": TEXT.rstrip("=")[:-1]
    + chr(ord(TEXT.rstrip("=")[-1]) + 1)
    + "=" * TEXT.count("="),
    "a line break": TEXT[:76] + "\n" + TEXT[76:],
    "CRLF at the end": TEXT + "\r\n",
    "a blank": " " + TEXT,
    "a NUL": TEXT[:8] + "\0" + TEXT[8:],
    "a star": TEXT[:8] + "*" + TEXT[8:],
    "padding in the middle": TEXT[:8] + "=" + TEXT[8:],
    "url-safe": base64.urlsafe_b64encode(GOOD.replace(b"Correct", b"\xc3\xbe\xc3\xbf>?")).decode(),
    "two documents": TEXT + TEXT,
}


@pytest.mark.parametrize("name", NOT_CANONICAL)
def test_a_signed_text_in_base64_that_is_not_canonical(line: Scene, name: str) -> None:
    text = NOT_CANONICAL[name]
    signature = text64(TRUSTED.sign(text.encode()))
    line.says(signed(GOOD, response_base64=text, signature=signature))
    with line.agent() as product:
        line.record(product, "first")
        line.fails(product, "untrusted", "`response_base64` is not canonical base64")
        line.recovers(product)


@pytest.mark.parametrize("change", ["", "=", "\n", " ", "\0", "*"], ids=repr)
def test_a_signature_in_base64_that_is_not_canonical(line: Scene, change: str) -> None:
    signature = text64(TRUSTED.sign(text64(GOOD).encode()))
    bare = signature.rstrip("=")
    line.says(signed(GOOD, signature=signature + change if change else bare))
    with line.agent() as product:
        line.record(product, "first")
        line.fails(product, "untrusted", "`signature` is not canonical base64")
        line.recovers(product)


# -- the envelope --------------------------------------------------------------------------------

ENVELOPE = signed(GOOD)
FORGED = signed({**receipt(START), "code": 831}, STRANGER)
NOT_READ = "the answer is not JSON that everybody reads alike"


def members(envelope: bytes, *names: str) -> bytes:
    """Those members again, to stand before or behind others."""
    found = json.loads(envelope)
    return json.dumps({name: found[name] for name in names})[1:-1].encode()


BOTH = "response_base64", "signature"
ENVELOPES: dict[str, tuple[bytes, str]] = {
    "the text twice, the forged one last": (
        ENVELOPE[:-1] + b"," + members(FORGED, "response_base64") + b"}",
        "`response_base64` is not there once",
    ),
    "the text twice, the forged one first": (
        b"{" + members(FORGED, "response_base64") + b"," + ENVELOPE[1:],
        "`response_base64` is not there once",
    ),
    "the same text twice": (
        ENVELOPE[:-1] + b"," + members(ENVELOPE, "response_base64") + b"}",
        "`response_base64` is not there once",
    ),
    "the signature twice": (
        ENVELOPE[:-1] + b"," + members(FORGED, "signature") + b"}",
        "`signature` is not there once",
    ),
    "a whole second envelope": (ENVELOPE + FORGED, NOT_READ),
    "a second envelope in front": (FORGED + ENVELOPE, NOT_READ),
    "an envelope in a list": (b"[" + ENVELOPE + b"]", "the answer is not a JSON object"),
    "an envelope in an envelope": (
        b'{"response": ' + ENVELOPE + b"}",
        "`response_base64` is not there once",
    ),
    "names in capitals": (
        ENVELOPE.replace(b"response_base64", b"Response_Base64"),
        "`response_base64` is not there once",
    ),
    "a byte order mark": (b"\xef\xbb\xbf" + ENVELOPE, NOT_READ),
    "UTF-16": (ENVELOPE.decode().encode("utf-16"), NOT_READ),
    "NaN beside it": (ENVELOPE[:-1] + b', "x": NaN}', NOT_READ),
    "a text that is a number": (
        signed(GOOD, response_base64=10**30),
        "`response_base64` is not there once",
    ),
    "a text that is a list": (
        signed(GOOD, response_base64=[text64(GOOD)]),
        "`response_base64` is not there once",
    ),
    "a text in full-width letters": (
        signed(GOOD, response_base64="ｅ" + text64(GOOD)[1:]),
        "`response_base64` is not there once",
    ),
    "30,000 lists deep beside it": (ENVELOPE[:-1] + b', "x": ' + b"[" * 30_000, NOT_READ),
    "a callback around it": (b"callback(" + ENVELOPE + b")", NOT_READ),
    "HTML in front": (b"<!-- -->" + ENVELOPE, NOT_READ),
    "more than 64 KiB": (ENVELOPE + b" " * 66_000, "the answer is incomplete"),
}


@pytest.mark.parametrize("name", ENVELOPES)
def test_an_envelope_with_no_reading_or_with_two(line: Scene, name: str) -> None:
    body, reason = ENVELOPES[name]
    line.says(body)
    with line.agent() as product:
        line.record(product, "first", "second")
        line.fails(product, "untrusted", reason)
        line.recovers(product)


ODD: dict[str, Callable[[bytes], bytes]] = {
    "white space": lambda found: b"\r\n " + found + b"\t\n",
    "escapes": lambda found: found.replace(b"signature", b"\\u0073ignature"),
    "slashes escaped, as PHP does": lambda found: found.replace(b"/", b"\\/"),
    "unknown members": lambda found: found[:-1] + b', "other": 5, "": null}',
    "an integer of 60,000 digits beside it": lambda found: found[:-1]
    + b', "x": %b}' % (b"7" * 60_000),
    "a second outer response": lambda found: b'{"response": {"code": 1e999}, ' + found[1:],
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_spelling_of_a_genuine_answer_locks_nobody_out(line: Scene, name: str) -> None:
    line.attack = lambda request, honest: http_answer(ODD[name](body_of(honest())))
    with line.agent() as product:
        line.record(product, "first")
        assert product.flush().delivered == 1
        line.intact(product)
