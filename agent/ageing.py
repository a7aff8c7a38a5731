"""When a record is too old to be sent, and how it goes: only by a clock that something corroborates, and counted.

A wrong boot ten years ahead must not age out the spool: a signed answer agreed with the clock in this process, or
(nothing signed there) another run at least a day earlier saw the same age. What is sent, and when, belongs to
``delivery``.
"""

from __future__ import annotations

from .spool.records import DROPPED, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional

    from .clock import Clock
    from .routes import Route
    from .spool.facts import Lane
    from .spool.records import Record
    from .spool.store import Spool

    Key = tuple[str, str]

# 2025: nothing of ours is older. A clock that said less was not set yet, so the record's age is unknown, and no age.
EARLIEST_AT = 1_735_689_600.0
EXPIRED_AT_ONCE = 1_000  # over-aged records that are held, settled, and reported together
UNSIGNED_EXPIRY_S = 24 * 3600.0  # two runs must agree on an age that nothing signed corroborates


class Ageing:
    """The over-aged records of one deliverer."""

    def __init__(
        self,
        spool: Spool,
        routes: dict[str, Route],
        *,
        clock: Clock,
        run: str,
        max_age_s: float,
        dropped: Callable[..., None],
    ) -> None:
        self._spool, self._routes, self._clock = spool, routes, clock
        self._run, self._max_age_s, self._dropped = run, max_age_s, dropped
        self._expired: dict[Key, Record] = {}
        self.total = 0

    def is_expired(self, record: Record, route: Optional[Route]) -> bool:
        """Whether a record is over-aged by a clock that something corroborates."""
        now = self._clock.time()
        if record.at < EARLIEST_AT or now - record.at <= self._max_age_s:
            return False
        # The clock may have been set since: what this process recorded is no older than the process.
        if record.run == self._spool.run and self._spool.age_s() <= self._max_age_s:
            return False
        if self.clock_is_right():
            return True
        if route is None or route.adapter.signed:
            return False
        route.overdue = True
        seen_at = route.lane.expired_at
        return (
            seen_at is not None
            and self._seen_earlier(route.lane, now)
            and seen_at - record.at > self._max_age_s
        )

    def clock_is_right(self) -> bool:
        """Whether a signed answer of this process still agrees with the local clock."""
        now, monotonic = self._clock.time(), self._clock.monotonic()
        return any(r.freshness.corroborates(now, monotonic) for r in self._routes.values())

    def _seen_earlier(self, lane: Lane, now: float) -> bool:
        """Whether another run, at least a day before, saw over-aged records too."""
        seen_at = lane.expired_at
        other = seen_at is not None and lane.expired_run != self._run
        return other and now - (seen_at or 0.0) >= UNSIGNED_EXPIRY_S

    def note(self, route: Route) -> None:
        """At the end of a pass: what the next run is to compare with."""
        lane, now = route.lane, self._clock.time()
        if not route.overdue:
            return
        unset = lane.expired_at is None or lane.expired_at > now
        if unset or self._seen_earlier(lane, now):
            lane.expired_at, lane.expired_run = now, self._run

    def hold(self, record: Record) -> None:
        """Keep what goes at the end of the pass, or sooner where it is much; without bodies, for they are large."""
        if record.segment:
            record = record.stub()
        self._expired.setdefault(record.key, record)
        if len(self._expired) >= EXPIRED_AT_ONCE:
            self.settle()

    def settle(self) -> None:
        """Report what is held, and let it go."""
        backlog, expired = self._spool.backlog, self._expired
        if expired:  # the report below must evict none of these: they would be counted twice
            self._spool.make_room()
        gone = [record for record in expired.values() if backlog.holds(record)]
        expired.clear()
        if not gone:
            return
        # Reported before they go: a crash between the two repeats the report under the same id.
        report(gone, DROPPED + gone[0].id, self._dropped)
        for record in gone:
            backlog.ledger.end(record, settled=True)
            backlog.forget_memory(record)
        backlog.reap_named({record.segment for record in gone})
        self.total += len(gone)
