"""Where time comes from, and threads of ours.

``time()`` is Unix seconds and may jump either way; ``monotonic()`` only measures distances inside one process. A test
passes its own object with these two methods; nothing else in the package asks for the time of an event.
"""

from __future__ import annotations

import _signal
import _thread
import sys
import time as _time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable


class Clock:
    """The system's clocks."""

    __slots__ = ()

    def time(self) -> float:
        """Unix seconds, as the desktop believes them to be."""
        return _time.time()

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never going back within one process."""
        return _time.monotonic()


def start_thread(main: Callable[..., object], *given: Any) -> None:
    """Run ``main`` on a daemon thread that gets no signal: those are the host's. Raises ``RuntimeError``.

    Not by ``threading``: its ``start`` waits for the new thread, 36 ms beside four busy ones, and for ever in a
    destructor at the interpreter's end. The mask is inherited, so there is no moment in which a signal could come.
    """
    if sys.is_finalizing():
        raise RuntimeError("the interpreter is shutting down")
    mask = getattr(_signal, "pthread_sigmask", None)
    if mask is None:  # Windows
        _thread.start_new_thread(main, given)
        return
    before = mask(_signal.SIG_BLOCK, _signal.valid_signals())
    try:
        _thread.start_new_thread(main, given)
    finally:
        mask(_signal.SIG_SETMASK, before)
