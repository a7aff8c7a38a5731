"""collector: run the reference collector on loopback, to see what a product sends and how it takes a bad day."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Optional

from .arguments import UsageError, whole
from .output import Output

if TYPE_CHECKING:
    from ..config import Config
    from .arguments import Parser

_INTERRUPTED = 130


def add_to(parser: Parser) -> None:
    """``collector``."""
    collector = parser.command(
        "collector",
        "run the reference collector on loopback until it is interrupted",
        "collector\ncollector --port 8765 --algorithm ed25519 --json\n"
        "collector --write-config product.json\ncollector --fault portal\n"
        "collector --api-key k1 --license-key l1 --product 42:5.2.5",
        _collector,
        configurable=False,
    )
    collector.option("--port", type=whole, default=0, help="0, the default, takes a free one")
    collector.option("--algorithm", default="rsa", metavar="NAME", help="rsa or ed25519")
    collector.option("--fault", metavar="NAME", help="misbehave like this from the start")
    collector.option(
        "--write-config",
        metavar="FILE",
        help="write the configuration of a product that reports here, to a new file",
    )
    for name, what in (("--api-key", "API key"), ("--license-key", "licence key")):
        collector.option(
            name, action="append", metavar="KEY", help="know this %s; may be repeated" % what
        )
    collector.option(
        "--product",
        action="append",
        metavar="ID:VERSION[,VERSION]",
        help="know this product; may be repeated",
    )


def _collector(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    chosen: dict[str, Any] = {}
    if args.api_key is not None:
        chosen["api_keys"] = tuple(args.api_key)
    if args.license_key is not None:
        chosen["license_keys"] = tuple(args.license_key)
    if args.product is not None:
        chosen["products"] = _products(args.product)
    if not 0 <= args.port <= 65535:
        raise UsageError("--port: got %d, allowed is 0 to 65535" % args.port)
    from ..collector import serve

    return serve(
        port=args.port,
        algorithm=args.algorithm,
        fault=args.fault,
        as_json=out.as_json,
        write_config=args.write_config,
        interrupted=_INTERRUPTED,
        **chosen,
    )


def _products(given: list[str]) -> dict[str, tuple[str, ...]]:
    products: dict[str, tuple[str, ...]] = {}
    for text in given:
        id, _, versions = text.partition(":")
        found = tuple(filter(None, versions.split(",")))
        if not id or not found:
            raise UsageError("--product: got %r, allowed is ID:VERSION[,VERSION]" % text)
        products[id] = products.get(id, ()) + found
    return products
