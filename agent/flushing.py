"""What a caller waits for: flush, export, import, erase, bringing back dead letters.

These run on the caller's thread and may take their time; recording never comes here.
"""

from __future__ import annotations

import os

from . import files, places
from .outcomes import DeliveryReport
from .spool import facts, lines, names, transfer
from .spool.backlog import Backlog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from .config import Config
    from .engine import Engine

# Asking again for a lock that somebody else holds.
_RETRY_S = 0.05


def flush(
    engine: Engine, timeout_s: float, *, skip: tuple[str, ...] = (facts.BACKOFF,)
) -> DeliveryReport:
    """Deliver what waits; ``skip`` names the kinds of waiting to ignore."""
    before = _totals(engine)
    over = engine.closed or engine.exiting
    if engine.config.endpoints and not over and not engine.courier.is_current:
        engine.hook()
        engine.counting.keep(end=True)
        here = engine.config.deliver == "manual" or engine.worker.is_current
        try:
            (_deliver_here if here else _deliver_there)(engine, timeout_s, skip)
            engine.spool.note("delivery")
        except Exception as error:  # no descriptor to load a module with, or a defect of ours
            engine.spool.note("delivery", error)
    return _report(engine, before)


def _deliver_there(engine: Engine, timeout_s: float, skip: tuple[str, ...]) -> None:
    request = engine.courier.ask(skip)
    engine.worker.ring()
    if engine.closed or engine.exiting:
        return  # by another thread, after we asked
    if engine.worker.running:
        request.wait(timeout_s)
    else:  # no thread can be started here
        _deliver_here(engine, timeout_s, skip)


def _deliver_here(engine: Engine, timeout_s: float, skip: tuple[str, ...]) -> None:
    import time

    # Real seconds, whatever clock was given: the caller waits in real time.
    ends_at = time.monotonic() + timeout_s
    limit_s = engine.config.request_timeout_s

    def left_s() -> float:
        return min(limit_s, ends_at - time.monotonic())

    while not engine.courier.deliver(skip=skip, timeout_s=left_s):
        if left_s() <= 0:
            raise TimeoutError("another process, or thread, was delivering all the time")
        time.sleep(min(_RETRY_S, max(0.0, left_s())))


def _totals(engine: Engine) -> tuple[int, int, int]:
    totals = engine.courier.totals
    return (totals.delivered, totals.flagged, totals.untrusted) if totals else (0, 0, 0)


def _report(engine: Engine, before: tuple[int, int, int]) -> DeliveryReport:
    delivered, flagged, untrusted = (now - then for now, then in zip(_totals(engine), before))
    waiting = census(engine)
    known = {adapter.name for adapter in engine.adapters}
    pending = {name: n for name, n in waiting["pending"].items() if name in known}
    held = 0
    if engine.courier.delivery is not None:
        routes = engine.courier.delivery.routes
        held = sum(n for name, n in pending.items() if routes[name].lane.wait == facts.HELD)
    return DeliveryReport(
        delivered=delivered,
        flagged=flagged,
        pending=sum(pending.values()),
        held=held,
        dead=waiting["dead"],
        untrusted=untrusted,
        drained=not any(pending.values()),
    )


def census(engine: Engine) -> dict[str, Any]:
    """What is on disk and in memory, counted afresh: pending by endpoint, dead, damaged, newer, bytes."""
    spool = engine.spool
    reading = Backlog(spool.directory, spool.memory)
    reading.refresh()
    pending: dict[str, int] = {}
    oldest_at: Optional[float] = None
    epoch = spool.consent.current()
    usage_of = {adapter.name: adapter.usage for adapter in engine.adapters}
    settled = spool.backlog.ledger.is_settled  # where the disk refused to write it down
    strays: set[str] = set()  # endpoints for which an aggregated event knows no origin yet
    dead = damaged = newer = size = segments = 0
    # One may lie in several segments; the keys would take four times the room.
    seen: set[int] = set()
    views = reading.views()
    view = next(views, None)
    while True:
        for record in reading.unsettled(view):  # None at last: in memory
            if hash(record.key) in seen:
                continue
            seen.add(hash(record.key))
            if record.why:
                dead += 1
            elif record.epoch >= epoch * record.usage and not settled(record.key):
                name = record.endpoint
                if usage_of.get(name, record.usage) != record.usage:
                    name += " (%s)" % record.kind  # was another kind of server once
                pending[name] = pending.get(name, 0) + 1
                known = record.body.get("domain") or record.body.get("ip_addr")
                if record.kind == "aggregate" and not known:
                    strays.add(name)
                oldest_at = record.at if oldest_at is None else min(oldest_at, record.at)
        if view is None:
            break
        segments += 1
        damaged += len(view.damaged)
        newer += view.newer
        view = next(views, None)
    if spool.directory is not None:
        size, set_aside = _sizes(spool.directory)
        damaged += set_aside
    return {
        "pending": pending,
        "strays": strays,
        "dead": dead,
        "damaged": damaged,
        "newer": newer,
        "segments": segments,
        "bytes": size,
        "in_memory": len(spool.memory),
        "oldest_at": oldest_at,
        "trouble": reading.trouble or reading.ledger.trouble,
    }


def _sizes(directory: str) -> tuple[int, int]:
    """(bytes of all our files, damaged lines that were set aside)."""
    size = set_aside = 0
    try:
        for name in os.listdir(directory):
            if names.is_ours(name):
                size += os.lstat(os.path.join(directory, name)).st_size
        set_aside = files.read(os.path.join(directory, names.DAMAGED), 1 << 20).count(b"\n")
    except OSError:
        pass
    return size, set_aside


def export(engine: Engine, path: Any, *, move: bool) -> int:
    """See ``Agent.export_spool``."""
    path = transfer.path_of(path)
    engine.counting.keep(end=True)
    spool = engine.spool
    with _claimed(engine):
        spool.backlog.refresh()
        epoch = spool.consent.current()
        waiting = [
            record
            for record in spool.backlog.records()
            if spool.backlog.is_closed(record) and (not record.usage or record.epoch >= epoch)
        ]
        origin = facts.Facts(spool.directory).origin(create=True)
        written = transfer.write_export(path, waiting, at=engine.clock.time(), origin=origin)
        if move:
            for record in written:
                spool.backlog.ledger.end(record, settled=True)
                spool.backlog.forget_memory(record)
            engine.count_lost("exported", len(written))
            for _ in spool.backlog.records():
                pass  # reaps what is done
    return len(written)


def import_(engine: Engine, path: Any) -> int:
    """See ``Agent.import_spool``."""
    found = transfer.read_export(path)
    taken = transfer.put_import(engine.spool, found, refused=_refuses(engine.consent))
    if not taken:
        return 0
    engine.news()
    if engine.closed:
        engine.spool.seal()
    else:
        engine.hook()
        engine.wake()
    return taken


def _refuses(consent: Any) -> bool:
    """Whether usage may not be taken in; ``DO_NOT_TRACK`` says nothing of that."""
    try:
        return consent() is not True if callable(consent) else consent is False
    except (Exception, SystemExit):
        return True


def replay(engine: Engine, *, dead: bool, held: bool, timeout_s: float) -> DeliveryReport:
    """Deliver now; with ``dead`` the dead letters too, with ``held`` to endpoints that refused us."""
    if dead:
        spool = engine.spool
        with _claimed(engine):
            spool.backlog.refresh()
            for record in list(spool.backlog.records(dead=True)):
                if spool.revive(record):
                    spool.backlog.ledger.end(record, settled=True)
            for _ in spool.backlog.records(dead=True):
                pass  # reaps what is done
    skip = (facts.BACKOFF, facts.HELD) if held else (facts.BACKOFF,)
    return flush(engine, timeout_s, skip=skip)


class _claimed:
    """The deliverer's lock, waited for."""

    def __init__(self, engine: Engine, wait_s: float = 5.0) -> None:
        self._engine, self._wait_s = engine, wait_s

    def __enter__(self) -> None:
        import time

        ends_at = time.monotonic() + self._wait_s
        while not self._engine.courier.take():
            if time.monotonic() > ends_at:
                raise TimeoutError("another process is delivering; try again")
            time.sleep(_RETRY_S)

    def __exit__(self, *unused: object) -> None:
        self._engine.courier.give_back()


def erase(config: Config) -> list[str]:
    """Remove every file of ours by its known name; the paths that remain.

    Follows no link, creates nothing, leaves foreign files and a directory that holds any.
    """
    directory = places.state_directory(config, os.environ)
    if directory is None or not os.path.lexists(directory):
        return []
    if os.path.islink(directory) or not os.path.isdir(directory):
        return [directory]  # not made by us, and not followed
    try:
        found = sorted(filter(names.is_ours, os.listdir(directory)))
    except OSError:
        return [directory]
    remaining = []
    for name in found:
        path = os.path.join(directory, name)
        if lines.is_foreign(path) or not files.remove(path):
            remaining.append(path)
    try:
        for _ in range(3 if config.state_dir is None else 1):
            os.rmdir(directory)
            directory = os.path.dirname(directory)  # of the product, of the vendor
    except OSError:
        pass
    return remaining
