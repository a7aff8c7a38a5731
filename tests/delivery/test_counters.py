"""Counters between the host's threads and the disk: nothing twice, nothing lost, nothing after a refusal."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from support.agent import Desk, killed
from support.spool import look

from agent.clock import Clock


def test_threads_that_count_while_others_write_and_deliver(at: Desk) -> None:
    given: Any = {"clock": Clock(), "only": "usage", "deliver": "thread", "durability": "process"}
    with at.agent(**given) as product:
        ended = threading.Event()

        def count(name: str) -> None:
            for _ in range(5_000):
                product.count(name)

        def write() -> None:
            while not ended.is_set():
                product._counters.keep()
                product.flush(5)

        counting = [threading.Thread(target=count, args=(name,)) for name in "AABB"]
        writing = [threading.Thread(target=write) for _ in range(2)]
        for thread in counting + writing:
            thread.start()
        for thread in counting:
            thread.join()
        ended.set()
        for thread in writing:
            thread.join()
        assert product.flush(20).pending == 0
    assert at.sums() == {"A": 10_000, "B": 10_000}


def test_a_window_goes_on_across_many_segments_and_arrives_once(at: Desk) -> None:
    """Each second's total is a line: with so little room a segment is full after a few."""
    tight: Any = {"only": "usage", "max_bytes": 300_000, "max_records": 64}
    with at.agent(**tight) as product:
        names = set()
        for n in range(300):
            product.count("A", 2)
            product.count("B%d" % (n % 3))
            at.clock.advance(1)
            product._counters.keep()
            names |= {path.name for path in at.state_dir.glob("c-*.seg")}
        assert len(names) > 10, "many segments"
        killed(product)  # none of it was closed, and all of it is whole
    assert len(list(look(at.state_dir).records())) == 4
    with at.agent(**tight) as product:
        assert product.flush(20).pending == 0
    assert at.sums() == {"A": 600, "B0": 100, "B1": 100, "B2": 100}
    assert len(at.collector.records()) == 4


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_refusal_discards_what_is_counted(at: Desk, written: bool, elsewhere: bool) -> None:
    """Here or in another process, on disk or not; what is counted under a later consent is another sum."""
    with at.agent(only="usage") as product:
        product.count("EARLIER", 5)
        if written:
            product._counters.keep()
        if elsewhere:
            at.agent(only="usage", usage_consent=False).__enter__().close()
        else:
            product.set_usage_consent(False)
            product.count("REFUSED", 3)
            product.set_usage_consent(True)
        product.count("LATER", 2)
        assert product.flush(20).pending == 0
        product.count("LATER", 1)
        assert product.flush(20).pending == 0
    # Until this process has seen the other's refusal it cannot tell before from after.
    assert at.sums() in ([Counter(LATER=1), Counter(LATER=3)] if elsewhere else [Counter(LATER=3)])
