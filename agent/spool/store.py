"""The spool of one process: recording on the host's threads, and what the one deliverer works on.

Recording appends to this process's own segments and waits for no deliverer. What the disk refuses stays in memory,
bounded, until the next claim. Nothing here raises because of the disk.
"""

from __future__ import annotations

import os
from _thread import RLock

from .. import TYPE_CHECKING, files, lines
from . import segment
from .backlog import Backlog, Quota
from .book import DROPPED, REJECTED, SETTLED, UNTRIED, Book
from .record import DROPPED as REPORT, Consent, Record
from .segment import COUNTERS, LICENCE, USAGE, QuotaFull, Writer

if TYPE_CHECKING:
    from typing import Any, Collection, Iterator, Optional

    from ..values import Core, Verdict

DISK, MEMORY, FULL = "disk", "memory", "full"
# Troubles that a pass meets again while they last.
PASSING = ("write", "sync", "counters", "quota", "purge", "lock", "tidy")
# Outcomes that no server said.
NO_ANSWER = ("offline", "withheld")
# Records held while the disk refuses; 64 KB each at the very most.
MEMORY_RECORDS = 1000
# This part of the quota the deliverer keeps free, so that a host's thread seldom evicts.
SPARE = 16


class Spool:
    """One state directory as this process uses it; ``directory`` None keeps everything in memory::

    record(record, sync=True)            on any thread; DISK when it survives this process
    claim()                              the lock; memory -> disk; read what is new
      for record in waiting(doubted):
        try_(record)                     before the first byte
        answer(record, verdict, at)      what came of it
    release()                            reap, compact, let go
    """

    def __init__(self, directory: Optional[str], core: Core) -> None:
        self.directory, self._clock, self._report = directory, core.clock, core.report
        self._power = core.config.durability == "power"
        self._bounds = core.config.max_bytes, core.config.max_records
        self.trouble: dict[str, str] = {}  # what is wrong now, by kind
        self.memory: list[Record] = []
        self.not_recorded: dict[str, int] = {}  # by this process: why, and how many
        self.consent = Consent(directory)
        self._begin()

    def _begin(self) -> None:
        self.run = os.urandom(4).hex()  # tells this process's records from all others
        self.news = object()  # another one whenever something was recorded
        self.not_recorded.clear()
        self.claimed = False
        self._lock = RLock()
        self._claim: Optional[files.File] = None
        self.book = Book(self.directory, self.run, self._bounds[0])
        self.backlog = Backlog(self.directory, self.book, self.consent.look)
        self._quota = Quota(self.backlog, self._bounds, self._tell_dropped)
        most, place = self._quota.segment_most, self.directory or ""
        self._writer = Writer(place, self._clock, self._power, most)

    def after_fork(self) -> None:
        """In the child: own locks and segments, nothing of the parent's to settle or to repeat."""
        try:
            files.close_inherited(segment.paths(self.directory or ""))
        except OSError:
            pass  # no directory; or no descriptor is left to look with
        self.memory.clear()
        self._begin()

    def note(self, what: str, error: object = None) -> None:
        """How something ended: with an ``error``, which is told until it ends without one."""
        if error is None:
            self.trouble.pop(what, None)
        else:
            self.trouble[what] = str(error) or type(error).__name__

    def lost(self, why: str, n: int = 1) -> None:
        """Count what was not recorded, or not durably."""
        if n:
            self.not_recorded[why] = self.not_recorded.get(why, 0) + n

    # -- recording ----

    def record(self, record: Record, *, sync: bool) -> str:
        """Put one record where it survives: DISK, MEMORY (only while this process lives) or FULL (not kept)."""
        kept = self._append(record, sync=sync)
        # Licence records that find no room in the quota may still be sent by this run.
        if kept != DISK and (kept == MEMORY or not record.usage):
            kept = MEMORY if len(self.memory) < MEMORY_RECORDS else FULL
            if kept == MEMORY:
                self.memory.append(record)
        self.news = object()
        return kept

    def _append(self, record: Record, *, sync: bool, bounded: bool = True) -> str:
        record.run = record.run or self.run
        data, class_ = lines.encode(record.to_json()), USAGE if record.usage else LICENCE
        return self._write("write", class_, data, sync, self._quota.lease if bounded else None)

    def _write(self, what: str, *given: Any) -> str:
        """What becomes of what is ``given`` to the writer."""
        try:
            if self.directory is None:
                return MEMORY
            with self._lock:
                self._writer.write(*given)
        except QuotaFull as error:
            self.note("quota", error)
            return FULL
        except Exception as error:  # the host may have hooked what is called here
            self.note(what, error)
            return MEMORY
        if not self.memory:  # else some do not survive, though this one does
            self.trouble.pop(what, None)
        return DISK

    def _tell_dropped(
        self, gone: Collection[Record], newer: int = 0, names: Collection[str] = ()
    ) -> None:
        """Have on disk that these records go, and so many lines of a newer format; raises ``OSError``.

        A report that goes hands its count on; told again after a crash it has the same id.
        """
        count = newer + sum(record.weight for record in gone)
        drawn = lines.encode([*names, *sorted(record.key for record in gone)])
        id = "%s%s-%d" % (REPORT, lines.sha256(drawn).hexdigest()[:16], count)
        record = self._report(count, id)
        if record is not None:
            if self._append(record, sync=True, bounded=False) != DISK:
                raise OSError("the report of dropped records cannot be written")
        told = sum(record.weight for record in gone if record.id.startswith(REPORT))
        self.lost("dropped", count - told)

    def keep_counters(self, changed: Collection[Record], open_: Collection[Record]) -> bool:
        """Put changed totals on disk, synced; False where it refuses. ``open_`` are all windows that go on."""
        if not changed:
            return True
        text, opening = self._encode(changed), self._encode(open_)
        kept = self._write("counters", COUNTERS, text, True, self._quota.lease, opening)
        if not open_:
            self.seal((COUNTERS,))
        self.news = object()
        return kept == DISK

    def _encode(self, records: Collection[Record]) -> bytes:
        for record in records:
            record.run = record.run or self.run
        return b"".join(lines.encode(record.to_json()) for record in records)

    def sync(self) -> bool:
        """Make everything appended so far survive a power cut; False where the disk refuses."""
        with self._lock:
            error = self._writer.sync()
        self.note("sync", error)
        return error is None

    def seal(self, which: Collection[str] = segment.CLASSES) -> None:
        """End the open segments of these classes, or names."""
        with self._lock:
            self._writer.seal(which)

    # -- consent ----

    def refuse_usage(self) -> None:
        """Purge all usage, and begin the next epoch so that nobody sends what others hold. Raises nothing."""
        self.memory[:] = [record for record in self.memory if not record.usage]
        self.note("purge")
        try:
            self.consent.refuse()
            self._purge()
            if self.consent.blocked:  # there was no room for the dot: now there may be
                self.consent.refuse()
        except Exception as error:
            self.note("purge", error)
        self.note("consent", "a refusal could not be written" if self.consent.blocked else None)

    def _purge(self) -> None:
        """End the segments of usage, whose writers notice. Temporary files may hold usage too."""
        self.seal((USAGE, COUNTERS))
        if self.directory is None or not os.path.isdir(self.directory):
            return
        for path in segment.paths(self.directory):
            if path.endswith(segment.TEMPORARY):
                files.remove(path)
            elif path.endswith(segment.SUFFIX) and os.path.basename(path)[0] != LICENCE:
                if not segment.end(path):
                    self.note("purge", "usage could not be removed: %s" % path)

    # -- delivering: one thread ----

    def claim(self) -> bool:
        """Become the one deliverer of this directory; False while another process is.

        Where locks do not work, or their file cannot be made, delivery goes on without.
        """
        self._let_go()  # Ctrl-C may have broken off whoever had it, in the middle of giving it back
        for what in PASSING:
            self.trouble.pop(what, None)
        if self.consent.blocked:
            self.refuse_usage()
        for record in list(self.memory):
            if self._append(record, sync=True) != DISK:
                break
            self.forget(record)
        held: Optional[bool] = True
        try:
            if self.directory is not None:
                segment.clear_way(self.directory)
            self._claim = files.open_append(os.path.join(self.directory or "", segment.LOCK))
            held = self._claim.hold()
        except FileNotFoundError:
            pass  # there is no directory
        except OSError as error:
            held = None
            self.note("lock", error)
        if held is False:
            self._let_go()
            return False
        self.claimed, self.book.alone = True, held is True
        self.refresh(delivering=True)
        return True

    def _let_go(self) -> None:
        if self._claim is not None:
            self._claim.close()
        self._claim, self.claimed = None, False

    def refresh(self, *, delivering: bool = False) -> None:
        """Read what other processes recorded, delivered and noted."""
        self.backlog.refresh(delivering=delivering)
        if self.backlog.trouble or self.trouble:
            self.note("read", self.backlog.trouble or None)

    def release(self) -> None:
        """Let another process deliver, what is done with removed; safe when not claimed."""
        try:
            if self._claim is not None:
                self._tidy()
        except Exception as error:
            self.note("tidy", error)
        finally:
            self._let_go()

    def _tidy(self) -> None:
        winners = self.backlog.winners()
        done = self.backlog.names_done(winners)
        self.seal([name for name in done if name[0] != COUNTERS])
        self.backlog.reap(done, winners)
        if not self.backlog.trouble:  # else what is not read would lose its answers
            self.book.compact(self.backlog.winners)
        with self._lock:
            self._quota.make_room(*[most // SPARE for most in self._bounds])

    def waiting(self, doubted: Collection[str]) -> Iterator[Record]:
        """Every record that can be sent now, in the order of its turn; those in memory last."""
        yield from self.backlog.waiting(doubted)
        for record in list(self.memory):
            if record in self.memory and not self.book.states.get(record.key, UNTRIED).settled:
                yield record

    def left_open(self, endpoint: str) -> list[str]:
        """The other runs that ended in the middle of a request there, and left the record; as far as it is read."""
        keys = [stub.key for stub in self.backlog.pending() if stub.endpoint == endpoint]
        states = [self.book.states.get(key, UNTRIED) for key in keys]
        return [state.run for state in states if state.left_open]

    def try_(self, record: Record, *, sync: bool = False) -> bool:
        """Note an attempt before its first byte; False where a record on disk could never be settled.

        ``sync``: it is the first of an aggregate, whose line and origin must not change any more.
        """
        known = self.book.states.get(record.key, UNTRIED).origin
        origin = {n: record.body[n] for n in ("domain", "ip_addr") if sync and record.body.get(n)}
        durable = sync and self._power
        changes: Any = {"run": self.run, "origin": known or origin}
        written = self.book.change(record.key, sync=durable, **changes)
        if not record.place[0] or (written and not durable):
            return True
        try:  # a full disk can be truncated
            path = os.path.join(self.directory or "", record.place[0])
            with files.open_append(path, missing_ok=False) as file:
                if durable:
                    file.sync()
                    files.sync_directory(self.directory or "")
            return written or not sync
        except OSError as error:
            self.note("write", error)
            return False

    def answer(
        self, record: Record, verdict: Verdict, at: float, *, failed: bool = False, counted: int = 0
    ) -> None:
        """Note what an attempt came to: the record settled, or a dead letter, or its numbers rise by this."""
        state, outcome = self.book.states.get(record.key, UNTRIED), verdict.outcome
        changes: dict[str, Any] = {"run": "", "failed": state.failed + failed}
        changes["counted"] = state.counted + counted
        if outcome not in NO_ANSWER:
            changes.update(verdict=outcome, at=at, code=verdict.code, kind=record.kind)
            # What a usage server writes may repeat what was recorded.
            text = {"reason": verdict.reason, "errors": verdict.errors}
            changes.update({"epoch": record.epoch} if record.usage else text)
        ended = outcome in SETTLED or outcome == REJECTED
        self.book.change(record.key, **changes, outcome=outcome * ended)
        if ended:
            self.forget(record)

    def forget(self, record: Record) -> None:
        """Keep nothing in memory of a record that is settled, or was refused meanwhile."""
        try:
            self.memory.remove(record)
        except ValueError:
            pass  # a refusal, on another thread, was quicker; or it is on disk

    def drop(self, records: Collection[Record], *, why: str) -> int:
        """Let records go, for their "age", by "purge" or after an "export"; how many went. Age is reported first."""
        gone = {r.key: r for r in records if not self.book.states.get(r.key, UNTRIED).settled}
        if gone and why == "age" and self.directory is not None:
            try:
                self._tell_dropped(gone.values())
            except OSError:
                return 0
        for key, record in gone.items():
            self.book.change(key, outcome=DROPPED)
            self.forget(record)
        return len(gone)

    def revive(self) -> int:
        """Have all dead letters wait again; how many."""
        dead = [(r.key, self.book.states[r.key].revived) for r in self.backlog.pending(dead=True)]
        anew: Any = {"run": "", "failed": 0, "counted": 0, "outcome": ""}
        return sum(self.book.change(key, **anew, revived=times + 1) for key, times in dead)

    # -- looking: anybody, without a lock ----

    def count(self) -> dict[str, Any]:
        """How many records wait, by endpoint, are dead, damaged, of a newer format."""
        self.refresh()
        return self.backlog.count(list(self.memory))

    def census(self) -> dict[str, Any]:
        """The same, what all files take, and what is wrong."""
        found, size = self.count(), 0
        try:
            with self._lock:  # somebody may be evicting by what was measured
                size = self._quota.look()
        except Exception:
            pass  # there is no directory, perhaps
        known = {"bytes": size, "in_memory": len(self.memory), "trouble": dict(self.trouble)}
        return {**found, **known}

    def records(self, *, dead: bool = False) -> Iterator[Record]:
        """What waits, or the dead letters, each once, counting windows that are still open too."""
        self.refresh()
        for stub in self.backlog.pending(dead=dead):
            record = self.backlog.load(stub)
            if record is not None:
                yield record
        if not dead:
            yield from list(self.memory)

    def history(self, limit: int) -> list[dict[str, Any]]:
        """The last answers, oldest first; those about usage only while its consent stands."""
        self.refresh()
        epoch, found = self.consent.look(), []
        for line in list(self.book.answers.values()):
            if line.get("kind") == "licence" or line.get("epoch", 0) == epoch:
                answer = {"endpoint": line["e"], "event_id": line["id"], "reason": ""}
                told = ("verdict", "at", "code", "reason", "kind")
                answer.update({name: line[name] for name in told if name in line})
                found.append({**answer, "errors": line.get("errors") or {}})
        return found[-limit:] if limit > 0 else []
