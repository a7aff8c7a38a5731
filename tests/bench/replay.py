"""How fast a backlog is delivered, beside a bare loop that only posts: nothing read, verified, settled or survived.

Both post the same bytes to the same server, the bundled collector in a process of its own, in turns. Ours reads each
record from the spool, judges the signed answer (RSA-2048) and writes down what came of it.
"""

from collections.abc import Callable

from . import measure
from .measure import Aim, Context, Result, Table
from .servers import Server, collector

ROUND_TRIPS = {0.0: 1000, 0.02: 60, 0.1: 15}  # seconds: records
SHARES = {0.0: 0.4, 0.02: 0.9, 0.1: 0.9}  # of what bare urllib3 does
BARE = "urllib3, keep-alive"

AGENT = measure.ours("""
n = int(sys.argv[2])
telemetry = product(sys.argv[1], sys.argv[3], sys.argv[4], deliver="manual",
                    max_records=n + 1000, max_bytes=(n + 1000) * 2000)
if sys.argv[5] == "warm":  # libraries loaded, as for the bare loops
    import urllib3, nacl.signing, agent.transport, agent.delivery
mark()
report = telemetry.flush(timeout=900)
mark()
assert report.drained and report.delivered >= n, report
tell()
""")
URLLIB3 = measure.ours("""
import urllib3
request = product(sys.argv[1], sys.argv[3], deliver="manual").preview()[0]
url, headers, body = request["url"], request["headers"], request["body"]
for name in ("api_key", "license_key"):  # a preview masks them
    body = body.replace("%s=****" % name, "%s=demo-%s" % (name, name.replace("_", "-")))
body = body.encode()
n = int(sys.argv[2])
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


def rate(run: measure.Run, n: int) -> float:
    return n / (run.marks[-1] - run.marks[-2])


def _works(context: Context, n: int, server: Server) -> dict[str, Callable[[], float]]:
    kept, given = context.filled(n, server.url), (n, server.url, server.pem)

    def ours(how: str) -> Callable[[], float]:
        return lambda: rate(measure.run(AGENT, context.copy(kept), *given, how), n)

    return {
        "agent": ours("warm"),
        "agent, loading included": ours("cold"),
        BARE: lambda: rate(measure.run(URLLIB3, kept, *given), n),
    }


def group(context: Context) -> Result:
    result = Result()
    rounds = max(1, context.rounds // 2)
    title = "Replay: records per second, from the spool to verified and settled"
    table = Table(title, ["records/s", "times urllib3"])
    for delay_s, n in ROUND_TRIPS.items():
        context.say("replay: %d records, %g ms added" % (n, 1e3 * delay_s))
        with collector(delay_s) as server:
            works = _works(context, n, server)
            # Where waiting is nearly everything, little varies.
            found = measure.in_turns(works, min(rounds, 3) if delay_s else rounds)
        for name, rates in found.items():
            share = measure.ratio(rates, found[BARE])
            table.add("%s, %g ms added" % (name, 1e3 * delay_s), rates, "%.2f" % share)
            if name == "agent":
                text = "replay with %g ms added, beside a bare urllib3 loop" % (1e3 * delay_s)
                result.aims.append(Aim(text, share, SHARES[delay_s], at_least=True))
    result.tables.append(table)
    return result
