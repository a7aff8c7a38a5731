"""What the process does around an agent: exit and fork, each hooked once for all agents of this copy.

Fork hooks cannot be removed, so the one pair that is installed holds only weak references; the exit hook of an agent
goes when it closes. All copies of this package in one process, whatever their names, share one exit deadline.
"""

from __future__ import annotations

import atexit
import os
import sys
from _thread import get_ident
from _weakref import ref

from . import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Protocol

    class Forkable(Protocol):
        """What a fork must tell."""

        def before_fork(self) -> None:
            """Park."""

        def after_fork_in_parent(self) -> None:
            """Go on."""

        def after_fork_in_child(self) -> None:
            """Start afresh."""


_forkables: dict[int, Any] = {}  # weak references by identity; each change is one step
_finalizers: dict[Callable[[], None], Any] = {}
_installed = False
# An attribute of ``sys`` is the one place that copies under different names have in common.
_DEADLINE = "_callhome_exit_deadline"
# The import system, before and after somebody imported ``importlib``.
_IMPORTERS = ("_frozen_importlib", "importlib._bootstrap")
# How long a fork waits for a module that is being loaded: all that we load takes 0.1 s on a fast machine.
IMPORT_S = 1.0


def watch_forks(forkable: Forkable) -> None:
    """Tell ``forkable`` of every fork, for as long as somebody else keeps it alive."""
    global _installed
    for key in [key for key, known in list(_forkables.items()) if known() is None]:
        _forkables.pop(key, None)
    _forkables[id(forkable)] = ref(forkable)
    if not _installed and hasattr(os, "register_at_fork"):
        _installed = True
        # Who registers first comes last before the fork and first after it.
        os.register_at_fork(
            before=_hold_still,
            after_in_parent=files.go_on,
            after_in_child=files.close_inherited,
        )
        os.register_at_fork(
            before=lambda: _tell("before_fork"),
            after_in_parent=lambda: _tell("after_fork_in_parent"),
            after_in_child=lambda: _tell("after_fork_in_child"),
        )


def _hold_still() -> None:
    """The last before a fork: who goes on after a file of ours may load the next module, but opens no file."""
    files.hold_still()
    try:
        guard_logging(await_imports)
    except BaseException:  # noqa: B036
        pass  # os.fork would print it into the host


def forget_forks(forkable: Forkable) -> None:
    """The opposite of ``watch_forks``."""
    _forkables.pop(id(forkable), None)


def _tell(what: str) -> None:
    for known in list(_forkables.values()):
        forkable = known()
        if forkable is not None:
            try:
                getattr(forkable, what)()
            except BaseException:  # noqa: B036
                pass  # os.fork would not raise it, nor a Ctrl-C, but print it into the host


def await_imports() -> None:
    """Inside a fork hook: wait while another thread loads a module for this package, up to ``IMPORT_S``.

    The lock of a module that is loaded in the middle of a fork is held in the child for ever.
    """
    from time import monotonic, sleep

    ends_at = monotonic() + IMPORT_S
    while _is_importing() and monotonic() < ends_at:
        sleep(0.001)


def _is_importing() -> bool:
    ours, me = __name__.rpartition(".")[0], get_ident()
    for thread, frame in getattr(sys, "_current_frames", dict)().items():
        importing = False
        while frame is not None and thread != me:
            name = str(frame.f_globals.get("__name__"))
            if importing and (name + ".").startswith(ours + "."):
                return True
            importing |= name in _IMPORTERS
            frame = frame.f_back
    return False


def guard_logging(wait: Callable[[], None]) -> None:
    """Inside a fork hook: wait for a thread that may be loading urllib3, and with it ``logging``.

    Who registers for forks while one is being prepared is not asked before it, but told after it: ``logging``
    would then release its lock without having taken it, and the interpreter would print that into the host.
    """
    whole = hasattr(sys.modules.get("logging"), "shutdown")  # its last function but one
    wait()
    logging = sys.modules.get("logging")
    if not whole and hasattr(logging, "shutdown"):
        lock = getattr(logging, "_lock", None)
        owned = getattr(lock, "_is_owned", None)
        if lock is not None and owned is not None and not owned():
            lock.acquire()


def at_exit(callback: Callable[[], None]) -> None:
    """Have ``callback`` called at the interpreter's end, or at that of a process of ``multiprocessing``.

    Those that were forked end by ``os._exit``, before Python 3.13 without asking ``atexit``.
    """
    atexit.register(callback)
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        _finalizers[callback] = util.Finalize(None, callback, exitpriority=0)


def not_at_exit(callback: Callable[[], None]) -> None:
    """The opposite of ``at_exit``."""
    atexit.unregister(callback)
    finalizer = _finalizers.pop(callback, None)
    if finalizer is not None:
        finalizer.cancel()


def shared_time_left_s(timeout_s: float) -> float:
    """Seconds that are left of the exit time of all copies; the first one to ask begins it."""
    from time import monotonic  # the host waits in real time, whatever clock an agent was given

    now = monotonic()
    began: float = sys.__dict__.setdefault(_DEADLINE, now)
    return max(0.0, min(timeout_s, began + timeout_s - now))
