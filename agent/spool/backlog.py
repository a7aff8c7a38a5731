"""What waits to be sent, read from the segments of all processes; what is done with goes, and what finds no room.

*Nothing* has one meaning, for waiting, reaping, evicting and looking alike: a line whose record is settled, whose key
wins in another place, or that is usage of another consent. What is nothing does not wait and does not keep its segment.
"""

from __future__ import annotations

import errno
import os
from _thread import RLock

from .. import files
from . import segment
from .record import DROPPED
from .segment import COUNTERS, LICENCE, USAGE, QuotaFull, Reading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import Any, Optional

    from ..files import File
    from .book import Book
    from .record import Key, Record

# What is evicted first.
EVICTION = COUNTERS + USAGE + LICENCE
# Shorter than any record's line: so many records a size may hold at most.
LEAST_LINE_BYTES = 150
# A quota has so many segments, and a writer may add this part of what is free before it looks again: 64 processes
# that look at once stay below the quota.
SHARES = 64
SEGMENT_MOST_BYTES = 256 << 10
# A temporary file this old was left by a process that was killed.
TEMPORARY_AGE_S = 3600.0


class Backlog:
    """A reading of one state directory; ``epoch()`` is that of consent now, None where it cannot be read::

    refresh()                    read what is new in all segments, as stubs: records without their bodies
    winners()                    of each record the line that counts
    pending()                    those of them that are not nothing, in the order of their turns
    waiting(doubted)             the same as whole records, counters once they are closed
    reap(names_done())           segments in which every line is nothing go
    """

    def __init__(
        self, directory: Optional[str], book: Book, epoch: Callable[[], Optional[int]]
    ) -> None:
        self.directory, self._book, self._epoch = directory or "", book, epoch
        self._lock = RLock()
        self._readings: dict[str, Reading] = {}
        # Counters' segments that were read after their writer's end.
        self._complete: set[str] = set()
        self.trouble = ""

    # -- reading ---------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Look at the directory again; what cannot be read is named in ``trouble``."""
        with self._lock:
            self.trouble = ""
            names = list(self._readings)
            try:
                names = segment.listing(self.directory) if self.directory else []
                self._book.refresh()  # without it deliveries may be repeated
            except OSError as error:
                self.trouble = str(error)
            old, self._readings = self._readings, {}
            for name in names:
                path = os.path.join(self.directory, name)
                reading = self._readings[name] = old.get(name) or Reading(path)
                try:
                    reading.refresh()
                except FileNotFoundError:
                    del self._readings[name]  # gone since
                except OSError as error:
                    self.trouble = str(error)
            self._complete &= self._readings.keys()

    def winners(self) -> dict[Key, Record]:
        """Of each record the line that counts: the greatest total, then the last."""
        winners: dict[Key, Record] = {}
        with self._lock:
            for reading in self._readings.values():  # in the order of their names
                for key, stub in reading.records.items():
                    if key not in winners or winners[key].total <= stub.total:
                        winners[key] = stub
        return winners

    def _epoch_of(self, stubs: Collection[Record]) -> Optional[int]:
        """That of consent, where any of these asks for one."""
        return self._epoch() if [stub for stub in stubs if stub.usage] else 0

    def is_nothing(
        self, stub: Record, epoch: Optional[int], winners: Optional[dict[Key, Record]] = None
    ) -> bool:
        """Whether a line needs no more: settled, overtaken, or usage of another consent.

        Without ``winners`` overtaken lines are taken for something.
        """
        winner = winners.get(stub.key, stub) if winners is not None else stub
        refused = stub.usage and epoch is not None and stub.epoch != epoch
        return refused or winner.place != stub.place or self._book.state(stub.key).settled

    def pending(
        self, *, dead: Optional[bool] = False, doubted: Collection[str] = ()
    ) -> list[Record]:
        """What waits, the ``dead`` letters, or (None) both, by suspicion, then by age.

        Of ``doubted`` endpoints what failed least comes first.
        """
        winners, known = self.winners(), self._book.state
        epoch = self._epoch_of(winners.values())
        found = [stub for stub in winners.values() if not self.is_nothing(stub, epoch)]
        if dead is not None:
            found = [stub for stub in found if known(stub.key).dead == dead]

        def turn(stub: Record) -> tuple[Any, ...]:
            state, failed_counts = known(stub.key), stub.endpoint in doubted
            name, at, _ = stub.place
            return (state.suspicion, state.failed * failed_counts, segment.order(name), at)

        return sorted(found, key=turn) if len(found) > 1 else found

    def waiting(self, doubted: Collection[str]) -> Iterator[Record]:
        """What can be sent, each looked at again when its turn comes."""
        for stub in self.pending(doubted=doubted):
            epoch = self._epoch() if stub.usage else 0
            if epoch is None or self.is_nothing(stub, epoch):
                continue
            known = self._closed(stub) if stub.kind == "aggregate" else stub
            record = self.load(known) if known is not None else None
            if record is not None:
                yield record

    def load(self, stub: Record) -> Optional[Record]:
        """The whole record, with the origin that it was first sent with; None where it is gone."""
        record = segment.load(self.directory, stub)
        origin = self._book.state(stub.key).origin
        if record is not None and origin:
            record.body = {**record.body, **origin}
        return record

    def _closed(self, stub: Record) -> Optional[Record]:
        """A counter's last line, once nothing more will be added: it says so itself, or its writer has ended.

        A writer begins its next segment before it lets go of the last: so the directory is read once more under the
        lock of a segment that was found unlocked, and the window may turn out to go on in another.
        """
        for reading in self._readings.values():  # what is known may have grown since the pass began
            newer = reading.records.get(stub.key)
            stub = newer if newer is not None and stub.total <= newer.total else stub
        name = stub.place[0]
        if stub.ended_at is not None or name in self._complete or name[:1] != COUNTERS:
            return stub
        file = segment.seize(os.path.join(self.directory, name))
        if file is None:
            return None
        with file:
            self.refresh()
            if self.trouble:
                return None
            self._complete.add(name)
        return self._closed(stub)

    def names_done(self) -> list[str]:
        """The segments in which every line is nothing, and none is of a newer format."""
        winners = self.winners()
        epoch = self._epoch_of(winners.values())
        with self._lock:
            return [
                name
                for name, reading in self._readings.items()
                if not reading.newer
                and all(self.is_nothing(s, epoch, winners) for s in reading.records.values())
            ]

    def count(self, memory: list[Record]) -> dict[str, Any]:
        """How many lines are what, and how old the oldest record is that waits; with what is in ``memory``."""
        unsettled, readings = self.pending(dead=None), list(self._readings.values())
        dead = [stub for stub in unsettled if self._book.state(stub.key).dead]
        pending = [stub for stub in unsettled if stub not in dead] + memory
        names = [stub.endpoint for stub in pending]
        return {
            "pending": {name: names.count(name) for name in set(names)},
            "strays": {stub.endpoint for stub in pending if self._is_stray(stub)},
            "dead": len(dead),
            "damaged": sum([reading.damaged for reading in readings]),
            "newer": sum([reading.newer for reading in readings]),
            "segments": len(readings),
            "oldest_at": min((stub.at for stub in pending), default=None),
        }

    def _is_stray(self, stub: Record) -> bool:
        """Whether nobody can say whose usage an aggregate is."""
        known = {**stub.body, **(self._book.state(stub.key).origin or {})}
        return stub.kind == "aggregate" and not (known.get("domain") or known.get("ip_addr"))

    # -- what goes -------------------------------------------------------------------------------

    def reap(self, done: list[str]) -> None:
        """End the segments of which nothing is left to do; and temporary files that a killed process left."""
        if done:  # a line that was overtaken must not come back without what settled the record
            self._book.write(sync=True)
        winners = self.winners() if done else {}
        for name in done:
            file = segment.seize(os.path.join(self.directory, name))
            if file is not None:
                with file:  # its writer may have added to it
                    if self.lost_with(file, winners) == (0, 0):
                        self._readings.pop(name, None)
                        segment.destroy(file)
        import time  # the file system's clock, so the system's and no other

        for name in os.listdir(self.directory):
            path = os.path.join(self.directory, name)
            if name.endswith(segment.TEMPORARY) and segment.is_ours(name):
                if os.lstat(path).st_mtime < time.time() - TEMPORARY_AGE_S:
                    files.remove(path)

    def lost_with(
        self,
        file: File,
        winners: Optional[dict[Key, Record]] = None,
        *,
        under_way: bool = True,
    ) -> Optional[tuple[int, int]]:
        """(records that go with a segment, at most; those of them that a report had told of).

        None: it cannot be read, or one is ``under_way`` that is not to be.
        """
        reading = Reading(file.path)
        try:
            reading.read(file)
            if winners is None:  # else it was read under the deliverer's lock
                self._book.refresh()
        except OSError:
            return None
        epoch = self._epoch_of(reading.records.values())
        kept = [s for s in reading.records.values() if not self.is_nothing(s, epoch, winners)]
        if not under_way and any(self._book.state(stub.key).run for stub in kept):
            return None
        told = sum(stub.weight for stub in kept if stub.id.startswith(DROPPED))
        return sum(stub.weight for stub in kept) + reading.newer, told


class Quota:
    """The bounds of one directory: who finds it full makes room there and then, whoever delivers.

    ``report(count, id, told)`` has it on disk that so many records go, or raises ``OSError``; ``told`` of them are
    known from a report that goes too.
    """

    def __init__(
        self,
        backlog: Backlog,
        max_bytes: int,
        max_records: int,
        report: Callable[[int, str, int], None],
    ) -> None:
        self._directory, self._backlog, self._report = backlog.directory, backlog, report
        self.segment_bytes = min(SEGMENT_MOST_BYTES, max(512, max_bytes // SHARES))
        # One segment less than all: a report of what was evicted is written before that goes.
        self._max_bytes, self._max_records = max_bytes - self.segment_bytes, max_records
        self.segment_most = self.segment_bytes, max(1, max_records // SHARES)
        self.free_bytes = self.free_records = 0
        self._leased_bytes = self._leased_records = 0
        self._sizes: dict[str, int] = {}
        self._counts: dict[str, tuple[int, int]] = {}  # (size, lines) of segments
        self._stuck: set[str] = set()  # could not be truncated
        self._empty: set[str] = set()  # evicted, and nothing was lost with it

    def look(self) -> int:
        """Measure what is free; the bytes of all our files."""
        self._sizes = {}
        for name in filter(segment.is_ours, os.listdir(self._directory)):
            try:
                size = os.lstat(os.path.join(self._directory, name)).st_size
                # What is larger was made so by a tool, and is no reason to give up records.
                ours = name.endswith(segment.SUFFIX)
                most = 2 * SEGMENT_MOST_BYTES if ours else self._max_bytes // 4
                self._sizes[name] = min(size, most)
            except FileNotFoundError:
                pass  # gone since
        total = sum(self._sizes.values())
        self.free_bytes = self._max_bytes - total
        self.free_records = self._max_records - total // LEAST_LINE_BYTES
        if self.free_records < self._max_records // 8:  # by size there may be too few: count
            names = [name for name in self._sizes if name.endswith(segment.SUFFIX)]
            self.free_records = self._max_records - sum(map(self._lines, names))
        return total

    def _lines(self, name: str) -> int:
        size = self._sizes[name]
        if self._counts.get(name, (-1, 0))[0] != size:
            try:
                data = files.read(os.path.join(self._directory, name), segment.CHUNK_BYTES)
            except OSError:
                data = b""
            self._counts[name] = size, data.count(b' {"v":')
        return self._counts[name][1]

    def lease(self, size: int, anew: bool) -> None:
        """Make sure that ``size`` bytes may be added, ``anew`` in a new file. Raises ``QuotaFull``."""
        if anew:
            files.ensure_directory(self._directory)
        if anew or self._leased_bytes < size or self._leased_records < 1:
            self.look()
            self.evict(size, 1)
            self._leased_bytes = max(size, self.free_bytes // SHARES)
            self._leased_records = max(1, self.free_records // SHARES)
        self._leased_bytes -= size
        self._leased_records -= 1

    def spare(self, part: int) -> Optional[QuotaFull]:
        """Keep a part of the quota free ahead of need; what prevents that."""
        try:
            self.look()
            self.evict(self._max_bytes // part, self._max_records // part)
            return None
        except QuotaFull as error:
            return error

    def _fits(self, size: int, count: int) -> bool:
        return self.free_bytes >= size and self.free_records >= count

    def evict(self, size: int, count: int) -> None:
        """Let the oldest segments go that nobody writes, reported first, until so much is free. Raises ``QuotaFull``.

        Under a lock, and measured again under it: 16 processes evicted 16 segments where one would do.
        """
        if self._fits(size, count):
            return
        victims: dict[str, File] = {}
        with files.locked(os.path.join(self._directory, segment.ROOM)) as room:
            if room.held is False or size > self._max_bytes:
                raise QuotaFull(errno.ENOSPC, "the quota is full")
            self.look()
            try:
                # A record under way may be delivered: its segment goes only where no other is left.
                chosen = [self._choose(size, count, victims, tried) for tried in (False, True)]
                lost, told = map(sum, zip(*chosen))
                if lost:
                    # Called after one that held a record: an empty one may have given its name before.
                    first = next(name for name in victims if name not in self._empty)
                    self._report(lost, "%s%s-%d" % (DROPPED, first[15:31], lost), told)
                self._stuck |= {n for n, file in victims.items() if not segment.destroy(file)}
            finally:
                for file in victims.values():
                    file.close()
        if not self._fits(size, count):
            raise QuotaFull(errno.ENOSPC, "the quota is full")

    def _choose(
        self, size: int, count: int, victims: dict[str, File], under_way: bool
    ) -> tuple[int, int]:
        """Seize segments until enough would be free; what goes with them, as ``lost_with``."""
        found = self._sizes.keys() - self._stuck - victims.keys()
        found = {name for name in found if name.endswith(segment.SUFFIX)}
        lost = told = 0
        for name in sorted(found, key=lambda n: (EVICTION.index(n[0]), segment.order(n))):
            if self._fits(size, count):
                break
            file = segment.seize(os.path.join(self._directory, name))
            going = None if file is None else self._backlog.lost_with(file, under_way=under_way)
            if file is not None and going is None:
                file.close()
            elif file is not None and going is not None:
                victims[name], lost, told = file, lost + going[0], told + going[1]
                self._empty |= set() if going[0] else {name}
                self.free_records += self._lines(name)
                self.free_bytes += self._sizes[name]
        return lost, told
