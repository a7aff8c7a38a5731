"""A place for a spool, calls that fail; what is left open is closed behind each test, as by the end of a process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import spool
from support.spool import Calls


@pytest.fixture(autouse=True)
def _process_ends() -> Iterator[None]:
    before = set(spool.open_now)
    yield
    for file in set(spool.open_now) - before:
        file.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)
