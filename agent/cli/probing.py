"""Whether an endpoint would take records: it is asked with a request that is nobody's record.

That is a record's own request with "****" for the API key and nothing in it: no secret leaves, nothing can be stored,
and a licence server refuses it with a signed answer, which proves the way, the server, its key and both clocks. What
comes is judged as delivery would judge it and noted nowhere. Whether the API key is any good stays unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from ..signatures.freshness import Freshness
from ..transport import HttpTransport
from ..values import Response, Unreachable, Verdict
from ..verdicts import HELD, OFFLINE, UNTRUSTED

if TYPE_CHECKING:
    from ..client import Agent
    from ..lanes import Lane
    from ..verdicts import Adapter


def probe(agent: Agent, adapter: Adapter) -> dict[str, Any]:
    """One endpoint's part of ``diagnostics(network=True)``; takes ``request_timeout_s``, twice with a keyring's url.

    ``expected`` is a refusal of the made-up key as the server documents it, signed where keys are configured.
    """
    config, clock = agent._config, agent._clock
    endpoint = next(one for one in config.endpoints if one.name == adapter.name)
    asking = _again(endpoint, config)  # the deliverer's own belongs to its thread
    transport = HttpTransport.of(config, agent._environ)
    kind = "usage" if adapter.usage else "licence"
    request = asking.request(kind, {}, event_id="", now=clock.time(), mask=True)
    response, reason, stage = None, "", ""
    try:
        response = transport.send(request, timeout_s=config.request_timeout_s)
    except Unreachable as error:
        reason, stage = error.reason, error.stage
    now, monotonic = clock.time(), clock.monotonic()
    lane = agent._delivery.lane_of(adapter.name)
    seen = dict(transport.seen)
    if asking.trust is not None:
        _renew(agent, asking, lane, transport)
    transport.close()
    verdict = Verdict(OFFLINE, reason=reason)
    if response is not None:
        freshness = Freshness(lane.freshness.floor)
        freshness.doubtful = lane.freshness.doubtful
        verdict = asking.judge(response, now=now, monotonic=monotonic, freshness=freshness)
    dated = None
    if response is not None and endpoint.base_url.startswith("https:"):  # else it is anybody's
        dated = http_date(response.headers.get("date", ""))
    return {
        "name": adapter.name,
        "address": endpoint.base_url,
        "reached": response is not None,
        "http_status": response.status if response is not None else None,
        "reason": reason,
        "stage": stage,
        **_way(seen),
        "dry_run": _judged(asking, response, verdict),
        "date_drift_s": _drift_s(dated, now),
        "signed_drift_s": _drift_s(verdict.timestamp, now),
        "keyring_trouble": asking.trust.trouble if asking.trust is not None else "",
    }
