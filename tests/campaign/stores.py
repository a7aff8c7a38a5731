"""What people would use instead, given the same treatment: SQLite in both journal modes, and plain JSON lines.

Each as the documentation of its kind would have it: one row or line per record, committed or synced before the call
returns, read in order, removed once delivered.
"""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path


class SqliteStore:
    """A table; ``journal`` is "wal" or "delete" (the rollback journal)."""

    def __init__(self, directory: Path, journal: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "queue.db"
        self._db = sqlite3.connect(str(self.path), timeout=30, isolation_level=None)
        try:
            self._db.execute("pragma journal_mode=" + journal)
            self._db.execute("pragma synchronous=full")
            self._db.execute(
                "create table if not exists queue (n integer primary key, id text, body text)"
            )
        except BaseException:  # a damaged file, for one
            self._db.close()
            raise

    def record(self, id: str, text: str) -> None:
        """Durable when this returns."""
        self._db.execute("insert into queue (id, body) values (?, ?)", (id, text))

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
        with open(self.path, "a", encoding="utf-8") as file:
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
        rest = [one for one in self.pending() if one[0] != id]
        changed = self.path.with_suffix(".new")
        with open(changed, "w", encoding="utf-8") as file:
            for other, text in rest:
                file.write(json.dumps({"id": other, "body": text}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(changed, self.path)

    def close(self) -> None:
        pass


PEERS = ("SQLite WAL", "SQLite rollback", "JSON lines")


def peer(name: str, directory: Path) -> SqliteStore | LinesStore:
    """The store of ``PEERS`` by its name; raises what opening it raises."""
    if name == "JSON lines":
        return LinesStore(directory)
    return SqliteStore(directory, "wal" if name.endswith("WAL") else "delete")
