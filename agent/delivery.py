"""The life of a record, once it is on disk: pending, sent, judged, settled.

One pass gives every endpoint its waiting records until the first answer that settles nothing: that answer describes
the endpoint, and the endpoint then waits. Only a verdict, a quota, an age or an export ends a record; what an
answer means is decided by the endpoint's ``judge``. The caller holds the deliverer's claim.
"""

from __future__ import annotations

from time import monotonic

from . import story
from .ageing import Ageing
from .endpoints import verdicts
from .endpoints.verdicts import Verdict
from .routes import CONSENT, OPEN, ORIGIN, REFUSED, WINDOW
from .spool import facts
from .transport import Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional, Union

    from .clock import Clock
    from .routes import Route
    from .spool.records import Record
    from .spool.store import Spool
    from .transport import Request, Response
    from .transport.values import Transport


# An attempt speaks against a record only if its endpoint proved another one since the attempt before.
SUSPECT_AT, DEAD_AT = 3, 12
PARKED_S = 3600.0  # how soon to look again at what waits for something of our own
BROKEN = "cannot be encoded: "
# So often may the end of the product break off a request until that counts as a failure of the endpoint.
BROKEN_OFF_AT = 3
# With less than this left a pass begins no further request: it would only be cut short.
LEFT_MIN_S = 0.05


class Tally:
    """What all passes of this process came to."""

    __slots__ = ("sent", "delivered", "flagged", "rejected", "untrusted")

    def __init__(self) -> None:
        self.sent = self.delivered = self.flagged = self.rejected = self.untrusted = 0


class Delivery:
    """Takes records from the spool to their endpoints."""

    def __init__(
        self,
        spool: Spool,
        routes: dict[str, Route],
        transport: Transport,
        *,
        clock: Clock,
        chance: Callable[[], float],
        run: str,
        max_age_s: float,
        gate: Callable[[Record], str],
        settled: Callable[[Record, Verdict], None],
        answered: Callable[[Record, Verdict], None],
        dropped: Callable[..., None],
    ) -> None:
        self._spool, self.transport, self._clock = spool, transport, clock
        self.routes = routes
        self._chance = chance
        self._gate, self._settled, self._answered = gate, settled, answered
        self.ageing = Ageing(
            spool, routes, clock=clock, run=run, max_age_s=max_age_s, dropped=dropped
        )
        self.totals = Tally()
        self.stopping = False
        self._sent = 0  # when this pass began
        self.in_flight: Optional[Record] = None
        self._story = story.Pass(list)

    # -- one pass --------------------------------------------------------------------------------

    def run(self, *, timeout_s: Callable[[], float], skip: tuple[str, ...] = ()) -> None:
        """Send what may be sent now; ``skip`` names kinds of waiting to ignore (facts.BACKOFF ...).

        ``timeout_s`` gives the seconds the next request may take; the pass ends when that is 0.
        """
        now = self._clock.time()
        self._sent = self.totals.sent
        for route in self.routes.values():
            waits = route.lane.wait not in skip and route.lane.remaining_s(now) > 0
            route.open, route.waiting, route.parked = not waits, False, ""
            route.overdue, route.origin = False, None
            route.refresh()
        suspects: dict[str, list[Record]] = {}
        self._story = story.Pass(self._spool.backlog.waiting)
        self._probe(timeout_s)
        for record in self._spool.backlog.waiting():
            to = self._route(record)
            if self.stopping or timeout_s() <= 0:
                self._mark_waiting(to)
                break
            if self.ageing.is_expired(record, to):
                self.ageing.hold(record)
            elif to is None:
                continue
            elif self._suspicion(record) >= SUSPECT_AT:
                suspects[record.endpoint] = [*suspects.get(record.endpoint, ()), record][:2]
            elif not self._attempt(record, to, timeout_s):
                if all(route.waiting and not route.open for route in self.routes.values()):
                    break
        for name, (record, *more) in suspects.items():  # alone, at the end of a pass
            if self._attempt(record, self.routes[name], timeout_s) and more:
                self._mark_waiting(self.routes[name])
        self.ageing.settle()
        for route in self.routes.values():
            route.keep()
            self.ageing.note(route)
            self._spool.facts.save(route.lane)
        self._story.over({name: r.parked for name, r in self.routes.items() if r.parked})

    def _route(self, record: Record) -> Optional[Route]:
        """Where a record goes; nowhere if its endpoint's name stands for another kind of server by now."""
        route = self.routes.get(record.endpoint)
        return route if route is not None and route.adapter.usage == record.usage else None

    def _probe(self, timeout_s: Callable[[], float]) -> None:
        """While an endpoint's last answer was not proven, try the record that was tried least.

        So one poisonous record at the head cannot keep its neighbours from proving the endpoint.
        """
        doubted = {n for n, r in self.routes.items() if r.open and r.lane.failures}
        best: dict[str, tuple[int, Record]] = {}
        if doubted:
            for record in self._spool.backlog.waiting():
                route = self._route(record)
                if record.endpoint not in doubted or route is None:
                    continue
                if self.ageing.is_expired(record, route):
                    continue
                attempts = self._spool.backlog.attempts(record)
                failed = attempts.failed if attempts is not None else 0
                if record.endpoint not in best or failed < best[record.endpoint][0]:
                    best[record.endpoint] = (failed, record)
                if failed == 0:
                    doubted.discard(record.endpoint)
                    if not doubted:
                        break
        for name, (_, record) in best.items():
            self._attempt(record, self.routes[name], timeout_s)

    # -- one record ------------------------------------------------------------------------------

    def _attempt(self, record: Record, route: Route, timeout_s: Callable[[], float]) -> bool:
        """Send one record and settle it; False where it goes on waiting."""
        ledger = self._spool.backlog.ledger
        if ledger.is_settled(record.key):
            return True
        limit_s = timeout_s()
        if (
            not route.open
            or limit_s <= LEFT_MIN_S * (self.totals.sent > self._sent)
            or self.stopping
        ):
            return self._mark_waiting(route)
        began_at = monotonic()  # real seconds, whatever the clock says
        request = self._prepare(record, route, limit_s) if self._gate(record) == OPEN else CONSENT
        # In tenths, for a reason may name it: "no answer within 10 s".
        limit_s = min(limit_s - round(monotonic() - began_at, 1), timeout_s())
        # Set before consent is asked: who withdraws it looks here. Asked again, for an origin may take its time.
        self.in_flight = record
        gate = self._gate(record)
        if gate != OPEN or isinstance(request, str):
            self.in_flight = None
            why = request if isinstance(request, str) else CONSENT
            return self._turn_away(record, route, gate, why)
        if limit_s <= 0 or self.stopping:  # the origin took all of it, and is known now
            self.in_flight = None
            return self._mark_waiting(route)
        ledger.begin(record)
        self.totals.sent += 1
        attempts = ledger.get(record.key)
        if attempts is not None and attempts.failed:
            # On a connection of its own: a gateway that ends each one after its first request is no
            # reason to suspect a record.
            self.rest()
        began = self._clock.monotonic()
        verdict = self._exchange(route, request, limit_s)
        if verdict.outcome == verdicts.OFFLINE and self._gate(record) == REFUSED:
            self.in_flight = None  # broken off because of that: no word against the endpoint
            return self._turn_away(record, route, REFUSED)
        if self.stopping and verdict.outcome == verdicts.OFFLINE:
            self.abandon()
            return self._mark_waiting(route)
        settled = self._settle(record, route, verdict)
        self.in_flight = None
        if verdict.outcome != verdicts.OFFLINE:
            self._answered(record, verdict)  # which takes secrets out of the reason
        wait_s = 0.0 if settled else route.lane.remaining_s(self._clock.time())
        self._story.outcome(record, verdict, self._clock.monotonic() - began, wait_s)
        if settled:
            if verdict.outcome not in (verdicts.DELIVERED, verdicts.FLAGGED):
                # It died of its attempts: what its last answer was is in the history.
                verdict = Verdict(verdicts.REJECTED, reason=verdict.reason, errors=verdict.errors)
            self._settled(record, verdict)
        return settled or self._mark_waiting(route)

    def _turn_away(self, record: Record, route: Route, gate: str, why: str = "") -> bool:
        """What is not sent now, or never; True where that settles it."""
        if gate == REFUSED:
            self._spool.backlog.ledger.end(record, settled=True)
            self._spool.backlog.forget_memory(record)
            return True
        if why.startswith(BROKEN):
            return self._bury(record, why)
        # What waits for the end of a window would hide what waits for somebody to do something.
        route.parked = ORIGIN if ORIGIN in (why, route.parked) else why
        return False

    def _prepare(self, record: Record, route: Route, limit_s: float) -> Union[Request, str]:
        """The request of a record; or what of our own it has to wait for; or why it can never be one."""
        if record.kind == "aggregate":
            if not self._spool.backlog.is_closed(record):
                return WINDOW
            if not self._complete(record, route, limit_s):
                return ORIGIN
        try:
            return route.adapter.request(
                record.kind, record.body, event_id=record.id, now=self._clock.time()
            )
        except Exception as error:  # a body that none of us wrote costs itself and no other record
            return BROKEN + type(error).__name__

    def _complete(self, record: Record, route: Route, limit_s: float) -> bool:
        """Give an aggregate its origin, asked once in a pass, and freeze it: every retry carries the same sum."""
        if not (record.body.get("domain") or record.body.get("ip_addr")):
            if route.origin is None:
                route.origin = route.adapter.origin(wait_s=limit_s)  # type: ignore[union-attr]
            if not route.origin:
                return False
            record.body = {**record.body, **route.origin}
        return self._spool.backlog.ledger.freeze(record)

    def _exchange(self, route: Route, request: Request, limit_s: float) -> Verdict:
        try:
            response: Response = self.transport.send(request, timeout_s=limit_s)
        except Unreachable as error:
            return Verdict(verdicts.OFFLINE, reason=error.reason)
        except (Exception, SystemExit) as error:  # a vendor's transport, which keeps no promise
            return Verdict(verdicts.OFFLINE, reason="transport: " + type(error).__name__)
        try:
            return route.adapter.judge(
                response,
                now=self._clock.time(),
                monotonic=self._clock.monotonic(),
                freshness=route.freshness,
            )
        except Exception as error:  # an answer that nobody thought of ends no pass and no host
            return Verdict(verdicts.RETRY, reason="unreadable answer: " + type(error).__name__)

    def rest(self) -> None:
        """Have the transport close its idle connections."""
        try:
            self.transport.rest()
        except (Exception, SystemExit):
            pass

    def _settle(self, record: Record, route: Route, verdict: Verdict) -> bool:
        """Write down what the verdict means for the record and for the endpoint."""
        ledger, lane, now = self._spool.backlog.ledger, route.lane, self._clock.time()
        tally = self.totals
        outcome, reason = verdict.outcome, verdict.reason
        if outcome in (verdicts.DELIVERED, verdicts.FLAGGED):
            ledger.end(record, settled=True)
            self._spool.backlog.forget_memory(record)
            lane.prove()
            tally.delivered += outcome == verdicts.DELIVERED
            tally.flagged += outcome == verdicts.FLAGGED
            return True
        if outcome == verdicts.REJECTED:
            if self._bury(record, "rejected: " + reason):
                tally.rejected += 1
                return True
            outcome = verdicts.RETRY  # the disk refuses the dead letter: not again at once
        route.open = False
        if outcome == verdicts.HELD:
            lane.hold(now, reason)
            ledger.end(record, settled=False)
        elif outcome == verdicts.THROTTLED:
            lane.pause(now, verdict.retry_after_s or facts.BACKOFF_BASE_S, reason)
            ledger.end(record, settled=False)
        else:  # OFFLINE, SKEWED, UNTRUSTED, RETRY: they describe the endpoint
            tally.untrusted += outcome == verdicts.UNTRUSTED
            ledger.end(record, settled=False, proofs=lane.proofs)
            lane.back_off(now, self._chance(), "%s: %s" % (outcome, reason))
        self._spool.facts.save(lane)
        attempts = ledger.get(record.key)
        if attempts is not None and attempts.counted and attempts.suspicion >= DEAD_AT:
            return self._bury(record, "%d attempts failed: %s" % (attempts.failed, reason))
        return False

    def _bury(self, record: Record, why: str) -> bool:
        if not self._spool.bury(record, why):
            return False
        self._spool.backlog.ledger.end(record, settled=True)
        self._spool.backlog.forget_memory(record)
        return True

    def _suspicion(self, record: Record) -> int:
        attempts = self._spool.backlog.attempts(record)
        return attempts.suspicion if attempts is not None else 0

    @staticmethod
    def _mark_waiting(route: Optional[Route]) -> bool:
        if route is not None:
            route.waiting = True
        return False

    # -- between passes --------------------------------------------------------------------------

    def any_ready(self) -> bool:
        """Whether any endpoint may be asked now; if none may, whatever waits goes on waiting."""
        now = self._clock.time()
        ready = any(route.lane.remaining_s(now) <= 0 for route in self.routes.values())
        if not ready:
            for name, route in self.routes.items():
                route.waiting, lane = True, route.lane
                story.tell("%s waits %d s: %s", name, lane.remaining_s(now), lane.reason)
        return ready

    def next_in_s(self, now: float) -> Optional[float]:
        """Seconds until a pass can do something for a waiting record; None while nothing waits."""
        waits = [r.lane.remaining_s(now) for r in self.routes.values() if r.waiting]
        waits += [PARKED_S for route in self.routes.values() if route.parked]
        return min(waits) if waits else None

    def abandon(self) -> None:
        """Write down, perhaps on the closing thread, that the attempt in flight says nothing of its record.

        But a product that lives shorter than its server answers would send the same record at every start.
        """
        self.stopping = True
        self._story = story.Pass(list)  # a thread that is left behind calls no handler
        record, self.in_flight = self.in_flight, None
        if record is None:
            return
        self._spool.backlog.ledger.abandon(record)
        lane = self.routes[record.endpoint].lane
        lane.broken_off += 1
        if lane.broken_off >= BROKEN_OFF_AT:
            reason = "the product ended %d times before an answer came" % lane.broken_off
            lane.back_off(self._clock.time(), self._chance(), reason)
        self._spool.facts.save(lane)
