"""``Keyring``: response keys that a signed document may replace, so that a vendor can rotate them without an update.

A keyring document is JSON: ``signed``, a JSON text, and ``signatures`` of it by Ed25519 root keys that are embedded in
the product. Its bytes are checked before they are parsed. Modelled on TUF's root role; what was kept and what was left
out is in the decision records. Nothing here does I/O or remembers; see ``trust`` for what is in force.
"""

from __future__ import annotations

import os

from ..errors import ConfigError, EnvelopeMalformed, SignatureInvalid
from . import strictjson
from .keys import ED25519, Frozen, PublicKey, as_bytes, decode_base64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Optional, Union

    Path = Union[str, os.PathLike[str]]

FORMAT = "keyring/1"
# In front of what a root signs, so that no signature of anything else can be taken for one of a keyring.
CONTEXT = b"keyring document 1\n"
MAX_DOCUMENT_BYTES = 64 * 1024
KEYS_MAX = ROOTS_MAX = 32
MAX_VERSION = 1 << 53


class Keyring(Frozen):
    """Response keys embedded in the product, and how they may be replaced; immutable. Raises ``ConfigError``.

    ``keys``: those to begin with, at least one. ``version``: of that set; no document of that version or an older one
    replaces it. ``roots``: Ed25519 keys of which ``threshold`` must have signed a document. ``document``: its bytes, or
    the path of a file that an updater may install at any time. ``url``: an https address that is asked for a newer one
    where an answer was signed by none of the keys, at most once per backoff.
    """

    __slots__ = ("keys", "version", "roots", "threshold", "document", "url")

    def __init__(
        self,
        keys: Iterable[PublicKey],
        *,
        version: int = 0,
        roots: Iterable[PublicKey] = (),
        threshold: int = 1,
        document: Union[None, bytes, Path] = None,
        url: Optional[str] = None,
    ) -> None:
        self.keys = _keys("keys", keys)
        self.roots = _keys("roots", roots)
        self.version = _whole("version", version, 0, MAX_VERSION)
        self.threshold = _whole("threshold", threshold, 1, max(1, len(self.roots)))
        if not self.keys:
            raise ConfigError("keys: none given; a keyring begins with those it embeds", "keys")
        if any(root.algorithm != ED25519 for root in self.roots):
            raise ConfigError("roots: root keys are Ed25519 keys", "roots")
        if len({root.fingerprint for root in self.roots}) < len(self.roots):
            raise ConfigError("roots: a key is given twice", "roots")
        if (document is not None or url is not None) and not self.roots:
            raise ConfigError("roots: none given, so no document could be proven", "roots")
        self.document = _document(document)
        self.url = _url(url)

    def __repr__(self) -> str:
        source = "bytes" if isinstance(self.document, bytes) else self.document
        facts = (self.keys, self.version, len(self.roots), self.threshold, source, self.url)
        return "Keyring(keys=%r, version=%d, roots=%d, threshold=%d, document=%r, url=%r)" % facts


class Document(Frozen):
    """A proven document: times in Unix seconds, ``signed_by`` the names of the roots that signed it."""

    __slots__ = ("version", "issued", "expires", "threshold", "keys", "signed_by")

    def __init__(self, fields: dict[str, Any], signed_by: tuple[str, ...]) -> None:
        self.version: int = fields["version"]
        self.issued: int = fields["issued"]
        self.expires: Optional[int] = fields["expires"]
        self.threshold: int = fields["threshold"]
        self.keys: tuple[PublicKey, ...] = fields["keys"]
        self.signed_by = signed_by


def read_document(data: bytes, roots: Iterable[PublicKey], threshold: int) -> Document:
    """The document in ``data`` that at least ``threshold`` of ``roots`` signed, and as many as it asks for itself.

    Raises ``EnvelopeMalformed``, ``SignatureInvalid`` or ``Unverifiable`` (PyNaCl is missing), whatever the bytes are
    nothing else.
    """
    text, signatures = split(data)
    signed_by = _signers(text, signatures, tuple(roots))
    if len(signed_by) < threshold:
        raise SignatureInvalid("signed by %d of the %d roots needed" % (len(signed_by), threshold))
    document = Document(read_content(text), tuple(root.name for root in signed_by))
    if len(signed_by) < document.threshold:
        raise SignatureInvalid(
            "signed by %d of the %d roots that it asks for" % (len(signed_by), document.threshold)
        )
    return document


def split(data: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The signed text and (fingerprint of the root, signature) pairs; raises ``EnvelopeMalformed``."""
    data = as_bytes("document", data)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise EnvelopeMalformed("the keyring document is larger than %d bytes" % MAX_DOCUMENT_BYTES)
    try:
        found = strictjson.loads(data)
        text, pairs = found["signed"], found["signatures"]
        if not 0 < len(pairs) <= ROOTS_MAX or type(pairs) is not list:
            raise ValueError("has no proper `signatures`")
        signatures = [
            (str(pair["root"]), decode_base64(pair["signature"].encode("ascii"))) for pair in pairs
        ]
        return text.encode("ascii"), signatures
    except (ValueError, LookupError, TypeError, AttributeError):
        raise EnvelopeMalformed("not a keyring document") from None


def _signers(
    text: bytes, signatures: list[tuple[str, bytes]], roots: tuple[PublicKey, ...]
) -> list[PublicKey]:
    """The roots that signed, each once; the fingerprint beside a signature only says which to try."""
    found = []
    for root in roots:
        for fingerprint, signature in signatures:
            if fingerprint == root.fingerprint:
                try:
                    root.verify(CONTEXT + text, signature)
                except SignatureInvalid:
                    continue
                found.append(root)
                break
    return found


def read_content(text: bytes) -> dict[str, Any]:
    """The fields of a signed text, checked, its keys made; raises ``EnvelopeMalformed``. Other names are left alone."""
    try:
        found = strictjson.loads(text)
        if type(found) is not dict or found.get("format") != FORMAT:
            raise ValueError("its format is not " + FORMAT)
        expires = found.get("expires")
        fields: dict[str, Any] = {
            "version": _whole("version", found.get("version"), 1, MAX_VERSION),
            "issued": _whole("issued", found.get("issued"), 0, MAX_VERSION),
            "expires": None if expires is None else _whole("expires", expires, 0, MAX_VERSION),
            "threshold": _whole("threshold", found.get("threshold", 1), 1, ROOTS_MAX),
        }
        given = found.get("keys")
        if type(given) is not list or not 0 < len(given) <= KEYS_MAX:
            raise ValueError("keys: 1 to %d are needed" % KEYS_MAX)
        fields["keys"] = tuple(map(_key, given))
        if len({key.name for key in fields["keys"]}) < len(given):
            raise ValueError("keys: two of one name")
        return fields
    except ValueError as error:
        raise EnvelopeMalformed("the keyring document is signed, but: %s" % error) from None


def _key(given: Any) -> PublicKey:
    if type(given) is not dict or type(given.get("public_key")) is not str:
        raise ValueError("keys: each is an object with name, algorithm and public_key")
    key = PublicKey.from_pem(
        given["public_key"],
        name=given.get("name", ""),
        valid_from=given.get("valid_from"),
        valid_until=given.get("valid_until"),
    )
    if given.get("algorithm") != key.algorithm:
        raise ValueError("keys: %s is a key of %s" % (key.name, key.algorithm))
    return key


def _keys(field: str, value: Any) -> tuple[PublicKey, ...]:
    allowed = "%s: a tuple of at most %d PublicKey is needed" % (field, KEYS_MAX)
    if not isinstance(value, (tuple, list)) or len(value) > KEYS_MAX:
        raise ConfigError(allowed, field)
    if not all(isinstance(key, PublicKey) for key in value):
        raise ConfigError(allowed, field)
    return tuple(value)


def _whole(field: str, value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ConfigError("%s: an int from %d to %d is needed" % (field, least, most), field)
    return value


def _document(value: Any) -> Union[None, bytes, str]:
    if value is None or (isinstance(value, bytes) and len(value) <= MAX_DOCUMENT_BYTES):
        return value
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if isinstance(path, str) and path and "\0" not in path and path.lstrip()[:1] != "{":
        return os.path.abspath(path)
    reason = "document: the bytes of a document, or the path of one (str or os.PathLike)"
    raise ConfigError(reason, "document")


def _url(value: Any) -> Optional[str]:
    from ..checks import base_url

    if value is None:
        return None
    try:
        return base_url(value)
    except ConfigError as error:
        raise ConfigError("url: " + str(error).partition(": ")[2], "url") from None
