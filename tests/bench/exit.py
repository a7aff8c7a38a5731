"""How long the end of a program takes while something is being sent, whatever the server does.

A program records one event, gives the worker time to be in the middle of sending it, and ends. The exit is what passes
from its last statement to the end of the process. The peers do the same, each with its own defaults.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from . import measure, servers
from .measure import Aim, Context, Figure, Result, Table
from .peers import PEERS

EXIT_TIMEOUT_S = 0.25
SPARE_S = 0.05
HOLES = (
    "server accepts, never answers",
    "server drops every SYN",
    "server drips",
    "resolver silent",
)
SETTLED_S = 0.7  # loading what it sends with takes 0.1 s
PEER_LIMIT_S = 20.0
PENDING = 3_000  # takes longer than SETTLED_S

AGENT = measure.ours(measure.PRODUCT + """
import socket, time
if sys.argv[2] == "resolver":
    socket.getaddrinfo = lambda *given, **named: time.sleep(600)
telemetry = product(sys.argv[1], sys.argv[3], keys=(agent.PublicKey.from_pem(sys.argv[4]),) if sys.argv[4] else (),
                    start_delay_s=float(sys.argv[5]), exit_timeout_s=%r)
assert telemetry.call_home()
time.sleep(%r if not float(sys.argv[5]) else 0)
mark()
tell()
""" % (EXIT_TIMEOUT_S, SETTLED_S))
BARE = measure.program("import time\ntime.sleep(0.05)\nmark()\ntell()", measure.site_directories())
# Taking apart what is loaded for sending takes the interpreter a while too.
LOADED = measure.ours("import urllib3, nacl.signing, time\ntime.sleep(0.05)\nmark()\ntell()")
PEER = """
port = int(sys.argv[1])
%s
mark()
%s
tell()
"""


def group(context: Context) -> Result:
    rounds = max(1, context.rounds // 2)
    with contextlib.ExitStack() as stack:
        up = stack.enter_context(servers.collector())
        ports = {
            "refuses": stack.enter_context(servers.refusing()),
            "accepts, never answers": stack.enter_context(servers.silent()),
            "drops every SYN": stack.enter_context(servers.dropping()),
            "drips": stack.enter_context(servers.dripping()),
        }

        kept = context.directory("kept") / "state"
        measure.fill(kept, PENDING)

        def ours(
            kind: str, url: str, pem: str = "", delay_s: float = 0.0, pending: bool = False
        ) -> Callable[[], float]:
            def work() -> float:
                state = context.directory("exit") / "state"
                if pending:
                    measure.copy(kept, state)
                return measure.run(AGENT, state, kind, url, pem, delay_s).after_s

            return work

        works: dict[str, Callable[[], float]] = {
            "bare interpreter": lambda: measure.run(BARE).after_s,
            "bare, urllib3 and PyNaCl loaded": lambda: measure.run(LOADED).after_s,
            "server up, at once": ours("up", up.url, up.pem, 1.0),
            "server up, delivered": ours("up", up.url, up.pem),
            "server up, in a replay": ours("up", up.url, up.pem, pending=True),
        }
        for name, port in ports.items():
            works["server " + name] = ours("port", "http://127.0.0.1:%d" % port)
        works["resolver silent"] = ours("resolver", "https://keys.acme.example")
        context.say("exit: %d scenes, %d rounds" % (len(works), rounds))
        found = measure.in_turns(works, rounds)
        told = _peers(context, ports["accepts, never answers"])
    return _result(found, told)


def _result(found: dict[str, list[float]], told: dict[str, str]) -> Result:
    table = Table("Exit with exit_timeout_s=%g" % EXIT_TIMEOUT_S, ["ms", "worst ms"])
    for name, values in found.items():
        table.add(
            name,
            Figure.of([1e3 * value for value in values], "ms"),
            Figure.of([1e3 * max(values)], "ms"),
        )
    medians = {name: statistics.median(found[name]) for name in HOLES}
    slowest = max(medians, key=lambda name: medians[name])
    bound_ms = 1e3 * (EXIT_TIMEOUT_S + SPARE_S)
    text = "exit behind the worst black hole (%s)" % slowest
    result = Result([table], [Aim(text, 1e3 * medians[slowest], bound_ms, "ms")])
    if told:
        others = Table(
            "Recording one event and ending, behind a server that accepts and never answers",
            ["seconds"],
        )
        ours = Figure.of(found["server accepts, never answers"], "s")
        others.add("agent", ours)
        for name, text in told.items():
            others.add(name, text)
        others.notes.append(
            "Peers with their defaults, from the recording call to the end of the process, one run each, ended after "
            "%g s." % PEER_LIMIT_S
        )
        result.tables.append(others)
    return result


def _peers(context: Context, port: int) -> dict[str, str]:
    names = [name for name, peer in PEERS.items() if peer.record and name in context.peers]
    if names:
        context.say("exit: %d peers, up to %g s" % (len(names), PEER_LIMIT_S))

    def work(name: str) -> str:
        peer = PEERS[name]
        source = measure.program(PEER % (peer.code, peer.record), [context.peers[name]])
        try:
            return "%.2f" % measure.run(source, port, limit_s=PEER_LIMIT_S).after_s
        except subprocess.TimeoutExpired:
            return "over %g" % PEER_LIMIT_S
        except RuntimeError as error:
            return "failed: " + str(error).splitlines()[-1][:60]

    with ThreadPoolExecutor(max(1, len(names))) as pool:  # they only wait
        return dict(zip(names, pool.map(work, names)))
