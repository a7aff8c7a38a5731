"""Bounds, in the short form of ``python -m tests.campaign bounds``, and single cases of it."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from campaign import bounds, bounds_curve, bounds_life, bounds_quota, report
from campaign.bounds_spool import Network, fill
from support.agent import START, FakeClock, config, desk, engine_of, pass_
from support.spool import Dropped, keep, look, spool, waiting

import agent
from agent.spool import names, quota

pytestmark = pytest.mark.once

DAY_S = 86400.0


def test_a_start_counts_no_segment_that_somebody_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number of records is a bound too, and by size alone it may be reached."""
    place = tmp_path / "state"
    fill(place, 3_000, segments=60)
    opened: list[str] = []
    real = quota.files.read

    def read(path: str, limit_bytes: int) -> bytes:
        opened.append(path)
        return real(path, limit_bytes)

    monkeypatch.setattr(quota.files, "read", read)
    for run, expected in enumerate((60, 2, 2)):
        del opened[:]
        keep(spool(place, max_records=4_000), "id-%d" % run)
        assert len([path for path in opened if path.endswith(".seg")]) <= expected
    kept = place / names.COUNTS
    kept.write_bytes(kept.read_bytes()[:1_000])  # torn: what is missing is counted again
    dropped = Dropped()
    keep(spool(place, max_records=2_000, dropped=dropped), "more")
    assert sum(count for count, _ in dropped) == 3_004 - len(waiting(place)) >= 1_004


def product_at(place: Path, network: Any, clock: Any = None, **changes: Any) -> agent.Agent:
    settings = {
        "durability": "process",
        "max_records": 200_000,
        "max_bytes": 200_000_000,
        **changes,
    }
    given = config("http://127.0.0.1:9", (), place, **settings)
    return agent.Agent(given, "key", clock=clock or FakeClock(START + DAY_S), transport=network)


def peak_of(product: agent.Agent) -> int:
    """Bytes that a pass needs at most on top of what was there."""
    courier = engine_of(product).courier
    courier.deliver(skip=(), timeout_s=lambda: 0.0)  # loads what delivering needs
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        assert courier.deliver(skip=("backoff",), timeout_s=lambda: 5.0)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("up", [False, True])
def test_a_pass_holds_a_few_segments_however_much_waits(tmp_path: Path, up: bool) -> None:
    peaks = []
    for pending in (100, 500) if up else (200, 1_400):
        fill(tmp_path / str(pending), pending, segments=pending // 20)
        network = Network(up=up)
        with product_at(tmp_path / str(pending), network) as product:
            product.call_home()
            peaks.append(peak_of(product))
            assert network.sent == (pending + 2 if up else 2)
    # What was sent is remembered by its key, 20,000 at most.
    assert peaks[1] - peaks[0] < (400_000 if up else 200_000), peaks


def test_over_aged_records_go_in_portions_and_each_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.ageing.Ageing.clock_is_right", lambda self: True)
    monkeypatch.setattr("agent.ageing.EXPIRED_AT_ONCE", 200)
    fill(tmp_path / "state", 500, segments=50, text="x" * 8_000)
    network = Network()
    network.keeping = True
    clock = FakeClock(START + 100 * DAY_S)
    with product_at(tmp_path / "state", network, clock) as product:
        assert peak_of(product) < 2_000_000  # their bodies are 4 MB
        assert len(list((tmp_path / "state").glob("*.seg"))) == 1  # the reports
        product.flush()
        assert product.status()["pending"] == 0
    reports = [
        dict(part.split("=") for part in r.body.decode().split("&")) for r in network.requests
    ]
    assert [r["numeric_data_single_value"] for r in reports] == ["200", "200", "100"]


def test_what_was_captured_before_the_clock_was_set_is_not_old(tmp_path: Path) -> None:
    """A machine that woke up in 1970, or ten years back, and was put right minutes later."""
    clock = FakeClock(0.0)
    with desk(tmp_path / "state", clock) as at, at.agent(only="licence") as product:
        for year in (0, 30, 45):
            clock.at = year * 365.25 * DAY_S
            product.record_text("captured in year %d" % year, data_group="g")
        clock.at = START
        product.record_text("put right", data_group="g")
        pass_(product)
        clock.advance(60)
        pass_(product)
        assert len(set(at.texts())) == 4
        assert product.status()["not_recorded"] == {}


def test_what_a_dropped_report_told_is_no_new_loss(tmp_path: Path) -> None:
    network = Network(up=False)
    with product_at(tmp_path / "state", network, max_bytes=40_000, only="licence") as product:
        for number in range(250):
            product.record_text("%d" % number, data_group="g")
        waiting_now = list(look(tmp_path / "state").records())
        dropped = product.status()["not_recorded"]["dropped"]
        assert any(record.weight > 3 for record in waiting_now)  # reports that went, told again
        assert dropped + sum(not r.id.startswith("dropped-") for r in waiting_now) == 250


@pytest.mark.campaign
@pytest.mark.parametrize("part", [bounds_quota, bounds_curve, bounds_life])
def test_the_short_form_of_the_campaign_holds(tmp_path: Path, part: Any) -> None:
    rows = part.run(bounds.SHORT_ROUNDS, random.Random(3), report.Progress(quiet=True), tmp_path)
    assert not [row for row in rows if not row.ok]
    assert len(rows) >= 2 and any(row.recorded for row in rows)


def test_a_month_offline_in_one_process_leaves_few_files(tmp_path: Path) -> None:
    clock = FakeClock(START)
    with product_at(tmp_path / "state", Network(up=False), clock, only="licence") as product:
        for number in range(60):
            product.record_text("%d" % number, data_group="g")
            clock.advance(DAY_S / 2)
        assert len(list((tmp_path / "state").glob("*.seg"))) == 1
        # Still in order, and still given up at half of what fits into one.
        found = [record.body["text_data"] for record in look(tmp_path / "state").records()]
        assert found == [str(number) for number in range(60)]
