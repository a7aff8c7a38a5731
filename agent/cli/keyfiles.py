"""Key pairs and keyring documents as files: what a vendor's release manager handles, and no product ever loads.

Private keys are PKCS#8 as OpenSSL writes them, 0600, never overwritten, never printed. Ed25519 signs through PyNaCl; an
RSA pair is made by the ``cryptography`` package where it is installed. Every problem raises ``AgentError``.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Optional

from .. import files
from ..errors import AgentError, ConfigError, part
from ..signatures.keys import ED25519, RSA, PublicKey, decode_base64

if TYPE_CHECKING:
    from collections.abc import Sequence

# RFC 8410, 7: PrivateKeyInfo and SubjectPublicKeyInfo of Ed25519 up to the 32 bytes of each key.
_PRIVATE_HEAD = bytes.fromhex("302e020100300506032b657004220420")
_PUBLIC_HEAD = bytes.fromhex("302a300506032b6570032100")
RSA_BITS = (2048, 3072, 4096, 8192)
PUBLIC_SUFFIX = ".pub"


class PrivateKey:
    """An Ed25519 key that signs documents; ``public`` is what a product embeds."""

    def __init__(self, seed: bytes, name: str) -> None:
        self._signing = _nacl().SigningKey(seed)
        self.public_pem = _pem("PUBLIC KEY", _PUBLIC_HEAD + bytes(self._signing.verify_key))
        self.public = PublicKey.from_pem(self.public_pem, name=name)

    def sign(self, message: bytes) -> bytes:
        """The signature of ``message``."""
        return bytes(self._signing.sign(message).signature)


def documents() -> Any:
    """The part that reads keyring documents; raises ``ConfigError`` where this copy lacks it."""
    return part("keyring", "keys")


def create(path: str, *, algorithm: str, bits: int) -> PublicKey:
    """Make a pair: ``path`` (private) and ``path`` + ``.pub``; neither may exist."""
    if algorithm == ED25519:
        seed = os.urandom(32)
        private, public = (
            _pem("PRIVATE KEY", _PRIVATE_HEAD + seed),
            PrivateKey(seed, "x").public_pem,
        )
    else:
        private, public = _rsa_pair(bits)
    write_new(path, private, what="a private key")
    try:
        write_public(path + PUBLIC_SUFFIX, public, what="a public key")
    except AgentError:
        os.unlink(path)  # no half of a pair
        raise
    return PublicKey.from_pem(public, name=name_of(path))


def load_private(path: str) -> PrivateKey:
    """The Ed25519 key in a PEM file, as ``keys new`` or ``openssl genpkey -algorithm ed25519`` writes it."""
    lines = read(path).decode("ascii", "replace").split()
    marks = ["-----BEGIN", "PRIVATE", "KEY-----"], ["-----END", "PRIVATE", "KEY-----"]
    try:
        if (lines[:3], lines[-3:]) != marks:
            raise ValueError
        data = decode_base64("".join(lines[3:-3]).encode("ascii"))
        if data[:-32] != _PRIVATE_HEAD:
            raise ValueError
    except ValueError:
        raise ConfigError("%s: no Ed25519 private key (PEM, unencrypted)" % path, "root") from None
    return PrivateKey(data[-32:], name_of(path))


def draft(
    keys: Sequence[dict[str, Any]],
    *,
    version: int,
    issued: int,
    expires: Optional[int],
    threshold: int,
) -> bytes:
    """The text of a new document, as it is to be signed; raises where a product would refuse it."""
    content = {
        "format": documents().FORMAT,
        "version": version,
        "issued": issued,
        "expires": expires,
        "threshold": threshold,
        "keys": list(keys),
    }
    text = json.dumps(content, separators=(",", ":")).encode("ascii")
    documents().read_content(text)
    return text


def entry(pem: bytes, name: str) -> dict[str, Any]:
    """A response key as a document holds it."""
    algorithm = PublicKey.from_pem(pem, name=name).algorithm
    return {"name": name, "algorithm": algorithm, "public_key": pem.decode("ascii")}


def signed(text: bytes, pairs: Sequence[tuple[str, bytes]], roots: Sequence[PrivateKey]) -> bytes:
    """The document around ``text``: the signatures that it had, and those of ``roots``."""
    found = dict(pairs)
    for root in roots:
        found[root.public.fingerprint] = root.sign(documents().CONTEXT + text)
    signatures = [
        {"root": root, "signature": b64encode(signature).decode("ascii")}
        for root, signature in found.items()
    ]
    document = {"signed": text.decode("ascii"), "signatures": signatures}
    data = json.dumps(document, indent=1).encode("ascii") + b"\n"
    documents().split(data)
    return data


def name_of(path: str) -> str:
    """A key's name after its file: ``keys/next.pem.pub`` is ``next``."""
    name = os.path.basename(path).partition(".")[0]
    return "".join(char for char in name if char.isprintable())[:64] or "key"


def read(path: str) -> bytes:
    """A file of at most 64 KiB."""
    try:
        with open(path, "rb") as file:
            return file.read((64 << 10) + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError("%s cannot be read: %s" % (path, reason), "file") from None


def write_new(path: str, data: bytes, *, what: str) -> None:
    """A new file, 0600, durable."""
    try:
        files.write_new(path, data)
    except FileExistsError:
        raise ConfigError("%s is there already; %s is never overwritten" % (path, what)) from None


def write_public(path: str, data: bytes, *, what: str = "") -> None:
    """A file that everybody may read: a new one, or, where ``what`` is not named, another content in one step."""
    if what:
        write_new(path, data, what=what)
    else:
        files.replace(path, data)
    os.chmod(path, 0o644)


def _rsa_pair(bits: int) -> tuple[bytes, bytes]:
    try:
        from cryptography.hazmat.primitives import serialization as form
        from cryptography.hazmat.primitives.asymmetric import rsa
    except ImportError:
        reason = "an RSA pair is made by the package cryptography, which is not installed here"
        way = "install it, or make one with openssl genpkey -algorithm RSA and openssl pkey -pubout"
        raise AgentError("%s; %s" % (reason, way)) from None
    key = rsa.generate_private_key(65537, bits)
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    public = form.PublicFormat.SubjectPublicKeyInfo
    return private, key.public_key().public_bytes(form.Encoding.PEM, public)


def _nacl() -> Any:
    try:
        from nacl import signing

        return signing
    except Exception as error:  # a broken native library raises more than ImportError
        kind = type(error).__name__
        raise AgentError("Ed25519 keys need PyNaCl, which cannot be loaded (%s)" % kind) from None


def _pem(label: str, der: bytes) -> bytes:
    text = b64encode(der).decode("ascii")
    return ("-----BEGIN %s-----\n%s\n-----END %s-----\n" % (label, text, label)).encode("ascii")


ALGORITHMS = {"ed25519": ED25519, "rsa": RSA}
