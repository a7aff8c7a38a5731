"""Spools on a real disk, beside other processes, for the tests of the spool."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

from agent import jsonline
from agent.clock import Clock
from agent.spool import names
from agent.spool.backlog import Backlog
from agent.spool.records import Record
from agent.spool.store import DISK, Spool

ROOT = Path(__file__).resolve().parents[2]
START = 1_760_000_000.0


class FakeClock(Clock):
    """Both clocks, moved by hand."""

    def __init__(self, at: float = START) -> None:
        self.at = at
        self.since_boot = 1000.0

    def time(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.since_boot

    def advance(self, seconds: float) -> None:
        self.at += seconds
        self.since_boot += seconds


class Dropped(list[tuple[int, str]]):
    """What the quota reported."""

    def __call__(self, count: int, id: str, told: int = 0) -> None:
        self.append((count, id))


def spool(directory: Any, **changes: Any) -> Spool:
    """A spool as a process has it; ``clock``, ``dropped``, quotas and ``power`` may be given."""
    settings: dict[str, Any] = {
        "clock": Clock(),
        "max_bytes": 10_000_000,
        "max_records": 10_000,
        "power": True,
        "dropped": Dropped(),
    }
    place = None if directory is None else str(directory)
    return Spool(place, **{**settings, **changes})


def licence(id: str, text: str = "CALL HOME", at: float = START) -> Record:
    return Record("licence", "server", id, at, {"text_data": text})


def usage(id: str, epoch: int = 0, at: float = START) -> Record:
    return Record("usage", "reo", id, at, {"activity_type": "EXPORT"}, epoch=epoch)


def keep(target: Spool, *ids: str, **more: Any) -> None:
    """Record licence records; every one must be acknowledged as being on disk."""
    for id in ids:
        assert target.record(licence(id, **more), sync=True) == DISK


def waiting(directory: Any, *, dead: bool = False) -> list[str]:
    """The ids that wait on disk, as a process that has just started sees them."""
    return [record.id for record in look(directory).records(dead=dead)]


def look(directory: Any) -> Backlog:
    found = Backlog(str(directory), [])
    found.refresh()
    return found


def segments(directory: Any, classes: str = names.EVICTION) -> list[Path]:
    return [
        Path(directory) / name for name in names.listing(str(directory))[0] if name[0] in classes
    ]


def size_of(directory: Any) -> int:
    """Bytes of all files; those that vanish meanwhile do not count."""
    total = 0
    for entry in os.scandir(directory):
        try:
            total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            pass
    return total


def deliver(target: Spool, *, limit: int = 10**9) -> list[str]:
    """One pass in which every record (at most ``limit``) is proven delivered; the ids in order."""
    claim = target.claim()
    assert claim is not None
    sent: list[str] = []
    try:
        target.rescue()
        target.backlog.refresh()
        for record in target.backlog.records():
            if len(sent) >= limit:
                break
            target.backlog.ledger.begin(record)
            target.backlog.ledger.end(record, settled=True)
            target.backlog.forget_memory(record)
            sent.append(record.id)
        target.sweep(None)
    finally:
        target.release(claim)
    return sent


def write_segment(directory: Any, lines: list[bytes], class_: str = "l", ms: int = 0) -> Path:
    """A segment that a process left behind, as these bytes."""
    path = Path(directory) / names.segment(class_, ms)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_bytes(b"".join(lines))
    path.chmod(0o600)
    return path


def line(id: str, text: str = "CALL HOME") -> bytes:
    return jsonline.encode(licence(id, text).to_json())


PRELUDE = """
import os, sys, time
sys.path[:0] = [%r, %r]
from support import spool as support
from support.spool import *
directory = sys.argv[1]
"""


def child(
    code: str, *arguments: Any, directory: Any, stdin: Optional[int] = subprocess.PIPE
) -> subprocess.Popen[str]:
    """Another process that runs ``code``, with the names of this module and ``directory``."""
    text = PRELUDE % (str(ROOT), str(ROOT / "tests")) + code
    command = [sys.executable, "-B", "-c", text, str(directory), *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def done(process: subprocess.Popen[str], timeout_s: float = 30) -> str:
    """What a child printed, once it has ended well."""
    out, err = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, err
    return out
