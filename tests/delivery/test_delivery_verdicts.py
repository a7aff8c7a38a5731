"""The verdict table, row by row: a real server that misbehaves, and what is kept, paused and told afterwards."""

import pytest
from support.agent import Desk, endpoint, pass_, work_until

import agent

HOUR_S, DAY_S = 3600.0, 86400.0


def history_of(product: agent.Agent) -> list[str]:
    return [answer["verdict"] for answer in product.history()]


def test_a_delivered_record_is_settled_and_told(at: Desk) -> None:
    told: list[agent.Outcome] = []
    with at.agent(on_outcome=told.append) as product:
        event_id = product.call_home()
        report = product.flush()
        assert (report.delivered, report.pending, report.drained) == (2, 0, True)
        assert [o.verdict for o in told] == ["delivered", "delivered"]
        first = told[0]
        assert (first.event_id, first.endpoint) == (event_id, "getkeymanager")
        assert (first.recorded_at, first.had_license_key) == (at.clock.at, True)
        assert not first.from_earlier_run and first.errors == {}
        assert history_of(product) == ["delivered", "delivered"]
        assert product.history()[0]["code"] == 830
        assert endpoint(product)["proven"] and endpoint(product)["failures"] == 0
        product.flush()
    assert at.seen() == 2


def test_a_flagged_record_is_settled_with_its_errors(at: Desk) -> None:
    told: list[agent.Outcome] = []
    wrong = ("wrong", "activation-1")
    with at.agent(license_key=wrong, only="licence", on_outcome=told.append) as product:
        product.call_home()
        report = product.flush()
        assert (report.delivered, report.flagged, report.pending) == (0, 1, 0)
        (outcome,), (answer,) = told, product.history()
        assert outcome.verdict == "flagged" and "license_key" in outcome.errors
        assert answer["code"] == 831 and answer["errors"] == outcome.errors
        product.flush()
    assert at.seen() == 1


# For whom; the outcome; the wait that follows; what the endpoint did.
ROWS = {
    ("licence", "held", "held"): "401-100 401-101 401-102 401-103 403-150",
    ("licence", "throttled", "pause"): "429-retry-after",
    ("licence", "offline", "backoff"): "refuse drop-answer",
    ("licence", "skewed", "backoff"): "replay",
    ("licence", "untrusted", "backoff"): "unsigned wrong-key unknown-code portal huge truncated"
    " not-json unsigned-400 unsigned-401",
    ("licence", "retry", "backoff"): "redirect 500 429",
    ("usage", "held", "held"): "401-100 unsigned-401",
    ("usage", "throttled", "pause"): "429-retry-after",
    ("usage", "offline", "backoff"): "refuse",
    ("usage", "retry", "backoff"): "portal not-json truncated unknown-code redirect 500 429",
    ("usage", "refused", "backoff"): "unsigned-400",
}
CASES = [(*row, fault) for row, faults in ROWS.items() for fault in faults.split()]


@pytest.mark.parametrize(("side", "outcome", "wait", "fault"), CASES)
def test_what_describes_the_endpoint_keeps_the_record(
    at: Desk, fault: str, side: str, outcome: str, wait: str
) -> None:
    name = "getkeymanager" if side == "licence" else "reo"
    told: list[agent.Outcome] = []
    with at.agent(only=side, on_outcome=told.append) as product:
        product.call_home()
        product.call_home()
        at.collector.fault(fault, keep_port=True)
        report = product.flush()
        # One request, although two records wait: the first answer describes the endpoint.
        assert at.seen() == 1 and not told
        assert (report.pending, report.delivered, report.dead) == (2, 0, 0)
        assert report.held == (2 if outcome == "held" else 0)
        assert report.untrusted == (outcome == "untrusted")
        assert history_of(product) == ([] if outcome == "offline" else [outcome])
        seen = endpoint(product, name)
        assert seen["waiting"] == wait and seen["retry_in_s"] > 0
        assert seen["reason"] and not seen["proven"]
        if outcome not in ("held", "throttled"):
            assert seen["reason"].startswith(outcome) and seen["failures"] == 1
        # Not a moment early on our own account ...
        pass_(product)
        at.clock.advance(seen["retry_in_s"] - 1)
        pass_(product)
        assert at.seen() == 1
        # ... and then with one probe.
        at.clock.advance(2)
        pass_(product)
        assert at.seen() == 2
        # A flush skips our own backoff, never what the server said.
        product.flush()
        assert at.seen() == (3 if wait == "backoff" else 2)
        at.collector.fault(None)
        at.clock.advance(DAY_S)
        pass_(product)
        assert product.status()["pending"] == 0 and len(told) == 2
        assert endpoint(product, name)["failures"] == 0


# -- how long an endpoint is left alone ----------------------------------------------------------


@pytest.mark.parametrize("fault, wait_s", [("401-102", HOUR_S), ("429-retry-after", 500.0)])
def test_a_pause_survives_a_restart_and_a_flush(at: Desk, fault: str, wait_s: float) -> None:
    at.collector.fault(fault, retry_after=500)
    with at.agent(only="licence") as product:
        product.call_home()
        product.flush()
    for _ in range(3):
        with at.agent(only="licence") as product:
            product.flush()
            assert endpoint(product)["retry_in_s"] == wait_s
    at.clock.advance(wait_s - 1)
    at.collector.fault(None)
    with at.agent(only="licence") as product:
        product.flush()
        assert at.seen() == 1
        at.clock.advance(2)
        assert product.flush().delivered == 1


def test_a_clock_set_back_voids_a_pause(at: Desk) -> None:
    at.collector.fault("429-retry-after", retry_after=1000, count=1)
    with at.agent(only="licence") as product:
        product.call_home()
        product.flush()
        at.clock.at -= 10
        assert product.flush().delivered == 1


def test_backoff_survives_a_restart_so_that_a_restart_loop_does_not_hammer(at: Desk) -> None:
    at.collector.fault("500")
    for _ in range(50):
        with at.agent(only="licence") as product:
            product.call_home()
            pass_(product)  # what a worker does on start-up
            at.clock.advance(0.5)
    # 25 seconds; nothing is asked twice within 30.
    assert at.seen() == 1
    at.collector.fault(None)
    at.clock.advance(HOUR_S)
    with at.agent(only="licence") as product:
        pass_(product)
    assert len(at.collector.records()) == 50


def test_backoff_grows_between_its_bounds(at: Desk) -> None:
    at.collector.fault("500")
    with at.agent(only="licence") as product:
        product.call_home()
        product.flush()
        waits = work_until(product, at.clock, at.clock.at + 3 * DAY_S)
        for failures, wait_s in enumerate(waits):
            assert 30.0 <= wait_s <= min(6 * HOUR_S, 60.0 * 2**failures) + 0.001
        assert at.seen() == len(waits) + 1
        assert len(set(waits)) > len(waits) // 2  # jitter: no two products in step
        # Once proven, the next failure starts from the beginning.
        at.collector.fault(None)
        assert product.flush().delivered == 1
        at.collector.fault("500")
        product.call_home()
        product.flush()
        assert 30 <= endpoint(product)["retry_in_s"] <= 60
