"""Bounds: single cases beside those of ``python -m tests.campaign bounds``."""

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from support.agent import START, FakeClock, config, pass_
from support.spool import look

import agent

pytest.importorskip("fcntl")

from campaign.bounds_spool import Network, fill  # noqa: E402

pytestmark = pytest.mark.once

DAY_S = 86400.0


def product_at(place: Path, network: Any, clock: Any = None, **changes: Any) -> agent.Agent:
    settings = {"durability": "process", "max_records": 200_000, "max_bytes": 200_000_000}
    given = config("http://127.0.0.1:9", (), place, **{**settings, **changes})
    return agent.Agent(given, "key", clock=clock or FakeClock(START + DAY_S), transport=network)


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
def test_a_pass_holds_no_bodies_however_much_waits(tmp_path: Path, up: bool) -> None:
    peaks = []
    for pending in (300, 700):  # a pass begins at most 256
        fill(tmp_path / str(pending), pending, segments=pending // 20, text="x" * 4_000)
        network = Network(up=up)
        with product_at(tmp_path / str(pending), network) as product:
            product.call_home()
            pass_(product) if not up else None  # loads what delivering needs
            peaks.append(peak_of(product))
    assert peaks[1] - peaks[0] < 600_000, peaks  # the bodies of the others are 1.6 MB


def test_what_a_dropped_report_told_is_no_new_loss(tmp_path: Path) -> None:
    network = Network(up=False)
    with product_at(tmp_path / "state", network, max_bytes=40_000, only="licence") as product:
        for number in range(250):
            product.record_text("%d" % number, data_group="g")
        waiting_now = list(look(tmp_path / "state").records())
        dropped = product.status()["not_recorded"]["dropped"]
        assert any(record.weight > 3 for record in waiting_now)  # reports that went, told again
        assert dropped + sum(not r.id.startswith("dropped-") for r in waiting_now) == 250


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
