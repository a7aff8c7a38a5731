"""Reo.Dev, the usage collector: JSON payloads out, unsigned JSON answers in.

A payload leaves out what is unknown; an aggregated event gets ``event_at`` and its origin when it is sent, and nothing
about that origin is guessed. Consent was asked before.
"""

from __future__ import annotations

from .. import TYPE_CHECKING, verdicts
from ..config import is_host
from ..lines import dumps
from ..values import Capture, Request, Response, Verdict, post
from ..verdicts import DELIVERED, Adapter

if TYPE_CHECKING:
    from typing import Any

    from ..config import Config, Reo
    from ..spool.record import Record

USAGE_PATH, AGGREGATE_PATH = "/api/product/usage", "/api/product/aggregateusage"
# What a preview shows where a vendor's callable is asked for the domain.
ASKED_LATER = "(asked when it is sent)"


class ReoAdapter(Adapter):
    """Encodes records of kind "usage" and "aggregate" for one configured collector and judges its answers."""

    usage = True

    def __init__(self, endpoint: Reo, config: Config) -> None:
        super().__init__(endpoint, config)
        self._source, self._environment = endpoint.source, endpoint.environment
        self._ip_addr, self._asked = endpoint.ip_addr, endpoint.domain
        self._domain = None if callable(endpoint.domain) else endpoint.domain  # as far as known
        self._agent = "%s/%s" % (config.product_name, config.product_version)

    def track(self, source: Capture, activity_type: str, **given: Any) -> dict[str, Any]:
        """The payload of a single event; ``event_at`` is when it occurred.

        ``given``, where it is not None: user_id, user_id_type, ip_addr, meta.
        """
        return _known(
            activity_type=activity_type,
            source=self._source,
            environment=self._environment,
            user_id_type=given.get("user_id_type") or "USERNAME",
            user_id=given.get("user_id") or source.user_identifier,
            ip_addr=given.get("ip_addr") or self._ip_addr,
            domain=self._domain if self._source == "TELEMETRY" else None,
            event_id=source.event_id,
            event_at=int(source.at),
            product_id=self.product_id,
            user_agent=self._agent,
            meta=given.get("meta"),
        )

    def call_home(self, source: Capture) -> dict[str, Any]:
        """The payload of a call home."""
        return self.track(source, verdicts.CALL_HOME)

    def aggregate(
        self, activity_type: str, count: int, event_id: str, window_start: float, window_end: float
    ) -> dict[str, Any]:
        """The payload of a window's sum, all but ``event_at`` and the origin; ``window_*`` are Unix seconds."""
        return _known(
            mode="DOMAIN",
            source="TELEMETRY",
            activity_type=activity_type,
            environment=self._environment,
            count=count,
            event_id=event_id,
            product_id=self.product_id,
            user_agent=self._agent,
            meta={"window_start": int(window_start), "window_end": int(window_end)},
        )

    def origin(self, ask: bool = True) -> dict[str, str]:
        """Whose usage aggregated events are: ``ip_addr`` and ``domain`` as far as known; {} if neither is.

        ``ask`` a vendor's callable where it can be left behind; one that raises or gives nonsense knows nothing.
        """
        if callable(self._asked) and ask:
            try:
                found: Any = self._asked()
                self._domain = str.__str__(found) if is_host(found) else None
            except (Exception, SystemExit):
                self._domain = None
        return _known(ip_addr=self._ip_addr, domain=self._domain)

    def request(self, record: Record, *, now: float, mask: bool = False) -> Request:
        """The JSON; only an aggregate's ``event_at`` depends on ``now``."""
        path, body = USAGE_PATH, record.body
        if record.kind == "aggregate":
            later = {"domain": ASKED_LATER} if mask and callable(self._asked) else {}
            origin = {**later, **self.origin(ask=False)} if record.stray else {}
            path, body = AGGREGATE_PATH, {**body, **origin, "event_at": int(now)}
        headers = {"X-API-KEY": "****" if mask else self._api_key}
        return post(self.address + path, "application/json", dumps({"payload": body}), **headers)

    def judge(self, response: Response, *, now: float, secret: str, **unused: object) -> Verdict:
        """The documented JSON decides, for no status is documented with it."""
        answer, claim = verdicts.json_of(response), None
        if answer.get("status") == "success" and 200 <= response.status < 300:
            return Verdict(DELIVERED)
        if answer.get("status") == "failure":
            claim = (verdicts.number_of(answer.get("response_code")), answer.get("response"))
        return verdicts.by_claim(response, claim, now, (self._api_key, secret))


def _known(**fields: Any) -> dict[str, Any]:
    """The fields but for those that are None."""
    return {name: value for name, value in fields.items() if value is not None}
