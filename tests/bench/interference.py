"""What the host notices: a simulated GUI event loop, which wakes every 5 ms; its latency is how late it wakes.

The worker begins a second after the first record, loads what it sends with, and delivers, all in the background: the
price is the interpreter's lock.
"""

from collections.abc import Callable
from typing import Any

from . import measure
from .measure import Aim, Context, Result, Table
from .servers import collector, silent

SECONDS = 5.0
PENDING = 1_000
TICK_SHARE = 1.1

GUI = measure.ours("""
import os, time
process, thread = time.process_time(), time.thread_time()
if sys.argv[1]:
    telemetry = product(*sys.argv[1:4])
    telemetry.call_home()
TICK_S = 0.005
start = _clock()
due, late = start + TICK_S, []
while due - start < float(sys.argv[4]):
    time.sleep(max(0.0, due - _clock()))
    late.append((due - start, 1e3 * (_clock() - due)))
    for number in range(2000):  # what a tick does: a tenth of a millisecond
        number * number
    due = max(due + TICK_S, _clock())
told["late"] = late
told["others_ms"] = 1e3 * (time.process_time() - process - (time.thread_time() - thread))
tell()
os._exit(0)  # the exit has its own group
""")
WITHOUT = "without the agent"


def group(context: Context) -> Result:
    rounds = 1 + context.rounds // 5
    kept = context.filled(PENDING)
    context.say("interference: %d rounds of %g s for each of 4 programs" % (rounds, SECONDS))
    with collector() as up, silent() as black:

        def scene(*given: Any, state: Callable[[], Any] = context.state) -> Callable[[], Any]:
            return lambda: measure.run(GUI, state(), *given, SECONDS).told

        # Other settings of the same endpoint: the records of the backlog name the endpoint, not the address.
        scenes: dict[str, Callable[[], Any]] = {
            WITHOUT: scene("", "", state=str),
            "one record, server up": scene(up.url, up.pem),
            "{:,} pending, server up".format(PENDING): scene(
                up.url, up.pem, state=lambda: context.copy(kept)
            ),
            "one record, black hole": scene("http://127.0.0.1:%d" % black, ""),
        }
        found = measure.in_turns(scenes, rounds)
    table = Table(
        "A GUI that wakes every 5 ms, %g s from call_home() on: how late it wakes" % SECONDS,
        [
            "p50 ms",
            "p99 ms",
            "worst ms",
            "worst of the first 100 ms",
            "CPU of others, ms",
            "p99, of without",
        ],
    )
    result, base = Result([table]), list[float]()
    for name, runs in found.items():
        steady = [[late for at, late in run["late"] if at > 0.1] for run in runs]
        early = [max((late for at, late in run["late"] if at <= 0.1), default=0.0) for run in runs]
        p50, p99 = ([measure.quantile(v, share) for v in steady] for share in (0.5, 0.99))
        base = base or p99
        share, others = measure.ratio(p99, base), [run["others_ms"] for run in runs]
        table.add(name, p50, p99, [max(values) for values in steady], early, others, "%.2f" % share)
        if name != WITHOUT:
            text = "GUI tick p99, %s, beside without" % name
            result.aims.append(Aim(text, share, TICK_SHARE))
    return result
