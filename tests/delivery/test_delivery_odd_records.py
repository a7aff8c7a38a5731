"""Records and products that no pass expects: they cost themselves at most, never the pass, the host or consent."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agent import Desk, child_environ, desk, endpoint, engine_of, pass_
from support.sockets import Server, silent

import agent
from agent.clock import Clock
from agent.spool.records import Record

DAY_S = 86400.0


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path / "state") as found:
        yield found


def licence_server(at: Desk, name: str, url: str = "") -> agent.GetKeyManager:
    keys = at.collector.public_keys
    url = url or at.collector.url
    return agent.GetKeyManager(base_url=url, api_key="demo-api-key", keys=keys, name=name)


def usage_server(at: Desk, name: str, url: str = "", domain: Any = "acme.example") -> agent.Reo:
    url = url or at.collector.url
    return agent.Reo(base_url=url, api_key="demo-api-key", name=name, domain=domain)


# --- a name that stands for another kind of server ----------------------------------------------


def test_usage_of_an_endpoint_that_is_a_licence_server_by_now_stops_nothing(at: Desk) -> None:
    with at.agent(endpoints=(usage_server(at, "telemetry"),)) as product:
        product.count("RENDER")
        product.track("EXPORT")
    after = (licence_server(at, "telemetry"), usage_server(at, "usage"))
    with at.agent(endpoints=after) as product:
        product.call_home()
        report = product.flush()
        assert (report.delivered, report.pending, report.drained) == (2, 0, True)
        assert product.preview() == []
        status = product.status()
        assert status["pending"] == 0 and sum(status["unknown_endpoints"].values()) == 2
    assert len(at.collector.records()) == 2


def test_a_licence_key_never_goes_to_a_usage_server(at: Desk) -> None:
    down = licence_server(at, "telemetry", "http://127.0.0.1:9")
    with at.agent(endpoints=(down,), license_key="canary-licence") as product:
        product.call_home()
    for consent in (None, True):
        endpoints = (usage_server(at, "telemetry"),)
        with at.agent(endpoints=endpoints, usage_consent=consent) as product:
            product.flush()
            assert product.status()["dead"] == 0
    assert not at.collector.requests()
    with at.agent(endpoints=(licence_server(at, "telemetry"),)) as product:
        assert product.flush().flagged == 1  # the collector does not know that licence


def test_a_body_that_cannot_be_encoded_is_set_aside(at: Desk) -> None:
    with at.agent() as product:
        spool = engine_of(product).spool
        # As in a damaged or a planted file: whole by its checksum, and not what we write.
        odd = Record("licence", "getkeymanager", "odd", at.clock.time(), {"text_data": {"a": 1}})
        spool.record(odd, sync=False)
        spool.record(Record("usage", "reo", "odd", at.clock.time(), {"meta": 7}), sync=False)
        product.record_text("good", data_group="g")
        for _ in range(3):
            product.flush()
        assert "good" in at.texts() and product.flush().drained
        assert product.status()["trouble"] == {}


# --- consent that ends in the middle ------------------------------------------------------------


def test_a_refusal_while_the_origin_is_looked_up_sends_nothing(at: Desk) -> None:
    asked, answer = threading.Event(), threading.Event()

    def slow() -> str:
        asked.set()
        answer.wait(20)
        return "acme.example"

    endpoints = (usage_server(at, "reo", domain=slow),)
    with at.agent(endpoints=endpoints, deliver="thread", clock=Clock()) as product:
        product.count("RENDER")
        flushing = threading.Thread(target=product.flush, args=(20,))
        flushing.start()
        assert asked.wait(20)
        product.set_usage_consent(False)
        answer.set()
        flushing.join(20)
        assert product.status()["pending"] == 0
    assert not at.collector.requests()


def test_a_refusal_breaks_off_usage_that_is_on_its_way(at: Desk) -> None:
    with Server(silent) as server:
        url = "http://127.0.0.1:%d" % server.port
        with at.agent(
            endpoints=(usage_server(at, "reo", url),), deliver="thread", clock=Clock()
        ) as product:
            product.track("EXPORT")
            assert server.seen.wait(20)  # the request is out, nobody answers
            began = time.monotonic()
            product.set_usage_consent(False)
            assert time.monotonic() - began < 5
            assert server.gone.wait(20)  # broken off, not left to its deadline of 10 s
            assert product.status()["pending"] == 0
            assert endpoint(product, "reo")["failures"] == 0  # no word against the server


def test_a_refusal_does_not_break_off_a_licence_record(at: Desk) -> None:
    with desk(at.state_dir, answer_delay_s=0.5) as slow:
        with slow.agent(deliver="thread", clock=Clock(), only="licence", keys=()) as product:
            product.call_home()
            while not slow.collector.requests():
                time.sleep(0.005)
            product.set_usage_consent(False)
            assert product.flush(20).drained
        assert len(slow.collector.requests()) == 1


# --- suspects that wait for something of ours ---------------------------------------------------

CRASHES = """
import sys, time
import agent
t = agent.Agent(agent.Config(vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5",
    state_dir=sys.argv[1], usage_consent=True, start_delay_s=0,
    endpoints=(agent.Reo(base_url=sys.argv[2], api_key="demo-api-key"),)))
t.track("EXPORT") if sys.argv[3] == "first" else t.flush(0)
time.sleep(60)
"""


def test_a_suspect_that_waits_for_consent_keeps_nobody_awake(at: Desk) -> None:
    with Server(silent) as server:
        url = "http://127.0.0.1:%d" % server.port
        for turn in ("first", "second", "third"):
            server.seen.clear()
            child = subprocess.Popen(
                [sys.executable, "-c", CRASHES, str(at.state_dir), url, turn], env=child_environ()
            )
            assert server.seen.wait(20)
            child.kill()
            child.wait()
    for consent, environ in ((None, {}), (True, {"DO_NOT_TRACK": "1"})):
        with at.agent(only="usage", usage_consent=consent, environ=environ) as product:
            product.track("OTHER")
            for _ in range(3):
                pass_(product)
                next_in_s = engine_of(product).courier.next_in_s()
                assert next_in_s is None or next_in_s >= 1, next_in_s
            assert endpoint(product, "reo")["waits_for"] == "consent"
    with at.agent(only="usage") as product:
        assert product.flush().drained
    assert len(at.collector.records()) == 1


# --- a product that lives shorter than its server answers ---------------------------------------

SHORT = """
import sys
import agent
t = agent.Agent(agent.Config(vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5",
    state_dir=sys.argv[1], start_delay_s=0, exit_timeout_s=0, endpoints=(
        agent.GetKeyManager(base_url=sys.argv[2], api_key="demo-api-key", allow_unsigned=True),)))
t.record_text(sys.argv[3], data_group="g")
sys.stdin.readline()
"""


def run_short(at: Desk, server: Server, text: str, *, asks: bool = True) -> None:
    """A product that ends as soon as its request is on the way, or at once where it ``asks`` nobody."""
    server.seen.clear()
    child = subprocess.Popen(
        [sys.executable, "-c", SHORT, str(at.state_dir), "http://127.0.0.1:%d" % server.port, text],
        env=child_environ(),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.seen.wait(20) or not asks
    _, err = child.communicate("\n", timeout=20)
    assert (child.returncode, err) == (0, "")


def unsigned(at: Desk, server: Server) -> tuple[agent.GetKeyManager, ...]:
    url = "http://127.0.0.1:%d" % server.port
    return (agent.GetKeyManager(base_url=url, api_key="demo-api-key", allow_unsigned=True),)


def test_after_a_run_that_was_too_short_the_next_one_does_not_wait_first(at: Desk) -> None:
    with Server(silent) as server:
        run_short(at, server, "0")
        server.seen.clear()
        with at.agent(
            endpoints=unsigned(at, server), deliver="thread", clock=Clock(), start_delay_s=600
        ) as product:
            product.call_home()
            assert server.seen.wait(20)


def test_a_server_that_is_too_slow_for_every_run_is_not_asked_by_every_run(at: Desk) -> None:
    with Server(silent) as server:
        for n in range(3):
            run_short(at, server, str(n))
        asked = server.accepted
        with at.agent(endpoints=unsigned(at, server), clock=Clock()) as product:
            found = endpoint(product)
            assert "ended 3 times before an answer" in found["reason"]
            assert (found["waiting"], found["pending"]) == ("backoff", 3)
            product.record_text("3", data_group="g")
            pass_(product)
        assert server.accepted == asked == 3
    with at.agent(only="licence", clock=Clock(), keys=()) as product:
        assert product.flush().drained  # nothing speaks against the records
    assert sorted(at.texts()) == list("0123")


# --- clocks -------------------------------------------------------------------------------------


def test_a_clock_that_is_set_ages_out_nothing_of_this_run(at: Desk) -> None:
    at.clock.at = 1_747_094_400.0  # a machine without a battery: the date of its image
    with at.agent(only="licence") as product:
        for n in range(5):
            product.record_text(str(n), data_group="g")
        at.clock.at += 500 * DAY_S
        at.clock.since_boot += 60
        assert product.flush().drained and product.status()["not_recorded"] == {}
    assert sorted(at.texts()) == list("01234")


def test_a_server_whose_clock_was_ahead_once_is_believed_again_without_a_restart(
    tmp_path: Path,
) -> None:
    clock, ahead = Clock(), [0.5 * DAY_S]
    with desk(tmp_path / "state") as at:
        clock = at.clock
        at.collector._desk.now = lambda: clock.time() + ahead[0]
        with at.agent(only="licence") as product:
            product.call_home()
            assert product.flush().delivered == 1
            ahead[0] = 0.0
            product.call_home()
            days = 0
            while not product.flush().drained:
                clock.advance(0.25 * DAY_S)
                days += 1
                assert days < 9, endpoint(product)["reason"]
            for _ in range(3):  # and from then on as ever
                clock.advance(DAY_S)
                product.call_home()
                assert product.flush().delivered == 1


def test_whoever_holds_the_deliverer_s_lock_is_told(at: Desk) -> None:
    with at.agent() as product, at.agent() as other:
        product.call_home()
        assert engine_of(other).courier.take()
        try:
            assert product.flush(0.2).pending == 2
            assert "another process" in product.status()["trouble"]["spool"]
        finally:
            engine_of(other).courier.give_back()
        assert product.flush().drained and product.status()["trouble"] == {}


FORKS = """
import os, sys, time
import agent
t = agent.Agent(agent.Config(vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5",
    state_dir=sys.argv[1], start_delay_s=0, endpoints=(
        agent.GetKeyManager(base_url=sys.argv[2], api_key="demo-api-key", allow_unsigned=True),)))
t.call_home()
sys.stdin.readline()
began = time.monotonic()
pid = os.fork()
if not pid:
    os._exit(0)
print(time.monotonic() - began)
os.waitpid(pid, 0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_fork_does_not_wait_for_a_silent_server(at: Desk) -> None:
    with Server(silent) as server:
        url = "http://127.0.0.1:%d" % server.port
        child = subprocess.Popen(
            [sys.executable, "-c", FORKS, str(at.state_dir), url],
            env=child_environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.seen.wait(20)
        out, _ = child.communicate("\n", timeout=20)
    assert child.returncode == 0 and float(out) < 0.4
