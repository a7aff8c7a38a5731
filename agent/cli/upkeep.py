"""Purging: what it takes to remove unsent records without hurting a product that runs at the same time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engine import Engine

_WAIT_S = 5.0
_RETRY_S = 0.05


def removable(engine: Engine, *, unknown: bool) -> tuple[int, int, int]:
    """(records that wait, dead letters, records left as their endpoints are unknown)."""
    from ..spool.backlog import Backlog

    reading = Backlog(engine.spool.directory, engine.spool.memory)
    reading.refresh()
    known = _known(engine)
    found = [0, 0]
    others = 0
    for dead in (False, True):
        for record in reading.records(dead=dead):
            if unknown or record.endpoint in known:
                found[dead] += 1
            else:
                others += 1
    return found[0], found[1], others


def purge(engine: Engine, *, unknown: bool) -> tuple[int, int, int, int]:
    """Settle what is unsent; (records removed, dead letters removed, open counters left, records of others left).

    Records of endpoints that this configuration does not name may be another version's: they go with ``unknown``.
    Under the deliverer's lock, so that nothing is in flight. A counter that a living process still adds to is its
    writer's. Raises ``TimeoutError`` while another process delivers.
    """
    ends_at = time.monotonic() + _WAIT_S
    while not engine.courier.take():
        if time.monotonic() > ends_at:
            raise TimeoutError("another process is delivering; try again")
        time.sleep(_RETRY_S)
    try:
        backlog = engine.spool.backlog
        backlog.refresh()
        known = _known(engine)
        found = [0, 0]
        left = others = 0
        for dead in (False, True):
            for record in list(backlog.records(dead=dead)):
                if not unknown and record.endpoint not in known:
                    others += 1
                elif backlog.is_closed(record):
                    backlog.ledger.end(record, settled=True)
                    found[dead] += 1
                else:
                    left += 1
            for _ in backlog.records(dead=dead):
                pass  # reaps what is done
        engine.count_lost("purged", sum(found))
        return found[0], found[1], left, others
    finally:
        engine.courier.give_back()


def _known(engine: Engine) -> set[str]:
    return {adapter.name for adapter in engine.adapters}
