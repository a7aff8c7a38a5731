"""Whether an endpoint would take records: it is asked with a request that is nobody's record.

That is a record's own request with "****" for the API key and nothing in it: no secret leaves, nothing can be stored,
and a licence server refuses it with a signed answer, which proves the way, the server, its key and both clocks. What
comes is judged as delivery would judge it and noted nowhere. Whether the API key is any good stays unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from ..client import Agent
    from ..lanes import Lane
    from ..transport import HttpTransport
    from ..values import Response, Verdict
    from ..verdicts import Adapter


def probe(agent: Agent, adapter: Adapter) -> dict[str, Any]:
    """One endpoint's part of ``diagnostics(network=True)``; takes ``request_timeout_s``, twice with a keyring's url.

    ``expected`` is a refusal of the made-up key as the server documents it, signed where keys are configured.
    """
    from ..client import _adapter
    from ..spool.record import Record
    from ..transport import HttpTransport
    from ..values import Unreachable, Verdict
    from ..verdicts import OFFLINE, http_date

    config, clock = agent._config, agent._clock
    endpoint = next(one for one in config.endpoints if one.name == adapter.name)
    asking = _adapter(endpoint, config)  # the deliverer's own belongs to its thread
    transport = HttpTransport(agent._environ, **vars(config))
    nothing = Record("usage" if adapter.usage else "licence", adapter.name, "", clock.time(), {})
    request = asking.request(nothing, now=clock.time(), mask=True)
    response, reason, stage = None, "", ""
    try:
        response = transport.send(request, timeout_s=config.request_timeout_s)
    except Unreachable as error:
        reason, stage = error.reason, error.stage
    now, monotonic = clock.time(), clock.monotonic()
    lane, way = agent._delivery.lane_of(adapter.name), _way(transport.seen)
    if asking.trust is not None:
        _renew(agent, asking, lane, transport)
    transport.close()
    verdict, dated = Verdict(OFFLINE, reason=reason), None
    if response is not None:
        given = {"now": now, "monotonic": monotonic, "freshness": _copy(lane), "secret": ""}
        verdict = asking.judge(response, **given)
        if endpoint.base_url.startswith("https:"):  # else it is anybody's
            dated = http_date(response.headers.get("date", ""))
    return {
        "name": adapter.name,
        "address": endpoint.base_url,
        "reached": response is not None,
        "http_status": response.status if response is not None else None,
        "reason": reason,
        "stage": stage,
        **way,
        "dry_run": _judged(asking, response, verdict),
        "date_drift_s": _drift_s(dated, now),
        "signed_drift_s": _drift_s(verdict.timestamp, now),
        "keyring_trouble": asking.trust.trouble if asking.trust is not None else "",
    }


def _way(seen: Any) -> dict[str, Any]:
    tls = {"version": seen.tls, "cipher": seen.cipher, "store": seen.store}
    return {
        "proxy": {"address": seen.proxy, "from": seen.proxy_from},
        "peer": seen.peer,
        "tls": tls if any(tls.values()) else None,
    }


def _renew(agent: Agent, asking: Adapter, lane: Lane, transport: HttpTransport) -> None:
    """Read the keyring's document, and ask its address, as delivery does where the keys do not do."""
    from ..verdicts import UNTRUSTED

    trust: Any = asking.trust
    lane.failures, lane.reason = 1, UNTRUSTED
    trust.look(None, lane)
    trust.ask(transport, lane, agent._config.request_timeout_s)


def _copy(lane: Lane) -> Any:
    """What is known of the endpoint's signed times, to be judged by and thrown away."""
    from ..signatures.freshness import Freshness

    freshness = Freshness(lane.freshness.floor)
    freshness.doubtful = lane.freshness.doubtful
    return freshness


def _judged(asking: Adapter, response: Optional[Response], verdict: Verdict) -> dict[str, Any]:
    from ..verdicts import HELD, SKEWED

    signed_by = None
    if response is not None and verdict.timestamp is not None:
        from ..signatures.envelope import verify

        signed_by = verify(response.body, asking.keys).key_name
    as_documented = verdict.code == 100 or verdict.reason.lower() == "authentication failure"
    return {
        **{name: getattr(verdict, name) for name in ("outcome", "reason", "code")},
        "proven": signed_by is not None and verdict.outcome != SKEWED,
        "signed_by": signed_by,
        "expected": verdict.outcome == HELD and as_documented,
    }


def _drift_s(at: Optional[float], now: float) -> Optional[float]:
    return None if at is None else round(at - now, 1)
