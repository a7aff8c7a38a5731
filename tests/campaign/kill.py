"""SIGKILL at random moments: to writers, to deliverers, and to the collector that they deliver to.

Up to sixteen processes of up to four threads record, count, flush, fork and end in every way there is, while the
collector dies, stalls, refuses and drops the answers to what it took in. "Recorded" is what a call returned an id for.
When all have ended one healthy process delivers what is left. Then each record must have arrived, as it was recorded;
of each that arrived twice the cause must be in the logs: an answer that was lost, or a sender that ended while it
waited for one. Needs ``fork``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Optional

from agent.collector import Collector

from . import report, stores

ROUNDS = 1000
SHORT_ROUNDS = 20  # so many, or fewer, are small ones
PEER_ROUNDS = 20  # one round of each peer for so many of ours, two at least

LANES = 3  # rounds at a time: most of one is waiting

LOST, SPOILT, LATE = "answer lost", "answer unusable", "answer late"
KILLED, ENDED = "sender killed", "sender ended"
UNEXPLAINED = "unexplained"
# Answers that no client can use; of these the collector took the record in.
_SPOILT = ("truncated", "not-json", "drip-body", "drip-headers")


# -- what to do ---------------------------------------------------------------------------------------------------


def plan(rng: random.Random, *, small: bool, store: str) -> dict[str, Any]:
    """One round: who starts when, whom it hits, how healthy the collector is."""
    ours = store == report.AGENT
    most, ends_s = (5, 0.25) if small else (16, 0.8)
    timeouts_s = (0.1, 0.3) if small else (0.2, 0.5, 2.0)
    processes = []
    for _ in range(rng.randint(1, most)):
        processes.append(
            {
                "role": "write",
                "at_s": rng.uniform(0, ends_s / 2),
                "fresh": rng.random() < 0.02,
                "threads": [rng.randrange(1 << 30) for _ in range(rng.randint(1, 4))],
                "records": rng.randint(1, 20 if rng.random() < 0.3 else 8),
                "forks": rng.choice((0, 0, 0.02)) if ours else 0,
                "rest_s": rng.uniform(0, 0.1),
                "end": rng.choice(("close", "close", "close early", "exit", "abrupt", "linger")),
                "settings": {
                    "deliver": rng.choice(("thread", "thread", "manual")),
                    "durability": rng.choice(("power", "process")),
                    "request_timeout_s": rng.choice(timeouts_s),
                },
            }
        )
    for _ in range(rng.randint(0, 2 if small else 5)):
        processes.append(
            {
                "role": "deliver",
                "at_s": rng.uniform(0, ends_s),
                "fresh": rng.random() < 0.02,
                "seed": rng.randrange(1 << 30),
                "for_s": rng.uniform(0.05, ends_s),
                "way": rng.choice(("thread", "manual", "cli")),
                "settings": {"request_timeout_s": rng.choice(timeouts_s)},
            }
        )
    moments = [rng.uniform(0.01, ends_s) for _ in range(rng.randint(0, len(processes)))]
    deaths = [(rng.uniform(0, ends_s), rng.uniform(0, 0.1)) for _ in range(rng.randint(0, 3))]
    stops = [
        (rng.uniform(0, ends_s), rng.uniform(0.01, ends_s / 3)) for _ in range(rng.randint(0, 2))
    ]
    return {
        "processes": processes,
        "kills": [(at_s, rng.random(), rng.random() < 0.4) for at_s in moments],
        "collector": {
            "deaths": deaths,
            "stops": stops,
            "seeds": [rng.randrange(1 << 30) for _ in range(len(deaths) + 1)],
        },
        "ends_s": ends_s,
    }


class Zygote:
    """The prepared process that plays rounds; see ``kill_zygote``."""

    def __init__(self, *, loaded: bool) -> None:
        tests = Path(__file__).resolve().parents[1]
        code = (
            "import sys; sys.path[:0] = %r\n"
            "from campaign import kill_zygote; kill_zygote.zygote(loaded=%r)"
        )
        foreign = ("_PROXY", "DO_NOT_TRACK", "SSL_CERT_FILE", "SSL_CERT_DIR")
        environ = {k: v for k, v in os.environ.items() if not k.upper().endswith(foreign)}
        self._process = subprocess.Popen(
            [sys.executable, "-B", "-c", code % ([str(tests.parent), str(tests)], loaded)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environ,
            start_new_session=True,
        )
        self.adopting = False  # whether it becomes the parent of processes whose parent was killed

    def greet(self) -> None:
        """Wait until it is ready."""
        self.adopting = self._read()["adopting"]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the zygote ended with status %r" % self._process.wait())
        found: dict[str, Any] = json.loads(line)
        return found

    def play(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Play a round: the ends of its processes."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(plan).encode() + b"\n")
        self._process.stdin.flush()
        return self._read()

    def close(self) -> None:
        """End it, and all that it started and that still lives."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


# -- what came of it ----------------------------------------------------------------------------------------------


class Request:
    """One request as its sender saw it."""

    def __init__(self, sender: int, at: float) -> None:
        self.sender, self.at = sender, at
        self.status: Optional[int] = None
        self.complete = self.over = self.late = False
        self.trouble = ""  # why there was no answer


class Arrival:
    """One record as the collector took it in."""

    def __init__(self, request: str, fault: Optional[str], fields: dict[str, Any]) -> None:
        self.request, self.fault, self.fields = request, fault, fields


class Account:
    """What all processes on one state directory wrote into their logs, over all of its rounds."""

    def __init__(self) -> None:
        self.tried: dict[str, str] = {}  # marker -> kind
        self.recorded: dict[tuple[str, str], str] = {}  # (endpoint, marker or event id) -> marker
        self.arrivals: dict[tuple[str, str], list[Arrival]] = {}
        self.strangers: set[str] = set()  # event ids that no call gave back
        self.requests: dict[str, Request] = {}
        self.given: set[str] = set()  # requests whose answer left the collector
        self.ends: dict[int, int] = {}  # of processes, by their log's number
        self.counted: Counter[str] = Counter()  # by activity
        self.kept: Counter[str] = Counter()  # of it, what was on disk when a call returned
        self.complete: set[str] = set()  # activities whose process ended in order
        self.judged: set[str] = set()  # requests and activities that were told of
        self._processes = 0

    def read(self, logs: Path, result: dict[str, Any]) -> Found:
        """Take in a round's logs: what is new, and what was wrong in them."""
        found = Found()
        statuses = dict(result["statuses"])
        for path in sorted(logs.iterdir()):
            self._processes += 1
            pid = int(path.name.partition("-")[0])
            self.ends[self._processes] = statuses.get(pid, 0)
            lines = path.read_bytes().split(b"\n")
            self._read_one([json.loads(line) for line in lines if line], found)
        kills = sum(1 for _, status in result["statuses"] if status == -signal.SIGKILL)
        found.killed = kills - found.collectors
        for pid, status in result["statuses"]:
            if status not in (0, -signal.SIGKILL):
                found.broken.append("process %d ended with status %d" % (pid, status))
        found.broken += ["process %d hung" % pid for pid in result["hung"]]
        return found

    def _read_one(self, entries: list[list[Any]], found: Found) -> None:
        activities: set[str] = set()
        ended = False
        for what, *more in entries:
            if what == "process":
                found.collectors += more[1] == "collect"
            elif what == "try":
                self.tried[more[0]] = more[1]
            elif what == "recorded":
                found.recorded += self._note_recorded(*more)
            elif what == "counting":
                activities.add(more[0])
                self.counted[more[0]] += more[1]
            elif what == "kept":
                self.kept[more[0]] = self.counted[more[0]]
            elif what == "complete":
                ended = True
            elif what in ("raised", "refused"):
                found.raised.append("%s %s" % (what, more))
            elif what == "drained":
                found.drained = more
            else:
                self._read_exchange(what, more, found)
        if ended and self.ends[self._processes] == 0:
            self.complete |= activities

    def _read_exchange(self, what: str, more: list[Any], found: Found) -> None:
        if what == "sent":
            self.requests[more[0]] = Request(self._processes, more[1])
        elif what == "answered":
            request = self.requests[more[0]]
            request.status, request.complete = more[1], more[2]
        elif what == "unreachable":
            request = self.requests[more[0]]
            request.late, request.trouble = more[1], more[2]
        elif what == "over":
            self.requests[more[0]].over = True
        elif what == "gave":
            self.given.add(more[0])
        elif what == "accepted":
            found.arrived.append((more[1], more[3], Arrival(more[0], more[2], more[4])))

    def _note_recorded(self, marker: str, kind: str, id: str) -> int:
        keys = []
        if kind != "track":
            keys.append(("getkeymanager", marker))
        if kind in ("track", "call_home"):
            keys.append(("reo-usage", id))
        self.recorded.update((key, marker) for key in keys)
        return len(keys)

    # -- judging ---------------------------------------------------------------------------------

    def add(self, arrived: list[tuple[str, int, Arrival]]) -> list[str]:
        """Take in what arrived; what of it is not what anybody recorded, in words."""
        wrong = []
        for endpoint, code, arrival in arrived:
            fields = arrival.fields
            key = (endpoint, _id_of(fields))
            self.arrivals.setdefault(key, []).append(arrival)
            if arrival.request not in self.requests:
                wrong.append("%s: nobody sent request %s" % (key, arrival.request))
            if code not in (830, 200):
                wrong.append("%s: the collector finds fault: %s" % (key, code))
            if endpoint == "getkeymanager":
                marker, fitting = key[1], "licence"
            elif endpoint == "reo-usage":
                known = self.recorded.get(key)
                marker = fields.get("meta", {}).get("marker") or known or ""
                fitting = "usage"
                if not marker and fields["activity_type"] == "CALL HOME":
                    self.strangers.add(key[1])  # ended before its call could tell the id
                    continue
                if known is not None and known != marker:
                    wrong.append("%s: is %s, and was recorded as %s" % (key, marker, known))
            else:
                continue
            kind = self.tried.get(marker)
            if kind is None or not _is_content(fields, marker, kind, fitting):
                wrong.append("%s: nobody recorded %r" % (key, fields))
        told = {
            marker for (endpoint, _), marker in self.recorded.items() if endpoint == "reo-usage"
        }
        untold = {m for m, kind in self.tried.items() if kind == "call_home"} - told
        if len(self.strangers) > len(untold):
            wrong.append("%d call homes that nobody made" % (len(self.strangers) - len(untold)))
        return wrong

    def lost(self) -> list[tuple[str, str]]:
        """What was acknowledged and has not arrived."""
        return sorted(self.recorded.keys() - self.arrivals.keys())

    def miscounted(self) -> list[str]:
        """Activities of which the sums that arrived cannot be."""
        arrived: Counter[str] = Counter()
        wrong = []
        for (endpoint, id), arrivals in self.arrivals.items():
            if endpoint == "reo-aggregate":
                sums = {(a.fields["activity_type"], a.fields["count"]) for a in arrivals}
                activity, count = sums.pop()
                arrived[activity] += count
                if sums:
                    wrong.append("%s: arrived with different sums" % id)
        for activity in arrived.keys() | self.counted.keys():
            total, most = arrived[activity], self.counted[activity]
            least = most if activity in self.complete else self.kept[activity]
            if not least <= total <= most and activity not in self.judged:
                self.judged.add(activity)
                what = (activity, total, least, most)
                wrong.append("%s: %d arrived, counted were %d to %d" % what)
        return wrong

    def duplicates(self) -> Iterator[tuple[tuple[str, str], str, str]]:
        """(key, request, cause) of each delivery that had to be repeated, once."""
        for key, arrivals in self.arrivals.items():
            if len(arrivals) > 1:
                numbers = sorted({a.request: a for a in arrivals}.items(), key=self._sent_at)
                for number, arrival in numbers[:-1]:
                    if number not in self.judged:
                        self.judged.add(number)
                        yield key, number, self._cause(arrival)

    def _sent_at(self, numbered: tuple[str, Arrival]) -> float:
        request = self.requests.get(numbered[0])
        return request.at if request is not None else 0.0

    def _cause(self, arrival: Arrival) -> str:
        """Why the sender of this delivery did not settle the record."""
        request = self.requests.get(arrival.request)
        if request is None:
            return UNEXPLAINED
        killed = self.ends[request.sender] == -signal.SIGKILL
        if request.status is not None:  # there was an answer
            if arrival.fault in _SPOILT:
                return SPOILT
            if not request.over:
                return KILLED if killed else ENDED
            return UNEXPLAINED
        if request.trouble:
            if request.trouble in ("interrupted", "the transport is closed"):
                return ENDED
            if arrival.fault is not None or arrival.request not in self.given:
                return LOST
            return LATE if request.late else UNEXPLAINED
        if request.over:
            return UNEXPLAINED
        return KILLED if killed else ENDED


class Found:
    """One round's part of an account."""

    def __init__(self) -> None:
        self.recorded = self.killed = self.collectors = 0
        self.arrived: list[tuple[str, int, Arrival]] = []
        self.raised: list[str] = []
        self.broken: list[str] = []
        self.drained: Optional[list[Any]] = None


def _is_content(fields: dict[str, Any], marker: str, kind: str, fitting: str) -> bool:
    from .kill_child import content

    if fitting == "usage":
        if kind == "call_home":
            return fields["activity_type"] == "CALL HOME"
        return kind == "track" and fields["meta"] == content(marker, kind)["meta"]
    wanted = content(marker, kind)
    return kind not in ("track", "count") and all(fields.get(n) == v for n, v in wanted.items())


# -- rounds -------------------------------------------------------------------------------------------------------


class Outcome:
    """What one round came to."""

    def __init__(self, found: Found) -> None:
        self.recorded, self.killed, self.raised = found.recorded, found.killed, len(found.raised)
        self.collectors = found.collectors
        self.started = self.delivered = self.unacknowledged = self.lost = self.wrong = 0
        self.revived = self.damaged = 0
        self.causes: Counter[str] = Counter()
        self.failed: list[str] = []

    @property
    def duplicated(self) -> int:
        return sum(self.causes.values())

    def line(self) -> str:
        """All of it, for people."""
        causes = ", ".join("%s %d" % cause for cause in sorted(self.causes.items()))
        text = "%d processes, %d killed, recorded %d, delivered %d, lost %d, duplicated %d" % (
            self.started,
            self.killed,
            self.recorded,
            self.delivered,
            self.lost,
            self.duplicated,
        )
        return text + (causes and " (%s)" % causes) + "".join("  FAILED: " + w for w in self.failed)


class Lane:
    """Rounds of one store, one after the other, beside other lanes; a state directory serves for some of them."""

    def __init__(
        self, store: str, number: int, zygote: Zygote, *, seed: int, small: bool, work: Path
    ) -> None:
        self._rng = random.Random("%d %s %d" % (seed, store, number))
        self._store, self._seed, self._small, self._work = store, seed, small, work
        self._zygote = zygote
        self._account = Account()
        self._state: Optional[Path] = None
        self._left = 0  # rounds for which the state directory is kept on
        self._settings: dict[str, Any] = {}
        # Published test keys, the same for every collector.
        self._keys = {name: Collector(algorithm=name).keys for name in ("rsa", "ed25519")}

    def round(self, number: int) -> tuple[int, Outcome]:
        """Play one round and judge it."""
        place = self._work / ("%s-%d" % (self._store.replace(" ", "-"), number))
        (place / "logs").mkdir(parents=True)
        told = self._plan(place)
        (place / "plan.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
        result = self._zygote.play(told)
        outcome = self._judge(place, result)
        outcome.started = len(told["processes"])
        if outcome.failed:
            kept = self._work.parent / ("kill-%d-%s" % (self._seed, place.name))
            shutil.copytree(place, kept, dirs_exist_ok=True)
            (kept / "failed").write_text("\n".join(outcome.failed) + "\n", encoding="utf-8")
            what = (number, kept, len(outcome.failed), outcome.failed[0][-300:])
            outcome.failed = ["round %d, see %s: %d, the first: %s" % what]
        shutil.rmtree(place)
        return number, outcome

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
        told = plan(rng, small=self._small, store=self._store)
        for process in told["processes"]:
            process["settings"].update(self._settings)
            if not self._zygote.adopting:
                process["forks"] = 0
        return {
            **told,
            "state": str(self._state),
            "logs": str(place / "logs"),
            "before": str(place / "before"),
            "stderr": str(place / "stderr"),
            "settings": {"deliver": "thread", **self._settings},
            "store": self._store,
            "algorithm": algorithm,
            "keys": self._keys[algorithm],
        }

    def _judge(self, place: Path, result: dict[str, Any]) -> Outcome:
        account = self._account
        found = account.read(place / "logs", result)
        outcome = Outcome(found)
        earlier = set(account.arrivals)
        wrong = account.add(found.arrived)
        lost = account.lost()
        again = list(account.duplicates())
        outcome.causes.update(cause for _, _, cause in again)
        outcome.lost, outcome.wrong = len(lost), len(wrong)
        for key in lost:
            del account.recorded[key]  # told once
        arrived = account.arrivals.keys() - earlier
        outcome.delivered = len(arrived & account.recorded.keys())
        unknown = arrived - account.recorded.keys()
        outcome.unacknowledged = sum(1 for endpoint, _ in unknown if endpoint != "reo-aggregate")
        failed = found.broken + ["wrong: " + what for what in wrong]
        failed += ["lost: %s %s" % key for key in lost]
        failed += ["unexplained: %s, %s" % one[:2] for one in again if one[2] == UNEXPLAINED]
        failed += found.raised + account.miscounted()
        if found.drained is None:
            failed.append("the drain did not end")
        else:
            pending, outcome.revived, outcome.damaged, left, trouble = found.drained
            failed += ["the drain left %d records" % pending] if pending else []
            failed += ["left behind: %s" % ", ".join(left)] if left else []
            failed += ["trouble: %s" % trouble] if trouble else []
        for printed in place.glob("stderr*"):
            text = printed.read_text(encoding="utf-8", errors="replace")
            if "Traceback" in text or (text and printed.name == "stderr"):
                failed.append("printed: " + text)
        if self._store == report.AGENT:
            outcome.failed = failed
        return outcome


def _id_of(fields: dict[str, Any]) -> str:
    return str(fields.get("event_id") or fields.get("activation_identifier", ""))


def _row(store: str, outcomes: list[Outcome]) -> report.Row:
    def total(name: str) -> int:
        return sum(getattr(outcome, name) for outcome in outcomes)

    row = report.Row("SIGKILL", store, len(outcomes))
    for name in ("recorded", "delivered", "lost", "duplicated", "wrong"):
        setattr(row, name, total(name))
    causes: Counter[str] = Counter()
    for outcome in outcomes:
        causes.update(outcome.causes)
        row.broken += outcome.failed
    del row.broken[20:]
    unexplained = causes.pop(UNEXPLAINED, 0)
    row.causes = dict(causes)
    notes = ["%d processes killed, and %d collectors" % (total("killed"), total("collectors"))]
    for count, what in (
        (total("unacknowledged"), "delivered beside these, their call was killed"),
        (total("revived"), "revived from dead letters"),
        (total("damaged"), "damaged lines"),
        (total("raised"), "calls that failed"),
        (unexplained, "duplicates unexplained"),
    ):
        if count:
            notes.append("%d %s" % (count, what))
    row.note = ", ".join(notes)
    return row


def run(*, rounds: int, seed: int, progress: report.Progress, work: Path) -> list[report.Row]:
    """All rounds, then those of the peers."""
    rows = []
    # In this order: when something goes wrong here, the lanes end with their zygotes.
    with ThreadPoolExecutor(LANES) as pool, ExitStack() as ending:
        # One of the full form leaves loading to its children, who fork in the middle of it.
        small = rounds <= SHORT_ROUNDS
        zygotes = [Zygote(loaded=small or bool(number)) for number in range(LANES)]
        for zygote in zygotes:
            ending.callback(zygote.close)
        for zygote in zygotes:
            zygote.greet()
        for store in (report.AGENT, *stores.PEERS):
            wanted = rounds if store == report.AGENT else max(2, rounds // PEER_ROUNDS)
            lanes = [
                Lane(store, number, zygote, seed=seed, small=small, work=work)
                for number, zygote in enumerate(zygotes)
            ]
            outcomes: list[Outcome] = []
            for first in range(1, wanted + 1, LANES):
                numbers = range(first, min(first + LANES, wanted + 1))
                for number, outcome in pool.map(Lane.round, lanes, numbers):
                    outcomes.append(outcome)
                    progress.say("%s, round %d: %s" % (store, number, outcome.line()))
                    progress.step(store, number, wanted)
            rows.append(_row(store, outcomes))
    return rows
