"""Whether an endpoint would take records: it is asked with a request that is nobody's record.

That is a record's own request with "****" for the API key and nothing in it: no secret leaves, nothing can be stored,
and a licence server refuses it with a signed answer, which proves the way, the server, its key and both clocks. What
comes is judged as delivery would judge it and noted nowhere. Whether the API key is any good stays unknown.
"""

from __future__ import annotations

from . import endpoints
from .endpoints.verdicts import HELD, OFFLINE, UNTRUSTED, Verdict, http_date
from .spool.facts import Facts, Lane

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from .engine import Engine
    from .routes import Adapter
    from .signatures.trust import TrustedKeys
    from .transport import HttpTransport, Response
    from .transport.values import Seen


def probe(engine: Engine, name: str, lane: Lane) -> dict[str, Any]:
    """One endpoint's part of ``diagnostics(network=True)``; takes ``request_timeout_s``, twice with a keyring's url.

    ``expected`` is a refusal of the made-up key as the server documents it, signed where keys are configured.
    """
    from .transport import HttpTransport, Unreachable

    config, clock = engine.config, engine.clock
    endpoint = next(one for one in config.endpoints if one.name == name)
    adapter = endpoints.adapter(endpoint, config)  # the deliverer's own belongs to its thread
    transport = HttpTransport.of(config, engine.environ)
    kind = "usage" if adapter.usage else "licence"
    request = adapter.request(kind, {}, event_id="", now=clock.time(), mask=True)
    response, reason, stage = None, "", ""
    try:
        response = transport.send(request, timeout_s=config.request_timeout_s)
    except Unreachable as error:
        reason, stage = error.reason, error.stage
    now, monotonic = clock.time(), clock.monotonic()
    way = _way(transport.seen)
    if adapter.trust is not None:
        _renew(engine, adapter.trust, transport)
    transport.close()
    verdict = Verdict(OFFLINE, reason=reason)
    if response is not None:
        from .signatures.freshness import Freshness

        freshness = Freshness(lane.floor)
        freshness.doubtful = lane.doubtful
        verdict = adapter.judge(response, now=now, monotonic=monotonic, freshness=freshness)
    date = response.headers.get("date", "") if response is not None else ""
    dated = http_date(date) if endpoint.base_url.startswith("https:") else None  # else anybody's
    return {
        "name": name,
        "address": endpoint.base_url,
        "reached": response is not None,
        "http_status": response.status if response is not None else None,
        "reason": reason,
        "stage": stage,
        **way,
        "pinned": bool(endpoint.pins),
        "dry_run": _judged(adapter, response, verdict),
        "date_drift_s": _drift_s(dated, now),
        "signed_drift_s": _drift_s(verdict.timestamp, now),
        "keyring_trouble": adapter.trust.trouble if adapter.trust is not None else "",
    }


def _way(seen: Seen) -> dict[str, Any]:
    chain = [{name: getattr(one, name) for name in one.__slots__} for one in seen.chain]
    tls = {"version": seen.tls, "cipher": seen.cipher, "store": seen.store, "chain": chain}
    return {
        "proxy": {"address": seen.proxy, "from": seen.proxy_from},
        "addresses": list(seen.addresses),
        "peer": seen.peer,
        "tls": tls if any(tls.values()) else None,
        "took_s": {stage: round(took_s, 4) for stage, took_s in seen.took_s.items()},
    }


def _renew(engine: Engine, trust: TrustedKeys, transport: HttpTransport) -> None:
    """Read the keyring's document, and ask its address, as delivery does where the keys do not do."""
    from .rotation import Rotation

    facts, lane = Facts(engine.spool.directory), Lane("")
    facts.refresh()
    lane.failures, lane.reason = 1, UNTRUSTED
    rotation = Rotation(trust, facts, engine.shown_identity.value, looking=True)
    rotation.look(lane)
    rotation.ask(transport, lane, engine.config.request_timeout_s)


def _judged(adapter: Adapter, response: Optional[Response], verdict: Verdict) -> dict[str, Any]:
    signed_by = None
    if response is not None and verdict.timestamp is not None:
        from . import signatures

        signed_by = signatures.verify(response.body, adapter.keys).key_name  # type: ignore[union-attr]
    as_documented = verdict.code == 100 or verdict.reason.lower() == "authentication failure"
    facts = {name: getattr(verdict, name) for name in ("outcome", "reason", "code", "proven")}
    return {
        **facts,
        "signed_by": signed_by,
        "expected": verdict.outcome == HELD and as_documented,
    }


def _drift_s(at: Optional[float], now: float) -> Optional[float]:
    return None if at is None else round(at - now, 1)
