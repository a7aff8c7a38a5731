"""Usage counters: additions gathered in memory, cumulative totals on disk, one record per window and activity.

Adding never waits, never touches the disk, and is safe in a signal handler: it appends to a list. A window lies
in one segment for its whole life; when that segment must end, all windows end with it and begin anew with what
was not yet written. The event id is drawn when a window begins, so it never depends on the sum.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional

MAX_NAMES = 256
OTHER = "_other"
# Additions gathered before the adding thread folds them: 1,024 tuples are 100 KB.
FOLD_AT = 1024


class Window:
    """One activity's total since ``began_at``."""

    __slots__ = ("activity", "id", "began_at", "epoch", "total", "written", "segment")

    def __init__(self, activity: str, began_at: float, epoch: int) -> None:
        self.activity = activity
        self.id = os.urandom(16).hex()
        self.began_at = began_at
        self.epoch = epoch  # of consent
        self.total = 0
        self.written = 0  # the total that is on disk
        self.segment = ""  # where, once its first line is written


class Counters:
    """The open windows of one process."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._added: list[tuple[str, int]] = []
        self._windows: dict[str, Window] = {}
        self._epoch: Optional[int] = None

    def adopt(self, epoch: int) -> None:
        """Count under this consent from now on; what was counted under another is forgotten."""
        if epoch != self._epoch:
            if self._epoch is not None:
                self.discard()
            self._epoch = epoch

    def add(self, activity: str, n: int) -> bool:
        """Count; True when the caller should have ``fold`` called soon."""
        self._added.append((activity, n))
        return len(self._added) >= FOLD_AT

    @property
    def idle(self) -> bool:
        """Whether nothing is counted at all."""
        return not self._added and not self._windows

    @property
    def dirty(self) -> bool:
        """Whether something counted is not on disk."""
        return bool(self._added) or any(w.total != w.written for w in self.windows())

    def windows(self) -> list[Window]:
        """The open windows; a copy, since a signal handler may begin another at any moment."""
        return list(self._windows.values())

    def ends_at(self) -> float:
        """When the oldest window ends, Unix seconds; infinity without any."""
        starts = [window.began_at for window in self.windows()]
        return min(starts) + self._window_s if starts else float("inf")

    def fold(self, now: float, epoch: Optional[int]) -> None:
        """Move what was added into windows. One thread at a time.

        What was counted under an earlier consent ``epoch`` was refused by somebody: it is forgotten. None is
        the epoch that was adopted last.
        """
        if epoch is not None:
            self.adopt(epoch)
        added = self._added
        count = len(added)
        for activity, n in added[:count]:
            window = self._windows.get(activity)
            if window is None and len(self._windows) >= MAX_NAMES - 1:
                activity = OTHER
                window = self._windows.get(activity)
            if window is None:
                window = self._windows[activity] = Window(activity, now, self._epoch or 0)
            window.total += n
        del added[:count]

    def due(self, now: float) -> bool:
        """Whether a window's time is over; a clock set back behind its begin ends it too."""
        return any(not 0 <= now - window.began_at < self._window_s for window in self.windows())

    def write(self, put: Callable[[Window, bool], bool], segment: str, *, end: bool) -> bool:
        """Give every unwritten window to ``put(window, end)``; with ``end`` all of them, then forget them.

        ``segment`` is the open one: a window that lies in another has ended there, and what that does not hold
        begins a new window. False where ``put`` refused one: try again later.
        """
        for old in self.windows():
            if old.segment and old.segment != segment:
                del self._windows[old.activity]
                if old.total > old.written:
                    window = Window(old.activity, old.began_at, old.epoch)
                    window.total = old.total - old.written
                    self._windows[old.activity] = window
        for window in self.windows():
            if end or window.total != window.written:
                if not put(window, end):
                    return False
                window.written = window.total
            if end:
                self._windows.pop(window.activity, None)
        return True

    def discard(self) -> None:
        """Forget everything that is counted and not recorded (consent refused)."""
        self._added.clear()
        self._windows.clear()
