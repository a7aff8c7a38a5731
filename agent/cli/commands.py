"""The list of commands, in the order of the help; and help and version as such."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Optional

from ..version import VERSION
from . import collecting, demo, doctor, keys, looking, recording, spooling, state, verifying
from .arguments import EXAMPLE_CONFIG, Parser, package, program
from .output import Output

try:
    from .vendoring import add_to as _add_vendor_to
except ImportError:  # this is a copy: its maker stays behind
    _add_vendor_to = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from ..config import Config

_EPILOG = """\
exit status: 0 done; 1 a negative answer (not verified, still pending, a check
failed); 2 wrong usage or configuration; 130 interrupted

examples:
"""


def parser(own: bool = False) -> Parser:
    """The whole command line; ``own``: for a product that brings its configuration."""
    name = program()
    examples = ["call-home", "spool status"] if own else ["call-home", "spool status", "doctor"]
    lines = [line + EXAMPLE_CONFIG * (not own) for line in examples]
    if demo.shown():
        lines.insert(0, "demo")
    found = Parser(
        prog=name,
        own=own,
        description="Calls home, keeps what could not be sent, believes only signed answers.",
        epilog=_EPILOG + "\n".join("  %s %s" % (name, line) for line in lines),
    )
    found.add_argument(
        "--version",
        action="store_const",
        dest="run",
        const=_version,
        help="the version of this copy",
    )
    for module in (demo, state, recording, looking, spooling, verifying, keys, collecting, doctor):
        module.add_to(found)
    if _add_vendor_to is not None:
        _add_vendor_to(found)
    state.add_erase_to(found)
    helping = found.command(
        "help",
        "show the help of a command",
        "help call-home\nhelp spool replay",
        lambda args, out, given: _help(found, args, out),
        configurable=False,
    )
    helping.add_argument("words", nargs="*", metavar="COMMAND", default=[], help="the command")
    return found


def _version(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    out.answer({"name": package(), "version": VERSION}, ["%s %s" % (package(), VERSION)])
    return 0


def _help(found: Parser, args: argparse.Namespace, out: Output) -> int:
    for word in args.words:
        found = found.below(word)
    text = found.format_help()
    out.answer({"help": text}, [text.rstrip("\n")])
    return 0
