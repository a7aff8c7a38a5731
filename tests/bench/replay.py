"""How fast a backlog is delivered, beside bare loops that only post: nothing read, verified, settled or survived.

All post the same bytes to the same server, the bundled collector in a process of its own, in turns. Ours reads each
record from the spool, judges the signed answer (RSA-2048) and writes down what came of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import measure
from .measure import Aim, Context, Figure, Result, Table
from .servers import Server, collector

ROUND_TRIPS = {0.0: 1000, 0.02: 60, 0.1: 15}  # seconds: records
SHARE_OF_URLLIB3 = 0.8
LARGE = 100_000

AGENT = measure.ours(measure.PRODUCT + """
n = int(sys.argv[2])
key = agent.PublicKey.from_pem(sys.argv[4])
telemetry = product(sys.argv[1], sys.argv[3], keys=(key,), deliver="manual",
                    max_records=n + 1000, max_bytes=(n + 1000) * 2000)
%s
mark()
report = telemetry.flush(timeout=900)
mark()
assert report.drained and report.delivered >= n, report
told["status"] = open("/proc/self/status").read() if sys.platform == "linux" else ""
tell()
""")
# The libraries are loaded and a connection is open before the clock starts, as for the bare loops.
WARM = """
import urllib3, nacl.signing, agent.transport, agent.delivery, agent.flushing
"""
BODY = """
request = product(sys.argv[1], sys.argv[3], deliver="manual").preview()[0]
url, headers, body = request["url"], request["headers"], request["body"]
for name in ("api_key", "license_key"):  # a preview masks them
    body = body.replace("%s=****" % name, "%s=demo-%s" % (name, name.replace("_", "-")))
body = body.encode()
n = int(sys.argv[2])
"""
URLLIB3 = measure.ours(measure.PRODUCT + BODY + """
import urllib3
pool = urllib3.PoolManager()
def post():
    answer = pool.request("POST", url, body=body, headers=headers, retries=False)
    assert answer.status == 200 and b'"code":830,' in answer.data, answer.data
post()
mark()
for _ in range(n):
    post()
mark()
tell()
""")
HTTP_CLIENT = measure.ours(measure.PRODUCT + BODY + """
import http.client
from urllib.parse import urlsplit
parts = urlsplit(url)
connection = http.client.HTTPConnection(parts.hostname, parts.port)
def post():
    connection.request("POST", parts.path, body, headers)
    answer = connection.getresponse()
    assert answer.status == 200 and b'"code":830,' in answer.read()
post()
mark()
for _ in range(n):
    post()
mark()
tell()
""")


def rate(run: measure.Run, n: int) -> float:
    return n / (run.marks[-1] - run.marks[-2])


def _works(context: Context, server: Server, kept: Path, n: int) -> dict[str, Callable[[], float]]:
    def ours(warm: str) -> Callable[[], float]:
        def work() -> float:
            state = measure.copy(kept, context.directory("replay") / "state")
            return rate(measure.run(AGENT % warm, state, n, server.url, server.pem), n)

        return work

    def bare(source: str) -> Callable[[], float]:
        return lambda: rate(measure.run(source, kept, n, server.url, server.pem), n)

    return {
        "agent": ours(WARM),
        "agent, loading included": ours(""),
        "urllib3, keep-alive": bare(URLLIB3),
        "http.client, keep-alive": bare(HTTP_CLIENT),
    }


def group(context: Context) -> Result:
    result = Result()
    rounds = max(1, context.rounds // 2)
    table = Table(
        "Replay: records per second, from the spool to verified and settled",
        ["records/s", "times urllib3"],
    )
    for delay_s, n in ROUND_TRIPS.items():
        context.say("replay: %d records, %g ms added" % (n, 1e3 * delay_s))
        kept = context.directory("kept") / "state"
        with collector(delay_s) as server:
            measure.fill(kept, n, server.url)
            # Where waiting is nearly everything, little varies.
            turns = min(rounds, 3) if delay_s else rounds
            found = measure.in_turns(_works(context, server, kept, n), turns)
        bare = found["urllib3, keep-alive"]
        for name, rates in found.items():
            share = measure.ratio(rates, bare)
            table.add(
                "%s, %g ms added" % (name, 1e3 * delay_s),
                Figure.of(rates, "1/s"),
                "%.2f" % share,
            )
            if name == "agent":
                text = "replay with %g ms added, beside a bare urllib3 loop" % (1e3 * delay_s)
                result.aims.append(Aim(text, share, SHARE_OF_URLLIB3, at_least=True))
    result.tables.append(table)
    result.tables.append(large(context))
    return result


def large(context: Context) -> Table:
    """What a hundred thousand records cost in memory while they are replayed, beside a thousand."""
    table = Table(
        "Replay of a large backlog: one run each",
        ["records/s", "resident MB at most", "of it before the replay"],
    )
    for n in (1_000, LARGE):
        context.say("replay: {:,} records, memory".format(n))
        kept = context.directory("kept") / "state"
        with collector() as server:
            measure.fill(kept, n, server.url)
            run = measure.run(AGENT % MEMORY, kept, n, server.url, server.pem, limit_s=900)
        table.add(
            "{:,} records".format(n),
            Figure.of([rate(run, n)], "1/s"),
            Figure.of([_megabytes(run.told, "VmHWM")], "MB"),
            Figure.of([run.told["before"]], "MB"),
        )
    return table


MEMORY = WARM + """
told["before"] = int(open("/proc/self/statm").read().split()[1]) * 4096 / 1048576
"""


def _megabytes(told: dict[str, Any], name: str) -> float:
    for line in told["status"].splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    return float("nan")
