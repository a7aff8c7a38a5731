"""The engine behind an ``Agent``: what one process needs to record, count, deliver and end.

Recording runs on the host's threads and touches only the disk; delivering runs on the worker (in "manual" mode inside
``flush``). Nothing in here raises because of the disk, the network or a server.
"""

from __future__ import annotations

import os

from . import endpoints, exits, identity as identities, places, story
from .clock import Clock
from .counting import Counting
from .courier import Courier
from .spool.records import Record
from .spool.store import DISK, FULL, Spool
from .version import VERSION
from .worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Optional

    from .config import Config
    from .endpoints.getkeymanager import GetKeyManagerAdapter
    from .endpoints.reo import ReoAdapter
    from .identity import Identity
    from .outcomes import Outcome
    from .routes import Adapter
    from .transport.values import Transport


NO_TRACKING = "DO_NOT_TRACK"


class Engine:
    """All moving parts of one agent; see ``Agent`` for what they promise."""

    def __init__(
        self,
        config: Config,
        *,
        on_outcome: Optional[Callable[[Outcome], None]] = None,
        clock: Optional[Any] = None,
        transport: Optional[Transport] = None,
        environ: Optional[Mapping[str, str]] = None,
    ) -> None:
        self.config = config
        self.environ: Mapping[str, str] = os.environ if environ is None else environ
        # Asking ``os.environ`` for what it does not have takes half of a ``count``.
        names = getattr(self.environ, "_data", None)
        self._names = names if type(names) is dict and self.environ is os.environ else None
        self._name = os.environ.encodekey(NO_TRACKING) if self._names is not None else ""
        self.clock: Clock = clock or Clock()
        self.consent = config.usage_consent
        self.not_recorded: dict[str, int] = {}
        self._license = ("", "")  # as last seen, for records of our own
        self._identity: Optional[Identity] = None
        self._shown: Optional[Identity] = None
        self._resolving = False
        self.closed = self.exiting = self._hooked = self._news = False
        # One adapter per configured endpoint, in the order of the configuration.
        self.adapters: list[Adapter] = [endpoints.adapter(e, config) for e in config.endpoints]
        self.licence_adapters: list[GetKeyManagerAdapter] = [
            adapter for adapter in self.adapters if not adapter.usage  # type: ignore[misc]
        ]
        self.usage_adapters: list[ReoAdapter] = [
            adapter for adapter in self.adapters if adapter.usage  # type: ignore[misc]
        ]
        directory, trouble = None, ""
        if config.endpoints:
            directory, trouble = places.safe_directory(config, self.environ)
        self.spool = Spool(
            directory,
            clock=self.clock,
            max_bytes=config.max_bytes,
            max_records=config.max_records,
            power=config.durability == "power",
            dropped=self._report_dropped,
        )
        self.spool.note("directory", trouble or None)
        self.counting = Counting(
            self.spool, self.usage_adapters, clock=self.clock, window_s=config.count_window_s
        )
        self.courier = Courier(
            config,
            self.spool,
            clock=self.clock,
            environ=self.environ,
            transport=transport,
            adapters=self.adapters,
            user_identifier=lambda: self.shown_identity.value,
            gate=self.gate,
            dropped=self._report_dropped,
            on_outcome=on_outcome,
        )
        self.detached = None
        if config.deliver == "detached" and config.endpoints and transport is clock is None:
            from .detached import Detached

            self.detached = Detached(config, self.courier, self.spool, environ)
        self.worker = Worker(self._turn, name="telemetry")
        if config.endpoints:
            # Now, so that a signal handler that records in the middle of the first record finds it.
            found = self.shown_identity
            self._identity = found if found.stored else None
        self.set_consent(config.usage_consent)

    # -- recording -------------------------------------------------------------------------------

    @property
    def identity_names(self) -> dict[str, Any]:
        """What the identity is derived for, and where it is kept."""
        return {
            "state_dir": self.spool.directory,
            "vendor": self.config.vendor,
            "product_name": self.config.product_name,
            "identity_name": self.config.identity_name,
        }

    @property
    def identity(self) -> Identity:
        """The identity of user and machine; found at the first record, kept ever after."""
        if self._identity is None:
            if self._resolving:  # a signal handler in the middle of it
                return self.shown_identity
            self._resolving = True
            try:
                self._identity = identities.resolve(**self.identity_names)
            finally:
                self._resolving = False
        return self._identity

    @property
    def shown_identity(self) -> Identity:
        """The same identity, for those who only look: it is not stored where none was stored yet."""
        if self._identity is not None:
            return self._identity
        if self._shown is None:
            given = self.identity_names
            try:
                found = os.listdir(given["state_dir"] or "")
            except OSError:
                found = []
            if not any(name.startswith("identity-") for name in found):
                given["state_dir"] = None
            self._shown = identities.resolve(**given)
        return self._shown

    def capture(self, license: tuple[str, str], event_id: str = "") -> endpoints.Capture:
        """The circumstances of a record made now."""
        self.hook()
        key, activation_identifier = self._license = license
        return endpoints.Capture(
            event_id or os.urandom(16).hex(),
            self.clock.time(),
            self.identity.value,
            key,
            activation_identifier,
        )

    def put(
        self, kind: str, endpoint: str, source: endpoints.Capture, body: Any, *, epoch: int = 0
    ) -> bool:
        """Keep one record, usage under the consent ``epoch`` of its capture; True when it survives the process."""
        record = Record(kind, endpoint, source.event_id, source.at, body, epoch=epoch)
        try:
            kept = self.spool.record(record, sync=not record.usage)
        except Exception as error:  # a defect of ours, or an interpreter that is being taken apart
            self.count_lost("failed: " + type(error).__name__)
            return False
        if kept != DISK:
            self.count_lost("quota" if kept == FULL else "kept in memory only")
        self.news(unsynced=record.usage)
        if self.closed:  # meanwhile, by another thread: nothing of ours stays open
            self.spool.seal()
        return kept == DISK

    def news(self, *, unsynced: bool = False) -> None:
        """Note that something is on disk that no pass has seen; ``wake`` rings for it."""
        # Rung for once: a worker that has not looked since will see this record too.
        if not (self.courier.hint and (self.counting.unsynced or not unsynced)):
            try:
                self.counting.unsynced |= unsynced
                self.courier.hint = True
            finally:  # last: another thread may ring for this too, and the worker has to find the marks
                self._news = True

    def count_lost(self, why: str, n: int = 1) -> None:
        """Count what was not recorded, or not durably."""
        self.not_recorded[why] = self.not_recorded.get(why, 0) + n

    def count(self, activity: str, n: int) -> None:
        """Add to a counter; in "thread" mode no disk and no lock, unless no thread can run."""
        manual = self.config.deliver == "manual"
        self.hook()
        if manual:
            self.counting.fold()
        if self.counting.add(activity, n) or manual or not self.worker.running:
            if not manual and not self.exiting:
                self.worker.ring()
            if self.exiting or self.worker.too_late:
                self.counting.keep()  # nobody comes after us
            elif manual or self.worker.failed:
                self._keep_if_due()

    def _keep_if_due(self) -> list[float]:
        waits, ended = self.counting.keep_if_due()
        if ended:
            self.courier.hint = True
        return waits

    def wake(self) -> None:
        """After recording: have the worker look."""
        if self.config.deliver == "manual" or self.exiting:
            self.counting.keep()
        elif self._news or not self.worker.running:
            try:
                self._news = False
                self.worker.ring()
            except BaseException:  # noqa: B036 - Ctrl-C: the next one rings
                self._news = True
                raise

    def hook(self) -> None:
        """Be told of exit and forks."""
        if not self._hooked and not self.closed:
            # First the hooks, then the mark: another thread that sees it may take a lock and be forked.
            exits.watch_forks(self)
            exits.at_exit(self._at_exit)
            self._hooked = True
            if self.closed:  # meanwhile, by another thread
                self._unhook()

    def _unhook(self) -> None:
        exits.not_at_exit(self._at_exit)
        exits.forget_forks(self)

    def _turn(self) -> Optional[float]:
        """One turn of the worker: do what is due; the seconds until something will be."""
        waits = self._keep_if_due()
        if not self.courier.due:
            wait_s = self.courier.next_in_s()
        elif self.detached is None or self.courier.flushes or not self.detached.works:
            wait_s = self.courier.turn()
        else:
            wait_s = self.detached.turn(self.consent)
        if wait_s is not None:
            waits.append(wait_s)
        return min(waits) if waits else None

    def outline(self, trouble: str = "") -> dict[str, Any]:
        """What of ``status`` is known without a look at the disk."""
        waiting = len(self.spool.memory)
        return {
            "version": VERSION,
            "enabled": bool(self.config.endpoints),
            "closed": self.closed,
            "deliver": self.config.deliver,
            "state_dir": self.spool.directory,
            "usage_consent": "callable" if callable(self.consent) else self.consent,
            "do_not_track": self.do_not_track,
            "pending": waiting,
            "unknown_endpoints": {},
            **dict.fromkeys(("dead", "damaged", "newer", "segments", "bytes"), 0),
            "in_memory": waiting,
            "oldest_at": None,
            "locks_work": not self.spool.lockless,
            "not_recorded": dict(self.not_recorded),
            "endpoints": [],
            "trouble": {"spool": trouble},
        }

    def _report_dropped(self, dropped: int, id: str, told: int = 0) -> None:
        """Tell the licence server how many records a quota or an age limit took, ``told`` of them once before."""
        self.count_lost("dropped", dropped - told)
        for adapter in self.licence_adapters[:1]:
            source = self.capture(self._license, id)
            body = adapter.value(source, str(dropped), "agent-dropped")
            self.put("licence", adapter.name, source, body)

    # -- consent ---------------------------------------------------------------------------------

    @property
    def do_not_track(self) -> bool:
        """Whether ``DO_NOT_TRACK`` stops usage in this process (consoledonottrack.com)."""
        if self._names is not None and self._name not in self._names:
            return False
        return self.environ.get(NO_TRACKING, "") not in ("", "0")

    def usage_allowed(self) -> bool:
        """Whether usage may be captured now; asks a callable on the caller's thread."""
        if self.closed or self.do_not_track:
            return False
        if not callable(self.consent):
            return self.consent is True
        try:
            return self.consent() is True
        except (Exception, SystemExit):
            return False

    def usage_epoch(self) -> Optional[int]:
        """The epoch of consent that usage may be captured under now; None where it may not."""
        # Read before consent is asked: a refusal in between makes what is captured here a thing of the past.
        epoch = self.spool.consent.current()
        if not self.usage_allowed():
            return None
        self.hook()
        self.spool.consent.current(anchor=True)
        return epoch

    def set_consent(self, consent: Any) -> None:
        """From now on; False purges before it returns."""
        self.consent = consent
        if not self.config.endpoints:
            return
        if consent is False:
            self.spool.refuse_usage([self.courier.tag(a) for a in self.licence_adapters])
            self.courier.call_off_usage()
        if self.usage_adapters:  # counts of another epoch are forgotten
            self.counting.adopt(self.spool.consent.current())
            self.courier.hint = True
            if self.worker.running:
                self.worker.ring()  # what was captured earlier may wait for this

    def gate(self, record: Record) -> str:
        """Consulted before each record is sent: "open", "shut" (wait) or "refused" (never)."""
        if not record.usage:
            return "open"
        if record.epoch < self.spool.consent.current():
            return "refused"
        if not self.spool.consent.known:
            return "shut"
        shut = self.do_not_track or self.consent is None or self.consent is False
        return "shut" if shut else "open"

    # -- process life ----------------------------------------------------------------------------

    def close(self, timeout_s: float) -> None:
        """End everything: no thread, hook, file or callback remains."""
        if not self.closed:
            self.closed = True
            try:
                self._stop(timeout_s)
            finally:
                self._unhook()

    def _at_exit(self) -> None:
        """At the interpreter's end: begin no request; recording goes on for other exit handlers."""
        if not self.closed and not self.exiting:
            self.exiting = True
            try:
                self._stop(exits.shared_time_left_s(self.config.exit_timeout_s))
            except BaseException:  # noqa: B036
                # Ctrl-C: wait no longer. The interpreter would print where it came.
                try:
                    self._stop(0.0)
                except BaseException:  # noqa: B036
                    pass

    def _stop(self, timeout_s: float) -> None:
        # The last moments of the time belong to breaking off: an eighth, at most 50 ms.
        spare_s = min(0.05, timeout_s / 8)
        self.courier.stop()
        self.courier.hint |= self.counting.keep(end=True)
        if not self.worker.stop(timeout_s - spare_s):
            self.courier.break_off()
            self.worker.stop(spare_s)
        self.spool.seal()
        if self.detached is not None:
            self.detached.last(self.consent)
        self.courier.close()
        if not self.worker.running:  # else the handler that would be called may be what holds it up
            story.tell("closed")

    def before_fork(self) -> None:
        """Park a worker that is not waiting for a server, so that no thread is inherited or warned about."""
        wait_s = self.courier.suspend()
        if wait_s > 0:
            exits.guard_logging(lambda: self.worker.park(wait_s))

    def after_fork_in_parent(self) -> None:
        """Go on where there is something to do."""
        self.courier.resume()
        waiting = self.courier.due or self.courier.next_in_s() is not None
        waiting = waiting or self.counting.unsynced or not self.counting.idle
        if waiting and self._hooked and self.config.deliver != "manual" and not self.exiting:
            self.worker.resume()

    def after_fork_in_child(self) -> None:
        """Start afresh: the parent's records, counts, threads and locks are the parent's."""
        self.not_recorded = {}
        self._resolving = False  # it was another thread of the parent's
        self._hooked = False  # multiprocessing clears the exit hooks of its children
        self.spool.after_fork()  # first: it closes every file of the parent's
        self.counting.after_fork()
        self.courier.after_fork()
        self.worker = Worker(self._turn, name="telemetry")
