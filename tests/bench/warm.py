"""What one recording call costs once everything is loaded, beside a raw write and fsync in the same process, in turns.

The agent's worker lives, as in a product, but does not deliver before it is told to. Each call alternates with the
floor: a write of as many bytes to an open file, and fsync. Peers are spools from PyPI, each doing what it calls safe.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from . import measure
from .measure import Aim, Context, Figure, Result, Table
from .servers import collector

CALLS = 200  # of each kind, per round
COUNTS = 20_000
MEMBERS = 16
TIMES_THE_FLOOR = 1.3
COUNT_US = 2.0

# One record's line has about this many bytes.
LOOP = """
import os
def loop(works, calls):
    times = {name: [] for name in works}
    for work in works.values():
        work(), work()
    for _ in range(calls):
        for name, work in works.items():
            began = _clock()
            work()
            times[name].append(_clock() - began)
    return times
file = os.open(os.path.join(sys.argv[1], "raw-%d" % os.getpid()), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
def raw():
    os.write(file, LINE)
    os.fsync(file)
LINE = b"x" * 430 + b"\\n"
"""
OURS = measure.ours(measure.PRODUCT + LOOP + """
directory, calls, counts, url, gate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
telemetry = product(os.path.join(directory, "state"), url or "http://127.0.0.1:9", usage=True,
                    start_delay_s=0 if url else 3600)
telemetry.call_home()
if gate:
    sys.stdout.flush()
    sys.stdin.readline()  # all together
told["times"] = loop({
    "raw write + fsync": raw,
    "record_text": lambda: telemetry.record_text("opengl", data_group="renderer"),
    "record_value": lambda: telemetry.record_value(3.25, data_group="export-seconds"),
    "track": lambda: telemetry.track("EXPORT", meta={"format": "png"}),
}, calls)
count = telemetry.count
several = []
for _ in range(counts // 100):
    began = _clock()
    for _ in range(100):
        count("RENDER")
    several.append((_clock() - began) / 100)
told["times"]["count"] = several
tell()
sys.stdout.flush()
os._exit(0)
""")
SPOOLS = {
    "persist-queue SQLiteAckQueue": """
import persistqueue
queue = persistqueue.SQLiteAckQueue(os.path.join(sys.argv[1], "peer"), auto_commit=True)
put = lambda: queue.put(LINE)
""",
    "litequeue": """
import litequeue
queue = litequeue.LiteQueue(os.path.join(sys.argv[1], "peer.db"))
put = lambda: queue.put(LINE.decode())
""",
    "diskcache Deque": """
import diskcache
queue = diskcache.Deque(directory=os.path.join(sys.argv[1], "peer"))
put = lambda: queue.append(LINE)
""",
}
PEER = """
told["times"] = loop({"raw write + fsync": raw, sys.argv[3]: put}, int(sys.argv[2]))
tell()
"""
# Writes and syncs four megabytes at a time, as a compiler or a download does.
HEAVY = """
import os
file = os.open(os.path.join(sys.argv[1], "heavy"), os.O_CREAT | os.O_WRONLY)
print("on", flush=True)
while True:
    for _ in range(32):
        os.write(file, b"x" * 4_194_304)
        os.fsync(file)
    os.lseek(file, 0, os.SEEK_SET)
"""


def ours(context: Context, url: str = "") -> dict[str, list[float]]:
    run = measure.run(OURS, context.directory("warm"), CALLS, COUNTS, url, "")
    return run.told["times"]  # type: ignore[no-any-return]


def crowd(context: Context) -> dict[str, list[float]]:
    """Sixteen processes on one state directory, all at once."""
    directory = context.directory("crowd")
    calls = max(20, CALLS // 4)
    processes = [measure.start(OURS, directory, calls, 0, "", "together") for _ in range(MEMBERS)]
    outs = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in processes:
        out, err = process.communicate(timeout=measure.LIMIT_S)
        if process.returncode:
            raise RuntimeError(err.decode())
        outs.append(measure.read(out)[1]["times"])
    names = [name for name in outs[0] if name != "count"]
    return {name: [t for times in outs for t in times[name]] for name in names}


@contextlib.contextmanager
def heavy(context: Context) -> Iterator[None]:
    """Background writes for as long as this lasts."""
    process = measure.start(measure.program(HEAVY), context.directory("heavy"))
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def delivering(context: Context) -> dict[str, list[float]]:
    """While the worker delivers what is recorded, to a collector in its own process."""
    with collector() as server:
        return ours(context, server.url)


def peers(context: Context) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    if "spools" in context.peers:
        for name, source in SPOOLS.items():
            code = measure.program(LOOP + source + PEER, [context.peers["spools"]])
            times = measure.run(code, context.directory("peer"), CALLS, name).told["times"]
            found[name] = times[name]
            found.setdefault("raw write + fsync", []).extend(times["raw write + fsync"])
    return found


def loaded(context: Context) -> dict[str, list[float]]:
    with heavy(context):
        return ours(context)


def group(context: Context) -> Result:
    works: dict[str, Any] = {
        "quiet disk": lambda: ours(context),
        "heavy background writes": lambda: loaded(context),
        "another thread delivers": lambda: delivering(context),
        "%d processes record" % MEMBERS: lambda: crowd(context),
    }
    if "spools" in context.peers:
        works["peers, quiet disk"] = lambda: peers(context)
    rounds = max(1, context.rounds // 2)
    result = Result()
    context.say("warm: %d scenes, %d rounds" % (len(works), rounds))
    found = measure.in_turns(works, rounds)
    for scene, turns in found.items():
        table = Table(
            "One recording call: " + scene,
            ["p50 us", "p99 us", "times raw, p50", "times raw, p99"],
        )
        for name in turns[0]:
            middle = [1e6 * measure.quantile(turn[name], 0.5) for turn in turns]
            late = [1e6 * measure.quantile(turn[name], 0.99) for turn in turns]
            raws = [turn["raw write + fsync"] for turn in turns]
            shares = [
                measure.ratio(values, [1e6 * measure.quantile(raw, share) for raw in raws])
                for values, share in ((middle, 0.5), (late, 0.99))
            ]
            table.add(
                name,
                Figure.of(middle, "us"),
                Figure.of(late, "us"),
                *("%.2f" % share for share in shares),
            )
            if scene == "quiet disk" and name.startswith("record_"):
                text = "durable %s, beside raw write + fsync" % name
                result.aims.append(Aim(text, shares[0], TIMES_THE_FLOOR))
            if scene == "quiet disk" and name == "count":
                result.aims.append(Aim("count()", Figure.of(middle, "us").median, COUNT_US, "us"))
        result.tables.append(table)
    return result
