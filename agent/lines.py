"""Checksummed JSON lines: the one format of everything that this package keeps on disk.

A line is eight lower-case hex digits of CRC-32, a space, the JSON text in ASCII, a newline. A damaged one decodes to
None, and the reader goes on behind it. A cold start loads neither ``re`` (8 ms) nor OpenSSL (4 ms).
"""

from __future__ import annotations

import sys
from binascii import crc32

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Optional

# Ours are nested less than a tenth of this; so many brackets outside of strings no record has.
DEPTH_MAX, BRACKETS_MAX = 200, 100_000


def _refuse(value: object) -> object:
    raise TypeError("not a JSON value: " + type(value).__name__)


def _encoder() -> Callable[[Any, int], Iterable[str]]:
    try:
        from _json import encode_basestring_ascii, make_encoder
    except ImportError:  # an interpreter without the C accelerator
        import json

        whole = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
        return lambda value, _: whole.encode(value)
    quote: Any = encode_basestring_ascii
    made: Callable[[Any, int], Iterable[str]]
    made = make_encoder(None, _refuse, quote, None, ":", ",", False, False, False)
    return made


_encode = _encoder()
_loads: Optional[Callable[[str], Any]] = None


def loads(text: str) -> Any:
    """The JSON value of ``text``; raises ``ValueError`` where it is none, or is nested too deeply for a C stack."""
    if text.count("[") + text.count("{") > DEPTH_MAX and _is_deep(text):
        raise ValueError("nested too deeply")
    global _loads
    if _loads is None:
        import json

        _loads = json.JSONDecoder(parse_float=_finite, parse_constant=_finite).decode
    return _loads(text)


def _is_deep(text: str) -> bool:
    """Whether brackets outside of strings are nested beyond ``DEPTH_MAX``, or do not match."""
    outside = "".join(text.replace("\\\\", "").replace('\\"', "").split('"')[::2])
    brackets = "".join(char for char in outside if char in "[]{}")
    if len(brackets) > 2 * BRACKETS_MAX:
        return True
    for _ in range(DEPTH_MAX):  # each round takes the innermost level away
        brackets = brackets.replace("[]", "").replace("{}", "")
    return brackets != ""


def _finite(text: str) -> float:
    """A number that can be written again: ``1e999``, ``NaN`` and ``Infinity`` are none."""
    value = float(text)
    if value - value != 0:
        raise ValueError("not a finite number")
    return value


def dumps(value: Any) -> str:
    """The compact ASCII JSON text of ``value``; NaN and foreign types raise."""
    return "".join(_encode(value, 0))


def encode(value: Any) -> bytes:
    """One line for ``value``, newline included."""
    text = "".join(_encode(value, 0)).encode("ascii")
    return b"%08x %b\n" % (crc32(text), text)


def decode(line: bytes) -> Any:
    """The JSON value of one line, None where it is damaged, but for its end."""
    line = line.rstrip(b"\r\n")
    if line[8:9] != b" " or line[:8] != b"%08x" % crc32(line[9:]):
        return None
    try:
        return loads(line[9:].decode("ascii"))
    except (ValueError, RecursionError):
        return None


def sha256(data: bytes) -> Any:
    """A hash object over ``data``, from the interpreter's own C module where it has one."""
    try:
        # By its version: an import that fails looks through the whole path, each time.
        if sys.version_info >= (3, 12):
            from _sha2 import sha256 as new
        else:
            from _sha256 import sha256 as new  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        from hashlib import sha256 as new
    return new(data)
