"""What tests of the command line share: a configuration file, and the collector that it names."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli import Site, collector


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with collector() as server:
        yield Site(server, tmp_path)
