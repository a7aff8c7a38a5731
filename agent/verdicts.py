"""What one answer means, out of a closed set, and what all endpoints share. What is done about it is delivery's.

Any answer whatever gives one of these outcomes and never raises: what is read is hostile, and what comes of it is
bounded, printable and repeats no secret.
"""

from __future__ import annotations

from .values import Capture, Request, Response, Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from .config import Config, GetKeyManager, Reo
    from .signatures.keys import PublicKey

    Secrets = tuple[str, ...]

DELIVERED, FLAGGED, HELD, THROTTLED = "delivered", "flagged", "held", "throttled"
OFFLINE, SKEWED, UNTRUSTED, RETRY = "offline", "skewed", "untrusted", "retry"
# Refused by the server; that, where delivery finds that it counts; not sent: consent, or the product, ended.
REFUSED, REJECTED, WITHHELD = "refused", "rejected", "withheld"
# The record is on the server; the record has ended; answers that may speak against their record.
SETTLED = frozenset((DELIVERED, FLAGGED))
ENDED = SETTLED | {REJECTED}
SUSPICIOUS = frozenset((REFUSED, UNTRUSTED, RETRY))

# Unproven where proof is possible: no longer than our own longest backoff.
PAUSE_MAX_S, PAUSE_UNPROVEN_MAX_S = 24 * 3600, 6 * 3600
# Somebody has to act (key, subscription, address, law) before this can succeed; the record is not to blame.
HELD_STATUSES = frozenset((401, 402, 403, 404, 405, 410, 451))
# This very request was read and refused.
REFUSED_STATUSES = frozenset((400, 413, 415, 422))
# In a server's own words: about the key, whatever the status.
_OF_THE_KEY = "authenticat authori api_key api-key apikey credential permis denied forbid".split()
TEXT_MAX_CHARS, FIELDS_MAX, MESSAGES_MAX = 200, 32, 8
NOT_REPEATED = "(the server repeats a secret)"
FOREIGN, WRONG_ADDRESS = "not an answer of this server", "wrong address, check base_url"
# What a server is told by start-up alone, where there is no other data.
CALL_HOME = "CALL HOME"


class Adapter:
    """One configured endpoint: what it is told of a record, and what its answers mean. Stores and sends nothing.

    body = adapter.call_home(capture)                                   when it is recorded
    request = adapter.request(record, now=…)                            when it is sent: the same bytes each time
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


def by_status(response: Response, now: float, pause_max_s: float, else_: Verdict) -> Verdict:
    """The verdict where the status alone tells that nobody judged the record; ``else_`` where it does not."""
    status, reason = response.status, "HTTP %d" % response.status
    if status == 407:
        return Verdict(OFFLINE, reason=reason + ": the proxy asks for credentials")
    told_s = min(pause_max_s, _pause_s(response, now)) if status in (429, 503) else 0
    if told_s > 0:
        reason += ": asked to wait %d s" % told_s
        return Verdict(THROTTLED, reason=reason, retry_after_s=told_s)
    busy = status in (408, 429) or 300 <= status < 400 or status >= 500
    return Verdict(RETRY, reason=reason) if busy else else_


def by_claim(response: Response, claim: Any, now: float, secrets: Secrets) -> Verdict:
    """What an answer that nothing proves means, unless it reports a success.

    ``claim`` is what the server's own JSON says: a code like an HTTP status, and a text. None for a gateway's or a
    portal's answer, whatever its status: that is nobody's word on the record or on the key.
    """
    found = Verdict(RETRY, reason="HTTP %d: %s" % (response.status, foreign(response)))
    if claim is not None:
        code, text = claim
        said = {response.status, code if type(code) is int else 0}
        words = text.lower().replace("api key", "apikey") if type(text) is str else ""
        found.reason = brief(text, secrets) or "HTTP %d" % response.status
        if said & HELD_STATUSES or any(word in words for word in _OF_THE_KEY):
            found.outcome = HELD
        elif said & REFUSED_STATUSES and "key" not in words:  # else of which one is unclear
            found.outcome = REFUSED
    return by_status(response, now, PAUSE_MAX_S, found)


def foreign(response: Response, why: object = FOREIGN) -> object:
    """What to say of an answer that is not our server's as it was sent."""
    before, answer, _ = response.body.partition(b'{"')
    if response.status == 404:
        return WRONG_ADDRESS
    if not response.complete:
        return "the answer broke off, or is too long"
    if answer and b" on line " in before:
        return "the server sent a PHP notice before its answer"
    packed = "content-encoding" in response.headers and not json_of(response)
    return "the answer is packed, though nobody asked for that" if packed else why


def _pause_s(response: Response, now: float) -> float:
    """The seconds that a server asked for, in Retry-After or a 429's ``retry_after``; else 0."""
    header = response.headers.get("retry-after", "").strip()
    told_s = number_of(header)
    if told_s is None:
        # An HTTP-date (RFC 9110, 5.6.7), by the server's own clock where it tells it.
        until, server_now = http_date(header), http_date(response.headers.get("date", ""))
        told_s = until and until - (server_now or now)
    if told_s is None and response.status == 429:
        found = json_of(response)
        inner = found.get("response")
        told_s = number_of({**found, **(inner if type(inner) is dict else {})}.get("retry_after"))
    return told_s or 0


def http_date(text: str) -> float | None:
    """Unix seconds of a ``Date`` or ``Retry-After`` header; None for anything else."""
    from email.utils import mktime_tz, parsedate_tz

    try:
        return float(mktime_tz(parsedate_tz(text[:64])))  # type: ignore[arg-type]
    except Exception:  # of many kinds, for what is no date
        return None


def number_of(value: Any) -> float | None:
    """A number, or the digits of one; codes and pauses come as either."""
    if type(value) is str and value.isascii() and value.isdigit():
        return int(value[:20])
    return value if type(value) in (int, float) else None


def json_of(response: Response) -> dict[str, Any]:
    """The JSON object of a complete body; {} if there is none that everybody reads alike."""
    from .signatures.envelope import read_json

    try:
        return read_json(response.body) if response.complete else {}
    except ValueError:
        return {}


def brief(value: Any, secrets: Secrets = ()) -> str:
    """At most 200 printable characters of a server's text, which must repeat no secret; else ""."""
    if type(value) is not str:
        return ""
    from urllib.parse import unquote_plus  # as it stood in the request's body

    said = value.lower() + "\n" + unquote_plus(value).lower()
    if any(secret and secret.lower() in said for secret in secrets):
        return NOT_REPEATED
    text = "".join(char if char.isprintable() else " " for char in value[: TEXT_MAX_CHARS + 1])
    return text if len(text) <= TEXT_MAX_CHARS else text[: TEXT_MAX_CHARS - 1] + "…"


def bounded_errors(errors: Any, secrets: Secrets) -> dict[str, list[str]]:
    """A server's field -> messages: at most 32 fields of 8 messages of 200 characters."""
    from .signatures.envelope import by_field

    found = [(brief(name, secrets), texts) for name, texts in by_field(errors).items()]
    return {n: [brief(t, secrets) for t in texts[:MESSAGES_MAX]] for n, texts in found[:FIELDS_MAX]}
