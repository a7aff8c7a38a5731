"""A second reader of answer envelopes, to hold the first against: grammar first, no shortcuts.

Written from ``vendor_notes/PROTOCOL.md``, without a line of the code under test. Objects are ``Pairs``, so that
duplicate names stay visible.
"""

import base64
import json
from collections.abc import Iterable
from typing import Any, Callable

MAX_BYTES = 64 * 1024
MAX_BRACKETS = 256
CODES = (830, 831, 100, 101, 102, 103, 150)


class Pairs(list):  # type: ignore[type-arg]
    """An object as it stands: (name, value) in order."""


def _refused(word: str) -> None:
    raise ValueError("no JSON: " + word)


_DECODER = json.JSONDecoder(object_pairs_hook=Pairs, parse_constant=_refused)


def read(data: bytes, *, depth_max: int = 400) -> Any:
    """The JSON value of ``data``; raises ``ValueError``."""
    try:
        value = _DECODER.decode(data.decode("utf-8"))
        if _depth(value) <= depth_max:
            return value
    except RecursionError:
        pass
    raise ValueError("too deep")


def _depth(value: Any) -> int:
    if isinstance(value, Pairs):
        value = [inner for _, inner in value]
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


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
