"""Whether a proven answer is a new one: the memory of one endpoint in one process.

A captured answer goes stale and a wrong local clock locks nobody out; the signed bytes name no request. Only answers
that are signed, trusted and of a known code may be judged here.
"""

from __future__ import annotations

from ..errors import AnswerStale

# How far the local clock may be off before it has no say: time zones and a wrong date line stay inside.
AGREE_S = 24 * 3600
# What a server farm's clocks, a slow answer and an answer overtaken by another may differ by.
SLACK_S = 300
# Timestamps are whole seconds: over 20 s that is 5 %, well inside a quarter.
TICK_MIN_S, TICK_TOLERANCE = 20, 0.25


def agrees(timestamp: float, now: float) -> bool:
    """Whether ``timestamp`` lies within 24 h of ``now``, both in Unix seconds."""
    return abs(timestamp - now) <= AGREE_S


def stale(reason: str, timestamp: int, now: float) -> AnswerStale:
    """The exception for ``timestamp``; its ``skew_s`` is negative for an answer from the past."""
    return AnswerStale("signed, but %s (%+d s)" % (reason, timestamp - now), int(timestamp - now))


class Freshness:
    """Judge the timestamps of one endpoint.

        freshness = Freshness(floor of an earlier run)
        freshness.judge(receipt.timestamp, now=…, monotonic=…)     # or AnswerStale
        keep(freshness.floor)

    ``floor`` is worth keeping: the newest timestamp accepted in agreement with the local clock; one that only ticks
    moves it in memory. ``agreed``: such an answer came. While the local clock is ``doubtful`` it has to tick as well.
    """

    def __init__(self, floor: int | None = None) -> None:
        self.floor = self._newest = floor
        self.agreed = self.doubtful = False
        # The monotonic second at which it came: unknown for a floor of an earlier process.
        self._newest_at: float | None = None
        # How far the agreed timestamp was ahead of the monotonic clock; what a tick is measured against.
        self._ahead_s, self._base = 0.0, (0, 0.0)

    def judge(self, timestamp: int, *, now: float, monotonic: float) -> None:
        """Return if ``timestamp`` (Unix seconds) is fresh, else raise ``AnswerStale``.

        Fresh is what is not before the floor (the newest timestamp accepted, plus the monotonic seconds since, minus
        ``SLACK_S``) and either lies within 24 h of ``now`` or ticks: it advanced since an earlier answer of this
        process by the monotonic time between them, within a quarter, over at least ``TICK_MIN_S``.
        """
        if self._newest_at is None:
            self._newest_at = monotonic
        elif monotonic - self._newest_at > AGREE_S:
            # Out of reach for a day, as of a server that was ahead once: as after a restart.
            self._newest, self._newest_at = self.floor, monotonic
        if timestamp < (self._newest or 0) + max(0.0, monotonic - self._newest_at) - SLACK_S:
            # Known to be old: no base to measure a later answer against.
            raise stale("older than an answer seen before", timestamp, now)
        ticks, agreed = self._ticks(timestamp, monotonic), agrees(timestamp, now)
        if agreed and (ticks or not self.doubtful):
            self.agreed, self.doubtful, self._ahead_s = True, False, timestamp - monotonic
            self.floor = max(self.floor or 0, timestamp)
        elif not ticks:
            doubt = ", which went back by days" if agreed else ""
            raise stale("too far from the local clock" + doubt, timestamp, now)
        if timestamp > (self._newest or 0):
            self._newest, self._newest_at = timestamp, monotonic

    def corroborates(self, now: float, monotonic: float) -> bool:
        """Whether the local clock, which may jump, is right by the last answer that agreed with it."""
        return self.agreed and agrees(self._ahead_s + monotonic, now)

    def raise_floor(self, floor: int) -> None:
        """Take over a floor that another process reached."""
        self.floor = floor if self.floor is None else max(self.floor, floor)
        if self._newest is None or floor > self._newest:
            self._newest, self._newest_at = floor, None

    def _ticks(self, timestamp: int, monotonic: float) -> bool:
        base, base_at = self._base
        elapsed_s = monotonic - base_at
        if base and elapsed_s < TICK_MIN_S:
            return False
        if base and abs(timestamp - base - elapsed_s) <= TICK_TOLERANCE * elapsed_s:
            return True
        self._base = (timestamp, monotonic)
        return False
