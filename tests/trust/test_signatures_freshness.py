"""Freshness: captured answers go stale, wrong clocks lock nobody out, and only accepted answers move the floor."""

from __future__ import annotations

from typing import Any, Optional

import pytest
from hypothesis import given, strategies as st

from agent.errors import AnswerStale
from agent.signatures.freshness import Freshness

DAY = 86400
T = 1_790_000_000


def fresh(memory: Freshness, timestamp: int, now: float, monotonic: float) -> bool:
    try:
        memory.judge(timestamp, now=now, monotonic=monotonic)
    except AnswerStale as error:
        assert error.skew_s == int(timestamp - now)
        return False
    return True


Y, N = True, False
# what is tested: floor from disk, [(timestamp, local clock, monotonic, accepted)], floor afterwards, agreed
RULES: dict[str, Any] = {
    "a day ahead": (None, [(T + DAY, T, 0, Y)], T + DAY, Y),
    "more than a day ahead": (None, [(T + DAY + 1, T, 0, N)], None, N),
    "more than a day behind": (None, [(T - DAY - 1, T, 0, N)], None, N),
    "at the floor minus the slack": (T, [(T - 300, T, 50, Y)], T, Y),
    "one second before that": (T, [(T - 301, T, 50, N)], T, N),
    "the floor from disk starts ageing here": (T, [(T, T, 10**6, Y)], T, Y),
    "the same one later": (
        None,
        [(T, T, 0, Y), (T, T, 200, Y), (T, T, 300, Y), (T, T, 301, N)],
        T,
        Y,
    ),
    "a refused answer leaves the floor alone": (
        *(None, [(T, T, 0, Y), (T + 2 * DAY, T, 10, N), (T - 301, T, 10, N), (T + 10, T, 10, Y)]),
        *(T + 10, Y),
    ),
    "a tick": (None, [(T, 0, 0, N), (T + 20, 0, 20, Y)], None, N),
    "too early for a tick": (None, [(T, 0, 0, N), (T + 19, 0, 19.9, N)], None, N),
    "a quarter fast": (None, [(T, 0, 0, N), (T + 50, 0, 40, Y)], None, N),
    "more than a quarter fast": (None, [(T, 0, 0, N), (T + 51, 0, 40, N)], None, N),
    "more than a quarter slow": (None, [(T, 0, 0, N), (T + 29, 0, 40, N)], None, N),
    "no tick: measured from here next time": (
        *(None, [(T, 0, 0, N), (T + 999, 0, 40, N), (T + 1039, 0, 80, Y)], None, N),
    ),
    "a tick moves the floor in memory": (
        *(None, [(T, 0, 0, N), (T + 1000, 0, 1000, Y), (T + 1000, 0, 1200, Y)], None, N),
    ),
    "and no further than it is": (
        *(None, [(T, 0, 0, N), (T + 1000, 0, 1000, Y), (T + 1000, 0, 1301, N)], None, N),
    ),
    "the local clock jumps away: the earlier answer is the base": (
        *(None, [(T, T, 0, Y), (T + 100, T + 9 * DAY, 100, Y)], T, Y),
    ),
    "a captured answer before the floor does not become the base": (
        *(T, [(T, 0, 0, N), (T - 5000, 0, 30, N), (T + 60, 0, 60, Y)], T, N),
    ),
    "a suspended machine: no tick, then one": (
        *(None, [(T, 0, 0, N), (T + 9 * DAY, 0, 60, N), (T + 9 * DAY + 30, 0, 90, Y)], None, N),
    ),
}


@pytest.mark.parametrize("what", RULES)
def test_the_rule(what: str) -> None:
    floor, steps, floor_after, agreed = RULES[what]
    memory = Freshness(floor)
    for timestamp, now, monotonic, accepted in steps:
        assert fresh(memory, timestamp, now, monotonic) is accepted, (timestamp, now, monotonic)
    assert (memory.floor, memory.agreed) == (floor_after, agreed)


def test_the_skew_is_told_and_says_which_way() -> None:
    for timestamp, skew_s in ((T - 400, -400), (T + 10 * DAY, 10 * DAY)):
        with pytest.raises(AnswerStale) as caught:
            Freshness(T).judge(timestamp, now=T, monotonic=0)
        assert caught.value.skew_s == skew_s and "%+d s" % skew_s in str(caught.value)


def test_a_monotonic_clock_that_goes_back_breaks_nothing() -> None:
    memory = Freshness(T)
    assert fresh(memory, T, T, 1000.0)
    assert fresh(memory, T, T, -1000.0)
    assert not fresh(memory, T - 301, T, -1000.0)


gaps = st.lists(st.floats(0, 5000), min_size=1, max_size=12)
offsets = st.one_of(st.floats(-20 * 365 * DAY, 20 * 365 * DAY), st.floats(-2 * DAY, 2 * DAY))


@given(gaps=gaps, offset=offsets, downtime=st.floats(0, 400 * DAY))
def test_an_honest_server_is_believed_whatever_the_local_clock_says(
    gaps: list[float], offset: float, downtime: float
) -> None:
    """With any constant error of the local clock all answers are fresh from 20 s after the first one on."""
    first = T + downtime
    memory = Freshness(T)
    elapsed = 0.0
    outcomes = []
    for gap in [0.0, *gaps]:
        elapsed += gap
        true = first + elapsed
        outcomes.append((elapsed, fresh(memory, int(true), true + offset, 7 + elapsed)))
    assert all(accepted for elapsed, accepted in outcomes if elapsed >= 20 or abs(offset) < DAY - 1)
    if abs(offset) > DAY + 1:
        assert memory.floor == T and not memory.agreed
        assert not outcomes[0][1]


@given(gaps=gaps, offset=offsets, floor=st.one_of(st.none(), st.just(T)))
def test_one_captured_answer_is_never_believed_for_longer_than_the_slack(
    gaps: list[float], offset: float, floor: Optional[int]
) -> None:
    memory = Freshness(floor)
    elapsed = 0.0
    first_accepted: Optional[float] = None
    for gap in [0.0, *gaps]:
        elapsed += gap
        if fresh(memory, T, T + elapsed + offset, elapsed):
            first_accepted = elapsed if first_accepted is None else first_accepted
            assert elapsed - first_accepted <= 300


@given(
    floor=st.one_of(st.none(), st.integers(T - 1000, T + 1000)),
    steps=st.lists(
        st.tuples(
            st.integers(-3 * DAY, 3 * DAY) | st.integers(-1000, 1000),
            st.floats(-3 * DAY, 3 * DAY) | st.floats(-1000, 1000),
            st.floats(0, 1000),
        ),
        max_size=12,
    ),
)
def test_what_holds_for_every_sequence(
    floor: Optional[int], steps: list[tuple[int, float, float]]
) -> None:
    """Nothing before the floor is accepted, nothing else near the local clock is refused."""
    memory = Freshness(floor)
    monotonic, agreed = 0.0, False
    newest, newest_at = floor, steps[0][2] if steps else 0.0
    for difference, local, gap in steps:
        monotonic += gap
        timestamp, now, kept = T + difference, T + local, memory.floor
        old = newest is not None and timestamp < newest + (monotonic - newest_at) - 300
        close = abs(timestamp - now) <= DAY
        accepted = fresh(memory, timestamp, now, monotonic)
        if old or close:
            assert accepted is not old
        if accepted and (newest is None or timestamp > newest):
            newest, newest_at = timestamp, monotonic
        agreed = agreed or (accepted and close)
        assert memory.agreed is agreed
        if accepted and close:
            assert memory.floor == (timestamp if kept is None else max(kept, timestamp))
        else:
            assert memory.floor == kept
