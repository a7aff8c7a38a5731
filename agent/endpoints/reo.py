"""Reo.Dev, the usage collector: JSON payloads out, unsigned JSON answers in.

A payload holds the fields of its table in the table's order and leaves out what is unknown; an aggregated event gets
``event_at`` when it is sent and nothing about its origin is guessed. Consent was asked before; sending and settling
belong to other floors.
"""

from __future__ import annotations

from .. import checks, jsonline, origin
from ..plain import clean, plain
from . import verdicts
from .common import CALL_HOME, FOREIGN, Adapter, in_order
from .verdicts import DELIVERED, HELD, RETRY, Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from ..config import Config, Reo
    from ..signatures import Freshness
    from ..transport import Request, Response
    from .common import Capture

USAGE_PATH = "/api/product/usage"
AGGREGATE_PATH = "/api/product/aggregateusage"
# The fields in the order of the two tables.
USAGE_FIELDS = ("activity_type", "source", "environment", "user_id_type", "user_id", "ip_addr",
                "event_id", "event_at", "product_id", "user_agent", "meta")  # fmt: skip
AGGREGATE_FIELDS = ("mode", "source", "activity_type", "environment", "count", "ip_addr", "domain",
                    "event_id", "event_at", "product_id", "user_agent", "meta")  # fmt: skip


# What a preview shows where a vendor's callable is asked for the domain.
ASKED_LATER = "(asked when it is sent)"


class ReoAdapter(Adapter):
    """Encodes records of kind "usage" and "aggregate" for one configured collector and judges its answers."""

    kind = "reo"
    usage = True

    def __init__(self, endpoint: Reo, config: Config) -> None:
        super().__init__(endpoint, config)
        self._domain, self._ip_addr = endpoint.domain, endpoint.ip_addr
        self._of_all = {
            "environment": endpoint.environment,
            "product_id": self.product_id,
            "user_agent": "%s/%s" % (config.product_name, config.product_version),
        }

    def track(
        self,
        source: Capture,
        activity_type: str,
        *,
        user_id: Optional[str] = None,
        user_id_type: str = "USERNAME",
        ip_addr: Optional[str] = None,
        meta: Optional[dict[str, Any]] = None,
    ) -> dict[str, Any]:
        """The payload of a single event; ``event_at`` is when it occurred."""
        fields = {
            **self._of_all,
            "activity_type": activity_type,
            "source": "PRODUCT_CLOUD",
            "user_id_type": user_id_type,
            "user_id": source.user_identifier if user_id is None else user_id,
            "ip_addr": ip_addr or self._ip_addr,
            "event_id": source.event_id,
            "event_at": int(source.at),
            "meta": meta,
        }
        return in_order(_known(fields), USAGE_FIELDS)

    def call_home(self, source: Capture) -> dict[str, Any]:
        """The payload of a call home."""
        return self.track(source, CALL_HOME)

    def aggregate(
        self, activity_type: str, count: int, event_id: str, window_start: float, window_end: float
    ) -> dict[str, Any]:
        """The payload of a window's sum, all but ``event_at`` and the origin; ``window_*`` are Unix seconds."""
        fields = {
            **self._of_all,
            "mode": "DOMAIN",
            "source": "TELEMETRY",
            "activity_type": activity_type,
            "count": count,
            "event_id": event_id,
            "meta": {"window_start": int(window_start), "window_end": int(window_end)},
        }
        return in_order(_known(fields), AGGREGATE_FIELDS)

    def origin(self, *, ask: bool = True, wait_s: float = 0.0) -> dict[str, str]:
        """Whose usage aggregated events are: ``ip_addr`` and ``domain`` as far as known; {} if neither is.

        A vendor's callable may take as long as it likes; one that raises or gives nonsense knows nothing. With
        ``ask=False``, for a look, it is not called: it may use the network. ``dns_domain`` is asked where ``ask`` or
        ``wait_s`` says so, and has that many seconds.
        """
        domain: Any = self._domain
        if domain is origin.dns_domain and (ask or wait_s):
            domain = origin.own_domain(min(wait_s or origin.WAIT_S, origin.WAIT_S))
        elif callable(domain) and not ask:
            domain = ASKED_LATER
        elif callable(domain):
            try:
                domain = clean(domain(), checks.HOST_MAX_CHARS + 1)
                domain = domain if checks.is_host(domain) else None
            except (Exception, SystemExit):
                domain = None
        return _known({"ip_addr": self._ip_addr, "domain": domain})

    def request(
        self, kind: str, body: dict[str, Any], *, event_id: str, now: float, mask: bool = False
    ) -> Request:
        """The exact request for one record; only an aggregate's ``event_at`` depends on ``now``."""
        if kind == "aggregate":
            known = body.get("domain") or body.get("ip_addr")
            payload = {**body, "event_at": int(now), **({} if known else self.origin(ask=not mask))}
            path, payload = AGGREGATE_PATH, in_order(payload, AGGREGATE_FIELDS)
        else:
            path, payload = USAGE_PATH, in_order(body, USAGE_FIELDS)
        try:
            text = jsonline.dumps({"payload": payload})
        except (RecursionError, TypeError, ValueError):  # an imported record may hold anything
            text = jsonline.dumps(plain({"payload": payload}))
        key = "****" if mask else self._api_key
        return self._post(path, "application/json", text, **{"X-API-KEY": key})

    def judge(
        self, response: Response, *, now: float, monotonic: float, freshness: Freshness
    ) -> Verdict:
        """What an answer means: the documented JSON decides, for no status is documented with it."""
        answer = verdicts.json_of(response)
        said = answer.get("status")
        if said == "success" and 200 <= response.status < 300:
            return Verdict(DELIVERED)
        reason, code = "HTTP %d" % response.status, None
        if said == "failure":
            code = verdicts.number_of(answer.get("response_code"))
            reason = verdicts.brief(answer.get("response"), secret=self._api_key) or reason
        if reason.strip().lower() == "authentication failure":
            return Verdict(HELD, reason=reason)
        hint = verdicts.by_status(response, now=now, pause_max_s=verdicts.PAUSE_MAX_S)
        if hint is not None:
            return hint
        # A web filter's page is one too.
        held = reason if answer else reason + FOREIGN
        hint = verdicts.by_claim(response, code, held, refused=said != "success")
        return hint or Verdict(RETRY, reason=reason + ("" if said else FOREIGN))


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
