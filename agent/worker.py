"""When: the background thread, flush, exit and fork. What is done then is ``delivery``'s and ``counters``'s.

The thread lives while something waits or a counting window is open, and sleeps until that is due; it never polls, never
starts at the interpreter's end, and ends before a fork. Ringing waits for no lock.
"""

from __future__ import annotations

import _thread  # its functions are looked up when they are used: gevent and eventlet replace them
import atexit
import os
import sys
import time

from . import clock as process
from .clock import monotonic
from .delivery import BUSY, DONE, MORE
from .errors import TYPE_CHECKING, debug

if TYPE_CHECKING:
    from typing import Any

    from .counters import Counters
    from .delivery import Delivery
    from .values import Core

# How soon to ask again while another process delivers, which may be killed.
BUSY_S = 0.5
# The clock of a wait stands still while the machine sleeps: a backoff may be over long before.
LOOK_AGAIN_S = 900.0
# A rest after a defect of ours.
DEFECT_S = 60.0
# Records older than this do not wait for the host's start-up.
OLD_S = 86400.0
# How often a flush looks whether it is over: unlike a lock, a sleep can be interrupted on Windows too.
FLUSH_S = 0.005
# How long a fork waits for a thread that is about to end.
PARK_S = 0.2


class _Life:
    """One thread's, from its start to its end; ``running`` is held as long."""

    native = 0  # the system's name for it

    def __init__(self) -> None:
        self.bell, self.running = _thread.allocate_lock(), _thread.allocate_lock()
        self.bell.acquire()


class Worker:
    """Keeps and delivers in the background: ``ring`` when something was recorded, ``flush``, ``close``."""

    def __init__(self, core: Core, delivery: Delivery, counters: Counters) -> None:
        self._spool, self._config, self._clock = core.spool, core.config, core.clock
        self._delivery, self._counters = delivery, counters
        self.detached: Any = None  # what starts processes that deliver, where that is wished
        self.manual = core.config.deliver == "manual"
        self.closed = self.exiting = False
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._life = _Life()
        self._waiters: set[object] = set()  # calls of flush, until their pass is over
        self._hooked, self._finalizer = False, None
        self._not_before: float | None = None  # of the first pass, by the given clock

    # -- the thread ----

    @property
    def running(self) -> bool:
        """Whether the thread lives."""
        return self._life.running.locked()

    def wake(self, *, recorded: bool) -> None:
        """Have the thread look; keep what was counted where there is none."""
        if not self.manual and not self.exiting and self.ring():
            return
        if recorded or self.exiting or not self.manual or self._counters.due_in_s() == 0:
            self._counters.keep()

    def ring(self) -> bool:
        """Have the next turn done at once; False where no thread can be had."""
        life = self._life
        if self.closed or self._delivery.stopping:
            return False
        try:
            life.bell.release()
        except RuntimeError:
            pass  # rung already
        return life.running.locked() or self._start(life)

    def _start(self, life: _Life) -> bool:
        threading = sys.modules.get("threading")
        if threading is not None and not threading.main_thread().is_alive():
            return False  # the interpreter ends
        if not life.running.acquire(False):
            return True  # by another thread, just now
        try:
            process.start_thread(self._main, life)
            return True
        except (RuntimeError, MemoryError, OSError) as error:
            life.running.release()
            self._spool.note("worker", "no thread: %s" % error)
            return False
        except BaseException:  # Ctrl-C: nobody knows whether it has begun; if so, it ends
            self._life = _Life()
            raise

    def _main(self, life: _Life) -> None:
        life.native = getattr(_thread, "get_native_id", int)()
        wait_s: float | None = 0.0
        try:
            while wait_s is not None:
                life.bell.acquire(True, min(max(wait_s, 0.0), LOOK_AGAIN_S))
                over = self._delivery.stopping or life is not self._life
                wait_s = None if over else self._stepped()
        finally:
            life.running.release()
        if life.bell.acquire(False):  # who rang since that turn began took this thread for alive
            self.ring()

    def _stepped(self) -> float | None:
        try:
            wait_s = self._turn()
        except BaseException as error:  # noqa: B036 - a defect of ours must not print into the host
            why = "%s: %s" % (type(error).__name__, error)
            self._spool.note("worker", why)
            debug("defect: %s", why)
            return DEFECT_S
        self._spool.note("worker")
        return wait_s

    # -- one turn ----

    def _turn(self) -> float | None:
        """Do what is due; the seconds until something will be, None for nothing.

        Who waits in ``flush`` is let go by a pass that leaves nothing to do now.
        """
        if self._counters.due_in_s() == 0:
            self._counters.keep()
        waiters = list(self._waiters)
        due_s = 0.0 if waiters else self._due_in_s()
        if not waiters and self.detached is not None and self.detached.works:
            due_s = self.detached.turn(due_s)
        elif due_s == 0:
            result = self._delivery.run()
            if result == BUSY:
                return BUSY_S
            if result == DONE:
                self._waiters.difference_update(waiters)
            due_s = 0.0 if self._waiters else self._due_in_s()
        waits = [wait for wait in (due_s, self._counters.due_in_s()) if wait is not None]
        return min(waits) if waits else None

    def _due_in_s(self) -> float | None:
        """Seconds until a pass that nobody waits for; None for none."""
        due_s = self._delivery.due_in_s()
        return None if due_s is None else max(due_s, self._delay_s())

    def _delay_s(self) -> float:
        """What is left of ``start_delay_s``; old records, of products that end early, do not wait."""
        now = self._clock.monotonic()
        if self._not_before is None:
            oldest_at = self._spool.backlog.oldest_at()
            soon = oldest_at is not None and self._clock.time() - oldest_at > OLD_S
            self._not_before = now + (0.0 if soon else self._config.start_delay_s)
        return max(0.0, self._not_before - now)

    # -- flush ----

    def flush(self, timeout_s: float, *waits: str) -> None:
        """Deliver until all is settled, the time is over, or what is left waits for its endpoint.

        ``waits`` names the kinds of waiting that do not hold now. Real seconds, whatever clock was given.
        """
        if self.closed or self.exiting or self._delivery.is_current:
            return
        self.hook()
        self._counters.keep(end=True)
        self._delivery.skip = waits
        ends_at = monotonic() + timeout_s
        if self.manual:
            self._deliver_here(ends_at)
        else:
            self._wait(ends_at)

    def _wait(self, ends_at: float) -> None:
        """For the thread; where there is none a request could have none either."""
        waiter = object()
        self._waiters.add(waiter)
        try:
            going = self.ring()
            while going and waiter in self._waiters and monotonic() < ends_at:
                time.sleep(FLUSH_S)
                going = not (self.closed or self.exiting)
        finally:
            self._waiters.discard(waiter)

    def _deliver_here(self, ends_at: float) -> None:
        result = MORE
        while result != DONE and monotonic() < ends_at and not self.closed:
            result = self._delivery.run(ends_at)
            if result == BUSY:
                time.sleep(min(BUSY_S / 10, max(0.0, ends_at - monotonic())))
        busy = "another process, or thread, was delivering all the time" if result == BUSY else None
        self._spool.note("delivery", busy)

    # -- the end ----

    def hook(self) -> None:
        """Be told of exit and forks; called before anything is recorded."""
        if self._pid != os.getpid():
            self.notice_fork()
        if not self._hooked and not self.closed:
            # Before the mark: another thread that sees it may take a lock and be forked.
            process.watch_forks(self)
            atexit.register(self.at_exit)
            # Its forked processes end by os._exit, before 3.13 without asking atexit.
            util = sys.modules.get("multiprocessing.util")
            if util is not None:
                self._finalizer = util.Finalize(None, self.at_exit, exitpriority=0)
            self._hooked = True

    def notice_fork(self) -> None:
        """Begin afresh in a child of which nobody told us, forked by C code or after ``close``."""
        if self._pid != os.getpid():
            self.after_fork_in_child()

    def close(self, timeout_s: float) -> None:
        """End everything: no thread, hook, file or callback remains."""
        self.notice_fork()
        if not self.closed:
            self._delivery.silent = True
            try:
                self._stop(timeout_s)
            finally:
                self.closed = True
                atexit.unregister(self.at_exit)
                process.forget_forks(self)
                if self._finalizer is not None:
                    self._finalizer.cancel()  # else it keeps all of us

    def at_exit(self) -> None:
        """Begin no request any more; recording goes on for other exit handlers."""
        if self.closed or self.exiting or self._pid != os.getpid():
            return
        self.exiting = self._delivery.silent = True
        for timeout_s in (process.exit_time_left_s(self._config.exit_timeout_s), 0.0):
            try:
                self._stop(timeout_s)
                break
            except BaseException:  # noqa: B036
                pass  # Ctrl-C: wait no longer; the interpreter would print it

    def _stop(self, timeout_s: float) -> None:
        # The last eighth, at most 50 ms, is for breaking off.
        spare_s = min(0.05, timeout_s / 8)
        self._delivery.stopping = True  # first of all: a pass begins no other request
        self._counters.keep(end=True)
        if not self._end(timeout_s - spare_s):
            self._delivery.quietly("interrupt")
            self._end(spare_s)
        if self.detached is not None:
            self.detached.last()
        self._delivery.quietly("close")
        self._spool.seal()

    def _end(self, timeout_s: float) -> bool:
        """End the thread after its present step; False where it needs longer."""
        life, self._delivery.stopping = self._life, True
        if self._delivery.is_current:
            return True
        try:
            life.bell.release()
        except RuntimeError:
            pass
        ended = process.take(life.running, max(0.0, timeout_s))
        if ended:
            life.running.release()
            process.wait_for_kernel(life.native)
        return ended

    # -- forks ----

    def before_fork(self) -> None:
        """End a thread that waits for no server: nothing of it is inherited, or warned about."""
        if self.running and not self._delivery.is_current and self._delivery.in_flight is None:
            self._end(PARK_S)

    def after_fork_in_parent(self) -> None:
        """Go on, on another thread, or on one that did not end in time."""
        if self._delivery.stopping and not (self.closed or self.exiting):
            self._delivery.stopping = False
            self.ring()

    def after_fork_in_child(self) -> None:
        """Start afresh: all that we have is the parent's."""
        self._renew()
        for part in (self._spool, self._counters, self._delivery):
            part.after_fork()
