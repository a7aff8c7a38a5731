"""One segment as a reader sees it: its records, its damage, and whether its writer lives.

Reading is incremental. A view decides nothing about sending; it only knows what the bytes say, and removes them
when it is told that they are done with.
"""

from __future__ import annotations

import os

from .. import files
from . import names, records
from .lines import Tail, decoded
from .records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

# Damaged lines kept for a look: so much of each, so much together. Behind that they are only counted.
DAMAGED_LINE_BYTES, DAMAGED_BYTES = 1024, 64 << 10
# Held of one segment; a planted one may have millions.
DAMAGED_LINES = 10_000
# No segment of ours is longer: it is sealed at half of that, unless a single line takes more, which is 508 KiB at most.
# A planted one of 60 MB that was read whole cost 1.1 GB of memory.
LONGEST_BYTES = 512 << 10
# Several may have been joined by somebody; of what is longer only so much is read.
READ_BYTES = 8 * LONGEST_BYTES
# Where locking does not work (some network homes) a segment left alone for so long has no writer.
LOCKLESS_AGE_S = 7 * 86400.0


class SegmentView:
    """The content of one segment, read as far as it is whole."""

    __slots__ = ("name", "path", "_tail", "records", "_totals", "damaged", "newer", "trouble",
                 "_fd")  # fmt: skip

    def __init__(self, directory: str, name: str) -> None:
        self.name = name
        self.path = os.path.join(directory, name)
        self._fd: Optional[int] = None
        self.unload()

    def unload(self) -> None:
        """Give the memory back; the next refresh reads from the start."""
        self._tail = Tail(self.path, READ_BYTES)
        self.records: dict[tuple[str, str], Record] = {}
        self._totals: dict[tuple[str, str], list[Any]] = {}  # whose record did not come yet
        self.damaged: list[bytes] = []
        self.newer = 0
        self.trouble = ""

    def refresh(self) -> None:
        """Read what was appended since."""
        self.trouble = ""
        try:
            for line, value in decoded(self._tail.lines()):
                self._take(line, records.parse(value, self.name))
        except OSError as error:
            self.trouble = str(error)

    def _take(self, line: bytes, entry: Any) -> None:
        if isinstance(entry, Record):
            if self.records.setdefault(entry.key, entry) is entry:
                for total in self._totals.pop(entry.key, ()):
                    self._take(b"", total)
        elif isinstance(entry, dict):
            key = (entry["e"], entry["id"])
            record = self.records.get(key)
            if record is None:
                self._totals.setdefault(key, []).append(entry)
            elif record.kind == "aggregate":
                counted = record.body.get("count")
                total = max(counted if type(counted) is int else 0, entry["n"])
                record.body = {**record.body, "count": total}  # another may hold the old one
                record.ended_at = entry.get("end", record.ended_at)
                meta = record.body.get("meta")
                ended_at = record.ended_at
                if ended_at is not None and isinstance(meta, dict) and 0 <= ended_at < 1e12:
                    # Sooner than was planned when the window began.
                    record.body["meta"] = {**meta, "window_end": int(ended_at)}
        elif entry == records.NEWER:
            self.newer += 1
        elif len(self.damaged) < DAMAGED_LINES:
            self.damaged.append(line[:DAMAGED_LINE_BYTES])

    def is_live(self) -> bool:
        """Whether its writer still holds it; where locks do not work, whether that is possible."""
        fd = self._hold()
        if fd is not None:
            files.release(fd)
        return fd is None

    def _hold(self) -> Optional[int]:
        try:
            fd = files.open_append(self.path, missing_ok=False)
        except OSError:
            return None
        held = files.hold(fd, self.path)
        if held is None:
            import time  # the file system's clock, so the system's and no other

            held = time.time() - os.fstat(fd).st_mtime > LOCKLESS_AGE_S
        if held:
            return fd
        files.close(fd)
        return None

    def seize(self) -> bool:
        """Hold the segment against writers and other reapers, and read it afresh, to its end.

        False where it is not free, cannot be read, or holds a newer format, which is nobody's to remove.
        """
        self._fd = self._hold()
        if self._fd is None:
            return False
        try:
            # Nothing that an earlier reading left out, for whatever reason, may go unread.
            self.unload()
            self.refresh()
        except BaseException:
            self.let_go()
            raise
        if self.newer or self.trouble:
            self.let_go()
        return self._fd is not None

    def let_go(self) -> None:
        """The opposite of ``seize``."""
        fd, self._fd = self._fd, None
        if fd is not None:
            files.release(fd)

    def remove(self) -> bool:
        """Unlink a seized segment, its damage set aside first; False where it stays."""
        if self.damaged or self._tail.rest:
            self._set_aside()
        fd, self._fd = self._fd, None
        removed = fd is not None and files.remove_held(fd, self.path)
        return removed and files.remove(names.sidecar(self.path))

    def purge(self) -> None:
        """Unlink the segment, its writer alive or not, unless others than usage are in it.

        A writer notices and begins another.
        """
        self.refresh()
        if not self.newer and all(record.usage for record in self.records.values()):
            if files.remove(self.path):
                files.remove(names.sidecar(self.path))

    def _set_aside(self) -> None:
        damaged = [line for line in (*self.damaged, self._tail.rest) if line]
        try:
            fd = files.open_append(os.path.join(os.path.dirname(self.path), names.DAMAGED))
        except OSError:
            return  # nothing that could be sent is lost
        try:
            size = os.fstat(fd).st_size
            for line in damaged if size < 2 * DAMAGED_BYTES else ():
                kept = line[:DAMAGED_LINE_BYTES] if size < DAMAGED_BYTES else b"-"
                size += os.write(fd, kept + b"\n")
        except OSError:
            pass
        finally:
            files.close(fd)
