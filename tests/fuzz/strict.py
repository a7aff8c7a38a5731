"""A second reader of JSON and of answer envelopes, to hold the first against: grammar first, no shortcuts.

Written from RFC 8259 and ``vendor_notes/PROTOCOL.md``, without a line of the code under test. Objects are ``Pairs``, so
that duplicate names stay visible.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any, Callable

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_HEX4 = re.compile(r"[0-9a-fA-F]{4}")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_WORDS = {"true": True, "false": False, "null": None}

MAX_BYTES = 64 * 1024
MAX_BRACKETS = 256
CODES = (830, 831, 100, 101, 102, 103, 150)


class Pairs(list):  # type: ignore[type-arg]
    """An object as it stands: (name, value) in order."""


class _Reader:
    def __init__(self, text: str, depth_max: int, whole: Callable[[str], Any]) -> None:
        self.text, self.at, self.depth_max, self.whole = text, 0, depth_max, whole

    def peek(self) -> str:
        """What comes after white space; "" at the end."""
        self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
        return self.text[self.at : self.at + 1]

    def next(self, token: str) -> bool:
        """Whether ``token`` comes next; then it is passed."""
        found = self.peek() == token
        self.at += found
        return found

    def need(self, token: str) -> None:
        if not self.next(token):
            raise ValueError("%r expected at %d" % (token, self.at))

    def value(self, depth: int = 0) -> Any:
        first = self.peek()
        if first in ("{", "["):
            if depth >= self.depth_max:
                raise ValueError("too deep")
            self.at += 1
            return self.object(depth) if first == "{" else self.array(depth)
        if first == '"':
            self.at += 1
            return self.string()
        for word, value in _WORDS.items():
            if self.text.startswith(word, self.at):
                self.at += len(word)
                return value
        found = _NUMBER.match(self.text, self.at)
        if found is None:
            raise ValueError("no value at %d" % self.at)
        self.at = found.end()
        return float(found[0]) if found[2] or found[3] else self.whole(found[0])

    def object(self, depth: int) -> Pairs:
        pairs = Pairs()
        if self.next("}"):
            return pairs
        while True:
            self.need('"')
            name = self.string()
            self.need(":")
            pairs.append((name, self.value(depth + 1)))
            if self.next("}"):
                return pairs
            self.need(",")

    def array(self, depth: int) -> list[Any]:
        values: list[Any] = []
        if self.next("]"):
            return values
        while True:
            values.append(self.value(depth + 1))
            if self.next("]"):
                return values
            self.need(",")

    def string(self) -> str:
        parts = []
        while True:
            plain = _PLAIN.match(self.text, self.at)
            assert plain is not None
            parts.append(plain[0])
            self.at = plain.end() + 1
            end = self.text[plain.end() : self.at]
            if end == '"':
                units = "".join(parts).encode("utf-16-le", "surrogatepass")
                return units.decode("utf-16-le", "surrogatepass")
            if end != "\\":
                raise ValueError("a text that does not end")
            escape = self.text[self.at : self.at + 1]
            self.at += 1
            if escape == "u":
                digits = _HEX4.match(self.text, self.at)
                if digits is None:
                    raise ValueError("not four digits")
                self.at += 4
                parts.append(chr(int(digits[0], 16)))
            elif escape in _ESCAPES and escape:
                parts.append(_ESCAPES[escape])
            else:
                raise ValueError("unknown escape")


def read(data: bytes, *, depth_max: int = 400, whole: Callable[[str], Any] = int) -> Any:
    """The JSON value of ``data``, ``whole(digits)`` for its integers; raises ``ValueError``."""
    reader = _Reader(data.decode("utf-8"), depth_max, whole)
    value = reader.value()
    if reader.peek():
        raise ValueError("something behind the value")
    return value


def as_dict(value: Any, *, once: bool) -> Any:
    """The value with dicts for objects: the last of equal names counts, or with ``once`` it is a ``ValueError``."""
    if isinstance(value, Pairs):
        found = {name: as_dict(inner, once=once) for name, inner in value}
        if once and len(found) != len(value):
            raise ValueError("a name that is there twice")
        return found
    if isinstance(value, list):
        return [as_dict(inner, once=once) for inner in value]
    return value


def base64_bytes(text: str) -> bytes:
    """RFC 4648 section 4, one spelling for each; raises ``ValueError``."""
    data = base64.b64decode(text.encode("ascii"), validate=True)
    if base64.b64encode(data).decode("ascii") != text:
        raise ValueError("another spelling")
    return data


class Unproven(Exception):
    """Its text is the name of the error that the code under test has to raise."""


Check = Callable[[bytes, bytes], bool]


def receipt(data: bytes, keys: Iterable[tuple[str, Check]]) -> tuple[int, int, str]:
    """(code, timestamp, key name) of an answer's bytes, what decides; raises ``Unproven``."""
    try:
        outer = _object(data)
        text = _ascii(outer.get("response_base64"))
        signature = base64_bytes(_ascii(outer.get("signature")).decode())
    except ValueError:
        raise Unproven("EnvelopeMalformed") from None
    names = [name for name, check in keys if check(text, signature)]
    if not names:
        raise Unproven("SignatureInvalid")
    try:
        signed = _object(base64_bytes(text.decode()))
        code: Any = signed.get("code")
        timestamp = _natural(signed.get("timestamp"))
        digits = isinstance(code, str) and code.isascii() and code.isdigit()
        code = int(code[:4]) if digits else _natural(code)  # none of ours is longer
    except ValueError:
        raise Unproven("EnvelopeMalformed") from None
    if code not in CODES:
        raise Unproven("CodeUnknown")
    return code, timestamp, names[0]


def _object(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_BYTES or data.count(b"[") + data.count(b"{") > MAX_BRACKETS:
        raise ValueError("too large")
    pairs = read(data[3:] if data.startswith(b"\xef\xbb\xbf") else data)
    if not isinstance(pairs, Pairs):
        raise ValueError("no object")
    return dict(as_dict(pairs, once=True))


def _ascii(value: Any) -> bytes:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value.encode("ascii")


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= 2**53:
        raise ValueError("no natural number")
    return value
