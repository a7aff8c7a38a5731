"""Checksummed JSON lines: the one format of everything that this package keeps on disk.

A line is eight lower-case hex digits of CRC-32, a space, the JSON text in ASCII, a newline. A damaged line
never costs its neighbours: whatever does not check is reported as ``None`` and the reader goes on behind
the next newline. Encoding goes through the interpreter's C encoder without loading ``re`` (8 ms of a cold start).
"""

from __future__ import annotations

from binascii import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Optional


def _refuse(value: object) -> object:
    raise TypeError("not a JSON value: " + type(value).__name__)


def _encoder() -> Any:
    try:
        from _json import encode_basestring_ascii, make_encoder
    except ImportError:  # an interpreter without the C accelerator
        import json

        return json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
    encode = make_encoder(
        None, _refuse, encode_basestring_ascii, None, ":", ",", False, False, False
    )
    return lambda value: "".join(encode(value, 0))


# Ours are nested less than a tenth of this; so many brackets outside of strings no record has.
DEPTH_MAX, BRACKETS_MAX = 200, 100_000

dumps = _encoder()  # (JSON value) -> compact ASCII text; NaN and foreign types raise
_loads: Optional[Callable[[str], Any]] = None


def _finite(text: str) -> float:
    """A number that can be written again: ``1e999``, ``NaN`` and ``Infinity`` are none."""
    value = float(text)
    if value - value != 0:
        raise ValueError("not a finite number")
    return value


def _is_deep(text: str) -> bool:
    """Whether brackets are nested beyond ``DEPTH_MAX``, those within strings aside."""
    if text.count("[") + text.count("{") <= DEPTH_MAX:
        return False
    bare = text.replace("\\\\", "").replace('\\"', "")
    outside = "".join(bare.split('"')[::2])
    if outside.count("[") + outside.count("{") > BRACKETS_MAX:
        return True
    depth = 0
    for character in outside:
        depth += (character in "[{") - (character in "]}")
        if depth > DEPTH_MAX:
            return True
    return False


def loads(text: str) -> Any:
    """The JSON value of ``text``; raises ``ValueError`` where it is none, or is nested too deeply.

    Where the host raised the recursion limit, the interpreter's own parser runs out of the C stack.
    """
    if _is_deep(text):
        raise ValueError("nested too deeply")
    global _loads
    if _loads is None:
        import json

        _loads = json.JSONDecoder(parse_float=_finite, parse_constant=_finite).decode
    return _loads(text)


def encode(value: Any) -> bytes:
    """One line for ``value``, newline included."""
    text = dumps(value).encode("ascii")
    return b"%08x %b\n" % (crc32(text), text)


def text_of(line: bytes) -> bytes:
    """The JSON text of one line without its newline, b"" where it is damaged."""
    text = line[9:]
    return text if line[8:9] == b" " and line[:8] == b"%08x" % crc32(text) else b""


def decode(line: bytes) -> Any:
    """The JSON value of one line without its newline, or None where it is damaged."""
    text = text_of(line)
    try:
        return loads(text.decode("ascii")) if text else None
    except (ValueError, RecursionError):
        return None
