"""Freshness: captured answers go stale, wrong clocks lock nobody out, and only accepted answers move the floor."""

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


# What is tested: floor from disk, "timestamp local-clock monotonic accepted, ...", floor afterwards, whether the clocks
# agreed. Times are seconds or days from T; the local clock may say 1970.
RULES: dict[str, tuple[Optional[int], str, Optional[int], bool]] = {
    "a day ahead": (None, "1d 0 0 yes", DAY, True),
    "more than a day ahead": (None, "86401 0 0 no", None, False),
    "more than a day behind": (None, "-86401 0 0 no", None, False),
    "at the floor minus the slack": (0, "-300 0 50 yes", 0, True),
    "one second before that": (0, "-301 0 50 no", 0, False),
    "the floor from disk starts ageing here": (0, "0 0 1000000 yes", 0, True),
    "the same one again": (None, "0 0 0 yes, 0 0 200 yes, 0 0 300 yes, 0 0 301 no", 0, True),
    "refused ones": (None, "0 0 0 yes, 2d 0 10 no, -301 0 10 no, 10 0 10 yes", 10, True),
    "ahead once": (None, "1d 0 0 yes, 99 99 99 no, 86501 86501 86501 yes", 86501, True),
    "a tick": (None, "0 1970 0 no, 20 1970 20 yes", None, False),
    "too early for a tick": (None, "0 1970 0 no, 19 1970 19.9 no", None, False),
    "a quarter fast": (None, "0 1970 0 no, 50 1970 40 yes", None, False),
    "more than a quarter fast": (None, "0 1970 0 no, 51 1970 40 no", None, False),
    "more than a quarter slow": (None, "0 1970 0 no, 29 1970 40 no", None, False),
    "from here next time": (None, "0 1970 0 no, 999 1970 40 no, 1039 1970 80 yes", None, False),
    "a floor in memory": (None, "0 1970 0 no, 999 1970 999 yes, 999 1970 1299 yes", None, False),
    "and its end": (None, "0 1970 0 no, 999 1970 999 yes, 999 1970 1300 no", None, False),
    "what ticked is forgotten after a day": (
        None,
        "0 1970 0 no, 999 1970 999 yes, 500 1970 90000 no, 520 1970 90020 yes",
        None,
        False,
    ),
    "the local clock jumps away": (None, "0 0 0 yes, 100 9d 100 yes", 0, True),
    "a captured answer is no base": (0, "0 1970 0 no, -5000 1970 30 no, 60 1970 60 yes", 0, False),
    "a suspended machine": (None, "0 1970 0 no, 9d 1970 60 no, 777630 1970 90 yes", None, False),
}


def at(text: Any) -> Any:
    if text in (None, "1970"):
        return None if text is None else 0
    return T + (int(text[:-1]) * DAY if str(text).endswith("d") else int(text))


@pytest.mark.parametrize("what", RULES)
def test_the_rule(what: str) -> None:
    floor, steps, floor_after, agreed = RULES[what]
    memory = Freshness(at(floor))
    for step in steps.split(", "):
        timestamp, now, monotonic, answer = step.split()
        assert fresh(memory, at(timestamp), at(now), float(monotonic)) is (answer == "yes"), step
    assert (memory.floor, memory.agreed) == (at(floor_after), agreed)


def test_while_the_clock_is_doubtful_an_answer_has_to_tick() -> None:
    memory = Freshness()
    memory.doubtful = True
    assert not fresh(memory, T, T, 7) and fresh(memory, T + 20, T + 20, 27)
    assert memory.agreed and not memory.doubtful
    assert memory.corroborates(T + 93, 100) and not memory.corroborates(T + 9 * DAY, 100)
    memory.raise_floor(T + 1000)  # by another process
    assert not fresh(memory, T + 40, T + 40, 47) and memory.floor == T + 1000


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
