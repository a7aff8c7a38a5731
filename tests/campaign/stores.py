"""What people would use instead, given the same treatment: SQLite in both journal modes, and plain JSON lines.

Each as the documentation of its kind would have it: one row or line per record, committed or synced before the call
returns, read in order, removed once delivered. ``Product`` records and sends like ours does, one deliverer at a time.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PEERS = ("SQLite WAL", "SQLite rollback", "JSON lines")


class SqliteStore:
    """A table; ``journal`` is "wal" or "delete" (the rollback journal)."""

    def __init__(self, directory: Path, journal: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(str(directory / "queue.db"), timeout=30, isolation_level=None)
        try:
            self._db.execute("pragma journal_mode=" + journal)
            self._db.execute("pragma synchronous=full")
            columns = "n integer primary key, id text, body text"
            self._db.execute("create table if not exists queue (%s)" % columns)
        except BaseException:  # a damaged file, for one
            self._db.close()
            raise

    def record(self, id: str, text: str) -> None:
        """Durable when this returns."""
        self._db.execute("insert into queue (id, body) values (?, ?)", (id, text))

    def fill(self, records: list[tuple[str, str]]) -> None:
        """Many at once, not synced: no power cut here, and the same bytes."""
        self._db.execute("pragma synchronous=off")
        for id, text in records:
            self.record(id, text)

    def pending(self) -> list[tuple[str, str]]:
        """(id, text) of everything that waits, in order; raises what SQLite raises."""
        return list(self._db.execute("select id, body from queue order by n"))

    def settle(self, id: str) -> None:
        """Forget a delivered record."""
        self._db.execute("delete from queue where id = ?", (id,))

    def close(self) -> None:
        self._db.close()


class LinesStore:
    """One JSON object per line in one file, appended and synced; what was delivered is cut off by a rewrite."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "queue.jsonl"

    def record(self, id: str, text: str) -> None:
        """Durable when this returns."""
        self._write(self.path, "a", [(id, text)])

    def fill(self, records: list[tuple[str, str]]) -> None:
        self._write(self.path, "a", records)

    def _write(self, path: Path, mode: str, records: list[tuple[str, str]]) -> None:
        with open(path, mode, encoding="utf-8") as file:
            for id, text in records:
                file.write(json.dumps({"id": id, "body": text}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def pending(self) -> list[tuple[str, str]]:
        """(id, text) of everything that waits, in order; raises what the decoder raises."""
        try:
            with open(self.path, encoding="utf-8") as file:
                found = [json.loads(line) for line in file]
        except FileNotFoundError:
            return []
        return [(one["id"], one["body"]) for one in found]

    def settle(self, id: str) -> None:
        """Forget a delivered record."""
        changed = self.path.with_suffix(".new")
        self._write(changed, "w", [one for one in self.pending() if one[0] != id])
        os.replace(changed, self.path)

    def close(self) -> None: ...


def peer(name: str, directory: Path) -> SqliteStore | LinesStore:
    """The store of ``PEERS`` by its name; raises what opening it raises."""
    if name == "JSON lines":
        return LinesStore(directory)
    return SqliteStore(directory, "wal" if name.endswith("WAL") else "delete")


class Report:
    """What a flush came to, as far as the campaigns ask."""

    dead = 0

    def __init__(self, pending: int) -> None:
        self.pending, self.drained = pending, not pending


class Product:
    """A peer as a product would build it in: ``send(id, text)`` says whether the server took a record."""

    def __init__(self, name: str, directory: str, id_of: Callable[[], str], send: Any) -> None:
        self._name, self._directory, self._id_of, self._send = name, Path(directory), id_of, send
        self._current = threading.local()  # each thread through a connection of its own

    def _store(self) -> SqliteStore | LinesStore:
        if not hasattr(self._current, "store"):
            self._current.store = peer(self._name, self._directory)
        store: SqliteStore | LinesStore = self._current.store
        return store

    def record_text(self, text: str, data_group: str) -> str:
        """Record under the marker that belongs to this thread."""
        id = self._id_of()
        self._store().record(id, text)
        return id

    def flush(self, timeout: float) -> Report:
        """Read what waits, in order; send each; settle it once it was taken."""
        import fcntl

        ends_at = time.monotonic() + timeout
        lock = os.open(self._directory / "deliverer.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            waiting = self._store().pending()
            while waiting and time.monotonic() < ends_at and self._send(*waiting[0]):
                self._store().settle(waiting.pop(0)[0])
            return Report(len(waiting))
        finally:
            os.close(lock)

    def close(self) -> None: ...
