"""What every attack begins with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.attacks import Scene, scene


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Scene]:
    with scene(tmp_path / "state") as found:
        yield found
