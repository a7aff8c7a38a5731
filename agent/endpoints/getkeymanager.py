"""GetKeyManager, the licence server: form fields out, signed envelopes in.

Every record carries every field of the table, ``license_key`` and ``activation_identifier`` empty where unknown, and no
field depends on the activation state. Nothing is read before its signature is checked, unless unsigned is allowed.
"""

from __future__ import annotations

from .. import TYPE_CHECKING, verdicts
from ..errors import AnswerStale, VerificationError
from ..values import Capture, Request, Response, Verdict, post
from ..verdicts import DELIVERED, FLAGGED, HELD, SKEWED, UNTRUSTED, Adapter

if TYPE_CHECKING:
    from typing import Any

    from ..config import Config, GetKeyManager
    from ..signatures.freshness import Freshness
    from ..signatures.keys import PublicKey
    from ..spool.record import Record

PATH = "/api/v1/send-telemetry-data"
# The API key is invalid, inactive, lacks the capability, may not be used from this address; access is denied.
HELD_CODES = frozenset((100, 101, 102, 103, 150))


class GetKeyManagerAdapter(Adapter):
    """Encodes records of kind "licence" for one configured server and judges its answers."""

    def __init__(self, endpoint: GetKeyManager, config: Config) -> None:
        super().__init__(endpoint, config)
        self.signed = bool(endpoint.keys)
        self.trust = endpoint.keys.trusted() if hasattr(endpoint.keys, "trusted") else None
        self._holder: Any = self.trust or endpoint  # of the keys in force
        self._data_group, self._product_version = endpoint.data_group, config.product_version

    @property
    def keys(self) -> tuple[PublicKey, ...]:  # type: ignore[override]
        """What an answer may be signed with now."""
        return tuple(self._holder.keys)

    def value(self, source: Capture, value: str, group: str) -> dict[str, str]:
        """The body for one number, given as text."""
        return self._body(source, group, "numeric-single-value", numeric_data_single_value=value)

    def point(self, source: Capture, x: str, y: str, group: str) -> dict[str, str]:
        """The body for two numbers, given as texts."""
        return self._body(source, group, "numeric-xy-axis", numeric_data_x=x, numeric_data_y=y)

    def text(self, source: Capture, text: str, group: str) -> dict[str, str]:
        """The body for a text."""
        return self._body(source, group, "text", text_data=text)

    def call_home(self, source: Capture) -> dict[str, str]:
        """The body of a call home, in the endpoint's own data group."""
        return self.text(source, verdicts.CALL_HOME, self._data_group)

    def _body(self, source: Capture, group: str, kind: str, **data: str) -> dict[str, str]:
        return {
            "data_type": kind,
            **data,
            "data_group": group,
            "product_id": self.product_id,
            "product_version": self._product_version,
            "user_identifier": source.user_identifier,
            "license_key": source.license_key,
            "activation_identifier": source.activation_identifier,
        }

    def request(self, record: Record, *, now: float, mask: bool = False) -> Request:
        """The form, and the event id as Idempotency-Key: nothing in the form tells a retry from a new record."""
        from urllib.parse import quote, urlencode

        fields = {"api_key": "", **record.body}
        fields["api_key"] = "****" if mask else self._api_key
        if mask and fields.get("license_key"):
            fields["license_key"] = "****"
        # application/x-www-form-urlencoded as in WHATWG URL, 5.2, which differs from urlencode in these two.
        form = urlencode(fields, safe="*", errors="replace").replace("~", "%7E")
        headers = {"Idempotency-Key": quote(record.id, safe="", errors="replace")}
        return post(self.address + PATH, "application/x-www-form-urlencoded", form, **headers)

    def judge(
        self, response: Response, *, now: float, monotonic: float, freshness: Freshness, secret: str
    ) -> Verdict:
        """A proven code decides alone; anything else that came from where answers are signed is a hint at best."""
        secrets = (self._api_key, secret)
        if not self.signed:
            return _judge_unsigned(response, now, secrets)
        from ..signatures.envelope import verify

        try:
            receipt = verify(response.body if response.complete else b"", self.keys)
            freshness.judge(receipt.timestamp, now=now, monotonic=monotonic)
        except AnswerStale as old:
            return Verdict(SKEWED, reason=str(old), code=receipt.code, timestamp=receipt.timestamp)
        except VerificationError as error:
            why = response.status, verdicts.foreign(response, error)
            found = Verdict(UNTRUSTED, reason=verdicts.brief("HTTP %d, not proven: %s" % why))
            return verdicts.by_status(response, now, verdicts.PAUSE_UNPROVEN_MAX_S, found)
        verdict = _by_code(receipt.code, receipt.message, receipt.errors, secrets)
        verdict.timestamp = receipt.timestamp
        return verdict


def _by_code(code: int, message: Any, errors: Any, secrets: tuple[str, ...]) -> Verdict:
    if code == 830:
        return Verdict(DELIVERED, code=code)
    if code == 831:
        found = verdicts.bounded_errors(errors, secrets)
        return Verdict(FLAGGED, reason="saved with red flags", code=code, errors=found)
    reason = "%s (code %d)" % (verdicts.brief(message, secrets), code)
    return Verdict(HELD, reason=reason, code=code)


def _judge_unsigned(response: Response, now: float, secrets: tuple[str, ...]) -> Verdict:
    """A record that the server says it stored is stored, whatever the status; so is what it says of the key."""
    said: Any = verdicts.json_of(response).get("response")
    claim = said if type(said) is dict else {}
    code: Any = verdicts.number_of(claim.get("code"))
    if code in (830, 831) or code in HELD_CODES:
        return _by_code(int(code), claim.get("message"), claim.get("errors"), secrets)
    own = None if code is None else (None, claim.get("message"))
    return verdicts.by_claim(response, own, now, secrets)
