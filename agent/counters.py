"""Usage counters: additions gathered in memory, the whole aggregate with its new total on disk a second later.

Adding takes no lock that it would wait for and touches no disk. A window's event id is drawn when the window begins,
so it never depends on the sum; what lies on disk twice is one event, of which the greatest total counts.
"""

from __future__ import annotations

import os
from _thread import RLock

from .spool.record import Record
from .spool.store import FULL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Optional

    from .clock import Clock
    from .endpoints.reo import ReoAdapter
    from .spool.store import Spool

MAX_NAMES = 256
OTHER = "_other"
# Additions gathered before the adding thread folds them: 1,024 tuples are 100 KB.
FOLD_AT = 1024
# Usage is on disk, synced, at most a second after it was recorded; how soon to try again where the disk refused.
HOUSEKEEPING_S, REFUSED_S = 0.5, 30.0


class Window:
    """One activity's total for one endpoint since ``began_at``; ``written`` is what the disk has of it."""

    __slots__ = ("adapter", "activity", "id", "began_at", "total", "written")

    def __init__(self, adapter: ReoAdapter, activity: str, began_at: float) -> None:
        self.adapter, self.activity, self.began_at = adapter, activity, began_at
        self.id = os.urandom(16).hex()
        self.total = self.written = 0


class Counters:
    """The open windows of one process, and the syncing of its usage.

    ``add`` appends to a list; ``keep`` folds the list into windows and writes those that changed.
    """

    def __init__(
        self, spool: Spool, adapters: list[ReoAdapter], *, clock: Clock, window_s: float
    ) -> None:
        self._spool, self._adapters, self._clock = spool, adapters, clock
        self._window_s = window_s
        self._added: list[tuple[str, int]] = []
        self._windows: dict[tuple[str, str], Window] = {}
        self._epoch = 0  # of consent; 0 while none is known
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's counts and locks."""
        self.discard()
        self._writing, self._inside = RLock(), False
        self._rest_s, self._kept_at = HOUSEKEEPING_S, self._clock.monotonic() - HOUSEKEEPING_S
        self.unsynced = False  # usage was recorded and not synced
        self._rung = False

    def discard(self) -> None:
        """Forget what is counted (consent refused)."""
        self._added.clear()
        self._windows.clear()
        self._epoch = 0

    def add(self, activity: str, n: int) -> bool:
        """Count; True when somebody should be woken to write."""
        self._added.append((activity, n))
        if len(self._added) >= FOLD_AT and not self._inside:
            self._alone(self._fold)
        # Only ever set where it was not: the writer resets it before it looks at what was added.
        if self._rung:
            return False
        self._rung = True
        return True

    def _is_dirty(self) -> bool:
        """Whether something is to be written or synced."""
        windows = list(self._windows.values())
        return bool(self._added or self.unsynced or any(w.total != w.written for w in windows))

    def due_in_s(self) -> Optional[float]:
        """Seconds until something is to be written or a window ends; None while nothing is counted."""
        if not self._is_dirty():
            self._rung = False  # from here on who adds rings
        now = self._clock.time()
        waits = [self._ends_in_s(window, now) for window in list(self._windows.values())]
        if self._is_dirty():  # who added before, taking us for awake, is seen by this second look
            waits.append(0.0)
        resting_s = self._kept_at + self._rest_s - self._clock.monotonic()
        return max(0.0, resting_s, min(waits)) if waits else None

    def _ends_in_s(self, window: Window, now: float) -> float:
        """A clock set back behind its begin ends a window too."""
        elapsed_s = now - window.began_at
        return self._window_s - elapsed_s if elapsed_s >= 0 else 0.0

    def keep(self, *, end: bool = False) -> bool:
        """Write what changed and sync all usage now; with ``end`` every window ends. False where the disk refuses."""
        return self._alone(lambda: self._keep(end))

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

    def _keep(self, end: bool) -> bool:
        self._kept_at, self._rung = self._clock.monotonic(), False
        whole = True
        if self._added or self._windows:
            epoch = self._spool.consent.ensure()
            self._adopt(epoch)
            self._fold()
            whole = epoch > 0 and self._write(end)
        if self.unsynced:
            self.unsynced = False
            whole &= self._spool.sync()
        self._rest_s = HOUSEKEEPING_S if whole else REFUSED_S
        return whole

    def _adopt(self, epoch: int) -> None:
        """Count under this consent; what was counted under another was refused by somebody."""
        if self._epoch and epoch != self._epoch:
            self.discard()
        self._epoch = epoch or self._epoch

    def fold(self) -> None:
        """Have what was added so far stand in its windows; touches no disk."""
        if not self._inside:
            self._alone(self._fold)

    def _fold(self) -> bool:
        now, added = self._clock.time(), self._added
        count = len(added)
        for activity, n in added[:count]:
            for adapter in self._adapters:
                self._window(adapter, activity, now).total += n
        del added[:count]
        return True

    def _window(self, adapter: ReoAdapter, activity: str, now: float) -> Window:
        key = (adapter.name, activity)
        if key not in self._windows and sum(name == key[0] for name, _ in self._windows) >= (
            MAX_NAMES - 1
        ):
            activity, key = OTHER, (adapter.name, OTHER)
        if key not in self._windows:
            self._windows[key] = Window(adapter, activity, now)
        return self._windows[key]

    def _write(self, end: bool) -> bool:
        now, windows = self._clock.time(), list(self._windows.values())
        ending = [w for w in windows if end or self._ends_in_s(w, now) <= 0]
        open_ = [self.record(w, None) for w in windows if w not in ending]
        changed = [
            self.record(w, None) for w in windows if w.total != w.written and w not in ending
        ]
        ended = [self.record(w, now) for w in ending]
        written = {window: window.total for window in windows}
        whole = self._spool.keep_counters([*changed, *ended], open_)
        for window, record in zip(ending, ended):
            # What the disk refuses may still be sent by this run, or be written later.
            if whole or self._spool.record(record, sync=False) != FULL:
                self._windows.pop((window.adapter.name, window.activity), None)
        if whole:
            for window, total in written.items():
                window.written = total
        return whole

    def record(self, window: Window, ended_at: Optional[float]) -> Record:
        """A window as a record, closed where ``ended_at`` is given."""
        ends_at = window.began_at + self._window_s if ended_at is None else ended_at
        body = window.adapter.aggregate(
            window.activity, window.total, window.id, window.began_at, ends_at
        )
        return Record(
            "aggregate",
            window.adapter.name,
            window.id,
            window.began_at,
            body,
            epoch=self._epoch,
            ended_at=ended_at,
        )

    def open_windows(self) -> list[Record]:
        """What is counted and not ended, as it would be sent if it ended now; touches no disk."""
        self.fold()
        now = self._clock.time()
        return [self.record(window, now) for window in list(self._windows.values())]
