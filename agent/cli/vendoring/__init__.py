"""vendor: put a copy of this package into a product's tree, look after it, and bring it up to date.

A tool for whoever builds a product: a copy does not contain it, and nothing here runs in one. What a copy holds is in
``source``, how it gets there in ``place``, what is told in ``telling``; here is only how the command is given, which
is read at every start of the command line and loads nothing.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from ...config import Config
    from ..arguments import Parser
    from ..output import Output

_PARTS = """
parts of a copy, for --with:
  keyring    keys that a signed document replaces: Keyring
  detached   a process of its own that delivers: deliver="detached"
  transfer   export_spool, import_spool
  domain     dns_domain, the domain of this machine
  cli        the command line, for a support desk: main(argv)
  deps       urllib3 and platformdirs as they are installed here"""


def add_to(parser: Parser) -> None:
    """``vendor``."""
    vendor = parser.command(
        "vendor",
        "put a copy of this package into a product's tree, check it, or upgrade it",
        "vendor product/_vendor/telemetry_agent\n"
        "vendor --with keyring,cli product/_vendor/telemetry_agent\n"
        "vendor --check product/_vendor/telemetry_agent\n"
        "vendor --upgrade product/_vendor/telemetry_agent",
        _vendor,
        configurable=False,
        hidden=parser.own or getattr(sys, "frozen", False),
    )
    vendor.description = "%s\n%s" % (vendor.description, _PARTS)
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
    vendor.option(
        "--with",
        dest="parts",
        metavar="PART[,PART]",
        help="all the parts that the copy is to have beside its core, or none; without this "
        "option it keeps those that it has, and a new one has none",
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
