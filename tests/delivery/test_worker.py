"""When: what ``flush`` waits for, how much one pass takes, when outcomes are told, and who is left when all is done."""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agent import Desk, desk, endpoint
from support.collector import wait_until
from support.scripted import HTML, YES, Scripted
from support.sockets import Server, silent
from support.systems import procfs

import agent
from agent.clock import Clock

MODES = ("thread", "manual")
OK = YES["usage"]


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path / "state", Clock()) as found:  # type: ignore[arg-type]
        yield found


def product_of(at: Desk, transport: Any, deliver: str = "manual", **given: Any) -> agent.Agent:
    """With 600 s until a thread begins by itself; on a disk that need not survive a power cut."""
    settings = {"only": "usage", "start_delay_s": 600, "durability": "process", **given}
    told = settings.pop("on_outcome", None)
    config = at.config(deliver=deliver, **settings)
    return agent.Agent(config, on_outcome=told, transport=transport, environ={})


def track(product: agent.Agent, count: int) -> None:
    for n in range(count):
        assert product.track("r%03d" % n)


# -- flush ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("deliver", MODES)
def test_a_flush_delivers_all_there_is_however_many_passes_it_takes(at: Desk, deliver: str) -> None:
    server = Scripted(lambda name: OK)
    with product_of(at, server, deliver) as product:
        track(product, 600)
        report = product.flush(60)
        assert (report.delivered, report.pending, report.drained) == (600, 0, True)
    assert server.sent == ["r%03d" % n for n in range(600)]


@pytest.mark.parametrize("deliver", MODES)
@pytest.mark.parametrize("left", [0, 3])
def test_a_flush_ends_when_all_is_settled_or_what_is_left_waits(
    at: Desk, deliver: str, left: int
) -> None:
    server = Scripted(lambda name: HTML if left else OK)
    with product_of(at, server, deliver) as product:
        track(product, 3)
        for _ in range(2):  # also where nothing new was recorded since
            began = time.monotonic()
            report = product.flush(60)
            assert time.monotonic() - began < 5
            assert report.pending == left and report.drained == (not left)
        assert len(server.sent) == (2 if left else 3)


@pytest.mark.parametrize("deliver", MODES)
def test_a_flush_ends_when_its_time_is_over(at: Desk, deliver: str) -> None:
    with Server(silent) as server:
        slow = agent.Reo(base_url="http://127.0.0.1:%d" % server.port, api_key="k")
        with product_of(at, None, deliver, endpoints=(slow,)) as product:
            track(product, 2)
            began = time.monotonic()
            assert product.flush(0.3).pending == 2
            assert 0.25 < time.monotonic() - began < 2
            wait_until(lambda: server.accepted == 1)  # it may have been loading until now


def test_an_endpoint_that_fails_keeps_a_flush_from_no_other(at: Desk) -> None:
    server = Scripted(lambda name: HTML if name == "CALL HOME" else OK)
    two = [agent.Reo(base_url="http://127.0.0.1:9", api_key="k", name=name) for name in "ab"]
    with product_of(at, server, endpoints=tuple(two)) as product:
        product.call_home()
        server.answer = lambda name: HTML if len(server.sent) == 1 else OK
        track(product, 4)
        report = product.flush(60)
        assert (report.delivered, report.pending) == (5, 5)
        assert endpoint(product, "a")["pending"] == 5
        # What failed goes last, and all others leave in one call.
        assert product.flush(60).delivered == 5
    assert Counter(server.sent) == {"CALL HOME": 3, **{"r%03d" % n: 2 for n in range(4)}}


# -- outcomes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("deliver", MODES)
def test_outcomes_are_told_once_each_one_at_a_time_and_beside_no_lock(
    at: Desk, deliver: str
) -> None:
    """A pass begins at most 256 records; then another process may deliver, and a dialog may be shown."""
    told: list[str] = []
    sent: list[int] = []
    busy = threading.Lock()
    server = Scripted(lambda name: OK)

    def on_outcome(outcome: agent.Outcome) -> None:
        assert busy.acquire(blocking=False), "one at a time"
        told.append(outcome.event_id)
        sent.append(len(server.sent))
        if len(told) in (1, 300):
            assert other._spool.claim(), "another process may deliver meanwhile"
            other._spool.release()
            product.flush(5)  # comes back at once
            assert product.status()["pending"] <= 600 - len(server.sent)
        busy.release()

    given = {"on_outcome": on_outcome}
    with product_of(at, server, deliver, **given) as product, product_of(at, server) as other:
        track(product, 600)
        assert product.flush(60).delivered == 600
        wait_until(lambda: len(told) == 600)
    assert len(set(told)) == 600
    # On a slow disk a pass ends by its time.
    assert os.name == "nt" or sorted(set(sent)) == [256, 512, 600]


def test_a_pass_ends_after_two_seconds_so_that_others_have_their_turn(at: Desk) -> None:
    sent: list[int] = []
    server = Scripted(lambda name: time.sleep(0.3) or OK)  # type: ignore[func-returns-value]
    with product_of(
        at, server, on_outcome=lambda outcome: sent.append(len(server.sent))
    ) as product:
        track(product, 9)
        assert product.flush(60).delivered == 9
    assert 5 <= sent[0] <= 8


# -- nobody is left ------------------------------------------------------------------------------


def ours() -> int:
    """Threads of the process that ``threading`` did not start: the tests' own servers' are all its."""
    known = [t for t in threading.enumerate() if "Dummy" not in type(t).__name__]
    return len(set(os.listdir("/proc/self/task")) - {str(thread.native_id) for thread in known})


@procfs
@pytest.mark.parametrize("fault, left", [(None, 0), ("429-retry-after", 1), ("500", 1)])
def test_no_thread_is_left_while_there_is_nothing_to_do(at: Desk, fault: Any, left: int) -> None:
    """Where something waits one sleeps; none of the network's stays."""
    at.collector.fault(fault)
    before = ours()  # whoever watches over the tests
    with product_of(at, None, "thread", start_delay_s=0) as product:
        for _ in range(3):
            product.track("EXPORT")
            assert product.flush(20).drained == (not left)
            wait_until(lambda: ours() == before + left)
            transport: Any = product._delivery.transport
            assert not transport._lines, "no connection is kept"
    wait_until(lambda: ours() == before)
