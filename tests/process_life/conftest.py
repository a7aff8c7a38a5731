"""Products in processes of their own have the system's clock, and so has their collector."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agent import Desk, FakeClock, desk


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path / "state", FakeClock(time.time())) as found:
        yield found
