"""What loading costs, and how long it takes from the start of the interpreter to a durable record.

The floor of a record creates a directory and a file, writes one checksummed line
of JSON and syncs both: no program that promises durability does less. All run fresh, under the same flags, on the disk
of the checkout.
"""

import shutil
from collections.abc import Callable
from functools import partial

from . import measure
from .measure import Aim, Context, Figure, Result, Table

BARE = measure.program("mark()\ntell()")

# json costs twice what all of this does: the floor does without, as we do.
FLOOR = measure.program("""
import os
from binascii import crc32
from _json import encode_basestring_ascii as text
os.makedirs(sys.argv[1], exist_ok=True)
directory = os.open(sys.argv[1], os.O_RDONLY)
file = os.open(os.path.join(sys.argv[1], "log"), os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
line = ("{%s:%s}" % (text("text_data"), text("CALL HOME" + "x" * 400))).encode()
os.write(file, b"%08x %b\\n" % (crc32(line), line))
os.fsync(file)
os.fsync(directory)
mark()
tell()
""")
AGENT = measure.ours("""
telemetry = product(sys.argv[1], durability=sys.argv[2])
assert telemetry.call_home()
mark()
tell()
""")
TIMES_THE_FLOOR = 4.0

FACTS = """
mark()
others = [name for name, module in list(sys.modules.items())
          if "site-packages" in str(getattr(module, "__file__", None) or "")]
told["modules"], told["others"] = len(sys.modules), len(others)
import os
try:
    told["rss"] = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1048576
except OSError:
    told["rss"] = 0.0
tell()
"""
IMPORTS = {
    "bare": "",
    "agent": "import agent",
    "agent, its names used": "import agent; agent.Agent, agent.Config, agent.GetKeyManager",
}


def importing(context: Context) -> Result:
    """What importing costs the host; the second row says what comes when a name is used."""
    programs = {name: partial(measure.run, measure.ours(c + FACTS)) for name, c in IMPORTS.items()}
    measure.in_turns(programs, 1)  # has the files read and compiled
    found = measure.in_turns(programs, context.rounds)
    bare = found.pop("bare")
    columns = ["ms", "modules", "third-party modules", "resident MB"]
    table = Table("Import, over a bare interpreter", columns)
    for name, runs in found.items():
        times = measure.over([r.marks[0] for r in runs], [r.marks[0] for r in bare])
        more, rss = (runs[0].told[what] - bare[0].told[what] for what in ("modules", "rss"))
        table.add(name, times, more, runs[0].told["others"], [rss])
    loaded = float(table.rows["agent"][2])
    return Result([table], [Aim("third-party modules that importing loads", loaded, 0, "")])


def group(context: Context) -> Result:
    """To the first durable record of a first start, and of a later one."""

    def first(source: str) -> measure.Run:
        state = context.state()
        try:
            return measure.run(source, state, "power")
        finally:
            shutil.rmtree(state.parent)

    def later(source: str, durability: str = "power") -> Callable[[], measure.Run]:
        state = context.state()
        measure.run(source, state, durability)
        return lambda: measure.run(source, state, durability)

    works: dict[str, Callable[[], measure.Run]] = {
        "bare interpreter": lambda: measure.run(BARE),
        "floor, first start": lambda: first(FLOOR),
        "agent, first start": lambda: first(AGENT),
        "floor, later start": later(FLOOR),
        "agent, later start": later(AGENT),
        'agent, later start, durability="process"': later(AGENT, "process"),
    }
    # Short ones: more turns outlast a busy moment.
    rounds = context.rounds if context.rounds < 5 else 4 * context.rounds
    context.say("cold: %d programs, %d rounds" % (len(works), rounds))
    found = measure.in_turns(works, rounds)
    table = Table(
        "From the start of the process to a durable record, over a bare interpreter",
        ["ms to the record", "ms to the end of the process", "times the floor"],
    )
    bare = found.pop("bare interpreter")
    at = [run.marks[0] for run in bare]
    marks = {name: measure.over([r.marks[0] for r in runs], at) for name, runs in found.items()}
    result = Result([table])
    for name, runs in found.items():
        ends = measure.over([run.took_s for run in runs], [run.took_s for run in bare])
        when = "first start" if "first" in name else "later start"
        share = measure.ratio(marks[name], marks["floor, " + when])
        table.add(name, marks[name], ends, "%.2f" % share)
        if name == "agent, " + when:
            text = "durable call_home(), %s, beside the floor" % when
            result.aims.append(Aim(text, share, TIMES_THE_FLOOR))
    took = Figure.of([1e3 * run.took_s for run in bare])
    table.notes.append("The bare interpreter takes %s ms from start to end." % took)
    return result
