"""doctor: one line per thing that must work, and what to do about the rest. Sends no record.

It looks at what ``Agent.diagnostics`` finds, which is free of secrets, so its answer can be pasted into a ticket.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from .. import places
from ..errors import SignatureInvalid, Unverifiable
from . import remedies, settings
from .directory import problem
from .output import Output, counted, duration, plain, printable
from .result import CONSENT, refusal, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..config import Config
    from ..engine import Engine
    from .arguments import Parser

# 2024: a clock before that was never set. The newest proven answer may be that much ahead of an honest clock.
_CLOCK_MIN_S = 1_704_067_200
_CLOCK_BEHIND_S = 600


class Check(NamedTuple):
    """One finding; ``advice`` says what to do where it is not ok."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


def add_to(parser: Parser) -> None:
    """``doctor``."""
    doctor = parser.command(
        "doctor",
        "check configuration, state directory, identity, clock, keys, spool and network",
        "doctor --config telemetry.json\ndoctor --no-network --json --config telemetry.json",
        _doctor,
    )
    doctor.option("--no-network", action="store_true", default=False, help="open no socket")


def _doctor(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    config = settings.read(args, given).config
    directory = places.state_directory(config, os.environ)
    checks = [_state_directory(directory)]  # before anything of ours could make it
    with settings.open_agent(args, given, looking=True) as agent:
        found = agent.diagnostics(network=not args.no_network)
        found["status"]["usage_consent"] = settings.shown_consent(config)
        newest = _newest(settings.engine_of(agent))
    checks.insert(0, _configuration(config))
    if config.endpoints:
        checks += [_identity(found["identity"]), _clock(found["status"], newest)]
        checks += [*_keys(config), *_spool(found["status"]), *_network(found.get("network", []))]
    ok = all(check.ok for check in checks)
    lines = []
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark = "FAIL" if not check.ok else "warn" if check.advice else "ok"
        lines.append("%-4s  %s  %s" % (mark, check.name.ljust(width), check.detail))
        if check.advice:
            lines.append(" " * (width + 8) + "-> " + check.advice)
    out.answer(
        {"ok": ok, "checks": [check._asdict() for check in checks], "diagnostics": found},
        map(printable, lines),
    )
    return 0 if ok else 1


def _newest(engine: Engine) -> Optional[float]:
    """The newest timestamp that was signed for us in agreement with this clock; None for never."""
    lanes = (engine.spool.facts.lane(engine.courier.tag(a)) for a in engine.adapters)
    return max((lane.floor for lane in lanes if lane.floor is not None), default=None)


def _configuration(config: Config) -> Check:
    names = [endpoint.name for endpoint in config.endpoints]
    if not names:
        return Check("configuration", True, "no endpoint: the agent is switched off")
    return Check("configuration", True, "endpoints " + ", ".join(names))


def _state_directory(directory: Optional[str]) -> Check:
    name = "state directory"
    wrong = problem(directory)
    if wrong is not None:
        return Check(name, False, *wrong)
    there = os.path.isdir(str(directory))
    return Check(name, True, str(directory) + ("" if there else " (not made yet)"))


def _identity(explained: dict[str, Any]) -> Check:
    detail = "%s, from %s" % (explained["quality"], explained["source"])
    new = not explained["stored"] and explained["path"] is None  # whoever looks stores nothing
    fine = (new or explained["stored"]) and not explained["moved_or_cloned"]
    return Check(
        "identity", fine, detail + " (not stored yet)" * new, " ".join(explained["advice"])
    )


def _clock(status: dict[str, Any], newest: Optional[float]) -> Check:
    now = time.time()
    advice = "set the clock, or let the system do so (NTP)"
    skewed = [e["name"] for e in status["endpoints"] if e["reason"].startswith("skewed")]
    if skewed:
        return Check("clock", False, "disagrees with the signed answers of " + skewed[0], advice)
    if now < _CLOCK_MIN_S:
        return Check("clock", False, "says %d s since 1970: it was never set" % now, advice)
    if newest is not None and newest - now > _CLOCK_BEHIND_S:
        behind = duration(newest - now)
        return Check("clock", False, "%s behind the newest signed answer" % behind, advice)
    return Check("clock", True, "nothing speaks against it")


def _keys(config: Config) -> Iterator[Check]:
    for endpoint in config.endpoints:
        keys = getattr(endpoint, "keys", None)
        if keys is None:
            continue
        name = "keys " + endpoint.name
        if not keys:
            yield Check(
                name, True, "none: any answer is believed", "configure keys, drop allow_unsigned"
            )
        for key in getattr(keys, "keys", keys):
            try:
                key.verify(b"", b"\0" * 64)
            except Unverifiable as error:
                yield Check(
                    name, False, str(error), "ship PyNaCl with the product, or use RSA keys"
                )
            except SignatureInvalid:
                yield Check(name, True, "%s, %s" % (key.name, key.algorithm))


def _spool(status: dict[str, Any]) -> Iterator[Check]:
    trouble = status["trouble"]
    yield Check(
        "spool",
        not trouble,
        plain(trouble) if trouble else "%s waiting" % counted(status["pending"], "record"),
        "free or repair the disk; until then records are kept in memory only" if trouble else "",
    )
    if status["dead"]:
        advice = "see spool list; spool replay --dead tries them again"
        yield Check("dead letters", False, counted(status["dead"], "record"), advice)
    if status["damaged"]:
        advice = "their neighbours are sent; check the disk if this grows"
        yield Check("damage", True, counted(status["damaged"], "damaged line"), advice)
    if not status["locks_work"]:
        advice = "put state_dir on a local disk; here duplicates are possible"
        yield Check("locks", False, "this file system has none", advice)
    left = unknown(status)
    if left:
        advice = "give those endpoints their old name again, or remove the records: " + _PURGE
        yield Check("unknown endpoints", True, left, advice)
    for endpoint in status["endpoints"]:
        if endpoint["waiting"] or (endpoint["reason"] and endpoint["pending"]):
            advice = remedies.for_failure(endpoint["reason"])
            over = not endpoint["waiting"] and "asked to wait" in endpoint["reason"]
            yield Check("waits " + endpoint["name"], over, _waits(endpoint), advice)
        elif endpoint["pending"] and endpoint["waits_for"]:
            detail = "%s, for %s" % (counted(endpoint["pending"], "record"), endpoint["waits_for"])
            advice = refusal(status) if endpoint["waits_for"] == CONSENT else ""
            yield Check("waits " + endpoint["name"], True, detail, advice)


_PURGE = "spool purge --yes --unknown"


def _waits(endpoint: dict[str, Any]) -> str:
    if not endpoint["waiting"]:
        return "until the next delivery: %s" % endpoint["reason"]
    again = duration(endpoint["retry_in_s"])
    return "%s, again in %s: %s" % (endpoint["waiting"], again, endpoint["reason"])


def _network(found: list[dict[str, Any]]) -> Iterator[Check]:
    for endpoint in found:
        name = "network " + endpoint["name"]
        if endpoint["reached"]:
            yield Check(name, True, "%s answers" % endpoint["address"])
            continue
        detail = "%s: %s" % (endpoint["address"], endpoint["reason"])
        yield Check(name, False, detail, remedies.for_network(endpoint["reason"]))
