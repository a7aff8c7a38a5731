"""Where time comes from.

``time()`` is Unix seconds and may jump either way; ``monotonic()`` only measures distances inside one
process. A test passes its own object with these two methods; nothing else in the package reads a clock.
"""

from __future__ import annotations

import time as _time


class Clock:
    """The system's clocks."""

    __slots__ = ()

    def time(self) -> float:
        """Unix seconds, as the desktop believes them to be."""
        return _time.time()

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never going back within one process."""
        return _time.monotonic()
