"""Interrupts at any line, and system calls that fail: a shim around names in ``os`` and ``fcntl`` that we use.

Only calls that concern one directory are counted and fail; the interpreter's own imports go past it (they use
``posix``), and so does every other thread. A ``Fault`` says which call fails, how, and for how long.
"""

from __future__ import annotations

import errno
import inspect
import os
import sys
from _thread import get_ident
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Optional

from agent import files

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# What a write does before it fails.
SHORT, TORN = "short", "torn"
ONCE, STAYS = "once", "stays"
ANY = "any call"

# Kind of call: the names that belong to it, and the errors that such a call gives.
CALLS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "open": (("open",), ("ENOSPC", "EIO", "EACCES", "EROFS", "EINTR", "EMFILE", "EDQUOT")),
    "write": (("write",), (SHORT, TORN, "ENOSPC", "EIO", "EROFS", "EINTR", "EDQUOT")),
    "fsync": (("fsync",), ("ENOSPC", "EIO", "EROFS", "EINTR", "EDQUOT")),
    "rename": (("rename", "replace", "link"), ("ENOSPC", "EIO", "EACCES", "EROFS", "EDQUOT")),
    "unlink": (("unlink",), ("EIO", "EACCES", "EROFS", "EINTR")),
    "list": (("listdir",), ("EIO", "EACCES", "EINTR", "EMFILE")),
    # EACCES means held by somebody else on network homes, and is no failure.
    "lock": (("flock",), ("EIO", "EINTR", "ENOLCK", "EOPNOTSUPP")),
    "stat": (("stat", "lstat", "fstat"), ("EIO", "EACCES", "EINTR")),
    "mkdir": (("mkdir",), ("ENOSPC", "EIO", "EACCES", "EROFS", "EDQUOT")),
    "truncate": (("ftruncate",), ("EIO", "EROFS", "EINTR")),
    "read": (("read", "_read"), ("EIO", "EINTR")),
    "chmod": (("chmod",), ("EIO", "EACCES", "EROFS")),
    "close": (("close",), ("EIO", "EINTR")),
    ANY: ((), ("EIO", "ESTALE")),
}
KIND_OF = {name: kind for kind, (names, _) in CALLS.items() for name in names}


class Fault(NamedTuple):
    """Call number ``at`` (from 1) of a ``kind`` fails with ``error``, ``ONCE`` or as long as it ``STAYS``."""

    kind: str
    at: int
    error: str
    mode: str

    def __str__(self) -> str:
        return "%s #%d %s %s" % (self.kind, self.at, self.error, self.mode)


class Hit(NamedTuple):
    """One call that failed."""

    call: str
    path: str
    phase: str


class Shim:
    """Counts what is called on ``directory`` on one thread; lets the calls of one ``Fault`` fail."""

    def __init__(self, directory: Any, fault: Optional[Fault] = None) -> None:
        self._root, self._fault = os.fspath(directory), fault
        self._thread = get_ident()
        self._ours: dict[int, str] = {}  # descriptors
        self._quiet = False
        self.healed = False
        self.phase = ""
        self.calls: Counter[str] = Counter()
        self.hits: list[Hit] = []

    @contextmanager
    def installed(self) -> Iterator[Shim]:
        """The wrapped names stand in ``os`` and ``fcntl`` meanwhile."""
        owners = [(os, name) for name in KIND_OF if name != "flock" and hasattr(os, name)]
        owners += [(fcntl, "flock")] if fcntl is not None else []
        owners += [(files, "_read")]  # which took its function of ``os`` before
        real = [(owner, name, getattr(owner, name)) for owner, name in owners]
        try:
            for owner, name, function in real:
                setattr(owner, name, self._wrapped(name, function))
            yield self
        finally:
            for owner, name, function in real:
                setattr(owner, name, function)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """For a look of the test's own."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _path(self, name: str, arguments: tuple[Any, ...]) -> Optional[str]:
        """What of ours a call is about, None where it is nobody's."""
        both = name in ("rename", "replace", "link")
        for given in arguments[: 1 + both]:
            if isinstance(given, int):
                if given in self._ours:
                    return self._ours[given]
            elif given is not None:
                path = os.fsdecode(given)
                if path == self._root or path.startswith(self._root + os.sep):
                    return path
        return None

    def _fails(self, name: str, path: str) -> str:
        """Count a call; the error it is to give, "" for none."""
        kind, fault = KIND_OF[name], self._fault
        self.calls[kind] += 1
        self.calls[ANY] += 1
        if fault is None or self.healed or fault.kind not in (kind, ANY):
            return ""
        number = self.calls[fault.kind]
        if number < fault.at or (fault.mode == ONCE and number > fault.at):
            return ""
        self.hits.append(Hit(name, path, self.phase))
        return fault.error

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            if self._quiet or get_ident() != self._thread:
                return real(*arguments, **named)
            path = self._path(name, arguments)
            error = "" if path is None else self._fails(name, path)
            if name == "close":  # the descriptor is gone whatever close says
                self._ours.pop(arguments[0], None)
                real(*arguments)
                if error:
                    raise _error(error, path)
                return None
            if error in (SHORT, TORN):
                fd, data = arguments
                count = real(fd, data[: len(data) // 2])
                if error == SHORT:
                    return count
                error = "ENOSPC"
            if error:
                raise _error(error, path)
            result = real(*arguments, **named)
            if path is not None and name == "open":
                self._ours[result] = path
            return result

        return called


@contextmanager
def interrupted_at(
    number: int, how: Callable[[], object], what: str = "line"
) -> Iterator[list[int]]:
    """``how()`` at the ``number``-th line of the package that is run, or with "call" where so many a function begins.

    What it gives is raised where it is an exception.

    There, and behind each call of a C function, is where an interpreter looks for signals. The list counts them.
    """
    count, package = [0], os.path.dirname(files.__file__)

    def trace(frame: Any, event: str, argument: object) -> Any:
        code = frame.f_code
        if not code.co_filename.startswith(package):
            return None
        # Generators are closed noisily.
        if event == what and not (what == "call" and code.co_flags & inspect.CO_GENERATOR):
            count[0] += 1
            if count[0] == number:
                error = how()
                if isinstance(error, BaseException):
                    raise error
        return trace if what == "line" else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(before)


def _error(error: str, path: Optional[str]) -> OSError:
    number = getattr(errno, error)
    return OSError(number, os.strerror(number), path)


def descriptors(directory: Any) -> list[str]:
    """What this process has open below ``directory``, where the system tells."""
    found = []
    try:
        numbers = os.listdir("/proc/self/fd")
    except OSError:
        return []
    for number in numbers:
        try:
            path = os.readlink("/proc/self/fd/" + number)
        except OSError:
            continue
        if path.startswith(os.fspath(directory)):
            found.append(path)
    return found
