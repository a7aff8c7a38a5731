"""``verify``: from the bytes of an answer to a ``Receipt``, or to the one reason why it proves nothing.

The signature covers the ASCII bytes of ``response_base64`` and is checked before they are decoded; what is outside is
not looked at. What decides (code, timestamp) has one reading; what explains (errors, message) may have any shape.
"""

from __future__ import annotations

from .. import TYPE_CHECKING, errors
from .freshness import agrees, stale
from .keys import Frozen, PublicKey, decode_base64

if TYPE_CHECKING:
    from typing import Any, Iterable

    Errors = dict[str, list[str]]

# Real answers have 2 KB and a dozen brackets; a host may have raised the recursion limit beyond what a stack carries.
MAX_JSON_BYTES, MAX_BRACKETS = 64 * 1024, 256
# 830 saved, 831 saved with red flags, 100-103 API key refused, 150 access denied.
KNOWN_CODES = frozenset((830, 831, 100, 101, 102, 103, 150))
# Beyond it JSON numbers are no longer exact in every language (RFC 8259, 6).
MAX_INTEGER = 1 << 53


class Receipt(Frozen):
    """A proven answer: ``timestamp`` in Unix seconds, ``errors`` as field -> messages, "" where no field was named."""

    __slots__ = ("code", "message", "errors", "timestamp", "key_name")

    def __init__(self, code: int, message: str, errors: Errors, timestamp: int, key: str) -> None:
        self.code, self.message, self.errors = code, message, errors
        self.timestamp, self.key_name = timestamp, key


def verify(envelope: bytes, keys: Iterable[PublicKey], *, now: float | None = None) -> Receipt:
    """The receipt that one of ``keys`` signed; with ``now`` (Unix seconds) it must lie within 24 h of it.

    Raises, in this order of checks, ``EnvelopeMalformed``, ``Unverifiable`` or ``SignatureInvalid``,
    ``EnvelopeMalformed`` for the signed text, ``CodeUnknown``, ``AnswerStale``; nothing else whatever the bytes are.
    """
    data, trusted = bytes(memoryview(envelope)), tuple(keys)
    if not all(isinstance(key, PublicKey) for key in trusted):
        raise TypeError("keys: an iterable of PublicKey is needed")
    try:
        answer = read_json(data)
        text, signature = _ascii(answer, "response_base64"), _ascii(answer, "signature")
        signature = decode_base64(signature)
    except ValueError as error:
        raise errors.EnvelopeMalformed("the answer: %s" % error) from None
    key = _signer(text, signature, trusted)
    try:
        signed = read_json(decode_base64(text))
        code, timestamp = _natural(signed, "code"), _natural(signed, "timestamp")
    except ValueError as error:
        raise errors.EnvelopeMalformed("the signed text: %s" % error) from None
    if code not in KNOWN_CODES:
        raise errors.CodeUnknown("signed, but code %d is no telemetry receipt" % code, code)
    if now is not None and not agrees(timestamp, now):
        raise stale("too far from the given time", timestamp, now)
    message = "; ".join(_texts(signed.get("message")))
    return Receipt(code, message, by_field(signed.get("errors")), timestamp, key.name)


def read_json(data: bytes) -> dict[str, Any]:
    """The JSON object in ``data``, if everybody reads it alike; a byte order mark is skipped.

    Raises ``ValueError`` for anything else: not UTF-8, too large, nested too deeply, NaN, a name that is there twice.
    """
    import json

    fits = len(data) <= MAX_JSON_BYTES and data.count(b"[") + data.count(b"{") <= MAX_BRACKETS
    text = data.removeprefix(b"\xef\xbb\xbf") if fits else b""
    try:  # "NaN" is no number to ``int``, and a list no mapping
        found = json.loads(text.decode(), object_pairs_hook=_unambiguous, parse_constant=int)
        return {**found}
    except (ValueError, TypeError, RecursionError):
        raise ValueError("not JSON that everybody reads alike") from None


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate name")
    return found


def _ascii(answer: dict[str, Any], name: str) -> bytes:
    value = answer.get(name)
    if type(value) is str and value.isascii():
        return value.encode("ascii")
    raise ValueError("no `%s` in ASCII" % name)


def _signer(text: bytes, signature: bytes, keys: tuple[PublicKey, ...]) -> PublicKey:
    """The first key that fits."""
    refusal: errors.VerificationError = errors.SignatureInvalid("no trusted key signed this answer")
    for key in keys:
        try:
            key.verify(text, signature)
            return key
        except errors.SignatureInvalid:
            pass
        except errors.Unverifiable as error:
            refusal = error
    raise refusal


def _natural(signed: dict[str, Any], name: str) -> int:
    value = signed.get(name)
    if name == "code" and type(value) is str and value.isascii() and value.isdigit():
        return int(value[:20])
    if type(value) is int and 0 <= value <= MAX_INTEGER:  # a bool is not a number here
        return value
    raise ValueError("no proper `%s`" % name)


def by_field(value: Any) -> Errors:
    """Field -> messages of whatever was said: PHP's empty array, null, a text, lists within lists."""
    fields = value if isinstance(value, dict) else {"": value}
    return {_texts(name)[0]: _texts(one) for name, one in fields.items() if name or _texts(one)}


def _texts(value: Any) -> list[str]:
    """Every text in ``value``, at any depth."""
    found, waiting = [], [value]
    for one in waiting:
        if isinstance(one, (dict, list)):
            waiting += one.values() if isinstance(one, dict) else one
        elif one is not None:  # a lone surrogate would break whoever prints it
            found.append(str(one).encode("utf-8", "replace").decode("utf-8"))
    return found
