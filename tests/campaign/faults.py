"""Every system call fails once: of recording, delivery, refusal, export and start-up, with every error it can give.

A dry run of each scenario counts its calls by kind. Then the scenario is repeated for every call, every error, and
four courses of things: the call fails once or it and all later ones of its kind fail; and the process ends like that,
or the disk recovers and the process goes on. A healthy run follows and delivers. ``rounds`` above the number of such
repetitions means all of them, less is a random sample.

Held to: nothing is raised into the host; what was acknowledged is on disk when the call returns and arrives at the
collector; nothing arrives that was refused or never recorded; ``status()`` names what is wrong while records are not
durable and nothing once the disk is well; the user identifier stays; no descriptor, no foreign file and no segment
remains. A duplicate needs an attempt whose end could not be written down.
"""

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

from support.agent import START, Desk, FakeClock, desk
from support.faults import ANY, CALLS, ONCE, STAYS, Fault, Shim, descriptors
from support.spool import look, segments, waiting

import agent
from agent import lines
from agent.spool import segment

from . import report

ROUNDS, SHORT_ROUNDS = 100_000, 40
ENDS, HEALS = "ends", "heals"
COURSES = ((ONCE, HEALS), (ONCE, ENDS), (STAYS, HEALS), (STAYS, ENDS))
UNACKNOWLEDGED = "not acknowledged, on the disk all the same"
UNWRITTEN = "an answer could not be written down"


class Trial:
    """One run of a scenario under one fault, and the healthy run behind it."""

    def __init__(self, at: Desk, place: Path, fault: Optional[Fault], course: str) -> None:
        self.at, self.place, self.fault, self.course = at, place, fault, course
        self.state = place / "state"
        self.shim = Shim(place, fault)
        self.row = report.Row("", rounds=1)
        self.texts: set[str] = set()  # acknowledged
        self.events: set[str] = set()
        self.tried: set[str] = set()  # texts, acknowledged or not
        self.refused: set[str] = set()  # events that may never arrive
        self.exported: Optional[Path] = None
        self.counted = 0
        self.missed = 0  # calls that gave no id
        self.user = ""

    # -- what a scenario does --------------------------------------------------------------------

    @contextmanager
    def product(self) -> Iterator[agent.Agent]:
        """The product under the fault, from its start to its end."""
        self.at.state_dir = self.state
        given = self.at.config(), ("demo-license-key", "activation-1")
        with self.shim.installed():
            made = self.call("start", lambda: agent.Agent(*given, clock=self.at.clock))
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
                self.row.broken.append("records are not durable and status does not say so")
            elif refusing and not named and self._delivered_and_waiting():
                self.row.broken.append("answers cannot be written down, status names no trouble")
            return
        self.shim.healed = True
        done = self.call("flush", product.flush)
        status = self.call("status", product.status) or {}
        self.row.breaks(status.get("trouble"), "trouble is named that is over: %s" % status)
        left = done is not None and (done.pending or status.get("in_memory"))
        self.row.breaks(left, "not delivered after the disk got well: %s" % done)
        self.text(product, "healed")
        self.row.breaks("healed" not in self.texts, "a disk that is well again takes no record")

    def call(self, what: str, function: Callable[[], Any], *allowed: type[BaseException]) -> Any:
        """Call into the product as a host does: whatever comes out of it but ``allowed`` is a finding."""
        self.shim.phase = what
        try:
            return function()
        except allowed:
            return None
        except Exception as error:
            self.row.broken.append("%s raised %s: %s" % (what, type(error).__name__, error))
            return None

    def text(self, product: agent.Agent, text: str) -> None:
        self.tried.add(text)
        if self.kept("record_text", lambda: product.record_text(text, data_group="g")):
            self.texts.add(text)

    def track(self, product: agent.Agent) -> None:
        self.events.update(filter(None, [self.kept("track", lambda: product.track("EXPORT"))]))

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
            gone = id is not None and id not in waiting(self.state)
        self.row.breaks(gone, "%s is acknowledged and not on disk" % what)
        return id if isinstance(id, str) else None

    # -- what came of it -------------------------------------------------------------------------

    def judge(self) -> None:
        """The healthy run, and everything that is held against all of them."""
        left = descriptors(self.place)
        self.row.breaks(left, "left open: %s" % left)
        self.at.clock.advance(1)
        with self.at.agent(state_dir=self.state) as product:
            changed = self.user != product.user_identifier
            self.row.breaks(changed, "the user identifier was %r" % self.user)
            done = product.flush(timeout=5)
            status = product.status()
        ill = status["trouble"] or done.pending or done.dead or status["in_memory"]
        self.row.breaks(ill, "the healthy run: %s, %s" % (done, status["trouble"]))
        strange = [name for name in os.listdir(self.state) if not segment.is_ours(name)]
        self.row.breaks(strange, "files of no known name: %s" % strange)
        self.row.breaks(segments(self.state), "segments remain: %s" % segments(self.state))
        if self.exported is not None:
            with self.at.agent(state_dir=self.place / "other") as product:
                product.import_spool(self.exported)
                product.flush(timeout=5)
        self._count()

    def _count(self) -> None:
        texts, events, sums = Counter[str](), Counter[str](), Counter[str]()
        for record in self.at.collector.records():
            found = record["fields"]
            if record["endpoint"] == "getkeymanager":
                texts[found["text_data"]] += 1
            else:
                events[found["event_id"]] += 1
                sums[found["event_id"]] = found.get("count", 0)
        row, twice = self.row, sorted((texts + events - Counter([*texts, *events])).elements())
        row.recorded = len(self.texts) + len(self.events - self.refused)
        row.delivered, row.duplicated = len(texts) + len(events), len(twice)
        gone = (self.texts - set(texts)) | (self.events - set(events) - self.refused)
        row.lost = len(gone)
        row.breaks(gone, "lost %s" % sorted(gone))
        strangers = set(texts) - self.tried - {"CALL HOME"}
        row.wrong = len(strangers) + len(self.refused & set(events))
        row.breaks(row.wrong, "%d wrong" % row.wrong)
        more = sum(sums.values()) > self.counted
        row.breaks(more, "counted %d, delivered %s" % (self.counted, sums))
        known = self.tried | self.events | self.refused
        unwritten = any(hit.phase in ("flush", "export") for hit in self.shim.hits)
        for key in twice:
            if key in self.tried - self.texts or key not in known:
                row.causes[UNACKNOWLEDGED] += 1
            elif unwritten:
                row.causes[UNWRITTEN] += 1
            else:
                row.broken.append("duplicated: %s; hit: %s" % (key, self.shim.hits[:3]))
        row.figure("of them reached", bool(self.shim.hits))

    def _delivered_and_waiting(self) -> bool:
        """Whether the next process would send again what has arrived."""
        with self.shim.paused():
            waits = {r.body.get("text_data", r.id) for r in look(self.state).records()}
        found = [record["fields"] for record in self.at.collector.records()]
        return any(one.get("text_data", one.get("event_id")) in waits for one in found)


# --- scenarios: (how its directory begins, what is done) ----------------------------------------


def _events(state: Path) -> set[str]:
    """What waits of usage."""
    return {record.id for record in look(state).records() if record.kind == "usage"}


def _prepare_life(at: Desk, place: Path) -> None:
    with at.agent(state_dir=place / "donor") as product:
        product.record_text("imported", data_group="g")
        product.export_spool(place / "in.spool")
    shutil.rmtree(place / "donor")


def _life(trial: Trial) -> None:
    """A product's first day: all that it can call, in a directory that does not exist yet."""
    with trial.product() as product:
        trial.kept("call_home", product.call_home)
        trial.text(product, "one")
        trial.text(product, "two")
        trial.track(product)
        trial.counted += 3
        trial.call("count", lambda: product.count("RENDER", 3))
        trial.call("status", product.status)
        trial.call("flush", product.flush)
        trial.text(product, "three")
        trial.track(product)
        trial.call("preview", product.preview)
        carried = trial.place / "out.spool", trial.place / "in.spool"
        trial.call("export", lambda: product.export_spool(carried[0]), OSError)
        trial.tried.add("imported")
        if trial.call("import", lambda: product.import_spool(carried[1]), OSError):
            trial.texts.add("imported")
        trial.refuse(product, trial.events)
        trial.call("consent", lambda: product.set_usage_consent(True))
        trial.track(product)
        trial.call("history", product.history)
        trial.call("diagnostics", product.diagnostics)


WANTED = {"%d %d%s" % (run, n, b) for run in range(3) for n in range(2) for b in ("", " b")}


def _prepare_pass(at: Desk, place: Path) -> None:
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
    with open(segments(state, "l")[0], "ab") as file:
        file.write(b"garbage\n")
    # A book that is due to be rewritten, and what a killed process left of an earlier one.
    gone = {"v": 1, "k": "record", "e": "gone", "outcome": "delivered", "verdict": "delivered"}
    answers: list[Any] = [
        {**gone, "id": "%d" % n, "at": 1.0, "code": 830, "reason": "x" * 900} for n in range(300)
    ]
    with open(state / segment.BOOK, "ab") as file:
        file.write(b"".join(map(lines.encode, [*answers, ["of tomorrow"]])))
    temporary = state / ("%s.%016x.tmp" % (segment.BOOK, 1))
    temporary.write_bytes(b"\n")
    temporary.chmod(0o600)
    os.utime(temporary, (1, 1))


def _pass(trial: Trial) -> None:
    """Twenty records of several processes wait; damage, leftovers, a file that is due to be rewritten."""
    trial.texts |= WANTED
    trial.tried |= WANTED
    trial.counted = 6
    trial.events |= _events(trial.state)
    with trial.product() as product:
        trial.text(product, "new")
        trial.call("flush", product.flush)
        trial.call("status", product.status)


def _prepare_refusal(at: Desk, place: Path) -> None:
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


def _refusal(trial: Trial) -> None:
    """Usage of several processes waits, and is refused."""
    trial.texts |= {"kept 0", "kept 1"}
    trial.tried |= trial.texts
    trial.counted = 4
    before = {record.id for record in look(trial.state).records() if record.usage}
    with trial.product() as product:
        trial.track(product)
        trial.refuse(product, before | trial.events)
        if trial.course == HEALS:
            trial.shim.healed = True
            trial.call("consent", lambda: product.set_usage_consent(True))
            trial.track(product)


def _prepare_carry(at: Desk, place: Path) -> None:
    for run in range(2):
        with at.agent(state_dir=place / "state") as product:
            for number in range(3):
                product.record_text("%d %d" % (run, number), data_group="g")
            product.track("EXPORT")


def _carry(trial: Trial) -> None:
    """What waits is moved into an export, and delivered from another directory."""
    trial.texts |= {"%d %d" % (run, number) for run in range(2) for number in range(3)}
    trial.tried |= trial.texts
    trial.events |= _events(trial.state)
    with trial.product() as product:
        out = trial.place / "out.spool"
        if trial.call("export", lambda: product.export_spool(out, move=True), OSError):
            trial.exported = out


SCENARIOS: dict[str, tuple[Callable[[Desk, Path], None], Callable[[Trial], None]]] = {
    "life": (_prepare_life, _life),
    "pass": (_prepare_pass, _pass),
    "refusal": (_prepare_refusal, _refusal),
    "carry": (_prepare_carry, _carry),
}


# --- the campaign -------------------------------------------------------------------------------


class Bench:
    """A collector, and for each scenario the directory that every trial of it begins with."""

    def __init__(self, at: Desk, work: Path) -> None:
        self.at, self.work, self.trials = at, work, 0
        for name, (prepare, _) in SCENARIOS.items():
            self._template(name).mkdir()
            prepare(at, self._template(name))

    def _template(self, name: str) -> Path:
        return self.work / ("template-" + name)

    def trial(self, name: str, fault: Optional[Fault], course: str) -> Trial:
        """One scenario, begun afresh."""
        self.trials += 1
        place = self.work / ("trial-%d" % self.trials)
        shutil.copytree(self._template(name), place)
        self.at.collector.clear()
        self.at.clock.at = START + 86400
        one = Trial(self.at, place, fault, course)
        SCENARIOS[name][1](one)
        one.judge()
        shutil.rmtree(place)
        return one

    def faults(self, name: str) -> list[tuple[str, Fault, str]]:
        """Everything that can go wrong in a scenario, found by running it."""
        dry = self.trial(name, None, ENDS)
        assert dry.row.ok, (name, dry.row)
        return [
            (name, Fault(kind, number, error, mode), course)
            for kind, (_, errors) in CALLS.items()
            for number in range(1, dry.shim.calls[kind] + 1)
            for error in errors
            for mode, course in COURSES
            # Everything fails: once is what the other kinds are.
            if kind != ANY or mode == STAYS
        ]


def run(*, rounds: int, seed: int, progress: report.Progress, work: Path) -> list[report.Row]:
    """The rows of all kinds of calls."""
    rows = {kind: report.Row(kind + " fails") for kind in CALLS}
    with desk(work / "state", FakeClock()) as at:
        # Unsigned: this is about the disk, and signatures cost time.
        signed, at.durability = at.config, "power"
        at.config = lambda **more: signed(**{"keys": (), **more})  # type: ignore[method-assign]
        bench = Bench(at, work)
        plan = [one for name in SCENARIOS for one in bench.faults(name)]
        if rounds < len(plan):
            plan = random.Random(seed).sample(plan, rounds)
        for number, (name, fault, course) in enumerate(plan):
            row = bench.trial(name, fault, course).row
            row.broken = ["%s, %s, %s: %s" % (name, fault, course, what) for what in row.broken]
            for line in row.broken:
                progress.say(line)
            rows[fault.kind].add(row)
            progress.step("faults", number + 1, len(plan))
    return [row for row in rows.values() if row.rounds]
