"""From the start of the interpreter to a durable record, beside the least that any program could do.

The floor creates a directory and a file, writes one checksummed line of JSON and syncs both: no program that promises
durability does less. All run fresh, under the same flags, on the disk of the checkout.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable

from . import measure
from .measure import Aim, Context, Figure, Result, Table

BARE = measure.program("mark()\ntell()", measure.site_directories())

# json costs twice what all of this does: the floor does without, as we do.
FLOOR = measure.program(
    """
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
""",
    measure.site_directories(),
)
# The same as most would write it, nothing synced less.
USUAL = measure.program(
    """
import json, os, zlib
os.makedirs(sys.argv[1], exist_ok=True)
with open(os.path.join(sys.argv[1], "log"), "ab") as file:
    line = json.dumps({"text_data": "CALL HOME" + "x" * 400}).encode()
    file.write(b"%08x %b\\n" % (zlib.crc32(line), line))
    file.flush()
    os.fsync(file.fileno())
directory = os.open(sys.argv[1], os.O_RDONLY)
os.fsync(directory)
mark()
tell()
""",
    measure.site_directories(),
)
SQLITE = measure.program(
    """
import os, sqlite3
os.makedirs(sys.argv[1], exist_ok=True)
base = sqlite3.connect(os.path.join(sys.argv[1], "log.db"), isolation_level=None)
base.execute("pragma journal_mode=wal")
base.execute("pragma synchronous=full")
base.execute("create table if not exists log (id integer primary key, line text)")
base.execute("insert into log (line) values (?)", ('{"text_data":"CALL HOME%s"}' % ("x" * 400),))
mark()
tell()
""",
    measure.site_directories(),
)
AGENT = measure.ours(measure.PRODUCT + """
telemetry = product(sys.argv[1])
assert telemetry.call_home()
mark()
tell()
""")
PROCESS = measure.ours(measure.PRODUCT + """
telemetry = product(sys.argv[1], durability="process")
assert telemetry.call_home()
mark()
tell()
""")
TIMES_THE_FLOOR = 2.0


def first(context: Context, source: str) -> Callable[[], measure.Run]:
    """A run on a directory that does not exist yet."""

    def work() -> measure.Run:
        directory = context.directory("cold")
        try:
            return measure.run(source, directory / "state")
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    return work


def later(context: Context, source: str) -> Callable[[], measure.Run]:
    """Runs on one directory, the first of which does not count."""
    state = context.directory("cold") / "state"
    measure.run(source, state)
    return lambda: measure.run(source, state)


def group(context: Context) -> Result:
    works: dict[str, Callable[[], measure.Run]] = {
        "bare interpreter": lambda: measure.run(BARE),
        "floor, first start": first(context, FLOOR),
        "the same with json and zlib, first start": first(context, USUAL),
        "SQLite, first start": first(context, SQLITE),
        "agent, first start": first(context, AGENT),
        "floor, later start": later(context, FLOOR),
        "SQLite, later start": later(context, SQLITE),
        "agent, later start": later(context, AGENT),
        'agent, later start, durability="process"': later(context, PROCESS),
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
    marks = {
        n: measure.over([r.marks[0] for r in runs], [r.marks[0] for r in bare])
        for n, runs in found.items()
    }
    result = Result([table])
    for name, runs in found.items():
        ends = measure.over([run.took_s for run in runs], [run.took_s for run in bare])
        floor = marks["floor, first start" if "first" in name else "floor, later start"]
        share = measure.ratio(marks[name], floor)
        table.add(
            name,
            Figure.of([1e3 * x for x in marks[name]], "ms"),
            Figure.of([1e3 * x for x in ends], "ms"),
            "%.2f" % share,
        )
        if name in ("agent, first start", "agent, later start"):
            text = "durable call_home(), %s, beside the floor" % name.partition(", ")[2]
            result.aims.append(Aim(text, share, TIMES_THE_FLOOR))
    took = Figure.of([1e3 * run.took_s for run in bare], "ms")
    table.notes.append("The bare interpreter takes %s ms from start to end." % took)
    return result
