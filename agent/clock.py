"""Where time comes from, and what the process does around us: threads, forks, its exit.

``time()`` is Unix seconds and may jump either way; ``monotonic()`` measures distances inside one process. A test passes
its own object with these two methods.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found, unused-ignore]  # ``signal`` loads enum
import _thread
import os
import sys
import time as _time

try:  # ``functools`` loads more
    from _functools import partial  # type: ignore[import-not-found, unused-ignore]
except ImportError:  # PyPy
    partial = __import__("functools").partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

# An attribute of ``sys`` is the one place that copies under different names have in common.
_DEADLINE = "_callhome_exit_deadline"
# The import system, before and after somebody imported ``importlib``.
_IMPORTERS = ("_frozen_importlib", "importlib._bootstrap")
# Real seconds, for limits: what freezegun does not replace, and wrapped, so that it finds none.
_REAL: Any = (_time.monotonic,)
if hasattr(_time, "clock_gettime"):
    _REAL = _time.clock_gettime, _time.CLOCK_MONOTONIC
monotonic: Callable[[], float] = partial(*_REAL)
# How long a fork waits for modules of ours that another thread is loading, and for the system to forget a thread.
IMPORT_S, KERNEL_S = 1.0, 0.2
# How soon a Ctrl-C is noticed on Windows, where it does not interrupt a wait for a lock.
SLICE_S = 0.2


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
    destructor at the interpreter's end. The mask is inherited.
    """
    if sys.is_finalizing():
        raise RuntimeError("the interpreter is shutting down")
    # Loaded first on a thread of ours it would take that for the main one.
    __import__("threading")
    mask = getattr(_signal, "pthread_sigmask", None)
    if mask is None:  # Windows
        _thread.start_new_thread(main, given)
        return
    # Asked first: a signal that came before raises here, and not where all are blocked.
    before = mask(_signal.SIG_BLOCK, ())
    try:
        mask(_signal.SIG_BLOCK, _signal.valid_signals())
        _thread.start_new_thread(main, given)
    finally:
        mask(_signal.SIG_SETMASK, before)


def take(lock: Any, timeout_s: float) -> bool:
    """Whether a lock could be taken within ``timeout_s``, by no clock of the host."""
    while os.name == "nt" and timeout_s > SLICE_S:
        if lock.acquire(True, SLICE_S):
            return True
        timeout_s -= SLICE_S
    return bool(lock.acquire(True, timeout_s))


_workers: set[Any] = set()  # each change is one step
_installed = False


def watch_forks(worker: Any) -> None:
    """Tell ``worker`` of every fork, until ``forget_forks``: such hooks cannot be removed."""
    global _installed
    _workers.add(worker)
    if not _installed and hasattr(os, "register_at_fork"):
        _installed = True
        os.register_at_fork(
            before=_before_fork,
            after_in_parent=lambda: _tell("after_fork_in_parent"),
            after_in_child=lambda: _tell("after_fork_in_child"),
        )


def forget_forks(worker: Any) -> None:
    """The opposite of ``watch_forks``."""
    _workers.discard(worker)


def _tell(what: str) -> None:
    for worker in list(_workers):
        _quietly(getattr(worker, what))


def _quietly(call: Callable[[], object]) -> None:
    try:
        call()
    except BaseException:  # noqa: B036
        pass  # os.fork would not raise it, nor a Ctrl-C, but print it into the host


def _before_fork() -> None:
    """Threads that can end do; others may go on to load a module of ours.

    If one loads ``logging`` meanwhile, that is told after the fork without having been asked before it: it would
    release a lock that it has not taken, which would be printed.
    """
    whole = hasattr(sys.modules.get("logging"), "shutdown")  # its last function but one
    _tell("before_fork")
    _quietly(_await_imports)
    logging: Any = sys.modules.get("logging")
    if not whole and hasattr(logging, "shutdown"):
        _quietly(lambda: logging._lock._is_owned() or logging._lock.acquire())


def _await_imports() -> None:
    """Wait while another thread loads a module for us: its lock would be held in the child for ever."""
    ends_at = monotonic() + IMPORT_S
    while _is_importing() and monotonic() < ends_at:
        _time.sleep(0.001)


def _is_importing() -> bool:
    ours, me = __name__.rpartition(".")[0], _thread.get_ident()
    for thread, frame in getattr(sys, "_current_frames", dict)().items():
        importing = False
        while frame is not None and thread != me:
            name = str(frame.f_globals.get("__name__"))
            if importing and (name + ".").startswith(ours + "."):
                return True
            importing |= name in _IMPORTERS
            frame = frame.f_back
    return False


def exit_time_left_s(timeout_s: float) -> float:
    """What is left of the exit time of all copies; the first one to ask begins it."""
    now = monotonic()
    began: float = sys.__dict__.setdefault(_DEADLINE, now)
    return max(0.0, min(timeout_s, began + timeout_s - now))


def wait_for_kernel(native: int) -> None:
    """Until the system too knows of a thread's end: a fork warns by what the system counts."""
    ends_at = monotonic() + KERNEL_S
    path = "/proc/self/task/%d" % native
    while native and os.path.exists(path) and monotonic() < ends_at:
        _time.sleep(0.0002)
