"""The life of a record once it is on disk: pending, sent, judged, settled. One loop, at most one deliverer.

Only a verdict, a quota, an age or an export ends a record; what an answer means is decided by the endpoint's ``judge``.
An answer that settles nothing describes its endpoint, which then waits (``lanes``).
"""

from __future__ import annotations

import _thread  # its functions are looked up when they are used: gevent and eventlet replace them

from . import TYPE_CHECKING, verdicts
from .clock import monotonic
from .errors import debug
from .lanes import Lane
from .spool.book import UNTRIED
from .values import Outcome, Unreachable, Verdict, Withheld, here, inside

if TYPE_CHECKING:
    from typing import Any, Callable, Collection

    from .spool.record import Record
    from .values import Core, Request, Response, Transport

    Told = Callable[[Outcome], None] | None

# What a pass came to: another process or thread delivers; there is more to send now; all is sent or waits.
BUSY, MORE, DONE = "busy", "more", "done"
# A pass begins so many records, and none after so long; then others have their turn, and outcomes are told.
PASS_RECORDS, PASS_S = 256, 2.0
# So much evidence makes a dead letter.
DEAD_AT = 12
# With less than this left no further request is begun: it would only be cut short.
LEFT_MIN_S = 0.05
# How soon to look again at what lacks an origin, at what the disk refuses, and after a pass that came to nothing.
ORIGIN_AGAIN_S, REFUSED_S, IDLE_S = 3600.0, 30.0, 1.0
# 2025: nothing of ours is older. A clock that said less was not set yet, so the record's age is unknown.
EARLIEST_AT = 1_735_689_600.0
# Two runs, this far apart, must agree on an age that nothing signed corroborates.
AGREED_S = 24 * 3600.0
# How long a refusal of consent waits for a request that is being broken off, and a pass for a product's ``domain``.
CALL_OFF_S, ORIGIN_S = 0.2, 3.0
FOREVER = float("inf")


class Delivery:
    """Takes records from the spool to their endpoints::

    run()
      spool.claim()                          the one deliverer of this directory; memory -> disk
      for record in spool.waiting(doubted):
        _attempt(record, lane)               gate, request, note who tries it, send, judge
        _settle(record, lane, verdict)       note what came of it; the lane is proven or waits
      spool.release()                        reap, compact, let go
      on_outcome(...)                        after the release: a dialog in it holds up nobody else

    What a pass leaves waits for its lane (``lane.wait``), or is looked at again at ``_again_at``.
    """

    def __init__(self, core: Core, transport: Transport | None, on_outcome: Told) -> None:
        self._core, self._spool, self._clock = core, core.spool, core.clock
        self._given = self.transport = transport
        self._on_outcome, self._gate = on_outcome, core.gate
        self.lanes = {adapter.name: Lane(adapter, core) for adapter in core.adapters}
        self.silent, self._most_age_s = False, core.config.max_age_days * 86400.0
        self._began_at = core.clock.monotonic()
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew: connections and a pass that is under way are the parent's."""
        self.quietly("after_fork")
        self.transport = self._given
        self.sent = 0  # by this process
        self.totals: dict[str, int] = {}  # how often each outcome came
        self.stopping = False
        self.in_flight: Record | None = None
        self.skip: tuple[str, ...] = ()  # kinds of waiting that do not hold for the next pass
        self._seen: object = None  # the news that the last pass looked at
        self._inside: dict[str, int] = {}  # "thread": who delivers; set in one step
        self._again_at = FOREVER

    # -- when ----

    def due_in_s(self) -> float | None:
        """Seconds until a pass can do something; None while nothing waits."""
        now, fresh = self._clock.time(), self._spool.news is not self._seen
        if self._seen is None:
            self._spool.refresh()
            self._refresh()
        waits = [lane.remaining_s(now) for lane in self.lanes.values() if fresh or lane.wait]
        if self._again_at < FOREVER:
            waits.append(max(0.0, self._again_at - self._clock.monotonic()))
        if self._spool.memory and fresh:
            waits.append(0.0)
        return min(waits) if waits else None

    def _look_again(self, in_s: float) -> None:
        self._again_at = min(self._again_at, self._clock.monotonic() + in_s)

    def _refresh(self) -> None:
        """Know what any process wrote down."""
        for lane in self.lanes.values():
            lane.take(self._spool.book, self._clock.time())

    def lane_of(self, name: str) -> Lane:
        """An endpoint as the disk knows it now, for who looks: ``lanes`` are the deliverer's."""
        self._spool.refresh()
        known = self.lanes[name]
        lane = Lane(known.adapter, self._core)
        vars(lane).update(vars(known), freshness=lane.freshness)
        lane.take(self._spool.book, self._clock.time())
        return lane

    def hand_over(self) -> None:
        """Another process delivers what can be sent now: nothing of that is due here any more."""
        self._seen = self._spool.news
        for lane in self.lanes.values():
            lane.begin(self._clock.time(), ())

    @property
    def is_current(self) -> bool:
        """Whether the caller is inside a pass, in ``on_outcome`` for one."""
        return self._inside.get("thread") == _thread.get_ident()

    # -- one pass ----

    def run(self, ends_at: float = FOREVER) -> str:
        """One pass on this thread: BUSY, MORE or DONE; ``ends_at`` in monotonic seconds of the system."""
        # Before the disk is read: what is recorded after that is not of this pass.
        news = self._spool.news
        if not self.take():
            return BUSY
        told: list[Outcome] = []
        try:
            self._begin(news, ends_at)
            return self._pass(told, ends_at)
        finally:
            self.give_back(told)

    def take(self) -> bool:
        """Become the one deliverer of this process and directory; False while there is another."""
        me, taken = _thread.get_ident(), False
        if self.is_current or self._inside.setdefault("thread", me) != me:
            return False
        try:
            taken = self._spool.claim()
            return taken
        finally:
            if not taken:
                self._inside.clear()

    def give_back(self, told: Collection[Outcome] = ()) -> None:
        """The opposite of ``take``; and tell of what ended."""
        try:
            self.quietly("rest")
            self._spool.release()
            for outcome in told:
                self._tell(outcome)
        finally:
            self._inside.clear()

    def _pass(self, told: list[Outcome], ends_at: float) -> str:
        before, over_at, now = self.sent, monotonic() + PASS_S, self._clock.time()
        open_, more = [lane for lane in self.lanes.values() if not lane.wait], False
        oldest_at, old = self._spool.backlog.oldest_at(), []
        aging = oldest_at is not None and now - oldest_at > self._most_age_s
        agreed_s = self._agreed_s(now) if aging else FOREVER
        for record in self._spool.waiting([one.adapter.name for one in open_ if one.failures]):
            lane = self.lane_for(record)
            if not open_ and not aging:  # what is over-aged may wait behind what failed less
                break
            full = self.sent - before >= PASS_RECORDS or monotonic() > over_at
            if full or self.stopping or ends_at - monotonic() < LEFT_MIN_S:
                more = True
                break
            if aging and self._is_overdue(record, lane, agreed_s):
                old.append(record)
            elif lane is not None and not lane.wait:
                verdict = self._attempt(record, lane, ends_at)
                ended = verdict is not None and self._settle(record, lane, verdict)
                if verdict is not None and ended and self._on_outcome is not None:
                    told.append(self._outcome(record, verdict))
                if lane.wait:
                    open_.remove(lane)
        if old:
            self._spool.drop(old, why="age")
        for lane in self.lanes.values():
            lane.keep(self._spool.book)
        sent = self.sent - before
        if more:
            self._look_again(0.0 if sent else IDLE_S)
        if self._spool.memory and self._spool.directory is not None:
            self._look_again(REFUSED_S)
        debug("pass over: %s sent", sent)
        return MORE if more and sent else DONE

    def _begin(self, news: object, ends_at: float) -> None:
        """Begin a pass: know which lanes wait, and for nothing that the last one left."""
        first, self._seen = self._seen is None, news
        self._again_at, now = FOREVER, self._clock.time()
        self._refresh()
        for name, lane in self.lanes.items():
            if first and lane.break_off(now, self._spool.left_open(name)):
                lane.keep(self._spool.book)  # this run may end like the others
            lane.begin(now, self.skip)
            trust = lane.adapter.trust
            if trust is not None and trust.look(self._spool, lane):
                lane.forgive()
            if trust is not None and not lane.wait:
                trust.ask(self, lane, self._limit_s(ends_at))
        self.skip = ()

    def lane_for(self, record: Record) -> Lane | None:
        """Where a record goes; nowhere if its endpoint's name stands for another kind of server by now."""
        lane = self.lanes.get(record.endpoint)
        return lane if lane is not None and lane.adapter.usage == record.usage else None

    def _limit_s(self, ends_at: float) -> float:
        """Seconds that the next request may take."""
        return min(self._core.config.request_timeout_s, ends_at - monotonic())

    # -- age ----

    def _agreed_s(self, now: float) -> float:
        """Seconds since another run, a day before at least, saw over-aged records by its clock; else FOREVER."""
        spool, seen = self._spool, self._spool.book.fact("age", "")
        at: Any = seen.get("at")
        since_s: float = now - at if type(at) in (int, float) and abs(at) < 1e12 else -1.0
        agreed = seen.get("run") != spool.run and since_s >= AGREED_S
        # It was of use, or of a clock that was wrong: the next run compares with this one.
        if agreed or since_s < 0:
            spool.book.note("age", "", at=now, run=spool.run)
        return since_s if agreed else FOREVER

    def _is_overdue(self, record: Record, lane: Lane | None, agreed_s: float) -> bool:
        """Whether a record is over-aged by a clock that something corroborates: a wrong boot must lose nothing.

        A signed answer does; where none is to come, another run that saw this very record over-aged.
        """
        spool, now, ticks = self._spool, self._clock.time(), self._clock.monotonic()
        overdue_s = now - record.at - self._most_age_s
        # The clock may have been set since: what this process recorded is no older than the process.
        young = record.run == spool.run and ticks - self._began_at <= self._most_age_s
        if young or record.at < EARLIEST_AT or overdue_s <= 0:
            return False
        if any(one.freshness.corroborates(now, ticks) for one in self.lanes.values()):
            return True
        return lane is not None and not lane.adapter.signed and agreed_s < overdue_s

    # -- one record ----

    def _attempt(self, record: Record, lane: Lane, ends_at: float) -> Verdict | None:
        """Send one record; what came of it, or None where it was not tried."""
        if not self._gate(record):
            return None  # a decision on consent is news
        if not self._knows_origin(record, lane, ends_at):
            self._look_again(ORIGIN_AGAIN_S)
            return None
        now, limit_s = self._clock.time(), self._limit_s(ends_at)
        try:
            request = lane.adapter.request(record, now=now)
        except Exception as error:
            # A body that none of us wrote: others show whether it is to blame, or a file of ours that an update broke.
            return Verdict(verdicts.REFUSED, reason="cannot be encoded: " + type(error).__name__)
        return self._send(record, lane, request, limit_s) if limit_s > 0 else None

    def _knows_origin(self, record: Record, lane: Lane, ends_at: float) -> bool:
        """Whether it is known whose usage it is; asked once in a pass, where a callable can be left behind."""
        if not record.stray:
            return True
        if lane.origin is None:
            ask: Callable[[], dict[str, str]] = lane.adapter.origin  # type: ignore[attr-defined]
            aside, limit_s = getattr(self._ready(), "aside", None), self._limit_s(ends_at)
            try:
                lane.origin = ask() if aside is None else aside(ask, min(limit_s, ORIGIN_S))
            except Unreachable:
                lane.origin = {}
        record.body = {**record.body, **(lane.origin or {})}
        return bool(lane.origin)

    def _send(self, record: Record, lane: Lane, request: Request, limit_s: float) -> Verdict | None:
        request.may_send = lambda: not self.stopping and self._gate(record)
        state = self._spool.book.states.get(record.key, UNTRIED)
        first = record.kind == "aggregate" and not state.failed
        if not self._spool.try_(record, sync=first):
            self._look_again(REFUSED_S)
            return None
        # Set before consent is asked: who withdraws it looks here.
        self.in_flight = record
        secret = str(record.body.get("license_key") or "")
        try:
            if not request.may_send():
                raise Withheld("withheld")
            self.sent += 1
            response = self.send(request, timeout_s=limit_s)
            now, ticks = self._clock.time(), self._clock.monotonic()
            given = {"now": now, "monotonic": ticks, "freshness": lane.freshness}
            verdict = lane.adapter.judge(response, **given, secret=secret)
            verdict.status = response.status
            return verdict
        except Withheld:
            return Verdict(verdicts.WITHHELD)
        except Unreachable as error:
            return Verdict(verdicts.OFFLINE, reason=error.reason)
        except (Exception, SystemExit) as error:  # a vendor's transport, which keeps no promise
            return Verdict(verdicts.OFFLINE, reason="transport: " + type(error).__name__)

    def _settle(self, record: Record, lane: Lane, verdict: Verdict) -> bool:
        """Write down what a verdict means for the record and for its endpoint; whether the record ended."""
        spool, now, outcome = self._spool, self._clock.time(), verdict.outcome
        self.in_flight = None
        debug("%s: %s %s", record.endpoint, record.id, verdict)
        if record.usage and spool.consent.current() not in (0, record.epoch):
            spool.forget(record)  # refused meanwhile: no word of it is kept
            return False
        if outcome == verdicts.OFFLINE and self.stopping:
            return False  # broken off: the next run sees that this one came to no end of it
        if outcome == verdicts.WITHHELD:
            spool.answer(record, verdict, now)
            return False
        counted = lane.evidence(verdict)
        if counted and spool.book.states[record.key].counted + counted >= DEAD_AT:
            verdict.outcome = verdicts.REJECTED
        if outcome in verdicts.SETTLED:
            lane.prove(now)
        elif verdict.outcome != verdicts.REJECTED:
            lane.wait_for(outcome, verdict, now)
        for name in {outcome, verdict.outcome}:
            self.totals[name] = self.totals.get(name, 0) + 1
        patient = outcome in (verdicts.HELD, verdicts.THROTTLED)
        spool.answer(record, verdict, now, failed=not patient, counted=counted)
        if verdict.outcome in verdicts.ENDED:
            return True
        lane.keep(spool.book)
        return False

    def _outcome(self, record: Record, verdict: Verdict) -> Outcome:
        facts = {"event_id": record.id, "endpoint": record.endpoint, "recorded_at": record.at}
        facts.update(verdict=verdict.outcome, reason=verdict.reason, errors=verdict.errors or {})
        had = bool(record.body.get("license_key"))
        earlier = record.run != self._spool.run
        return Outcome(**facts, had_license_key=had, from_earlier_run=earlier)

    def _tell(self, outcome: Outcome) -> None:
        if self._on_outcome is None or self.silent:
            return
        try:
            self._on_outcome(outcome)
        # Whatever it is: a vendor's mistake is no reason to stop delivering, or to print.
        except BaseException as error:  # noqa: B036
            if isinstance(error, KeyboardInterrupt) and self._core.config.deliver == "manual":
                raise  # the user's, on the caller's thread

    # -- the transport ----

    def send(self, request: Request, *, timeout_s: float) -> Response:
        """Through the transport, as one: what an instrumented host records meanwhile is no event."""
        me = here()
        inside.add(me)
        try:
            return self._ready().send(request, timeout_s=timeout_s)
        finally:
            inside.discard(me)

    def _ready(self) -> Transport:
        if self.transport is None:
            from .transport import HttpTransport

            self.transport = HttpTransport(self._core.environ, **vars(self._core.config))
        return self.transport

    def quietly(self, verb: str) -> None:
        """Have the transport ``rest``, ``interrupt`` or ``close``: a vendor's may keep no promise."""
        try:
            if self.transport is not None:
                getattr(self.transport, verb)()
        except (Exception, SystemExit):
            pass

    def call_off_usage(self) -> None:
        """After a refusal: forget what was said of usage; break off a request with some, and wait until it is."""
        from time import sleep

        for lane in self.lanes.values():
            lane.reason = "" if lane.adapter.usage else lane.reason
        ends_at = monotonic() + CALL_OFF_S
        while monotonic() < ends_at and not self.is_current:
            record = self.in_flight
            if record is None or not record.usage:
                return
            self.quietly("interrupt")
            sleep(0.001)
