"""Records and products that no pass expects: they cost themselves at most, never the pass, the host or consent."""

import time
from typing import Any

import pytest
from support.agent import Desk, desk, endpoint, pass_
from support.attacks import http_answer
from support.product import started
from support.sockets import Server, answers, silent
from support.systems import KILLED

import agent
from agent.clock import Clock
from agent.spool.record import Record


def licence_server(at: Desk, name: str, url: str = "") -> agent.GetKeyManager:
    keys = at.collector.public_keys
    url = url or at.collector.url
    return agent.GetKeyManager(base_url=url, api_key="demo-api-key", keys=keys, name=name)


def usage_server(at: Desk, name: str, url: str = "") -> agent.Reo:
    return agent.Reo(base_url=url or at.collector.url, api_key="demo-api-key", name=name)


def url_of(server: Server) -> str:
    return "http://127.0.0.1:%d" % server.port


# -- a name that stands for another kind of server -----------------------------------------------


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


@pytest.mark.parametrize("body", [{"text_data": {"a": 1}}, {"text_data": "\ud800"}, {"meta": 7}])
def test_a_body_that_none_of_us_wrote_costs_itself_and_no_other(at: Desk, body: Any) -> None:
    """As in a damaged or a planted file: whole by its checksum, and not what we write."""
    with at.agent(only="usage" if "meta" in body else "licence") as product:
        kind, name = ("usage", "reo") if "meta" in body else ("licence", "getkeymanager")
        epoch = product._spool.consent.ensure()
        odd = Record(kind, name, "odd", at.clock.at, body, epoch=epoch)
        product._spool.record(odd, sync=False)
        good = product.call_home()
        for _ in range(3):
            product.flush()
        assert product.status()["trouble"] == {}
        assert good in [a["event_id"] for a in product.history() if a["verdict"] == "delivered"]


def test_records_that_no_code_of_ours_can_encode_any_more_wait_for_better_code(at: Desk) -> None:
    """As where an updater has changed one file of two: nothing of that is the records' fault."""
    with at.agent(only="licence", license_key="demo-license-key") as product:
        ids = [product.call_home(), product.record_text("a", data_group="g")]
        adapter: Any = product._delivery.lanes["getkeymanager"].adapter
        adapter.request = lambda *given, **more: 1 / 0
        for _ in range(20):
            assert product.flush().pending == 2
        assert "cannot be encoded: ZeroDivisionError" in endpoint(product)["reason"]
        del adapter.request
        assert product.flush().drained
        assert {answer["event_id"] for answer in product.history()} >= {*ids}


# -- consent that ends in the middle -------------------------------------------------------------


def test_a_refusal_breaks_off_usage_that_is_on_its_way(at: Desk) -> None:
    with Server(silent) as server:
        usage = (usage_server(at, "reo", url_of(server)),)
        with at.agent(endpoints=usage, deliver="thread", clock=Clock()) as product:
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


# -- products that end in the middle of a request ------------------------------------------------

ENDS = """
t = agent.Agent(config.replace(endpoints=(
    agent.GetKeyManager(base_url=%r, api_key="demo-api-key", allow_unsigned=True),)))
t.record_text(%r, data_group="g") if %r else t.flush(0)
sys.stdin.readline()
"""


def ends(at: Desk, server: Server, text: str, exit_s: float = 0) -> None:
    """A product that ends, or is killed (-1), as soon as its request is on the way."""
    server.seen.clear()
    settings: Any = {"start_delay_s": 0, "exit_timeout_s": max(0, exit_s)}
    with started(at, ENDS % (url_of(server), text, text), **settings) as child:
        assert server.seen.wait(20)
        if exit_s < 0:
            child.kill()
        child.communicate("\n", timeout=20)
    assert child.returncode == (KILLED if exit_s < 0 else 0)


def unsigned(server: Server) -> tuple[agent.GetKeyManager, ...]:
    given = {"base_url": url_of(server), "api_key": "demo-api-key"}
    return (agent.GetKeyManager(allow_unsigned=True, **given),)


@pytest.mark.parametrize(
    "exit_s, texts",
    [(-1, "012"), (0, ["0", "", ""]), (0.2, "012")],
    ids=["killed", "at once", "breaks off"],
)
def test_a_server_that_is_too_slow_for_every_run_is_not_asked_by_every_run(
    at: Desk, exit_s: float, texts: Any
) -> None:
    with Server(silent) as server:
        for text in texts:
            ends(at, server, text, exit_s)
        asked = server.accepted
        with at.agent(endpoints=unsigned(server), clock=Clock()) as product:
            for _ in range(3):
                pass_(product)
            found = endpoint(product)
            assert "ended 3 times before an answer" in found["reason"]
            assert found["waiting"] == "backoff"
        assert server.accepted == asked == 3
    with at.agent(only="licence", clock=Clock(), keys=()) as product:
        assert product.flush().drained  # nothing speaks against the records
    assert sorted(at.texts()) == sorted({*texts} - {""})


def test_a_request_that_ended_with_its_process_speaks_against_the_server_once(at: Desk) -> None:
    """Else a product that lives for a moment, and was killed three times, would never deliver again."""
    with Server(silent) as server:
        for text in "012":
            ends(at, server, text, -1)
        server.behaviour = answers(http_answer(b'{"response": {"code": 830}}'))
        failures = []
        for _ in range(5):
            with at.agent(endpoints=unsigned(server)) as product:
                pass_(product)
                failures.append(endpoint(product)["failures"])
        assert failures == [1] * 5 and server.accepted == 3
        at.clock.advance(61)
        with at.agent(endpoints=unsigned(server)) as product:
            pass_(product)
            assert product.status()["pending"] == 0


def test_who_flushes_by_hand_does_not_wait_for_what_ended_with_its_process(at: Desk) -> None:
    with Server(silent) as server:
        for text in "012":
            ends(at, server, text, -1)
        server.behaviour = answers(http_answer(b'{"response": {"code": 830}}'))
        with at.agent(endpoints=unsigned(server)) as product:
            assert product.flush().drained and product.status()["pending"] == 0


def test_a_suspect_that_waits_for_consent_keeps_nobody_awake(at: Desk) -> None:
    with Server(silent) as server:
        with at.agent(endpoints=(usage_server(at, "reo", url_of(server)),)) as product:
            product.track("EXPORT")
            product.flush(0.1)
    for consent, environ in ((None, {}), (True, {"DO_NOT_TRACK": "1"})):
        given: Any = {"only": "usage", "usage_consent": consent, "environ": environ}
        with at.agent(**given) as product:
            product.track("OTHER")
            for _ in range(3):
                pass_(product)
                due_s = product._delivery.due_in_s()
                assert due_s is None or due_s >= 1, due_s
            assert endpoint(product, "reo")["waits_for"] == "consent"
    with at.agent(only="usage") as product:
        assert product.flush().drained
    assert len(at.collector.records()) == 1


# -- neighbours ----------------------------------------------------------------------------------


def test_whoever_holds_the_deliverer_s_lock_is_told(at: Desk) -> None:
    with at.agent() as product, at.agent() as other:
        product.call_home()
        assert other._delivery.take()
        try:
            assert product.flush(0.2).pending == 2
            assert "another process" in product.status()["trouble"]["spool"]
        finally:
            other._delivery.give_back()
        assert product.flush().drained and product.status()["trouble"] == {}
