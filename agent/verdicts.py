"""What one answer means, out of a closed set; what answers hint at that prove nothing; and what all endpoints share.

The table is in ``vendor_notes``. Each endpoint reaches one of these outcomes for any answer whatever and never raises:
everything read here is hostile input, and any bytes give a bounded, printable value that repeats no secret. What is
done about a verdict (settle, pause, back off, dead letter) belongs to delivery.
"""

from __future__ import annotations

from .values import Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Optional

    from .config import Config, GetKeyManager, Reo
    from .signatures.keys import PublicKey
    from .values import Capture, Request, Response

    Claim = tuple[object, object]

DELIVERED, FLAGGED, HELD, THROTTLED = "delivered", "flagged", "held", "throttled"
OFFLINE, SKEWED, UNTRUSTED, RETRY = "offline", "skewed", "untrusted", "retry"
# The server refuses this record; delivery makes it a dead letter, if that counts.
REFUSED, REJECTED = "refused", "rejected"
# Nothing was sent: consent was withdrawn, or the product ends.
WITHHELD = "withheld"
# The record is on the server; the record has ended; answers that may speak against their record.
SETTLED = frozenset((DELIVERED, FLAGGED))
ENDED = SETTLED | {REJECTED}
SUSPICIOUS = frozenset((REFUSED, UNTRUSTED, RETRY))

PAUSE_MAX_S = 24 * 3600
# Unproven where proof is possible: no longer than our own longest backoff.
PAUSE_UNPROVEN_MAX_S = 6 * 3600
# Somebody has to act (key, subscription, address, law) before this can succeed; the record is not to blame.
HELD_STATUSES = frozenset((401, 402, 403, 404, 405, 410, 451))
# This very request was read and refused.
REFUSED_STATUSES = frozenset((400, 413, 415, 422))
# In a server's own words: about the key, whatever the status.
_OF_THE_KEY = (
    "authenticat",
    "authoriz",
    "authoris",
    "api key",
    "apikey",
    "invalid key",
    "credential",
    "permission",
)
TEXT_MAX_CHARS, FIELDS_MAX, MESSAGES_MAX = 200, 32, 8
# Anything shorter is part of ordinary words, and no secret.
SECRET_MIN_CHARS = 4
NOT_REPEATED = "(the server repeats a secret)"
FOREIGN, NOTICE = "not an answer of this server", "the server sent a PHP notice before its answer"
WRONG_ADDRESS = "wrong address, check base_url"
# What a server is told by start-up alone, where there is no other data.
CALL_HOME = "CALL HOME"


class Adapter:
    """One configured endpoint: what it is told of a record, and what its answers mean. Stores and sends nothing.

    body = adapter.call_home(capture)                                   when it is recorded
    request = adapter.request(kind, body, event_id=…, now=…)            when it is sent: the same bytes each time
    verdict = adapter.judge(response, now=…, monotonic=…, freshness=…)  for any answer at all
    """

    usage = signed = False
    keys: tuple[PublicKey, ...] = ()  # what answers may be signed with now
    trust: Any = None  # where a keyring may change them
    call_home: Callable[[Capture], dict[str, Any]]
    request: Callable[..., Request]
    judge: Callable[..., Verdict]

    def __init__(self, endpoint: GetKeyManager | Reo, config: Config) -> None:
        self.name, self.address = endpoint.name, endpoint.base_url
        self.product_id = endpoint.product_id or config.product_id
        self._api_key = endpoint.api_key

    def cause(self) -> str:
        """All of this endpoint that a wait may be due to; for a keyed hash, never to be shown."""
        return repr((self.floor_cause(), self._api_key, self.product_id))

    def floor_cause(self) -> str:
        """Whose signed times these are; for a keyed hash."""
        return repr((self.address, [key.fingerprint for key in self.keys]))


def in_order(fields: dict[str, Any], order: tuple[str, ...]) -> dict[str, Any]:
    """The same fields but for what is unknown (None): first those of the protocol's table, in its order."""
    return {name: fields[name] for name in (*order, *fields) if fields.get(name) is not None}


def by_status(response: Response, *, now: float, pause_max_s: float) -> Optional[Verdict]:
    """The verdict where the status alone tells that nobody judged the record; None where it does not."""
    status = response.status
    reason = "HTTP %d" % status
    if status == 407:
        return Verdict(OFFLINE, reason=reason + ": the proxy asks for credentials")
    told_s = _pause_s(response, now=now) if status in (429, 503) else 0
    if told_s > 0:
        told_s = min(told_s, pause_max_s)
        reason += ": asked to wait %d s" % told_s
        return Verdict(THROTTLED, reason=reason, retry_after_s=told_s)
    if status in (408, 429) or 300 <= status < 400 or status >= 500:
        return Verdict(RETRY, reason=reason)
    return None


def by_claim(
    response: Response, claim: Optional[Claim], *, now: float, secrets: tuple[str, ...]
) -> Verdict:
    """What an answer that nothing proves means, unless it reports a success.

    ``claim`` is what the server's own JSON says: a code like an HTTP status, and a text; None for a stranger's answer.
    """
    hint = by_status(response, now=now, pause_max_s=PAUSE_MAX_S)
    if hint is not None:
        return hint
    code, text = claim or (None, None)
    oddity = what_came(response) or ("" if claim else FOREIGN)
    reason = "HTTP %d" % response.status
    reason = "%s: %s" % (reason, oddity) if oddity else brief(text, secrets) or reason
    said = {response.status, code if type(code) is int else None}
    if said & HELD_STATUSES or _is_of_the_key(text):
        return Verdict(HELD, reason=reason)
    return Verdict(REFUSED if claim and said & REFUSED_STATUSES else RETRY, reason=reason)


def _is_of_the_key(text: object) -> bool:
    """Whether a server's words are about who asks and not about what: "Authentication Failure", "Invalid API Key"."""
    words = text.lower().replace("-", " ").replace("_", " ") if isinstance(text, str) else ""
    return any(word in words for word in _OF_THE_KEY)


def what_came(response: Response) -> str:
    """What is wrong with an answer, where that can be said exactly; else ""."""
    if response.status == 404:
        return WRONG_ADDRESS
    start, brace, _ = response.body[:8192].lower().partition(b"{")
    kinds = (b"notice", b"warning", b"deprecated")
    is_notice = brace and b" on line " in start and any(kind in start for kind in kinds)
    return NOTICE if is_notice else ""


def _pause_s(response: Response, *, now: float) -> float:
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
    """The JSON object of a complete body; {} if there is none that everybody reads alike."""
    return json_object(response.body) if response.complete else {}


def json_object(data: bytes) -> dict[str, Any]:
    """The JSON object in ``data``, without duplicate names; else {}."""
    from .signatures.envelope import read_json

    try:
        found = read_json(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def brief(value: object, secrets: tuple[str, ...]) -> str:
    """One printable line of at most 200 characters of a server's text, which must repeat no secret; else ""."""
    if not isinstance(value, str):
        return ""
    lower = value.lower()
    for secret in secrets:
        if len(secret.strip()) >= SECRET_MIN_CHARS and secret.strip().lower() in lower:
            return NOT_REPEATED
    text = "".join(char if char.isprintable() else " " for char in value[: TEXT_MAX_CHARS + 1])
    return text if len(text) <= TEXT_MAX_CHARS else text[: TEXT_MAX_CHARS - 1] + "…"


def bounded_errors(errors: Any, secrets: tuple[str, ...]) -> dict[str, list[str]]:
    """A server's field -> messages: at most 32 fields of 8 messages of 200 characters; "" where none is named."""
    fields = errors if isinstance(errors, dict) else {"": errors} if errors else {}
    return {
        brief(field, secrets): [brief(text, secrets) for text in _texts(fields[field])]
        for field in list(fields)[:FIELDS_MAX]
    }


def _texts(value: Any) -> list[str]:
    """The texts in lists within lists, and the numbers as texts."""
    if isinstance(value, (dict, list)):
        parts = list(value.values()) if isinstance(value, dict) else value
        return [text for part in parts for text in _texts(part)][:MESSAGES_MAX]
    return [] if value is None else [str(value)]
