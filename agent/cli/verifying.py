"""verify: check one saved answer of the licence server against public keys, offline.

Freshness depends on when the answer came, which a file does not say: it is reported, and judged only with ``--at``.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Optional

from ..errors import VerificationError
from . import settings
from .arguments import UsageError
from .output import Output, duration, facts, moment, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..config import Config
    from ..signatures.envelope import Receipt
    from ..signatures.keys import PublicKey
    from .arguments import Parser

# An envelope has at most 64 KiB; whatever is larger is refused as one.
_READ_BYTES = (64 << 10) + 1


def add_to(parser: Parser) -> None:
    """``verify``."""
    verify = parser.command(
        "verify",
        "check one saved answer envelope",
        "verify --key global.pem answer.json\n"
        "verify --key a.pem --key b.pem --at 2026-01-31 answer.json\n"
        "verify --key global.pem --json < answer.json",
        _verify,
    )
    verify.option(
        "--key",
        action="append",
        metavar="PEM",
        help="a file with a trusted public key; may be repeated; else the configuration's keys",
    )
    verify.option(
        "--at",
        metavar="TIME",
        help="when the answer came: Unix seconds or an ISO time (UTC unless it says otherwise); "
        "it must be within 24 h of that",
    )
    verify.add_argument(
        "file", metavar="FILE", nargs="?", default="-", help="the answer's body; else stdin"
    )


def _verify(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    from ..signatures.envelope import verify

    at = None if args.at is None else _time(args.at)
    keys, envelope = _keys(args, given), _envelope(args.file)
    try:
        receipt = verify(envelope, keys, now=at)
    except VerificationError as error:
        reason = type(error).__name__
        answer = {"verified": False, "reason": reason, "message": str(error)}
        out.answer(answer, ["not verified: %s: %s" % (reason, printable(error))])
        return 1
    age_s = (time.time() if at is None else at) - receipt.timestamp
    found = _found(receipt, age_s, judged=at is not None)
    shown = dict(found, verified="yes", age=duration(age_s), timestamp=moment(receipt.timestamp))
    del shown["age_s"]
    shown["fresh"] = "yes, at the given time" if at is not None else "not judged: give --at"
    out.answer(found, facts(shown))
    return 0


def _found(receipt: Receipt, age_s: float, *, judged: bool) -> dict[str, Any]:
    return {
        "verified": True,
        "code": receipt.code,
        "message": receipt.message,
        "errors": receipt.errors,
        "timestamp": receipt.timestamp,
        "age_s": round(age_s),
        "fresh": True if judged else None,
        "key": receipt.key_name,
    }


def _time(text: str) -> float:
    try:
        at = float(text)
        if at - at == 0:  # neither NaN nor infinite
            return at
    except ValueError:
        pass
    try:
        # Python 3.9 and 3.10 do not know the Z.
        found = datetime.datetime.fromisoformat(text[:-1] + "+00:00" if text[-1:] in "Zz" else text)
        if found.tzinfo is None:
            found = found.replace(tzinfo=datetime.timezone.utc)
        return found.timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            "--at: got %r, allowed are Unix seconds or an ISO time such as 2026-01-31T12:00:00Z"
            % text
        ) from None


def _keys(args: argparse.Namespace, given: Optional[Config]) -> list[PublicKey]:
    from .config_file import public_key

    if args.key is None:
        if args.config is None and given is None:
            raise UsageError("verify needs --key PEM, or --config FILE with keys")
        config = settings.read(args, given).config
        found = [key for endpoint in config.endpoints for key in _of(endpoint)]
        if not found:
            raise UsageError("the configuration holds no key; give --key PEM")
        return found
    if args.config is not None:
        settings.read(args, given)  # a mistake in it is one, though these keys go before its own
    keys = []
    for path in args.key:
        name = printable(os.path.splitext(os.path.basename(path))[0])[:64] or "key"
        keys.append(public_key(_read(path), name, "--key " + path))
    return keys


def _of(endpoint: Any) -> Iterable[PublicKey]:
    """The keys of an endpoint that are in force; a keyring's document is read for it."""
    keys: Any = getattr(endpoint, "keys", ())
    if not hasattr(keys, "roots"):
        return keys  # type: ignore[no-any-return]
    trusted = keys.trusted()
    trusted.look()
    found: tuple[PublicKey, ...] = trusted.keys
    return found


def _envelope(path: str) -> bytes:
    if path != "-":
        return _read(path)
    stdin = getattr(sys.stdin, "buffer", None)
    if stdin is None:
        raise UsageError("there is no stdin here; name a file")
    data: bytes = stdin.read(_READ_BYTES)
    return data


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_READ_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError("%s cannot be read: %s" % (path, reason)) from None
