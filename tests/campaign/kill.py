"""SIGKILL at random moments: to writers, to deliverers, and to the collector that they deliver to.

Up to sixteen processes of up to four threads record, count, flush, fork and end in every way there is, while the
collector dies, stalls, refuses and drops the answers to what it took in. "Recorded" is what a call returned an id for.
When all have ended one healthy process delivers what is left. Then each record must have arrived, as it was recorded;
of each that arrived twice the cause must be in the logs: an answer that was lost, or a sender that ended while it
waited for one. Needs ``fork``.
"""

import json
import os
import random
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Optional

from agent.collector import Collector

from . import report
from .kill_account import Account
from .processes import Child

ROUNDS = 1000
SHORT_ROUNDS = 20  # so many, or fewer, are small ones
LANES = 3  # rounds at a time: most of one is waiting


def plan(rng: random.Random, *, small: bool) -> dict[str, Any]:
    """One round: who starts when, whom it hits, how healthy the collector is."""
    most, ends_s = (5, 0.25) if small else (16, 0.8)
    timeouts_s = (0.1, 0.3) if small else (0.2, 0.5, 2.0)
    processes: list[dict[str, Any]] = []
    for _ in range(rng.randint(1, most)):
        settings = {
            "deliver": rng.choice(("thread", "thread", "manual")),
            "durability": rng.choice(("power", "process")),
            "request_timeout_s": rng.choice(timeouts_s),
        }
        writer = {
            "role": "write",
            "at_s": rng.uniform(0, ends_s / 2),
            "threads": [rng.randrange(1 << 30) for _ in range(rng.randint(1, 4))],
            "records": rng.randint(1, 20 if rng.random() < 0.3 else 8),
            "forks": rng.choice((0, 0, 0.02)),
            "rest_s": rng.uniform(0, 0.1),
            "end": rng.choice(("close", "close", "close early", "exit", "abrupt", "linger")),
        }
        processes.append({**writer, "settings": settings})
    for _ in range(rng.randint(0, 2 if small else 5)):
        deliverer = {
            "role": "deliver",
            "at_s": rng.uniform(0, ends_s),
            "seed": rng.randrange(1 << 30),
            "for_s": rng.uniform(0.05, ends_s),
        }
        settings = {
            "deliver": rng.choice(("thread", "manual")),
            "request_timeout_s": rng.choice(timeouts_s),
        }
        processes.append({**deliverer, "settings": settings})
    moments = [rng.uniform(0.01, ends_s) for _ in range(rng.randint(0, len(processes)))]
    deaths = [(rng.uniform(0, ends_s), rng.uniform(0, 0.1)) for _ in range(rng.randint(0, 3))]
    stops = [
        (rng.uniform(0, ends_s), rng.uniform(0.01, ends_s / 3)) for _ in range(rng.randint(0, 2))
    ]
    seeds = [rng.randrange(1 << 30) for _ in range(len(deaths) + 1)]
    return {
        "processes": processes,
        "kills": [(at_s, rng.random(), rng.random() < 0.4) for at_s in moments],
        "collector": {"deaths": deaths, "stops": stops, "seeds": seeds},
        "ends_s": ends_s,
    }


class Zygote(Child):
    """The prepared process that plays rounds; see ``kill_zygote``."""

    def end(self) -> None:
        """With all that it started and that still lives."""
        os.killpg(self.process.pid, signal.SIGKILL)
        super().end()


class Lane:
    """Rounds one after the other, beside other lanes; a state directory serves for some of them."""

    def __init__(self, number: int, zygote: Zygote, *, seed: int, small: bool, work: Path) -> None:
        self._rng = random.Random("%d agent %d" % (seed, number))
        self._seed, self._small, self._work = seed, small, work
        self._zygote = zygote
        self._account = Account()
        self._state: Optional[Path] = None
        self._left = 0  # rounds for which the state directory is kept on
        self._settings: dict[str, Any] = {}
        # Published test keys, the same for every collector.
        self._keys = {name: Collector(algorithm=name).keys for name in ("rsa", "ed25519")}

    def round(self, number: int) -> tuple[int, report.Row]:
        """Play one round and judge it."""
        place = self._work / ("round-%d" % number)
        (place / "logs").mkdir(parents=True)
        told = self._plan(place)
        (place / "plan.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
        result = self._zygote.ask(json.dumps(told))
        row = self._account.round(place / "logs", result["statuses"])
        row.breaks(not row.figures.pop("drained", ()), "the drain did not end")
        row.broken += ["process %d hung" % pid for pid in result["hung"]]
        for printed in place.glob("stderr*"):
            text = printed.read_text(encoding="utf-8", errors="replace")
            loud = "Traceback" in text or (text and printed.name == "stderr")
            row.breaks(loud, "printed: " + text)
        if row.broken:
            kept = self._work.parent / ("kill-%d-%s" % (self._seed, place.name))
            shutil.copytree(place, kept, dirs_exist_ok=True)
            (kept / "failed").write_text("\n".join(row.broken) + "\n", encoding="utf-8")
            what = (number, kept, len(row.broken), row.broken[0][-300:])
            row.broken = ["round %d, see %s: %d, the first: %s" % what]
        shutil.rmtree(place)
        return number, row

    def _plan(self, place: Path) -> dict[str, Any]:
        rng = self._rng
        if self._state is None or not self._left:
            if self._state is not None:
                shutil.rmtree(self._state)
            self._state = self._work / (place.name + "-state")
            self._state.mkdir(mode=0o700)
            self._account = Account()
            self._left = rng.choice((1, 1, 2, 3, 8))
            self._settings = {"max_bytes": rng.choice((1_000_000, 10_000_000))}
        self._left -= 1
        algorithm = rng.choice(("rsa", "ed25519"))
        told = plan(rng, small=self._small)
        for process in told["processes"]:
            process["settings"].update(self._settings)
            if sys.platform != "linux":  # a zygote cannot adopt those whose parent was killed
                process["forks"] = 0
        paths = {name: str(place / name) for name in ("logs", "before", "stderr")}
        return {
            **told,
            **paths,
            "state": str(self._state),
            "settings": {"deliver": "thread", **self._settings},
            "algorithm": algorithm,
            "keys": self._keys[algorithm],
        }


def run(*, rounds: int, seed: int, progress: report.Progress, work: Path) -> list[report.Row]:
    """One row: all rounds."""
    total = report.Row("SIGKILL")
    # In this order: when something goes wrong here, the lanes end with their zygotes.
    with ThreadPoolExecutor(LANES) as pool, ExitStack() as ending:
        # One of the full form leaves loading to its children, who fork in the middle of it.
        small = rounds <= SHORT_ROUNDS
        loads = [small or bool(number) for number in range(LANES)]
        zygotes = [Zygote("kill_zygote", "serve", loaded=loaded) for loaded in loads]
        for zygote in zygotes:
            ending.callback(zygote.end)
        lanes = [
            Lane(number, zygote, seed=seed, small=small, work=work)
            for number, zygote in enumerate(zygotes)
        ]
        for first in range(1, rounds + 1, LANES):
            numbers = range(first, min(first + LANES, rounds + 1))
            for number, row in pool.map(Lane.round, lanes, numbers):
                total.add(row)
                for what in row.broken:
                    progress.say(what)
                progress.step("kill", number, rounds)
    return [total]
