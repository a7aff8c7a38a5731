"""Sidecars: which records are settled, and how often each was tried.

Entries are keyed by endpoint and event id, never by position, the ledger is the union of all sidecars, and what it
says only grows: one that is swapped, renamed or read twice settles nothing wrongly. Written without fsync: a power
cut may repeat a delivery, never lose a record. Where a sidecar cannot be written the ledger remembers in memory.
Only the deliverer writes.
"""

from __future__ import annotations

import os

from .. import files, jsonline
from . import names
from .lines import Tail, append, decoded, rewrite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Optional

    from .records import Record

    Key = tuple[str, str]

# Rewritten above this size; 500 records of one segment need about 40 KB.
COMPACT_BYTES = 128 << 10
# Settled and frozen records remembered after their segment went, against copies: twice the default max_records.
REMEMBERED = 20_000


class Attempts:
    """What happened to one record so far."""

    settled = 0
    failed = 0  # ended without a verdict on the record
    crashed = 0  # begun and never ended: it may have ended its sender's process
    counted = 0  # failed although the endpoint proved another record since the last time
    proofs = -1  # the endpoint's proofs at the last failed attempt
    open = ""  # the run that began an attempt and did not end it
    frozen: Optional[dict[str, Any]] = None  # an aggregate's body as first sent

    @property
    def suspicion(self) -> int:
        """Attempts that speak against the record and not against its endpoint."""
        return self.counted + self.crashed + bool(self.open)

    def begun(self, run: str) -> None:
        """An attempt begins; one of another run that did not end has crashed."""
        self.crashed += self.open not in ("", run)
        self.open = run

    def entries(self, key: Key) -> list[list[Any]]:
        """The whole state, as lines of a sidecar."""
        crashed = self.crashed + bool(self.open)
        state = ["s", *key, self.settled, self.failed, crashed, self.counted, self.proofs]
        return [state] if self.frozen is None else [state, ["f", *key, self.frozen]]


class Ledger:
    """The union of all sidecars of a directory, as the process of this ``run`` knows it."""

    def __init__(self, directory: str, run: str = "") -> None:
        self._directory, self._run = directory, run
        self._tails: dict[str, Tail] = {}
        self._attempts: dict[Key, Attempts] = {}
        self._told: dict[str, set[Key]] = {"": set()}  # by the sidecar that told of them first
        self._remembered: dict[Key, Attempts] = {}
        self._fd: Optional[int] = None
        self._open_name = ""
        # Nobody else delivers. Where locks do not work that is unknown, and so is who crashed.
        self.alone = True
        self.trouble = ""

    def refresh(self, segments: list[str], sidecars: list[str]) -> None:
        """Read what is new in the sidecars that exist; forget those that went with their segment."""
        there = {"", *sidecars, *map(names.sidecar, segments)}
        for name in (self._tails.keys() | self._told.keys()) - there:
            self.drop(name)
        for name in sidecars:
            if name not in self._tails:
                self._tails[name] = Tail(os.path.join(self._directory, name))
            try:
                for _, value in decoded(self._tails[name].lines()):
                    self._apply(value, name)
            except OSError as error:
                self.trouble = str(error)

    def _apply(self, value: Any, name: str) -> None:
        if not _is_known(value):
            return
        kind, endpoint, id, *rest = value
        known = self._of((endpoint, id), name)
        if kind == "b":
            if self.alone and rest[0] != self._run:  # memory is ahead of our own lines
                known.begun(rest[0])
            return
        if kind == "f":
            known.frozen = known.frozen or rest[0]
            return
        known.open = ""
        if kind == "s":
            for field, number in zip(_STATE, rest):
                setattr(known, field, max(getattr(known, field), number))

    def _of(self, key: Key, name: str) -> Attempts:
        known = self._attempts.get(key)
        if known is None:
            known = self._attempts[key] = self._remembered.pop(key, Attempts())
            self._told.setdefault(name, set()).add(key)
        return known

    def _about(self, record: Record) -> Attempts:
        return self._of(record.key, names.sidecar(record.segment) if record.segment else "")

    def get(self, key: Key) -> Optional[Attempts]:
        """What is known of a record, None where it was never tried."""
        return self._attempts.get(key) or self._remembered.get(key)

    def is_settled(self, key: Key) -> bool:
        """Whether a record needs nothing more."""
        known = self.get(key)
        return known is not None and bool(known.settled)

    def begin(self, record: Record) -> None:
        """Note, before the first byte is sent, that an attempt begins."""
        self._about(record).begun(self._run)
        self._write(record, ["b", *record.key, self._run])

    def freeze(self, record: Record) -> bool:
        """Put an aggregate's body on disk before it is first sent; False where that failed."""
        known = self._about(record)
        if known.frozen is None and self._write(record, ["f", *record.key, record.body], sync=True):
            known.frozen = record.body
        return known.frozen is not None

    def end(self, record: Record, *, settled: bool, proofs: Optional[int] = None) -> None:
        """Note how an attempt ended.

        ``proofs`` counts what the endpoint proved so far, None where the attempt says nothing of the record.
        """
        known = self._about(record)
        known.open = ""
        known.settled |= settled
        if proofs is not None:
            known.failed += 1
            known.counted += 0 <= known.proofs < proofs
            known.proofs = proofs
        self._write(record, known.entries(record.key)[0])

    def adopt(self, records: Iterable[Record]) -> None:
        """Note beside each record what only another sidecar says: that one goes with its segment."""
        for record in records:
            key, own = record.key, self._told.setdefault(names.sidecar(record.segment), set())
            known = self.get(key) if key not in own else None
            if known is not None and all(self._write(record, e) for e in known.entries(key)):
                own.add(key)

    def abandon(self, record: Record) -> None:
        """Note that we gave an attempt up ourselves: it says nothing of the record.

        Called by the closing thread, perhaps beside the deliverer: a descriptor of its own, never the shared one.
        """
        known = self._about(record)
        if known.open and record.segment:
            try:
                path = os.path.join(self._directory, names.sidecar(record.segment))
                append(path, ["a", *record.key])
            except OSError as error:
                self.trouble = str(error)
        known.open = ""

    def _write(self, record: Record, entry: list[Any], *, sync: bool = False) -> bool:
        if not record.segment:
            return True
        try:
            if self._open_name != record.segment or self._fd is None:
                self.close()
                path = os.path.join(self._directory, names.sidecar(record.segment))
                self._fd, self._open_name = files.open_append(path), record.segment
                # The last writer may have died in the middle of a line.
                files.write_whole(self._fd, b"\n")
            files.write_whole(self._fd, jsonline.encode(entry))
            if sync:
                files.sync(self._fd)
                files.sync_directory(self._directory)
            return True
        except OSError as error:
            self.trouble = str(error)
            self.close()
            return False

    def close(self) -> None:
        """Close the sidecar that is open."""
        fd, self._fd = self._fd, None
        if fd is not None:
            files.close(fd)

    def compact(self, name: str) -> None:
        """Rewrite an overgrown sidecar, lines of unknown kinds kept; only under the deliverer's lock."""
        tail = self._tails.get(name)
        if tail is None or tail.offset < COMPACT_BYTES:
            return
        self.close()
        told = self._told.get(name, ())
        try:
            known = [(key, self.get(key)) for key in told]
            rewrite(tail.path, _is_known, [e for key, at in known if at for e in at.entries(key)])
        except OSError as error:
            self.trouble = str(error)

    def drop(self, name: str) -> None:
        """Forget a sidecar that went with its segment; what it settled stays so, bounded."""
        self._tails.pop(name, None)
        if self._open_name and names.sidecar(self._open_name) == name:
            self.close()
        for key in self._told.pop(name, ()):
            known = self._attempts.pop(key, None)
            if known is not None and (known.settled or known.frozen):
                self._remembered[key] = known
        while len(self._remembered) > REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def forget(self, record: Record) -> None:
        """Forget a record that was only in memory."""
        if record.key in self._told[""]:
            self._told[""].discard(record.key)
            self._attempts.pop(record.key, None)


_STATE = ("settled", "failed", "crashed", "counted", "proofs")
_SHAPES = {"b": [str], "a": [], "f": [dict], "s": [int] * 5}


def _is_known(value: Any) -> bool:
    """Whether an entry is one of ours; all others are left alone."""
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value[:3]):
        return False
    return len(value) >= 3 and [type(more) for more in value[3:]] == _SHAPES.get(value[0])
