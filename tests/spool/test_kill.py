"""SIGKILL: what a recording call returned for arrives with the next run. At any other moment: ``campaign/kill.py``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agent import Desk, FakeClock, child_environ, desk, endpoint
from support.product import PRODUCT, arguments, run

import agent

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    # Children know only the system's clock.
    with desk(tmp_path / "state", FakeClock(time.time())) as found:
        yield found


def killed(at: Desk, code: str, **settings: Any) -> Any:
    """What a child printed before it killed itself."""
    end = "\nos.kill(os.getpid(), signal.SIGKILL)"
    return json.loads(run(at, code + end, status=-signal.SIGKILL, **settings).out)


@pytest.mark.parametrize("deliver", ["thread", "manual"])
def test_hundreds_of_records_and_a_kill_right_after(at: Desk, deliver: str) -> None:
    at.collector.fault("refuse")
    code = """
ids = [t.record_value(n, data_group="g") for n in range(200)]
ids += [t.track("EXPORT", meta={"n": n}) for n in range(200)]
print(json.dumps(ids), flush=True)
"""
    ids = killed(at, code, deliver=deliver, start_delay_s=0)
    assert len(set(ids)) == 400 and None not in ids
    at.collector.fault(None)
    with at.agent() as product:
        assert product.status()["pending"] == 400
        report = product.flush(timeout=30)
        assert (report.delivered, report.pending, report.dead) == (400, 0, 0)
    fields = [record["fields"] for record in at.collector.records()]
    usage = [one for one in fields if "event_id" in one]
    assert {one["event_id"] for one in usage} == set(ids[200:]) and len(usage) == 200
    values = [int(one["numeric_data_single_value"]) for one in fields if "event_id" not in one]
    # In order, but for what was a probe, or under way when the process died.
    for numbers in (values, [one["meta"]["n"] for one in usage]):
        assert sorted(numbers) == list(range(200))
        assert [n for n in numbers if n > 1] == list(range(2, 200))


def test_a_record_that_kills_its_sender_goes_last(at: Desk) -> None:
    """Three times a process died while this record was under way: the others are sent before it."""
    with at.agent(only="licence") as product:
        product.record_text("killer", data_group="g")
    at.collector.fault("blackhole")
    for _ in range(3):
        before, deadline = at.seen(), time.monotonic() + 20
        command = [sys.executable, "-c", PRODUCT + "t.flush(30)", *arguments(at, deliver="manual")]
        child = subprocess.Popen(command, env=child_environ())
        while at.seen() == before:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        child.kill()
        child.wait()
    at.collector.fault(None)
    at.collector.clear()
    with at.agent(only="licence") as product:
        product.record_text("a", data_group="g")
        product.record_text("b", data_group="g")
        report = product.flush()
        assert (report.pending, report.dead) == (0, 0)
    assert at.texts() == ["a", "b", "killer"]


def test_state_of_a_killed_process_belongs_to_an_earlier_run(at: Desk) -> None:
    killed(at, "print(json.dumps(t.call_home()), flush=True)", deliver="manual")
    told: list[agent.Outcome] = []
    with at.agent(on_outcome=told.append) as product:
        product.call_home()
        product.flush()
        assert endpoint(product)["pending"] == 0
    assert sorted(outcome.from_earlier_run for outcome in told) == [False, False, True, True]
