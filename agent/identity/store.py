"""The identity on disk: one file per (names, OS user), one checksummed line, written once.

An intact file is never changed but by a reset, and one of a newer format version never at all. Processes that start at
once agree on one identity: it takes its name by a hard link, which only the first can make, or else under a lock.
Callers get ``OSError`` where nothing can be kept, and go on in memory.
"""

from __future__ import annotations

import errno
import os

from .. import files, jsonline
from ..digest import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

VERSION = 1
NEWER = "written by a newer version"
_FIELDS = ("id", "source", "quality", "tag")
# Our line has about 150; room for what a newer version may keep, which cut short would look damaged.
_LIMIT_BYTES = 65536
# Nobody syncs under the lock: a holder needs a millisecond. After half a second it is stuck, and we go on in memory.
_TRIES = 100
_PAUSE_S = 0.005


class Identity:
    """Who the user is to the vendor, and how far that can be relied on.

    ``quality``: "strong" (one machine), "weak" (perhaps an image's), "random" (lives as long as its file). ``note``
    says why it is not stored, or what is odd about the stored one; ``tag`` is the mark of its machine id.
    """

    __slots__ = ("value", "source", "quality", "tag", "stored", "path", "note")

    def __init__(self, value: str, source: str, quality: str, tag: Optional[str]) -> None:
        self.value = value
        self.source = source
        self.quality = quality
        self.tag = tag
        self.at(None, stored=False)

    def at(self, path: Optional[str], *, stored: bool, note: str = "") -> Identity:
        """Say where this identity is kept; returns it."""
        self.path = path
        self.stored = stored
        self.note = note
        return self

    def __repr__(self) -> str:
        given = (self.value, self.source, self.quality, self.stored)
        return "Identity(%r, source=%r, quality=%r, stored=%r)" % given


def file_name(context: bytes) -> str:
    return "identity-" + str(sha256(context).hexdigest())[:16]


def encode(identity: Identity) -> bytes:
    return _line(identity.value, identity.source, identity.quality, identity.tag)


def load(path: str) -> Optional[Identity]:
    """The identity that is kept here; None where there is none, or a damaged one.

    Raises ``OSError`` where that cannot be known, and for what a newer version keeps without an identifier.
    """
    record = _decode(files.read(path, _LIMIT_BYTES))
    version = record.get("v") if isinstance(record, dict) else None
    if type(version) is not int or version < VERSION:
        return None
    value, source, quality, tag = (record.get(name) for name in _FIELDS)
    newer = version > VERSION
    if not isinstance(value, str) or len(value) != 32 or value.strip("0123456789abcdef"):
        if newer:
            raise FileExistsError(errno.EEXIST, NEWER, path)
        return None
    if newer:  # only the identifier is sure to mean what we think
        return Identity(value, "unknown", "weak", None).at(path, stored=True, note=NEWER)
    return Identity(value, source, quality, tag).at(path, stored=True)


def keep(path: str, candidate: Identity, *, reset: bool = False) -> Identity:
    """Store ``candidate`` and return it, or return the intact one that is there already; raises ``OSError``.

    ``reset`` replaces an intact one too.
    """
    directory = os.path.dirname(path)
    files.ensure_directory(directory)
    temporary = "%s.%s.tmp" % (path, os.urandom(8).hex())
    try:
        files.write_new(temporary, encode(candidate))
        kept = None if reset else _keep_first(temporary, path, candidate)
        return kept or _keep_locked(temporary, path, candidate, reset)
    finally:
        files.remove(temporary)


def _line(*values: Any) -> bytes:
    return jsonline.encode({"v": VERSION, **dict(zip(_FIELDS, values))})


def _decode(content: bytes) -> Any:
    # A line exactly as we write it needs no JSON parser: ``json`` loads ``re``, 8 ms of a cold start.
    words = content.decode("ascii", "replace").split('"')
    values = [*words[5:14:4], words[17] if len(words) > 17 else None]
    if len(values) == len(_FIELDS) and _line(*values) == content:
        return {"v": VERSION, **dict(zip(_FIELDS, values))}
    return jsonline.decode(content.rstrip(b"\n"))


def _keep_first(temporary: str, path: str, candidate: Identity) -> Optional[Identity]:
    """Whoever links first has won. None: what is there is damaged, or there are no hard links here."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return load(path)
    except (OSError, AttributeError):
        return None
    return candidate.at(path, stored=True)


def _keep_locked(temporary: str, path: str, candidate: Identity, reset: bool) -> Identity:
    import time

    fd = files.open_append(path + ".lock")
    try:
        for _ in range(_TRIES):
            if files.lock(fd) is not False:  # None: no locks here
                break
            time.sleep(_PAUSE_S)
        else:
            raise TimeoutError(errno.ETIMEDOUT, "another process holds the lock")
        found = load(path)
        if found is not None and (found.note == NEWER or not reset):
            return found
        os.replace(temporary, path)
        # Without locks somebody may have come after us: what the disk says now is what the next start will see.
        return load(path) or candidate.at(path, stored=True)
    finally:
        files.release(fd)
