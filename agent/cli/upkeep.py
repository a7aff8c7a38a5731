"""Purging and replaying: what it takes to do so without hurting a product that runs at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..lanes import BACKOFF, HELD
from ..looking import claimed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..client import Agent
    from ..spool.record import Record
    from ..values import DeliveryReport


def replay(agent: Agent, *, dead: bool, held: bool, timeout_s: float) -> DeliveryReport:
    """Deliver what waits, whatever backoff says; ``dead`` letters and endpoints that ``held`` us off too, if asked for.

    Raises ``TimeoutError`` while another process delivers and dead letters are to come back.
    """
    if dead:
        with claimed(agent):
            agent._spool.revive()
    return agent._flush(timeout_s, skip=(BACKOFF, HELD) if held else (BACKOFF,))


def is_counting(record: Record) -> bool:
    """Whether its writer may still add to it: a counter whose window nobody has closed yet."""
    return record.kind == "aggregate" and record.ended_at is None


def removable(agent: Agent, *, unknown: bool) -> tuple[int, int, int]:
    """(records that wait, dead letters, records left as their endpoints are unknown)."""
    found = {False: 0, True: 0}
    others = 0
    for dead, record in _all(agent):
        if unknown or _is_known(agent, record):
            found[dead] += 1
        else:
            others += 1
    return found[False], found[True], others


def purge(agent: Agent, *, unknown: bool) -> tuple[int, int, int, int]:
    """Settle what is unsent; (records removed, dead letters removed, open counters left, records of others left).

    Records of endpoints that this configuration does not name may be another version's: they go with ``unknown``.
    Under the deliverer's lock, so that nothing is in flight. A counter that a living process still adds to is its
    writer's. Raises ``TimeoutError`` while another process delivers.
    """
    with claimed(agent):
        closed = {record.key for record in agent._spool.waiting(())}
        going: dict[bool, list[Record]] = {False: [], True: []}
        left = others = 0
        for dead, record in _all(agent):
            if not unknown and not _is_known(agent, record):
                others += 1
            elif dead or record.key in closed:
                going[dead].append(record)
            else:
                left += 1
        for records in going.values():
            agent._spool.drop(records, why="purge")
    agent._spool.lost("purged", sum(map(len, going.values())))
    return len(going[False]), len(going[True]), left, others


def _all(agent: Agent) -> Iterator[tuple[bool, Record]]:
    """(whether it is a dead letter, record) of all that is unsent."""
    for dead in (False, True):
        for record in agent._spool.records(dead=dead):
            yield dead, record


def _is_known(agent: Agent, record: Record) -> Any:
    return any(adapter.name == record.endpoint for adapter in agent._adapters)
