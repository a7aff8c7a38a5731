"""What a spool leaves open is closed behind each test, as by the end of its process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent import files


@pytest.fixture(autouse=True)
def _process_ends() -> Iterator[None]:
    before = set(files._open_now)
    yield
    for file in set(files._open_now) - before:
        file.close()
