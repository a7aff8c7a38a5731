"""What the host notices in the first seconds after call_home(): a busy main thread, and a simulated GUI event loop.

The GUI wakes every 5 ms; its latency is how late it wakes. The worker begins a second after the first record, loads
what it sends with, and delivers, all in the background: the price is the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Callable

from . import measure
from .measure import Aim, Context, Figure, Result, Table
from .servers import collector, silent

SECONDS = 5.0
PENDING = 1_000
TICK_SHARE = 1.1

SETUP = measure.PRODUCT + """
import time
process, thread = time.process_time(), time.thread_time()
if sys.argv[1]:
    telemetry = product(sys.argv[1], sys.argv[2], keys=(agent.PublicKey.from_pem(sys.argv[3]),) if sys.argv[3] else ())
    telemetry.call_home()
seconds = float(sys.argv[4])
def end():
    told["others_ms"] = 1e3 * (time.process_time() - process - (time.thread_time() - thread))
    tell()
    sys.stdout.flush()
    import os; os._exit(0)  # the exit has its own group
"""
BUSY = measure.ours(SETUP + """
def unit():
    total = 0
    for number in range(2000):
        total += number * number
    return total
start = _clock()
done, slowest, last = 0, 0.0, start
while last - start < seconds:
    unit()
    now = _clock()
    slowest = max(slowest, now - last)
    last = now
    done += 1
told["rate"], told["slowest"] = done / (last - start), slowest
end()
""")
GUI = measure.ours(SETUP + """
TICK_S = 0.005
start = _clock()
due, late = start + TICK_S, []
while due - start < seconds:
    time.sleep(max(0.0, due - _clock()))
    late.append((due - start, _clock() - due))
    for number in range(2000):  # what a tick does: a tenth of a millisecond
        number * number
    due = max(due + TICK_S, _clock())
told["late"] = late
end()
""")


def group(context: Context) -> Result:
    rounds = 1 + context.rounds // 5
    kept = context.directory("kept") / "state"
    measure.fill(kept, PENDING)
    context.say("interference: %d rounds of %g s for each of 8 programs" % (rounds, SECONDS))
    with collector() as up, silent() as black:
        hole = "http://127.0.0.1:%d" % black

        def state() -> str:
            return str(context.directory("state") / "state")

        def backlog() -> str:
            return str(measure.copy(kept, context.directory("state") / "state"))

        def works(source: str) -> dict[str, Callable[[], measure.Run]]:
            def go(*given: object) -> measure.Run:
                return measure.run(source, *given, SECONDS)

            return {
                "without the agent": lambda: go("", "", ""),
                "one record, server up": lambda: go(state(), up.url, up.pem),
                "{:,} pending, server up".format(PENDING): lambda: go(backlog(), up.url, up.pem),
                "one record, black hole": lambda: go(state(), hole, ""),
            }

        # Other settings of the same endpoint: the records of the backlog name the endpoint, not the address.
        busy = measure.in_turns(works(BUSY), rounds)
        gui = measure.in_turns(works(GUI), rounds)
    result = Result([_busy(busy)])
    table, aims = _gui(gui)
    result.tables.append(table)
    result.aims += aims
    return result


def _busy(found: dict[str, list[measure.Run]]) -> Table:
    table = Table(
        "A busy main thread, %g s from call_home() on" % SECONDS,
        ["units of work per s", "of without", "longest unit, ms", "CPU of other threads, ms"],
    )
    rates = {name: [run.told["rate"] for run in runs] for name, runs in found.items()}
    for name, runs in found.items():
        table.add(
            name,
            Figure.of(rates[name], "1/s"),
            "%.3f" % measure.ratio(rates[name], rates["without the agent"]),
            Figure.of([1e3 * run.told["slowest"] for run in runs], "ms"),
            Figure.of([run.told["others_ms"] for run in runs], "ms"),
        )
    table.notes.append(
        "CPU of other threads is what the agent took in those %g s, whatever else the machine did."
        % SECONDS
    )
    return table


def _gui(found: dict[str, list[measure.Run]]) -> tuple[Table, list[Aim]]:
    table = Table(
        "A GUI that wakes every 5 ms, %g s from call_home() on: how late it wakes" % SECONDS,
        ["p50 ms", "p99 ms", "worst ms", "worst of the first 100 ms", "p99, of without"],
    )
    aims = []
    base: list[float] = []
    for name, runs in found.items():
        steady = [[1e3 * late for at, late in run.told["late"] if at > 0.1] for run in runs]
        early = [[1e3 * late for at, late in run.told["late"] if at <= 0.1] for run in runs]
        p99 = [measure.quantile(values, 0.99) for values in steady]
        base = base or p99
        share = measure.ratio(p99, base)
        table.add(
            name,
            Figure.of([measure.quantile(values, 0.5) for values in steady], "ms"),
            Figure.of(p99, "ms"),
            Figure.of([max(values) for values in steady], "ms"),
            Figure.of([max(values, default=0.0) for values in early], "ms"),
            "%.2f" % share,
        )
        if name != "without the agent":
            aims.append(Aim("GUI tick p99, %s, beside without" % name, share, TICK_SHARE))
    return table, aims
