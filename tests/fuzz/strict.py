"""A second reader of JSON and of answer envelopes, to hold the first against: grammar first, no shortcuts.

Written from RFC 8259 and ``vendor_notes/PROTOCOL.md``, without a line of the code under test. Objects are ``Pairs``, so
that duplicate names stay visible.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any, Callable, Optional

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


def receipt(data: bytes, keys: Iterable[tuple[str, Check]]) -> tuple[Any, ...]:
    """(code, message, errors, timestamp, key name) of an answer's bytes; raises ``Unproven``."""
    try:
        text, signature = _outer(data)
    except ValueError:
        raise Unproven("EnvelopeMalformed") from None
    names = [name for name, check in keys if check(text.encode("ascii"), signature)]
    if not names:
        raise Unproven("SignatureInvalid")
    try:
        code, message, errors, timestamp = _inner(base64_bytes(text))
    except ValueError:
        raise Unproven("EnvelopeMalformed") from None
    if code not in CODES:
        raise Unproven("CodeUnknown")
    return code, message, errors, timestamp, names[0]


def _json(data: bytes) -> Any:
    if data.count(b"[") + data.count(b"{") > MAX_BRACKETS:
        raise ValueError("too many brackets")
    # So many digits are no time and no code, and more than Python's int takes.
    return read(data, whole=lambda digits: (int if len(digits) < 4000 else float)(digits))


def _outer(data: bytes) -> tuple[str, bytes]:
    if len(data) > MAX_BYTES:
        raise ValueError("too large")
    pairs = _json(data)
    found = []
    for wanted in ("response_base64", "signature"):
        values = [value for name, value in pairs if name == wanted] if _is_object(pairs) else []
        if len(values) != 1 or not isinstance(values[0], str) or not values[0].isascii():
            raise ValueError(wanted)
        found.append(values[0])
    return found[0], base64_bytes(found[1])


def _is_object(value: Any) -> bool:
    return isinstance(value, Pairs)


def _inner(data: bytes) -> tuple[int, str, dict[str, list[str]], int]:
    signed = _json(data)
    if not _is_object(signed):
        raise ValueError("no object")
    fields = as_dict(signed, once=True)
    errors: Optional[Any] = fields.get("errors", {})
    if errors == []:
        errors = {}
    if not isinstance(errors, dict) or not all(map(_is_field, errors.items())):
        raise ValueError("errors")
    message = fields.get("message")
    if not _is_text(message):
        raise ValueError("message")
    return _natural(fields.get("code")), message, errors, _natural(fields.get("timestamp"))


def _is_field(field: tuple[str, Any]) -> bool:
    name, messages = field
    return _is_text(name) and isinstance(messages, list) and all(map(_is_text, messages))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not any(0xD800 <= ord(char) < 0xE000 for char in value)


def _natural(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= 2**53:
        raise ValueError("no natural number")
    return value
