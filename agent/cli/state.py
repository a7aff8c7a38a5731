"""id and erase: who this user is to the vendor, and how to leave nothing behind."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any, Optional

from . import remedies, settings
from .arguments import UsageError
from .output import Output, is_terminal, plain, printable, write

if TYPE_CHECKING:
    from ..config import Config
    from .arguments import Parser


def add_to(parser: Parser) -> None:
    """``id``."""
    id = parser.command(
        "id",
        "show the user identifier",
        "id --config product.json\nid --vendor Acme --product Studio --explain\n"
        "id --config product.json --reset",
        _id,
    )
    id.option(
        "--explain", action="store_true", default=False, help="where it comes from, how good it is"
    )
    id.option(
        "--reset", action="store_true", default=False, help="forget the stored one, derive it anew"
    )
    id.option("--vendor", metavar="NAME", help="in place of a configuration")
    id.option("--product", metavar="NAME", help="the product's name, with --vendor")


def add_erase_to(parser: Parser) -> None:
    """``erase``."""
    erase = parser.command(
        "erase",
        "remove all state of this product for this user: records, history, identifier",
        "erase --config product.json\nerase --yes --config product.json",
        _erase,
    )
    erase.option("--yes", action="store_true", default=False, help="do not ask on a terminal")


def _id(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    from .. import files, identity

    config = _named(args, given)
    if not config.endpoints and args.vendor is None:
        out.answer({"user_identifier": ""}, [])
        out.say("the configuration has no endpoint, so the agent is off and nobody is identified")
        return 1
    names: dict[str, Any] = {
        "system": identity.System(os.environ),
        "state_dir": files.state_directory(config, os.environ)[0],
        "vendor": config.vendor,
        "product_name": config.product_name,
        "identity_name": config.identity_name,
    }
    before = identity.resolve(**names, store=False).value
    if args.reset:
        identity.resolve(**names, reset=True)
    explained = identity.explain(**names, store=False)
    explained["advice"] = remedies.for_identity(explained)
    value = explained["user_identifier"]
    answer = dict(explained) if args.explain else {"user_identifier": value}
    lines = [value]
    if args.explain:
        lines += _explained(explained)
    if args.reset:
        answer["before"] = before
        out.say("was %s%s" % (before, ", unchanged" if before == value else ""))
    out.answer(answer, map(printable, lines))
    if explained["quality"] == "random" and not explained["stored"]:
        out.say("random, and not stored yet: the product's first start makes another")
    return 0


def _named(args: argparse.Namespace, given: Optional[Config]) -> Config:
    if args.vendor is None and args.product is None:
        return settings.read(args, given).config
    if args.vendor is None or args.product is None:
        raise UsageError("--vendor and --product go together")
    if args.config is not None:
        raise UsageError("--config says who the vendor is; leave --vendor and --product away")
    from ..config import Config

    return Config(
        vendor=args.vendor, product_name=args.product, product_id="-", product_version="-"
    )


def _explained(explained: dict[str, Any]) -> list[str]:
    moved = {None: "not known", True: "yes", False: "no"}[explained["moved_or_cloned"]]
    lines = [
        "quality          %s" % explained["quality"],
        "source           %s" % explained["source"],
        "stored           %s" % plain(explained["stored"]),
        "file             %s" % plain(explained["path"]),
        "moved or cloned  %s" % moved,
        "in a container   %s" % plain(explained["in_container"]),
    ]
    for source in explained["sources"]:
        lines.append("looked at        %s: %s" % (source["source"], source["problem"] or "usable"))
    lines += ["note             " + explained["note"]] if explained["note"] else []
    return lines + ["advice           " + advice for advice in explained["advice"]]


def _erase(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    from .. import files, looking

    config = settings.read(args, given).config
    directory, why = files.state_directory(config, os.environ)
    existed = directory is not None and os.path.lexists(directory)
    runs = existed and _runs(directory or "")
    if existed and not args.yes and is_terminal(sys.stdin) and is_terminal(sys.stderr):
        write(sys.stderr, printable("remove all state in %s? [y/N]" % directory), end=" ")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            answer = {"directory": directory, "remaining": [directory], "erased": False}
            out.answer(answer, ["nothing was removed"])
            return 1
    remaining = looking.erase(config)
    lines = ["could not remove %s" % path for path in remaining]
    if not existed:
        where = "%s does not exist" % directory if directory else why
        lines = ["nothing to remove: " + where]
    out.answer(
        {"directory": directory, "remaining": remaining, "erased": not remaining},
        map(printable, lines or ["removed all state in %s" % directory]),
    )
    if runs:
        out.say("a product is still running here: what it records from now on lies there again")
    return 1 if remaining else 0


def _runs(directory: str) -> bool:
    """Whether a living process holds a segment."""
    from .. import files
    from ..spool import segment

    for name in segment.listing(directory):
        try:
            with files.open_append(os.path.join(directory, name), missing_ok=False) as file:
                if file.hold() is False:
                    return True
        except OSError:
            pass
    return False
