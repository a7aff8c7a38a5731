"""The spool of one process: recording on the host's threads, and what the deliverer works on.

Recording appends to this process's own segments and never waits for a deliverer. What the disk refuses stays in
memory, bounded, and moves to the disk when that recovers. Nothing here raises because of the disk.
"""

from __future__ import annotations

import os
from _thread import RLock

from .. import files, jsonline, story
from . import names, records
from .backlog import Backlog
from .consent import ConsentMark
from .facts import HISTORY_BYTES, Facts, History
from .quota import Quota, QuotaFull
from .view import SegmentView
from .writer import SegmentWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Collection, Optional

    from ..clock import Clock
    from .records import Record

DISK, MEMORY, FULL = "disk", "memory", "full"
# Records held while there is no disk; 64 KB each at the very most.
MEMORY_RECORDS = 1000
# For two reports of what was dropped.
ROOM_BYTES = 4096


class Spool:
    """One state directory as this process uses it; ``directory`` None keeps everything in memory."""

    def __init__(
        self,
        directory: Optional[str],
        *,
        clock: Clock,
        max_bytes: int,
        max_records: int,
        power: bool,
        dropped: Callable[..., None],
    ) -> None:
        self.directory = directory
        self._clock, self._power = clock, power
        self._quota = Quota(directory or "", max_bytes, max_records, dropped)
        self.memory: list[Record] = []
        self.facts = Facts(directory, clock)
        self.history = History(directory, min(HISTORY_BYTES, max_bytes // 16))
        self.consent = ConsentMark(directory)
        self._began_at = clock.monotonic()
        self._troubles: dict[str, str] = {}  # by what went wrong, until it goes well
        self._writers: dict[str, SegmentWriter] = {}
        self._renew()

    def _renew(self) -> None:
        self.run = os.urandom(4).hex()  # tells this process's records from all others
        self._lock = RLock()
        self._claimed = -1  # the descriptor of the deliverer's lock, while this process is it
        self._busy = self.lockless = False
        self.own_segments: set[str] = set()
        self._last: dict[str, str] = {}  # by class, the segment last written
        self.backlog = Backlog(self.directory, self.memory, reaping=True, run=self.run)

    @property
    def trouble(self) -> str:
        """What is wrong now; "" for nothing."""
        return "; ".join("%s: %s" % found for found in list(self._troubles.items()))

    def age_s(self) -> float:
        """Seconds that this process has had it, whatever the clock was set to."""
        return self._clock.monotonic() - self._began_at

    def note(self, what: str, error: object = None) -> None:
        """How something ended: with an ``error``, which is named until it ends without one."""
        if error is None:
            if self._troubles.pop(what, None) is not None:
                story.note("%s: no longer in trouble", what)
            return
        found = str(error) or type(error).__name__
        if self._troubles.get(what) != found:
            story.note("trouble with %s: %s", what, found)
        self._troubles[what] = found

    def after_fork(self) -> None:
        """In the child: own locks and segments, nothing of the parent's to settle or to repeat."""
        files.close_inherited()
        for writer in self._writers.values():
            writer.forget()
        self.memory.clear()
        self.consent.after_fork()
        self._renew()

    # -- recording -------------------------------------------------------------------------------

    def record(self, record: Record, *, sync: bool) -> str:
        """Put one record where it survives: ``DISK``, ``MEMORY`` (does not survive) or ``FULL`` (not kept)."""
        record.run = self.run
        kept = self.put(record, sync=sync)
        story.note("recorded %s %s for %s: %s", record.kind, record.id, record.endpoint, kept)
        if kept == DISK or (kept == FULL and record.usage) or len(self.memory) >= MEMORY_RECORDS:
            return DISK if kept == DISK else FULL
        self.memory.append(record)  # what finds no room in the quota may still be sent by this run
        return MEMORY

    def put(self, record: Record, *, sync: bool) -> str:
        """Append a record as it is to the segments of its class, or don't."""
        classes = names.DEAD_LICENCE + names.DEAD_USAGE if record.why else "lu"
        return self.append(classes[record.usage], record.to_json(), sync=sync)

    def append(self, class_: str, value: dict[str, Any], *, sync: bool) -> str:
        """Append one line to the open segment of a class; ``MEMORY`` when the disk refuses it."""
        if self.directory is None:
            return MEMORY
        if value["k"] != "count":
            value.setdefault("r", self.run)
        line = jsonline.encode(value)
        with self._lock:
            # A signal handler or a destructor may interrupt us here, on our own thread.
            reentered, self._busy = self._busy, True
            try:
                writer = self._writer(class_, alone=reentered)
                writer.append(line, sync=sync and self._power)
                self._last[class_] = writer.name or ""
                self.own_segments.add(self._last[class_])
                self.lockless |= writer.lockless
                if reentered:
                    writer.seal()
                if not self.memory:  # else some do not survive, though this one does
                    self.note("write")
                    self.note("quota")
                return DISK
            except QuotaFull as error:
                self.note("quota", error)
                return FULL
            except OSError as error:
                self.note("write", error)
                return MEMORY
            finally:
                self._busy = reentered

    def _writer(self, class_: str, *, alone: bool) -> SegmentWriter:
        """The writer of a class; ``alone`` one beside that which is in the middle of an append."""
        writer = self._writers.get(class_)
        if writer is None or alone:
            place, power = self.directory or "", self._power
            writer = SegmentWriter(
                place, class_, self._quota, self._clock, power=power, alone=alone
            )
            if not alone:
                self._writers[class_] = writer
        return writer

    def segment_of(self, class_: str) -> Optional[str]:
        """The name of the segment that was written last and may be again."""
        return self._last.get(class_)

    def sync(self) -> bool:
        """Make everything appended so far survive a power cut; False where a disk refused."""
        with self._lock:
            self.note("sync")
            for writer in list(self._writers.values()) if self._power else ():
                try:
                    writer.sync()
                except OSError as error:
                    self.note("sync", error)
                    writer.abandon()
            return "sync" not in self._troubles

    def seal(self, classes: str = names.EVICTION) -> None:
        """End the open segments of these classes."""
        with self._lock:
            for class_, writer in list(self._writers.items()):
                if class_ in classes:
                    writer.seal()
                    self._last.pop(class_, None)

    def rescue(self) -> None:
        """Move records from memory to the disk, once it takes them again; see whether what was wrong still is."""
        for record in list(self.memory):
            if self.put(record, sync=True) != DISK:
                return
            self.backlog.forget_memory(record)
        if self._troubles and self.directory is not None:
            self._recheck(self.directory)

    def _recheck(self, directory: str) -> None:
        if "consent" in self._troubles:
            self.consent.current(anchor=True)  # the epoch that a refusal began here
            if self.consent.anchored:
                self.note("consent")
        if "quota" in self._troubles:
            self.make_room()
        try:
            files.ensure_directory(directory)
            probe = os.path.join(directory, "%s.%s.tmp" % (names.FACTS, os.urandom(8).hex()))
            files.write_new(probe, b"\n")
            files.remove(probe)
            for what in ("write", "sync", "purge", "dead letters"):
                self.note(what)
        except OSError as error:
            self.note("write", error)

    # -- consent ---------------------------------------------------------------------------------

    def refuse_usage(self, licence_lanes: Optional[Collection[str]] = None) -> None:
        """Purge all usage and leave the mark that keeps what other processes hold from being sent.

        The purge happens whatever becomes of the mark; a mark that found no room is tried again behind it. What
        answers about usage said goes too, but for lanes only where it is known which are ``licence_lanes``.
        """
        for record in list(self.memory):
            if record.usage:
                self.backlog.forget_memory(record)
        marked = False
        try:
            marked = self._mark_refusal()
        finally:
            try:
                self._purge_usage()
                self.history.forget_usage()
                if licence_lanes is not None:
                    self.facts.forget_reasons(licence_lanes)
            except OSError as error:
                self.note("purge", error)
            finally:
                if not marked:
                    self._mark_refusal()

    def _mark_refusal(self) -> bool:
        try:
            self.consent.refuse(self._clock.time())
            self.note("consent")
            return True
        except Exception as error:
            self.note("consent", error)
            return False

    def _purge_usage(self) -> None:
        self.note("purge")
        try:
            self.seal(names.USAGE_CLASSES)
            segments = names.listing(self.directory)[0] if self.directory is not None else []
        except OSError as error:
            self.note("purge", error)
            return
        for name in segments:
            if name[0] in names.USAGE_CLASSES:
                try:
                    SegmentView(self.directory or "", name).purge()
                except Exception as error:  # one that cannot be read costs only itself
                    self.note("purge", error)
        if self.directory is not None:  # it may hold pieces of usage
            files.remove(os.path.join(self.directory, names.DAMAGED))

    # -- delivering ------------------------------------------------------------------------------

    def claim(self) -> Optional[int]:
        """Become the one deliverer: a descriptor to ``release``, None while another process is.

        Where locks do not work delivery goes on without, and duplicates are possible.
        """
        if self._claimed >= 0:  # Ctrl-C broke off whoever had it, in the middle of giving it back
            self.release(self._claimed)
        self.note("lock")
        fd, held = -1, None
        if self.directory is not None and os.path.isdir(self.directory):
            try:
                path = os.path.join(self.directory, names.LOCK)
                self._claimed = fd = files.open_append(path)
                held = files.hold(fd, path)
            except OSError as error:
                self.note("lock", error)
            if held is False:
                self._claimed = -1
                files.close(fd)
                return None
            self.lockless |= held is None
        self.backlog.ledger.alone = held is True
        return fd

    def release(self, claim: int) -> None:
        """Let another process deliver."""
        self.backlog.ledger.close()
        self._claimed = -1
        if claim >= 0:
            files.release(claim)

    def sweep(self, expired_before_at: Optional[float]) -> None:
        """Tidy up after a pass; what was left alone since ``expired_before_at`` goes, None for never.

        That is dead letters, and the marks of imports.
        """
        self.backlog.sweep(expired_before_at)
        self.facts.compact()
        if expired_before_at is not None and self.directory is not None:
            self._trim_dead(expired_before_at)

    def _trim_dead(self, before_at: float = 0.0) -> None:
        self._beside("dead letters", lambda: self._quota.trim_dead(before_at))

    def room(self) -> tuple[int, int]:
        """(bytes, records) that may be added before any are evicted; raises ``OSError``."""
        with self._lock:
            return self._quota.look(exact=True)

    def make_room(self) -> None:
        """Evict now what the next records would have evicted."""
        if self.directory is not None:
            self._beside("quota", lambda: self._quota.lease(ROOM_BYTES))

    def _beside(self, what: str, act: Callable[[], object]) -> None:
        with self._lock:
            reentered, self._busy = self._busy, True  # reports go beside, as in ``append``
            try:
                if not reentered:
                    act()
                self.note(what)
            except OSError as error:
                self.note(what, error)
            finally:
                self._busy = reentered

    def bury(self, record: Record, why: str) -> bool:
        """Make a dead letter of a record, with the reason; False where the disk refuses."""
        if self.directory is None:
            return True
        dead = records.reborn(record, why=why[:200] or "refused", revived=record.revived)
        self._trim_dead()
        return self.put(dead, sync=True) == DISK

    def revive(self, record: Record) -> bool:
        """Bring a dead letter back among the records that wait; False where the disk refuses."""
        again = records.reborn(record, why="", revived=record.revived + 1)
        return self.put(again, sync=True) == DISK
