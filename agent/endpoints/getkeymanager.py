"""GetKeyManager, the licence server: form fields out, signed envelopes in.

Every record carries every field of the table, ``license_key`` and ``activation_identifier`` empty where unknown, and no
field depends on the activation state. Nothing is read from an answer before its signature is checked, unless the
vendor allowed unsigned answers.
"""

from __future__ import annotations

from .. import verdicts
from ..errors import AnswerStale, VerificationError, mistake
from ..values import Verdict, post
from ..verdicts import DELIVERED, FLAGGED, HELD, SKEWED, UNTRUSTED, Adapter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..config import Config, GetKeyManager
    from ..signatures.freshness import Freshness
    from ..signatures.keys import PublicKey
    from ..values import Capture, Request, Response

PATH = "/api/v1/send-telemetry-data"
# The order of the fields in a request.
FIELDS = (
    *("api_key", "data_type", "numeric_data_single_value", "numeric_data_x", "numeric_data_y"),
    *("text_data", "data_group", "product_id", "product_version", "user_identifier"),
    *("license_key", "activation_identifier"),
)
HELD_CODES = {
    100: "the API key is invalid",
    101: "the API key is inactive",
    102: "the API key lacks the capability to send telemetry",
    103: "the API key may not be used from this address",
    150: "access denied: this address or identifier is blocked",
}


class GetKeyManagerAdapter(Adapter):
    """Encodes records of kind "licence" for one configured server and judges its answers."""

    def __init__(self, endpoint: GetKeyManager, config: Config) -> None:
        super().__init__(endpoint, config)
        self.signed = bool(endpoint.keys)
        self._data_group, self._product_version = endpoint.data_group, config.product_version
        self._embedded: tuple[PublicKey, ...] = endpoint.keys
        if hasattr(endpoint.keys, "trusted"):
            self.trust, self._embedded = endpoint.keys.trusted(), tuple(endpoint.keys.keys)
        if self.signed:
            from ..signatures.keys import PublicKey

            for key in self._embedded:
                # One of another copy of this package raises errors of that copy.
                if not isinstance(key, PublicKey):
                    raise mistake("keys", key, "PublicKey of the very package that Agent is from")

    @property
    def keys(self) -> tuple[PublicKey, ...]:  # type: ignore[override]
        """What an answer may be signed with now."""
        return self._embedded if self.trust is None else tuple(self.trust.keys)

    def value(self, source: Capture, value: str, data_group: str) -> dict[str, str]:
        """The body for one number, given as text."""
        data = {"data_type": "numeric-single-value", "numeric_data_single_value": value}
        return self._body(source, data, data_group)

    def point(self, source: Capture, x: str, y: str, data_group: str) -> dict[str, str]:
        """The body for two numbers, given as texts."""
        data = {"data_type": "numeric-xy-axis", "numeric_data_x": x, "numeric_data_y": y}
        return self._body(source, data, data_group)

    def text(self, source: Capture, text: str, data_group: str) -> dict[str, str]:
        """The body for a text."""
        return self._body(source, {"data_type": "text", "text_data": text}, data_group)

    def call_home(self, source: Capture) -> dict[str, str]:
        """The body of a call home, in the endpoint's own data group."""
        return self.text(source, verdicts.CALL_HOME, self._data_group)

    def _body(self, source: Capture, data: dict[str, str], data_group: str) -> dict[str, str]:
        return {
            **data,
            "data_group": data_group,
            "product_id": self.product_id,
            "product_version": self._product_version,
            "user_identifier": source.user_identifier,
            "license_key": source.license_key,
            "activation_identifier": source.activation_identifier,
        }

    def request(
        self, kind: str, body: dict[str, Any], *, event_id: str, now: float, mask: bool = False
    ) -> Request:
        """The form, and the event id as Idempotency-Key: nothing in the form tells a retry from a new record."""
        from urllib.parse import quote, urlencode

        fields = verdicts.in_order({**body, "api_key": self._api_key}, FIELDS)
        if mask:
            hidden = [name for name in ("api_key", "license_key") if fields.get(name)]
            fields.update(dict.fromkeys(hidden, "****"))
        # application/x-www-form-urlencoded as in WHATWG URL, 5.2, which differs from urlencode in these two.
        form = urlencode(fields, safe="*", errors="replace").replace("~", "%7E")
        headers = {"Idempotency-Key": quote(event_id, safe="", errors="replace")}
        url = self.address + PATH
        return post(url, "application/x-www-form-urlencoded", form, **headers)

    def judge(
        self,
        response: Response,
        *,
        now: float,
        monotonic: float,
        freshness: Freshness,
        secret: str = "",
    ) -> Verdict:
        """A proven code decides alone; anything else that came from where answers are signed is a hint at best."""
        secrets = (self._api_key, secret)
        if not self.signed:
            return _judge_unsigned(response, now, secrets)
        from ..signatures.envelope import verify

        try:
            if not response.complete:
                raise VerificationError("the answer is incomplete")
            receipt = verify(response.body, self.keys)
            freshness.judge(receipt.timestamp, now=now, monotonic=monotonic)
        except AnswerStale as stale:
            code, timestamp = receipt.code, receipt.timestamp
            return Verdict(SKEWED, reason=str(stale), code=code, timestamp=timestamp)
        except VerificationError as error:
            why = verdicts.what_came(response) or error
            reason = verdicts.brief("HTTP %d, not proven: %s" % (response.status, why), ())
            hint = verdicts.by_status(response, now=now, pause_max_s=verdicts.PAUSE_UNPROVEN_MAX_S)
            return hint or Verdict(UNTRUSTED, reason=reason)
        verdict = _by_code(receipt.code, receipt.errors, secrets)
        verdict.timestamp, verdict.proven = receipt.timestamp, True
        return verdict


def _by_code(code: int, errors: Any, secrets: tuple[str, ...]) -> Verdict:
    if code == 830:
        return Verdict(DELIVERED, code=code)
    if code == 831:
        found = verdicts.bounded_errors(errors, secrets)
        return Verdict(FLAGGED, reason="saved with red flags", code=code, errors=found)
    return Verdict(HELD, reason="%s (code %d)" % (HELD_CODES[code], code), code=code)


def _judge_unsigned(response: Response, now: float, secrets: tuple[str, ...]) -> Verdict:
    """A record that the server says it stored is stored, whatever the status; so is what it says of the key."""
    claim = _claim(response)
    code: Any = verdicts.number_of(claim.get("code"))
    if code in (830, 831) or code in HELD_CODES:
        return _by_code(int(code), claim.get("errors"), secrets)
    own = None if code is None else (None, claim.get("message"))
    return verdicts.by_claim(response, own, now=now, secrets=secrets)


def _claim(response: Response) -> dict[str, Any]:
    """The receipt as an unsigned answer has it; the text made for signing goes before the outer one."""
    from binascii import a2b_base64

    envelope = verdicts.json_of(response)
    inner = envelope.get("response")
    if "response_base64" in envelope:
        try:
            inner = verdicts.json_object(a2b_base64(envelope["response_base64"]))
        except (TypeError, ValueError):
            inner = None
    return inner if isinstance(inner, dict) else {}
