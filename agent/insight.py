"""Looking without touching: status, preview, diagnostics. Nothing here sends, settles or creates anything.

Everything returned is JSON-ready and free of secrets, so that it can be pasted into a ticket.
"""

from __future__ import annotations

import sys

from . import flushing
from .checks import masked
from .endpoints import Capture
from .origin import WAIT_S
from .routes import CONSENT, ORIGIN
from .spool.backlog import Backlog
from .spool.facts import Facts
from .version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from .engine import Engine
    from .licensing import Licence
    from .routes import Adapter
    from .spool.facts import Lane
    from .spool.records import Record

_PURPOSES = {
    "licence": "licence telemetry",
    "usage": "usage event",
    "aggregate": "aggregated usage",
}
_LICENCE_HIDDEN = "****"


def status(
    engine: Engine, licence: Optional[Licence] = None, *, ask: bool = False
) -> dict[str, Any]:
    """See ``Agent.status``; with ``ask`` the local resolver may be asked whose usage it is, for a second."""
    waiting = flushing.census(engine)
    known = [adapter.name for adapter in engine.adapters]
    pending, strays = waiting.pop("pending"), waiting.pop("strays")
    for adapter in engine.usage_adapters:
        if adapter.origin(ask=False, wait_s=WAIT_S * (ask and adapter.name in strays)):
            strays.discard(adapter.name)
    spool = engine.spool
    trouble = {
        "spool": spool.trouble or waiting["trouble"] or spool.backlog.ledger.trouble,
        "facts": spool.facts.trouble,
        "worker": engine.worker.trouble,
        "licence": licence.trouble if licence is not None else "",
    }
    del waiting["trouble"]
    return {
        **engine.outline(),
        "pending": sum(pending.get(name, 0) for name in known),
        "unknown_endpoints": {n: count for n, count in pending.items() if n not in known},
        **waiting,
        "endpoints": [
            _endpoint(engine, a, pending.get(a.name, 0), a.name in strays) for a in engine.adapters
        ],
        "trouble": {where: what for where, what in trouble.items() if what},
    }


def _endpoint(engine: Engine, adapter: Adapter, pending: int, stray: bool) -> dict[str, Any]:
    config = next(e for e in engine.config.endpoints if e.name == adapter.name)
    lane = _lane(engine, adapter)
    remaining_s = lane.remaining_s(engine.clock.time())
    route = engine.courier.delivery.routes[adapter.name] if engine.courier.delivery else None
    parked = ORIGIN if stray else route.parked if route else ""
    return {
        "name": adapter.name,
        "kind": "usage" if adapter.usage else "licence",
        "address": config.base_url,
        "signed": adapter.signed,
        "pending": pending,
        "waiting": lane.wait if remaining_s else "",
        "waits_for": _waits_for(engine, adapter, pending) or parked,
        "retry_in_s": round(remaining_s),
        "reason": lane.reason,
        "failures": lane.failures,
        "proven": lane.proven,
        "keyring": _keyring(engine, adapter),
    }


def _keyring(engine: Engine, adapter: Adapter) -> Optional[dict[str, Any]]:
    """Which keys of a keyring are in force, None where the keys are fixed."""
    if adapter.trust is None:
        return None
    from . import rotation

    facts = Facts(engine.spool.directory)
    facts.refresh()
    user = engine.shown_identity.value
    return rotation.shown(adapter.trust, facts, user, engine.clock.time())


def _waits_for(engine: Engine, adapter: Adapter, pending: int) -> str:
    """What of ours pending records wait for, as far as that is known without a pass."""
    if not adapter.usage or not pending:
        return ""
    if engine.do_not_track or engine.consent is None or engine.consent is False:
        return CONSENT
    return ""


def _lane(engine: Engine, adapter: Adapter) -> Lane:
    """The state of an endpoint, read afresh: the deliverer's own lanes belong to its thread."""
    spool, tag = engine.spool, engine.courier.tag(adapter)
    facts = Facts(spool.directory, engine.clock)
    facts.refresh()
    if spool.directory is None or spool.facts.trouble:
        return spool.facts.lane(tag)  # what the disk does not know
    return facts.lane(tag)


def preview(engine: Engine, licence: Licence, *, samples: bool) -> list[dict[str, Any]]:
    """See ``Agent.preview``."""
    adapters = {adapter.name: adapter for adapter in engine.adapters}
    reading = Backlog(engine.spool.directory, engine.spool.memory)
    reading.refresh()
    settled = engine.spool.backlog.ledger.is_settled
    counted = {record.key: record for record in engine.counting.open_windows()}
    in_memory = [record for record in counted.values() if not record.segment]
    requests = []
    for record in [*reading.records(), *in_memory]:
        adapter = adapters.get(record.endpoint)
        if adapter is None or adapter.usage != record.usage or settled(record.key):
            continue
        if engine.gate(record) != "open":
            continue
        if record.kind == "aggregate" and not _has_origin(record, adapter):
            continue
        if record.key in counted:
            now = counted[record.key].body
            record.body = {**record.body, "count": now["count"], "meta": now["meta"]}
        requests.append(_shown(engine, adapter, record.kind, record.body, record.id))
    if samples and adapters:
        requests.extend(_samples(engine, licence))
    return requests


def _has_origin(record: Record, adapter: Adapter) -> bool:
    """Whether an aggregated event could be sent: otherwise it waits, and is no next request."""
    known = record.body.get("domain") or record.body.get("ip_addr")
    return bool(known or adapter.origin(ask=False))  # type: ignore[union-attr]


def _shown(
    engine: Engine, adapter: Adapter, kind: str, body: dict[str, Any], id: str, sample: bool = False
) -> dict[str, Any]:
    request = adapter.request(kind, body, event_id=id, now=engine.clock.time(), mask=True)
    return {
        "endpoint": adapter.name,
        "purpose": _PURPOSES[kind],
        "method": request.method,
        "url": request.url,
        # The transport adds these two, and the length of the body.
        "headers": {
            "Host": request.url.split("/")[2],
            **request.headers,
            "Accept-Encoding": "identity",
        },
        "body": request.body.decode("utf-8", "replace"),
        "event_ids": [id],
        "sample": sample,
    }


def _samples(engine: Engine, licence: Licence) -> list[dict[str, Any]]:
    key, activation_identifier = licence.read()
    now, id = engine.clock.time(), "0" * 32
    source = Capture(id, now, engine.shown_identity.value, key, activation_identifier)
    found: list[tuple[Adapter, str, dict[str, Any]]] = []
    for adapter in engine.licence_adapters:
        for body in (
            adapter.call_home(source),
            adapter.value(source, "3.2", "export-seconds"),
            adapter.point(source, "1", "2", "canvas"),
            adapter.text(source, "opengl", "renderer"),
        ):
            found.append((adapter, "licence", body))
    for reo in engine.usage_adapters:
        user = source.user_identifier
        event = reo.track(
            source, "EXPORT", user_id=user, user_id_type="USERNAME", ip_addr=None, meta=None
        )
        total = reo.aggregate("RENDER", 12, id, now - engine.config.count_window_s, now)
        found += [
            (reo, "usage", reo.call_home(source)),
            (reo, "usage", event),
            (reo, "aggregate", total),
        ]
    return [_shown(engine, adapter, kind, body, id, True) for adapter, kind, body in found]


def show(record: Record) -> dict[str, Any]:
    """One record for a person, its licence key masked."""
    value = record.to_json()
    if value["b"].get("license_key"):
        value["b"] = {**value["b"], "license_key": _LICENCE_HIDDEN}
    return value


def diagnostics(
    engine: Engine, licence: Optional[Licence] = None, *, network: bool
) -> dict[str, Any]:
    """See ``Agent.diagnostics``."""
    from . import identity

    config = engine.config
    names = engine.identity_names
    if config.endpoints and not engine.shown_identity.stored:
        names["state_dir"] = None  # looking leaves no trace
    settings = {name: getattr(config, name) for name in config.__slots__}
    settings["endpoints"] = [repr(endpoint) for endpoint in config.endpoints]
    settings["usage_consent"] = "callable" if callable(engine.consent) else engine.consent
    settings["proxy"] = masked(config.proxy) if config.proxy else None
    settings["proxy_auth"] = "****" if config.proxy_auth else None
    settings["detached_command"] = list(config.detached_command)
    found = {
        "version": VERSION,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "implementation": sys.implementation.name,
        "platform": sys.platform,
        "frozen": bool(getattr(sys, "frozen", False)) or "__compiled__" in globals(),
        "configuration": settings,
        "identity": identity.explain(**names) if config.endpoints else None,
        "status": status(engine, licence, ask=network),
        "history": engine.spool.history.last(10),
    }
    if network:
        from .probing import probe

        found["network"] = [probe(engine, a.name, _lane(engine, a)) for a in engine.adapters]
    return found
