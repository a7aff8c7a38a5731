"""spool: what waits on disk, record by record; bringing it out, in, away, or to its endpoints.

status, list and show change nothing. Whatever a record says is shown with its licence key masked.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING, Any, Optional

from .. import files, looking
from ..errors import EventError
from ..spool.book import UNTRIED
from . import settings, upkeep
from .arguments import UsageError, decimal
from .directory import problem
from .output import (
    Output,
    counted,
    duration,
    facts,
    moment,
    plain,
    printable,
    table,
)
from .progress import Progress
from .result import unknown, waiting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..client import Agent
    from ..config import Config
    from ..spool.record import Record
    from .arguments import Parser

_REPLAY_TIMEOUT_S = 3600.0
_ID_MIN_CHARS = 4
_ANSWERS = 1_000_000  # all that are kept


def add_to(parser: Parser) -> None:
    """``spool`` and the commands below it."""
    spool = parser.command(
        "spool",
        "look after the records that wait",
        "spool status --config product.json\nspool list --json --config product.json\n"
        "spool replay --config product.json",
    )
    config = " --config product.json"
    spool.command("status", "count what waits and say what for", "status" + config, _status)
    spool.command("list", "list every record and dead letter", "list" + config, _list)
    show = spool.command(
        "show", "show one record, its licence key masked", "show 4a94c0de" + config, _show
    )
    show.add_argument("id", metavar="ID", help="an event id, or its first characters")
    replay = spool.command(
        "replay",
        "deliver everything now, without waiting for the backoff",
        "replay%s\nreplay --dead --held%s" % (config, config),
        _replay,
    )
    for name, what in (("--dead", "dead letters too"), ("--held", "ask endpoints that refused us")):
        replay.option(name, action="store_true", default=False, help=what)
    replay.option(
        "--timeout",
        type=decimal,
        default=_REPLAY_TIMEOUT_S,
        metavar="SECONDS",
        help="stop after this long (default %(default)s)",
    )
    export = spool.command(
        "export",
        "write all that waits to a new file, to be carried to a machine with a network",
        "export%s waiting.spool\nexport --move%s waiting.spool" % (config, config),
        _export,
    )
    export.option("--move", action="store_true", default=False, help="and remove it here")
    export.add_argument("file", metavar="FILE", help="must not exist")
    import_ = spool.command(
        "import", "add the records of an exported file", "import%s waiting.spool" % config, _import
    )
    import_.add_argument("file", metavar="FILE")
    purge = spool.command(
        "purge",
        "remove every record that waits and every dead letter, unsent; records of endpoints that the "
        "configuration does not name stay",
        "purge --yes%s\npurge --yes --unknown%s" % (config, config),
        _purge,
    )
    purge.option("--yes", action="store_true", default=False, help="really")
    purge.option(
        "--unknown",
        action="store_true",
        default=False,
        help="those of endpoints that the configuration does not name, too",
    )


def _looking(args: argparse.Namespace, given: Optional[Config]) -> Agent:
    return settings.open_agent(args, given, looking=True)


def _status(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    config = settings.read(args, given).config
    with _looking(args, given) as agent:
        status = looking.status(agent, ask=True)
    status["usage_consent"] = settings.shown_consent(config)
    wrong = problem(*files.state_directory(config, os.environ)) if config.endpoints else None
    if wrong is not None:
        status["trouble"] = {**status["trouble"], "state_dir": wrong[0]}
    heads = ("endpoint", "kind", "pending", "waiting for", "retry in", "reason")
    rows = (
        (
            endpoint["name"],
            endpoint["kind"],
            endpoint["pending"],
            plain(endpoint["waiting"] or endpoint["waits_for"]),
            duration(endpoint["retry_in_s"]) if endpoint["waiting"] else "-",
            plain(endpoint["reason"]),
        )
        for endpoint in status["endpoints"]
    )
    oldest_at = status["oldest_at"]
    shown = {
        name: status[name]
        for name in ("state_dir", "usage_consent", "do_not_track", "pending", "dead", "damaged")
    }
    if config.usage_consent is None:
        shown["usage_consent"] = "not asked yet"
    shown["newer format"] = status["newer"]
    shown["of unknown endpoints"] = dict(sorted(status["unknown_endpoints"].items()))
    shown["oldest"] = duration(time.time() - oldest_at) if oldest_at is not None else None
    shown["bytes"] = status["bytes"]
    shown["locks work"] = status["locks_work"]
    shown["trouble"] = status["trouble"]
    out.answer(status, [*facts(shown), "", *table(heads, rows)])
    return 0


def _entries(agent: Agent) -> Iterator[dict[str, Any]]:
    """Every record on disk, as one flat line each."""
    known, now = {adapter.name for adapter in agent._adapters}, time.time()
    said = {(one["endpoint"], one["event_id"]): one["reason"] for one in agent.history(_ANSWERS)}
    for dead in (False, True):
        for record in agent._spool.records(dead=dead):
            attempts = agent._spool.book.states.get(record.key, UNTRIED)
            state = "dead" if dead else "pending"
            if not dead and record.endpoint not in known:
                state = "unknown endpoint"
            elif not dead and upkeep.is_counting(record):
                state = "counting"
            yield {
                "id": record.id,
                "endpoint": record.endpoint,
                "kind": record.kind,
                "recorded_at": record.at,
                "age_s": round(now - record.at),
                "attempts": attempts.failed,
                "state": state,
                "why": said.get(record.key, "") if dead else "",
            }


def _list(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    with _looking(args, given) as agent:
        entries = list(_entries(agent))
    heads = ("id", "endpoint", "kind", "age", "attempts", "state")
    rows = (
        (
            entry["id"],
            entry["endpoint"],
            entry["kind"],
            duration(entry["age_s"]),
            entry["attempts"],
            "%s: %s" % (entry["state"], entry["why"]) if entry["why"] else entry["state"],
        )
        for entry in entries
    )
    out.answer(entries, table(heads, rows) if entries else [])
    if not entries:
        out.say("nothing waits")
    return 0


def _show(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    if len(args.id) < _ID_MIN_CHARS:
        raise UsageError("ID: give at least %d characters" % _ID_MIN_CHARS)
    with _looking(args, given) as agent:
        found = [
            {"dead": dead, **_shown(record)}
            for dead in (False, True)
            for record in agent._spool.records(dead=dead)
            if record.id.startswith(args.id)
        ]
    if len({record["id"] for record in found}) > 1:
        raise UsageError("ID: several records begin with %r; give more of it" % args.id)
    if not found:
        out.answer([], [])
        out.say("no record %s waits; it may have been delivered: see the command history" % args.id)
        return 1
    lines = []
    for record in found:
        heads = {**record, "recorded_at": moment(record["recorded_at"])}
        body = heads.pop("body")
        lines += [*facts(heads), *("  " + line for line in facts(body)), ""]
    out.answer(found, lines)
    return 0


def _shown(record: Record) -> dict[str, Any]:
    names = {"id": "id", "e": "endpoint", "k": "kind", "at": "recorded_at", "b": "body"}
    value = record.to_json()
    if value["b"].get("license_key"):
        value["b"] = {**value["b"], "license_key": "****"}
    return {long: value[short] for short, long in names.items()}


def _replay(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    def waits_for() -> str:
        if not agent._spool.claimed:
            return "another process is delivering"
        record = agent._delivery.in_flight
        return "nothing moves" if record is None else "no answer from " + record.endpoint

    progress = Progress(waits_for)
    with settings.open_agent(
        args, given, looking=True, on_outcome=lambda outcome: progress.one()
    ) as agent:
        before = agent._spool.census()
        ours = sum(before["pending"].get(adapter.name, 0) for adapter in agent._adapters)
        progress.begin(ours + (before["dead"] if args.dead else 0))
        try:
            report = upkeep.replay(agent, dead=args.dead, held=args.held, timeout_s=args.timeout)
        finally:
            progress.end()
        status = agent.status()
    status["usage_consent"] = settings.shown_consent(settings.read(args, given).config)
    line = "delivered %d, flagged %d, pending %d, dead %d" % (
        report.delivered,
        report.flagged,
        report.pending,
        report.dead,
    )
    left = status["unknown_endpoints"]
    out.answer({**report.to_json(), "unknown_endpoints": left}, [line])
    for reason in waiting(status):
        out.say(reason)
    if left:
        out.say("left alone: %s" % unknown(status))
    return 0 if report.drained else 1


# What says that a file was named wrongly; a full disk, say, is no mistake of whoever typed.
_UNUSABLE = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)


def _wrong_file(path: str, what: str, error: OSError) -> Exception:
    """A ``UsageError`` if the error is about this file, else the error itself."""
    if error.filename != path:
        return error
    exists = isinstance(error, FileExistsError)
    return UsageError(
        printable("%s %s" % (path, what) + ("" if exists else ": %s" % error.strerror))
    )


def _export(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    with _looking(args, given) as agent:
        try:
            n = agent.export_spool(args.file, move=args.move)
        except FileExistsError as error:
            raise _wrong_file(args.file, "exists already; name a new file", error) from None
        except _UNUSABLE as error:
            raise _wrong_file(args.file, "cannot be made", error) from None
    answer = {"records": n, "file": os.path.abspath(args.file), "moved": args.move}
    verb = "moved" if args.move else "copied"
    out.answer(answer, ["%s %s to %s" % (verb, counted(n, "record"), args.file)])
    return 0


def _import(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    with _looking(args, given) as agent:
        try:
            n = agent.import_spool(args.file)
        except EventError as error:
            reason = str(error).partition(": ")[2]
            raise UsageError(printable(reason or error)) from None
        except OSError as error:
            raise _wrong_file(args.file, "cannot be read", error) from None
    out.answer({"records": n}, ["imported %s" % counted(n, "record")])
    if not n:
        out.say("this file was imported before, or holds no record but refused usage")
    return 0


def _purge(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    with _looking(args, given) as agent:
        if not args.yes:
            pending, dead, others = upkeep.removable(agent, unknown=args.unknown)
            raise UsageError(
                "purge would remove %s and %s, unsent and for good"
                % (counted(pending, "waiting record"), counted(dead, "dead letter")),
                *(["It would leave %s." % _others(others)] if others else []),
                "Say --yes to do it, or keep a copy first: spool export FILE",
            )
        removed, dead, left, others = upkeep.purge(agent, unknown=args.unknown)
    answer = {"removed": removed, "dead_removed": dead, "left": left, "unknown_left": others}
    lines = ["removed %s and %s" % (counted(removed, "record"), counted(dead, "dead letter"))]
    out.answer(answer, lines)
    if left:
        out.say("%s of a product that runs now: left" % counted(left, "open counter"))
    if others:
        out.say("left: %s" % _others(others))
    return 0


def _others(n: int) -> str:
    return "%s of endpoints that the configuration does not name; --unknown removes them" % (
        counted(n, "record")
    )
