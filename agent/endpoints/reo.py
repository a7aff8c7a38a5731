"""Reo.Dev, the usage collector: JSON payloads out, unsigned JSON answers in.

A payload holds the fields of its table in the table's order and leaves out what is unknown; an aggregated event gets
``event_at`` when it is sent, and nothing about its origin is guessed. Consent was asked before.
"""

from __future__ import annotations

from .. import verdicts
from ..config import is_host
from ..content import clean
from ..lines import dumps
from ..values import Verdict, post
from ..verdicts import DELIVERED, Adapter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from ..config import Config, Reo
    from ..signatures.freshness import Freshness
    from ..values import Capture, Request, Response

# The path of a kind of record, and its fields in the order of its table.
USAGE_PATH, AGGREGATE_PATH = "/api/product/usage", "/api/product/aggregateusage"
USAGE_FIELDS = (
    *("activity_type", "source", "environment", "user_id_type", "user_id", "ip_addr", "domain"),
    *("event_id", "event_at", "product_id", "user_agent", "meta"),
)
AGGREGATE_FIELDS = (
    *("mode", "source", "activity_type", "environment", "count", "ip_addr", "domain"),
    *("event_id", "event_at", "product_id", "user_agent", "meta"),
)
# What a preview shows where a vendor's callable is asked for the domain.
ASKED_LATER = "(asked when it is sent)"


class ReoAdapter(Adapter):
    """Encodes records of kind "usage" and "aggregate" for one configured collector and judges its answers."""

    usage = True

    def __init__(self, endpoint: Reo, config: Config) -> None:
        super().__init__(endpoint, config)
        self._source, self._ip_addr, self._domain = (
            endpoint.source,
            endpoint.ip_addr,
            endpoint.domain,
        )
        self._known_domain = None if callable(endpoint.domain) else endpoint.domain
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
            "source": self._source,
            "user_id_type": user_id_type,
            "user_id": source.user_identifier if user_id is None else user_id,
            "ip_addr": ip_addr or self._ip_addr,
            "domain": self._known_domain if self._source == "TELEMETRY" else None,
            "event_id": source.event_id,
            "event_at": int(source.at),
            "meta": meta,
        }
        return verdicts.in_order(fields, USAGE_FIELDS)

    def call_home(self, source: Capture) -> dict[str, Any]:
        """The payload of a call home."""
        return self.track(source, verdicts.CALL_HOME)

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
        return verdicts.in_order(fields, AGGREGATE_FIELDS)

    def origin(self, ask: bool = True) -> dict[str, str]:
        """Whose usage aggregated events are: ``ip_addr`` and ``domain`` as far as known; {} if neither is.

        A vendor's callable may take as long as it likes, so ``ask`` where it can be left behind; one that raises or
        gives nonsense knows nothing.
        """
        domain: Any = self._domain
        if callable(domain):
            try:
                domain = clean(domain(), 254) if ask else None
                domain = domain if is_host(domain or "") else None
            except (Exception, SystemExit):
                domain = None
            self._known_domain = domain or self._known_domain
        return verdicts.in_order({"ip_addr": self._ip_addr, "domain": domain}, ())

    def request(
        self, kind: str, body: dict[str, Any], *, event_id: str, now: float, mask: bool = False
    ) -> Request:
        """The JSON; only an aggregate's ``event_at`` depends on ``now``."""
        path, payload = USAGE_PATH, verdicts.in_order(body, USAGE_FIELDS)
        if kind == "aggregate":
            later = {"domain": ASKED_LATER} if mask and callable(self._domain) else {}
            known = body.get("domain") or body.get("ip_addr")
            origin = {} if known else {**self.origin(ask=False), **later}
            payload = {**body, **origin, "event_at": int(now)}
            path, payload = AGGREGATE_PATH, verdicts.in_order(payload, AGGREGATE_FIELDS)
        text = dumps({"payload": payload})
        headers = {"X-API-KEY": "****" if mask else self._api_key}
        return post(self.address + path, "application/json", text, **headers)

    def judge(
        self,
        response: Response,
        *,
        now: float,
        monotonic: float,
        freshness: Freshness,
        secret: str = "",
    ) -> Verdict:
        """The documented JSON decides, for no status is documented with it."""
        answer = verdicts.json_of(response)
        said = answer.get("status")
        if said == "success" and 200 <= response.status < 300:
            return Verdict(DELIVERED)
        claim = None
        if said == "failure":
            claim = (verdicts.number_of(answer.get("response_code")), answer.get("response"))
        return verdicts.by_claim(response, claim, now=now, secrets=(self._api_key, secret))
