"""call-home, track, count, record: record as the product would, then deliver once and say what came of it."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Optional

from . import result, settings
from .arguments import UsageError, decimal, number, whole
from .output import Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client import Agent
    from ..config import Config
    from ..values import Outcome
    from .arguments import Parser

    Act = Callable[[Agent, argparse.Namespace], Optional[str]]
    Check = Callable[[argparse.Namespace], None]

_TIMEOUT_S = 15.0


def add_to(parser: Parser) -> None:
    """The four commands that record."""
    home = parser.command(
        "call-home",
        "record a call home for every endpoint and deliver it",
        "call-home --config product.json\ncall-home --config product.json --no-send --json",
        _command(_call_home),
    )
    settings.add_licence(home)
    track = parser.command(
        "track",
        "record one usage event and deliver it",
        "track EXPORT --config product.json\n"
        'track EXPORT --meta \'{"to": "pdf"}\' --config product.json',
        _command(_track, _check_track),
    )
    track.add_argument("activity", metavar="ACTIVITY", help="what was done, for example EXPORT")
    track.option("--user-id", metavar="ID", help="who did it; else the user identifier")
    track.option(
        "--user-id-type",
        metavar="TYPE",
        help="EMAIL, SOCIAL, LINKEDIN, GITHUB or USERNAME (default), with --user-id",
    )
    track.option("--ip-addr", metavar="ADDRESS", help="from where")
    track.option("--meta", metavar="JSON", help="more about it: a JSON object")
    count = parser.command(
        "count",
        "add to a usage counter and deliver the sum",
        "count RENDER --config product.json\ncount RENDER --n 12 --config product.json",
        _command(_count, _check_count),
    )
    count.add_argument("activity", metavar="ACTIVITY", help="what was done, for example RENDER")
    count.option("--n", type=whole, default=1, metavar="N", help="how often, at least 1")
    record = parser.command(
        "record",
        "record a number, a point or a text for the licence servers and deliver it",
        "record --value 3.2 --data-group seconds --config product.json\n"
        "record --point 1 2 --data-group canvas --config product.json\n"
        "record --text opengl --data-group gl --config product.json",
        _command(_record, _check_record),
    )
    what = record.add_mutually_exclusive_group()
    what.add_argument("--value", type=number, metavar="NUMBER", default=None, help="one number")
    what.add_argument(
        "--point", type=number, nargs=2, metavar=("X", "Y"), default=None, help="two numbers"
    )
    what.add_argument("--text", metavar="TEXT", default=None, help="a text")
    record.option("--data-group", metavar="NAME", help="what it belongs to (required)")
    settings.add_licence(record)
    for made in (home, track, count, record):
        made.option(
            "--no-send", action="store_true", default=False, help="record only; opens no socket"
        )
        made.option(
            "--timeout",
            type=decimal,
            default=_TIMEOUT_S,
            metavar="SECONDS",
            help="deliver for at most this long (default %(default)s)",
        )


def _call_home(agent: Agent, args: argparse.Namespace) -> Optional[str]:
    return agent.call_home()


def _check_track(args: argparse.Namespace) -> None:
    if args.user_id_type is not None and args.user_id is None:
        raise UsageError("--user-id-type says what --user-id is: give both, or neither")


def _check_count(args: argparse.Namespace) -> None:
    if args.n < 1:
        raise UsageError("--n: got %d, allowed is 1 or more" % args.n)


def _check_record(args: argparse.Namespace) -> None:
    missing = []
    if args.value is None and args.point is None and args.text is None:
        missing.append("--value NUMBER, --point X Y or --text TEXT")
    if args.data_group is None:
        missing.append("--data-group NAME")
    if missing:
        args.parser.error("missing: " + "; and ".join(missing))


def _track(agent: Agent, args: argparse.Namespace) -> Optional[str]:
    meta = None
    if args.meta is not None:
        try:
            meta = json.loads(args.meta)
        except (ValueError, RecursionError) as error:
            raise UsageError("--meta is not JSON: %s" % error) from None
    return agent.track(
        args.activity,
        user_id=args.user_id,
        user_id_type="USERNAME" if args.user_id_type is None else args.user_id_type,
        ip_addr=args.ip_addr,
        meta=meta,
    )


def _count(agent: Agent, args: argparse.Namespace) -> Optional[str]:
    agent.count(args.activity, args.n)
    return None


def _record(agent: Agent, args: argparse.Namespace) -> Optional[str]:
    if args.point is not None:
        return agent.record_point(*args.point, data_group=args.data_group)
    if args.text is not None:
        return agent.record_text(args.text, data_group=args.data_group)
    return agent.record_value(args.value, data_group=args.data_group)


def _command(
    act: Act, check: Optional[Check] = None
) -> Callable[[argparse.Namespace, Output, Optional[Config]], int]:
    def run(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
        if check is not None:
            check(args)
        ended: list[Outcome] = []
        with settings.open_agent(args, given, looking=False, on_outcome=ended.append) as agent:
            event_id = act(agent, args)
            report = None if args.no_send else agent.flush(args.timeout)
        found = result.Result(
            status=agent.status(),  # after closing, which writes the counters
            event_id=event_id,
            ended=ended,
            report=report,
            is_count=act is _count,
            is_call_home=act is _call_home,
        )
        out.answer(found.to_json(), [found.line()])
        for line in found.notes():
            out.say(line)
        return 1 if found.negative else 0

    return run
