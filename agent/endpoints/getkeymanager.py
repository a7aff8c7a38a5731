"""GetKeyManager, the licence server: form fields out, signed envelopes in.

Every record carries every field of the table, ``license_key`` and ``activation_identifier`` empty where unknown, and no
field depends on the activation state. Nothing is read from an answer before its signature is checked, unless the
vendor allowed unsigned answers; sending and settling belong to other floors.
"""

from __future__ import annotations

from ..checks import mistake
from ..errors import AnswerStale, VerificationError
from ..plain import clean
from . import verdicts
from .common import CALL_HOME, FOREIGN, Adapter, in_order
from .verdicts import DELIVERED, FLAGGED, HELD, RETRY, SKEWED, UNTRUSTED, Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..config import Config, GetKeyManager
    from ..signatures import Freshness, PublicKey
    from ..transport import Request, Response
    from .common import Capture

PATH = "/api/v1/send-telemetry-data"
# The order of the fields in a request.
FIELDS = ("api_key", "data_type", "numeric_data_single_value", "numeric_data_x", "numeric_data_y",
          "text_data", "data_group", "product_id", "product_version", "user_identifier",
          "license_key", "activation_identifier")  # fmt: skip
_SECRETS = ("api_key", "license_key")
_FIELD_MAX_CHARS = 4096
_HELD_CODES = {
    100: "the API key is invalid",
    101: "the API key is inactive",
    102: "the API key lacks the capability to send telemetry",
    103: "the API key may not be used from this address",
    150: "access denied: this address or identifier is blocked",
}


class GetKeyManagerAdapter(Adapter):
    """Encodes records of kind "licence" for one configured server and judges its answers."""

    kind = "getkeymanager"

    def __init__(self, endpoint: GetKeyManager, config: Config) -> None:
        super().__init__(endpoint, config)
        self.signed = bool(endpoint.keys)
        self._data_group = endpoint.data_group
        self._product_version = config.product_version
        self._keys: Any = endpoint.keys
        if self.signed:
            from ..signatures import PublicKey

            if hasattr(endpoint.keys, "roots"):
                from ..signatures.trust import TrustedKeys

                self.trust = TrustedKeys(endpoint.keys)  # type: ignore[arg-type]
            for key in self.keys:
                # One of another copy of this package raises errors of that copy.
                if not isinstance(key, PublicKey):
                    raise mistake("keys", key, "PublicKey of the very package that Agent is from")

    @property
    def keys(self) -> tuple[PublicKey, ...]:
        """What an answer may be signed with now."""
        return self._keys if self.trust is None else self.trust.keys

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
        return self.text(source, CALL_HOME, self._data_group)

    def _body(self, source: Capture, data: dict[str, str], data_group: str) -> dict[str, str]:
        return {
            **data,
            "data_group": data_group,
            "product_id": self.product_id,
            "product_version": self._product_version,
            "user_identifier": source.user_identifier,
            "license_key": clean(source.license_key or "", _FIELD_MAX_CHARS),
            "activation_identifier": clean(source.activation_identifier or "", _FIELD_MAX_CHARS),
        }

    def request(
        self, kind: str, body: dict[str, Any], *, event_id: str, now: float, mask: bool = False
    ) -> Request:
        """The exact request for one record; the same bytes on every retry. ``mask`` hides the secrets."""
        from urllib.parse import urlencode

        fields = in_order({**body, "api_key": self._api_key}, FIELDS)
        if mask:
            fields.update((name, "****") for name in _SECRETS if fields.get(name))
        # application/x-www-form-urlencoded as in WHATWG URL, 5.2, which differs from urlencode in these two.
        form = urlencode(fields, safe="*", errors="replace").replace("~", "%7E")
        return self._post(PATH, "application/x-www-form-urlencoded", form)

    def judge(
        self, response: Response, *, now: float, monotonic: float, freshness: Freshness
    ) -> Verdict:
        """What an answer means, at ``now`` (Unix seconds) and ``monotonic`` (seconds)."""
        if not self.signed:
            return self._judge_unsigned(response, now)
        from .. import signatures

        try:
            if not response.complete:
                raise VerificationError("the answer is incomplete")
            receipt = signatures.verify(response.body, self.keys)
            freshness.judge(receipt.timestamp, now=now, monotonic=monotonic)
        except AnswerStale as stale:
            code, timestamp = receipt.code, receipt.timestamp
            return Verdict(SKEWED, reason=str(stale), code=code, timestamp=timestamp)
        except VerificationError as error:
            reason = verdicts.brief("HTTP %d, not proven: %s" % (response.status, error))
            hint = verdicts.by_status(response, now=now, pause_max_s=verdicts.PAUSE_UNPROVEN_MAX_S)
            return hint or Verdict(UNTRUSTED, reason=reason)
        verdict = self._by_code(receipt.code, receipt.errors)
        verdict.timestamp, verdict.proven = receipt.timestamp, True
        return verdict

    def _by_code(self, code: int, errors: Any) -> Verdict:
        if code == 830:
            return Verdict(DELIVERED, code=code)
        if code == 831:
            found = verdicts.bounded_errors(errors, secret=self._api_key)
            return Verdict(FLAGGED, reason="saved with red flags", code=code, errors=found)
        return Verdict(HELD, reason="%s (code %d)" % (_HELD_CODES[code], code), code=code)

    def _judge_unsigned(self, response: Response, now: float) -> Verdict:
        claim = _claim(response)
        code: Any = verdicts.number_of(claim.get("code"))
        if code in (830, 831) and 200 <= response.status < 300:
            return self._by_code(int(code), claim.get("errors"))
        hint = verdicts.by_status(response, now=now, pause_max_s=verdicts.PAUSE_MAX_S)
        if hint is None and code in _HELD_CODES:
            hint = self._by_code(int(code), None)
        reason = "HTTP %d" % response.status
        held = reason if verdicts.json_of(response) else reason + FOREIGN
        hint = hint or verdicts.by_claim(response, None, held, refused=True)
        return hint or Verdict(RETRY, reason=reason + FOREIGN)


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
