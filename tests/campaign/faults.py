"""Every system call fails once: of recording, delivery, refusal, export and start-up, with every error it can give.

A dry run of each scenario counts its calls by kind. Then the scenario is repeated for every call, every error, and
four courses of things: the call fails once or it and all later ones of its kind fail; and the process ends like that,
or the disk recovers and the process goes on. A healthy run follows and delivers. ``rounds`` above the number of such
repetitions means all of them, less is a random sample.

Held to: nothing is raised into the host; what was acknowledged is on disk when the call returns and arrives at the
collector; nothing arrives that was refused or never recorded; ``status()`` names what is wrong while records are not
durable and nothing once the disk is well; the user identifier stays; no descriptor, no foreign file and no segment
remains. A duplicate needs an attempt whose end could not be written down.

The full form then fills real file systems, where it may mount them: a process records until the disk refuses it, and
is killed; the peers' stores get the same.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

from support.agent import START, Desk, FakeClock, desk
from support.disks import EXT4, EXT4_1K, TMPFS, NotHere, mounted
from support.faults import ANY, CALLS, ONCE, STAYS, Fault, Shim, descriptors
from support.spool import look, segments, waiting

import agent
from agent import jsonline
from agent.spool import names

from . import report
from .stores import PEERS, peer

ROUNDS, SHORT_ROUNDS = 100_000, 40
FULL_FROM = 1000  # rounds from which on real disks are filled too
ENDS, HEALS = "ends", "heals"
COURSES = ((ONCE, HEALS), (ONCE, ENDS), (STAYS, HEALS), (STAYS, ENDS))
BROKEN_SHOWN = 8


class Trial:
    """One run of a scenario under one fault, and the healthy run behind it."""

    def __init__(self, at: Desk, place: Path, fault: Optional[Fault], course: str) -> None:
        self.at, self.place, self.fault, self.course = at, place, fault, course
        self.state = place / "state"
        self.shim = Shim(place, fault)
        self.broken: list[str] = []
        self.texts: set[str] = set()  # acknowledged
        self.events: set[str] = set()
        self.homes = 0
        self.tried: set[str] = set()  # texts, acknowledged or not
        self.refused: set[str] = set()  # events that may never arrive
        self.exported: Optional[Path] = None
        self.moved: set[str] = set()
        self.counted = 0
        self.missed = 0  # calls that gave no id
        self.duplicates = self.arrived = self.lost = self.wrong = 0
        self.twice: list[str] = []
        self.causes: Counter[str] = Counter()
        self.user = ""

    # -- what a scenario does --------------------------------------------------------------------

    @contextmanager
    def product(self, **changes: Any) -> Iterator[agent.Agent]:
        """The product under the fault, from its start to its end."""
        self.at.state_dir = self.state
        with self.shim.installed():
            self.shim.phase = "start"
            made = self.call("start", lambda: agent.Agent(self.at.config(**changes), LICENCE,
                                                          clock=self.at.clock))  # fmt: skip
            if made is None:
                return
            self.user = self.call("user_identifier", lambda: made.user_identifier)
            try:
                yield made
                self._end(made)
            finally:
                self.call("close", lambda: made.close(timeout=5))

    def _end(self, product: agent.Agent) -> None:
        """Recover, or stay broken to the end; either way status says so."""
        status = self.call("status", product.status) or {}
        if self.course == ENDS:
            refusing = self.shim.hits and self.fault is not None and self.fault.mode == STAYS
            named = status.get("trouble") or {}
            if refusing and self.missed and not named.get("spool"):
                self.say("records are not durable and status does not say so")
            elif refusing and not named and self._delivered_and_waiting():
                self.say("answers cannot be written down and status names no trouble")
            return
        self.shim.healed = True
        done = self.call("flush", product.flush)
        status = self.call("status", product.status) or {}
        if status.get("trouble"):
            self.say("trouble is named that is over: %s" % status["trouble"])
        if done is not None and (done.pending or status.get("in_memory")):
            self.say("not delivered after the disk got well: %s" % done)
        self.text(product, "healed")
        if "healed" not in self.texts:
            self.say("a disk that is well again takes no record")

    def call(self, what: str, function: Callable[[], Any], *allowed: type[BaseException]) -> Any:
        """Call into the product as a host does: whatever comes out of it but ``allowed`` is a finding."""
        self.shim.phase = what
        try:
            return function()
        except allowed:
            return None
        except Exception as error:
            self.say("%s raised %s: %s" % (what, type(error).__name__, error))
            return None

    def say(self, finding: str) -> None:
        self.broken.append(finding)

    def text(self, product: agent.Agent, text: str) -> None:
        self.tried.add(text)
        if self.kept("record_text", lambda: product.record_text(text, data_group="g")):
            self.texts.add(text)

    def track(self, product: agent.Agent) -> Optional[str]:
        id = self.kept("track", lambda: product.track("EXPORT"))
        if id is not None:
            self.events.add(id)
        return id

    def refuse(self, product: agent.Agent, usage: set[str]) -> None:
        """Refuse what was not sent of ``usage``: unless status says that this failed, it never arrives."""
        sent = {record["fields"].get("event_id") for record in self.at.collector.records()}
        self.call("refuse", lambda: product.set_usage_consent(False))
        status = self.call("status", product.status) or {"trouble": "?"}
        if not status["trouble"]:
            self.refused |= usage - sent
        self.events &= sent

    def kept(self, what: str, record: Callable[[], Optional[str]]) -> Optional[str]:
        """One recording call: its id, if any, is on disk when it returns."""
        id = self.call(what, record)
        self.missed += id is None
        with self.shim.paused():
            if id is not None and id not in waiting(self.state):
                self.say("%s is acknowledged and not on disk" % what)
        return id if isinstance(id, str) else None

    # -- what came of it -------------------------------------------------------------------------

    def judge(self) -> None:
        """The healthy run, and everything that is held against all of them."""
        left = descriptors(self.place)
        if left:
            self.say("left open: %s" % left)
        self._healthy(self.state)
        strange = [name for name in os.listdir(self.state) if not names.is_ours(name)]
        if strange:
            self.say("files of no known name: %s" % strange)
        if segments(self.state):
            self.say("segments remain: %s" % segments(self.state))
        if self.exported is not None:
            self._import()
        self._count()

    def _healthy(self, state: Path) -> None:
        self.at.clock.advance(1)
        with self.at.agent(state_dir=state) as product:
            if self.user != product.user_identifier:
                self.say("the user identifier was %r" % self.user)
            done = product.flush(timeout=30)
            status = product.status()
        if status["trouble"] or done.pending or done.dead or status["in_memory"]:
            self.say("the healthy run: %s, %s" % (done, status["trouble"]))

    def _import(self) -> None:
        other = self.place / "other"
        with self.at.agent(state_dir=other) as product:
            product.import_spool(self.exported)
            product.flush(timeout=30)

    def _count(self) -> None:
        texts: Counter[str] = Counter()
        events: Counter[str] = Counter()
        sums: dict[str, int] = {}
        for record in self.at.collector.records():
            found = record["fields"]
            if record["endpoint"] == "getkeymanager":
                texts[found["text_data"]] += 1
            elif record["endpoint"] == "reo-usage":
                events[found["event_id"]] += 1
            else:
                events[found["event_id"]] += 1
                sums[found["event_id"]] = found["count"]
        self.arrived = len(texts) + len(events)
        gone = (self.texts - set(texts)) | (self.events - set(events) - self.refused)
        self.lost = len(gone)
        if gone:
            self.say("lost %s" % sorted(gone))
        self.wrong = len(set(texts) - self.tried - {"CALL HOME"}) + len(self.refused & set(events))
        if sum(sums.values()) > self.counted:
            self.say("counted %d, delivered %s" % (self.counted, sums))
        twice = sorted((texts + events - Counter([*texts, *events])).elements())
        self.duplicates, self.twice = len(twice), twice
        for key in twice:
            if key in self.tried - self.texts or key not in self.tried | self.events | self.refused:
                self.causes["not acknowledged, on the disk all the same"] += 1
            elif self._unsettled():
                self.causes["an answer could not be written down"] += 1

    def _delivered_and_waiting(self) -> bool:
        """Whether the next process would send again what has arrived."""
        with self.shim.paused():
            waits = {r.body.get("text_data", r.id) for r in look(self.state).records()}
        found = [record["fields"] for record in self.at.collector.records()]
        return any(one.get("text_data", one.get("event_id")) in waits for one in found)

    def _unsettled(self) -> bool:
        """Whether the end of an attempt could not be written down."""
        about = [hit.path for hit in self.shim.hits if hit.phase in ("flush", "export")]
        return any(path.endswith(names.SIDECAR) or path == str(self.state) for path in about)


LICENCE = ("demo-license-key", "activation-1")


# --- scenarios ----------------------------------------------------------------------------------


class Life:
    """A product's first day: all that it can call, in a directory that does not exist yet."""

    def prepare(self, at: Desk, place: Path) -> None:
        with at.agent(state_dir=place / "donor") as product:
            product.record_text("imported", data_group="g")
            product.export_spool(place / "in.spool")
        shutil.rmtree(place / "donor")

    def act(self, trial: Trial) -> None:
        with trial.product() as product:
            if trial.kept("call_home", product.call_home):
                trial.homes += 1
            trial.text(product, "one")
            trial.text(product, "two")
            trial.track(product)
            trial.counted += 3
            trial.call("count", lambda: product.count("RENDER", 3))
            trial.call("status", product.status)
            trial.call("flush", product.flush)
            trial.text(product, "three")
            trial.track(product)
            out = trial.place / "out.spool"
            trial.call("preview", product.preview)
            trial.call("export", lambda: product.export_spool(out), OSError)
            trial.tried.add("imported")
            taken = trial.call(
                "import", lambda: product.import_spool(trial.place / "in.spool"), OSError
            )
            if taken:
                trial.texts.add("imported")
            trial.refuse(product, trial.events)
            trial.call("consent", lambda: product.set_usage_consent(True))
            trial.track(product)
            trial.call("history", product.history)
            trial.call("diagnostics", product.diagnostics)


class Pass:
    """Twenty records of several processes wait; damage, leftovers, files that are due to be rewritten."""

    def prepare(self, at: Desk, place: Path) -> None:
        state = place / "state"
        with at.agent(state_dir=state, only="licence") as product:
            product.record_text("old", data_group="g")
            product.flush()
        at.collector.clear()
        for run in range(3):
            with at.agent(state_dir=state) as first, at.agent(state_dir=state) as second:
                for number in range(2):
                    first.record_text("%d %d" % (run, number), data_group="g")
                    first.track("EXPORT")
                    second.record_text("%d %d b" % (run, number), data_group="g")
                first.count("RENDER", 2)
        damaged = segments(state, names.LICENCE)[0]
        with open(damaged, "ab") as file:
            file.write(b"garbage\n")
        for name, line in (("facts", {"v": 1, "k": "of tomorrow"}), ("history", {"at": 1})):
            with open(state / name, "ab") as file:
                file.write(jsonline.encode({**line, "text": "x" * 900}) * 75)
        overgrown = state / names.sidecar(segments(state, names.LICENCE)[-1].name)
        overgrown.write_bytes(jsonline.encode(["of tomorrow", "x" * 1000]) * 135)
        orphan = state / names.sidecar(names.segment("l", 5))
        orphan.write_bytes(b"\n")
        temporary = state / ("facts.%016x.tmp" % 1)
        temporary.write_bytes(b"\n")
        for path in (overgrown, orphan, temporary):
            path.chmod(0o600)
        os.utime(temporary, (1, 1))

    def act(self, trial: Trial) -> None:
        wanted = {"%d %d%s" % (r, n, b) for r in range(3) for n in range(2) for b in ("", " b")}
        trial.texts |= wanted
        trial.tried |= wanted
        trial.counted = 6
        trial.events |= {id for id in waiting(trial.state) if len(id) == 32} - _licence(trial.state)
        with trial.product() as product:
            trial.text(product, "new")
            trial.call("flush", product.flush)
            trial.call("status", product.status)


def _licence(state: Path) -> set[str]:
    found = set()
    for path in segments(state, names.LICENCE):
        for line in path.read_bytes().split(b"\n"):
            value = jsonline.decode(line)
            if value:
                found.add(value["id"])
    return found


class Refusal:
    """Usage of several processes waits, and is refused."""

    def prepare(self, at: Desk, place: Path) -> None:
        state = place / "state"
        with at.agent(state_dir=state) as product:
            product.set_usage_consent(False)  # a mark from earlier
            product.set_usage_consent(True)
            product.track("EXPORT")
            product.flush()
        at.collector.clear()
        for run in range(2):
            with at.agent(state_dir=state) as product:
                product.track("EXPORT")
                product.count("RENDER", 2)
                product.record_text("kept %d" % run, data_group="g")

    def act(self, trial: Trial) -> None:
        trial.texts |= {"kept 0", "kept 1"}
        trial.tried |= trial.texts
        before = set(waiting(trial.state)) - _licence(trial.state)
        trial.counted = 4
        with trial.product() as product:
            trial.track(product)
            trial.refuse(product, before | trial.events)
            if trial.course == HEALS:
                trial.shim.healed = True
                trial.call("consent", lambda: product.set_usage_consent(True))
                trial.track(product)


class Carry:
    """What waits is moved into an export, and delivered from another directory."""

    def prepare(self, at: Desk, place: Path) -> None:
        for run in range(2):
            with at.agent(state_dir=place / "state") as product:
                for number in range(3):
                    product.record_text("%d %d" % (run, number), data_group="g")
                product.track("EXPORT")

    def act(self, trial: Trial) -> None:
        trial.texts |= {"%d %d" % (run, number) for run in range(2) for number in range(3)}
        trial.tried |= trial.texts
        trial.events |= set(waiting(trial.state)) - _licence(trial.state)
        with trial.product() as product:
            out = trial.place / "out.spool"
            taken = trial.call("export", lambda: product.export_spool(out, move=True), OSError)
            if taken:
                trial.exported = out


SCENARIOS: dict[str, Any] = {"life": Life, "pass": Pass, "refusal": Refusal, "carry": Carry}


# --- the campaign -------------------------------------------------------------------------------


class Bench:
    """A collector, and for each scenario the directory that every trial of it begins with."""

    def __init__(self, at: Desk, work: Path) -> None:
        self.at, self.work = at, work
        self.templates: dict[str, Path] = {}
        self.trials = 0
        for name, scenario in SCENARIOS.items():
            place = self.templates[name] = work / ("template-" + name)
            place.mkdir()
            scenario().prepare(at, place)

    def trial(self, name: str, fault: Optional[Fault], course: str) -> Trial:
        """One scenario, begun afresh."""
        self.trials += 1
        place = self.work / ("trial-%d" % self.trials)
        shutil.copytree(self.templates[name], place)
        self.at.collector.clear()
        self.at.clock.at = START + 86400
        one = Trial(self.at, place, fault, course)
        SCENARIOS[name]().act(one)
        one.judge()
        shutil.rmtree(place)
        return one

    def faults(self, name: str) -> list[tuple[str, Fault, str]]:
        """Everything that can go wrong in a scenario, found by running it."""
        dry = self.trial(name, None, ENDS)
        assert not dry.broken and not dry.lost, (name, dry.broken, dry.lost)
        return [
            (name, Fault(kind, number, error, mode), course)
            for kind, (_, errors) in CALLS.items()
            for number in range(1, dry.shim.calls[kind] + 1)
            for error in errors
            for mode, course in COURSES
            # Everything fails: once is what the other kinds are.
            if kind != ANY or mode == STAYS
        ]


def run(
    *, rounds: int, seed: int, progress: report.Progress, work: Path
) -> list[report.Row]:  # fmt: skip
    """The rows of all kinds of calls."""
    chance = random.Random(seed)
    rows = {kind: report.Row(kind + " fails") for kind in CALLS}
    hit: Counter[str] = Counter()
    found: Counter[str] = Counter()
    with desk(work / "state", FakeClock()) as at:
        # Unsigned: this is about the disk, and signatures cost time.
        at.config = _unsigned(at)  # type: ignore[method-assign]
        bench = Bench(at, work)
        plan = [one for name in SCENARIOS for one in bench.faults(name)]
        if rounds < len(plan):
            plan = chance.sample(plan, rounds)
        for number, (name, fault, course) in enumerate(plan):
            trial = bench.trial(name, fault, course)
            row = rows[fault.kind]
            row.rounds += 1
            row.recorded += len(trial.texts) + len(trial.events - trial.refused)
            row.delivered += trial.arrived
            row.lost += trial.lost
            row.wrong += trial.wrong
            row.duplicated += trial.duplicates
            for cause, count in trial.causes.items():
                row.causes[cause] = row.causes.get(cause, 0) + count
            hit[fault.kind] += bool(trial.shim.hits)
            unexplained = trial.duplicates - sum(trial.causes.values())
            broken = list(trial.broken)
            if trial.wrong:
                broken.append("%d wrong" % trial.wrong)
            if unexplained:
                broken.append("duplicated: %s; hit: %s" % (trial.twice, trial.shim.hits[:3]))
            for finding in broken:
                line = "%s, %s, %s: %s" % (name, fault, course, finding)
                progress.say(line)
                found[fault.kind] += 1
                if len(row.broken) < BROKEN_SHOWN:
                    row.broken.append(line)
            progress.step("faults", number + 1, len(plan))
        full = 10 if rounds >= FULL_FROM else 0
        disks = full_disks(at, rounds=full, seed=seed, progress=progress, work=work)
    for kind, row in rows.items():
        row.note = "%d of them reached" % hit[kind]
        if found[kind] > BROKEN_SHOWN:
            row.broken.append("and %d more" % (found[kind] - BROKEN_SHOWN))
    return [row for row in rows.values() if row.rounds] + disks


# --- full disks ---------------------------------------------------------------------------------

# argv: what the tests share, store, directory, seed. Says each text once it is acknowledged, then kills itself.
WRITER = """
import os, random, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
chance = random.Random(int(sys.argv[4]))
if sys.argv[2] == "agent":
    import agent
    product = agent.Agent(agent.Config(
        vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5",
        state_dir=sys.argv[3], deliver="manual", endpoints=(
            agent.GetKeyManager(base_url="http://127.0.0.1:1", api_key="k", allow_unsigned=True),)))
    def record(id, text):
        return product.record_text(text, data_group="g") is not None
else:
    from pathlib import Path
    from campaign import stores
    store = stores.peer(sys.argv[2], Path(sys.argv[3]))
    def record(id, text):
        try:
            store.record(id, text)
        except Exception:
            return False
        return True
refused = number = 0
while refused < 20:
    text = "%06d " % number + "x" * chance.randrange(3000)
    if record("%06d" % number, text):
        os.write(1, b"%06d\\n" % number)
    else:
        refused += 1
    number += 1
os.kill(os.getpid(), 9)
"""


def _written(at: Desk, store: str, place: Path, seed: int) -> tuple[set[str], int]:
    """(numbers acknowledged by a writer on a disk that fills up, its exit status)."""
    tests = Path(__file__).resolve().parent.parent
    found = subprocess.run(
        [sys.executable, "-c", WRITER, "%s%s%s" % (tests, os.pathsep, tests.parent), store,
         str(place), str(seed)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False, timeout=120,
    )  # fmt: skip
    return set(found.stdout.decode().split()), found.returncode


def _full_disk(at: Desk, kind: str, store: str, disk: Path, seed: int, row: report.Row) -> None:
    """One round: what a killed writer on a full disk was told is kept, and what is found once there is room."""
    filler = disk / "filler"
    filler.write_bytes(b"x" * max(0, shutil.disk_usage(disk).free - 400_000))
    kept, status = _written(at, store, disk / "state", seed)
    row.rounds += 1
    row.recorded += len(kept)
    if status != -signal.SIGKILL:
        row.causes["writer ended with %d" % status] = 0
    found: Counter[str] = Counter()
    if store == report.AGENT:
        at.collector.clear()
        with at.agent(state_dir=disk / "state", only="licence") as product:
            product.flush(timeout=60)  # still full
        filler.unlink()
        with at.agent(state_dir=disk / "state", only="licence") as product:
            if not product.flush(timeout=60).drained or product.status()["trouble"]:
                row.broken.append("%s: not delivered: %s" % (kind, product.status()["trouble"]))
        found.update(text[:6] for text in at.texts())
    else:
        filler.unlink()
        try:
            found.update(id for id, _ in peer(store, disk / "state").pending())
        except Exception as error:
            row.note = "cannot be read: %s" % type(error).__name__
    row.delivered += len(found)
    row.lost += len(kept - set(found))
    row.duplicated += sum(found.values()) - len(found)


def full_disks(
    at: Desk, *, rounds: int, seed: int, progress: report.Progress, work: Path
) -> list[report.Row]:
    """A row for each store on each kind of file system."""
    rows = []
    for kind in (TMPFS, EXT4, EXT4_1K):
        for store in (report.AGENT, *PEERS):
            row = report.Row("full " + kind, store)
            for number in range(rounds):
                try:
                    with mounted(work / "disk", kind, size_kb=4096) as disk:
                        _full_disk(at, kind, store, disk, seed + number, row)
                    shutil.rmtree(work / "disk")
                except NotHere as reason:
                    progress.say("no %s here: %s" % (kind, reason))
                    shutil.rmtree(work / "disk", ignore_errors=True)
                    break
                progress.step("full %s, %s" % (kind, store), number + 1, rounds)
            rows += [row] if row.rounds else []
    return rows


def _unsigned(at: Desk) -> Callable[..., agent.Config]:
    real = at.config
    return lambda **changes: real(**{"keys": (), **changes})
