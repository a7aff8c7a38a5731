"""Whether a backlog is felt: the first record of a later start, and recording, with up to 100,000 records waiting."""

from __future__ import annotations

from collections.abc import Callable

from . import measure
from .cold import BARE
from .measure import Aim, Context, Figure, Result, Table
from .warm import LOOP

PENDING = (0, 1_000, 100_000)
CALLS = 100
# Noise of one measurement; what grows with a hundred thousand records would be far beyond.
GROWTH = 1.25

STARTED = measure.ours(measure.PRODUCT + """
telemetry = product(sys.argv[1], max_records=int(sys.argv[2]) + 100_000, max_bytes=1_000_000_000)
assert telemetry.call_home()
mark()
tell()
""")
RECORDING = measure.ours(measure.PRODUCT + LOOP + """
telemetry = product(sys.argv[1], max_records=int(sys.argv[2]) + 100_000, max_bytes=1_000_000_000, start_delay_s=3600)
telemetry.call_home()
told["times"] = loop({"raw": raw, "ours": lambda: telemetry.record_text("opengl", data_group="renderer")},
                     int(sys.argv[3]))
tell()
""")


def group(context: Context) -> Result:
    starts: dict[str, Callable[[], measure.Run]] = {"bare": lambda: measure.run(BARE)}
    records: dict[str, Callable[[], measure.Run]] = {}
    for n in PENDING:
        name = "{:,} pending".format(n)
        context.say("startup: a spool with " + name)
        state = context.directory("kept") / "state"
        measure.fill(state, n)
        starts[name] = _run(STARTED, str(state), n)
        records[name] = _run(RECORDING, str(state), n)
    rounds = context.rounds if context.rounds < 5 else 3 * context.rounds
    context.say("startup: %d rounds" % rounds)
    result = _starting(measure.in_turns(starts, rounds))
    result.tables.append(_recording(measure.in_turns(records, max(1, context.rounds // 2)), result))
    return result


def _run(source: str, state: str, n: int) -> Callable[[], measure.Run]:
    return lambda: measure.run(source, state, n, CALLS)


def _starting(found: dict[str, list[measure.Run]]) -> Result:
    bare = found.pop("bare")
    table = Table(
        "A later start's first durable record, over a bare interpreter",
        ["ms to the record", "ms to the end of the process", "times nothing pending"],
    )
    marks = {
        name: measure.over([run.marks[0] for run in runs], [run.marks[0] for run in bare])
        for name, runs in found.items()
    }
    share = 1.0
    for name, runs in found.items():
        ends = measure.over([run.took_s for run in runs], [run.took_s for run in bare])
        share = measure.ratio(marks[name], marks["0 pending"])
        table.add(
            name,
            Figure.of([1e3 * taken for taken in marks[name]], "ms"),
            Figure.of([1e3 * taken for taken in ends], "ms"),
            "%.2f" % share,
        )
    return Result([table], [Aim("start-up with 100,000 pending, beside none", share, GROWTH)])


def _recording(found: dict[str, list[measure.Run]], result: Result) -> Table:
    """Each beside the raw writes of its own process: what the disk does meanwhile is the same for both."""
    table = Table("record_text() once started", ["p50 us", "times raw, p50", "of nothing pending"])
    base = share = 0.0
    for name, runs in found.items():
        raws = [measure.quantile(run.told["times"]["raw"], 0.5) for run in runs]
        times = [measure.quantile(run.told["times"]["ours"], 0.5) for run in runs]
        beside = measure.ratio(times, raws)
        base = base or beside
        share = beside / base
        table.add(name, Figure.of([1e6 * t for t in times], "us"), "%.2f" % beside, "%.2f" % share)
    result.aims.append(Aim("recording with 100,000 pending, beside none", share, GROWTH))
    return table
