"""The life of a record once it is on disk: pending, sent, judged, settled. One loop, at most one deliverer.

Only a verdict, a quota, an age or an export ends a record; what an answer means is decided by the endpoint's ``judge``.
An answer that settles nothing describes its endpoint, which then waits (``lanes``). Nothing here knows when a pass is
due; that is the worker's.
"""

from __future__ import annotations

import _thread  # its functions are looked up when they are used: gevent and eventlet replace them
from time import monotonic

from . import verdicts
from .errors import debug
from .lanes import CONSENT, ORIGIN, Lane
from .values import Outcome, Unreachable, Verdict, Withheld, inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from .spool.record import Record
    from .values import Core, Request, Transport

    Told = Callable[[Outcome], None] | None

# What a pass came to: another process or thread delivers; there is more to send now; all is sent or waits.
BUSY, MORE, DONE = "busy", "more", "done"
# A pass begins so many records, and none after so long; then others have their turn, and outcomes are told.
PASS_RECORDS, PASS_S = 256, 2.0
# So much evidence makes a dead letter.
DEAD_AT = 12
# With less than this left no further request is begun: it would only be cut short.
LEFT_MIN_S = 0.05
# How soon to look again at what waits for something of our own, and at what the disk refuses.
PARKED_S, REFUSED_S = 3600.0, 30.0
# 2025: nothing of ours is older. A clock that said less was not set yet, so the record's age is unknown.
EARLIEST_AT = 1_735_689_600.0
# How long a refusal of consent waits for a request that is being broken off, and a pass for a product's ``domain``.
CALL_OFF_S, ORIGIN_S = 0.2, 3.0


class Totals:
    """What all passes of this process came to."""

    __slots__ = ("sent", "delivered", "flagged", "rejected", "untrusted")

    def __init__(self) -> None:
        self.sent = self.delivered = self.flagged = self.rejected = self.untrusted = 0

    def count(self, answered: str, ended: str) -> None:
        """One answer, and what became of its record."""
        for name in {answered, ended}.intersection(self.__slots__):
            setattr(self, name, getattr(self, name) + 1)


class Delivery:
    """Takes records from the spool to their endpoints::

    run()
      spool.claim()                          the one deliverer of this directory; memory -> disk
      for record in spool.waiting(doubted):
        _attempt(record, lane)               gate, request, book "try", send, judge
        _settle(record, lane, verdict)       book "answer" or "end"; the lane is proven or waits
      spool.release()                        reap, compact, let go
      on_outcome(...)                        after the release: a dialog in it holds up nobody else
    """

    def __init__(self, core: Core, transport: Transport | None, on_outcome: Told) -> None:
        self._core, self._spool, self._clock = core, core.spool, core.clock
        self._given = self.transport = transport
        self._on_outcome, self._gate = on_outcome, core.gate
        self.lanes = {adapter.name: Lane(adapter, core) for adapter in core.adapters}
        self.silent = False
        self.after_fork()

    def after_fork(self) -> None:
        """Begin anew: connections and who is in the middle of a pass are the parent's."""
        self.quietly("after_fork")
        self.transport = self._given
        self.totals = Totals()
        self.stopping = False
        self.in_flight: Record | None = None
        self._inside: dict[str, int] = {}  # "thread": who delivers; set in one step
        self._seen: object = None  # the news that the last pass looked at
        self._refused = False  # the disk cannot be written, so nothing is sent from it

    # -- when ------------------------------------------------------------------------------------

    def due_in_s(self) -> float | None:
        """Seconds until a pass can do something; None while nothing waits."""
        now, fresh = self._clock.time(), self._spool.news is not self._seen
        if self._seen is None:
            self._spool.refresh_facts()
            self.refresh()
        waits = [lane.remaining_s(now) for lane in self.lanes.values() if fresh or lane.left]
        if not fresh:
            waits += [PARKED_S for lane in self.lanes.values() if lane.parked]
        if self._spool.memory or self._refused:
            waits.append(0.0 if fresh else REFUSED_S)
        return min(waits) if waits else None

    def refresh(self) -> None:
        """Know of each lane what any process wrote down."""
        for lane in self.lanes.values():
            lane.take(self._spool, self._clock.time())

    def lane_of(self, name: str) -> Lane:
        """An endpoint as the disk knows it now, for those who look: ``lanes`` belong to the deliverer's thread."""
        self._spool.refresh_facts()
        known = self.lanes[name]
        lane = Lane(known.adapter, self._core)
        lane.tag, lane.floor_tag = known.tag, known.floor_tag  # of the keys that it began with
        lane.take(self._spool, self._clock.time())
        return lane

    def hand_over(self) -> None:
        """Another process delivers what is there: nothing is due here until something else is recorded."""
        self._seen = self._spool.news

    def pardon(self, *waits: str) -> None:
        """Let these kinds of waiting not hold until each lane's next attempt."""
        for lane in self.lanes.values():
            lane.pardoned = waits

    @property
    def is_current(self) -> bool:
        """Whether the caller is inside a pass, in ``on_outcome`` for one."""
        return self._inside.get("thread") == _thread.get_ident()

    # -- one pass --------------------------------------------------------------------------------

    def run(self, ends_at: float | None = None) -> str:
        """One pass on this thread: BUSY, MORE or DONE; ``ends_at`` in monotonic seconds of the system."""
        if not self.take():
            return BUSY
        told: list[Outcome] = []
        try:
            return self._pass(told, ends_at)
        finally:
            self.give_back(told)

    def take(self) -> bool:
        """Become the one deliverer of this process and of this directory; False while there is another."""
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

    def _pass(self, told: list[Outcome], ends_at: float | None) -> str:
        self._seen, self._refused, began_at = self._spool.news, False, monotonic()
        most = self.totals.sent + PASS_RECORDS
        self.refresh()
        open_ = self._open(ends_at)
        old: list[Record] = []
        doubted = [name for name, lane in open_.items() if lane.failures]
        for record in self._spool.waiting(doubted) if open_ else ():
            lane, left_s = self._lane(record), self._left_s(ends_at)
            over = self.totals.sent >= most or monotonic() - began_at > PASS_S
            if self.stopping or left_s <= 0 or over:
                self._leave(open_.values())
                break
            if self._is_overdue(record, lane):
                old.append(record)
            elif lane is not None and record.endpoint not in open_:
                lane.left = True
            elif lane is not None:
                verdict = self._attempt(record, lane, left_s)
                ended = verdict is not None and self._settle(record, lane, verdict)
                if verdict is not None and ended and self._on_outcome is not None:
                    told.append(self._outcome(record, verdict))
                if lane.remaining_s(self._clock.time()) > 0:
                    self._leave([open_.pop(record.endpoint)])
                if not open_ and not self._may_hold_old():
                    break
        if old:
            self._spool.drop(old, why="age")
        for lane in self.lanes.values():
            lane.end()
            lane.keep(self._spool)
        debug("pass over: %s sent", self.totals.sent - most + PASS_RECORDS)
        return MORE if [lane for lane in open_.values() if lane.left] else DONE

    def _open(self, ends_at: float | None) -> dict[str, Lane]:
        """The lanes that may be asked now. All others have something left as far as anybody knows."""
        now = self._clock.time()
        for lane in self.lanes.values():
            lane.begin()
            if not lane.noticed and self._spool.left_open(lane.adapter.name):
                lane.break_off(now)
                lane.keep(self._spool)  # this run may end like the others
            lane.noticed = True
            trust = lane.adapter.trust
            if trust is not None and trust.look(self._spool, lane):
                lane.forgive()
            if trust is not None and not lane.remaining_s(now):
                inside.request = True
                try:
                    trust.ask(self._ready(), lane, self._left_s(ends_at))
                finally:
                    inside.request = False
        self._leave([lane for lane in self.lanes.values() if lane.remaining_s(now) > 0])
        return {name: lane for name, lane in self.lanes.items() if not lane.left}

    @staticmethod
    def _leave(lanes: Iterable[Lane]) -> None:
        for lane in lanes:
            lane.left = True

    def _lane(self, record: Record) -> Lane | None:
        """Where a record goes; nowhere if its endpoint's name stands for another kind of server by now."""
        lane = self.lanes.get(record.endpoint)
        return lane if lane is not None and lane.adapter.usage == record.usage else None

    def _left_s(self, ends_at: float | None) -> float:
        """Seconds that the next request may take; 0 for another that would be cut short. The first is always tried."""
        limit_s = self._core.config.request_timeout_s
        if ends_at is None:
            return limit_s
        left_s = min(limit_s, ends_at - monotonic())
        return left_s if left_s > LEFT_MIN_S or not self.totals.sent else 0.0

    def _may_hold_old(self) -> bool:
        """Whether records may be over-aged that wait behind those that failed less."""
        oldest_at, most_s = self._spool.oldest_at(), self._core.config.max_age_days * 86400.0
        return oldest_at is not None and self._clock.time() - oldest_at > most_s

    def _is_overdue(self, record: Record, lane: Lane | None) -> bool:
        """Whether a record is over-aged by a clock that something corroborates: a wrong boot must lose nothing."""
        now, most_s = self._clock.time(), self._core.config.max_age_days * 86400.0
        if record.at < EARLIEST_AT or now - record.at <= most_s:
            return False
        # The clock may have been set since: what this process recorded is no older than the process.
        if record.run == self._spool.run and self._spool.age_s() <= most_s:
            return False
        ticks = self._clock.monotonic()
        if any(one.freshness.corroborates(now, ticks) for one in self.lanes.values()):
            return True
        overdue_s = now - record.at - most_s
        return lane is not None and lane.agrees_on_age(now, overdue_s, self._spool.run)

    # -- one record ------------------------------------------------------------------------------

    def _attempt(self, record: Record, lane: Lane, limit_s: float) -> Verdict | None:
        """Send one record; what came of it, or None where it was not tried."""
        gate, began_at = self._gate(record), monotonic()
        if gate == "refused":
            self._spool.forget(record)
            return None
        if gate != "open":
            lane.parked = CONSENT
            return None
        if not self._knows_origin(record, lane, limit_s):
            lane.parked = ORIGIN
            return None
        limit_s -= round(monotonic() - began_at, 1)  # in tenths: a reason may name it
        now = self._clock.time()
        try:
            request = lane.adapter.request(record.kind, record.body, event_id=record.id, now=now)
        except (OSError, ImportError, MemoryError):  # nothing is left to load a module with
            lane.left = True
            return None
        except Exception as error:  # a body that none of us wrote costs itself and no other record
            return Verdict(verdicts.REJECTED, reason="cannot be encoded: " + type(error).__name__)
        return self._send(record, lane, request, limit_s) if limit_s > 0 else None

    def _knows_origin(self, record: Record, lane: Lane, limit_s: float) -> bool:
        """Whether it is known whose usage it is; asked once in a pass, where a callable can be left behind."""
        if record.kind != "aggregate" or record.body.get("domain") or record.body.get("ip_addr"):
            return True
        if lane.origin is None:
            ask: Callable[[], dict[str, str]] = lane.adapter.origin  # type: ignore[attr-defined]
            aside = getattr(self._ready(), "aside", None)
            try:
                lane.origin = ask() if aside is None else aside(ask, min(limit_s, ORIGIN_S))
            except Unreachable:
                lane.origin = {}
        record.body = {**record.body, **(lane.origin or {})}
        return bool(lane.origin)

    def _send(self, record: Record, lane: Lane, request: Request, limit_s: float) -> Verdict | None:
        request.may_send = lambda: not self.stopping and self._gate(record) == "open"
        first = record.kind == "aggregate" and not self._spool.attempts(record).failed
        if not self._spool.try_(record, sync=first):
            self._refused = True
            return None
        # Set before consent is asked: who withdraws it looks here.
        self.in_flight = record
        if not request.may_send():
            return Verdict(verdicts.WITHHELD)
        self.totals.sent += 1
        lane.pardoned = ()
        secret = str(record.body.get("license_key") or "")
        inside.request = True
        try:
            response = self._ready().send(request, timeout_s=limit_s)
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
        finally:
            inside.request = False

    def _settle(self, record: Record, lane: Lane, verdict: Verdict) -> bool:
        """Write down what a verdict means for the record and for its endpoint; whether the record ended."""
        spool, now, outcome = self._spool, self._clock.time(), verdict.outcome
        self.in_flight = None
        debug("%s: %s %s", record.endpoint, record.id, verdict)
        if self._gate(record) == "refused":  # meanwhile: no word of it is kept
            spool.forget(record)
            return False
        if outcome == verdicts.OFFLINE and self.stopping:
            return False  # broken off: the next run sees that this one came to no end of it
        if outcome == verdicts.WITHHELD:
            spool.end(record, failed=False, counted=0)
            return False
        counted = lane.evidence(verdict)
        if counted and spool.attempts(record).counted + counted >= DEAD_AT:
            verdict.outcome = verdicts.REJECTED
        if outcome in verdicts.SETTLED:
            lane.prove(now)
        elif verdict.outcome != verdicts.REJECTED:
            lane.settle(outcome, verdict, now)
        self.totals.count(outcome, verdict.outcome)
        if verdict.outcome in verdicts.ENDED:
            spool.answer(record, verdict, now)
            return True
        patient = outcome in (verdicts.HELD, verdicts.THROTTLED)
        spool.end(record, failed=not patient, counted=counted)
        if outcome != verdicts.OFFLINE:
            spool.told(record, verdict, now)
        lane.keep(spool)
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

    # -- the transport ---------------------------------------------------------------------------

    def _ready(self) -> Transport:
        if self.transport is None:
            from .transport import HttpTransport

            self.transport = HttpTransport.of(self._core.config, self._core.environ)
        return self.transport

    def quietly(self, verb: str) -> None:
        """Have the transport ``rest``, ``interrupt`` or ``close``: a vendor's may keep no promise."""
        try:
            if self.transport is not None:
                getattr(self.transport, verb)()
        except (Exception, SystemExit):
            pass

    def call_off_usage(self) -> None:
        """After a refusal: break off a request that carries usage, and wait until it is."""
        from time import sleep

        ends_at = monotonic() + CALL_OFF_S
        while monotonic() < ends_at and not self.is_current:
            record = self.in_flight
            if record is None or not record.usage:
                return
            self.quietly("interrupt")
            sleep(0.001)
