"""``Verdict``: what one answer means for a record and for its endpoint, out of a closed set; and what answers hint at.

The table of outcomes is in ``vendor_notes``; each adapter reaches one of them for any answer whatever and never
raises. Everything that is read of an answer here is hostile input and proves nothing: any bytes give a bounded value.
What is done about a verdict (settle, pause, back off, dead letter) belongs to delivery.
"""

from __future__ import annotations

from .. import jsonline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from ..transport import Response

DELIVERED = "delivered"
FLAGGED = "flagged"
HELD = "held"
THROTTLED = "throttled"
OFFLINE = "offline"
SKEWED = "skewed"
UNTRUSTED = "untrusted"
RETRY = "retry"
REJECTED = "rejected"

PAUSE_MAX_S = 24 * 3600
# Unproven where proof is possible: no longer than our own longest backoff.
PAUSE_UNPROVEN_MAX_S = 6 * 3600
# Somebody has to act (key, subscription, address, law) before this can succeed; the record is not to blame.
HELD_STATUSES = frozenset((401, 402, 403, 404, 405, 410, 451))
# This very request was read and refused.
REJECTED_STATUSES = frozenset((400, 413, 415, 422))
TEXT_MAX_CHARS = 200
FIELDS_MAX = 32
MESSAGES_MAX = 8
# Anything shorter is part of ordinary words, and no secret.
SECRET_MIN_CHARS = 4


class Verdict:
    """One outcome with its facts.

    ``reason`` is short text for people, without secrets; ``code`` and ``timestamp`` (Unix seconds) are the receipt's;
    ``errors`` of 831 are field -> messages, bounded; ``retry_after_s`` comes with THROTTLED; ``proven`` says
    that the answer was signed, trusted and fresh.
    """

    __slots__ = ("outcome", "reason", "code", "errors", "retry_after_s", "timestamp", "proven")

    def __init__(
        self,
        outcome: str,
        *,
        reason: str = "",
        code: Optional[int] = None,
        errors: Optional[dict[str, list[str]]] = None,
        retry_after_s: Optional[float] = None,
        timestamp: Optional[int] = None,
        proven: bool = False,
    ) -> None:
        self.outcome = outcome
        self.reason = reason
        self.code = code
        self.errors = errors
        self.retry_after_s = retry_after_s
        self.timestamp = timestamp
        self.proven = proven


def by_status(response: Response, *, now: float, pause_max_s: float) -> Optional[Verdict]:
    """The verdict where the status alone tells that nobody judged the record; None where it does not."""
    status = response.status
    reason = "HTTP %d" % status
    if status == 407:
        return Verdict(OFFLINE, reason=reason + ": the proxy asks for credentials")
    told_s = pause_s(response, now=now) if status in (429, 503) else 0
    if told_s > 0:
        told_s = min(told_s, pause_max_s)
        reason += ": asked to wait %d s" % told_s
        return Verdict(THROTTLED, reason=reason, retry_after_s=told_s)
    if status in (408, 429) or 300 <= status < 400 or status >= 500:
        return Verdict(RETRY, reason=reason)
    return None


def by_claim(response: Response, code: object, reason: str, *, refused: bool) -> Optional[Verdict]:
    """The verdict where nothing is signed and the status or a code like one says who has to act."""
    said = {response.status, code if type(code) is int else None}
    if said & HELD_STATUSES:
        return Verdict(HELD, reason=reason)
    if said & REJECTED_STATUSES and refused and response.complete:
        return Verdict(REJECTED, reason=reason)
    return None


def pause_s(response: Response, *, now: float) -> float:
    """The seconds that a server asked for, in Retry-After or in ``retry_after`` of a 429's body; 0 if it did not."""
    header = response.headers.get("retry-after", "").strip()
    told_s = number_of(header)
    if told_s is None:
        # An HTTP-date (RFC 9110, 5.6.7), by the server's own clock where it tells it.
        at, server_now = http_date(header), http_date(response.headers.get("date", ""))
        told_s = None if at is None else at - (now if server_now is None else server_now)
    if told_s is None and response.status == 429:
        document = json_of(response)
        inner = document.get("response")
        place = inner if isinstance(inner, dict) and "retry_after" in inner else document
        told_s = number_of(place.get("retry_after"))
    return told_s or 0


def http_date(text: str) -> Optional[float]:
    """Unix seconds of a ``Date`` or ``Retry-After`` header; None for anything else."""
    if not 20 < len(text) < 64:  # garbage, and what costs time
        return None
    from calendar import timegm
    from email.utils import parsedate_tz

    try:
        parts = parsedate_tz(text)
        return None if parts is None else float(timegm(parts[:9]) - (parts[9] or 0))
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None


def number_of(value: Any) -> Optional[float]:
    """A number, or the digits of one; codes and pauses come as either."""
    if type(value) is str and value.isascii() and value.isdigit():
        return int(value[:20])
    return value if type(value) in (int, float) else None


def json_of(response: Response) -> dict[str, Any]:
    """The JSON object of a complete body in UTF-8; {} if there is none that everybody reads alike."""
    return json_object(response.body) if response.complete else {}


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object in ``data``, without duplicate names; else {}."""
    from ..signatures import strictjson

    try:
        found = strictjson.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def brief(value: Any, *, secret: str = "") -> str:
    """One printable line of at most 200 characters of a server's text; "" for anything but text."""
    if not isinstance(value, str):
        return ""
    # Masked before it is cut: a half of a secret is one too.
    text = masked(value[: 16 * TEXT_MAX_CHARS], secret)
    text = "".join(char if char.isprintable() else " " for char in text[: TEXT_MAX_CHARS + 1])
    return text if len(text) <= TEXT_MAX_CHARS else text[: TEXT_MAX_CHARS - 1] + "…"


def masked(text: str, secret: str) -> str:
    """``text`` without ``secret``, which a server may repeat stripped, encoded, in another case, or cut by a limit."""
    secret = secret.strip()
    if len(secret) < SECRET_MIN_CHARS or not text:
        return text
    import re

    lower, found = text.lower(), []
    for spelling in _spellings(secret):
        # The least that has to be hidden; most texts hold no such thing.
        if spelling[:SECRET_MIN_CHARS].lower() in lower or not (text + secret).isascii():
            found.append(spelling)
    for spelling in found:  # all of them whole, before what is only cut
        text = re.sub(re.escape(spelling), "****", text, flags=re.IGNORECASE)
    for spelling in found:
        text = _without_end(text, spelling)
    return text


def _spellings(secret: str) -> set[str]:
    """A secret as it is, and as JSON, HTML, addresses and forms write it."""
    if secret.isascii() and secret.replace("-", "").replace("_", "").isalnum():
        return {secret}
    from urllib.parse import quote, quote_plus

    escaped = secret.replace("\\", "\\\\").replace('"', '\\"')
    html = secret.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    html = html.replace('"', "&quot;")
    found = {secret, escaped, jsonline.dumps(secret)[1:-1], html, html.replace("'", "&#x27;")}
    form = quote_plus(secret, safe="*", errors="replace")
    encoded = quote(secret, safe="", errors="replace")
    return {*found, encoded, form, form.replace("*", "%2A"), form.replace("~", "%7E")}


def _without_end(text: str, secret: str) -> str:
    bare = text.rstrip("….")
    for length in range(min(len(secret), len(bare)), SECRET_MIN_CHARS - 1, -1):
        if bare[-length:].lower() == secret[:length].lower():
            return bare[:-length] + "****"
    return text


def bounded_errors(errors: Any, *, secret: str = "") -> dict[str, list[str]]:
    """A server's field -> messages: at most 32 fields of 8 messages of 200 characters."""
    found = {}
    for field in list(errors)[:FIELDS_MAX] if isinstance(errors, dict) else ():
        messages = errors[field] if isinstance(errors[field], list) else [errors[field]]
        found[brief(field, secret=secret)] = [
            brief(message, secret=secret) for message in messages[:MESSAGES_MAX]
        ]
    return found
