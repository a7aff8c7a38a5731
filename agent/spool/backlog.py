"""What waits to be sent, read from the segments of all processes; what is done with goes, and what finds no room.

*Nothing* has one meaning for waiting, reaping, evicting and looking: a line whose record is settled, whose key wins in
another place, or that is usage of another consent. It does not wait and does not keep its segment.
"""

from __future__ import annotations

import errno
import os
from _thread import RLock

from .. import TYPE_CHECKING, files, lines
from . import segment
from .book import UNTRIED, Book
from .record import Record, parse
from .segment import COUNTERS, LICENCE, USAGE, QuotaFull, Reading

if TYPE_CHECKING:
    from typing import Any, Callable, Collection, Iterator, Optional

    from .record import Key

    Report = Callable[[list[Record], int, list[str]], None]

# What is evicted first.
EVICTION = COUNTERS + USAGE + LICENCE
# Shorter than any record's line: so many records a size may hold at most.
LEAST_LINE_BYTES = 150
# So many segments fit a quota, and a writer may add this part of what is free before it looks again.
SHARES = 64
SEGMENT_MOST_BYTES = 256 << 10
# A temporary file this old was left by a process that was killed.
TEMPORARY_AGE_S = 3600.0


class Backlog:
    """A reading of one state directory; ``epoch()`` is that of consent now, None where it cannot be read::

    refresh()                    read what is new in all segments, as stubs: records without their bodies
    winners()                    of each record the line that counts
    unsettled()                  those of them that are not nothing; pending(): in the order of their turns
    waiting(doubted)             the same as whole records, counters once they are closed
    reap(names_done(...), ...)   segments in which every line is nothing go
    """

    def __init__(
        self, directory: Optional[str], book: Book, epoch: Callable[[], Optional[int]]
    ) -> None:
        self.directory, self._book, self._epoch = directory or "", book, epoch
        self._lock = RLock()
        self._readings: dict[str, Reading] = {}
        # Counters' segments that were found without a writer before all was read.
        self._complete: set[str] = set()
        self.trouble = ""

    # -- reading ----

    def refresh(self, *, delivering: bool = False) -> None:
        """Look at the directory again; what cannot be read is named in ``trouble``."""
        with self._lock:
            self.trouble = ""
            names = list(self._readings)
            try:
                names = segment.listing(self.directory)
                if delivering and self._finds_complete(names):
                    names = segment.listing(self.directory)
                self._book.refresh()  # without it deliveries may be repeated
            except Exception as error:
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

    def _finds_complete(self, names: list[str]) -> bool:
        """Whether counters lost their writer. Then all is listed and read again, and so the next segment seen:

        a writer lets go of one only after its next one holds every open window.
        """
        self._complete.intersection_update(names)
        known = len(self._complete)
        for name in names:
            if name[0] == COUNTERS and name not in self._complete:
                file = segment.seize(os.path.join(self.directory, name))
                if file is not None:
                    file.close()
                    self._complete.add(name)
        return len(self._complete) > known

    def winners(self) -> dict[Key, Record]:
        """Of each record the line that counts: the greatest total, then the last."""
        winners: dict[Key, Record] = {}
        with self._lock:
            for reading in self._readings.values():  # in the order of their names
                for key, stub in reading.records.items():
                    if key not in winners or winners[key].total <= stub.total:
                        winners[key] = stub
        return winners

    def unsettled(self, stubs: Collection[Record], winners: dict[Key, Record]) -> list[Record]:
        """What of these is not nothing: it waits, or is a dead letter."""
        found: list[Record] = []
        epoch: Optional[int] = -1  # not asked yet
        for stub in stubs:
            epoch = self._epoch() if stub.usage and epoch == -1 else epoch
            left = not self._book.states.get(stub.key, UNTRIED).settled
            left = left and winners.get(stub.key, stub).place == stub.place
            if left and (epoch in (None, stub.epoch) or not stub.usage):
                found.append(stub)
        return found

    def pending(self, *, dead: bool = False, doubted: Collection[str] = ()) -> list[Record]:
        """What waits, or the ``dead`` letters, by suspicion, then by age.

        Of ``doubted`` endpoints what failed least comes first.
        """
        known = self._book.states

        def turn(stub: Record) -> tuple[Any, ...]:
            state, failed_counts = known.get(stub.key, UNTRIED), stub.endpoint in doubted
            name, at, _ = stub.place
            return (state.suspicion, state.failed * failed_counts, segment.order(name), at)

        found = self.unsettled(self.winners().values(), {})
        found = [stub for stub in found if known.get(stub.key, UNTRIED).dead == dead]
        return sorted(found, key=turn)

    def waiting(self, doubted: Collection[str]) -> Iterator[Record]:
        """What can be sent, each looked at again when its turn comes."""
        for stub in self.pending(doubted=doubted):
            name = stub.place[0]
            grows = stub.kind == "aggregate" and stub.ended_at is None and name[0] == COUNTERS
            sendable = self.unsettled([stub], {}) and (not grows or name in self._complete)
            record = self.load(stub) if sendable else None
            if record is not None:
                yield record

    def load(self, stub: Record) -> Optional[Record]:
        """The whole record, with the origin that it was first sent with; None where it is gone from its place."""
        name, at, length = stub.place
        try:
            line = files.read(os.path.join(self.directory, name), length, at)
        except OSError:
            return None
        record = parse(lines.decode(line))
        if not isinstance(record, Record) or record.key != stub.key:
            return None
        record.place = stub.place
        record.body.update(self._origin(stub))
        return record

    def names_done(self, winners: dict[Key, Record]) -> list[str]:
        """The segments in which every line is nothing, and none is of a newer format."""
        with self._lock:
            used = {stub.place[0] for stub in self.unsettled(winners.values(), {})}
            found = self._readings.items()
            return [name for name, reading in found if not (reading.newer or name in used)]

    def oldest_at(self) -> Optional[float]:
        """When the oldest segment of licence records or usage was begun, Unix seconds; None without any."""
        names = [name for name in list(self._readings) if name[0] != COUNTERS]
        return segment.created_ms(names[0]) / 1000 if names else None

    def count(self, memory: list[Record]) -> dict[str, Any]:
        """How many lines are what, and how old the oldest record is that waits; with what is in ``memory``."""
        unsettled = self.unsettled(self.winners().values(), {})
        readings = list(self._readings.values())
        dead = [stub for stub in unsettled if self._book.states.get(stub.key, UNTRIED).dead]
        pending = [stub for stub in unsettled if stub not in dead] + memory
        names = [stub.endpoint for stub in pending]
        return {
            "pending": {name: names.count(name) for name in set(names)},
            "strays": {stub.endpoint for stub in pending if stub.stray and not self._origin(stub)},
            "dead": len(dead),
            "damaged": sum([reading.damaged for reading in readings]),
            "newer": sum([reading.newer for reading in readings]),
            "segments": len(readings),
            "oldest_at": min((stub.at for stub in pending), default=None),
        }

    def _origin(self, stub: Record) -> dict[str, Any]:
        """What an aggregate was first sent with."""
        return self._book.states.get(stub.key, UNTRIED).origin

    # -- what goes ----

    def seize(self, name: str, winners: dict[Key, Record]) -> Optional[tuple[files.File, Reading]]:
        """Hold a segment that nobody writes, and read what in it is not nothing; None where that cannot be.

        Without ``winners`` overtaken lines are something.
        """
        reading = Reading(os.path.join(self.directory, name))
        file = segment.seize(reading.path)
        if file is None:
            return None
        try:
            reading.read(file)
            if not winners:  # nor the deliverer's lock
                self._book.refresh()
        except OSError:
            file.close()
            return None
        left = self.unsettled(reading.records.values(), winners)
        reading.records = {stub.key: stub for stub in left}
        return file, reading

    def reap(self, done: list[str], winners: dict[Key, Record]) -> None:
        """End the segments in which all is nothing; and temporary files that a killed process left."""
        if done:  # a line that was overtaken must not come back without what settled the record
            self._book.write(sync=True)
        for name in done:
            held = self.seize(name, winners)
            if held is not None:
                file, left = held
                with file:  # its writer may have added to it
                    if not (left.records or left.newer):
                        self._readings.pop(name, None)
                        segment.destroy(file)
        import time  # the file system's clock, so the system's and no other

        for name in os.listdir(self.directory):
            path = os.path.join(self.directory, name)
            if name.endswith(segment.TEMPORARY) and segment.is_ours(name):
                if os.lstat(path).st_mtime < time.time() - TEMPORARY_AGE_S:
                    files.remove(path)


class Quota:
    """The bounds of one directory: who finds it full makes room there and then, whoever delivers.

    ``report(gone, newer, names)`` has on disk that these records go, and so many lines of a newer format, with these
    segments, or raises ``OSError``.
    """

    def __init__(self, backlog: Backlog, bounds: tuple[int, int], report: Report) -> None:
        max_bytes, max_records = bounds
        self._directory, self._backlog, self._report = backlog.directory, backlog, report
        segment_bytes = min(SEGMENT_MOST_BYTES, max(512, max_bytes // SHARES))
        self.segment_most = segment_bytes, max(1, max_records // SHARES)
        # One segment less than all: a report of what was evicted is written before that goes.
        self._max_bytes, self._max_records = max_bytes - segment_bytes, max_records
        self._free_bytes = self._free_records = 0
        self._leased_bytes = self._leased_records = 0
        self._sizes: dict[str, int] = {}
        self._counts: dict[tuple[str, int], int] = {}  # lines, by name and size
        self._stuck: set[str] = set()  # could not be truncated

    def look(self) -> int:
        """Measure what is free; the bytes of all our files."""
        self._sizes = {}
        for name in filter(segment.is_ours, os.listdir(self._directory)):
            try:
                size = os.lstat(os.path.join(self._directory, name)).st_size
            except FileNotFoundError:
                continue  # gone since
            # What is larger was made so by a tool, and is no reason to give up records.
            ours = name.endswith(segment.SUFFIX)
            self._sizes[name] = min(size, 2 * SEGMENT_MOST_BYTES if ours else self._max_bytes // 4)
        total = sum(self._sizes.values())
        self._free_bytes = self._max_bytes - total
        self._free_records = self._max_records - total // LEAST_LINE_BYTES
        if self._free_records < self._max_records // 8:  # by size there may be too few: count
            self._free_records = self._max_records - sum(map(self._lines, self._sizes))
        return total

    def _lines(self, name: str) -> int:
        known = name, self._sizes[name]
        if known not in self._counts and name.endswith(segment.SUFFIX):
            try:
                data = files.read(os.path.join(self._directory, name), segment.CHUNK_BYTES)
            except OSError:
                data = b""
            self._counts[known] = data.count(b' {"v":')
        return self._counts.get(known, 0)

    def lease(self, size: int, anew: bool) -> None:
        """Make sure that ``size`` bytes may be added, ``anew`` in a new file. Raises ``QuotaFull``."""
        if anew:
            files.ensure_directory(self._directory)
        if anew or self._leased_bytes < size or self._leased_records < 1:
            self.make_room(size, 1)
            self._leased_bytes = max(size, self._free_bytes // SHARES)
            self._leased_records = max(1, self._free_records // SHARES)
        self._leased_bytes -= size
        self._leased_records -= 1

    def _fits(self, size: int, count: int) -> bool:
        return self._free_bytes >= size and self._free_records >= count

    def make_room(self, size: int, count: int) -> None:
        """Let the oldest segments go that nobody writes, reported first, until so much is free. Raises ``QuotaFull``.

        Measured again under a lock: 16 processes evicted 16 segments where one would do.
        """
        self.look()
        if not self._fits(size, count) and size <= self._max_bytes:
            with files.locked(os.path.join(self._directory, segment.ROOM)) as room:
                if room.held is not False:
                    self.look()
                    self._evict(size, count)
        if not self._fits(size, count):
            raise QuotaFull(errno.ENOSPC, "the quota is full")

    def _evict(self, size: int, count: int) -> None:
        """A record that is under way may be counted and delivered."""
        victims: list[tuple[files.File, Reading]] = []
        listed = segment.listing(self._directory)
        try:
            for name in [name for class_ in EVICTION for name in listed if name[0] == class_]:
                if self._fits(size, count):
                    break
                known = name in self._sizes and name not in self._stuck
                held = self._backlog.seize(name, {}) if known else None
                if held is not None:
                    victims.append(held)
                    self._free_bytes += self._sizes[name]
                    self._free_records += self._lines(name)
            left = [reading for _, reading in victims if reading.records or reading.newer]
            if left:
                gone = [stub for reading in left for stub in reading.records.values()]
                names = [reading.name for reading in left]
                self._report(gone, sum(reading.newer for reading in left), names)
            self._stuck |= {one.name for file, one in victims if not segment.destroy(file)}
        finally:
            for file, _ in victims:
                file.close()
