"""vendor: put a copy of this package into a product's tree, look after it, and bring it up to date.

A tool for whoever builds a product: a copy does not contain it, and nothing here runs in one. What a copy holds is in
``source``, how it gets there in ``place``, what is told in ``telling``; here is only how the command is given, which
is read at every start of the command line and loads nothing.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from ...config import Config
    from ..arguments import Parser
    from ..output import Output


def add_to(parser: Parser) -> None:
    """``vendor``."""
    vendor = parser.command(
        "vendor",
        "put a copy of this package into a product's tree, check it, or upgrade it",
        "vendor product/_vendor/telemetry_agent\n"
        "vendor --with-cli --with-deps product/_vendor/telemetry_agent\n"
        "vendor --check product/_vendor/telemetry_agent\n"
        "vendor --upgrade product/_vendor/telemetry_agent",
        _vendor,
        configurable=False,
        hidden=parser.own or getattr(sys, "frozen", False),
    )
    vendor.add_argument(
        "destination", metavar="DEST", help="the folder of the copy; its name is the package's"
    )
    doing = vendor.add_mutually_exclusive_group()
    doing.add_argument(
        "--check",
        action="store_true",
        default=False,
        help="change nothing; status 1 if the copy was edited, or differs from what this version would write",
    )
    doing.add_argument(
        "--upgrade",
        action="store_true",
        default=False,
        help="make an existing copy what this version would write, and say what changed",
    )
    for name, what in (
        ("cli", "the command line, for a support desk"),
        ("deps", "urllib3 and platformdirs as they are installed here"),
    ):
        choice = vendor.add_mutually_exclusive_group()
        wanted: dict[str, Any] = {"dest": "with_" + name, "default": None}
        choice.add_argument(
            "--with-" + name, action="store_const", const=True, help="copy " + what, **wanted
        )
        choice.add_argument(
            "--without-" + name,
            action="store_const",
            const=False,
            help="leave it out: the default, unless the copy has it",
            **wanted,
        )
    vendor.add_argument(
        "--overwrite",
        action="store_true",
        default=False,
        help="with --upgrade: replace files that were edited in the copy",
    )


def _vendor(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    from .telling import run

    return run(args, out)
