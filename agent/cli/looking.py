"""preview and history: what would be sent, what was answered. Neither opens a socket nor changes a record."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any, Optional

from . import settings
from .arguments import UsageError, whole
from .output import Output, moment, plain, table
from .screen import of_stdout

if TYPE_CHECKING:
    from ..config import Config
    from .arguments import Parser


def add_to(parser: Parser) -> None:
    """The commands that show what goes out and what came back."""
    preview = parser.command(
        "preview",
        "show the exact requests of the next delivery, secrets masked, without sending",
        "preview --config product.json\npreview --samples --json --config product.json",
        _preview,
    )
    preview.option(
        "--samples", action="store_true", default=False, help="add one request of each kind"
    )
    settings.add_licence(preview)
    history = parser.command(
        "history",
        "show the last answers received",
        "history --config product.json\nhistory --limit 10 --json --config product.json",
        _history,
    )
    history.option("--limit", type=whole, default=100, metavar="N", help="at most so many")


def _preview(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    with settings.open_agent(args, given, looking=True) as agent:
        requests = agent.preview(samples=args.samples)
    lines = []
    for request in requests:
        kind = "sample" if request["sample"] else "record " + ", ".join(request["event_ids"])
        lines.append("# %s to %s, %s" % (request["purpose"], request["endpoint"], kind))
        lines.append("%s %s" % (request["method"], request["url"]))
        lines += ["%s: %s" % header for header in request["headers"].items()]
        lines += ["", request["body"], ""]
    screen = of_stdout(os.environ, as_json=out.as_json)
    out.answer(requests, (part for line in lines for part in screen.text(line)))
    if not requests:
        out.say("nothing waits; --samples shows one request of each kind")
    return 0


def _history(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    if args.limit < 0:
        raise UsageError("--limit: got %d, allowed is 0 or more" % args.limit)
    with settings.open_agent(args, given, looking=True) as agent:
        answers = agent.history(limit=args.limit)
    heads = ("when", "endpoint", "event", "verdict", "code", "reason")
    out.answer(answers, table(heads, map(_row, answers)) if answers else [])
    if not answers and args.limit:
        out.say("no answer was received yet")
    return 0


def _row(answer: dict[str, Any]) -> list[str]:
    at = answer.get("at")
    reason = plain(answer.get("reason"))
    if answer.get("errors"):
        reason = plain(answer["errors"])
    middle = (plain(answer.get(name)) for name in ("endpoint", "event_id", "verdict", "code"))
    return [moment(at) if isinstance(at, (int, float)) else "-", *middle, reason]
