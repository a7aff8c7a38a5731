"""The book: what the deliverer knows of records and lanes. One file, appended to under the deliverer's lock.

    ["book", GENERATION, SIZE]                                       the first line
    ["try", endpoint, id, run, FAILED, COUNTED]                      before the first byte is sent
    ["end", endpoint, id, FAILED, COUNTED]                           no verdict on the record
    ["answer", endpoint, id, outcome, at, code, reason, errors, kind, epoch]
    ["origin", endpoint, id, {...}]   ["revive", endpoint, id]   {"v":1,"k":"lane","tag":...}

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
    from collections.abc import Collection
    from typing import Any, Optional

    from ..files import File
    from .record import Key, Record

# Rewritten at twice what the last compaction left, and at least this.
COMPACT_BYTES = 256 << 10
# Larger than any book of ours; nothing is read behind it.
MOST_BYTES = 64 << 20
# Longer than any first line of ours.
HEAD_BYTES = 80
# Kept by compaction: the newest answers about records that are gone, and what is known of so many lanes.
ANSWERS, LANES = 256, 64
# What the disk refused, held in memory until it takes it.
UNWRITTEN = 4000
SETTLED, REJECTED, DROPPED = ("delivered", "flagged", "dropped"), "rejected", "dropped"

_NUMBER = (int, float)
_SHAPES: dict[str, tuple[Any, ...]] = {
    "try": (str, int, int),
    "end": (int, int),
    "answer": (str, _NUMBER),
    "origin": (dict,),
    "revive": (),
}


class State:
    """What happened to one record so far."""

    __slots__ = ("failed", "counted", "run", "left_open", "settled", "dead", "origin")

    def __init__(self) -> None:
        self.failed = 0  # attempts without a verdict on the record
        self.counted = 0  # those that speak against the record, and not against its endpoint
        self.run = ""  # that began an attempt and did not end it
        self.left_open = False  # by another run than ours, which may have ended with it
        self.settled = self.dead = False
        self.origin: dict[str, Any] = {}  # of an aggregate, as first sent

    @property
    def suspicion(self) -> int:
        """How late its turn comes."""
        return self.counted + self.left_open


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
        self._head, self._cursor = b"", 0
        self._states: dict[Key, State] = {}
        self._facts: dict[tuple[str, str], dict[str, Any]] = {}
        self._unwritten: list[bytes] = []

    # -- reading ---------------------------------------------------------------------------------

    def state(self, key: Key) -> State:
        """What is known of a record; not to be changed."""
        return self._states.get(key, _UNTRIED)

    def fact(self, kind: str, tag: str) -> dict[str, Any]:
        """The last line of this kind about ``tag``, {} for none."""
        return dict(self._facts.get((kind, tag), ()))

    def refresh(self) -> None:
        """Read what other processes wrote. Raises ``OSError``."""
        with self._lock:
            for line in self._new():
                self._apply(lines.decode(line))
            for line in self._unwritten:  # newer than anything that we wrote
                self._apply(lines.decode(line[:-1]))

    def _new(self) -> list[bytes]:
        """The whole lines behind the cursor, which moves on."""
        try:
            file = files.open_read(self._path or "")
        except FileNotFoundError:
            return []
        try:
            size = file.stat().st_size
            head = file.read(0, HEAD_BYTES).partition(b"\n")[0]
            if size and (head != self._head or size < self._cursor):
                self._head, self._cursor = head, 0
                self._states, self._facts = {}, {}
            data = file.read(self._cursor, MOST_BYTES - self._cursor)
        finally:
            file.close()
        data = data[: data.rfind(b"\n") + 1]
        self._cursor += len(data)
        return data.split(b"\n")

    def _apply(self, value: Any) -> None:
        if _is_fact(value):
            self._facts[value["k"], value["tag"]] = value
            return
        if not _is_entry(value):
            return
        kind, endpoint, id, *rest = value
        state = self._states.setdefault((endpoint, id), State())
        if kind == "origin":
            state.origin = state.origin or rest[0]
            return
        state.run, state.left_open = "", False
        if kind == "try":
            state.run = rest.pop(0)
            state.left_open = self.alone and state.run != self._run
        if kind in ("try", "end"):
            state.failed, state.counted = max(state.failed, rest[0]), max(state.counted, rest[1])
        elif kind == "revive":
            state.dead, state.failed, state.counted = False, 0, 0
        else:
            state.settled |= rest[0] in SETTLED
            state.dead |= rest[0] == REJECTED

    def history(self, epoch: Optional[int], limit: int) -> list[dict[str, Any]]:
        """The last answers that came, oldest first; those about usage only while its consent stands."""
        found: list[dict[str, Any]] = []
        values = [lines.decode(line) for line in self._lines()] + [
            lines.decode(line[:-1]) for line in self._unwritten
        ]
        for value in values:
            if not _is_entry(value) or value[0] != "answer" or value[3] == DROPPED:
                continue
            _, endpoint, id, verdict, at, code, reason, errors, kind, of = (value + [None] * 7)[:10]
            if kind == "licence" or of == epoch:
                answer = {"at": at, "endpoint": endpoint, "kind": kind, "event_id": id}
                answer.update(verdict=verdict, code=code, reason=reason, errors=errors or {})
                found.append(answer)
        return found[-limit:] if limit > 0 else []

    def _lines(self) -> list[bytes]:
        """All whole lines on disk."""
        try:
            data = files.read(self._path, MOST_BYTES) if self._path is not None else b""
        except OSError:
            data = b""
        return data.split(b"\n")[:-1]

    # -- writing ---------------------------------------------------------------------------------

    def begin(self, record: Record, **origin: Any) -> bool:
        """Note an attempt before its first byte is sent, with the ``origin`` of an aggregate; False: not on disk."""
        state = self.state(record.key)
        values: list[Any] = [["try", *record.key, self._run, state.failed, state.counted]]
        if origin and not state.origin:
            values.insert(0, ["origin", *record.key, origin])
        return self.write(*values)

    def end(self, record: Record, *, failed: bool, counted: int) -> None:
        """Note that an attempt came to no verdict on the record."""
        state = self.state(record.key)
        self.write(["end", *record.key, state.failed + failed, state.counted + counted])

    def answer(self, record: Record, *answer: Any) -> None:
        """Note an answer, or what else ended a record: outcome, at, code, reason, errors."""
        outcome, at, code, reason, errors = answer
        if record.usage:  # what its server writes may repeat what was recorded
            reason, errors = "", None
        entry = ["answer", *record.key, outcome, at, code, reason, errors, record.kind]
        self.write(entry + [record.epoch] * record.usage)

    def revive(self, key: Key) -> bool:
        """Note that a dead letter waits again."""
        return self.write(["revive", *key])

    def note(self, kind: str, tag: str, fields: dict[str, Any]) -> bool:
        """Note a fact, unless it is known."""
        value = {"v": 1, "k": kind, "tag": tag, **fields}
        return self._facts.get((kind, tag)) == value or self.write(value)

    def write(self, *values: Any, sync: bool = False) -> bool:
        """Know these from now on, and put them on disk; False where it refuses."""
        with self._lock:
            for value in values:
                self._apply(value)
            self._unwritten = (self._unwritten + [lines.encode(v) for v in values])[-UNWRITTEN:]
            try:
                self._flush(sync)
                return True
            except OSError:
                self.close()
                return False

    def _flush(self, sync: bool) -> None:
        if self._path is None:
            raise FileNotFoundError(BOOK)
        # Where locks do not work somebody may have replaced the file meanwhile: what went into the old one is lost.
        for _ in range(3):
            data = b"".join(self._unwritten)
            if self._file is None:
                self._file = files.open_append(self._path)
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
                if sync:
                    self._file.sync()
                return
            self.close()
        raise OSError("the book is replaced again and again")

    def sync(self) -> bool:
        """Have on disk, safe from a power cut, what was noted so far; False where it refuses."""
        return self.write(sync=True)

    def close(self) -> None:
        """Let go of the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    # -- compaction ------------------------------------------------------------------------------

    def compact(self, keys: Collection[Key]) -> None:
        """Rewrite an overgrown book: for these records, the ones that stand in segments, all that still says something.

        Under the deliverer's lock. Raises ``OSError``.
        """
        with self._lock:
            if self._path is None or self._cursor < self._compact_bytes:
                return
            left = lines.decode(self._head)
            if self._unwritten or self._cursor < 2 * _size_left(left):
                return
            self.close()
            kept = self._kept(keys)
            for key in keys:
                state = self.state(key)
                if not state.settled and not state.dead:
                    kept += _numbers(key, state)
            size = sum(map(len, kept))
            files.replace(self._path, b"".join([_head(size) + b"\n", *kept]))
            self.refresh()

    def _kept(self, keys: Collection[Key]) -> list[bytes]:
        kept: dict[Any, bytes] = {}  # by what a later line replaces
        gone: list[int] = []
        for number, line in enumerate(self._lines()):
            value = lines.decode(line)
            if _is_fact(value):
                slot: Any = (value["k"], value["tag"])
                kept.pop(slot, None)  # the newest last
            elif _is_entry(value) and value[0] in ("try", "end"):
                continue
            elif _is_entry(value) and (value[1], value[2]) not in keys:
                if value[0] != "answer" or value[3] == DROPPED:
                    continue
                gone.append(slot := number)
            elif value is None or _size_left(value) >= 0:
                continue
            else:
                slot = number
            kept[slot] = line + b"\n"
        lanes = [slot for slot in kept if type(slot) is tuple and slot[0] == "lane"]
        for slot in [*lanes[:-LANES], *gone[:-ANSWERS]]:
            del kept[slot]
        return list(kept.values())


def _head(size: int) -> bytes:
    return lines.encode(["book", os.urandom(8).hex(), size])[:-1]


def _size_left(head: Any) -> int:
    """What the last compaction left; -1 for what is no first line."""
    fit = type(head) is list and len(head) == 3 and head[0] == "book" and type(head[2]) is int
    return int(head[2]) if fit else -1


def _numbers(key: Key, state: State) -> list[bytes]:
    """How often a record was tried, as a line; none for never."""
    if state.run:
        return [lines.encode(["try", *key, state.run, state.failed, state.counted])]
    if state.failed or state.counted:
        return [lines.encode(["end", *key, state.failed, state.counted])]
    return []


def _is_fact(value: Any) -> bool:
    mine = type(value) is dict and value.get("v") == 1
    return mine and type(value.get("k")) is str and type(value.get("tag")) is str


def _is_entry(value: Any) -> bool:
    """Whether a line is about a record, of a kind that we know; all others are left alone."""
    if type(value) is not list or len(value) < 3 or type(value[1]) is not str:
        return False
    shape = _SHAPES.get(value[0]) if type(value[0]) is str else None
    if shape is None or type(value[2]) is not str or len(value) < 3 + len(shape):
        return False
    return all(isinstance(given, types) for given, types in zip(value[3:], shape))
