"""``verify``: from the bytes of an answer to a ``Receipt``, or to the one reason why it proves nothing.

The signature covers the ASCII bytes of ``response_base64`` as they stand and is checked before they are decoded; the
outer ``response`` and ``private_key_used`` are unsigned and are not looked at. What decides (code, timestamp) has one
reading; what only explains (errors, message) may have any shape. No I/O, no clock, and nothing here returns a bool.
"""

from __future__ import annotations

from ..errors import CodeUnknown, EnvelopeMalformed, SignatureInvalid, Unverifiable
from .freshness import agrees, stale
from .keys import Frozen, PublicKey, as_bytes, decode_base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable

# The same bound as the transport's: the largest published answer has 2 KB.
MAX_ENVELOPE_BYTES = 64 * 1024
# 830 saved, 831 saved with red flags, 100-103 API key refused, 150 access denied.
KNOWN_CODES = frozenset((830, 831, 100, 101, 102, 103, 150))
# Beyond 2^53, which has 16 digits, JSON numbers are no longer exact in every language (RFC 8259, 6).
MAX_INTEGER, MAX_INTEGER_CHARS = 1 << 53, 17
MAX_FIELDS, MAX_MESSAGES = 32, 8
# Real answers open a dozen. Bounded before the parser runs: a host may have raised the recursion limit beyond what a
# thread's stack can carry.
MAX_BRACKETS = 256


class Receipt(Frozen):
    """A proven answer: ``timestamp`` in Unix seconds, ``errors`` as field -> messages, "" where no field was named."""

    __slots__ = ("code", "message", "errors", "timestamp", "key_name")

    code: int
    message: str
    errors: dict[str, list[str]]
    timestamp: int
    key_name: str


def verify(envelope: bytes, keys: Iterable[PublicKey], *, now: float | None = None) -> Receipt:
    """The receipt that one of ``keys`` signed; with ``now`` (Unix seconds) it must lie within 24 h of it.

    Raises, in this order of checks, ``EnvelopeMalformed``, ``Unverifiable`` or ``SignatureInvalid``,
    ``EnvelopeMalformed`` for the signed text, ``CodeUnknown``, ``AnswerStale``; ``TypeError`` or ``ValueError`` for
    arguments of a wrong kind, and nothing else whatever the bytes are.
    """
    data = as_bytes("envelope", envelope)
    trusted = tuple(keys) if hasattr(keys, "__iter__") else ()
    if not hasattr(keys, "__iter__") or not all(isinstance(key, PublicKey) for key in trusted):
        raise TypeError("keys: an iterable of PublicKey is needed")
    if isinstance(now, bool) or not isinstance(now, (int, float, type(None))):
        raise TypeError("now: Unix seconds are needed, not " + type(now).__name__)
    if now is not None and now - now != 0:  # NaN and the infinities
        raise ValueError("now: a finite number is needed")
    text, signature = _read_envelope(data)
    receipt = _read_receipt(text, _signers(text, signature, trusted))
    if receipt.code not in KNOWN_CODES:
        reason = "signed, but code %d is no telemetry receipt" % receipt.code
        raise CodeUnknown(reason, receipt.code)
    if now is not None and not agrees(receipt.timestamp, now):
        raise stale("signed, but too far from the given time", receipt.timestamp, now)
    return receipt


def read_json(data: bytes, on_object: Callable[[Any], Any] = dict) -> Any:
    """The value of ``data``, if everybody reads it alike; every object is ``on_object(its pairs)``.

    Raises ``ValueError`` for anything but UTF-8 (a BOM is skipped), and for deep nesting, NaN and, unless
    ``on_object`` is another function than ``dict``, a name that is there twice. Longer integers become floats.
    """
    import json

    try:
        if data.count(b"[") + data.count(b"{") > MAX_BRACKETS:
            raise ValueError("nested too deeply")
        return json.loads(
            data.removeprefix(b"\xef\xbb\xbf").decode("utf-8"),
            object_pairs_hook=_unambiguous if on_object is dict else on_object,
            parse_int=lambda text: (int if len(text) <= MAX_INTEGER_CHARS else float)(text),
            parse_constant=int,  # raises: "NaN" is no integer
        )
    except (ValueError, RecursionError):
        raise ValueError("is not JSON that everybody reads alike") from None


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate name")
    return found


def _read_envelope(data: bytes) -> tuple[bytes, bytes]:
    """The signed text and its signature."""
    if len(data) > MAX_ENVELOPE_BYTES:
        raise EnvelopeMalformed("the answer is larger than %d bytes" % MAX_ENVELOPE_BYTES)
    pairs = _object(data, "the answer", tuple)
    text = _one(pairs, "response_base64")
    return text, _bytes_of(_one(pairs, "signature"), "signature")


def _object(data: bytes, name: str, kind: type[Any]) -> Any:
    try:
        found = read_json(data, kind)
    except ValueError as error:
        raise EnvelopeMalformed("%s %s" % (name, error)) from None
    if type(found) is not kind:
        raise EnvelopeMalformed("%s is not a JSON object" % name)
    return found


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
    reason = "no trusted key signed this answer" if keys else "no key is configured"
    refusal: SignatureInvalid | Unverifiable = SignatureInvalid(reason)
    found = []
    for key in keys:
        try:
            key.verify(text, signature)
            found.append(key)
        except SignatureInvalid:
            continue
        except Unverifiable as error:
            refusal = error
    if not found:
        raise refusal
    return found


def _read_receipt(text: bytes, signers: list[PublicKey]) -> Receipt:
    """What was signed; further names are left alone."""
    signed = _object(_bytes_of(text, "response_base64"), "the signed text", dict)
    code, timestamp = signed.get("code"), _natural(signed, "timestamp")
    if type(code) is str and code.isascii() and code.isdigit():
        signed["code"] = int(code[:MAX_INTEGER_CHARS])
    names = [key.name for key in signers if key.covers(timestamp)]
    if not names:
        reason = "signed by the key %r outside of its validity" % signers[0].name
        raise SignatureInvalid(reason)
    return Receipt(
        code=_natural(signed, "code"),
        message="; ".join(_texts(signed.get("message"))),
        errors=_errors(signed.get("errors")),
        timestamp=timestamp,
        key_name=names[0],
    )


def _natural(signed: dict[str, Any], name: str) -> int:
    value = signed.get(name)
    if type(value) is int and 0 <= value <= MAX_INTEGER:  # a bool is not a number here
        return value
    raise EnvelopeMalformed("the signed text has no proper `%s`" % name)


def _errors(value: Any) -> dict[str, list[str]]:
    """Field -> messages of whatever was signed: PHP's empty array, null, a text, lists within lists."""
    if not isinstance(value, dict):
        texts = _texts(value)
        return {"": texts} if texts else {}
    return {_clean(field): _texts(value[field]) for field in list(value)[:MAX_FIELDS]}


def _texts(value: Any) -> list[str]:
    found: list[str] = []
    waiting = [value]
    while waiting and len(found) < MAX_MESSAGES:
        one = waiting.pop()
        if isinstance(one, (dict, list)):
            waiting += reversed(list(one.values()) if isinstance(one, dict) else one)
        elif one is not None:
            found.append(_clean(str(one)))
    return found


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode(
        "utf-8"
    )  # a lone surrogate would break whoever prints it
