"""``Keyring``: response keys that a signed document may replace, so that a vendor can rotate them without an update.

A keyring document is JSON: ``signed``, a JSON text, and ``signatures`` of it by Ed25519 root keys that are embedded in
the product; its bytes are checked before they are parsed (modelled on TUF's root role). It comes from a file beside the
program or from an address of the vendor's, never from the state directory, which keeps only the newest version seen.
Whatever goes wrong leaves the keys that are in force, and is told by ``status``.
"""

from __future__ import annotations

import os

from .. import TYPE_CHECKING, __version__
from ..config import HTTPS, kept
from ..errors import EnvelopeMalformed, SignatureInvalid, VerificationError, mistake
from ..lines import sha256
from ..signatures.envelope import MAX_INTEGER, MAX_JSON_BYTES, read_json
from ..signatures.keys import ED25519, Frozen, PublicKey, decode_base64
from ..values import Request
from ..verdicts import UNTRUSTED

if TYPE_CHECKING:
    from typing import Any, Iterable, Optional

FORMAT = "keyring/1"
# In front of what a root signs, so that no signature of anything else can be taken for one of a keyring.
CONTEXT = b"keyring document 1\n"
KEYS_MAX, ROOTS_MAX, MAX_VERSION = 32, 32, MAX_INTEGER
EMBEDDED, GIVEN = "embedded", "given document"
_NOT_NEWER = "version %d is not newer than the product's own keys"
_OLDER = "version %d is older than %d, which was seen before"
# What reading raises where something is missing or of another type.
_ODD = (ValueError, LookupError, TypeError, AttributeError)


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
        document: Any = None,
        url: Optional[str] = None,
    ) -> None:
        self.keys = _keys("keys", keys, 1)
        # Without roots no document could be proven.
        self.roots = _keys("roots", roots, 0 if document is url is None else 1)
        self.version = _whole("version", version, 0, MAX_VERSION)
        self.threshold = _whole("threshold", threshold, 1, max(1, len(self.roots)))
        different = {root.fingerprint for root in self.roots if root.algorithm == ED25519}
        if len(different) < len(self.roots):
            raise mistake("roots", roots, "Ed25519 keys, each of them once")
        if isinstance(document, (str, os.PathLike)):
            document = os.path.abspath(os.fsdecode(document))
        elif document is not None and not isinstance(document, bytes):
            raise mistake("document", document, "None, the bytes of a document, or its path")
        self.document = document
        self.url = None if url is None else kept("url", url, *HTTPS)

    def trusted(self) -> TrustedKeys:
        """The keys that answers may be signed with now."""
        return TrustedKeys(self)


class TrustedKeys:
    """Which keys of a keyring are in force: those embedded, or those of the newest document that was proven.

        trusted = ring.trusted()
        trusted.look(spool, lane)                  # at the start of a pass: is there a new file?
        trusted.ask(transport, lane, timeout_s)    # before a request: fetches one for want of a key
        verify(answer, trusted.keys)

    What is expired works on, and says so in ``report``. ``newest`` is the highest version ever seen: what is kept of it
    may be planted, and can only make us refuse.
    """

    def __init__(self, ring: Keyring) -> None:
        self.ring, self.keys, self.version, self.newest = ring, ring.keys, ring.version, 0
        self.expires: Optional[int] = None  # Unix seconds
        self.source, self.trouble = EMBEDDED, ""
        self._seen: Optional[bytes] = None  # the document as it was read last
        self._asked = False  # for what was newer at the start of this process
        self._spool: Any = None  # where the newest version is kept
        roots = "\n".join(sorted(root.fingerprint for root in ring.roots))
        self._tag: str = sha256(roots.encode("ascii")).hexdigest()[:16]

    def look(self, spool: Any = None, lane: Any = None) -> bool:
        """Read the document where it is new. Whether that ends the wait of ``lane``: it waited for want of a key."""
        before, self._spool = self.keys, spool
        self._read(spool)
        return before != self.keys and lane is not None and _for_want_of_a_key(lane)

    def _read(self, spool: Any) -> None:
        kept = spool.book.fact("keyring", self._tag).get("version") if spool is not None else 0
        self.newest = kept if type(kept) is int and 0 <= kept <= MAX_VERSION else 0
        given = self.ring.document
        source = given if isinstance(given, str) else GIVEN
        try:
            data = _content(source) if source is given else given
            if data not in (None, self._seen):
                self._seen = data
                self.offer(data, source)
        except (OSError, ValueError) as error:  # ValueError: a path that cannot be encoded
            why = getattr(error, "strerror", "") or type(error).__name__
            self._seen, self.trouble = None, "%s: %s" % (source, why)

    def ask(self, transport: Any, lane: Any, timeout_s: float) -> None:
        """Fetch a document where the keys in force do not do, or where a newer one was seen before."""
        url, behind = self.ring.url, self.newest > self.version and not self._asked
        if url is None or timeout_s <= 0 or not (behind or _for_want_of_a_key(lane)):
            return
        self._asked = True
        headers = {"Accept": "application/json", "User-Agent": "callhome-agent/" + __version__}
        try:
            answer = transport.send(Request("GET", url, headers, b""), timeout_s=timeout_s)
            if answer.status == 200:
                self.offer(answer.body, url)
            else:
                self.trouble = "%s: HTTP %d" % (url, answer.status)
        except (Exception, SystemExit) as error:  # a vendor's transport may keep no promise
            self.trouble = "%s: %s" % (url, getattr(error, "reason", type(error).__name__))

    def offer(self, data: bytes, source: str) -> None:
        """Take over a document; ``trouble`` says why it is refused."""
        try:
            document = read_document(data, self.ring.roots, self.ring.threshold)
            version, newest = document["version"], max(self.newest, self.version)
            if version <= self.ring.version:
                raise SignatureInvalid(_NOT_NEWER % version)
            if version < newest:
                raise SignatureInvalid(_OLDER % (version, newest))
            self.keys, self.version, self.expires = document["keys"], version, document["expires"]
            self.source, self.trouble = source, ""
            if self._spool and version > self.newest:
                self._spool.book.note("keyring", self._tag, version=version)
                self.newest = version
        except VerificationError as error:
            self.trouble = "%s: %s" % (source, error)

    def report(self, now: float, spool: Any = None) -> dict[str, Any]:
        """What is in force at ``now`` (Unix seconds), JSON-ready; a document that no pass has read is read for it."""
        shown = self
        if self.source == EMBEDDED and not self.trouble:
            shown = TrustedKeys(self.ring)
            shown._read(spool)
        facts = {name: getattr(shown, name) for name in ("version", "source", "expires", "trouble")}
        expired = shown.expires is not None and now > shown.expires
        return {**facts, "keys": [key.name for key in shown.keys], "expired": expired}


def _for_want_of_a_key(lane: Any) -> bool:
    return lane.failures > 0 and str(lane.reason).startswith(UNTRUSTED)


def _content(path: str) -> bytes:
    # Not opened as a file of ours: an updater installs it as whom it likes. A FIFO would block us.
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(fd, "rb") as file:
        return file.read(MAX_JSON_BYTES + 1) or b""


# -- documents ----


def read_document(data: bytes, roots: Iterable[PublicKey], threshold: int) -> dict[str, Any]:
    """The fields that at least ``threshold`` of ``roots`` signed, and as many as the document asks for itself.

    Raises ``EnvelopeMalformed``, ``SignatureInvalid`` or ``Unverifiable`` (PyNaCl is missing), whatever the bytes are
    nothing else.
    """
    text, signatures = split(data)
    count = 0
    for root in roots:
        try:
            root.verify(CONTEXT + text, signatures.get(root.fingerprint, b""))
            count += 1
        except SignatureInvalid:
            pass
    document = read_content(text) if count >= threshold else {}  # of too few it is not even read
    needed = max(threshold, document.get("threshold", 0))
    if count < needed:
        raise SignatureInvalid("signed by %d of the %d roots needed" % (count, needed))
    return document


def split(data: bytes) -> tuple[bytes, dict[str, bytes]]:
    """The signed text, and signatures by the fingerprints of their roots; raises ``EnvelopeMalformed``."""
    try:
        found = read_json(data)
        pairs = [(one["root"], one["signature"].encode("ascii")) for one in found["signatures"]]
        signatures = {str(root): decode_base64(signature) for root, signature in pairs[:ROOTS_MAX]}
        return found["signed"].encode("ascii"), signatures
    except _ODD:
        raise EnvelopeMalformed("not a keyring document") from None


def read_content(text: bytes) -> dict[str, Any]:
    """The fields of a signed text, checked, its keys made; raises ``EnvelopeMalformed``. Other names are left alone."""
    try:
        found = read_json(text)
        if found.get("format") != FORMAT or not 0 < len(found["keys"]) <= KEYS_MAX:
            raise ValueError("it is not of the format %s with 1 to %d keys" % (FORMAT, KEYS_MAX))
        expires = found.get("expires")
        return {
            "version": _whole("version", found.get("version"), 1, MAX_VERSION),
            "issued": _whole("issued", found.get("issued"), 0, MAX_VERSION),
            "expires": None if expires is None else _whole("expires", expires, 0, MAX_VERSION),
            "threshold": _whole("threshold", found.get("threshold", 1), 1, ROOTS_MAX),
            "keys": tuple(map(_key, found["keys"])),
        }
    except _ODD as error:
        raise EnvelopeMalformed("the keyring document is signed, but: %s" % error) from None


def _key(given: Any) -> PublicKey:
    key = PublicKey.from_pem(given["public_key"], name=given["name"])
    if given["algorithm"] != key.algorithm:
        raise ValueError("keys: %s is a key of %s" % (key.name, key.algorithm))
    return key


# -- settings ----


def _keys(field: str, value: Any, least: int) -> tuple[PublicKey, ...]:
    found = tuple(value) if isinstance(value, (tuple, list)) else (None,)
    if not least <= len(found) <= KEYS_MAX or not all(isinstance(key, PublicKey) for key in found):
        raise mistake(field, value, "a tuple of %d to %d PublicKey" % (least, KEYS_MAX))
    return found


def _whole(field: str, value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise mistake(field, value, "an int from %d to %d" % (least, most))
    return value
