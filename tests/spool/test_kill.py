"""SIGKILL, at the worst moments: what a recording call returned for arrives with the next run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agent import Desk, FakeClock, child_environ, desk, endpoint

import agent

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")

# argv: address, public key, state directory, settings as JSON. Recording calls of the child follow.
PRODUCT = """
import json, os, signal, sys, time
import agent
sys.path.append(os.path.join(os.path.dirname(os.path.dirname(agent.__file__)), "tests"))
url, pem, state_dir, settings = sys.argv[1:5]
keys = (agent.PublicKey.from_pem(pem, name="global"),)
t = agent.Agent(agent.Config(
    vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5", usage_consent=True,
    state_dir=state_dir, endpoints=(
        agent.GetKeyManager(base_url=url, api_key="demo-api-key", keys=keys),
        agent.Reo(base_url=url, api_key="demo-api-key", domain="acme.example")),
    **json.loads(settings)), ("demo-license-key", "a"))
def say(value):
    os.write(1, json.dumps(value).encode() + b"\\n")
def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    # Children know only the system's clock.
    with desk(tmp_path / "state", FakeClock(time.time())) as found:
        yield found


def start(at: Desk, code: str, **settings: Any) -> subprocess.Popen[bytes]:
    pem = at.collector.keys[0]["public_key"]
    arguments = [at.collector.url, pem, str(at.state_dir), json.dumps(settings)]
    return subprocess.Popen(
        [sys.executable, "-c", PRODUCT + code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=child_environ(),
    )


def killed(at: Desk, code: str, **settings: Any) -> Any:
    """What a child said before it killed itself."""
    child = start(at, code, **settings)
    said, complaints = child.communicate(timeout=40)
    assert (child.returncode, complaints) == (-signal.SIGKILL, b"")
    return json.loads(said)


@pytest.mark.parametrize("deliver", ["thread", "manual"])
def test_a_thousand_records_and_a_kill_right_after(at: Desk, deliver: str) -> None:
    at.collector.fault("refuse")
    ids = killed(
        at,
        """
ids = [t.record_value(n, data_group="g") for n in range(500)]
ids += [t.track("EXPORT", meta={"n": n}) for n in range(500)]
say(ids)
die()
""",
        deliver=deliver,
        start_delay_s=0,
    )
    assert len(set(ids)) == 1000 and None not in ids
    at.collector.fault(None)
    with at.agent() as product:
        assert product.status()["pending"] == 1000
        report = product.flush(timeout=30)
        assert (report.delivered, report.pending, report.dead) == (1000, 0, 0)
    records = at.collector.records()
    licence = [r["fields"] for r in records if r["endpoint"] == "getkeymanager"]
    values = [int(fields["numeric_data_single_value"]) for fields in licence]
    # In order, but for what was a probe, or under way when the process died.
    assert len(values) == 500 and sorted(values) == list(range(500))
    assert [n for n in values if n > 1] == list(range(2, 500))
    usage = [r["fields"] for r in records if r["endpoint"] == "reo-usage"]
    assert {fields["event_id"] for fields in usage} == set(ids[500:]) and len(usage) == 500
    numbers = [fields["meta"]["n"] for fields in usage]
    assert [n for n in numbers if n > 1] == list(range(2, 500)) and {0, 1} < set(numbers)


def test_killed_in_the_middle_of_a_replay(at: Desk) -> None:
    """Only the record whose answer was under way may arrive twice."""
    with at.agent() as product:
        for number in range(60):
            product.record_text("%02d" % number, data_group="g")
    at.collector.answer_delay_s = 0.01
    child = start(at, "t.flush(30)", deliver="manual")
    deadline = time.monotonic() + 20
    while len(at.collector.records()) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    child.kill()
    child.communicate()
    at.collector.answer_delay_s = 0
    with at.agent() as product:
        assert product.flush().pending == 0
    counts = Counter(at.texts())
    assert set(counts) == {"%02d" % number for number in range(60)}
    assert sum(counts.values()) <= 61


def test_a_crash_loop_does_not_hammer(at: Desk) -> None:
    """The first answer sends the endpoint into backoff, on disk: the next four lives ask nothing."""
    at.collector.fault("500")
    code = """
t.call_home()
deadline = time.monotonic() + 20
while t.status()["endpoints"][0]["waiting"] != "backoff" and time.monotonic() < deadline:
    time.sleep(0.01)
say(t.status()["endpoints"][0]["failures"])
die()
"""
    failures = [killed(at, code, start_delay_s=0) for _ in range(4)]
    assert failures == [1, 1, 1, 1]
    sent = [r for r in at.collector.requests() if r["endpoint"] == "getkeymanager"]
    assert len(sent) == 1


def test_a_record_that_kills_its_sender_goes_last(at: Desk) -> None:
    """Three times a process died while this record was under way: the others are sent before it."""
    with at.agent(only="licence") as product:
        product.record_text("killer", data_group="g")
    at.collector.fault("blackhole")
    for _ in range(3):
        before = at.seen()
        child = start(at, "t.flush(30)", deliver="manual")
        deadline = time.monotonic() + 20
        while at.seen() == before:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        child.kill()
        child.communicate()
    at.collector.fault(None)
    at.collector.clear()
    with at.agent(only="licence") as product:
        product.record_text("a", data_group="g")
        product.record_text("b", data_group="g")
        report = product.flush()
        assert (report.pending, report.dead) == (0, 0)
    assert at.texts() == ["a", "b", "killer"]


def test_a_killed_process_leaves_the_last_sum_that_it_wrote(at: Desk) -> None:
    at.collector.fault("refuse")
    code = """
def on_disk():
    from support.spool import look
    return {r.body["activity_type"]: r.body["count"] for r in look(state_dir).records() if r.usage}
began = time.monotonic()
for n in range(1, 5):
    t.count("RENDER", n)
    t.count("EXPORT")
while on_disk() != {"RENDER": 10, "EXPORT": 4} and time.monotonic() < began + 20:
    time.sleep(0.01)
first_s = time.monotonic() - began
again = time.monotonic()
t.count("RENDER", 7)
while on_disk().get("RENDER") != 17 and time.monotonic() < again + 20:
    time.sleep(0.01)
say([on_disk(), first_s, time.monotonic() - again])
die()
"""
    sums, first_s, again_s = killed(at, code, start_delay_s=60)
    assert sums == {"RENDER": 17, "EXPORT": 4}
    # "Within a second"; the rest is for a busy machine.
    assert first_s < 3 and again_s < 3
    at.collector.fault(None)
    with at.agent() as product:
        assert product.flush().pending == 0
    found = {r["fields"]["activity_type"]: r["fields"]["count"] for r in at.collector.records()}
    assert found == {"RENDER": 17, "EXPORT": 4}


def test_state_of_a_killed_process_belongs_to_an_earlier_run(at: Desk) -> None:
    killed(at, "say(t.call_home()); die()", deliver="manual")
    told: list[agent.Outcome] = []
    with at.agent(on_outcome=told.append) as product:
        product.call_home()
        product.flush()
        assert endpoint(product)["pending"] == 0
    assert sorted(outcome.from_earlier_run for outcome in told) == [False, False, True, True]
