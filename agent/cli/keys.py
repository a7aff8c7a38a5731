"""keys: make key pairs, write and sign keyring documents, and see whether a product would accept one.

For the people who release a product, on their machines: root keys belong on none that is online. Nothing here asks a
network or touches a state directory.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any, Optional

from ..errors import ConfigError, VerificationError
from . import keyfiles, settings
from .arguments import UsageError, whole
from .output import Output, facts, moment, printable, table

if TYPE_CHECKING:
    from ..config import Config
    from ..extras.keyring import Keyring
    from .arguments import Parser

_DAY_S = 86400


def add_to(parser: Parser) -> None:
    """``keys`` and what is below it."""
    keys = parser.command(
        "keys",
        "key pairs and keyring documents, for who releases a product",
        "keys new root-1\nkeys sign --version 1 --key new.pub --root root-1 keyring.json\n"
        "keys check --config product.json keyring.json",
    )
    new = keys.command(
        "new",
        "make a key pair: FILE, private, and FILE.pub; neither is ever overwritten",
        "new root-1\nnew --algorithm rsa --bits 3072 next",
        _new,
        configurable=False,
    )
    new.option(
        "--algorithm",
        choices=sorted(keyfiles.ALGORITHMS),
        default="ed25519",
        help="ed25519 (default; root keys are) or rsa, for a server that signs so: "
        "needs the package cryptography",
    )
    new.option(
        "--bits", type=whole, choices=keyfiles.RSA_BITS, default=3072, help="of an RSA key; 3072"
    )
    new.add_argument("file", metavar="FILE", help="where the private key goes")
    _add_sign(keys)
    inspect = keys.command(
        "inspect",
        "say what a file holds: a key and its fingerprint, or a keyring document",
        "inspect global.pem\ninspect keyring.json",
        _inspect,
        configurable=False,
    )
    inspect.add_argument("file", metavar="FILE", help="a PEM file or a keyring document")
    check = keys.command(
        "check",
        "say whether a product with this configuration would accept this document",
        "check --config product.json keyring.json",
        _check,
    )
    check.option("--endpoint", metavar="NAME", help="which one's keyring, if there are several")
    check.add_argument("file", metavar="FILE", help="the document")


def _add_sign(keys: Parser) -> None:
    sign = keys.command(
        "sign",
        "write and sign a new keyring document, or add a signature to one",
        "sign --version 2 --key new.pub --root root-1 keyring.json\n"
        "sign --root root-2 keyring.json\n"
        "sign --version 3 --key a.pub --expires-days 400 k3.json",
        _sign,
        configurable=False,
    )
    sign.option(
        "--root",
        action="append",
        default=[],
        metavar="FILE",
        help="a root's private key; may be repeated, and others may sign later",
    )
    sign.option("--version", type=whole, metavar="N", help="of a new document; they only go up")
    sign.option(
        "--key",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="a public response key of a new document, named after its file; may be repeated. "
        "Products trust these and no others",
    )
    sign.option(
        "--expires-days",
        type=whole,
        metavar="DAYS",
        help="when products begin to say that the document is old; it works on",
    )
    sign.option(
        "--threshold",
        type=whole,
        default=1,
        metavar="M",
        help="how many roots must sign it, beyond what products ask for",
    )
    sign.add_argument("file", metavar="FILE", help="the document")


def _new(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    algorithm = keyfiles.ALGORITHMS[args.algorithm]
    key = keyfiles.create(args.file, algorithm=algorithm, bits=args.bits)
    public = args.file + keyfiles.PUBLIC_SUFFIX
    found = {
        "private": args.file,
        "public": public,
        "algorithm": key.algorithm,
        "fingerprint": key.fingerprint,
    }
    out.answer(found, facts(found))
    root = args.algorithm == "ed25519"
    where = "keep it offline, and a copy of it elsewhere" if root else "for the server that signs"
    out.say("%s is secret: %s." % (printable(args.file), where))
    return 0


def _sign(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    if not args.root:
        raise UsageError("--root FILE is missing: a document is signed by root keys")
    roots = [keyfiles.load_private(path) for path in args.root]
    if args.version is not None or args.key:
        if args.version is None or not args.key:
            raise UsageError("a new document needs both --version N and --key FILE")
        data = keyfiles.signed(_draft(args), (), roots)
        keyfiles.write_public(args.file, data, what="a document")
    else:
        text, pairs = keyfiles.documents().split(_read_document(args.file))
        data = keyfiles.signed(text, pairs, roots)
        keyfiles.write_public(args.file, data)
    return _tell_document(data, out)


def _draft(args: argparse.Namespace) -> bytes:
    entries = []
    for word in args.key:
        name, equals, path = word.rpartition("=")
        entries.append(keyfiles.entry(keyfiles.read(path), name or keyfiles.name_of(path)))
    issued = int(time.time())
    expires = None if args.expires_days is None else issued + args.expires_days * _DAY_S
    try:
        return keyfiles.draft(
            entries,
            version=args.version,
            issued=issued,
            expires=expires,
            threshold=args.threshold,
        )
    except VerificationError as error:
        raise UsageError(
            "no product would read it: %s" % str(error).partition("but: ")[2]
        ) from None


def _read_document(path: str) -> bytes:
    data = keyfiles.read(path)
    try:
        documents = keyfiles.documents()
        documents.read_content(documents.split(data)[0])
    except VerificationError as error:
        raise ConfigError("%s: %s" % (path, error), "file") from None
    return data


def _inspect(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    data = keyfiles.read(args.file)
    if data.lstrip().startswith(b"{") or b"-----BEGIN" not in data:  # PEM is inside documents too
        return _tell_document(_read_document(args.file), out)
    if b"PRIVATE" in data:
        key, kind = keyfiles.load_private(args.file).public, "private key"
    else:
        from .config_file import public_key

        key, kind = public_key(data, keyfiles.name_of(args.file), args.file), "public key"
    found = {"kind": kind, "algorithm": key.algorithm, "fingerprint": key.fingerprint}
    out.answer(found, facts(found))
    return 0


def _tell_document(data: bytes, out: Output) -> int:
    text, pairs = keyfiles.documents().split(data)
    content = keyfiles.documents().read_content(text)
    keys = [
        {
            "name": key.name,
            "algorithm": key.algorithm,
            "fingerprint": key.fingerprint,
        }
        for key in content["keys"]
    ]
    found: dict[str, Any] = {
        "kind": "keyring document",
        **{name: content[name] for name in ("version", "issued", "expires", "threshold")},
        "keys": keys,
        "signatures_by": list(pairs),
    }
    shown = {**found, "issued": moment(content["issued"])}
    shown["expires"] = "never" if content["expires"] is None else moment(content["expires"])
    del shown["keys"], shown["signatures_by"]
    lines = [*facts(shown), "", "signatures by (not checked here: keys check does)"]
    lines += ["  " + printable(fingerprint) for fingerprint in found["signatures_by"]]
    rows = [(key["name"], key["algorithm"], key["fingerprint"]) for key in keys]
    out.answer(found, [*lines, "", *table(("key", "algorithm", "fingerprint"), rows)])
    return 0


def _check(args: argparse.Namespace, out: Output, given: Optional[Config]) -> int:
    name, ring = _keyring(args, given)
    trust = ring.trusted()
    trust.offer(keyfiles.read(args.file), source=args.file)
    now = time.time()
    found = {"accepted": not trust.trouble, "endpoint": name, **trust.report(now)}
    shown = dict(found, expires="never" if trust.expires is None else moment(trust.expires))
    out.answer(found, facts(shown))
    return int(not found["accepted"])


def _keyring(args: argparse.Namespace, given: Optional[Config]) -> tuple[str, Keyring]:
    found: dict[str, Any] = {}
    for endpoint in settings.read(args, given).config.endpoints:
        ring = getattr(endpoint, "keys", None)
        if hasattr(ring, "roots"):
            found[endpoint.name] = ring
    if args.endpoint is not None:
        found = {name: ring for name, ring in found.items() if name == args.endpoint}
    if len(found) != 1:
        if found:
            raise UsageError(
                "several endpoints have a keyring; --endpoint NAME says which is meant"
            )
        which = "" if args.endpoint is None else " named %s" % printable(args.endpoint)
        raise UsageError("no endpoint%s of this configuration has a keyring" % which)
    return next(iter(found.items()))
