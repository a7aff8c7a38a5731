"""A small world for the model-based test of the spool: processes, a disk that can lose its power, a server, a model.

The spools are real, on a real directory. A *process* here is a ``Spool`` with descriptors of its own: ``flock`` belongs
to an open file, so several of them in one interpreter exclude each other as processes do. Every system call of theirs
that matters passes a recorder, which keeps what was synced, may fail a call, may kill the caller in the middle of
it, and may let another process go first. After each step the directory is read as a process that has just started
would read it, and compared with the model: what vanished was delivered, refused, or is counted by a report of drops.
"""

from __future__ import annotations

import copy
import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, Optional
from unittest import mock

from support import spool as support
from support.power import Disk, RecordingOs
from support.spool import FakeClock

from agent import counters, delivery, files, lines, verdicts
from agent.errors import AnswerStale
from agent.spool import backlog, book, segment, store
from agent.spool.record import DROPPED, Record
from agent.spool.store import DISK, FULL, MEMORY, Spool
from agent.values import Core, Request, Response, Unreachable, Verdict

WINDOW_S = 3600.0
# Small bounds: what needs thousands of records elsewhere happens within a few steps.
SMALL = (
    (book, "COMPACT_BYTES", 700),
    (store, "MEMORY_RECORDS", 4),
)
PATCHED = [
    module
    for module in (files, backlog, book, counters, delivery, segment, store)
    if hasattr(module, "os")
]
CONFIG: Any = SimpleNamespace(
    request_timeout_s=5.0,
    max_age_days=90,
    count_window_s=WINDOW_S,
    deliver="manual",
    proxy=None,
    proxy_auth=None,
    ca_bundle=None,
)

Fuse = tuple[int, str, Callable[[], None]]  # at which call (of this name, or any) what happens
Base = tuple[str, str]  # endpoint, event id


class Killed(BaseException):
    """The process is gone in the middle of a call."""


class PowerCut(Killed):
    """All of them are."""


class Rec:
    """What the model knows of one event."""

    def __init__(self, base: Base, run: str, seq: int, *, epoch: int, refusals: int) -> None:
        self.base, self.run, self.seq, self.epoch = base, run, seq, epoch
        self.refusals = refusals  # begun before it was captured
        self.usage = base[0] == "reo"
        self.report = base[1].startswith(DROPPED)
        self.weight = int(base[1].rpartition("-")[2]) if self.report else 1
        self.bodies: list[Any] = []
        self.must = False  # it must be found
        self.durable = False  # it survives a power cut
        self.unsure = False  # a sync of its file may have failed, which no later one makes good
        self.ordered = not self.report
        self.memory_of: Optional[Process] = None
        self.accepted = 0  # by the server
        self.dup_ok = False  # an answer, or what was written down of it, may be lost
        self.activity = ""  # of a counter's window
        self.count = self.sent = 0


class Sums:
    """What one run counted of one activity under one consent."""

    def __init__(self) -> None:
        self.added = self.kept = 0
        self.unsure = False
        self.windows: set[Base] = set()


class Step:
    """What happened since the last comparison."""

    def __init__(self) -> None:
        self.tried: set[Base] = set()
        self.captured: set[Base] = set()
        self.killed = self.cut = self.faulty = self.disturbed = False
        self.refusing = False  # whatever usage is captured meanwhile may go with the rest

    @property
    def clean(self) -> bool:
        return not (self.killed or self.cut or self.faulty)


class Endpoint:
    """An endpoint as delivery knows it."""

    keys = ()
    trust = None

    def __init__(self, world: World, name: str) -> None:
        self._world, self.name = world, name
        self.usage = name == "reo"
        self.signed = not self.usage

    def cause(self) -> str:
        return self.name

    floor_cause = cause

    def request(self, record: Record, *, now: float) -> Request:
        text = json.dumps([self.name, record.id, record.kind, record.body])
        return Request("POST", "http://127.0.0.1/" + self.name, {}, text.encode())

    def judge(
        self, response: Response, *, now: float, monotonic: float, freshness: Any, secret: str
    ) -> Verdict:
        outcome = response.body.decode()
        if outcome == verdicts.DELIVERED and self.signed:
            try:
                freshness.judge(int(self._world.clock.at), now=now, monotonic=monotonic)
            except AnswerStale:
                self._world.last.dup_ok = True
                return Verdict(verdicts.SKEWED)
        return Verdict(outcome, retry_after_s=60.0)

    def origin(self, ask: bool = True) -> dict[str, str]:
        return {"domain": "acme.example"}

    def aggregate(self, activity: str, count: int, id: str, start: float, end: float) -> Any:
        meta = {"window_start": int(start), "window_end": int(end)}
        return {"activity_type": activity, "count": count, "meta": meta}


class Process:
    """One process of the product: its spool, its counters, its deliverer; ``send`` is its network."""

    def __init__(self, world: World, parent: Optional[Process] = None) -> None:
        self.world, self.dead, self.seq = world, False, 0
        self.open_now: set[files.File] = set()
        self.born = parent is None
        self.plan: list[str] = []
        self.passing = False
        with self.running():
            if parent is None:
                self.spool = self._fresh()
                self._begin()
            else:
                self.spool = self._inherited(parent)

    def _fresh(self) -> Spool:
        directory, most = self.world.disk.directory, self.world.max_bytes
        return support.spool(directory, clock=self.world.clock, max_bytes=most, report=self.report)

    def _inherited(self, parent: Process) -> Spool:
        """What a forked child has: the same memory, and descriptors of the same open files."""
        for file in parent.open_now:
            twin = copy.copy(file)
            twin._fd = os.dup(file._fd)
            self.world.disk.fds[twin._fd] = self.world.disk.fds.get(file._fd)
            self.open_now.add(twin)
        spool = copy.copy(parent.spool)
        spool.memory, spool.trouble = list(spool.memory), dict(spool.trouble)
        spool.consent, spool._report = copy.copy(spool.consent), self.report
        return spool

    def _begin(self) -> None:
        world, spool = self.world, self.spool
        self.claim, spool.claim = spool.claim, self.claimed  # type: ignore[method-assign]
        core = Core(
            config=CONFIG,
            clock=world.clock,
            environ={},
            spool=spool,
            adapters=[Endpoint(world, "server"), Endpoint(world, "reo")],
            gate=self.gate,
            user_identifier=lambda: "user",
        )
        self.counters = counters.Counters(core)
        self.counting: Counter[str] = Counter()  # added, and never written so far
        self.delivery = delivery.Delivery(core, self, None)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have the modules under test be this process."""
        world = self.world
        before, world.current = world.current, self
        opened, support.open_now = support.open_now, self.open_now
        try:
            yield
        finally:
            world.current, support.open_now = before, opened

    def hatch(self) -> None:
        """Run the hooks of a child."""
        self.born = True
        del self.spool.claim  # type: ignore[attr-defined]
        inherited = set(self.open_now)
        self.spool.after_fork()
        for file in inherited:
            if file._fd not in self.world.disk.fds:
                self.open_now.discard(file)
            else:  # of no consequence: nobody else can open it
                assert not file.is_named(), "still open in a child"
        self._begin()

    def end(self) -> None:
        """The kernel's part of dying."""
        self.dead, self.passing = True, False
        for file in self.open_now:
            self.world.disk.fds.pop(file._fd, None)
            os.close(file._fd)
        self.open_now.clear()

    # -- what delivery calls ---------------------------------------------------------------------

    def claimed(self) -> bool:
        """The spool's claim, of which there must never be two."""
        world = self.world
        others = [p for p in world.processes if p.passing and not p.dead and p is not self]
        self.passing = self.claim() and os.path.isdir(world.disk.directory)  # else there is no lock
        assert not (self.passing and others), "two deliverers"
        taken = self.spool.claimed
        unknown = world.step.faulty or world.step.disturbed  # in the middle of another's claim
        assert taken or others or unknown, "nobody has the lock, and it is held"
        return taken

    def send(self, request: Request, *, timeout_s: float) -> Response:
        try:
            return self._answer(*json.loads(request.body))
        except (AssertionError, KeyError) as error:  # to delivery it would be weather
            self.world.wrong.append(repr(error))
            raise

    def _answer(self, endpoint: str, id: str, kind: str, body: Any) -> Response:
        world, rec = self.world, self.world.known[endpoint, id]
        world.last = rec
        world.step.tried.add(rec.base)
        if kind == "aggregate":
            assert body.pop("domain") == "acme.example" and body["activity_type"] == rec.activity
            rec.sent = rec.sent or body["count"]
            assert body["count"] == rec.sent, "a retry with another sum"
            rec.count = body["count"]
        else:
            assert body in rec.bodies, "content that nobody recorded"
        outcome = self.plan.pop(0) if self.plan else "ok"
        if outcome in ("ok", "lost", "die"):
            rec.accepted += 1
            assert rec.accepted == 1 or rec.dup_ok, "delivered again without a cause"
        rec.dup_ok |= outcome in ("lost", "die")
        if outcome in ("die", "die before"):
            world.kill(self)
        if outcome in ("lost", "offline"):
            raise Unreachable("planned")
        return Response(200, {}, {"ok": verdicts.DELIVERED}.get(outcome, outcome).encode())

    def rest(self) -> None: ...

    close = interrupt = rest

    def gate(self, record: Record) -> bool:
        """As the agent's."""
        if record.kind == "aggregate":
            self.world.take_aggregate(record)
        return not record.usage or 0 < self.spool.consent.current() == record.epoch

    def report(self, count: int, id: str) -> Record:
        """As the agent's: a licence record that says how many were dropped."""
        body = {"numeric_data_single_value": str(count)}
        rec = self.capture("server", id, body)
        return Record("licence", *rec.base, self.world.clock.time(), body)

    def capture(self, endpoint: str, id: str, body: Any, epoch: int = 0) -> Rec:
        world, base = self.world, (endpoint, id)
        world.step.captured.add(base)
        self.seq += 1
        if base not in world.known:
            more = {"epoch": epoch, "refusals": world.refusals}
            world.known[base] = Rec(base, self.spool.run, self.seq, **more)
        rec = world.known[base]
        rec.bodies.append(body)
        rec.dup_ok |= len(rec.bodies) > 1  # a report that was repeated after a crash
        return rec


class World:
    """Everything of one example."""

    def __init__(self, place: Path, *, max_bytes: int = 10_000_000, seed: int = 0) -> None:
        self.random = Random(seed)
        self.max_bytes = max_bytes
        self.clock = FakeClock()
        self.disk = Disk(place / "vendor" / "product" / "state")
        self.processes: list[Process] = []
        self.current: Optional[Process] = None
        self.known: dict[Base, Rec] = {}
        self.sums: dict[tuple[str, str, int], Sums] = {}
        self.planted: dict[str, bytes] = {}  # segments of a newer version
        self.unknown_lines: list[bytes] = []  # in the book
        self.refusals = self.refused = 0  # begun; the last of them that was complete
        self.surplus = 0  # reported and not gone, after a kill between the two
        self.copies = 0  # lines whose sync failed, written once more elsewhere
        self.step = Step()
        self.serial = 0
        self._fuse: Optional[Fuse] = None
        self._fused: Optional[Process] = None
        self._fault: Optional[tuple[str, int, float]] = None
        self.broken = False
        self.wrong: list[str] = []  # what a callback found
        self.last: Any = None  # the record that is under way
        self.told: Counter[str] = Counter()  # what happened, for those who want to know
        recorder = RecordingOs(self)
        self._patches: list[Any] = [mock.patch.object(files, "_sync", self._sync)]
        self._patches.append(mock.patch("time.sleep"))  # nobody waits for a lock that is held
        lock = files.File.lock

        def locked(file: files.File) -> Optional[bool]:
            self.tick("lock")
            return lock(file)

        self._patches.append(mock.patch.object(files.File, "lock", locked))
        self._patches += [mock.patch.object(module, "os", recorder) for module in PATCHED]
        self._patches += [mock.patch.object(*small) for small in SMALL]
        for patch in self._patches:
            patch.start()

    def shut(self) -> None:
        for process in self.processes:
            if not process.dead:
                process.end()
        for patch in reversed(self._patches):
            patch.stop()

    def tell(self, what: str) -> None:
        self.told[what] += 1

    # -- system calls ----------------------------------------------------------------------------

    def tick(self, call: str = "") -> None:
        """A system call of the current process begins."""
        me = self.current
        if me is None:
            return
        if me.dead:
            raise PowerCut() if self.step.cut else Killed()
        if self._fuse is not None and me is self._fused and self._fuse[1] in ("", call):
            left, kind, action = self._fuse
            self._fuse = (left - 1, kind, action) if left > 1 else None
            if left <= 1:
                self.step.disturbed = True
                action()

    def fault(self, kind: str) -> Optional[float]:
        """Whether this call fails: how much of it is done all the same."""
        if self._fault is None or self.current is None or self._fault[0] != kind:
            return None
        _, left, part = self._fault
        self._fault = (kind, left - 1, part) if left > 1 else None
        if left > 1:
            return None
        self.step.faulty = True
        self.tell("fault")
        return part

    def descriptors(self) -> list[str]:
        """What the current process has open."""
        return [str(file._fd) for file in self.current.open_now] if self.current else []

    def _sync(self, fd: int) -> None:
        self.tick("sync")
        # A parent that cannot be synced is let be: it may be one that we may not read.
        ours = self.disk.fds.get(fd)
        ours = isinstance(ours, int) or ours == self.disk.directory
        if ours and self.fault("sync") is not None:
            raise OSError(errno.EIO, "planned")
        self.disk.synced(fd)

    # -- steps -----------------------------------------------------------------------------------

    def do(
        self,
        process: Process,
        what: Callable[[Process], None],
        *,
        fuse: Optional[Fuse] = None,
        fault: Optional[tuple[str, int, float]] = None,
        cut: tuple[int, str] = (0, "some"),
    ) -> None:
        """One step: ``what`` by one process, perhaps disturbed at one of its calls; then compare."""
        self.broken = True
        self.step = Step()
        self._fuse, self._fused, self._fault = fuse, process, fault
        try:
            self.act(process, what)
        except PowerCut:
            pass
        self._fuse = self._fault = None
        if self.step.killed and not self.step.cut:
            # Killed between making the very first directory and its sync: nobody repeats that. The file system will.
            self.disk.made.clear()
        if self.step.cut:
            for other in self.processes:
                self._gone(other)
            self.disk.cut(Random(cut[0]), cut[1])
        self.processes = [other for other in self.processes if not other.dead]
        self.compare()
        self.broken = False

    def act(self, process: Process, what: Callable[[Process], None]) -> None:
        """Part of a step; a process that dies of it ends here."""
        if process.dead:
            return
        with process.running():
            try:
                if not process.born:
                    process.hatch()
                what(process)
            except PowerCut:
                raise
            except Killed:
                if not process.dead:
                    raise
        if process.dead:
            self._gone(process)

    def kill(self, process: Process) -> None:
        """From within one of its calls."""
        self.tell("kill in a call")
        process.dead = self.step.killed = True
        raise Killed()

    def cut(self) -> None:
        """From within a call."""
        self.tell("power cut")
        self.step.cut = self.step.killed = True
        for process in self.processes:
            process.dead = True
        raise PowerCut()

    def _gone(self, process: Process) -> None:
        process.end()
        for rec in self.known.values():
            if rec.memory_of is process:
                rec.memory_of, rec.must = None, False

    # -- what processes do -----------------------------------------------------------------------

    def _record(self, process: Process, kind: str, base: Base, body: Any, epoch: int = 0) -> Rec:
        rec = process.capture(*base, body, epoch)
        record = Record(kind, *base, self.clock.time(), dict(body), epoch=epoch)
        kept = process.spool.record(record, sync=not rec.usage)
        self.tell("recorded: " + kept)
        assert kept in (DISK, MEMORY, FULL)
        rec.must = kept != FULL
        rec.durable = kept == DISK and not rec.usage
        rec.memory_of = process if kept == MEMORY else None
        rec.ordered &= kept == DISK
        return rec

    def new_id(self) -> str:
        self.serial += 1
        return "%08x" % self.serial

    def licence(self, process: Process, text: str, *, ordered: bool = True) -> None:
        base = ("server", self.new_id())
        self._record(process, "licence", base, {"text_data": text}).ordered &= ordered

    def usage(self, process: Process, text: str, *, ordered: bool = True) -> None:
        """As the agent does: the size of the mark, then consent."""
        epoch = process.spool.consent.current() or process.spool.consent.ensure()
        if not epoch:
            return
        base, body = ("reo", self.new_id()), {"activity_type": text}
        self._record(process, "usage", base, body, epoch).ordered &= ordered
        process.counters.unsynced = True

    def count(self, process: Process, activity: str, n: int) -> None:
        process.counters.add(activity, n)
        process.counting[activity] += n

    def keep(self, process: Process, *, end: bool = False) -> None:
        run, mine = process.spool.run, process.counters
        records = [r for r in self.known.values() if r.run == run and r.must and not r.memory_of]
        before = mine._epoch
        mine.unsynced = True
        whole = mine.keep(end=end)
        epoch = mine._epoch
        if before in (0, epoch) and epoch:
            for activity, n in process.counting.items():
                self.sums.setdefault((run, activity, epoch), Sums()).added += n
        if epoch:
            process.counting.clear()  # under another consent they were refused by somebody
        if not whole or self.step.faulty:
            return
        for rec in records:
            rec.durable |= not rec.unsure
        for (of, _, under), sums in self.sums.items():
            if of == run and under == epoch:
                sums.kept = sums.kept if sums.unsure else sums.added

    def deliver(self, process: Process, plan: list[str]) -> None:
        """One pass, as the worker makes it."""
        process.plan = list(plan)
        process.delivery.skip = ("backoff", "pause", "held")
        process.delivery.run()
        process.passing = False

    def revive(self, process: Process) -> None:
        """As ``spool replay --dead``."""
        if process.spool.claim():
            self.told["revived"] += process.spool.revive()
            process.spool.release()
            process.passing = False

    def refuse(self, process: Process) -> None:
        self.refusals += 1
        self.step.refusing = True
        mine = self.refusals
        process.spool.refuse_usage()
        process.counters.discard()
        process.counting.clear()
        if not process.spool.consent.blocked:
            self.refused = max(self.refused, mine)
            self.tell("refused")

    def leave(self, process: Process) -> None:
        """An orderly exit."""
        self.keep(process, end=True)
        process.spool.seal()
        process.dead = True

    def plant(self, class_: str, count: int) -> None:
        """A segment that a newer version left behind, with records that we understand."""
        found = []
        kind, endpoint, name, epoch = "licence", "server", "text_data", 0
        if class_ == "u":
            kind, endpoint, name = "usage", "reo", "activity_type"
            epoch = store.Consent(self.disk.directory).current()
            if not epoch:
                return
        for n in range(count):
            if n % 2:
                found.append(lines.encode({"v": 2, "k": "licence", "text": "later"}))
                continue
            body = {name: "later"}
            base = (endpoint, self.new_id())
            rec = self.known[base] = Rec(base, "newer", 0, epoch=epoch, refusals=self.refusals)
            rec.bodies, rec.must, rec.durable, rec.ordered = [body], True, True, False
            record = Record(kind, *base, self.clock.time(), body, run="newer", epoch=epoch)
            found.append(lines.encode({**record.to_json(), "later": [1]}))
        file = "%s-%012x-%016x.seg" % (class_, int(self.clock.time() * 1000), self.serial)
        self._write(file, b"".join(found))
        self.planted[file] = b"".join(found)

    def plant_line(self, value: Any) -> None:
        """A line of an unknown kind, in the book."""
        if os.path.exists(os.path.join(self.disk.directory, segment.BOOK)):
            self.unknown_lines.append(lines.encode(value))
            self._write(segment.BOOK, b"\n" + self.unknown_lines[-1])

    def _write(self, name: str, content: bytes) -> None:
        os.makedirs(self.disk.directory, 0o700, exist_ok=True)
        path = os.path.join(self.disk.directory, name)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(fd, content)
        os.close(fd)
        self.disk.adopt(name)
        self.disk.made.clear()

    # -- comparison ------------------------------------------------------------------------------

    def look(self) -> list[tuple[Record, bool]]:
        """Every record with whether it is dead, as a process that has just started finds it, and in memories."""
        reading = support.spool(self.disk.directory, clock=self.clock, max_bytes=self.max_bytes)
        found = [(record, dead) for dead in (False, True) for record in reading.records(dead=dead)]
        assert not reading.trouble, reading.trouble
        keys = {record.key for record, _ in found}
        assert len(keys) == len(found), "one record twice"
        epoch = store.Consent(self.disk.directory).current()
        for process in self.processes:
            for record in process.spool.memory:
                if not (record.key in keys or (record.usage and record.epoch != epoch)):
                    found.append((record, False))
        return found

    def take_aggregate(self, record: Record) -> None:
        """A window seen for the first time, or again."""
        activity, count = record.body["activity_type"], record.body["count"]
        if record.key not in self.known:
            more = {"epoch": record.epoch, "refusals": self.refusals}
            rec = self.known[record.key] = Rec(record.key, record.run, 0, **more)
            rec.activity, rec.ordered = activity, False
            self.step.captured.add(record.key)
            self.sums.setdefault((record.run, activity, record.epoch), Sums())
            self.sums[record.run, activity, record.epoch].windows.add(record.key)
        rec = self.known[record.key]
        assert rec.activity == activity, "another activity"
        assert self.step.cut or count >= rec.count, "a sum that shrank"
        rec.count = count

    def compare(self) -> None:
        """Whether the disk agrees with the model; then what is found is what must stay."""
        step = self.step
        assert not self.wrong, self.wrong
        epoch = store.Consent(self.disk.directory).current()
        for rec in self.known.values():
            if rec.usage and rec.refusals < self.refused and epoch:
                assert rec.epoch != epoch, "captured before a refusal, and not refused"
            rec.must = rec.must and (rec.durable or not step.cut)
            # Answers are written without a sync, and only then.
            lost = step.cut or ((step.killed or step.faulty) and rec.base in step.tried)
            rec.dup_ok |= bool(rec.accepted) and lost
        there = self._take(self.look(), epoch)
        self._explain(there, epoch)
        for rec in self.known.values():
            rec.must = rec.base in there
            rec.unsure |= step.faulty and not rec.durable
            rec.durable |= rec.must and (step.cut or (rec.report and step.clean))
        for sums in self.sums.values():
            sums.unsure |= step.faulty
        self._sum_up(epoch)
        self._check_planted()

    def _take(self, found: list[tuple[Record, bool]], epoch: int) -> set[Base]:
        """What is there, every content and the order checked."""
        order: dict[tuple[str, str], int] = {}
        places = {name: n for n, name in enumerate(segment.listing(self.disk.directory))}
        places[""] = -1  # in memory are those that the disk refused

        def place(one: tuple[Record, bool]) -> tuple[int, int]:
            name, at, _ = one[0].place or ("", 0, 0)
            return places[name], at

        for record, _ in sorted(found, key=place):
            on_disk = bool(record.place and record.place[0])
            if record.kind == "aggregate":
                self.take_aggregate(record)
            assert record.key in self.known, "recorded by nobody: %r" % (record.key,)
            assert not record.usage or record.epoch == epoch or not epoch, "refused, and it waits"
            rec = self.known[record.key]
            assert record.kind == "aggregate" or record.body in rec.bodies, "other content"
            if on_disk and rec.memory_of is not None:
                rec.memory_of, rec.durable = None, self.step.clean
            if rec.ordered and on_disk:
                lane = (record.run, record.endpoint)
                assert order.get(lane, 0) < rec.seq, "out of order"
                order[lane] = rec.seq
        return {record.key for record, _ in found}

    def _explain(self, there: set[Base], epoch: int) -> None:
        """What vanished was delivered, refused or reported; what came back has a reason to."""
        step = self.step
        gone = reported = twice = 0
        for rec in self.known.values():
            if rec.base in there:
                new = not rec.must
                reported += rec.weight if rec.report and new else 0
                reason = rec.base in step.captured or not step.clean or rec.usage
                assert reason or not new, "it came back"
                settled = rec.accepted and not rec.dup_ok and not (step.disturbed or step.killed)
                assert not settled, "settled, and there all the same"
            elif rec.must:
                refused = rec.usage and (rec.epoch != epoch or step.refusing)
                gone += 0 if rec.accepted or refused else rec.weight
                twice += rec.weight if rec.accepted else 0  # its answer was lost
            elif rec.report and rec.base in step.captured and rec.accepted:
                reported += rec.weight
        self.told["dropped"] += gone
        assert gone <= reported + self.surplus, "%d lost, %d reported" % (gone, reported)
        # Too many may be counted, never too few: what is under way, or overtaken, or of a newer format.
        self.copies += len(step.captured) * step.faulty
        newer = sum(len(content.splitlines()) for content in self.planted.values())
        slack = (
            newer
            + twice
            + self.copies
            + len(step.tried)
            + sum(bool(rec.activity) for rec in self.known.values())
        )
        if step.clean and not step.disturbed:
            assert reported <= gone + slack, "%d lost, %d reported" % (gone, reported)
        else:
            self.surplus += max(0, reported - gone)

    def _sum_up(self, epoch: int) -> None:
        for (_, _, under), sums in self.sums.items():
            found = [self.known[base] for base in sums.windows]
            total = sum(rec.count for rec in found if rec.must or rec.accepted)
            assert total <= sums.added or self.step.killed, "more than was counted"
            sums.added = max(sums.added, total)
            if under != epoch:
                continue
            if self.step.refusing or any(not (rec.must or rec.accepted) for rec in found):
                sums.kept = min(sums.kept, total)  # dropped, and reported
            assert total >= sums.kept, "counts lost"

    def _check_planted(self) -> None:
        for name, content in self.planted.items():
            found = None
            if os.path.exists(os.path.join(self.disk.directory, name)):
                with open(os.path.join(self.disk.directory, name), "rb") as file:
                    found = file.read()
            goes = self.max_bytes < 100_000 or (name[0] == "u" and self.refusals)
            assert found == content or goes, "a newer format was touched"
        if self.unknown_lines:
            with open(os.path.join(self.disk.directory, segment.BOOK), "rb") as file:
                content = file.read()
            assert all(line in content for line in self.unknown_lines), "an unknown line was lost"

    # -- the end ---------------------------------------------------------------------------------

    def heal(self) -> None:
        """All processes end, the server is well: everything arrives, and the disk is as good as empty."""
        self.clock.skew_s = 0.0
        for process in list(self.processes):
            self.do(process, self.leave)
        waiting = True
        for _ in range(12):
            process = Process(self)
            self.processes.append(process)
            for _ in range(3):  # a clock that went back by days has to be seen ticking
                self.clock.advance(60.0)
                self.do(process, lambda p: self.deliver(p, []))
            self.do(process, self.revive)
            self.do(process, self.leave)
            waiting = any(rec.must for rec in self.known.values())
            if not waiting:
                break
        assert not waiting, "never delivered"
        found = os.listdir(self.disk.directory) if os.path.isdir(self.disk.directory) else []
        remaining = {name for name in found if name.endswith(".seg")}
        assert remaining <= set(self.planted), "segments that nobody removes"
