"""How far a delivery is, on stderr: one moving line on a terminal, plain lines now and then elsewhere.

A thread of its own paints it, for whoever delivers may be waiting for a server: a line that stood still would go on
showing figures that are no longer true. What is shown is the pace of the last ``PACE_S`` seconds.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import TYPE_CHECKING

from .output import Unheard, duration, is_terminal, printable, write

if TYPE_CHECKING:
    from collections.abc import Callable

PACE_S = 10.0
# From when on it is said that nothing moves.
STALLED_S = 2.0
# How often a terminal and a file are told.
TERMINAL_S, LINE_S = 0.25, 5.0


class Progress:
    """Counts settled records; ``waits_for`` says what for while nothing is settled: "no answer from keys"."""

    def __init__(self, waits_for: Callable[[], str]) -> None:
        self.total = 0
        self._waits_for = waits_for
        self._stream = sys.stderr
        self._terminal = is_terminal(self._stream)
        self._done = self._width = 0
        self._began_at = self._moved_at = time.monotonic()
        self._past = [(self._began_at, 0)]  # (when, how many were settled), a few a second at most
        self._over = threading.Event()
        self._painter = threading.Thread(target=self._paint, name="progress", daemon=True)

    def begin(self, total: int) -> None:
        """Show that ``total`` records wait; nothing for none."""
        self.total = total
        self._began_at = self._moved_at = time.monotonic()
        self._past = [(self._began_at, 0)]
        if total:
            self._painter.start()

    def one(self) -> None:
        """A record was settled."""
        self._done += 1
        self._moved_at = time.monotonic()

    def end(self) -> None:
        """Leave the last state on its own line."""
        if not self._painter.is_alive():
            return
        self._over.set()
        self._painter.join()
        if self._done or self._width:
            took_s = time.monotonic() - self._began_at
            pace = [per_time(self._done / max(took_s, 1e-3))] * bool(self._done)
            took = "in " + ("%.1f s" % took_s if took_s < 10 else duration(took_s))
            self._show([[self._count(), *pace, took], [self._count(), took]], last=True)

    def _paint(self) -> None:
        every_s = TERMINAL_S if self._terminal else LINE_S
        try:
            while not self._over.wait(every_s):
                self._show(self._state(time.monotonic()))
        except Unheard:
            pass  # whoever delivers learns of it when it prints

    def _count(self) -> str:
        return "%d of %d" % (self._done, max(self.total, self._done))

    def _state(self, now: float) -> list[list[str]]:
        """What there is to say, in words that take less and less room."""
        stalled_s, done = now - self._moved_at, self._done
        self._past.append((now, done))
        while len(self._past) > 2 and self._past[1][0] <= now - PACE_S:
            self._past.pop(0)
        if stalled_s >= STALLED_S:
            since = " for " + duration(stalled_s)
            return [[self._count(), why + since] for why in (self._waits_for(), "stalled")]
        then, before = self._past[0]
        pace = (done - before) / max(now - then, 1e-3)
        if not pace:
            return [[self._count()]]
        left = duration(max(self.total - done, 0) / pace) + " left"
        percent = " (%d%%)" % (100 * done // max(self.total, done))
        whole = [self._count(), per_time(pace), left]
        return [[whole[0] + percent, *whole[1:]], whole, [whole[0], left], whole[:1]]

    def _show(self, forms: list[list[str]], last: bool = False) -> None:
        texts = [printable(", ".join(form)) for form in forms]
        if not self._terminal:
            write(self._stream, texts[0])
            self._width = 1
            return
        room = columns(self._stream) - 1  # a full line would wrap
        text = next((text for text in texts if len(text) <= room), texts[-1][:room])
        write(self._stream, "\r" + text.ljust(min(self._width, room)), end="\n" if last else "")
        self._width = len(text)


def per_time(pace: float) -> str:
    """Records per second in a unit that shows something."""
    if pace < 1:
        return "%.1f per minute" % (60 * pace)
    return ("%d per second" if pace >= 10 else "%.1f per second") % pace


def columns(stream: object) -> int:
    """How wide a terminal is now; 80 where it does not say."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80  # type: ignore[attr-defined]
    except (OSError, ValueError, AttributeError):
        return 80
