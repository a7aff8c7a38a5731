"""How often an idle product is woken: context switches of all its threads while nothing happens."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

from . import measure
from .measure import Context, Figure, Result, Table
from .servers import collector, refusing

SETTLE_S = 3.0
WATCH_S = 20.0

BARE = measure.program("sys.stdin.read()", measure.site_directories())
AGENT = measure.ours(measure.PRODUCT + """
telemetry = product(sys.argv[1], sys.argv[2], keys=(agent.PublicKey.from_pem(sys.argv[3]),) if sys.argv[3] else (),
                    usage=True)
telemetry.call_home()
telemetry.count("RENDER")
sys.stdin.read()
""")


def switches(pid: int) -> int:
    """Voluntary context switches of all threads of a process."""
    total = 0
    for status in Path("/proc/%d/task" % pid).glob("*/status"):
        with contextlib.suppress(OSError):
            for line in status.read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    total += int(line.split()[1])
    return total


def group(context: Context) -> Result:
    table = Table(
        "Idle: wake-ups per minute of the whole process, watched for %g s" % WATCH_S,
        ["per minute", "threads"],
    )
    if not sys.platform.startswith("linux"):
        table.notes.append("Not measured: needs /proc.")
        return Result([table])
    with contextlib.ExitStack() as stack:
        up = stack.enter_context(collector())
        refused = "http://127.0.0.1:%d" % stack.enter_context(refusing())
        scenes = {
            "bare interpreter": measure.start(BARE),
            "agent, delivered": measure.start(AGENT, context.directory("idle"), up.url, up.pem),
            "agent, server refuses": measure.start(AGENT, context.directory("idle"), refused, ""),
        }
        for process in scenes.values():
            stack.callback(process.communicate)
            stack.callback(process.kill)
        context.say("idle: %g s" % (SETTLE_S + WATCH_S))
        time.sleep(SETTLE_S)
        before = {name: switches(process.pid) for name, process in scenes.items()}
        began = time.perf_counter()
        time.sleep(WATCH_S)
        for name, process in scenes.items():
            minutes = (time.perf_counter() - began) / 60
            woken = (switches(process.pid) - before[name]) / minutes
            threads = len(list(Path("/proc/%d/task" % process.pid).iterdir()))
            table.add(name, Figure.of([woken], "1/min"), threads)
    return Result([table])
