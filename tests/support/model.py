"""A small world for the model-based test of the spool: processes, a disk that can lose its power, a server, a model.

The spools are real, on a real directory. A *process* here is a ``Spool`` with descriptors of its own: ``flock`` belongs
to an open file, so several of them in one interpreter exclude each other as processes do. Every system call of theirs
that matters passes a recorder, which keeps what was synced, may fail a call, may kill the caller in the middle of
it, and may let another process go first. After each step the directory is read as a process that has just started
would read it, and compared with the model: what vanished must have been delivered, refused, or reported as dropped.
"""

from __future__ import annotations

import copy
import errno
import json
import os
from _thread import RLock
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Optional
from unittest import mock

from support.power import Disk, RecordingOs
from support.spool import FakeClock

from agent import files, jsonline
from agent.counting import Counting
from agent.delivery import Delivery
from agent.endpoints import verdicts
from agent.endpoints.verdicts import Verdict
from agent.errors import AnswerStale
from agent.routes import Route
from agent.spool import (
    backlog,
    consent,
    counters,
    facts,
    ledger,
    lines,
    names,
    quota,
    store,
    view,
    writer,
)
from agent.spool.backlog import Backlog
from agent.spool.records import Record
from agent.spool.store import DISK, FULL, MEMORY, Spool
from agent.transport import Request, Response, Unreachable

MAX_AGE_S = 90 * 86400.0
DAY_S = 86400.0
ALL_WAITS = (facts.BACKOFF, facts.HELD, facts.PAUSE)
# Small bounds: what needs thousands of records elsewhere happens within a few steps.
SMALL = (
    (ledger, "COMPACT_BYTES", 700),
    (facts, "COMPACT_BYTES", 1500),
    (backlog, "LOADED", 1),
    (store, "MEMORY_RECORDS", 4),
    (lines, "CHUNK_BYTES", 4096),
    (quota, "AT_ONCE", 3),
)
PATCHED = (files, consent, counters, facts, names, quota, store, view, writer)

Fuse = tuple[int, str, Callable[[], None]]  # at which call (of this name, or any) what happens
Base = tuple[str, str]  # endpoint, event id
Key = tuple[str, str]  # the same in one of its lives


class Killed(BaseException):
    """The process is gone in the middle of a call."""


class PowerCut(Killed):
    """All of them are."""


class Rec:
    """What the model knows of one event."""

    def __init__(self, base: Base, run: str, seq: int, body: Any, *, at: float, epoch: int) -> None:
        self.base, self.run, self.seq, self.at, self.epoch = base, run, seq, at, epoch
        self.bodies = [body]
        self.usage = base[0] == "reo"
        self.weight = 1
        self.must = False  # it must be found
        self.may = True  # it may be found
        self.durable = False  # it survives a power cut
        self.cut = False  # and had not to survive one
        self.unsure = False  # a sync of its file may have failed, which no later one makes good
        self.ordered = True
        self.refused = False
        self.memory_of: Optional[Process] = None
        self.ghost_of: Optional[Process] = None  # settled in the memory of this one alone
        self.accepted = 0
        self.dup_ok = False
        self.refusals = 0  # begun before it was captured
        self.activity = ""
        self.count = self.sent = 0


class Book:
    """Sums of one activity of one run under one consent."""

    def __init__(self) -> None:
        self.added = self.kept = self.synced = 0
        self.unsure = False
        self.windows: set[Base] = set()


class Step:
    """What happened since the last comparison."""

    def __init__(self) -> None:
        self.settled: set[Base] = set()
        self.unsure: set[Base] = set()  # attempted, and nobody knows what was written down
        self.reported: dict[str, int] = {}
        self.acked: dict[Key, Base] = {}
        self.windows = (
            0  # that were written, and that nobody may have seen before they were dropped
        )
        self.refusing = self.killed = self.cut = self.faulty = False


class Endpoint:
    """An endpoint as delivery knows it."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self.name = world, name
        self.usage = name == "reo"
        self.signed = not self.usage
        self.identity = name

    def request(
        self, kind: str, body: Any, *, event_id: str, now: float, mask: bool = False
    ) -> Request:
        text = json.dumps([self.name, event_id, kind, body])
        return Request("POST", "http://127.0.0.1/" + self.name, {}, text.encode())

    def judge(self, response: Response, *, now: float, monotonic: float, freshness: Any) -> Verdict:
        outcome = response.body.decode()
        if outcome == verdicts.DELIVERED and self.signed:
            try:
                freshness.judge(int(self._world.at), now=now, monotonic=monotonic)
            except AnswerStale:
                self._world.last.dup_ok = True
                return Verdict(verdicts.SKEWED)
        return Verdict(outcome, retry_after_s=60.0)

    def origin(self, ask: bool = True, wait_s: float = 0.0) -> dict[str, str]:
        return {"domain": "acme.example"}

    def aggregate(self, activity: str, count: int, id: str, start: float, end: float) -> Any:
        meta = {"window_start": int(start), "window_end": int(end)}
        return {"activity_type": activity, "count": count, "meta": meta}


class WorldClock(FakeClock):
    """The machine's clock, which may be wrong; ``at`` is what the server says."""

    skew_s = 0.0

    def time(self) -> float:
        return self.at + self.skew_s


class Process:
    """One process of the product: its spool, its counters, its deliverer."""

    def __init__(self, world: World, parent: Optional[Process] = None) -> None:
        self.world, self.dead, self.seq = world, False, 0
        self.open_now: set[int] = set()
        self.born = parent is None
        self.plan: list[str] = []
        self.passing = False
        with self.running():
            self.spool = self._new() if parent is None else self._inherited(parent)
            if self.born:
                self._begin()

    def _new(self) -> Spool:
        return Spool(
            self.world.disk.directory,
            clock=self.world.clock,
            max_bytes=self.world.max_bytes,
            max_records=10_000,
            power=True,
            dropped=self.report,
        )

    def _inherited(self, parent: Process) -> Spool:
        """What a forked child has: the same memory, and descriptors of the same open files."""
        for fd in parent.open_now:
            twin = os.dup(fd)
            self.world.disk.fds[twin] = self.world.disk.fds.get(fd)
            self.open_now.add(twin)
        spool = parent.spool
        memo: dict[int, Any] = {
            id(self.world.clock): self.world.clock,
            id(spool._quota._dropped): self.report,
            id(spool._lock): RLock(),
            id(spool.consent._lock): RLock(),
        }
        return copy.deepcopy(spool, memo)

    def _begin(self) -> None:
        world = self.world
        ends = [Endpoint(world, "server"), Endpoint(world, "reo")]
        self.counting = Counting(
            self.spool, ends[1:], clock=world.clock, window_s=3600.0  # type: ignore[arg-type]
        )
        self.counters = self.counting._books[0][1]
        self.counting.adopt(self.spool.consent.current())
        self.delivery = Delivery(
            self.spool,
            {e.name: Route(e, self.spool.facts.lane(e.name * 3)) for e in ends},  # type: ignore[arg-type]
            self,
            clock=world.clock,
            chance=lambda: 0.5,
            run=self.spool.run,
            max_age_s=MAX_AGE_S,
            gate=self.gate,
            settled=self.settled,
            answered=lambda record, verdict: None,
            dropped=self.report,
        )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Have the modules under test be this process."""
        world = self.world
        before, world.current = world.current, self
        opened, files._open_now = files._open_now, self.open_now
        try:
            yield
        finally:
            world.current, files._open_now = before, opened

    def hatch(self) -> None:
        """Run the hooks of a child."""
        self.born = True
        self.spool.after_fork()
        self._begin()

    def end(self) -> None:
        """The kernel's part of dying."""
        self.dead = True
        for fd in list(self.open_now):
            self.world.disk.fds.pop(fd, None)
            os.close(fd)
        self.open_now.clear()

    # -- what delivery calls ---------------------------------------------------------------------

    def send(self, request: Request, *, timeout_s: float) -> Response:
        try:
            return self._answer(*json.loads(request.body))
        except (
            AssertionError,
            KeyError,
        ) as error:  # whatever a transport raises is weather to delivery
            self.world.wrong.append(repr(error))
            raise

    def _answer(self, endpoint: str, id: str, kind: str, body: Any) -> Response:
        world, rec = self.world, self.world.known[endpoint, id]
        world.last = rec
        world.step.unsure.add(rec.base)
        if kind == "aggregate":
            domain = body.pop("domain")
            assert domain == "acme.example" and body["activity_type"] == rec.activity
            rec.sent = rec.sent or body["count"]
            assert body["count"] == rec.sent, "a retry with another sum"
            rec.count = body["count"]
        else:
            assert body in rec.bodies, "content that nobody recorded"
        outcome = self.plan.pop(0) if self.plan else "ok"
        if outcome in ("ok", "lost", "die"):
            rec.accepted += 1
            assert rec.accepted == 1 or rec.dup_ok, "delivered again without a cause"
        if outcome in ("lost", "die"):
            rec.dup_ok = True
        if outcome in ("die", "die before"):
            world.kill(self)
        if outcome in ("lost", "offline"):
            raise Unreachable("planned")
        return Response(200, {}, {"ok": verdicts.DELIVERED}.get(outcome, outcome).encode())

    def rest(self) -> None:
        """Nothing is idle here."""

    def close(self) -> None:
        """Nor open."""

    def interrupt(self) -> None:
        """Nor under way."""

    def gate(self, record: Record) -> str:
        epoch = self.spool.consent.current()
        assert epoch >= self.world.refused, "a refusal that a deliverer does not know"
        if record.kind == "aggregate":
            self.world.take_aggregate(record)
        if record.usage and record.epoch < epoch:
            return "refused"
        return "open" if self.spool.consent.known or not record.usage else "shut"

    def settled(self, record: Record, verdict: Verdict) -> None:
        self.world.step.settled.add((record.endpoint, record.id))

    def report(self, count: int, id: str, told: int = 0) -> None:
        """As the engine does: a licence record that says how many were dropped."""
        world = self.world
        world.step.reported[id] = world.step.reported.get(id, 0) + count
        rec = self.capture("server", id, {"numeric_data_single_value": str(count)})
        rec.ordered, rec.weight = False, max(rec.weight, count)
        world.put(self, rec)

    def capture(self, endpoint: str, id: str, body: Any, epoch: int = 0) -> Rec:
        world = self.world
        self.seq += 1
        old = world.known.get((endpoint, id))
        if old is not None:
            old.bodies.append(body)
            old.may = old.dup_ok = True
            return old
        rec = Rec(
            (endpoint, id), self.spool.run, self.seq, body, at=world.clock.time(), epoch=epoch
        )
        rec.refusals = world.refusals
        world.known[rec.base] = rec
        return rec


class World:
    """Everything of one example."""

    def __init__(self, place: Path, *, max_bytes: int = 10_000_000, seed: int = 0) -> None:
        self.random = Random(seed)
        self.max_bytes = max_bytes
        self.clock = WorldClock()
        self.disk = Disk(place / "vendor" / "product" / "state")
        self.processes: list[Process] = []
        self.current: Optional[Process] = None
        self.known: dict[Base, Rec] = {}
        self.books: dict[tuple[str, str, int], Book] = {}
        self.seen: dict[Key, Base] = {}
        self.planted: dict[str, bytes] = {}
        self.unknown_lines: dict[str, list[bytes]] = {}
        self.refusals = self.refused = 0  # begun; the newest epoch of one that returned
        self.step = Step()
        self.serial = 0
        self._fuse: Optional[Fuse] = None
        self._fused: Optional[Process] = None
        self._fault: Optional[tuple[str, int, float]] = None
        self.broken = False
        self.wrong: list[str] = []  # what a callback found
        self.last: Any = None  # the record that is under way
        self._epoch = 0
        self.told: dict[str, int] = {}
        self._stack = mock.patch.multiple(files, sync=self._sync, lock=self._lock)
        self._patches = [self._stack]
        recorder = RecordingOs(self)
        self._patches += [mock.patch.object(module, "os", recorder) for module in PATCHED]
        self._patches += [mock.patch.object(*small) for small in SMALL]
        self._lock_for_real, self._opened_before = files.lock, files._open_now
        for patch in self._patches:
            patch.start()
        self.recorder = recorder

    def shut(self) -> None:
        for process in self.processes:
            if not process.dead:
                process.end()
        for patch in reversed(self._patches):
            patch.stop()
        files._open_now = self._opened_before

    @property
    def at(self) -> float:
        return self.clock.at

    def tell(self, what: str) -> None:
        """Count what happened, for those who want to know whether anything did."""
        self.told[what] = self.told.get(what, 0) + 1

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

    def _sync(self, fd: int) -> None:
        self.tick("sync")
        # A parent that cannot be synced is let be: it may be one that we may not read.
        ours = self.disk.fds.get(fd)
        if (isinstance(ours, int) or ours == self.disk.directory) and self.fault(
            "sync"
        ) is not None:
            raise OSError(errno.EIO, "planned")
        self.disk.synced(fd)

    def _lock(self, fd: int) -> Optional[bool]:
        self.tick("lock")
        return self._lock_for_real(fd)

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
        # A refusal before there was a directory is known to its process alone.
        self._epoch = max([0, *(p.spool.consent._epoch for p in self.processes)])
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
            if rec.ghost_of is process:
                rec.ghost_of = None

    # -- what processes do -----------------------------------------------------------------------

    def new_id(self) -> str:
        self.serial += 1
        return "%08x" % self.serial

    def put(self, process: Process, rec: Rec) -> None:
        """Record, and note what was acknowledged."""
        body = rec.bodies[-1]
        kind = "usage" if rec.usage else "licence"
        record = Record(kind, *rec.base, rec.at, dict(body), epoch=rec.epoch)
        kept = process.spool.record(record, sync=not rec.usage)
        self.tell("recorded: " + kept)
        if kept == DISK:
            rec.must, rec.durable = True, not rec.usage
            self.step.acked[rec.base] = rec.base
        elif kept == MEMORY:
            rec.must, rec.memory_of, rec.ordered = True, process, False
        else:
            assert kept == FULL
            rec.may = self.step.faulty

    def licence(self, process: Process, text: str, *, ordered: bool = True) -> None:
        rec = process.capture("server", self.new_id(), {"text_data": text})
        rec.ordered = ordered
        self.put(process, rec)

    def usage(self, process: Process, text: str, *, ordered: bool = True) -> None:
        epoch = process.spool.consent.current()
        process.spool.consent.current(anchor=True)
        rec = process.capture("reo", self.new_id(), {"activity_type": text}, epoch)
        rec.ordered = ordered
        self.put(process, rec)
        process.counting.unsynced = True

    def count(self, process: Process, activity: str, n: int) -> None:
        process.counting.fold()
        epoch = process.counters._epoch or 0
        process.counting.add(activity, n)
        self.books.setdefault((process.spool.run, activity, epoch), Book()).added += n

    def keep(self, process: Process, *, end: bool = False) -> None:
        run = process.spool.run
        mine = [r for r in self.known.values() if r.run == run and r.must and not r.memory_of]
        process.counting.unsynced = True
        counters_ = process.counters
        self.step.windows += len(counters_.windows()) + len(counters_._added)
        process.counting.keep(end=end)
        if self.step.faulty:
            return
        for rec in mine:
            rec.durable |= not rec.unsure
        if not process.counters.dirty:
            for (of, _, epoch), book in self.books.items():
                if of == run and epoch == process.counters._epoch:
                    book.kept = book.added
                    book.synced = book.synced if book.unsure else book.added

    def deliver(self, process: Process, plan: list[str], *, skip: Any = ALL_WAITS) -> None:
        """One pass, as the courier makes it."""
        spool, delivery = process.spool, process.delivery
        if process.passing:
            return
        claim = spool.claim()
        if claim is None:
            assert self.step.faulty or any(p.passing for p in self.processes)
            return
        assert claim < 0 or not any(p.passing for p in self.processes), "two deliverers"
        process.passing = claim >= 0
        try:
            process.plan = list(plan)
            spool.facts.refresh()
            spool.rescue()
            spool.backlog.refresh()
            delivery.run(timeout_s=lambda: 5.0, skip=skip)
            spool.sweep(self.clock.time() - MAX_AGE_S if delivery.ageing.clock_is_right() else None)
            spool.release(claim)
        finally:
            process.passing = False

    def revive(self, process: Process) -> None:
        """As ``spool replay --dead``."""
        spool = process.spool
        if process.passing:
            return
        claim = spool.claim()
        if claim is None:
            return
        process.passing = claim >= 0
        try:
            spool.backlog.refresh()
            for record in list(spool.backlog.records(dead=True)):
                self.step.unsure.add((record.endpoint, record.id))
                if spool.revive(record):
                    spool.backlog.ledger.end(record, settled=True)
                    self.tell("revived")
            for _ in spool.backlog.records(dead=True):
                pass
            spool.release(claim)
        finally:
            process.passing = False

    def refuse(self, process: Process) -> None:
        self.refusals += 1
        mine = self.refusals
        self.step.refusing = True
        anything = os.path.isdir(self.disk.directory)  # to refuse, and a place for the mark
        process.spool.refuse_usage()
        process.counting.adopt(process.spool.consent.current())
        if "consent: " in process.spool.trouble:
            return
        epoch = process.spool.consent.current()
        for rec in self.known.values():
            if rec.usage and rec.refusals < mine and not rec.cut:
                assert rec.epoch < epoch, "captured before a refusal, and not refused"
        if anything:
            self.refused = max(self.refused, epoch)
        self.tell("refused")

    def leave(self, process: Process) -> None:
        """An orderly exit."""
        self.keep(process, end=True)
        spool = process.spool
        spool.seal()
        claim = None if process.passing else spool.claim()
        if claim is not None:
            process.passing = claim >= 0
            spool.backlog.reap_named(spool.own_segments)
            spool.release(claim)
            process.passing = False
        process.dead = True

    def plant(self, class_: str, texts: list[str]) -> None:
        """A segment that a newer version left behind, with records that we understand."""
        found = []
        for n, text in enumerate(texts):
            if n % 2:
                found.append(jsonline.encode({"v": 2, "k": "licence", "text": text}))
                continue
            usage = class_ == "u"
            base = ("reo" if usage else "server", self.new_id())
            body = {"activity_type" if usage else "text_data": text}
            epoch = consent.ConsentMark(self.disk.directory).current() if usage else 0
            rec = Rec(base, "newer", self.serial, body, at=self.clock.time(), epoch=epoch)
            rec.refusals, rec.must, rec.durable, rec.ordered = self.refusals, True, True, False
            record = Record("usage" if usage else "licence", *base, rec.at, body, epoch=epoch)
            record.run = "newer"
            self.known[base] = rec
            self.step.acked[base] = base
            found.append(jsonline.encode({**record.to_json(), "later": [1]}))
        name = "%s-%012x-%016x.seg" % (class_, int(self.clock.time() * 1000), self.serial)
        self._write(name, b"".join(found))
        self.planted[name] = b"".join(found)

    def plant_line(self, name: str, value: Any) -> None:
        """A line of an unknown kind, behind what a file holds."""
        line = jsonline.encode(value)
        self._write(name, b"\n" + line)
        self.unknown_lines.setdefault(name, []).append(line)

    def _write(self, name: str, content: bytes) -> None:
        os.makedirs(self.disk.directory, 0o700, exist_ok=True)
        path = os.path.join(self.disk.directory, name)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(fd, content)
        os.close(fd)
        self.disk.adopt(name)
        self.disk.made.clear()

    # -- comparison ------------------------------------------------------------------------------

    def look(self) -> list[tuple[Key, bool, Record]]:
        """Every record, as a process that has just started finds it, and what is in memories."""
        reading = Backlog(self.disk.directory, [])
        reading.refresh()
        assert reading.trouble == reading.ledger.trouble == ""
        found = [(record.key, False, record) for record in reading.records()]
        found += [(record.key, True, record) for record in reading.records(dead=True)]
        keys = [key for key, _, _ in found]
        assert len(keys) == len(set(keys)), "one record twice"
        for process in self.processes:
            for record in process.spool.memory if not process.dead else ():
                if not process.spool.backlog.ledger.is_settled(record.key):
                    found.append((record.key, False, record))
        return found

    def take_aggregate(self, record: Record) -> None:
        """A window seen for the first time, or again."""
        base = (record.endpoint, record.id)
        activity = record.body["activity_type"]
        if base not in self.known:
            rec = Rec(base, record.run, 0, None, at=record.at, epoch=record.epoch)
            rec.ordered, rec.activity = False, activity
            rec.refusals = self.refusals
            rec.must = True
            self.known[base] = rec
            book = self.books.get((record.run, activity, record.epoch))
            assert book is not None, "counted by nobody"
            book.windows.add(base)
        rec = self.known[base]
        assert rec.activity == activity
        assert self.step.cut or record.body["count"] >= rec.count, "a sum that shrank"
        rec.count = record.body["count"]

    def compare(self) -> None:
        """Whether the disk agrees with the model; then what is found is what must stay."""
        step = self.step
        assert not self.wrong, self.wrong
        mark = consent.ConsentMark(self.disk.directory)
        epoch = mark.current()
        assert epoch >= self.refused, "a refusal was forgotten"
        self._epoch = max(self._epoch, epoch)
        for rec in self.known.values() if step.cut else ():
            rec.must = rec.must and rec.durable
            rec.may = True
            rec.cut |= not rec.durable
            rec.dup_ok |= bool(rec.accepted)
        now = self._take(self.look())
        if step.faulty:
            for rec in self.known.values():
                rec.unsure |= not rec.durable
            for book in self.books.values():
                book.unsure = True
        if step.cut or step.killed or step.faulty:
            bases = list(now.values())
            for several in {base for base in bases if bases.count(base) > 1}:
                self.known[several].dup_ok = True  # died, and nobody wrote down that it did
        self._explain(now)
        there = set(now.values())
        for rec in self.known.values():
            self._rebase(rec, rec.base in there, epoch)
            rec.durable |= step.cut and rec.base in there
        self.seen = now
        self._sums()
        self._planted()

    def _take(self, found: list[tuple[Key, bool, Record]]) -> dict[Key, Base]:
        """What is there, every content and the order checked."""
        now: dict[Key, Base] = {}
        order: dict[tuple[str, str], int] = {}
        for key, dead, record in found:
            base = (record.endpoint, record.id)
            if record.kind == "aggregate":
                self.take_aggregate(record)
            assert base in self.known, "recorded by nobody: %r" % (base,)
            rec = self.known[base]
            now[key] = base
            if record.kind != "aggregate":
                assert record.body in rec.bodies, "other content"
            if rec.ordered and not dead and key == base and record.kind != "aggregate":
                # In memory are those that the disk refused.
                lane = (record.run, record.endpoint)
                assert order.get(lane, 0) < rec.seq, "out of order"
                order[lane] = rec.seq
        return now

    def _explain(self, now: dict[Key, Base]) -> None:
        """What vanished was settled, refused, or is counted among the dropped."""
        step = self.step
        there = set(now.values())
        fresh = {base for key, base in now.items() if key not in self.seen}
        least, most = 0, step.windows
        for key, base in {**self.seen, **step.acked}.items():
            rec = self.known[base]
            if key in now:
                continue
            if base in step.settled or base in fresh:
                # Perhaps counted first, by a process that made room while this one delivered or revived it.
                most += rec.weight
                continue
            if step.cut and not (rec.must and rec.durable):
                continue
            loose = rec.ghost_of is not None
            if not (rec.must or loose or rec.refused) and base not in there:
                continue  # in the memory of one who died, or it never was
            loose |= rec.refused or (rec.usage and (step.refusing or rec.epoch < self._epoch))
            loose |= (step.killed or step.faulty) and base in step.unsure
            loose |= base in step.unsure and base in there  # revived once more, after a kill
            loose |= rec.dup_ok and rec.accepted > 0  # a copy; the deliverer may remember it
            most += rec.weight
            least += 0 if loose else rec.weight
            if not loose:
                self.tell("dropped")
        # A report that was repeated since a crash lies there twice, and each goes for itself.
        most += sum(rec.weight for rec in self.known.values() if len(rec.bodies) > 1)
        reported = sum(step.reported.values())
        if step.killed or step.faulty:
            assert least <= reported, "%d lost, %d reported" % (least, reported)
        else:
            assert least <= reported <= most, "%d to %d lost, %d reported" % (least, most, reported)
        if not (step.killed or step.faulty or step.cut):
            again = {("server", id) for id in step.reported}  # reported once more since a power cut
            left = (step.settled & there) - self._reborn(now) - again
            assert not left, "settled, and there all the same"

    def _reborn(self, now: dict[Key, Base]) -> set[Base]:
        """Those that died, or came back from that."""
        return {base for key, base in now.items() if key != base}

    def _rebase(self, rec: Rec, there: bool, epoch: int) -> None:
        step = self.step
        if rec.usage and rec.epoch < epoch:
            rec.refused = True
        if there:
            assert rec.may or rec.refused, "it came back"
        if (step.faulty or step.killed) and rec.base in step.unsure:
            rec.dup_ok |= bool(rec.accepted)
            if there and step.faulty and rec.ghost_of is None:
                rec.ghost_of = next((p for p in self.processes if p is self._fused), None)
        rec.must = rec.may = there
        if rec.refused or rec.ghost_of is not None:
            rec.must, rec.may = False, True
        if not there:
            rec.memory_of = None

    def _sums(self) -> None:
        epoch = consent.ConsentMark(self.disk.directory).current()
        for (_, _, of), book in self.books.items():
            total = sum(self.known[base].count for base in book.windows)
            assert total <= book.added, "more than was counted"
            if of < epoch:
                continue
            if self.step.cut:
                for base in book.windows:
                    if not (self.known[base].must or self.known[base].accepted):
                        continue
                assert total >= book.synced, "counts lost"
                book.added = book.kept = book.synced = total
            if self.step.windows and self.step.reported:
                book.kept, book.synced = min(book.kept, total), min(book.synced, total)
            assert total >= book.kept, "counts lost"

    def _planted(self) -> None:
        for name, content in self.planted.items():
            with open(os.path.join(self.disk.directory, name), "rb") as file:
                assert file.read() == content, "a newer format was touched"
        for name, unknown in list(self.unknown_lines.items()):
            path = os.path.join(self.disk.directory, name)
            if not os.path.exists(path):
                assert name != names.FACTS
                del self.unknown_lines[name]
                continue
            with open(path, "rb") as file:
                content = file.read()
            assert all(line in content for line in unknown), "an unknown line was lost"

    # -- the end ---------------------------------------------------------------------------------

    def heal(self) -> None:
        """All processes end, the server is well: everything arrives, and the disk is as good as empty."""
        self.clock.skew_s = 0.0
        for process in list(self.processes):
            self.do(process, self.leave)
        for attempt in range(60):
            if attempt % 5 == 0:
                self.processes.append(Process(self))
            (last,) = self.processes
            self.clock.advance(60.0)  # a clock that went back by days has to be seen ticking
            self.do(last, lambda p: self.deliver(p, []))
            if attempt % 5 == 3:
                self.do(last, self.revive)
            if attempt % 5 == 4:
                self.do(last, self.leave)
                if not any(rec.must for rec in self.known.values()):
                    break
        assert not any(rec.must for rec in self.known.values()), "never delivered"
        found = os.listdir(self.disk.directory) if os.path.isdir(self.disk.directory) else []
        remaining = {name for name in found if name.endswith(".seg")}
        assert remaining <= set(self.planted), "segments that nobody removes"
