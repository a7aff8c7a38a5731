"""What importing costs the host: time over a bare interpreter, modules, memory.

Importing this package loads one module; the others come when a name is used. The rows below it say what that costs,
so that nothing hides behind laziness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from . import measure
from .measure import Aim, Context, Figure, Result, Table
from .peers import PEERS

# Modules from site-packages, the peer's own top-level package left out.
FACTS = """
others = [name for name, module in list(sys.modules.items())
          if "site-packages" in str(getattr(module, "__file__", None) or "") and name.partition(".")[0] != %r]
told["modules"], told["others"] = len(sys.modules), len(others)
import os
try:
    told["rss"] = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1048576
except OSError:
    told["rss"] = 0.0
"""
OURS = {
    "agent": "import agent",
    "agent, its names used": "import agent; agent.Agent, agent.Config, agent.GetKeyManager",
}
LIGHTEST_SHARE = 0.1


def group(context: Context) -> Result:
    """One table; ours first."""
    table = Table(
        "Import, over a bare interpreter", ["ms", "modules", "third-party modules", "resident MB"]
    )
    bench = measure.site_directories()
    sources = {"bare": ("", bench, "pass")}
    sources.update(
        {name: ("agent", [str(measure.ROOT), *bench], code) for name, code in OURS.items()}
    )
    for name, peer in PEERS.items():
        if peer.code and name in context.peers:
            sources[name] = (
                peer.code.split()[1].partition(".")[0],
                [str(context.peers[name])],
                peer.code,
            )
    works: dict[str, Callable[[], float]] = {}
    told, missing = {}, dict(context.missing)
    for name, (own, paths, code) in sources.items():
        context.say("import: %s" % name)
        try:  # this also has the files read and compiled
            told[name] = measure.run(measure.program(code + FACTS % own + "tell()", paths)).told
        except RuntimeError as error:
            missing[name] = str(error).splitlines()[-1]
        else:
            works[name] = _timed(measure.program(code + "\nmark()\ntell()", paths))
    found = measure.in_turns(works, context.rounds)
    bare, base = told.pop("bare"), found.pop("bare")
    for name, times in found.items():
        table.add(
            name,
            Figure.of([1e3 * time for time in measure.over(times, base)], "ms"),
            told[name]["modules"] - bare["modules"],
            told[name]["others"],
            Figure.of([told[name]["rss"] - bare["rss"]], "MB"),
        )
    for name, why in missing.items():
        if PEERS[name].code:
            table.notes.append("%s was not measured: %s" % (name, why))
    return Result([table], list(_aims(table)))


def _timed(source: str) -> Callable[[], float]:
    return lambda: measure.run(source).marks[0]


def _aims(table: Table) -> Iterator[Aim]:
    cost = table.rows["agent"][0].median
    peers = {name: row[0].median for name, row in table.rows.items() if name not in OURS}
    if peers:
        lightest = min(peers, key=lambda name: peers[name])
        share = max(cost, 0.0) / peers[lightest]
        yield Aim("import, beside the lightest peer (%s)" % lightest, share, LIGHTEST_SHARE)
    yield Aim("third-party modules that importing loads", float(table.rows["agent"][2]), 0, "")
