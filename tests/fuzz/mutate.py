"""Mutations: of bytes, of JSON values, of their spelling, of base64 texts.

All of them draw from the ``random.Random`` they are given and nothing else, so that a seed repeats a run. None promises
that its result is still valid: half the fun is that it is not.
"""

import random
from typing import Any, Optional

from . import strict
from .strict import Pairs


class Raw(str):
    """A token that is written as it is, JSON or not."""


# Where readers disagree, and the words that decide in the protocols.
_NUMBERS = [0, -1, 1, 100, 102, 150, 200, 400, 401, 422, 429, 830, 831, 1708999200, 2**31, 2**53]
_NUMBERS += [2**53 + 1, -(2**63), 10**16, 10**17, 10**40]
_TEXTS = "success|failure|Authentication Failure|830|1e3|\0|\ud800|é|\u2028|licence|usage|aggregate"
_RAW = "NaN|-Infinity|1e999|-1e999|-0|01|1.|8.3e2|+1|0x1|'a'|nul||/**/1|1,|\ufeff1"
_RAW += '|"\\ud83d\\ude00"|"\\ud800"|"\\x"|"\t"|"\\u00e9"'
VALUES: list[Any] = [None, True, False, *_NUMBERS, 0.5, 830.0, 1e300, *_TEXTS.split("|"), ""]
VALUES += ["x" * 300, [], [[]], Pairs(), Pairs([("", None)]), *map(Raw, _RAW.split("|"))]
VALUES += map(Raw, ("[" * 20, "[" * 201 + "]" * 201, "9" * 18, "9" * 4400))
NAMES = """code message errors timestamp response response_base64 signature status response_code
    retry_after v k e id at b r c end tag count meta numeric_data_single_value domain
    __class__""".split() + ["", "\ud800"]
TOKENS = [bytes([byte]) for byte in b'{}[]":,\\\n\r\0=\xff\x7f \t-\x0b\x85']
TOKENS += b"\\u|\r\n|==|\xc0\x80|\xed\xa0\x80|\xef\xbb\xbf|e9|null".split(b"|")


def of_bytes(data: bytes, rnd: random.Random) -> bytes:
    """One change of bytes that mean nothing."""
    found = bytearray(data or b"\0")
    at = rnd.randrange(len(found))
    end = min(len(found), at + rnd.choice((1, 1, 2, 4, 16, 64)))
    to = rnd.randrange(len(found) + 1)
    change = rnd.randrange(7)
    if change == 0:
        found[at] ^= 1 << rnd.randrange(8)
    elif change == 1:
        found[at] = rnd.randrange(256)
    elif change == 2:
        del found[at:end]
    elif change == 3:
        found[to:to] = found[at:end]
    elif change == 4:
        found[at:at] = rnd.choice(TOKENS)
    elif change == 5:
        found[at:end] = rnd.choice(TOKENS)
    else:
        del found[at:]
    return bytes(found)


def of_base64(text: str, rnd: random.Random) -> str:
    """Another spelling of the same bytes, or nearly."""
    at = rnd.randrange(len(text) + 1)
    bare = text.rstrip("=")
    change = rnd.randrange(8)
    if change == 0 and bare:  # the bits that padding leaves unused
        return bare[:-1] + rnd.choice("ABQwgx9/+") + text[len(bare) :]
    if change == 1:
        return bare + rnd.choice(("", "=", "==", "===", "A", "A===", "=A="))
    if change == 2:
        return text.replace("+", "-").replace("/", "_")
    if change == 3:
        return text[:at] + rnd.choice(("\n", " ", "\r\n", "=", "-", "!", "\0", "é")) + text[at:]
    if change == 4:
        return text[:at] + text[at + rnd.choice((1, 2, 3, 4)) :]
    if change == 5:
        return text + text
    if change == 6:
        return text[:at] + rnd.choice("ABCXYZabcxyz0189+/") + text[at + 1 :]
    return of_bytes(text.encode("utf-8", "replace"), rnd).decode("latin-1")


def of_json(data: bytes, rnd: random.Random) -> bytes:
    """One or two changes of the value and its spelling; of the bytes, where there is no value."""
    try:
        value = strict.read(data, depth_max=100)
    except ValueError:
        return of_bytes(data, rnd)
    for _ in range(rnd.choice((0, 1, 1, 1, 2))):
        value = of_value(value, rnd)
    odd = rnd.random() < 0.3
    return spelled(value, rnd if odd else None).encode("utf-8", "surrogatepass")


def of_value(value: Any, rnd: random.Random) -> Any:
    """One change somewhere inside a JSON value, which is changed in place where it can be."""
    places = list(_places(value))
    if not places or rnd.random() < 0.05:
        return _another(value, rnd)
    holder, index = rnd.choice(places)
    named = isinstance(holder, Pairs)
    name, inner = holder[index] if named else ("", holder[index])
    change = rnd.randrange(8)
    if change < 3:
        inner = _another(inner, rnd)
    elif change == 3:
        del holder[index]
        return value
    elif change == 4:  # twice, alike or not
        again = inner if rnd.random() < 0.5 else _another(inner, rnd)
        holder.insert(rnd.randrange(len(holder) + 1), (name, again) if named else again)
        return value
    elif change == 5:
        name = rnd.choice(NAMES)
    elif change == 6:
        other, at = rnd.choice(places)
        inner = other[at][1] if isinstance(other, Pairs) else other[at]
        inner = _copied(inner)
    else:
        inner = [inner] if rnd.random() < 0.5 else Pairs([(rnd.choice(NAMES), inner)])
    holder[index] = (name, inner) if named else inner
    return value


def _places(value: Any) -> Any:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield value, index
            yield from _places(item[1] if isinstance(value, Pairs) else item)


def _copied(value: Any) -> Any:
    if isinstance(value, Pairs):
        return Pairs((name, _copied(inner)) for name, inner in value)
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


def _another(value: Any, rnd: random.Random) -> Any:
    if type(value) in (int, float) and rnd.random() < 0.5 and abs(value) < 1e300:
        return rnd.choice((value + 1, value - 1, -value, value * 1000, float(value), str(value)))
    if type(value) is str and rnd.random() < 0.5:
        return of_bytes(value.encode("utf-8", "replace"), rnd).decode("utf-8", "replace")
    return _copied(rnd.choice(VALUES))


def spelled(value: Any, rnd: Optional[random.Random]) -> str:
    """The JSON text of a value; with ``rnd`` in an odd spelling of the same value."""

    def gap() -> str:
        return rnd.choice(("", "", "", " ", "\n", "\t", "\r")) if rnd else ""

    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, str):
        if rnd is None and value.isascii() and value.isprintable() and not {'"', "\\"} & set(value):
            return '"%s"' % value
        return '"%s"' % "".join(_character(char, rnd) for char in value)
    if isinstance(value, Pairs):
        inner = [
            gap() + spelled(name, rnd) + gap() + ":" + gap() + spelled(item, rnd) + gap()
            for name, item in value
        ]
        return "{" + ",".join(inner) + "}"
    if isinstance(value, list):
        return "[" + ",".join(gap() + spelled(item, rnd) + gap() for item in value) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)  # a number; "inf", which is none, for one that is too large


_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def _character(char: str, rnd: Optional[random.Random]) -> str:
    if char in _SHORT:
        return _SHORT[char]
    code = ord(char)
    if code < 0x20 or 0xD800 <= code < 0xE000 or (rnd and code < 0x10000 and rnd.random() < 0.1):
        return "\\u%04x" % code
    return char
