"""The engine with Atheris: one process per target, for libFuzzer takes over the one that it is started in.

Here is the parent, which reads what libFuzzer tells; ``guided_child`` is the other side. What ends that process (a
hang, the memory, the C stack) is a crash like any other, with the input that libFuzzer left.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Callable, Optional

from . import corpus
from .findings import Crash, Finding

# Loading, the seeds, and a hang of libFuzzer's own measure at the very end; behind that the process is ended.
GRACE_S = 90
CRASHES = "crashes.json"
# What libFuzzer ends with when it is interrupted.
INTERRUPTED = 72
_STATUS = re.compile(rb"#(\d+)\s+(\w+)\s+cov: (\d+) ft: \d+ corp: (\d+)")
_DONE = re.compile(rb"stat::number_of_executed_units:\s*(\d+)")
Progress = Callable[[Finding], None]


def is_there() -> bool:
    """Whether Atheris can be imported; asked without loading it."""
    return importlib.util.find_spec("atheris") is not None


def run(
    found: Finding,
    *,
    seconds: float,
    work: Path,
    directory: Path,
    progress: Progress = lambda finding: None,
) -> None:
    """Fuzz ``found.target`` in a process of its own; inputs go to ``directory``, all else to ``work``.

    ``found`` is filled in while it runs, so that an interrupted run shows what it has.
    """
    directory.mkdir(parents=True, exist_ok=True)
    began_at = time.monotonic()
    job = {
        "name": found.target,
        "seconds": max(1, round(seconds)),
        "seed": found.seed % (1 << 31) or 1,
        "work": str(work),
        "corpus": str(directory),
    }
    command = [sys.executable, "-m", "tests.fuzz.guided_child", json.dumps(job)]
    child = subprocess.Popen(command, cwd=corpus.ROOT, stderr=subprocess.PIPE)
    watchdog = threading.Timer(seconds + GRACE_S, child.kill)
    watchdog.daemon = True
    watchdog.start()
    told: list[bytes] = []
    first: Optional[int] = None
    try:
        assert child.stderr is not None
        for line in child.stderr:
            told = [*told[-40:], line]
            status, done = _STATUS.search(line), _DONE.search(line)
            if status is not None:
                edges = int(status[3])
                first = edges if first is None or status[2] == b"INITED" else first
                found.executions, found.corpus = int(status[1]), int(status[4])
                found.new = edges - first
            if done is not None:
                found.executions = int(done[1])
            found.seconds = time.monotonic() - began_at
            progress(found)
        child.wait()
    finally:
        watchdog.cancel()
        if child.poll() is None:
            child.terminate()
        child.wait()
        found.seconds = time.monotonic() - began_at
        found.crashes = _crashes(work, child.returncode, told)


def _crashes(work: Path, status: int, told: list[bytes]) -> list[Crash]:
    path = work / CRASHES
    crashes = []
    if path.exists():
        crashes = Finding.from_json(json.loads(path.read_text(encoding="utf-8"))).crashes
    left = [one for one in work.iterdir() if one.name.startswith(("crash-", "timeout-", "oom-"))]
    if left or status not in (0, INTERRUPTED, -signal.SIGINT, -signal.SIGTERM):
        data = left[0].read_bytes() if left else b""
        reason = "the process ended with %d" % status
        words = b"".join(told).decode("utf-8", "replace")
        crashes.append(Crash(reason, reason, words, base64.b64encode(data).decode("ascii")))
    return crashes
