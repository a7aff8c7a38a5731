"""Attacks with answers that are genuine and not for us: replayed, or of another time, machine or product.

The signed bytes name no request, so some of this no client can tell; those tests are named ``..._cannot_be_told`` and
pin how far it goes. For all others: no record is lost, none is believed to have arrived that did not, and ``status()``
and ``history()`` say what happened. Time is simulated.
"""

import shutil
from pathlib import Path

import pytest
from support.agent import endpoint, work_until
from support.attacks import DAY_S, FAR, HOUR_S, OLD, START, Scene, http_answer, receipt, signed
from support.signatures import RSA_2048


def answer_of(at: float, **changes: object) -> bytes:
    """What the server said at ``at`` to somebody."""
    return http_answer(signed(receipt(at, **changes)))


# -- one answer, again and again -----------------------------------------------------------------


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "after a restart"])
def test_a_replayed_answer(line: Scene, restarted: bool) -> None:
    """The newest time that was proven is on disk."""
    with line.agent() as product:
        captured = line.capture(product, "before")
        line.wait(301)
        if restarted:
            line.capture(product, "after")
        else:
            line.record(product, "first", "second")
            line.replays(captured)
            line.fails(product, "skewed", OLD)
            line.recovers(product)
    with line.agent() as product:
        line.record(product, "third")
        line.replays(captured)
        line.fails(product, "skewed", OLD)
        line.recovers(product)


def test_a_replay_within_five_minutes_cannot_be_told(line: Scene) -> None:
    """As long as a slow answer and an unsteady server clock may differ, and not a second longer."""
    with line.agent() as product:
        line.replays(line.capture(product))
        line.wait(299)
        line.delivers(product, "lost to the replay", lied=1)
        line.wait(2)
        line.record(product, "first")
        line.fails(product, "skewed", OLD, lied=1)
        line.recovers(product, lied=1)


def test_one_captured_830_replayed_for_hours(line: Scene) -> None:
    with line.agent() as product:
        line.replays(line.capture(product))
        line.wait(600)
        for number in range(72):
            line.record(product, "r%02d" % number)
            work_until(product, line.clock, line.clock.at + 600)
        line.intact(product)
        assert len(line.on_disk()) == 72 and line.asked < 40  # each backoff costs one request
        assert {a["verdict"] for a in product.history()[1:]} == {"skewed"}
        line.says_so(product, "skewed", OLD)
        line.recovers(product)


def test_a_replay_in_each_new_process_cannot_be_told(line: Scene) -> None:
    """How long the product was not running is unknown: the newest answer is fresh again for five minutes."""
    with line.agent() as product:
        line.replays(line.capture(product))
    line.wait(2 * HOUR_S)
    with line.agent() as product:
        line.delivers(product, "lost to the replay", lied=1)
        line.wait(301)
        line.record(product, "first")
        line.fails(product, "skewed", OLD, lied=1)
    line.wait(DAY_S)
    with line.agent() as product:
        line.fails(product, "skewed", FAR, lied=1)
        line.recovers(product, lied=1)


def test_a_refusal_replayed_holds_us_once(line: Scene) -> None:
    """Captured while the vendor's API key was wrong for a moment; given to us for ever after."""
    line.replays(answer_of(START, code=101, message="Inactive API Key"))
    with line.agent() as product:
        line.record(product, "first")
        assert product.flush().held == 1
        line.says_so(product, "held", "Inactive API Key (code 101)")
        assert endpoint(product)["retry_in_s"] == HOUR_S
        work_until(product, line.clock, START + DAY_S)
        assert [a["verdict"] for a in product.history()].count("held") == 1
        line.says_so(product, "skewed", OLD)
        line.recovers(product)


@pytest.mark.parametrize("age_s", [DAY_S - 1, DAY_S + 1], ids=["_cannot_be_told", "too old"])
def test_wiped_state_and_an_answer_of_the_day_before(line: Scene, age_s: float) -> None:
    """Who deletes the state deletes the memory; and the records, so nothing more is gained. For five minutes."""
    with line.agent() as product:
        line.replays(line.capture(product))
    shutil.rmtree(line.state_dir)
    line.recorded.clear()
    line.told.clear()
    line.wait(age_s)
    lied = int(age_s < DAY_S)
    with line.agent() as product:
        if lied:
            line.delivers(product, "lost to the replay", lied=1)
            line.wait(301)
        line.record(product, "first")
        line.fails(product, "skewed", OLD if lied else FAR, lied=lied)
        line.recovers(product, lied=lied)


# -- other products and machines -----------------------------------------------------------------


def test_an_answer_to_another_product_cannot_be_told(line: Scene, tmp_path: Path) -> None:
    """One key signs for all products of a vendor, and the signed bytes name none."""
    with line.agent() as product:
        line.replays(line.capture(product))
    line.wait(60)
    other = {"product_name": "Viewer", "product_id": "43", "state_dir": tmp_path / "other"}
    with line.agent(**other) as product:
        product.record_text("lost to the swap", data_group="g")
        assert product.flush().delivered == 1
    assert "lost to the swap" not in line.arrived()


def test_an_answer_to_a_product_with_a_key_of_its_own(line: Scene) -> None:
    """What a vendor can do about it today: a key per product."""
    line.keys = (RSA_2048.key,)
    line.replays(answer_of(START))
    with line.agent() as product:
        line.record(product, "first")
        line.fails(product, "untrusted", "no trusted key signed this answer")
        line.replays(http_answer(signed(receipt(START), RSA_2048)))
        assert product.flush().delivered == 1


def test_a_recorded_series_played_back_at_its_own_pace(line: Scene) -> None:
    """It ticks like a clock; but it is older than what this machine has proof of."""
    with line.agent() as product:
        line.capture(product)
    line.wait(3 * DAY_S)
    with line.agent() as product:
        line.capture(product, "today's")
        line.record(product, "first", "second")
        line.attack = lambda request, honest: answer_of(line.clock.time() - 3 * DAY_S)
        line.fails(product, "skewed", OLD)
        work_until(product, line.clock, line.clock.at + DAY_S)
        assert line.asked > 6
        line.says_so(product, "skewed", OLD)
        line.recovers(product)
