"""What the host notices: a busy main thread, and a simulated GUI event loop.

The GUI wakes every 5 ms; its latency is how late it wakes. The worker begins a second after the first record, loads
what it sends with, and delivers, all in the background: the price is the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from . import measure
from .measure import Aim, Context, Result, Table
from .servers import collector, silent

SECONDS = 5.0
PENDING = 1_000
TICK_SHARE = 1.1

SETUP = """
import time
process, thread = time.process_time(), time.thread_time()
if sys.argv[1]:
    telemetry = product(*sys.argv[1:4])
    telemetry.call_home()
seconds = float(sys.argv[4])
def end():
    told["others_ms"] = 1e3 * (time.process_time() - process - (time.thread_time() - thread))
    tell()
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
    late.append((due - start, 1e3 * (_clock() - due)))
    for number in range(2000):  # what a tick does: a tenth of a millisecond
        number * number
    due = max(due + TICK_S, _clock())
told["late"] = late
end()
""")
WITHOUT = "without the agent"


def group(context: Context) -> Result:
    rounds = 1 + context.rounds // 5
    kept = context.filled(PENDING)
    context.say("interference: %d rounds of %g s for each of 8 programs" % (rounds, SECONDS))
    with collector() as up, silent() as black:
        # Other settings of the same endpoint: the records of the backlog name the endpoint, not the address.
        scenes: dict[str, Callable[[], tuple[Any, ...]]] = {
            WITHOUT: lambda: ("", "", ""),
            "one record, server up": lambda: (context.state(), up.url, up.pem),
            "{:,} pending, server up".format(PENDING): lambda: (context.copy(kept), up.url, up.pem),
            "one record, black hole": lambda: (context.state(), "http://127.0.0.1:%d" % black, ""),
        }

        def go(source: str, scene: Callable[[], tuple[Any, ...]]) -> dict[str, Any]:
            return measure.run(source, *scene(), SECONDS).told

        busy, gui = (
            measure.in_turns({n: partial(go, source, s) for n, s in scenes.items()}, rounds)
            for source in (BUSY, GUI)
        )
    return Result([_busy(busy), table := _gui(gui)], _aims(table))


def _busy(found: dict[str, list[dict[str, Any]]]) -> Table:
    table = Table(
        "A busy main thread, %g s from call_home() on" % SECONDS,
        ["units of work per s", "of without", "longest unit, ms", "CPU of other threads, ms"],
    )
    rates = {name: [run["rate"] for run in runs] for name, runs in found.items()}
    for name, runs in found.items():
        share = "%.3f" % measure.ratio(rates[name], rates[WITHOUT])
        slowest = [1e3 * run["slowest"] for run in runs]
        table.add(name, rates[name], share, slowest, [run["others_ms"] for run in runs])
    table.notes.append("CPU of other threads: the agent's, whatever else the machine did.")
    return table


def _gui(found: dict[str, list[dict[str, Any]]]) -> Table:
    table = Table(
        "A GUI that wakes every 5 ms, %g s from call_home() on: how late it wakes" % SECONDS,
        ["p50 ms", "p99 ms", "worst ms", "worst of the first 100 ms", "p99, of without"],
    )
    base: list[float] = []
    for name, runs in found.items():
        steady = [[late for at, late in run["late"] if at > 0.1] for run in runs]
        early = [max((late for at, late in run["late"] if at <= 0.1), default=0.0) for run in runs]
        p50, p99 = ([measure.quantile(v, share) for v in steady] for share in (0.5, 0.99))
        base = base or p99
        share = "%.2f" % measure.ratio(p99, base)
        table.add(name, p50, p99, [max(values) for values in steady], early, share)
    return table


def _aims(table: Table) -> list[Aim]:
    text = "GUI tick p99, %s, beside without"
    shares = {name: float(row[-1]) for name, row in table.rows.items() if name != WITHOUT}
    return [Aim(text % name, share, TICK_SHARE) for name, share in shares.items()]
