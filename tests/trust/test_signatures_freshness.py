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


# (what is tested, floor from disk, [(timestamp, local clock, monotonic, accepted)], floor afterwards, agreed)
RULES: list[Any] = [
    ("a first answer, clocks agree", None, [(T, T, 0, True)], T, True),
    ("a day ahead", None, [(T + DAY, T, 0, True)], T + DAY, True),
    ("more than a day ahead", None, [(T + DAY + 1, T, 0, False)], None, False),
    ("more than a day behind", None, [(T - DAY - 1, T, 0, False)], None, False),
    ("at the floor minus the slack", T, [(T - 300, T, 50, True)], T, True),
    ("one second before that", T, [(T - 301, T, 50, False)], T, False),
    ("the floor from disk starts ageing here", T, [(T, T, 10**6, True)], T, True),
    ("the same one after 301 s", None, [(T, T, 0, True), (T, T, 301, False)], T, True),
    (
        "a refused answer leaves the floor alone",
        None,
        [
            (T, T, 0, True),
            (T + 2 * DAY, T, 10, False),
            (T - 301, T, 10, False),
            (T + 10, T, 10, True),
        ],
        T + 10,
        True,
    ),
    ("a tick", None, [(T, 0, 0, False), (T + 20, 0, 20, True)], None, False),
    ("too early for a tick", None, [(T, 0, 0, False), (T + 19, 0, 19.9, False)], None, False),
    ("a quarter fast", None, [(T, 0, 0, False), (T + 50, 0, 40, True)], None, False),
    ("more than a quarter fast", None, [(T, 0, 0, False), (T + 51, 0, 40, False)], None, False),
    ("more than a quarter slow", None, [(T, 0, 0, False), (T + 29, 0, 40, False)], None, False),
    (
        "no tick: measured from here next time",
        None,
        [(T, 0, 0, False), (T + 999, 0, 40, False), (T + 1039, 0, 80, True)],
        None,
        False,
    ),
    (
        "a tick moves the floor in memory",
        None,
        [
            (T, 0, 0, False),
            (T + 1000, 0, 1000, True),
            (T + 1000, 0, 1200, True),
            (T + 1000, 0, 1301, False),
        ],
        None,
        False,
    ),
    (
        "the local clock jumps away: the earlier answer is the base",
        None,
        [(T, T, 0, True), (T + 100, T + 9 * DAY, 100, True)],
        T,
        True,
    ),
    (
        "a captured answer before the floor does not become the base",
        T,
        [(T, 0, 0, False), (T - 5000, 0, 30, False), (T + 60, 0, 60, True)],
        T,
        False,
    ),
    (
        "a suspended machine: no tick, then one",
        None,
        [(T, 0, 0, False), (T + 9 * DAY, 0, 60, False), (T + 9 * DAY + 30, 0, 90, True)],
        None,
        False,
    ),
]


@pytest.mark.parametrize("rule", RULES, ids=[rule[0] for rule in RULES])
def test_the_rule(rule: Any) -> None:
    _, floor, steps, floor_after, agreed = rule
    memory = Freshness(floor)
    for timestamp, now, monotonic, accepted in steps:
        assert fresh(memory, timestamp, now, monotonic) is accepted, (timestamp, now, monotonic)
    assert (memory.floor, memory.agreed) == (floor_after, agreed)


def test_the_skew_is_told_and_says_which_way() -> None:
    memory = Freshness(T)
    with pytest.raises(AnswerStale, match=r"-400 s") as caught:
        memory.judge(T - 400, now=T + 0.5, monotonic=0)
    assert caught.value.skew_s == -400
    with pytest.raises(AnswerStale, match=r"\+864000 s") as caught:
        memory.judge(T + 10 * DAY, now=T, monotonic=0)
    assert caught.value.skew_s == 10 * DAY


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
