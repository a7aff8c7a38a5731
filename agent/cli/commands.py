"""The list of commands, in the order of the help; and help and version as such."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Optional

from .. import __version__
from . import doctor, keys, looking, recording, spooling, state, verifying
from .arguments import EXAMPLE_CONFIG, Parser, UsageError, can_demo, package, program
from .output import Output

try:
    from . import collecting, demo, vendoring  # type: ignore[attr-defined,unused-ignore]

    _WHOLE = True
except ImportError:  # this is a copy: they stay behind
    _WHOLE = False

if TYPE_CHECKING:
    from ..config import Config

_ABSENT = "%s is not part of this copy; run it from the complete distribution"
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
    if can_demo():
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
    if _WHOLE:
        demo.add_to(found)
    for module in (state, recording, looking, spooling, verifying, keys):
        module.add_to(found)
    if _WHOLE:
        collecting.add_to(found)
    doctor.add_to(found)
    if _WHOLE:
        vendoring.add_to(found)
    else:
        _add_absent_to(found)
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


def _add_absent_to(found: Parser) -> None:
    """The commands that a copy lacks: not listed, and whoever types one is told so."""
    for name in ("demo", "collector", "vendor"):
        absent = found.command(name, _ABSENT % name, name, _absent, hidden=True, configurable=False)
        absent.takes_anything = True


def _absent(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    raise UsageError(_ABSENT % args.parser.prog.rpartition(" ")[2])


def _version(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    out.answer({"name": package(), "version": __version__}, ["%s %s" % (package(), __version__)])
    return 0


def _help(found: Parser, args: argparse.Namespace, out: Output) -> int:
    for word in args.words:
        found = found.below(word)
    text = found.format_help()
    out.answer({"help": text}, [text.rstrip("\n")])
    return 0
