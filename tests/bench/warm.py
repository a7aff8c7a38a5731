"""What one recording call costs once everything is loaded, beside a raw write and fsync in the same process, in turns.

The agent's worker lives, as in a product, but does not deliver before it is told to. Each call alternates with the
floor: a write of as many bytes to an open file, and fsync.
"""

from collections.abc import Callable
from functools import partial

from . import measure
from .measure import Aim, Context, Figure, Result, Table
from .servers import collector

CALLS = 200  # of each kind, per round
COUNTS = 20_000
MEMBERS = 16
TIMES_THE_FLOOR = 1.3
COUNT_US = 2.0
RAW = "raw write + fsync"

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
OURS = measure.ours(LOOP + """
directory, calls, counts, url, gate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
telemetry = product(os.path.join(directory, "state"), url or "http://127.0.0.1:9", usage=True,
                    start_delay_s=0 if url else 3600)
telemetry.call_home()
if gate:
    sys.stdin.readline()  # all together
told["times"] = loop({
    "raw write + fsync": raw,
    "record_text": lambda: telemetry.record_text("opengl", data_group="renderer"),
    "record_value": lambda: telemetry.record_value(3.25, data_group="export-seconds"),
    "track": lambda: telemetry.track("EXPORT", meta={"format": "png"}),
}, calls)
several = []
for _ in range(counts // 100):
    began = _clock()
    for _ in range(100):
        telemetry.count("RENDER")
    several.append((_clock() - began) / 100)
if several:
    told["times"]["count"] = several
tell()
os._exit(0)
""")
Times = dict[str, list[float]]


def _quiet(context: Context, url: str = "") -> Times:
    found: Times = measure.run(OURS, context.directory(), CALLS, COUNTS, url, "").told["times"]
    return found


def _crowd(context: Context) -> Times:
    """Sixteen processes on one state directory, all at once."""
    directory = context.directory()
    arguments = (directory, max(20, CALLS // 4), 0, "", "together")
    processes = [measure.start(OURS, *arguments) for _ in range(MEMBERS)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    found: Times = {}
    for process in processes:
        out, err = process.communicate(timeout=measure.LIMIT_S)
        if process.returncode:
            raise RuntimeError(err.decode())
        for name, times in measure.read(out)[1]["times"].items():
            found.setdefault(name, []).extend(times)
    return found


def _delivering(context: Context) -> Times:
    """While the worker delivers what is recorded, to a collector in its own process."""
    with collector() as server:
        return _quiet(context, server.url)


SCENES: dict[str, Callable[[Context], Times]] = {
    "quiet disk": _quiet,
    "another thread delivers": _delivering,
    "%d processes record" % MEMBERS: _crowd,
}


def group(context: Context) -> Result:
    works = {name: partial(scene, context) for name, scene in SCENES.items()}
    rounds = max(1, context.rounds // 2)
    result = Result()
    context.say("warm: %d scenes, %d rounds" % (len(works), rounds))
    columns = ["p50 us", "p99 us", "times raw, p50", "times raw, p99"]
    for scene, turns in measure.in_turns(works, rounds).items():
        table = Table("One recording call: " + scene, columns)
        for name in turns[0]:
            times, shares = [], []
            for share in (0.5, 0.99):
                times.append([1e6 * measure.quantile(turn[name], share) for turn in turns])
                raws = [1e6 * measure.quantile(turn[RAW], share) for turn in turns]
                shares.append(measure.ratio(times[-1], raws))
            table.add(name, *times, *("%.2f" % share for share in shares))
            if scene == "quiet disk" and name.startswith("record_"):
                text = "durable %s, beside %s" % (name, RAW)
                result.aims.append(Aim(text, shares[0], TIMES_THE_FLOOR))
            if scene == "quiet disk" and name == "count":
                result.aims.append(Aim("count()", Figure.of(times[0]).median, COUNT_US, "us"))
        result.tables.append(table)
    return result
