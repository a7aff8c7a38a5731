"""Usage counters: additions gathered in memory, the whole aggregate with its new total on disk a second later.

Adding waits for no lock and no disk. A window has its event id from its begin: what lies on disk twice is one event, of
which the greatest total counts.
"""

from __future__ import annotations

import os
from _thread import RLock

from .spool.record import Record
from .spool.store import FULL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from .values import Core

MAX_NAMES = 256
OTHER = "_other"
# Additions gathered before the adding thread folds them: 1,024 tuples are 100 KB.
FOLD_AT = 1024
# Usage is on disk, synced, within a second; how soon to try again where the disk refused.
HOUSEKEEPING_S, REFUSED_S = 0.5, 30.0


class Window:
    """One activity's total since ``began_at``; ``written`` is what the disk has of it."""

    def __init__(self, activity: str, began_at: float) -> None:
        self.activity, self.began_at = activity, began_at
        self.id = os.urandom(16).hex()
        self.total = self.written = 0
        self.ended_at: float | None = None


class Counters:
    """The open windows of one process, and the syncing of its usage::

    add(activity, n)      appends to a list
    keep()                the list -> windows -> an aggregate for each usage endpoint, where a total changed
    """

    def __init__(self, core: Core) -> None:
        self._spool, self._clock = core.spool, core.clock
        self._adapters: list[Any] = [one for one in core.adapters if one.usage]
        self._window_s = core.config.count_window_s
        self._added: list[tuple[str, int]] = []
        self._windows: dict[str, Window] = {}
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's counts and locks."""
        self.discard()
        self._writing, self._inside = RLock(), False
        self._due_at = 0.0  # not before that, by the monotonic clock
        self.unsynced = False  # usage was recorded and not synced

    def discard(self) -> None:
        """Forget what is counted (consent refused)."""
        self._added.clear()
        self._windows.clear()
        self._epoch = 0  # of consent; 0 while none is known

    def begin(self, epoch: int) -> None:
        """Count under this consent, where none is known: what somebody refuses from here on is not sent."""
        self._epoch = self._epoch or epoch

    def add(self, activity: str, n: int) -> bool:
        """Count; True when somebody should be woken to write."""
        first = not self._added
        self._added.append((activity, n))
        # While somebody writes, for seconds on a bad disk, it gathers on.
        if len(self._added) >= FOLD_AT and not self._inside:
            self._alone(self._fold)
        return first

    def due_in_s(self) -> float | None:
        """Seconds until something is to be written or a window ends; None while nothing is counted."""
        windows = list(self._windows.values())
        waits = [self._ends_in_s(window) for window in windows]
        if self._added or self.unsynced or any([one.total != one.written for one in windows]):
            waits.append(0.0)
        return max(0.0, self._due_at - self._clock.monotonic(), min(waits)) if waits else None

    def _ends_in_s(self, window: Window) -> float:
        """A clock set back behind its begin ends a window too."""
        elapsed_s = self._clock.time() - window.began_at
        return self._window_s - elapsed_s if elapsed_s >= 0 else 0.0

    def keep(self, end: bool = False) -> bool:
        """Write what changed and sync all usage now; with ``end`` every window ends. False where the disk refuses."""
        idle = not (self._added or self._windows or self.unsynced)
        return idle or self._alone(lambda: self._keep(end))

    def _alone(self, write: Callable[[], bool]) -> bool:
        """``write()`` while nobody else does; False on a thread that is interrupted in the middle of it."""
        # By ``with`` alone, or a Ctrl-C may leave the lock held for ever.
        with self._writing:
            if self._inside:  # a signal handler, or a destructor
                return False
            self._inside = True
            try:
                return write()
            finally:
                self._inside = False

    def _keep(self, end: bool) -> bool:
        whole = True
        if self._added or self._windows:
            epoch = self._spool.consent.ensure()
            if epoch and self._epoch and epoch != self._epoch:
                self.discard()  # what was counted under another consent was refused by somebody
            self._epoch = epoch or self._epoch
            self._fold()
            whole = epoch > 0 and self._write(end)
        if self.unsynced:
            self.unsynced = False
            whole &= self._spool.sync()
        self._due_at = self._clock.monotonic() + (HOUSEKEEPING_S if whole else REFUSED_S)
        return whole

    def _fold(self) -> bool:
        added, now = self._added[:], self._clock.time()
        for activity, n in added:
            if activity not in self._windows and len(self._windows) >= MAX_NAMES - 1:
                activity = OTHER
            window = self._windows[activity] = self._windows.get(activity) or Window(activity, now)
            window.total += n
        del self._added[: len(added)]
        return True

    def _write(self, end: bool) -> bool:
        windows = list(self._windows.values())
        for window in windows:
            over = end or self._ends_in_s(window) <= 0
            window.ended_at = self._clock.time() if over else None
        changed = [w for w in windows if w.ended_at is not None or w.total != w.written]
        records = self._records(changed)
        open_ = self._records([window for window in windows if window.ended_at is None])
        whole = self._spool.keep_counters(records, open_)
        if not whole:  # what is over may still be sent by this run, or be written later
            ended = [one for one in records if one.ended_at is not None]
            if FULL in [self._spool.record(one, sync=False) for one in ended]:
                return False
        for window in changed:
            window.written = window.total if whole else window.written
            if window.ended_at is not None:
                self._windows.pop(window.activity, None)
        return whole

    def _records(self, windows: list[Window]) -> list[Record]:
        """One for each window and endpoint, as they stand."""
        found = []
        for window in windows:
            began_at, ended_at = window.began_at, window.ended_at
            ends_at = began_at + self._window_s if ended_at is None else ended_at
            for one in self._adapters:
                body = one.aggregate(window.activity, window.total, window.id, began_at, ends_at)
                record = Record("aggregate", one.name, window.id, began_at, body)
                record.epoch, record.ended_at = self._epoch, ended_at
                found.append(record)
        return found

    def open_windows(self) -> list[Record]:
        """What is counted and not ended; touches no disk."""
        return self._records(list(self._windows.values())) if self._alone(self._fold) else []
