"""The book: what the deliverer knows of records and lanes. One file, appended to under the deliverer's lock.

    {"v":1,"k":"book","tag":GENERATION,"size":SIZE}      the first line; the size that a compaction left
    {"v":1,"k":"record","e":...,"id":...,"run":...}      before the first byte is sent: who tries it
    {"v":1,"k":"record","e":...,"id":...,"failed":1}     no verdict on it: how often so far
    {"v":1,"k":"record","e":...,"id":...,"outcome":...}  settled, or a dead letter
    {"v":1,"k":"lane","tag":...}                         a fact

One rule: of all lines about one thing the last counts, and says all that is known of it; so a line that is read twice
changes nothing. But what is settled stays so, until it is revived. A record's line that has a ``verdict`` is an
answer, for the history. Written without a sync: a power cut may repeat a delivery, and loses none. Readers that find
another generation forget and read from the start.
"""

from __future__ import annotations

import os
from _thread import RLock

from .. import TYPE_CHECKING, files, lines
from .segment import BOOK

if TYPE_CHECKING:
    from typing import Any, Callable, Collection, Optional

    from .record import Key

# Rewritten at twice what the last compaction left, and at least this.
COMPACT_BYTES = 256 << 10
# Larger than any book of ours: nothing is read behind it. Longer than any first line.
MOST_BYTES, HEAD_BYTES = 64 << 20, 100
# Kept of what would grow without end: answers for the history, lanes, facts, lines that the disk refused.
ANSWERS, LANES, FACTS, UNWRITTEN = 256, 64, 1000, 4000
SETTLED, REJECTED, DROPPED = ("delivered", "flagged", "dropped"), "rejected", "dropped"


class State:
    """What happened to one record so far, as its last line says."""

    left_open = False  # by another run than ours, which may have ended in the middle of an attempt

    def __init__(self, line: dict[str, Any]) -> None:
        # Attempts without a verdict on the record; those that speak against it, and not against its endpoint.
        self.failed, self.counted = int(line.get("failed", 0)), int(line.get("counted", 0))
        self.run = str(line.get("run", ""))  # that began an attempt and did not end it
        self.origin = dict(line.get("origin", ()))  # of an aggregate, as it was first sent
        self.outcome = str(line.get("outcome", ""))
        self.revived = int(line.get("revived", 0))  # how often what had ended was had wait again
        # It needs nothing more; it is a dead letter.
        self.settled, self.dead = self.outcome in SETTLED, self.outcome == REJECTED
        self.rank = self.revived, self.settled, self.dead

    @property
    def suspicion(self) -> int:
        """How late its turn comes."""
        return self.counted + self.left_open

    def line(self, key: Key) -> dict[str, Any]:
        """All of it."""
        names = ("failed", "counted", "run", "origin", "outcome", "revived")
        said = {name: vars(self)[name] for name in names if vars(self)[name]}
        return {"v": 1, "k": "record", "e": key[0], "id": key[1], **said}


UNTRIED = State({})


class Book:
    """The book of one directory, as the process of this ``run`` knows it; in memory where the disk refuses."""

    def __init__(self, directory: Optional[str], run: str, max_bytes: int) -> None:
        self._path = os.path.join(directory, BOOK) if directory is not None else None
        self._run, self._compact_bytes = run, min(COMPACT_BYTES, max_bytes // 8)
        # Nobody else delivers. Where locks do not work that is unknown, and so is who left an attempt open.
        self.alone = True
        self._lock = RLock()
        self._unwritten: list[bytes] = []
        self._forget(b"")

    def _forget(self, head: bytes) -> None:
        self._head, self._cursor, self._size = head, 0, 0
        self.states: dict[Key, State] = {}  # of what was tried; not to be changed
        self._facts: dict[Any, Any] = {}  # by kind and tag; what we do not know by its text
        self.answers: dict[Any, dict[str, Any]] = {}  # by all that tells one from another

    def fact(self, kind: str, tag: str) -> dict[str, Any]:
        """The last line of this kind about ``tag``, {} for none."""
        return dict(self._facts.get((kind, tag), ()))

    # -- reading ----

    def refresh(self) -> None:
        """Read what other processes wrote. Raises ``OSError``."""
        with self._lock:
            try:
                file = files.open_read(self._path or "")
            except FileNotFoundError:
                return
            with file:
                size = file.stat().st_size
                head = file.read(0, HEAD_BYTES).partition(b"\n")[0]
                anew = size > 0 and (head != self._head or size < self._cursor)
                if anew:
                    self._forget(head)
                self._size = size
                data = file.read(self._cursor, MOST_BYTES - self._cursor)
            data = data[: data.rfind(b"\n") + 1]
            self._cursor += len(data)
            for line in data.splitlines() + self._unwritten * anew:  # the latter are newer
                self._apply(lines.decode(line))

    def _apply(self, value: Any) -> None:
        try:
            known = type(value) is dict and value.get("v") == 1
            if known and value.get("k") == "record":
                self._take(value)
            elif value is not None and not (known and value.get("k") == "book"):
                named = known and {"k", "tag"} < value.keys()
                slot = (value["k"], value["tag"]) if named else lines.dumps(value)
                self._facts.pop(slot, None)  # the newest last
                if len(self._facts) >= FACTS:
                    others = (one for one in self._facts if one[0] not in ("lane", "floor"))
                    del self._facts[next(others, next(iter(self._facts)))]
                self._facts[slot] = value
        except (ArithmeticError, LookupError, TypeError, ValueError):
            pass  # it checks, and nobody of ours wrote it

    def _take(self, line: dict[str, Any]) -> None:
        key, state = (line["e"], line["id"]), State(line)
        state.left_open = self.alone and state.run not in ("", self._run)
        before = self.states.get(key, UNTRIED)
        # Lines may be read in another order than they were written in, of a file that something repaired.
        if state.rank >= before.rank:
            self.states[key] = state
        if "verdict" in line:
            self.answers[key + (line["verdict"], line["at"])] = line
            if len(self.answers) > ANSWERS:
                del self.answers[next(iter(self.answers))]

    # -- writing ----

    def change(self, key: Key, *, sync: bool = False, **changes: Any) -> bool:
        """Write what is known of a record, and this; False where the disk refuses."""
        with self._lock:  # who looks may read it anew just now
            return self.write({**self.states.get(key, UNTRIED).line(key), **changes}, sync=sync)

    def write(self, *values: Any, sync: bool = False) -> bool:
        """Know these from now on, and put them on disk; False where it refuses."""
        with self._lock:
            for value in values:
                self._apply(value)
            self._unwritten = (self._unwritten + [lines.encode(v) for v in values])[-UNWRITTEN:]
            try:
                return self._flush(sync)
            except OSError:
                return False

    def note(self, kind: str, tag: str, **fields: Any) -> bool:
        """Write a fact, unless it is known."""
        value = {"v": 1, "k": kind, "tag": tag, **fields}
        return self._facts.get((kind, tag)) == value or self.write(value)

    def _flush(self, sync: bool) -> bool:
        for _ in range(3):
            with files.open_append(self._path or "") as file:
                size, data = file.stat().st_size, b"".join(self._unwritten)
                if size == 0:
                    self._head, self._cursor = _head(0), 0
                    data = self._head + b"\n" + data
                elif size != self._cursor:
                    data = b"\n" + data  # whatever the last writer left
                if data:
                    file.write(data)
                if sync:
                    file.sync()
                if size == self._cursor:
                    self._cursor += len(data)  # our own lines need not be read
                # Where locks do not work somebody may have replaced the file meanwhile: what went into it is lost.
                if file.is_named():
                    self._unwritten = []
                    return True
        return False

    def compact(self, keys: Callable[[], Collection[Key]]) -> None:
        """Rewrite an overgrown book: what is known of these records, the ones in segments, and of all else a little.

        Under the deliverer's lock. Raises ``OSError``.
        """
        left = lines.decode(self._head)
        least = 2 * left.get("size", 0) if type(left) is dict else 0
        grown = self._size > MOST_BYTES  # by somebody: what is written behind that is never read
        if self._cursor < max(self._compact_bytes, least) and not grown:
            return
        known = keys()  # under no lock of ours: who reads segments has theirs and comes for ours
        with self._lock:
            if self._unwritten:
                return
            lanes = [slot for slot in self._facts if slot[0] == "lane"]
            for slot in lanes[:-LANES]:
                del self._facts[slot]
            values = [*self._facts.values(), *self.answers.values()]
            values += [self.states[key].line(key) for key in known if key in self.states]
            data = b"".join(map(lines.encode, values))
            files.replace(self._path or "", _head(len(data)) + b"\n" + data)
            self.refresh()


def _head(size: int) -> bytes:
    return lines.encode({"v": 1, "k": "book", "tag": os.urandom(8).hex(), "size": size})[:-1]
