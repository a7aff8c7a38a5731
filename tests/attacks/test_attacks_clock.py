"""Attacks by clocks, ours and the server's: rolled back, ten years off, jumping.

Two promises pull against each other here: an old answer is not believed because somebody turned the clock back, and an
honest user with a wrong clock is never locked out. No record is lost either way, and ``status()`` and ``history()``
say what happened.
"""

import pytest
from support.agent import work_until
from support.attacks import DAY_S, FAR, HOUR_S, OLD, YEAR_S, Scene

OFF = {
    "ten years back": -10 * YEAR_S,
    "a day and an hour back": -DAY_S - HOUR_S,
    "a day and an hour ahead": DAY_S + HOUR_S,
    "ten years ahead": 10 * YEAR_S,
}


# -- the product's clock -------------------------------------------------------------------------


@pytest.mark.parametrize("known", [False, True], ids=["first start", "seen before"])
@pytest.mark.parametrize("name", OFF)
def test_a_wrong_clock_locks_no_honest_user_out(line: Scene, name: str, known: bool) -> None:
    """The first answer shows the drift; the next one, after our own backoff, ticks."""
    if known:
        with line.agent() as product:
            line.capture(product)
    line.clock.at += OFF[name]
    with line.agent() as product:
        line.record(product, "first", "second")
        line.fails(product, "skewed", "%s (%+d s)" % (FAR, -OFF[name]))
        line.recovers(product)
        for number in range(3):
            line.wait(HOUR_S)
            line.delivers(product, "later %d" % number)
    # Nor does it after a restart, or once the clock is set right.
    with line.agent() as product:
        line.record(product, "after a restart")
        product.flush()
        line.recovers(product)
        line.clock.at -= OFF[name]
        line.delivers(product, "clock set right")


@pytest.mark.parametrize("name", OFF)
def test_a_clock_that_jumps_while_the_product_runs(line: Scene, name: str) -> None:
    with line.agent() as product:
        line.capture(product)
        line.wait(HOUR_S)
        line.clock.at += OFF[name]
        line.delivers(product, "it ticks already")


@pytest.mark.parametrize("restarts", [False, True], ids=["running", "between two runs"])
@pytest.mark.parametrize("back_s", [DAY_S / 2, 3 * DAY_S], ids=["half a day", "three days"])
def test_a_rolled_back_clock_and_an_answer_of_that_time(
    line: Scene, back_s: float, restarts: bool
) -> None:
    """The user turns the clock back to when the answer was fresh."""
    with line.agent() as product:
        captured = line.capture(product, "then")
        line.wait(back_s)
        line.capture(product, "now")
        line.clock.at -= back_s
        line.replays(captured)
        line.record(product, "first")
        if not restarts:
            line.fails(product, "skewed", OLD)
            work_until(product, line.clock, line.clock.at + DAY_S)
            line.says_so(product, "skewed", OLD)
            line.recovers(product)
            return
    with line.agent() as product:
        line.fails(product, "skewed", "signed, but ")
    with line.agent() as product:
        assert product.flush().delivered == 0  # what one run doubted the next does too
        line.says_so(product, "skewed", "signed, but ")
        line.attack = None
        if back_s < DAY_S:  # else it ticks
            line.clock.at += back_s
        work_until(product, line.clock, line.clock.at + 6 * HOUR_S)
        line.intact(product)
        assert line.on_disk() == set()


# -- the server's clock --------------------------------------------------------------------------


@pytest.mark.parametrize("jump_s", [-10 * YEAR_S, -12 * HOUR_S, -301], ids=lambda s: "%d s" % s)
def test_a_server_clock_that_jumps_back(line: Scene, jump_s: float) -> None:
    """Nothing older than the newest proof is believed; once the server is right again, all is."""
    with line.agent() as product:
        line.capture(product)
        line.server_off_s += jump_s
        line.record(product, "first")
        line.fails(product, "skewed", OLD)
        work_until(product, line.clock, line.clock.at + DAY_S)
        line.says_so(product, "skewed", OLD)
        line.intact(product)
        line.server_off_s -= jump_s
        line.recovers(product)


def test_a_server_clock_that_is_five_minutes_unsteady(line: Scene) -> None:
    with line.agent() as product:
        for number, off_s in enumerate((0, 150, -150, 150, 0, -149)):
            line.server_off_s = off_s
            line.delivers(product, "r%d" % number)
            line.wait(60)


@pytest.mark.parametrize("jump_s", [12 * HOUR_S, 10 * YEAR_S], ids=lambda s: "%d s" % s)
def test_a_server_clock_that_is_ahead_for_hours(line: Scene, jump_s: float) -> None:
    """Answers of those hours are proven and tick, so they count; once the server's clock is right, we wait for a day.

    Nothing is lost, and no restart is needed.
    """
    with line.agent() as product:
        line.capture(product)
        line.server_off_s += jump_s
        line.record(product, "while it was ahead")
        work_until(product, line.clock, line.clock.at + 4 * HOUR_S)
        assert product.status()["pending"] == 0
        line.server_off_s -= jump_s
        line.record(product, "first", "second")
        line.fails(product, "skewed", OLD)
        work_until(product, line.clock, line.clock.at + 6 * HOUR_S)
        line.says_so(product, "skewed", OLD)
        line.intact(product)
        line.wait(24 * HOUR_S)
        line.recovers(product)
