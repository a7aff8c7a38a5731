"""``verify``: from the bytes of an answer to a ``Receipt``, or to the one reason why it proves nothing.

The signature covers the ASCII bytes of ``response_base64`` as they stand and is checked before they are
decoded; the outer ``response`` and ``private_key_used`` are unsigned and are not looked at. Signed bytes are
still read as if they were hostile, for a receipt with two readings is none.
"""

from __future__ import annotations

from ..errors import CodeUnknown, EnvelopeMalformed, SignatureInvalid, Unverifiable
from . import strictjson
from .freshness import agrees, stale
from .keys import Frozen, PublicKey, as_bytes, decode_base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Optional

# The same bound as the transport's: the largest published answer has 2 KB.
MAX_ENVELOPE_BYTES = 64 * 1024
# 830 saved, 831 saved with red flags, 100-103 API key refused, 150 access denied.
KNOWN_CODES = frozenset((830, 831, 100, 101, 102, 103, 150))
# Beyond 2^53 JSON numbers are no longer exact in every language (RFC 8259 section 6).
MAX_INTEGER = 1 << 53


class Receipt(Frozen):
    """A proven answer: ``timestamp`` in Unix seconds, ``errors`` as field -> messages."""

    __slots__ = ("code", "message", "errors", "timestamp", "key_name")

    def __init__(
        self,
        *,
        code: int,
        message: str,
        errors: dict[str, list[str]],
        timestamp: int,
        key_name: str,
    ) -> None:
        self.code = code
        self.message = message
        self.errors = errors
        self.timestamp = timestamp
        self.key_name = key_name

    def __repr__(self) -> str:
        return "Receipt(code=%r, message=%r, errors=%r, timestamp=%r, key_name=%r)" % self.facts()


def verify(envelope: bytes, keys: Iterable[PublicKey], *, now: float | None = None) -> Receipt:
    """The receipt that one of ``keys`` signed; with ``now`` (Unix seconds) it must lie within 24 h of it.

    Raises, in this order of checks, ``EnvelopeMalformed``, ``Unverifiable`` or ``SignatureInvalid``,
    ``EnvelopeMalformed`` for the signed text, ``CodeUnknown``, ``AnswerStale``; ``TypeError`` or ``ValueError``
    for arguments of a wrong kind, and nothing else whatever the bytes are.
    """
    data, trusted = as_bytes("envelope", envelope), _trusted(keys)
    if now is not None:
        if isinstance(now, bool) or not isinstance(now, (int, float)):
            raise TypeError("now: Unix seconds are needed, not " + type(now).__name__)
        if now - now != 0:  # NaN and the infinities
            raise ValueError("now: a finite number is needed")
    text, signature = _read_envelope(data)
    receipt = _read_receipt(text, _signers(text, signature, trusted))
    if receipt.code not in KNOWN_CODES:
        reason = "signed, but code %d is no telemetry receipt" % receipt.code
        raise CodeUnknown(reason, receipt.code)
    if now is not None and not agrees(receipt.timestamp, now):
        raise stale("signed, but too far from the given time", receipt.timestamp, now)
    return receipt


def _trusted(keys: Any) -> tuple[PublicKey, ...]:
    try:
        trusted = tuple(keys)
    except TypeError:
        trusted = (None,)
    if not all(isinstance(key, PublicKey) for key in trusted):
        raise TypeError("keys: an iterable of PublicKey is needed")
    return trusted


def _read_envelope(data: bytes) -> tuple[bytes, bytes]:
    """The signed text and its signature."""
    if len(data) > MAX_ENVELOPE_BYTES:
        raise EnvelopeMalformed("the answer is larger than %d bytes" % MAX_ENVELOPE_BYTES)
    try:
        pairs = strictjson.loads(data, on_object=tuple)
    except ValueError as error:
        raise EnvelopeMalformed("the answer %s" % error) from None
    if not isinstance(pairs, tuple):
        raise EnvelopeMalformed("the answer is not a JSON object")
    text = _one(pairs, "response_base64")
    return text, _bytes_of(_one(pairs, "signature"), "signature")


def _one(pairs: tuple[tuple[str, Any], ...], name: str) -> bytes:
    values = [value for key, value in pairs if key == name]
    if len(values) != 1 or type(values[0]) is not str or not values[0].isascii():
        raise EnvelopeMalformed("`%s` is not there once, as ASCII text" % name)
    return values[0].encode("ascii")


def _bytes_of(text: bytes, name: str) -> bytes:
    try:
        return decode_base64(text)
    except ValueError:
        raise EnvelopeMalformed("`%s` is not canonical base64" % name) from None


def _signers(text: bytes, signature: bytes, keys: tuple[PublicKey, ...]) -> list[PublicKey]:
    """The keys that fit: one, or the same one under several names."""
    unverifiable: Optional[Unverifiable] = None
    found = []
    for key in keys:
        try:
            key.verify(text, signature)
            found.append(key)
        except SignatureInvalid:
            continue
        except Unverifiable as error:
            unverifiable = error
    if found:
        return found
    reason = "no trusted key signed this answer" if keys else "no key is configured"
    raise unverifiable or SignatureInvalid(reason)


def _read_receipt(text: bytes, signers: list[PublicKey]) -> Receipt:
    """What was signed. ``errors`` is ``[]`` when empty (PHP's empty array); further names are left alone."""
    try:
        signed = strictjson.loads(_bytes_of(text, "response_base64"))
    except ValueError as error:
        raise EnvelopeMalformed("the signed text %s" % error) from None
    if type(signed) is not dict:
        raise EnvelopeMalformed("the signed text is not a JSON object")
    errors = signed.get("errors", {})
    proper = {
        "code": _is_natural(signed.get("code")),
        "message": _is_text(signed.get("message")),
        "timestamp": _is_natural(signed.get("timestamp")),
        "errors": errors == [] or _is_errors(errors),
    }
    for name, is_proper in proper.items():
        if not is_proper:
            raise EnvelopeMalformed("the signed text has no proper `%s`" % name)
    names = [key.name for key in signers if key.covers(signed["timestamp"])]
    if not names:
        reason = "signed by the key %r outside of its validity" % signers[0].name
        raise SignatureInvalid(reason)
    return Receipt(
        code=signed["code"],
        message=signed["message"],
        errors=errors or {},
        timestamp=signed["timestamp"],
        key_name=names[0],
    )


def _is_natural(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_INTEGER  # a bool is not a number here


def _is_text(value: Any) -> bool:
    # A lone surrogate would break whoever prints it.
    return type(value) is str and value.encode("utf-8", "replace").decode("utf-8") == value


def _is_errors(value: Any) -> bool:
    return type(value) is dict and all(
        _is_text(field) and type(messages) is list and all(map(_is_text, messages))
        for field, messages in value.items()
    )
