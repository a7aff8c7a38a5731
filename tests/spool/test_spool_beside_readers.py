"""Who looks at a spool beside its deliverer, in the same process, waits for nobody who waits for it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from support import spool as support
from support.spool import keep, spool

from agent import files


def test_who_looks_beside_a_compaction_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spool(tmp_path / "state")
    keep(target, *map(str, range(20)))
    assert target.claim()
    target.note_fact("home", "", id="1")
    target._book._compact_bytes = 0
    winners, looked = target._backlog.winners, threading.Event()

    def winners_beside_a_look() -> Any:
        """The other thread has read the segments' names and is about to read the book."""
        looks.start()
        assert looked.wait(10)
        return winners()

    reads = target._book.refresh

    def refresh() -> None:
        if threading.current_thread() is looks:
            looked.set()
        reads()

    monkeypatch.setattr(target._book, "refresh", refresh)
    looks = threading.Thread(target=target.count, daemon=True)
    ends = threading.Thread(target=lambda: target._book.compact(winners_beside_a_look), daemon=True)
    ends.start()
    ends.join(10)
    looks.join(10)
    assert not ends.is_alive() and not looks.is_alive()


def test_an_empty_consent_file_is_replaced_where_no_open_file_can_be_unlinked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spool(tmp_path / "state")
    assert target.consent.ensure()
    path = tmp_path / "state" / "agent.consent"
    path.write_bytes(b"")
    remove = files.remove

    def as_on_windows(path: str) -> bool:
        return not any(file.path == path for file in support.open_now) and remove(path)

    monkeypatch.setattr(files, "remove", as_on_windows)
    monkeypatch.setattr(files, "WINDOWS", True)
    monkeypatch.setattr(files.File, "lock", lambda self: setattr(self, "held", None))
    assert target.consent.ensure()
