"""Where keyring documents come from: a file beside the program, an address of the vendor's; and which was the newest.

Runs on the delivering thread. Whatever goes wrong here leaves the keys that are in force and is told by ``status``.
Whether a document is believed is decided in ``signatures``; only the highest version seen is kept on disk, for a
keyring never comes from the state directory.
"""

from __future__ import annotations

import os

from . import story
from .digest import sha256
from .endpoints.verdicts import UNTRUSTED
from .signatures.keyring import MAX_DOCUMENT_BYTES
from .signatures.trust import EMBEDDED, TrustedKeys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from .signatures import Keyring
    from .spool.facts import Facts, Lane
    from .transport.values import Transport

GIVEN = "given document"


class Rotation:
    """Keeps the keys of one endpoint's keyring up to date."""

    def __init__(
        self, trust: TrustedKeys, facts: Facts, user_identifier: str, *, looking: bool = False
    ) -> None:
        self._trust, self._facts, self._looking = trust, facts, looking
        ring = trust.ring
        text = "\n".join([user_identifier, *sorted(root.fingerprint for root in ring.roots)])
        self._tag = str(sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16])
        self._seen: Any = None  # the file as it was read last
        self._asked = False  # for what was newer at the start of this process

    def look(self, lane: Lane) -> None:
        """Read the document where it is new; then no wait stands that the old keys caused."""
        given = self._trust.ring.document
        if isinstance(given, bytes):
            data, self._seen = (None, given) if self._seen is not None else (given, given)
            source = GIVEN
        elif given is not None:
            data, source = self._changed(given), given
        else:
            return
        if data is not None:
            self._offer(data, source, lane)

    def _changed(self, path: str) -> Optional[bytes]:
        """What a file holds, None if that was read before or cannot be."""
        try:
            found = os.stat(path)
            state = found.st_mtime_ns, found.st_size, found.st_ino
            if state == self._seen:
                return None
            # Not opened as a file of ours: an updater installs it as whom it likes. A FIFO would block us.
            if found.st_mode & 0o170000 != 0o100000:
                raise OSError(0, "is not a regular file")
            with open(path, "rb") as file:
                data = file.read(MAX_DOCUMENT_BYTES + 1)
        except OSError as error:
            self._seen = None
            self._trust.refuse(path, error.strerror or type(error).__name__)
            return None
        self._seen = state
        return data

    def _offer(self, data: bytes, source: str, lane: Lane) -> None:
        trust = self._trust
        newest = self._facts.keyring_version(self._tag)
        changed = trust.offer(data, source=source, newest=newest)
        if self._looking:
            return
        taken = trust.trouble or "version %d, from %s" % (trust.version, source)
        story.tell("keyring document %s: %s", "refused" if trust.trouble else "taken", taken)
        if changed and _for_want_of_a_key(lane):
            lane.forgive()
            self._facts.save(lane)
        if not trust.trouble and trust.version > newest:
            self._facts.save_keyring_version(self._tag, trust.version)

    def ask(self, transport: Transport, lane: Lane, timeout_s: float) -> None:
        """Fetch a document where the keys in force do not do, or where a newer one was seen before."""
        url, newest = self._trust.ring.url, self._facts.keyring_version(self._tag)
        behind = newest > self._trust.version and not self._asked
        if url is None or timeout_s <= 0 or not (behind or _for_want_of_a_key(lane)):
            return
        from .transport import Request, Unreachable
        from .version import VERSION

        self._asked = True
        headers = {"Accept": "application/json", "User-Agent": "callhome-agent/" + VERSION}
        try:
            answer = transport.send(Request("GET", url, headers, b""), timeout_s=timeout_s)
            if answer.status == 200 and answer.complete:
                self._offer(answer.body, url, lane)
            else:
                self._trust.refuse(url, "HTTP %d" % answer.status)
        except Unreachable as error:
            self._trust.refuse(url, error.reason)
        except (Exception, SystemExit) as error:  # a vendor's transport, which keeps no promise
            self._trust.refuse(url, "transport: " + type(error).__name__)


def _for_want_of_a_key(lane: Lane) -> bool:
    return lane.failures > 0 and lane.reason.startswith(UNTRUSTED)


def shown(trust: TrustedKeys, facts: Facts, user_identifier: str, now: float) -> dict[str, Any]:
    """What is in force, for those who only look: where no pass has read the document yet, it is read for them."""
    if trust.source == EMBEDDED and not trust.trouble:
        trust = looked_at(trust.ring, facts, user_identifier)
    return trust.report(now)


def looked_at(ring: Keyring, facts: Facts, user_identifier: str = "") -> TrustedKeys:
    """The keys of a keyring whose document was read and nothing noted."""
    trust = TrustedKeys(ring)
    Rotation(trust, facts, user_identifier, looking=True).look(facts.lane(""))
    return trust
