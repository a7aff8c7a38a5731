"""Who delivers, and when: the worker's turns, ``flush``, and what is told about each answer.

One pass at a time in this process, one deliverer at a time on this state directory. Everything that only delivering
needs (``delivery``, ``transport``) is imported by the first pass, never by recording.
"""

from __future__ import annotations

import _thread  # its functions are looked up when they are used: gevent and eventlet replace them
import os

from . import story
from .digest import sha256
from .spool import names
from .spool.backlog import Backlog
from .telling import Teller

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Optional

    from .clock import Clock
    from .config import Config
    from .delivery import Delivery, Tally
    from .outcomes import Outcome
    from .rotation import Rotation
    from .routes import Adapter
    from .spool.facts import Lane
    from .spool.records import Record
    from .spool.store import Spool
    from .transport.values import Transport

# How soon to ask again for the deliverer's lock that another process holds: it may be killed, and somebody has to go
# on within a second. Only who has something to deliver asks; a holder that long is stopped, or ill, and asked less.
CLAIM_RETRY_S, CLAIM_RETRY_SLOW_S, CLAIM_PATIENCE_S = 0.25, 5.0, 600.0
# How long a fork waits for a pass that is at its end, or for an idle thread.
PARK_S = 0.2
# How long a first pass may be loading what it sends and verifies with: 0.1 s on a fast machine.
LOADING_S = 1.0
# A pass that sent nothing does not follow another at once, whatever it thinks is waiting.
IDLE_S = 1.0
# Records older than this do not wait for the host's start-up.
OLD_S = 86400.0


class Flush:
    """One caller who waits for a pass that begins after the call."""

    def __init__(self, skip: tuple[str, ...]) -> None:
        self.skip = skip
        self._done = _thread.allocate_lock()
        self._done.acquire()

    def wait(self, timeout_s: float) -> None:
        """Until the pass is over, or ``timeout_s``."""
        self._done.acquire(True, timeout_s)

    def end(self) -> None:
        """Let the caller go."""
        try:
            self._done.release()
        except RuntimeError:
            pass  # gone already


class Courier:
    """Delivers what one agent's spool holds."""

    def __init__(
        self,
        config: Config,
        spool: Spool,
        *,
        clock: Clock,
        environ: Mapping[str, str],
        transport: Optional[Transport],
        adapters: list[Adapter],
        user_identifier: Callable[[], str],
        gate: Callable[[Record], str],
        dropped: Callable[..., None],
        on_outcome: Optional[Callable[[Outcome], None]],
    ) -> None:
        self._config, self._spool, self._clock, self._environ = config, spool, clock, environ
        self._given_transport = transport
        self._adapters, self._user_identifier = adapters, user_identifier
        self._gate, self._dropped, self._on_outcome = gate, dropped, on_outcome
        self._claim = -1
        self.delivery: Optional[Delivery] = None
        story.watch(environ)
        self._renew()

    def after_fork(self) -> None:
        """Start afresh: connections, locks and waiting callers are the parent's."""
        # The spool closed it: inherited open, it would hold the parent's lock for life.
        self._claim = -1
        if self.delivery is not None:
            self.delivery.stopping = True  # forked inside a pass: that pass goes on in the parent
        _quietly(self.transport, "after_fork")
        self._renew()

    def _renew(self) -> None:
        self.transport = self._given_transport
        self.delivery = None
        self.totals: Optional[Tally] = None
        self.hint = True  # records may be waiting that no pass has seen
        self.teller = Teller(
            self._spool,
            self._clock,
            gate=self._gate,
            on_outcome=self._on_outcome,
            manual=self._config.deliver == "manual",
        )
        self._owner: dict[str, int] = {}  # "thread": who delivers; set in one step
        self._claim = -1
        self._inside = 0  # the thread that is in the middle of a pass
        self.flushes: list[Flush] = []  # that somebody waits for
        self._rotations: dict[str, Rotation] = {}  # by endpoint, where there is a keyring
        self._loaded_at = 0.0  # real monotonic seconds: until then modules are loaded
        self.refused_at: Optional[float] = None  # since when another process is delivering
        self._not_before_at: Optional[float] = None

    # -- when ------------------------------------------------------------------------------------

    def turn(self) -> Optional[float]:
        """The worker's: one pass where it is time; the seconds until the next, None until rung."""
        story.tell()
        if not self.flushes:
            rest_s = self._start_delay_s()
            if rest_s > 0:
                return rest_s
        # In place: other threads append at any time.
        flushes = list(self.flushes)
        del self.flushes[: len(flushes)]
        delivered = True
        try:
            skip = tuple({wait for flush in flushes for wait in flush.skip})
            timeout_s = self._config.request_timeout_s
            before = self.totals.sent if self.totals else 0
            delivered = self.deliver(skip=skip, timeout_s=lambda: timeout_s)
        finally:
            if delivered or self.teller.silent:
                for flush in flushes:
                    flush.end()
            else:
                self.flushes[:0] = flushes
        if not delivered:
            now = self._clock.monotonic()
            if flushes or self.refused_at is None:
                self.refused_at = now
                story.tell("another process delivers")
            patient = now - self.refused_at < CLAIM_PATIENCE_S
            if not patient:
                self._spool.note("delivery", "another process has been delivering for very long")
            return CLAIM_RETRY_S if patient else CLAIM_RETRY_SLOW_S
        self.refused_at = None
        self._spool.note("delivery")
        if self.hint or self.flushes:
            return 0.0
        next_in_s = self.next_in_s()
        idle = self.totals is None or self.totals.sent == before
        return max(next_in_s, IDLE_S) if idle and next_in_s is not None else next_in_s

    @property
    def due(self) -> bool:
        """Whether there is anything to look at: something recorded, a flush, a wait that is over."""
        next_in_s = self.next_in_s()
        return bool(self.flushes) or (next_in_s is not None and next_in_s <= 0)

    def next_in_s(self) -> Optional[float]:
        """Seconds until a pass can do something; None while nothing waits."""
        if self.delivery is None or self.hint:
            return 0.0 if self.hint else None
        return self.delivery.next_in_s(self._clock.time())

    def lanes(self) -> list[Lane]:
        """What is known of each endpoint, by what is on disk now; loads nothing that only delivering needs."""
        facts = self._spool.facts
        facts.refresh()
        return [facts.lane(self.tag(adapter)) for adapter in self._adapters]

    def _start_delay_s(self) -> float:
        """What is left of ``start_delay_s``, which old records do not wait for."""
        now = self._clock.monotonic()
        if self._not_before_at is None:
            soon = self._is_old() or self._was_broken_off()
            self._not_before_at = now + (0.0 if soon else self._config.start_delay_s)
        return self._not_before_at - now

    def _was_broken_off(self) -> bool:
        """Whether the last run ended before an answer came: this one may be as short."""
        return any(lane.broken_off for lane in self.lanes())

    def _is_old(self) -> bool:
        """Whether the oldest waiting record is; looks into files only where a name is that old."""
        now = self._clock.time()
        try:
            segments = names.listing(self._spool.directory or "")[0]
        except OSError:
            return False
        created_ms = [names.created_ms(name) for name in segments[:1]]
        if not created_ms or (created_ms[0] or 0) / 1000 > now - OLD_S:
            return False
        waiting = Backlog(self._spool.directory, [])
        waiting.refresh()
        oldest = next(waiting.records(), None)
        return oldest is not None and now - oldest.at > OLD_S

    def ask(self, skip: tuple[str, ...]) -> Flush:
        """Queue a flush for the worker's next turn."""
        flush = Flush(skip)
        self.flushes.append(flush)
        return flush

    @property
    def is_current(self) -> bool:
        """Whether the caller is inside a pass, in ``on_outcome`` for one."""
        return self._inside == _thread.get_ident()

    # -- one pass --------------------------------------------------------------------------------

    def deliver(self, *, skip: tuple[str, ...], timeout_s: Callable[[], float]) -> bool:
        """One pass on this thread; False while another process or thread delivers.

        ``skip`` names kinds of waiting to ignore; ``timeout_s`` gives the time for each request.
        """
        me = _thread.get_ident()  # now: gevent that comes in the middle gives this thread another
        try:
            if not self.take():
                return False
            delivery = self._prepared()
            self.hint = False
            self._spool.facts.refresh()
            for name, rotation in self._rotations.items():
                rotation.look(delivery.routes[name].lane)
            if skip or delivery.any_ready():
                self._pass(delivery, skip, timeout_s)
            return True
        finally:
            self.give_back(me)

    def take(self) -> bool:
        """Become the one deliverer of this process and this directory; False while there is another."""
        me = _thread.get_ident()
        if self._inside == me or self._owner.setdefault("thread", me) != me:
            return False
        # Ours, perhaps since a pass of this thread that Ctrl-C broke off before it could give back.
        if self._claim >= 0:
            self._drop_claim()
        claim = self._spool.claim()
        if claim is None:
            self._owner.clear()
            return False
        self._claim, self._inside = claim, me
        return True

    def give_back(self, me: int = 0) -> None:
        """The opposite of ``take``; nothing on a thread that did not take, as in a child forked inside a pass."""
        if self._inside != (me or _thread.get_ident()):
            return
        try:
            self.teller.write()
            if self.delivery is not None:
                self.delivery.rest()
        finally:
            self._inside = 0
            self._drop_claim()
            self._owner.clear()

    def _drop_claim(self) -> None:
        claim, self._claim = self._claim, -1
        self._spool.release(claim)

    def _pass(
        self, delivery: Delivery, skip: tuple[str, ...], timeout_s: Callable[[], float]
    ) -> None:
        spool = self._spool
        spool.rescue()
        spool.backlog.refresh()
        now = self._clock.time()
        for name, rotation in self._rotations.items():
            lane = delivery.routes[name].lane
            if lane.wait in skip or not lane.remaining_s(now):
                rotation.ask(delivery.transport, lane, timeout_s())
        delivery.run(skip=skip, timeout_s=timeout_s)
        max_age_s = self._config.max_age_days * 86400.0
        right = delivery.ageing.clock_is_right()
        spool.sweep(self._clock.time() - max_age_s if right else None)

    def _prepared(self) -> Delivery:
        if self.delivery is None:
            from time import monotonic

            from .delivery import Delivery
            from .routes import Route

            self._loaded_at = monotonic() + LOADING_S
            if self.transport is None:
                from .transport import HttpTransport

                self.transport = HttpTransport.of(self._config, self._environ)
            facts = self._spool.facts
            routes = {a.name: Route(a, facts.lane(self.tag(a))) for a in self._adapters}
            self.delivery = Delivery(
                self._spool,
                routes,
                self.transport,
                clock=self._clock,
                chance=lambda: int.from_bytes(os.urandom(6), "big") / 2.0**48,
                run=os.urandom(8).hex(),
                max_age_s=self._config.max_age_days * 86400.0,
                gate=self._gate,
                settled=self.teller.settled,
                answered=self.teller.answered,
                dropped=self._dropped,
            )
            self.totals = self.delivery.totals
            rings = {a.name: a.trust for a in self._adapters if a.trust is not None}
            if rings:
                from .rotation import Rotation

                user = self._user_identifier()
                self._rotations = {n: Rotation(t, facts, user) for n, t in rings.items()}
        return self.delivery

    def tag(self, adapter: Adapter) -> str:
        """What shared facts about an endpoint are found by: a hash of its configuration, keyed."""
        text = "%s\n%s" % (self._user_identifier(), adapter.identity)
        return str(sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16])

    # -- ending ----------------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin nothing more: no pass, no request, no outcome."""
        self.teller.silent = True
        if self.delivery is not None:
            self.delivery.stopping = True

    def suspend(self) -> float:
        """Before a fork: let a pass end with its present record; for how many seconds that is worth a wait.

        For none where a server is waited for. But a first pass loads modules, and a module's lock that is held
        in the middle of a fork is held in the child for ever.
        """
        from time import monotonic

        delivery = self.delivery
        if delivery is None:
            return LOADING_S
        wait_s = 0.0 if delivery.in_flight is not None else PARK_S
        if not delivery.totals.sent:
            wait_s = max(wait_s, self._loaded_at - monotonic())
        delivery.stopping = delivery.stopping or wait_s > 0
        return wait_s

    def resume(self) -> None:
        """After a fork, in the parent."""
        if self.delivery is not None and self.delivery.stopping and not self.teller.silent:
            self.delivery.stopping = False
            self.hint = True

    def break_off(self) -> None:
        """End the request in flight, which says nothing of its record."""
        if self.delivery is not None:
            self.delivery.abandon()
        _quietly(self.transport, "interrupt")

    def call_off_usage(self) -> None:
        """After a refusal: break off a request that carries usage, and wait until it is."""
        from time import monotonic, sleep

        delivery, ends_at = self.delivery, monotonic() + PARK_S
        while delivery is not None and monotonic() < ends_at and not self.is_current:
            record = delivery.in_flight
            if record is None or not record.usage:
                return
            _quietly(self.transport, "interrupt")
            sleep(0.001)

    def close(self) -> None:
        """Reap what is done, close every socket, let every waiting caller go."""
        for flush in self.flushes:
            flush.end()
        self.teller.write()  # for a thread that hangs
        if self.delivery is not None and self.take():
            self._spool.backlog.reap_named(self._spool.own_segments)
            self.give_back()
        _quietly(self.transport, "close")


def _quietly(transport: Optional[Transport], verb: str) -> None:
    """A vendor's transport may keep no promise; the host's exit is no place to learn it."""
    try:
        if transport is not None:
            getattr(transport, verb)()
    except (Exception, SystemExit):
        pass
