"""Counting usage: from a caller's ``count`` to lines in the spool, at most a second later.

Adding takes no lock that it would wait for and touches no disk. Writing runs on the worker (in "manual" mode on the
caller), one thread at a time. How windows behave is in ``spool.counters``; when they are written is decided here.
"""

from __future__ import annotations

from _thread import RLock

from .spool import names
from .spool.counters import Counters
from .spool.records import Record, count_line
from .spool.store import DISK, FULL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Optional

    from .clock import Clock
    from .endpoints.reo import ReoAdapter
    from .spool.counters import Window
    from .spool.store import Spool

# Usage is on disk, synced, at most this long after it was recorded.
HOUSEKEEPING_S = 0.5
# How soon to try again after the disk refused.
REFUSED_S = 30.0


class Counting:
    """The counters of one process, one set for each usage endpoint, and the syncing of usage."""

    def __init__(
        self, spool: Spool, adapters: list[ReoAdapter], *, clock: Clock, window_s: float
    ) -> None:
        self._spool, self._clock, self._window_s = spool, clock, window_s
        self._books = [(adapter, Counters(window_s)) for adapter in adapters]
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's counts and locks."""
        for _, counters in self._books:
            counters.discard()
        self._writing = RLock()
        self._inside = False
        self._rest_s = HOUSEKEEPING_S
        self._kept_at = self._clock.monotonic() - HOUSEKEEPING_S
        self.unsynced = False  # usage was appended and not synced
        self._rung = False

    def _alone(self, write: Callable[[], bool]) -> bool:
        """``write()`` while nobody else does; False on a thread that is interrupted in the middle of it."""
        # By ``with`` alone: a Ctrl-C between an acquire and its release would leave the lock held for ever.
        with self._writing:
            if self._inside:  # a signal handler, or a destructor
                return False
            self._inside = True
            try:
                return write()
            finally:
                self._inside = False

    def add(self, activity: str, n: int) -> bool:
        """Count; True when somebody should be woken to write."""
        many = False
        for _, counters in self._books:
            many |= counters.add(activity, n)
        if many and not self._inside:
            # Under the consent that is known: asking for it would touch the disk.
            self._alone(lambda: self._fold(self._clock.time(), None))
        # Only ever set where it was not: the writer resets it before it looks at what was added.
        if self._rung:
            return False
        self._rung = True
        return True

    def adopt(self, epoch: int) -> None:
        """What is counted from now on is counted under this consent."""
        for _, counters in self._books:
            counters.adopt(epoch)

    @property
    def idle(self) -> bool:
        """Whether nothing is counted."""
        return all(counters.idle for _, counters in self._books)

    def keep_if_due(self) -> tuple[list[float], bool]:
        """Write and sync what waits for it; (seconds until something will be due, a window ended)."""
        now, waits, ended = self._clock.time(), [], False
        waiting = self._waiting(now)
        if not waiting:
            # From here on who adds rings; who added before, taking us for awake, is seen by the second look.
            self._rung = False
            waiting = self._waiting(now)
        if waiting and self._resting_s() <= 0:
            ended = self.keep()
            waiting = self._waiting(now)  # what was refused
        if waiting:
            waits.append(self._resting_s())
        open_ = [c for _, c in self._books if not (c.idle or c.due(now))]
        waits.extend(max(0.1, c.ends_at() - now) for c in open_)
        return waits, ended

    def _resting_s(self) -> float:
        return self._kept_at + self._rest_s - self._clock.monotonic()

    def _waiting(self, now: float) -> bool:
        """Whether something is to be written or synced."""
        return self.unsynced or any(c.dirty or c.due(now) for _, c in self._books)

    def keep(self, *, end: bool = False) -> bool:
        """Write all counters and sync all usage now; with ``end`` every window ends. True if one did."""
        return self._alone(lambda: self._keep(end))

    def _keep(self, end: bool) -> bool:
        self._kept_at = self._clock.monotonic()
        self._rung = False
        ended, whole = False, True
        if not self.idle:
            # Once: a window that began after it would look like a clock set back.
            now = self._clock.time()
            self._fold(now, self._spool.consent.current(anchor=True))
            for adapter, counters in self._books:
                over = not counters.idle and (end or counters.due(now))
                whole &= self._write(adapter, counters, over)
                ended |= over
            self.unsynced = True
        if self.unsynced:
            self.unsynced = False
            self._spool.sync()
        if ended and self.idle:  # a window lies in one segment: the next ones begin another
            self._spool.seal(names.COUNTERS)
        self._rest_s = HOUSEKEEPING_S if whole else REFUSED_S
        return ended

    def fold(self) -> None:
        """Have what was added so far belong to the consent of now."""
        if not self._inside:
            self._alone(lambda: self._fold(self._clock.time(), self._spool.consent.current()))

    def _fold(self, now: float, epoch: Optional[int]) -> bool:
        for _, counters in self._books:
            counters.fold(now, epoch)
        return True

    def open_windows(self) -> list[Record]:
        """What is counted and not ended, as it would be sent if it ended now; touches no disk."""
        self.fold()
        now = self._clock.time()
        found = []
        for adapter, counters in self._books:
            for window in counters.windows():
                record = self._record(adapter, window, window.total, now)
                record.segment = window.segment
                found.append(record)
        return found

    def _write(self, adapter: ReoAdapter, counters: Counters, end: bool) -> bool:
        for _ in range(3):  # the segment may have to be changed in the middle
            segment = self._spool.segment_of(names.COUNTERS) or ""
            if counters.write(lambda w, over: self._put(adapter, w, over), segment, end=end):
                return True
        return False

    def _put(self, adapter: ReoAdapter, window: Window, end: bool) -> bool:
        """One counter's total to disk; False where it must be tried again."""
        ended_at = self._clock.time() if end else None
        if window.segment:
            line = count_line(adapter.name, window.id, window.total, ended_at)
        else:
            line = self._record(adapter, window, window.total, ended_at).to_json()
        if self._spool.append(names.COUNTERS, line, sync=False) != DISK:
            if not end:
                return False  # it waits in memory as an open window
            if window.total == window.written:
                return True  # its segment was given up, and so it has ended there
            rest = self._record(adapter, window, window.total - window.written, ended_at)
            rest.id += "-rest" if window.segment else ""
            return self._spool.record(rest, sync=False) != FULL
        segment = self._spool.segment_of(names.COUNTERS) or ""
        if window.segment and window.segment != segment:
            return False  # the line stands alone: the window's other lines are elsewhere
        window.segment = segment
        return True

    def _record(
        self, adapter: ReoAdapter, window: Window, total: int, ended_at: Optional[float]
    ) -> Record:
        ends_at = window.began_at + self._window_s if ended_at is None else ended_at
        body = adapter.aggregate(window.activity, total, window.id, window.began_at, ends_at)
        return Record(
            "aggregate",
            adapter.name,
            window.id,
            window.began_at,
            body,
            epoch=window.epoch,
            ended_at=ended_at,
        )
