"""The book: what the deliverer knows of records and lanes. One file, appended to under the deliverer's lock.

    {"v":1,"k":"book","tag":GENERATION,"size":SIZE}            the first line; the size that a compaction left
    ["try", endpoint, id, run, FAILED, COUNTED]                before the first byte is sent
    ["end", endpoint, id, FAILED, COUNTED]                     no verdict on the record
    ["answer", endpoint, id, outcome, at, code, reason, errors, kind, epoch]
    ["origin", endpoint, id, {...}]                            of an aggregate, as first sent
    ["revive", endpoint, id]                                   numbers begin anew, a dead letter waits
    ["is", endpoint, id, outcome]                              what compaction leaves of an answer
    {"v":1,"k":"lane","tag":...}                               a fact: the last one counts

Numbers are absolute and the greatest counts, so that a line that is read twice changes nothing. Written without a sync:
a power cut may repeat a delivery, and loses none. Readers that find another generation forget and read from the start.
"""

from __future__ import annotations

import os
from _thread import RLock

from .. import files, lines
from .segment import BOOK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any, Optional

    from ..files import File
    from .record import Key

# Rewritten at twice what the last compaction left, and at least this.
COMPACT_BYTES = 256 << 10
# Larger than any book of ours: nothing is read behind it. Longer than any first line.
MOST_BYTES, HEAD_BYTES = 64 << 20, 100
# Kept of what would grow without end: answers for the history, lanes, lines that the disk refused, unknown lines.
ANSWERS, LANES, UNWRITTEN, UNKNOWN = 256, 64, 4000, 1000
SETTLED, REJECTED, DROPPED = ("delivered", "flagged", "dropped"), "rejected", "dropped"

ENTRIES = ("try", "end", "answer", "origin", "revive", "is")


class State:
    """What happened to one record so far."""

    failed = 0  # attempts without a verdict on the record
    counted = 0  # those that speak against the record, and not against its endpoint
    run = ""  # that began an attempt and did not end it
    left_open = False  # by another run than ours, which may have ended with it
    outcome = ""  # settled, or a dead letter
    origin: Optional[dict[str, Any]] = None

    @property
    def settled(self) -> bool:
        """Whether the record needs nothing more."""
        return self.outcome in SETTLED

    @property
    def dead(self) -> bool:
        """Whether the record is a dead letter."""
        return self.outcome == REJECTED

    @property
    def suspicion(self) -> int:
        """How late its turn comes."""
        return self.counted + self.left_open

    def lines(self, key: Key) -> list[Any]:
        """All of it, as entries."""
        found: list[Any] = [] if self.origin is None else [["origin", *key, self.origin]]
        if self.outcome:
            return [*found, ["is", *key, self.outcome]]
        numbers = [self.failed, self.counted]
        last = ["try", *key, self.run, *numbers] if self.run else ["end", *key, *numbers]
        return [*found, ["revive", *key], last]  # an answer in the history may say that it died


_UNTRIED = State()


class Book:
    """The book of one directory, as the process of this ``run`` knows it; in memory where the disk refuses."""

    def __init__(self, directory: Optional[str], run: str, max_bytes: int) -> None:
        self._path = os.path.join(directory, BOOK) if directory is not None else None
        self._run, self._compact_bytes = run, min(COMPACT_BYTES, max_bytes // 8)
        # Nobody else delivers. Where locks do not work that is unknown, and so is who left an attempt open.
        self.alone = True
        self._lock = RLock()
        self._file: Optional[File] = None
        self._unwritten: list[bytes] = []
        self._forget(b"")

    def _forget(self, head: bytes) -> None:
        self._head, self._cursor, self._size = head, 0, 0
        self._states: dict[Key, State] = {}
        self._facts: dict[tuple[str, str], Any] = {}
        self.answers: dict[tuple[Any, ...], list[Any]] = {}  # by all that tells one from another
        self._unknown: list[Any] = []

    def state(self, key: Key) -> State:
        """What is known of a record; not to be changed."""
        return self._states.get(key, _UNTRIED)

    def left_open(self, endpoint: str) -> bool:
        """Whether another run began to send a record there, and did not come to an end of it."""
        return any(s.left_open for key, s in list(self._states.items()) if key[0] == endpoint)

    def close_tries(self, keys: Callable[[], Collection[Key]]) -> None:
        """Records that are gone, refused or evicted, have no attempt that is left open."""
        tried = [found for found in list(self._states.items()) if found[1].left_open]
        known = keys() if tried else ()
        for key, state in tried:
            if key not in known:
                self.write(["end", *key, state.failed, state.counted])

    def fact(self, kind: str, tag: str) -> dict[str, Any]:
        """The last line of this kind about ``tag``, {} for none."""
        return dict(self._facts.get((kind, tag), ()))

    # -- reading ---------------------------------------------------------------------------------

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
            for line in data.split(b"\n") + self._unwritten * anew:  # the latter are newer
                self._apply(lines.decode(line))

    def _apply(self, value: Any) -> None:
        try:
            if type(value) is list and value[0] in ENTRIES:
                self._take(*value)
            elif type(value) is dict and value.get("v") == 1 and {"k", "tag"} < value.keys():
                slot = (value["k"], value["tag"])
                self._facts.pop(slot, None)  # the newest last
                if slot[0] != "book":
                    self._facts[slot] = value
            elif value is not None and len(self._unknown) < UNKNOWN:
                self._unknown.append(value)
        except (ArithmeticError, LookupError, TypeError, ValueError):
            pass  # it checks, and nobody of ours wrote it

    def _take(self, kind: str, endpoint: str, id: str, *rest: Any) -> None:
        state = self._states.setdefault((endpoint, id), State())
        if kind == "origin":
            state.origin = state.origin or dict(rest[0])
            return
        state.run, state.left_open = "", False
        if kind == "try":
            state.run, rest = rest[0], rest[1:]
            state.left_open = self.alone and state.run != self._run
        if kind in ("try", "end"):
            state.failed, state.counted = max(state.failed, rest[0]), max(state.counted, rest[1])
        elif kind == "revive":
            state.failed = state.counted = 0
            state.outcome = "" if state.dead else state.outcome
        elif not state.settled and (rest[0] in SETTLED or rest[0] == REJECTED):
            state.outcome = rest[0]
        if kind == "answer":
            self.answers[(endpoint, id) + rest[:2]] = [kind, endpoint, id, *rest]
            if len(self.answers) > ANSWERS:
                del self.answers[next(iter(self.answers))]

    # -- writing ---------------------------------------------------------------------------------

    def begin(self, key: Key) -> list[Any]:
        """The entry that says that this run begins an attempt."""
        state = self.state(key)
        return ["try", *key, self._run, state.failed, state.counted]

    def write(self, *values: Any, sync: bool = False) -> bool:
        """Know these from now on, and put them on disk; False where it refuses."""
        with self._lock:
            for value in values:
                self._apply(value)
            self._unwritten = (self._unwritten + [lines.encode(v) for v in values])[-UNWRITTEN:]
            try:
                self._flush()
                if sync and self._file is not None:
                    self._file.sync()
                return True
            except OSError:
                self.close()
                return False

    def note(self, kind: str, tag: str, **fields: Any) -> bool:
        """Write a fact, unless it is known."""
        value = {"v": 1, "k": kind, "tag": tag, **fields}
        return self._facts.get((kind, tag)) == value or self.write(value)

    def _flush(self) -> None:
        # Where locks do not work somebody may have replaced the file meanwhile: what went into the old one is lost.
        for _ in range(3):
            data = b"".join(self._unwritten)
            if self._file is None:
                self._file = files.open_append(self._path or "")
                data = b"\n" + data  # whatever the last writer left
            size = self._file.stat().st_size
            if size == 0:
                self._head, self._cursor = _head(0), 0
                data = self._head + b"\n" + data
            if data:
                self._file.write(data)
            if self._cursor == size:
                self._cursor += len(data)  # our own lines need not be read
            if self._file.is_named():
                self._unwritten = []
                return
            self.close()
        raise OSError("the book is replaced again and again")

    def close(self) -> None:
        """Let go of the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

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
            values = [*self._unknown, *self._facts.values(), *self.answers.values()]
            for key in known:
                values += self._states[key].lines(key) if key in self._states else []
            data = b"".join(map(lines.encode, values))
            self.close()
            files.replace(self._path or "", _head(len(data)) + b"\n" + data)
            self.refresh()


def _head(size: int) -> bytes:
    return lines.encode({"v": 1, "k": "book", "tag": os.urandom(8).hex(), "size": size})[:-1]
