"""The one background thread: sleeping until rung or until something is due, never polling.

It starts with the first record, never at or after the interpreter's end, and parks before a fork. Ringing takes no
lock that a signal handler could find held. What there is to do is the engine's ``step``.
"""

from __future__ import annotations

import _thread  # its functions are looked up when they are used: gevent and eventlet replace them
import os
import sys

from . import story

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from typing import Callable, Optional

# How long the system takes at most to forget a thread that has ended.
KERNEL_S = 0.2
# How long nothing is tried again after a defect of ours.
DEFECT_REST_S = 60.0
# A wait goes by a clock that stands still while the machine sleeps: a backoff of hours may be over long before it is.
LOOK_AGAIN_S = 900.0


class _Run:
    """One thread's life, from its start to its end."""

    __slots__ = ("bell", "ended", "thread", "stopping", "over")

    def __init__(self) -> None:
        # Of the thread's own kind: a greenlet that waited for a lock of real threads would stop all others.
        self.bell, self.ended = _thread.allocate_lock(), _thread.allocate_lock()
        self.bell.acquire()
        self.ended.acquire()
        self.thread: Optional[threading.Thread] = None
        self.stopping = self.over = False

    def ring(self) -> None:
        """Wake the thread, or keep it from falling asleep."""
        try:
            self.bell.release()
        except RuntimeError:
            pass  # rung already


class Worker:
    """Calls ``step()`` again and again; it gives the seconds to sleep, None for until rung."""

    def __init__(self, step: Callable[[], Optional[float]], *, name: str) -> None:
        self._step = step
        self._name = name
        self._starting = _thread.allocate_lock()
        self._run: Optional[_Run] = None
        self._stopping = False
        self.trouble = ""
        self.failed = False  # the last attempt to start a thread was in vain
        self.too_late = False  # the interpreter ends: no thread starts any more

    @property
    def running(self) -> bool:
        """Whether the thread lives."""
        run = self._run
        return run is not None and not run.over

    @property
    def is_current(self) -> bool:
        """Whether the caller is on the worker's thread."""
        run = self._run
        return (
            run is not None and run.thread is not None and run.thread.ident == _thread.get_ident()
        )

    def ring(self) -> None:
        """Have the next step done at once; starts the thread where there is none."""
        if not self.running:
            self._start()
        run = self._run
        if run is not None:
            run.ring()

    def _start(self) -> None:
        # Thread.start() in a destructor at shutdown hangs Python 3.9-3.11 for ever.
        if self._stopping or sys.is_finalizing():
            self.too_late |= sys.is_finalizing()
            return
        if not self._starting.acquire(False):
            return
        try:
            import threading

            if not threading.main_thread().is_alive():
                self.too_late = True
            elif not self.running:
                run = _Run()
                run.thread = threading.Thread(
                    target=self._main, args=(run,), name=self._name, daemon=True
                )
                run.thread.start()
                self._run = run
                self.failed = False
                story.note("worker started")
        except (RuntimeError, MemoryError, ImportError, OSError) as error:
            self.failed = True
            self.trouble = "no thread: " + str(error)
        finally:
            self._starting.release()

    def _main(self, run: _Run) -> None:
        self._run = run  # by whoever comes first, this thread or the one that starts it
        try:
            while not (run.stopping or self._stopping):
                wait_s = self._stepped()
                if run.stopping or self._stopping:
                    return
                # An idle agent sleeps for ever.
                wait_s = -1 if wait_s is None else min(max(wait_s, 0.0), LOOK_AGAIN_S)
                run.bell.acquire(True, wait_s)
        finally:
            run.over = True
            run.ended.release()

    def _stepped(self) -> Optional[float]:
        try:
            wait_s = self._step()
        except BaseException as error:  # noqa: B036 - a defect of ours must not print into the host
            self.trouble = "%s: %s" % (type(error).__name__, error)
            return DEFECT_REST_S
        self.trouble = ""
        return wait_s

    def stop(self, timeout_s: float) -> bool:
        """End the thread after its present step; False where it needs longer than ``timeout_s``."""
        self._stopping = True
        run = self._run
        return run is None or self.is_current or self._end(run, timeout_s)

    def _end(self, run: _Run, timeout_s: float) -> bool:
        run.stopping = True
        run.ring()
        from time import monotonic

        ends_at = monotonic() + timeout_s
        # Before join, which eventlet lets raise when the time is over.
        if not run.ended.acquire(True, max(0.0, timeout_s)):
            return False
        run.ended.release()
        assert run.thread is not None
        run.thread.join(max(0.0, ends_at - monotonic()))
        return not run.thread.is_alive()

    def park(self, wait_s: float) -> None:
        """Before a fork: end a thread that is idle or soon will be, so that nothing of it is inherited."""
        run = self._run
        if run is None or self.is_current:
            return
        ended = False
        try:
            ended = self._end(run, wait_s)
        finally:  # Ctrl-C may have ended the wait
            run.stopping = ended
        if ended:
            self._run = None
            _wait_for_kernel(run.thread)

    def resume(self) -> None:
        """After a fork, in the parent."""
        if not self._stopping:
            self.ring()  # also one that could not be parked: it may have looked its last before the fork was over


def _wait_for_kernel(thread: Optional[threading.Thread]) -> None:
    """Until the system too knows of a thread's end: Python 3.12 counts what the system counts."""
    if sys.version_info < (3, 12) or not sys.platform.startswith("linux"):
        return
    from time import monotonic, sleep

    ends_at = monotonic() + KERNEL_S
    path = "/proc/self/task/%s" % getattr(thread, "native_id", None)
    while os.path.exists(path) and monotonic() < ends_at:
        sleep(0.0002)
