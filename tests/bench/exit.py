"""How long the end of a program takes while something is being sent, whatever the server does.

A program records one event, gives the worker time to be in the middle of sending it, and ends. The exit is what passes
from its last statement to the end of the process.
"""

import contextlib
from collections.abc import Callable

from . import measure, servers
from .measure import Aim, Context, Result, Table

EXIT_TIMEOUT_S = 0.25
WORST_MS = 332.0
SETTLED_S = 0.7  # loading what it sends with takes 0.1 s
PENDING = 3_000  # takes longer than SETTLED_S

AGENT = measure.ours("""
import socket, time
state, kind, url, pem, delay_s = *sys.argv[1:5], float(sys.argv[5])
if kind == "resolver":
    socket.getaddrinfo = lambda *given, **named: time.sleep(600)
telemetry = product(state, url, pem, start_delay_s=delay_s, exit_timeout_s=%r)
assert telemetry.call_home()
time.sleep(0 if delay_s else %r)
mark()
tell()
""" % (EXIT_TIMEOUT_S, SETTLED_S))
BARE = measure.program("import time\ntime.sleep(0.05)\nmark()\ntell()")
# Taking apart what is loaded for sending takes the interpreter a while too.
LOADED = measure.ours("import urllib3, nacl.signing, time\ntime.sleep(0.05)\nmark()\ntell()")


def group(context: Context) -> Result:
    rounds = max(1, context.rounds // 2)
    kept = context.filled(PENDING)

    def ours(
        kind: str, url: str, pem: str = "", delay_s: float = 0.0, pending: bool = False
    ) -> Callable[[], float]:
        def work() -> float:
            state = context.copy(kept) if pending else context.state()
            return measure.run(AGENT, state, kind, url, pem, delay_s).after_s

        return work

    with contextlib.ExitStack() as stack:
        up = stack.enter_context(servers.collector())
        works: dict[str, Callable[[], float]] = {
            "bare interpreter": lambda: measure.run(BARE).after_s,
            "bare, urllib3 and PyNaCl loaded": lambda: measure.run(LOADED).after_s,
            "server up, at once": ours("up", up.url, up.pem, 1.0),
            "server up, delivered": ours("up", up.url, up.pem),
            "server up, in a replay": ours("up", up.url, up.pem, pending=True),
        }
        for name, serve in servers.HOLES.items():
            port = stack.enter_context(serve())
            works[name] = ours("port", "http://127.0.0.1:%d" % port)
        works["resolver silent"] = ours("resolver", "https://keys.acme.example")
        context.say("exit: %d scenes, %d rounds" % (len(works), rounds))
        found = measure.in_turns(works, rounds)
    table = Table("Exit with exit_timeout_s=%g" % EXIT_TIMEOUT_S, ["ms", "worst ms"])
    for name, values in found.items():
        table.add(name, [1e3 * value for value in values], [1e3 * max(values)])
    worst = {name: max(found[name]) for name in (*servers.HOLES, "resolver silent")}
    slowest = max(worst, key=lambda name: worst[name])
    text = "the longest exit behind any black hole (%s)" % slowest
    return Result([table], [Aim(text, 1e3 * worst[slowest], WORST_MS, "ms")])
