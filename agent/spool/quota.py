"""Bounds: before records are added room is made, by evicting whole segments that nobody writes.

A writer may add a 64th of what is free before it asks again, so 64 processes that ask at once stay below the quota.
The order is dead usage, dead licence, usage, licence, each oldest first. What is evicted is reported before it goes:
a crash between the two repeats the report under the same id and loses no count.
"""

from __future__ import annotations

import errno
import os

from .. import files, jsonline
from . import names
from .ledger import Ledger
from .lines import is_foreign
from .records import DROPPED, OPENING, report
from .view import LONGEST_BYTES, READ_BYTES, SegmentView

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional

# 64 segments to a quota: eviction is fine-grained, and the size of one stays free for sidecars.
SEGMENTS, SEGMENT_BYTES = 64, LONGEST_BYTES // 2
# Shorter than any record's line: how many records a size may hold at most.
MIN_LINE_BYTES = 128
# Dead letters take at most a tenth.
DEAD_SHARE = 10
# After so many segments had to be read, what is known of all is kept in a file.
KEPT_AFTER, COUNTS_BYTES = 4, 1 << 20
# Segments held, and reported together, before they are removed.
AT_ONCE = 32


class QuotaFull(OSError):
    """No room, and nothing that may be evicted."""


class Quota:
    """The bounds of one state directory; ``dropped(records, id, told)`` hears of each eviction beforehand."""

    def __init__(
        self, directory: str, max_bytes: int, max_records: int, dropped: Callable[..., None]
    ) -> None:
        self._directory, self._dropped = directory, dropped
        self.segment_bytes = min(SEGMENT_BYTES, max(512, max_bytes // SEGMENTS))
        self.segment_records = max(1, max_records // SEGMENTS)
        self._max_bytes, self._max_records = max_bytes - self.segment_bytes, max_records
        self.sizes: dict[str, int] = {}  # of our files, when last asked
        self._exact, self._free_bytes, self._free_records = False, 0, 0
        self._counts: Optional[dict[str, tuple[int, int]]] = None  # (size, records) of segments
        self._lasting: set[str] = set()  # of a newer format: not read again for each record
        self._uncounted = 0  # segments unknown to it that had to be read

    def lease(self, need_bytes: int) -> tuple[int, int]:
        """(bytes, records) that may be added before asking again; raises ``QuotaFull``."""
        self.look()
        room_bytes = max(need_bytes, self.segment_bytes)
        while self._free_bytes < need_bytes or self._free_records < 1:
            if need_bytes > self._max_bytes or not self._drop(
                self.segments(names.EVICTION),
                lambda: self._free_bytes >= room_bytes
                and self._free_records >= self.segment_records,
            ):
                raise QuotaFull(errno.ENOSPC, "the quota is full")
        free_bytes, free_records = self._free_bytes // SEGMENTS, self._free_records // SEGMENTS
        return max(need_bytes, free_bytes), max(1, free_records)

    def trim_dead(self, before_at: float = 0.0) -> None:
        """Hold dead letters to their share; drop those of segments left alone since ``before_at``, Unix seconds."""
        self.look()
        dead = self.segments(names.DEAD_CLASSES)
        aged = [n for n in dead if os.stat(os.path.join(self._directory, n)).st_mtime < before_at]
        self._drop(aged, lambda: False)
        share = self._max_bytes // DEAD_SHARE - self.segment_bytes
        self._drop(dead, lambda: sum(map(self._size, dead)) <= share)

    def look(self, *, exact: bool = False) -> tuple[int, int]:
        """(bytes, records) that may be added before any are evicted; at least, unless ``exact``."""
        self.sizes = {}
        with os.scandir(self._directory) as entries:
            for entry in entries:
                try:
                    if names.is_ours(entry.name) and entry.is_file(follow_symlinks=False):
                        size = entry.stat(follow_symlinks=False).st_size
                        # What damage made of one counts for no more: the next pass delivers and removes it, and
                        # whole records would be evicted for it meanwhile.
                        self.sizes[entry.name] = min(size, READ_BYTES)
                except FileNotFoundError:
                    pass  # gone since
        total = sum(self.sizes.values())
        # By size alone there may be too many records: only then are they counted.
        self._exact = exact or total // MIN_LINE_BYTES > self._max_records // 2
        self._free_bytes = self._max_bytes - total
        self._free_records = self._max_records - sum(map(self._count, self.sizes))
        if self._uncounted > KEPT_AFTER:
            self._keep_counts()
        return self._free_bytes, self._free_records

    def segments(self, classes: str) -> list[str]:
        """The segments of some classes, in this order, each oldest first."""
        found = [name for name in self.sizes if name.endswith(names.SEGMENT) and name[0] in classes]
        return sorted(found, key=lambda name: (classes.index(name[0]), names.order(name)))

    def _size(self, name: str) -> int:
        return self.sizes.get(name, 0)

    def _count(self, name: str) -> int:
        """How many records a file holds, settled ones included, without parsing any."""
        size = self.sizes[name]
        if not self._exact or not name.endswith(names.SEGMENT):
            return 0 if self._exact else size // MIN_LINE_BYTES
        if self._counts is None:
            self._counts = self._kept_counts()
        if self._counts.get(name, (-1, 0))[0] != size:
            self._uncounted += name not in self._counts
            try:
                data = files.read(os.path.join(self._directory, name), READ_BYTES)
            except OSError:
                data = b""
            opened = [line[21:26] for line in data.split(b"\n") if line[8:].startswith(OPENING)]
            self._counts[name] = size, len(opened) - opened.count(b"count")
        return self._counts[name][1]

    def _kept_counts(self) -> dict[str, tuple[int, int]]:
        """What somebody counted; an entry is worth something while its segment has that size."""
        counts = {}
        try:
            data = files.read(os.path.join(self._directory, names.COUNTS), COUNTS_BYTES)
            for line in data.split(b"\n"):
                # By hand: loading json costs a cold start 8 ms.
                name, size, count = jsonline.text_of(line)[2:-1].split(b",")
                counts[name[:-1].decode("ascii")] = int(size), int(count)
        except (OSError, ValueError):
            pass  # torn: the rest is read
        return counts

    def _keep_counts(self) -> None:
        self._uncounted = 0
        self._counts = {n: c for n, c in (self._counts or {}).items() if n in self.sizes}
        lines = [jsonline.encode([name, *found]) for name, found in self._counts.items()]
        path = os.path.join(self._directory, names.COUNTS)
        if is_foreign(path):
            return
        try:
            fd = files.open_append(path)
            try:
                os.ftruncate(fd, 0)
                files.write_whole(fd, b"".join(lines)[:COUNTS_BYTES])
            finally:
                files.close(fd)
        except OSError:
            pass  # whoever wants to know counts

    def _drop(self, candidates: list[str], is_enough: Callable[[], bool]) -> bool:
        """Report what waits in the first candidates that nobody writes, then remove them; False for none."""
        victims: list[SegmentView] = []
        try:
            for name in candidates:
                if len(victims) == AT_ONCE or is_enough():
                    break
                view = SegmentView(self._directory, name)
                if name not in self.sizes or name in self._lasting:
                    continue
                if view.seize():
                    victims.append(view)
                    self._free_records += self._count(name)
                    self._free_bytes += self.sizes.pop(name)
                    self._free_bytes += self.sizes.pop(names.sidecar(name), 0)
                elif view.newer:
                    self._lasting.add(name)
            if victims:
                self._report(victims)
            for view in victims:
                view.remove()
        finally:
            for view in victims:
                view.let_go()
        return bool(victims)

    def _report(self, victims: list[SegmentView]) -> None:
        ledger = Ledger(self._directory)
        ledger.refresh(*names.listing(self._directory))
        found = [record for view in victims for record in view.records.values()]
        gone = [record for record in found if not ledger.is_settled(record.key)]
        report(gone, DROPPED + victims[0].name[15:31], self._dropped)
