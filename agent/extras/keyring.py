"""``Keyring``: response keys that a signed document may replace, so that a vendor can rotate them without an update.

A keyring document is JSON: ``signed``, a JSON text, and ``signatures`` of it by Ed25519 root keys that are embedded in
the product; its bytes are checked before they are parsed (modelled on TUF's root role). It comes from a file beside the
program or from an address of the vendor's, never from the state directory, which keeps only the newest version seen.
Whatever goes wrong leaves the keys that are in force, and is told by ``status``.
"""

from __future__ import annotations

import os

from .. import __version__
from ..config import https_url
from ..errors import ConfigError, EnvelopeMalformed, SignatureInvalid, VerificationError
from ..lines import sha256
from ..signatures.envelope import read_json
from ..signatures.keys import ED25519, Frozen, PublicKey, as_bytes, decode_base64
from ..values import Request
from ..verdicts import UNTRUSTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Optional, Union

    from ..lanes import Lane
    from ..spool.store import Spool
    from ..values import Transport

FORMAT = "keyring/1"
# In front of what a root signs, so that no signature of anything else can be taken for one of a keyring.
CONTEXT = b"keyring document 1\n"
MAX_DOCUMENT_BYTES = 64 * 1024
KEYS_MAX = ROOTS_MAX = 32
MAX_VERSION = 1 << 53
EMBEDDED, GIVEN = "embedded", "given document"


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
        document: Union[None, bytes, str, os.PathLike[str]] = None,
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
        self.url = None if url is None else https_url("url", url)

    def __repr__(self) -> str:
        source = "bytes" if isinstance(self.document, bytes) else self.document
        facts = (self.keys, self.version, len(self.roots), self.threshold, source, self.url)
        return "Keyring(keys=%r, version=%d, roots=%d, threshold=%d, document=%r, url=%r)" % facts

    def trusted(self) -> TrustedKeys:
        """The keys that answers may be signed with now."""
        return TrustedKeys(self)


class TrustedKeys:
    """Which keys of a keyring are in force: those embedded, or those of the newest document that was proven.

        trusted = ring.trusted()
        trusted.look(spool, user, lane)            # at the start of a pass: is there a new file?
        trusted.ask(transport, lane, timeout_s)    # before a request: fetches one for want of a key
        verify(answer, trusted.keys)

    What is expired works on, and says so in ``report``.
    """

    __slots__ = "ring keys version expires source trouble _spool _tag _seen _asked".split()

    def __init__(self, ring: Keyring) -> None:
        self.ring = ring
        self.keys: tuple[PublicKey, ...] = ring.keys
        self.version = ring.version
        self.expires: Optional[int] = None  # Unix seconds
        self.source, self.trouble = EMBEDDED, ""
        self._spool: Optional[Spool] = None  # where the newest version is kept
        self._tag = ""
        self._seen: Any = None  # the file as it was read last
        self._asked = False  # for what was newer at the start of this process

    def look(
        self, spool: Optional[Spool] = None, user: str = "", lane: Optional[Lane] = None
    ) -> bool:
        """Read the document where it is new. Whether that ends the wait of ``lane``: it waited for want of a key."""
        before = self.keys
        self._find(spool, user)
        self._note()
        return before != self.keys and lane is not None and _for_want_of_a_key(lane)

    def _find(self, spool: Optional[Spool], user: str) -> None:
        text = "\n".join([user, *sorted(root.fingerprint for root in self.ring.roots)])
        self._spool, self._tag = spool, sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
        given = self.ring.document
        try:
            if isinstance(given, str):
                self._read(given)
            elif given is not None and self._seen is None:
                self._seen = given
                self.offer(given, source=GIVEN, newest=self._newest())
        except (OSError, ValueError) as error:  # ValueError: a path that cannot be encoded
            self._seen = None
            self.refuse(str(given), getattr(error, "strerror", "") or type(error).__name__)

    def _read(self, path: str) -> None:
        found = os.stat(path)
        state = found.st_mtime_ns, found.st_size, found.st_ino
        if state != self._seen:
            data = _content(path)
            self._seen = state
            self.offer(data, source=path, newest=self._newest())

    def ask(self, transport: Transport, lane: Lane, timeout_s: float) -> None:
        """Fetch a document where the keys in force do not do, or where a newer one was seen before."""
        url, behind = self.ring.url, self._newest() > self.version and not self._asked
        if url is None or timeout_s <= 0 or not (behind or _for_want_of_a_key(lane)):
            return
        self._asked = True
        headers = {"Accept": "application/json", "User-Agent": "callhome-agent/" + __version__}
        try:
            answer = transport.send(Request("GET", url, headers, b""), timeout_s=timeout_s)
            if answer.status == 200 and answer.complete:
                self.offer(answer.body, source=url, newest=self._newest())
            else:
                self.refuse(url, "HTTP %d" % answer.status)
        except (Exception, SystemExit) as error:  # a vendor's transport may keep no promise
            self.refuse(url, getattr(error, "reason", "") or "transport: " + type(error).__name__)
        self._note()

    def offer(self, data: bytes, *, source: str, newest: int = 0) -> bool:
        """Take over a document; ``newest`` is the highest version ever seen. False: it is refused, see ``trouble``."""
        try:
            document = read_document(data, self.ring.roots, self.ring.threshold)
        except VerificationError as error:
            return self.refuse(source, str(error))
        version, newest = document["version"], max(newest, self.version)
        if version <= self.ring.version:
            reason = "version %d is not newer than the product's own keys" % version
            return self.refuse(source, reason)
        if version < newest:
            reason = "version %d is older than %d, which was seen before" % (version, newest)
            return self.refuse(source, reason)
        self.keys, self.version, self.expires = document["keys"], version, document["expires"]
        self.source, self.trouble = source, ""
        return True

    def refuse(self, source: str, reason: str) -> bool:
        """Note why a document is not in force; what is, stays."""
        self.trouble = "%s: %s" % (source, reason)
        return False

    def report(self, now: float, spool: Optional[Spool] = None, user: str = "") -> dict[str, Any]:
        """What is in force at ``now`` (Unix seconds), JSON-ready; a document that no pass has read is read for it."""
        shown = self
        if self.source == EMBEDDED and not self.trouble:
            shown = TrustedKeys(self.ring)
            shown._find(spool, user)
        facts = {name: getattr(shown, name) for name in ("version", "source", "expires", "trouble")}
        expired = shown.expires is not None and now > shown.expires
        return {**facts, "keys": [key.name for key in shown.keys], "expired": expired}

    def _note(self) -> None:
        if self._spool and self.source != EMBEDDED and self.version > self._newest():
            self._spool.note_fact("keyring", self._tag, version=self.version)

    def _newest(self) -> int:
        """The highest version ever seen. What is kept may be planted; it can only make us refuse."""
        kept = self._spool.fact("keyring", self._tag).get("version") if self._spool else None
        return kept if type(kept) is int and 0 <= kept <= MAX_VERSION else 0


def _for_want_of_a_key(lane: Lane) -> bool:
    return lane.failures > 0 and lane.reason.startswith(UNTRUSTED)


def _content(path: str) -> bytes:
    # Not opened as a file of ours: an updater installs it as whom it likes. A FIFO would block us.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
        if os.fstat(file.fileno()).st_mode & 0o170000 != 0o100000:
            raise OSError(0, "is not a regular file")
        return file.read(MAX_DOCUMENT_BYTES + 1)


# -- documents -----------------------------------------------------------------------------------


def read_document(data: bytes, roots: Iterable[PublicKey], threshold: int) -> dict[str, Any]:
    """The fields that at least ``threshold`` of ``roots`` signed, and as many as the document asks for itself.

    Raises ``EnvelopeMalformed``, ``SignatureInvalid`` or ``Unverifiable`` (PyNaCl is missing), whatever the bytes are
    nothing else.
    """
    text, signatures = split(data)
    count = sum(_has_signed(root, text, signatures) for root in roots)
    if count < threshold:
        raise SignatureInvalid("signed by %d of the %d roots needed" % (count, threshold))
    document = read_content(text)
    if count < document["threshold"]:
        reason = "signed by %d of the %d roots that it asks for" % (count, document["threshold"])
        raise SignatureInvalid(reason)
    return document


def split(data: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The signed text and (fingerprint of the root, signature) pairs; raises ``EnvelopeMalformed``."""
    data = as_bytes("document", data)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise EnvelopeMalformed("the keyring document is larger than %d bytes" % MAX_DOCUMENT_BYTES)
    try:
        found = read_json(data)
        text, pairs = found["signed"], found["signatures"]
        if not 0 < len(pairs) <= ROOTS_MAX or type(pairs) is not list:
            raise ValueError("has no proper `signatures`")
        signatures = [
            (str(pair["root"]), decode_base64(pair["signature"].encode("ascii"))) for pair in pairs
        ]
        return text.encode("ascii"), signatures
    except (ValueError, LookupError, TypeError, AttributeError):
        raise EnvelopeMalformed("not a keyring document") from None


def _has_signed(root: PublicKey, text: bytes, signatures: list[tuple[str, bytes]]) -> bool:
    """Whether one of the signatures is this root's; the fingerprint beside it only says which to try."""
    for fingerprint, signature in signatures:
        try:
            if fingerprint == root.fingerprint:
                root.verify(CONTEXT + text, signature)
                return True
        except SignatureInvalid:
            continue
    return False


def read_content(text: bytes) -> dict[str, Any]:
    """The fields of a signed text, checked, its keys made; raises ``EnvelopeMalformed``. Other names are left alone."""
    try:
        found = read_json(text)
        if type(found) is not dict or found.get("format") != FORMAT:
            raise ValueError("its format is not " + FORMAT)
        expires, given = found.get("expires"), found.get("keys")
        if type(given) is not list or not 0 < len(given) <= KEYS_MAX:
            raise ValueError("keys: 1 to %d are needed" % KEYS_MAX)
        fields: dict[str, Any] = {
            "version": _whole("version", found.get("version"), 1, MAX_VERSION),
            "issued": _whole("issued", found.get("issued"), 0, MAX_VERSION),
            "expires": None if expires is None else _whole("expires", expires, 0, MAX_VERSION),
            "threshold": _whole("threshold", found.get("threshold", 1), 1, ROOTS_MAX),
            "keys": tuple(map(_key, given)),
        }
        if len({key.name for key in fields["keys"]}) < len(given):
            raise ValueError("keys: two of one name")
        return fields
    except ValueError as error:
        raise EnvelopeMalformed("the keyring document is signed, but: %s" % error) from None


def _key(given: Any) -> PublicKey:
    if type(given) is not dict or type(given.get("public_key")) is not str:
        raise ValueError("keys: each is an object with name, algorithm and public_key")
    bounds = {name: given.get(name) for name in ("valid_from", "valid_until")}
    key = PublicKey.from_pem(given["public_key"], name=given.get("name", ""), **bounds)
    if given.get("algorithm") != key.algorithm:
        raise ValueError("keys: %s is a key of %s" % (key.name, key.algorithm))
    return key


# -- settings ------------------------------------------------------------------------------------


def _keys(field: str, value: Any) -> tuple[PublicKey, ...]:
    is_list = isinstance(value, (tuple, list)) and len(value) <= KEYS_MAX
    if not is_list or not all(isinstance(key, PublicKey) for key in value):
        message = "%s: a tuple of at most %d PublicKey is needed" % (field, KEYS_MAX)
        raise ConfigError(message, field)
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
