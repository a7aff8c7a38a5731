"""Spools on a real disk, beside other processes: the one place where tests read and write what lies on it."""

import os
import subprocess
import sys
import time
from importlib import import_module
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

from agent import files, lines
from agent.clock import Clock
from agent.spool import segment
from agent.spool.record import Record
from agent.spool.store import DISK, Spool
from agent.values import Core, Verdict

ROOT = Path(__file__).resolve().parents[2]
START = 1_760_000_000.0
# What the package has open here; who plays several processes puts another set in its place.
open_now: set[files.File] = set()
_opens, _closes = files.File.__init__, files.File.close


def _opened(file: files.File, *given: Any) -> None:
    _opens(file, *given)
    open_now.add(file)


def _closed(file: files.File, *unused: object) -> None:
    _closes(file)
    open_now.discard(file)


files.File.__init__ = _opened  # type: ignore[assignment, method-assign]
files.File.close = files.File.__exit__ = _closed  # type: ignore[assignment, method-assign]


class FakeClock(Clock):
    """Both clocks, moved by hand."""

    def __init__(self, at: float = START) -> None:
        self.at = at
        self.since_boot = 1000.0
        self.skew_s = 0.0  # how wrong it is, of who only sees ``time``

    def time(self) -> float:
        return self.at + self.skew_s

    def monotonic(self) -> float:
        return self.since_boot

    def advance(self, seconds: float) -> None:
        self.at += seconds
        self.since_boot += seconds


class Dropped(list[tuple[int, str]]):
    """What was reported as dropped; each report is a licence record."""

    def __call__(self, count: int, id: str) -> Record:
        self.append((count, id))
        return licence(id, str(count))


def spool(directory: Any, *, clock: Any = None, report: Any = None, **changes: Any) -> Spool:
    """A spool as a process has it; quotas and ``power`` may be given."""
    config: Any = SimpleNamespace(**{"max_bytes": 10_000_000, "max_records": 10_000, **changes})
    config.durability = "power" if changes.get("power", True) else "process"
    core = Core(
        clock=clock or Clock(), report=Dropped() if report is None else report, config=config
    )
    return Spool(None if directory is None else str(directory), core)


def licence(id: str, text: str = "CALL HOME", at: float = START) -> Record:
    return Record("licence", "server", id, at, {"text_data": text})


def usage(id: str, epoch: int = 0, at: float = START) -> Record:
    return Record("usage", "reo", id, at, {"activity_type": "EXPORT"}, epoch=epoch)


def window(id: str, count: int, epoch: int = 0, ended_at: Optional[float] = None) -> Record:
    body = {"activity_type": "RENDER", "count": count}
    return Record("aggregate", "reo", id, START, body, epoch=epoch, ended_at=ended_at)


def verdict(outcome: str, **more: Any) -> Verdict:
    return Verdict(outcome, **more)


def keep(target: Spool, *ids: str, **more: Any) -> None:
    """Record licence records; every one must be acknowledged as being on disk."""
    for id in ids:
        assert target.record(licence(id, **more), sync=True) == DISK, target.trouble


def look(directory: Any) -> Spool:
    """The directory as a process sees it that has just started."""
    return spool(directory)


def waiting(directory: Any, *, dead: bool = False) -> list[str]:
    """The ids that wait on disk, as a process that has just started sees them."""
    return [record.id for record in look(directory).records(dead=dead)]


def segments(directory: Any, classes: str = "luc") -> list[Path]:
    """Segments that hold something, oldest first."""
    found = [Path(directory) / name for name in segment.listing(str(directory))]
    # Windows unlinks nothing that somebody has open: cut, it is gone.
    there = [path for path in found if os.name == "posix" or path.stat().st_size]
    return [path for path in there if path.name[0] in classes]


def size_of(directory: Any) -> int:
    """Bytes of all files; those that vanish meanwhile do not count."""
    total = 0
    for entry in os.scandir(directory):
        try:
            total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            pass
    return total


def deliver(target: Spool, *, limit: int = 10**9, outcome: str = "delivered") -> list[str]:
    """One pass in which every record (at most ``limit``) gets this answer; the ids in order."""
    ends_at = time.monotonic() + 5
    while not target.claim():  # somebody may look at the lock just now
        assert time.monotonic() < ends_at
        time.sleep(0.01)
    sent: list[str] = []
    try:
        for record in target.waiting(()):
            if len(sent) >= limit:
                break
            if record.usage and target.consent.current() != record.epoch:
                continue  # as the product's gate says
            first = record.kind == "aggregate"
            if target.try_(record, sync=first):
                target.answer(record, verdict(outcome, reason="because"), START)
                sent.append(record.id)
    finally:
        target.release()
    return sent


def write_segment(directory: Any, content: list[bytes], class_: str = "l", ms: int = 0) -> Path:
    """A segment that a process left behind, as these bytes."""
    path = Path(directory) / ("%s-%012x-%s.seg" % (class_, ms, os.urandom(8).hex()))
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(b"".join(content))
    path.chmod(0o600)
    return path


def line(id: str, text: str = "CALL HOME") -> bytes:
    return lines.encode(licence(id, text).to_json())


def book(directory: Any) -> list[Any]:
    """What the book says, line by line; None for a damaged one."""
    path = Path(directory) / "agent.book"
    found = path.read_bytes().split(b"\n") if path.exists() else []
    return [lines.decode(text) for text in found if text]


PRELUDE = """
import os, sys, time
sys.path[:0] = [%r, %r]
from support import spool as support
from support.spool import *
directory = sys.argv[1]
"""


def child(code: str, *arguments: Any, directory: Any) -> subprocess.Popen[str]:
    """Another process that runs ``code``, with the names of this module and ``directory``."""
    text = PRELUDE % (str(ROOT), str(ROOT / "tests")) + code
    command = [sys.executable, "-B", "-c", text, str(directory), *map(str, arguments)]
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    return subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload, no-any-return]


def done(process: subprocess.Popen[str], timeout_s: float = 60) -> str:
    """What a child printed, once it has ended well."""
    out, err = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, err
    return out


def begin(code: str, count: int, *, directory: Any) -> list[subprocess.Popen[str]]:
    """So many processes, numbered; what comes behind ``sys.stdin.readline()`` they do at the same time."""
    found = [child(code, n, directory=directory) for n in range(count)]
    for process in found:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return found


class Calls:
    """System calls that fail, until ``heal``."""

    def __init__(self, patch: Any) -> None:
        self._patch, self.heal = patch, patch.undo

    def fail_locks(self, error: int) -> None:
        """Locks that do not work, as the platform says so."""
        name, module = ("locking", "msvcrt") if files.WINDOWS else ("flock", "fcntl")
        self.fail(name, error, of=import_module(module))

    def fail(
        self,
        name: str,
        error: int,
        when: Any = lambda *args: True,
        times: float = inf,
        of: Any = os,
    ) -> None:
        """Let the first ``times`` of these calls fail, of those whose arguments ``when`` is true of."""
        real, left = getattr(of, name), [times]

        def called(*args: Any, **more: Any) -> Any:
            if left[0] > 0 and when(*args):
                left[0] -= 1
                raise OSError(error, os.strerror(error))
            return real(*args, **more)

        self._patch.setattr(of, name, called)
