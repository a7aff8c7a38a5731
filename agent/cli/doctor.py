"""doctor: everything that must work, section by section, and what to do about the rest. Sends no record.

It looks at what ``Agent.diagnostics`` finds, which is free of secrets, so its answer can be pasted into a ticket. What
is made of that stands in ``findings`` and ``way``, how it is shown in ``screen``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, Optional

from .. import files
from . import findings, settings, way
from .output import Output, counted, is_terminal, moment, plain, write
from .screen import Screen, of_stdout

if TYPE_CHECKING:
    from ..client import Agent
    from ..config import Config
    from .arguments import Parser
    from .findings import Check

    Sections = list[tuple[str, list[Check]]]

_LAST_ANSWERS = 10
_AS_ABOVE = "as above"
_WELL = "nothing keeps records from being delivered"
_UNTRIED, _UNASKED = " (API keys were not tried)", " (the network was not tried)"
_ABOUT = """
Each endpoint is asked with a made-up API key and an empty record. A licence
server must refuse that, signed: this proves the way there, the server, its
key and the clock, sends no secret and stores nothing. Your API key itself is
not tried: the last answers tell about it. Of Reo.Dev the address for single
events is asked. It takes at most request_timeout_s for each endpoint.

Exit status 1 where anything would keep a record from being delivered;
warnings are none of that. --json may be pasted into a ticket: no keys, no
passwords, but host names, paths and the user identifier."""


def add_to(parser: Parser) -> None:
    """``doctor``."""
    doctor = parser.command(
        "doctor",
        "check configuration, state directory, identity, clock, network, keys and spool",
        "doctor --config product.json\ndoctor --no-network --config product.json\n"
        "doctor --json --config product.json",
        _doctor,
    )
    doctor.description = "%s\n%s" % (doctor.description, _ABOUT)
    doctor.option("--no-network", action="store_true", default=False, help="open no socket")


def _doctor(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    told = settings.read(args, given)
    config = told.config
    place = files.state_directory(config, os.environ)
    with settings.open_agent(args, given, looking=True) as agent:
        found = _looked_at(agent, config, not args.no_network)
        sections = _sections(agent, config, place, found)
    licence = findings.licence(told.license_key, told.activation_identifier, found["history"])
    sections[0][1].extend(licence)
    checks = [(section, check) for section, checks in sections for check in checks]
    ok = all(check.ok for _, check in checks)
    value = {
        "ok": ok,
        "checks": [{"section": s, "mark": c.mark, **c._asdict()} for s, c in checks],
        "diagnostics": found,
    }
    screen = of_stdout(os.environ, as_json=out.as_json)
    out.answer(value, _lines(screen, sections, found))
    return 0 if ok else 1


def _looked_at(agent: Agent, config: Config, network: bool) -> dict[str, Any]:
    """The diagnostics, while a person who waits is told for what."""
    addresses = ", ".join(dict.fromkeys(endpoint.base_url for endpoint in config.endpoints))
    text = "asking %s, for at most %g s each" % (addresses, config.request_timeout_s)
    text = text[: shutil.get_terminal_size().columns - 1] + "\r"
    shown = sys.stderr if addresses and network and is_terminal(sys.stderr) else None
    write(shown, text, end="")
    try:
        return agent.diagnostics(network=network)
    finally:
        write(shown, " " * (len(text) - 1) + "\r", end="")


def _sections(
    agent: Agent, config: Config, place: tuple[Optional[str], str], found: dict[str, Any]
) -> Sections:
    """All findings, in the order of a delivery; ``place``: the state directory, or why there is none."""
    status, now = found["status"], time.time()
    status["usage_consent"] = settings.shown_consent(config)
    sections = [("configuration", list(findings.configuration(config, status, found)))]
    if not config.endpoints:
        return sections
    network = found.get("network", [])
    lanes = [agent._delivery.lane_of(adapter.name) for adapter in agent._adapters]
    machine = list(findings.state(*place, config, status))
    machine.append(findings.identity(found["identity"]))
    machine.append(findings.clock(status, lanes, network, now))
    sections.append(("machine", machine))
    for number, endpoint in enumerate(config.endpoints):
        shown = status["endpoints"][number]
        checks = list(findings.keys(endpoint, shown["keyring"]))
        if network:
            checks += way.findings(network[number])
        sections.append((endpoint.name, checks))
    return [*sections, ("records", list(findings.spool(status, network, now)))]


def _lines(screen: Screen, sections: Sections, found: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    marks: list[str] = []
    told: set[str] = set()
    addresses = {endpoint["name"]: endpoint["address"] for endpoint in found["status"]["endpoints"]}
    width = max(len(_name(title, check)) for title, checks in sections for check in checks)
    for title, checks in sections:
        address = addresses.get(title)
        lines += screen.heading("%s: %s" % (title, address) if address else title)
        for check in checks:
            marks.append(check.mark)
            name = _name(title, check)
            advice = _AS_ABOVE if check.advice in told else check.advice
            told.add(check.advice or _AS_ABOVE)
            lines += screen.finding(check.mark, name, check.detail, advice, width)
    history = found["history"]
    if history:
        lines += screen.heading("last answers, newest first")
        for answer in reversed(history[-_LAST_ANSWERS:]):
            lines += screen.text(_answer(answer), indent=2, more=4)
    failures, warnings = marks.count("FAIL"), marks.count("warn")
    well = _WELL + (_UNTRIED if "network" in found else _UNASKED * bool(addresses))
    result = counted(failures, "failure") if failures else well
    return [*lines, *screen.heading("%s, %s" % (result, counted(warnings, "warning")))]


def _name(title: str, check: Check) -> str:
    """Without the endpoint's name, which stands above it."""
    return check.name[: -len(title) - 1] if check.name.endswith(" " + title) else check.name


def _answer(answer: dict[str, Any]) -> str:
    at = answer.get("at")
    when = moment(at) if isinstance(at, (int, float)) else "-"
    told = [answer.get(name) for name in ("endpoint", "verdict", "code")]
    reason = plain(answer["errors"]) if answer.get("errors") else answer.get("reason")
    return "  ".join([when, *(plain(one) for one in (*told, reason) if one)])
