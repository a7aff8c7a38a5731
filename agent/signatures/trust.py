"""``TrustedKeys``: which response keys of a keyring are in force, those embedded or those of a proven document.

Documents are offered from wherever they were found; one that is unproven, or older than what was seen before, changes
nothing but ``trouble``. No I/O and no clock: reading, fetching and remembering the newest version belong above.
"""

from __future__ import annotations

from ..errors import VerificationError
from .keyring import read_document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from .keyring import Keyring
    from .keys import PublicKey

EMBEDDED = "embedded"


class TrustedKeys:
    """The keys of one ``Keyring`` that answers may be signed with now."""

    __slots__ = ("ring", "keys", "version", "expires", "source", "trouble")

    def __init__(self, ring: Keyring) -> None:
        self.ring = ring
        self.keys: tuple[PublicKey, ...] = ring.keys
        self.version = ring.version
        self.expires: Optional[int] = None  # Unix seconds; what is expired works on, and says so
        self.source = EMBEDDED
        self.trouble = ""

    def offer(self, data: bytes, *, source: str, newest: int) -> bool:
        """Take over a document; ``newest`` is the highest version ever seen. Whether other keys are in force now."""
        try:
            document = read_document(data, self.ring.roots, self.ring.threshold)
        except VerificationError as error:
            return self.refuse(source, str(error))
        if document.version <= self.ring.version:
            reason = "version %d is not newer than the product's own keys" % document.version
            return self.refuse(source, reason)
        newest = max(newest, self.version)
        if document.version < newest:
            reason = "version %d is older than %d, which was seen before"
            return self.refuse(source, reason % (document.version, newest))
        before, self.keys = self.keys, document.keys
        self.version, self.expires = document.version, document.expires
        self.source, self.trouble = source, ""
        return before != self.keys

    def refuse(self, source: str, reason: str) -> bool:
        """Note why a document is not in force; what is, stays."""
        self.trouble = "%s: %s" % (source, reason)
        return False

    def report(self, now: float) -> dict[str, Any]:
        """What is in force at ``now`` (Unix seconds), JSON-ready."""
        return {
            "version": self.version,
            "source": self.source,
            "keys": [key.name for key in self.keys],
            "expires": self.expires,
            "expired": self.expires is not None and now > self.expires,
            "trouble": self.trouble,
        }
