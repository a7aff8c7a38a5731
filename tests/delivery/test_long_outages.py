"""Weeks without an answer that counts: nothing is lost, nothing dies, and the server is asked as seldom as promised."""

import tracemalloc
from collections import Counter

import pytest
from campaign.bounds_spool import Network, fill
from support.agent import Desk, endpoint, pass_, work_until
from support.spool import look

import agent

pytestmark = pytest.mark.once

HOUR_S, DAY_S = 3600.0, 86400.0


def gaps(at: Desk) -> list[float]:
    times = [request["received_at"] for request in at.collector.requests()]
    return [later - earlier for earlier, later in zip(times, times[1:])]


@pytest.mark.parametrize("fault, days", [("portal", 21), ("500", 2.5), ("refuse", 7)])
def test_a_process_that_runs_on_through_an_outage(at: Desk, fault: str, days: float) -> None:
    ends_at = at.clock.at + days * DAY_S
    at.collector.fault(fault, keep_port=True)
    waits: list[float] = []
    with at.agent(only="licence") as product:
        number = 0
        while at.clock.at < ends_at:
            product.record_text("%04d" % number, data_group="g")
            number += 1
            waits += work_until(product, at.clock, at.clock.at + DAY_S / 4)
        probes = [wait for wait in waits if wait > 0]
        # Recording wakes the deliverer; only what backoff allows reaches the server.
        assert at.seen() == len(probes) + 1
        assert min(gaps(at)) >= 30
        for failures, gap_s in enumerate(gaps(at)):
            assert gap_s <= min(6 * HOUR_S, 60 * 2.0 ** min(failures, 20)) + 0.001
        # Full jitter around three hours.
        assert 4 <= len(probes) / days <= 24
        assert product.status()["dead"] == 0 and product.status()["pending"] == number
        at.collector.clear()
        work_until(product, at.clock, at.clock.at + 6 * HOUR_S)
    texts = at.texts()
    assert len(texts) == number == at.seen() and len(set(texts)) == number


def test_a_product_started_daily_for_three_weeks_behind_a_portal(at: Desk) -> None:
    at.collector.fault("portal")
    days = 21
    for day in range(days):
        with at.agent() as product:
            product.call_home()
            product.record_text("%02d" % day, data_group="g")
            product.track("START", meta={"day": day})
            for _ in range(3):
                work_until(product, at.clock, at.clock.at + HOUR_S)
        at.clock.advance(21 * HOUR_S)
    endpoints = Counter(request["endpoint"] for request in at.collector.requests())
    # A day gives at least one attempt; how many more depends on the jitter, never more than the backoff allows.
    assert set(endpoints) == {"getkeymanager", "reo-usage"}
    assert all(days / 2 <= count <= 3 * days for count in endpoints.values())
    at.collector.clear()
    at.clock.advance(6 * HOUR_S)
    with at.agent() as product:
        pass_(product)
        status = product.status()
        assert (status["pending"], status["dead"]) == (0, 0)
    assert at.seen() == 4 * days
    assert sorted(at.texts()) == ["%02d" % day for day in range(days)] + ["CALL HOME"] * days


# -- age -----------------------------------------------------------------------------------------


def test_age_takes_a_record_only_by_a_clock_that_a_proof_agrees_with(at: Desk) -> None:
    with at.agent(only="licence", max_age_days=30) as product:
        product.record_text("old", data_group="g")
        at.collector.fault("500")
        at.clock.advance(31 * DAY_S)
        pass_(product)
        assert product.status()["pending"] == 1
        at.collector.fault(None)
        product.record_text("new", data_group="g")
        at.clock.advance(DAY_S)
        # The probe proves the clock; what is over-aged goes, is counted, and reported once.
        pass_(product)
        pass_(product)
        assert product.status()["pending"] == 0
        assert product.status()["not_recorded"] == {"dropped": 1}
    assert "old" not in at.texts() and "new" in at.texts()
    found = [record["fields"] for record in at.collector.records()]
    reports = [fields for fields in found if fields["data_group"] == "agent-dropped"]
    assert [report["numeric_data_single_value"] for report in reports] == ["1"]


def test_without_keys_age_needs_two_runs_a_day_apart_each_time(at: Desk) -> None:
    at.collector.fault("500")

    def run(*, track: str = "") -> int:
        with at.agent(only="usage", max_age_days=10) as product:
            if track:
                product.track(track)
            pass_(product)
            return int(product.status()["pending"])

    assert run(track="first") == 1
    at.clock.advance(5 * DAY_S)
    assert run(track="second") == 2
    at.clock.advance(6 * DAY_S)
    with at.agent(only="usage", max_age_days=10) as product:
        pass_(product)  # the first is over-aged by this clock, says this run
        assert run() == 2  # says another one, too soon
        at.clock.advance(DAY_S + 1)
        pass_(product)  # nor does it agree with itself
        assert product.status()["pending"] == 2
    at.clock.advance(DAY_S / 4)
    # Says another one, a day later; though what failed less is asked for before it.
    assert run(track="third") == 2
    at.clock.advance(5 * DAY_S)
    assert run() == 2  # now the second
    at.clock.advance(DAY_S + 1)
    assert run() == 1
    assert not at.collector.records()


def test_a_boot_ten_years_ahead_takes_nothing(at: Desk) -> None:
    with at.agent(only="licence") as product:
        product.record_text("x", data_group="g")
    true_time = at.clock.at
    at.collector.fault("stale", age_s=3650 * 86400)  # the server goes on in the true year
    at.clock.advance(3650 * DAY_S)
    with at.agent(only="licence") as product:
        pass_(product)
        assert endpoint(product)["reason"].startswith("skewed")
        assert product.status()["pending"] == 1
    at.collector.fault(None)
    at.clock.at = true_time + 60
    with at.agent(only="licence") as product:
        pass_(product)
        assert product.status()["pending"] == 0


def test_what_was_captured_in_1970_never_ages(at: Desk) -> None:
    set_at, at.clock.at = at.clock.at, 60.0
    at.collector.fault("500")
    with at.agent(only="licence") as product:
        product.record_text("captured before the clock was set", data_group="g")
        pass_(product)  # what failed once goes last
    at.collector.fault(None)
    at.clock.at = set_at
    with at.agent(only="licence") as product:
        product.record_text("proves it", data_group="g")
        assert product.flush().drained and product.status()["not_recorded"] == {}
    assert len(at.texts()) == 2


def test_a_clock_that_is_set_ages_out_nothing_of_this_run(at: Desk) -> None:
    """A machine without a battery, at the date of its image, is put right minutes later."""
    set_at, at.clock.at = at.clock.at, 1_747_094_400.0
    with at.agent(only="licence") as product:
        for n in range(5):
            product.record_text(str(n), data_group="g")
        at.clock.at = set_at
        at.clock.since_boot += 60
        assert product.flush().drained and product.status()["not_recorded"] == {}
    assert sorted(at.texts()) == list("01234")


# -- what waits is bounded -------------------------------------------------------------------------


def peak_of(product: agent.Agent) -> int:
    """Bytes that a pass needs at most on top of what was there."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        product._delivery.skip = ("backoff",)
        product._delivery.run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("up", [False, True])
def test_a_pass_holds_no_bodies_however_much_waits(at: Desk, up: bool) -> None:
    pytest.importorskip("fcntl")
    peaks, directory = [], at.state_dir
    at.clock.advance(DAY_S)
    for pending in (300, 700):  # a pass begins at most 256
        at.state_dir = directory / str(pending)
        at.state_dir.mkdir(parents=True)
        fill(at.state_dir, pending, segments=pending // 20, text="x" * 4_000)
        with at.agent(keys=(), transport=Network(up=up)) as product:
            product.call_home()
            pass_(product) if not up else None  # loads what delivering needs
            peaks.append(peak_of(product))
    assert peaks[1] - peaks[0] < 600_000, peaks  # the bodies of the others are 1.6 MB


def test_what_a_dropped_report_told_is_no_new_loss(at: Desk) -> None:
    with at.agent(transport=Network(up=False), max_bytes=40_000, only="licence") as product:
        for number in range(250):
            product.record_text("%d" % number, data_group="g")
        waiting_now = list(look(at.state_dir).records())
        dropped = product.status()["not_recorded"]["dropped"]
        assert any(record.weight > 3 for record in waiting_now)  # reports that went, told again
        assert dropped + sum(not r.id.startswith("dropped-") for r in waiting_now) == 250


def test_a_month_offline_in_one_process_leaves_few_files(at: Desk) -> None:
    with at.agent(transport=Network(up=False), only="licence") as product:
        for number in range(60):
            product.record_text("%d" % number, data_group="g")
            at.clock.advance(DAY_S / 2)
        assert len(list(at.state_dir.glob("*.seg"))) == 1
        # Still in order, and still given up at half of what fits into one.
        found = [record.body["text_data"] for record in look(at.state_dir).records()]
        assert found == [str(number) for number in range(60)]
