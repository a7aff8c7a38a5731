"""Writing segments: one open file per class, locked for as long as this process may append to it.

The writer holds its segment's lock for life, so a locked segment has a living writer and an unlocked one is
complete. A record is acknowledged only when its whole line is in a file that still has a name.
What to write, and what to do when the disk refuses, is decided by the spool above.
"""

from __future__ import annotations

import errno
import os

from .. import files
from . import names, records
from .quota import QuotaFull

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

    from ..clock import Clock
    from .quota import Quota

# An hour: a segment that stays open keeps its settled records on disk. Counters are sealed when their windows end.
SEAL_AGE_S = 3600.0
# How many segments of ended processes are tried before a new one is begun.
ADOPTIONS = 4


class SegmentWriter:
    """Appends lines to segments of one ``class_``, sealing each at its bounds.

    With ``alone`` a segment of its own, without a look at the quota, for one that interrupts another.
    """

    def __init__(
        self,
        directory: str,
        class_: str,
        quota: Quota,
        clock: Clock,
        *,
        power: bool = True,
        alone: bool = False,
    ) -> None:
        self._directory, self._class, self._power = directory, class_, power
        self._quota, self._clock, self._alone = quota, clock, alone
        self._fd: Optional[int] = None
        self._size = self._count = self._created_ms = 0
        self._lease_bytes = self._lease_records = 0
        self._opened_at = 0.0
        self._unsynced = self._unsynced_name = False
        self._adopting = True  # at the first append, and after a segment's hour
        self._last = ""  # the name of the segment that was written last
        self.name: Optional[str] = None
        self.lockless = False

    def append(self, line: bytes, *, sync: bool) -> None:
        """Put one whole line into a segment; raise ``OSError`` when two segments in turn refuse it.

        After any failure the file is abandoned: a torn line would swallow the next one. After anything that interrupts
        us it is sealed as it is, for nobody knows how far we came.
        """
        for last in (False, True):
            try:
                try:
                    return self._append(line, sync)
                except OSError as error:
                    self.abandon(len(line))
                    if last or isinstance(error, QuotaFull):
                        raise
            except OSError:
                raise
            except BaseException:
                self.seal()
                raise

    def _append(self, line: bytes, sync: bool) -> None:
        if self._is_due(len(line)):
            self.seal()
            self._adopting = True
        if self._fd is None:
            files.ensure_directory(self._directory)
            self._lease_records = 0
        if not self._alone and (self._lease_bytes < len(line) or self._lease_records < 1):
            self._lease_bytes, self._lease_records = self._quota.lease(len(line))
        if self._fd is None and not self._adopt():
            self._begin()
        fd = self._fd
        assert fd is not None
        self._unsynced = True
        files.write_whole(fd, line)
        if sync:
            self.sync()
        # Purged or erased by another process meanwhile: what was written went with the name.
        if os.fstat(fd).st_nlink == 0 and not files.WINDOWS:
            raise FileNotFoundError(errno.ENOENT, "the segment was removed")
        self._size += len(line)
        self._count += 1
        self._lease_bytes -= len(line)
        self._lease_records -= 1

    def _is_due(self, more_bytes: int) -> bool:
        """Whether the open segment should be sealed before ``more_bytes`` are added."""
        return self._count > 0 and (
            self._size + more_bytes > self._quota.segment_bytes
            or self._count >= self._quota.segment_records
            or (self._class != names.COUNTERS and self._age_s() > SEAL_AGE_S)
        )

    def _age_s(self) -> float:
        return self._clock.monotonic() - self._opened_at

    def _begin(self) -> None:
        for _ in range(8):
            # Within a run the order of names is the order of creation, whatever the clock does.
            self._created_ms = max(int(self._clock.time() * 1000), self._created_ms + 1, 0)
            name = names.segment(self._class, self._created_ms & 0xFFFFFFFFFFFF)
            path = os.path.join(self._directory, name)
            fd = files.create(path)
            held = files.hold(fd, path)
            if held is not False:
                self.lockless = held is None
                return self._take(fd, name, 0, 0)
            files.close(fd)
        raise OSError(errno.EAGAIN, "no segment could be claimed")

    def _adopt(self) -> bool:
        """Go on with a segment that was left unfilled: by an ended process, or by this one after its hour.

        A program that starts, records once and ends would leave a file each time, and one that runs for months
        offline a file each hour. Never one that was given up after a failure of ours. Counters are not taken
        over: their windows end with their writer. Nor is anything that is damaged or of a newer format.
        """
        if self._alone or not self._adopting or self._class == names.COUNTERS:
            return False
        for name in self._quota.segments(self._class)[: -ADOPTIONS - 1 : -1]:
            path = os.path.join(self._directory, name)
            if self._last and names.order(name) < names.order(self._last):
                break  # behind what this run wrote since
            try:
                fd = files.open_append(path, missing_ok=False)
            except OSError:
                continue
            try:
                held = files.hold(fd, path)
                data = files.read_from(fd, 0, self._quota.segment_bytes) if held else b""
            except OSError:
                data = b""
            *lines, rest = data.split(b"\n")
            whole = not rest and all(line[8:].startswith(records.OPENING) for line in lines)
            fits = len(data) < self._quota.segment_bytes // 2
            if whole and fits and 0 < len(lines) < self._quota.segment_records:
                self._created_ms = names.created_ms(name)
                self._take(fd, name, len(data), len(lines))
                return True
            files.release(fd)
        return False

    def _take(self, fd: int, name: str, size: int, count: int) -> None:
        self._fd, self.name, self._size, self._count = fd, name, size, count
        self._last, self._adopting = name, False
        self._opened_at = self._clock.monotonic()
        self._unsynced = self._unsynced_name = True

    def sync(self) -> None:
        """Make what was appended survive a power cut."""
        if self._fd is not None and self._unsynced:
            self._unsynced = False  # before: a signal handler may append during the sync
            files.sync(self._fd)
            if self._unsynced_name:
                files.sync_directory(self._directory)
                self._unsynced_name = False

    def seal(self) -> None:
        """Close the segment, synced where a power cut counts: nobody can do that later. Its lock goes with it."""
        try:
            if self._power:
                self.sync()
        except OSError:
            pass
        finally:
            fd = self._fd
            self.forget()
            if fd is not None:
                files.release(fd)

    def abandon(self, attempted_bytes: int = 0) -> None:
        """Cut off what was ``attempted_bytes`` long, or a part of it, and leave the file to the deliverer."""
        fd, size, name = self._fd, self._size, self.name
        unsynced = self._unsynced and self._power
        self.forget()
        if fd is None:
            return
        try:
            if 0 < os.fstat(fd).st_size - size <= attempted_bytes:
                os.ftruncate(fd, size)
            if os.fstat(fd).st_size == 0 and name is not None:
                files.remove(os.path.join(self._directory, name))
            elif unsynced:  # what else is in it: nobody can sync that later
                files.sync(fd)
                files.sync_directory(self._directory)
        except OSError:
            pass
        finally:
            files.release(fd)

    def forget(self) -> None:
        """Drop the segment without a word to the disk: all that a forked child may do."""
        self._fd, self.name, self._size, self._count = None, None, 0, 0
