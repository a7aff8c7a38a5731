"""The spool of one process: recording on the host's threads, and what the one deliverer works on.

Recording appends to this process's own segments and never waits for a deliverer. What the disk refuses stays in memory,
bounded, and moves to the disk at the next claim. Nothing here raises because of the disk.
"""

from __future__ import annotations

import os
from _thread import RLock

from .. import files, lines
from . import segment
from .backlog import Backlog, Quota, QuotaFull
from .book import DROPPED, Book
from .segment import COUNTERS, LICENCE, USAGE, Segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import Any, Optional

    from ..clock import Clock
    from ..files import File
    from ..values import Verdict
    from .book import State
    from .record import Record

DISK, MEMORY, FULL = "disk", "memory", "full"
# Records held while the disk refuses; 64 KB each at the very most.
MEMORY_RECORDS = 1000
# So much of the quota the deliverer keeps free, so that a host's thread seldom evicts.
SPARE = 16
# How often the lock of the consent file is tried before it is done without.
CONSENT_TRIES, CONSENT_REST_S = 20, 0.01


class Consent:
    """The epoch of consent: the size of ``agent.consent``, which holds dots; 0 is none.

    Usage is recorded under the epoch of its time and sent only while that is the size. Whoever refuses adds a dot. It is
    asked by open and ``fstat``: over a network a name's attributes may be old.
    """

    def __init__(self, directory: Optional[str]) -> None:
        self._path = os.path.join(directory, segment.CONSENT) if directory is not None else None
        self._epoch = 1  # without a directory
        self.blocked = (
            False  # a refusal could not be written down: nothing is captured or sent here
        )

    def current(self) -> int:
        """The epoch now; 0 where there is none, or it cannot be read, or a refusal could not be written."""
        return self.look() or 0

    def look(self) -> Optional[int]:
        """The same, but None where it cannot be read: then nobody knows what is refused."""
        if self._path is None or self.blocked:
            return 0 if self.blocked else self._epoch
        try:
            file = files.open_read(self._path)
        except FileNotFoundError:
            return 0
        except OSError:
            return None
        try:
            return file.stat().st_size
        except OSError:
            return None
        finally:
            file.close()

    def ensure(self) -> int:
        """The epoch, begun if there is none; 0 where that fails. One made anew equals an old one but by chance."""
        if self.blocked:
            self.refuse()
        epoch = self.current()
        if epoch or self._path is None or self.blocked:
            return epoch
        try:
            files.ensure_directory(os.path.dirname(self._path))
            self._remove_empty()
            self._make(b"." * (os.urandom(1)[0] or 1))
        except OSError:
            pass
        return self.current()

    def _make(self, dots: bytes) -> None:
        """The whole file in one step, or somebody else's."""
        path = self._path or ""
        temporary = "%s.%s%s" % (path, os.urandom(8).hex(), segment.TEMPORARY)
        try:
            files.write_new(temporary, dots)
            os.link(temporary, path)
        except FileExistsError:
            return
        except (OSError, AttributeError):  # a file system without links
            files.write_new(path, dots)
        finally:
            files.remove(temporary)
        files.sync_directory(os.path.dirname(path))

    def _remove_empty(self) -> None:
        """An empty file is what a power cut left, and not an epoch; under its lock, or somebody's new one might go."""
        try:
            file = files.open_append(self._path or "", missing_ok=False)
        except FileNotFoundError:
            return
        try:
            if file.hold() is not False and file.stat().st_size == 0:
                files.remove(file.path)
        finally:
            file.close()

    def refuse(self) -> None:
        """Begin the next epoch, where there is one; ``blocked`` says that this failed."""
        if self._path is None:
            self._epoch += 1
            return
        try:
            file = files.open_append(self._path, missing_ok=False)
        except FileNotFoundError:
            self.blocked = False  # nothing was captured that may be sent
            return
        except OSError:
            self.blocked = True
            return
        try:
            self._wait_for(file)
            file.write(b".")
            file.sync()
            self.blocked = False
        except OSError:
            self.blocked = True
        finally:
            file.close()

    @staticmethod
    def _wait_for(file: File) -> None:
        """Appends are not atomic everywhere: on Windows 6,000 dots gave 5,383."""
        import time

        for _ in range(CONSENT_TRIES):
            if file.lock() is not False:
                return
            time.sleep(CONSENT_REST_S)


class Spool:
    """One state directory as this process uses it; ``directory`` None keeps everything in memory::

    record(record, sync=True)            on any thread; DISK when it survives this process
    claim()                              the lock; memory -> disk; read what is new
      for record in waiting(doubted):
        try_(record)                     before the first byte
        answer(record, verdict, at)      or end(record, ...)
    release()                            reap, compact, let go
    """

    def __init__(
        self,
        directory: Optional[str],
        *,
        clock: Clock,
        max_bytes: int,
        max_records: int,
        power: bool,
        report: Callable[[int, str], Optional[Record]],
    ) -> None:
        self.directory, self.trouble = directory, {}
        self._clock, self._power, self._report = clock, power, report
        self._bounds = max_bytes, max_records
        self._began_at = clock.monotonic()
        self.memory: list[Record] = []
        self.consent = Consent(directory)
        self._begin()

    trouble: dict[str, str]  # what is wrong now, by kind

    def _begin(self) -> None:
        self.run = os.urandom(4).hex()  # tells this process's records from all others
        self.news = object()  # another one whenever something was recorded
        self.lockless = False
        self._lock = RLock()
        self._busy = False  # in the middle of an append
        self._open: dict[str, Segment] = {}
        self._last_ms = 0
        self.claimed = False
        self._claim: Optional[File] = None
        self._quota = Quota(self.directory or "", *self._bounds)
        self._book = Book(self.directory, self.run, self._bounds[0])
        self._backlog = Backlog(self.directory, self._book, self.consent.look)

    def age_s(self) -> float:
        """Seconds that this process has had it, whatever the clock was set to."""
        return self._clock.monotonic() - self._began_at

    def note(self, what: str, error: object = None) -> None:
        """How something ended: with an ``error``, which is told until it ends without one."""
        if error is None:
            self.trouble.pop(what, None)
        else:
            self.trouble[what] = str(error) or type(error).__name__

    def after_fork(self) -> None:
        """In the child: own locks and segments, nothing of the parent's to settle or to repeat."""
        files.close_inherited()
        self.memory.clear()
        self._begin()

    # -- recording -------------------------------------------------------------------------------

    def record(self, record: Record, *, sync: bool) -> str:
        """Put one record where it survives: DISK, MEMORY (only while this process lives) or FULL (not kept)."""
        record.run = record.run or self.run
        kept = self._append(record, sync=sync)
        # Licence records that find no room in the quota may still be sent by this run.
        if kept != DISK and (kept == MEMORY or not record.usage):
            kept = MEMORY if len(self.memory) < MEMORY_RECORDS else FULL
            if kept == MEMORY:
                self.memory.append(record)
        self.news = object()
        return kept

    def _append(self, record: Record, *, sync: bool, bounded: bool = True) -> str:
        if self.directory is None:
            return MEMORY
        try:
            data = lines.encode(record.to_json())
            class_ = USAGE if record.usage else LICENCE
            with self._lock:
                # A signal handler may interrupt an append on this very thread: what it records goes beside.
                alone, self._busy = self._busy, True
                try:
                    self._write(class_, data, sync and self._power, alone, bounded)
                finally:
                    self._busy = alone
        except QuotaFull as error:
            self.note("quota", error)
            return FULL
        except Exception as error:  # the host may have hooked what is called here
            self.note("write", error)
            return MEMORY
        self.note("quota")
        self.note("write")
        return DISK

    def _write(self, class_: str, data: bytes, sync: bool, alone: bool, bounded: bool) -> None:
        """One line into the open segment of a class; once more into a new one where that refuses it."""
        for again in (False, True):
            target = None
            try:
                target = self._segment(class_, len(data), alone=alone, again=again, bounded=bounded)
                target.append(data, sync=sync)
                return
            except OSError as error:
                self._drop_open(class_, target)
                if again or isinstance(error, QuotaFull):
                    raise
            except BaseException:  # nobody knows how far we came
                self._drop_open(class_, target)
                raise
            finally:
                if alone and target is not None:
                    target.close(sync=sync)

    def _segment(
        self, class_: str, size: int, *, alone: bool, again: bool, bounded: bool
    ) -> Segment:
        """The open segment of a class with room for ``size`` more, or another."""
        directory, quota = self.directory or "", self._quota
        found = None if alone else self._open.get(class_)
        if found is not None and (
            found.size + size > quota.segment_bytes or found.count >= quota.segment_records
        ):
            self._drop_open(class_, found)
            found = None
        if found is None:
            files.ensure_directory(directory)
        if bounded:
            quota.lease(size, anew=found is None, evict=self._evict)
        if found is None and not (alone or again or class_ == COUNTERS):
            # After a failure nothing is adopted: the next sync of a file may succeed without the pages that were lost.
            found = segment.adopt(
                directory, class_, quota.segment_bytes // 2, quota.segment_records
            )
        if found is None:
            # Within a run the order of names is the order of creation, whatever the clock does.
            self._last_ms = max(int(self._clock.time() * 1000), self._last_ms + 1, 0)
            found = segment.begin(directory, class_, self._last_ms)
            self.lockless |= found.lockless
        if not alone:
            self._open[class_] = found
        return found

    def _drop_open(self, class_: str, target: Optional[Segment]) -> None:
        if target is not None:
            if self._open.get(class_) is target:
                del self._open[class_]
            target.close(sync=self._power)

    def _evict(self, size: int, count: int) -> None:
        self._quota.evict(size, count, self._backlog, self._tell_dropped)

    def _tell_dropped(self, count: int, id: str) -> None:
        """Have on disk that so many records go; raises ``OSError``."""
        record = self._report(count, id)
        if record is not None:
            record.run = record.run or self.run
            if self._append(record, sync=True, bounded=False) != DISK:
                raise OSError("the report of dropped records cannot be written")

    def keep_counters(self, changed: Collection[Record], open_: Collection[Record]) -> bool:
        """Put changed totals on disk, synced; False where it refuses.

        A full segment is let go only after its successor holds every open window, synced: a window between two
        segments was taken for closed, and sent with 5 of 40.
        """
        if not changed:
            return True
        if self.directory is None:
            return False
        with self._lock:
            if self._busy:
                return False
            self._busy = True
            try:
                self._keep_counters(changed, open_)
                self.news = object()
                self.note("counters")
                return True
            except Exception as error:
                self.note("counters", error)
                return False
            finally:
                self._busy = False

    def _keep_counters(self, changed: Collection[Record], open_: Collection[Record]) -> None:
        for record in (*changed, *open_):
            record.run = self.run
        data = b"".join(lines.encode(record.to_json()) for record in changed)
        old = self._open.get(COUNTERS)
        kept = False
        if old is not None and not old.failed:
            if old.size + len(data) <= self._quota.segment_bytes:
                self._quota.lease(len(data), anew=False, evict=self._evict)
                kept = _is_appended(old, data, sync=self._power)
        if not kept:
            self._move_counters(old, {r.key: r for r in (*open_, *changed)})
        if not open_:
            self._drop_open(COUNTERS, self._open.get(COUNTERS))

    def _move_counters(self, old: Optional[Segment], windows: dict[Any, Record]) -> None:
        data = b"".join(lines.encode(record.to_json()) for record in windows.values())
        self._open.pop(COUNTERS, None)
        try:
            fresh = self._segment(COUNTERS, len(data), alone=False, again=True, bounded=True)
            fresh.append(data, sync=self._power)
        except BaseException:
            self._drop_open(COUNTERS, self._open.get(COUNTERS))
            if old is not None:
                self._open[COUNTERS] = old  # its lock says that the windows in it go on
            raise
        if old is not None:
            old.close(sync=self._power)

    def sync(self) -> bool:
        """Make everything appended so far survive a power cut; False where the disk refuses."""
        with self._lock:
            whole = True
            for class_, target in list(self._open.items()) if self._power else ():
                try:
                    target.sync()
                except OSError as error:
                    whole = False
                    self.note("sync", error)
                    if class_ != COUNTERS:
                        self._drop_open(class_, target)
        if whole:
            self.note("sync")
        return whole

    def seal(self, classes: Collection[str] = segment.CLASSES) -> None:
        """End the open segments of these classes."""
        with self._lock:
            for class_ in classes:
                self._drop_open(class_, self._open.get(class_))

    # -- consent ---------------------------------------------------------------------------------

    def refuse_usage(self) -> None:
        """Purge all usage, begin the next epoch so that nobody sends what others hold of it. Raises nothing."""
        self.memory[:] = [record for record in self.memory if not record.usage]
        try:
            self.consent.refuse()
            self._purge()
            if self.consent.blocked:  # there was no room for the dot: now there is
                self.consent.refuse()
        except Exception as error:
            self.note("purge", error)
        self.note("consent", "a refusal could not be written" if self.consent.blocked else None)

    def _purge(self) -> None:
        """End the segments of usage, their writers alive or not: they notice."""
        self.note("purge")
        self.seal((USAGE, COUNTERS))
        directory = self.directory or ""
        try:
            entries = os.listdir(directory) if directory else []
        except FileNotFoundError:
            return
        for name in filter(segment.is_ours, entries):
            path = os.path.join(directory, name)
            if name.endswith(segment.TEMPORARY):  # it may hold pieces of usage
                files.remove(path)
            elif segment.is_segment(name) and name[0] in (USAGE, COUNTERS):
                try:
                    if not segment.destroy(files.open_append(path, missing_ok=False)):
                        raise OSError("usage could not be removed")
                except FileNotFoundError:
                    pass
                except OSError as error:
                    self.note("purge", error)

    # -- delivering: one thread ------------------------------------------------------------------

    def claim(self) -> bool:
        """Become the one deliverer of this directory; False while another process is.

        Where locks do not work, or their file cannot be made, delivery goes on without, and duplicates are possible.
        """
        self._let_go()  # Ctrl-C broke off whoever had it, in the middle of giving it back
        self.note("lock")
        held: Optional[bool] = None
        if self.directory is not None and os.path.isdir(self.directory):
            try:
                self._claim = files.open_append(os.path.join(self.directory, segment.LOCK))
                held = self._claim.hold()
            except OSError as error:
                self.note("lock", error)
            if held is False:
                self._let_go()
                return False
            self.lockless |= held is None
        self._book.alone = held is True
        self.claimed = True
        self._rescue()
        self._refresh()
        return True

    def _let_go(self) -> None:
        self.claimed = False
        file, self._claim = self._claim, None
        if file is not None:
            file.close()

    def _rescue(self) -> None:
        """Move records from memory to the disk, once it takes them; try again what a refusal could not write."""
        if self.consent.blocked:
            self.refuse_usage()
        for record in list(self.memory):
            if self._append(record, sync=True) != DISK:
                return
            self._forget_memory(record)

    def _refresh(self) -> None:
        self._backlog.refresh()
        self.note("read", self._backlog.trouble or None)

    def release(self) -> None:
        """Let another process deliver, what is done with removed; safe when not claimed."""
        if not self.claimed:
            return
        try:
            if self.directory is not None and os.path.isdir(self.directory):
                self._tidy()
        except Exception as error:
            self.note("tidy", error)
        finally:
            self._book.close()
            self._let_go()

    def _tidy(self) -> None:
        self._refresh()
        done = self._backlog.names_done()
        for class_ in (LICENCE, USAGE):
            target = self._open.get(class_)
            if target is not None and target.name in done:
                self.seal((class_,))
        self._backlog.reap()
        if not self._backlog.trouble:  # else what is not read would lose its answers
            self._book.compact(self._backlog.winners().keys())
        self.note("tidy")
        with self._lock:
            self._quota.spare(SPARE, self._evict)

    def waiting(self, doubted: Collection[str]) -> Iterator[Record]:
        """Every record that can be sent now, in the order of its turn; those in memory last."""
        yield from self._backlog.waiting(doubted)
        for record in list(self.memory):
            if record in self.memory and not self._book.state(record.key).settled:
                yield record

    def attempts(self, record: Record) -> State:
        """How often a record was tried, and how that ended."""
        return self._book.state(record.key)

    def try_(self, record: Record, *, sync: bool = False) -> bool:
        """Note an attempt before its first byte; False where a record on disk could never be settled.

        ``sync``: it is the first of an aggregate, whose line and origin must not change any more.
        """
        origin = {n: record.body[n] for n in ("domain", "ip_addr") if record.body.get(n)}
        written = self._book.begin(record, **(origin if sync else {}))
        if record.place is None:
            return True
        try:
            # Writing may be impossible and truncating not: a full disk.
            file = files.open_append(self._path_of(record), missing_ok=False)
            try:
                if sync and self._power:
                    file.sync()
                    files.sync_directory(self.directory or "")
            finally:
                file.close()
        except OSError as error:
            self.note("write", error)
            return written and not sync
        return not (sync and self._power) or self._book.sync()

    def _path_of(self, record: Record) -> str:
        return os.path.join(self.directory or "", record.place[0] if record.place else "")

    def end(self, record: Record, *, failed: bool, counted: int) -> None:
        """Note that an attempt brought no verdict on the record; the numbers rise by this."""
        self._book.end(record, failed=failed, counted=counted)

    def answer(self, record: Record, verdict: Verdict, at: float) -> None:
        """Note the verdict that ends a record: settled, or a dead letter."""
        self.told(record, verdict, at)
        self._forget_memory(record)

    def told(self, record: Record, verdict: Verdict, at: float) -> None:
        """Note an answer, for the history; what it means for the record is in its outcome."""
        answer = verdict.outcome, at, verdict.code, verdict.reason, verdict.errors
        self._book.answer(record, *answer)

    def forget(self, record: Record) -> None:
        """Keep nothing of usage that was refused while it was under way."""
        self._forget_memory(record)

    def _forget_memory(self, record: Record) -> None:
        try:
            self.memory.remove(record)
        except ValueError:
            pass  # a refusal, on another thread, was quicker; or it is on disk

    def drop(self, records: Collection[Record], *, why: str) -> int:
        """Let records go, for their "age" or after an "export"; how many went. Age is reported first."""
        gone = [r for r in records if not self._book.state(r.key).settled]
        if gone and why == "age":
            keys = repr(sorted(record.key for record in gone)).encode("utf-8", "backslashreplace")
            count = sum(record.weight for record in gone)
            id = "dropped-%s-%d" % (lines.sha256(keys).hexdigest()[:16], count)
            try:  # a crash between the two repeats the report under the same id
                self._tell_dropped(count, id)
            except OSError as error:
                self.note("write", error)
                return 0
        for record in gone:
            self._book.answer(record, DROPPED, self._clock.time(), None, why, None)
            self._forget_memory(record)
        return len(gone)

    def revive(self) -> int:
        """Have all dead letters wait again; how many."""
        dead = self._backlog.pending(dead=True)
        return sum(self._book.revive(record.key) for record in dead)

    # -- looking: anybody, without a lock --------------------------------------------------------

    def census(self) -> dict[str, Any]:
        """How many records wait, by endpoint, are dead, damaged, of a newer format; what all files take."""
        self._refresh()
        found = self._backlog.count()
        pending = found["pending"]
        for record in list(self.memory):
            pending[record.endpoint] = pending.get(record.endpoint, 0) + 1
            oldest_at = found["oldest_at"]
            found["oldest_at"] = record.at if oldest_at is None else min(oldest_at, record.at)
        try:
            size = self._quota.look() if self.directory is not None else 0
        except OSError:
            size = 0
        return {
            **found,
            "bytes": size,
            "in_memory": len(self.memory),
            "trouble": dict(self.trouble),
        }

    def records(self, *, dead: bool = False) -> Iterator[Record]:
        """What waits, or the dead letters, each once, counting windows that are still open too."""
        self._refresh()
        for stub in self._backlog.pending(dead=dead):
            record = self._backlog.load(stub)
            if record is not None:
                yield record
        if not dead:
            yield from list(self.memory)

    def history(self, limit: int) -> list[dict[str, Any]]:
        """The last answers, oldest first; those about usage only while its consent stands."""
        return self._book.history(self.consent.look(), limit)

    def fact(self, kind: str, tag: str) -> dict[str, Any]:
        """What was noted last about ``tag``; {} for nothing."""
        return self._book.fact(kind, tag)

    def note_fact(self, kind: str, tag: str, **fields: Any) -> None:
        """Note something for all processes; in memory where the disk refuses."""
        self._book.note(kind, tag, fields)
        if not self.claimed:
            self._book.close()

    def refresh_facts(self) -> None:
        """Read what other processes noted."""
        try:
            self._book.refresh()
        except OSError as error:
            self.note("read", error)

    def oldest_at(self) -> Optional[float]:
        """Unix seconds of the oldest segment of licence records or usage, by its name; None without any."""
        try:
            names = segment.listing(self.directory) if self.directory is not None else []
        except OSError:
            return None
        return min((segment.created_ms(n) / 1000 for n in names if n[0] != COUNTERS), default=None)


def _is_appended(target: Segment, data: bytes, *, sync: bool) -> bool:
    try:
        target.append(data, sync=sync)
        return True
    except OSError:
        return False
