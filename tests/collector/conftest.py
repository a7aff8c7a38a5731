"""What tests of the collector share: one that runs for a whole file, emptied for each test."""

from collections.abc import Iterator

import pytest

from agent.collector import Collector


@pytest.fixture(scope="module")
def running() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def collector(running: Collector) -> Collector:
    running.clear()
    return running
