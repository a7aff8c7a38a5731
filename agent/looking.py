"""Looking without touching: status, preview, diagnostics; and what hands do: ``claimed``, ``erase``.

What is shown is read afresh, as delivery would read it, and holds no secret: it can be pasted into a ticket.
"""

from __future__ import annotations

import os
import sys
from time import sleep

from . import TYPE_CHECKING, __version__, files
from .clock import monotonic
from .errors import part
from .lanes import CONSENT, ORIGIN
from .spool import segment
from .spool.record import Record
from .values import Capture

if TYPE_CHECKING:
    from typing import Any, Optional

    from .client import Agent
    from .config import Config
    from .verdicts import Adapter

_PURPOSES = {
    "licence": "licence telemetry",
    "usage": "usage event",
    "aggregate": "aggregated usage",
}
# What a licence server may be told, by the method that makes it.
_SAMPLES = {
    "call_home": (),
    "value": ("3.2", "export-seconds"),
    "point": ("1", "2", "canvas"),
    "text": ("opengl", "renderer"),
}
_HIDDEN = "****"
# How long whoever delivers is waited for, and how often it is asked.
CLAIM_S, CLAIM_AGAIN_S = 5.0, 0.05


def status(agent: Agent, *, ask: bool = False) -> dict[str, Any]:
    """See ``Agent.status``; with ``ask`` a vendor's callable may be asked whose usage it is."""
    found, spool, config = agent._spool.census(), agent._spool, agent._config
    pending, strays, unread = (found.pop(name) for name in ("pending", "strays", "trouble"))
    known = [adapter.name for adapter in agent._adapters]
    trouble = {"spool": "; ".join({**spool.trouble, **unread}.values())}
    trouble["licence"] = agent._licence.trouble
    return {
        "version": __version__,
        "enabled": bool(config.endpoints),
        "closed": agent._worker.closed,
        "state_dir": spool.directory,
        "usage_consent": _consent(agent),
        "do_not_track": agent._do_not_track,
        "pending": sum(pending.get(name, 0) for name in known),
        "unknown_endpoints": {n: count for n, count in pending.items() if n not in known},
        **found,
        "locks_work": spool.book.alone,
        "not_recorded": dict(spool.not_recorded),
        "endpoints": [
            _endpoint(agent, one, pending.get(one.name, 0), ask if one.name in strays else None)
            for one in agent._adapters
        ],
        "trouble": {where: what for where, what in trouble.items() if what},
    }


def _consent(agent: Agent) -> Any:
    return "callable" if callable(agent._consent) else agent._consent


def _endpoint(agent: Agent, adapter: Any, pending: int, strays: Optional[bool]) -> dict[str, Any]:
    """``strays``: None without sums of unknown origin, else whether that may be asked for."""
    lane, now = agent._delivery.lane_of(adapter.name), agent._clock.time()
    remaining_s, waits_for = lane.remaining_s(now), ""
    if adapter.usage and pending and agent._usage_stopped:
        waits_for = CONSENT
    elif strays is not None and not adapter.origin(ask=strays):
        waits_for = ORIGIN
    return {
        "name": adapter.name,
        "kind": "usage" if adapter.usage else "licence",
        "address": adapter.address,
        "signed": adapter.signed,
        "pending": pending,
        "waiting": lane.wait if remaining_s else "",
        "waits_for": waits_for,
        "retry_in_s": round(remaining_s),
        "reason": lane.reason,
        "failures": lane.failures,
        "proven": bool(lane.proven_at),
        "keyring": adapter.trust and adapter.trust.report(now, agent._spool),
    }


def preview(agent: Agent, *, samples: bool) -> list[dict[str, Any]]:
    """See ``Agent.preview``."""
    counted = {record.key: record for record in agent._counters.open_windows()}
    for record in counted.values():  # as if they ended now, and were written
        record.body["meta"]["window_end"] = int(agent._clock.time())
        record.epoch = record.epoch or agent._spool.consent.current()
    waiting = [counted.pop(one.key, one) for one in agent._spool.records()]
    requests = []
    for record in [*waiting, *counted.values()]:
        lane: Any = agent._delivery.lane_for(record)
        if lane is None or not agent._gate(record):
            continue
        if record.stray and not lane.adapter.origin(ask=False):
            continue  # it waits, and is no next request
        requests.append(_request(agent, lane.adapter, record))
    return requests + (_samples(agent) if samples and agent._adapters else [])


def _request(agent: Agent, adapter: Adapter, record: Record, sample: bool = False) -> Any:
    request = adapter.request(record, now=agent._clock.time(), mask=True)
    host = request.url.split("/")[2]
    return {
        "endpoint": adapter.name,
        "purpose": _PURPOSES[record.kind],
        "method": request.method,
        "url": request.url,
        # The first and the last are the transport's, and so is the length.
        "headers": {"Host": host, **request.headers, "Accept-Encoding": "identity"},
        "body": request.body.decode("utf-8", "replace"),
        "event_ids": [record.id],
        "sample": sample,
    }


def _samples(agent: Agent) -> list[dict[str, Any]]:
    now, id = agent._clock.time(), "0" * 32
    capture = Capture(id, now, agent._identify(store=False).value, *agent._licence.read())
    found: list[tuple[Adapter, str, dict[str, Any]]] = []
    for server in agent._servers:
        for how, given in _SAMPLES.items():
            found.append((server, "licence", getattr(server, how)(capture, *given)))
    for reo in agent._collectors:
        began_at = now - agent._config.count_window_s
        found += [
            (reo, "usage", reo.call_home(capture)),
            (reo, "usage", reo.track(capture, "EXPORT")),
            (reo, "aggregate", reo.aggregate("RENDER", 12, id, began_at, now)),
        ]
    return [
        _request(agent, adapter, Record(kind, adapter.name, id, now, body), sample=True)
        for adapter, kind, body in found
    ]


def diagnostics(agent: Agent, *, network: bool) -> dict[str, Any]:
    """See ``Agent.diagnostics``."""
    from . import identity

    probing: Any = part("cli", "diagnostics(network=True)").probing if network else None
    config = agent._config
    settings: dict[str, Any] = dict(vars(config))
    settings["endpoints"] = [repr(endpoint) for endpoint in config.endpoints]
    settings["usage_consent"] = _consent(agent)
    settings["proxy"] = _masked(config.proxy)
    settings["proxy_auth"] = _HIDDEN if config.proxy_auth else None
    settings["detached_command"] = list(config.detached_command)
    found = {
        "version": __version__,
        "python": "%d.%d.%d" % sys.version_info[:3],
        "implementation": sys.implementation.name,
        "platform": sys.platform,
        "frozen": bool(getattr(sys, "frozen", False)) or "__compiled__" in globals(),
        "configuration": settings,
        "identity": (
            identity.explain(**agent._identity_names(), store=False) if config.endpoints else None
        ),
        "status": status(agent, ask=network),
        "history": agent._spool.history(10),
    }
    if network:
        found["network"] = [probing.probe(agent, adapter) for adapter in agent._adapters]
    return found


def _masked(proxy: Optional[str]) -> Optional[str]:
    """A proxy's address without the user and the password in it."""
    scheme, _, rest = (proxy or "").rpartition("://")
    return "%s://****@%s" % (scheme, rest.rpartition("@")[2]) if "@" in rest else proxy


class claimed:
    """``with claimed(agent): ...``: the deliverer's place; raises ``TimeoutError``."""

    def __init__(self, agent: Agent) -> None:
        self._delivery = agent._delivery

    def __enter__(self) -> None:
        ends_at = monotonic() + CLAIM_S
        while not self._delivery.take():
            if monotonic() > ends_at:
                raise TimeoutError("another process is delivering; try again")
            sleep(CLAIM_AGAIN_S)

    def __exit__(self, *unused: object) -> None:
        self._delivery.give_back()


def erase(config: Config) -> list[str]:
    """Remove everything that this configuration's agents keep on disk; the paths that remain.

    Removes files by known name only, follows no link, creates nothing, leaves a directory with foreign files.
    """
    from .config import Config
    from .errors import mistake

    if not isinstance(config, Config):
        raise mistake("config", config, "a Config")
    directory, trouble = files.state_directory(config, os.environ)
    for ending in (" is a link", " belongs to another user"):
        if trouble.endswith(ending):
            return [trouble[: -len(ending)]]
    if directory is None or not os.path.lexists(directory):
        return []
    try:
        paths = sorted(segment.paths(directory))
    except OSError:
        return [directory]
    remaining = [path for path in paths if not files.remove(path)]
    for path in remaining:  # on Windows somebody has it open: at least nothing is left in it
        segment.end(path)
    try:
        for _ in range(3 if config.state_dir is None else 1):
            os.rmdir(directory)
            directory = os.path.dirname(directory)  # of the product, of the vendor
    except OSError:
        pass
    return remaining
