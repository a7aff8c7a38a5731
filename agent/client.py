"""``Agent``: what a product holds. It checks arguments, captures, records, and never shows the network.

Mistakes (a wrong type, an unknown name, a missing argument) raise ``EventError`` or ``ConfigError`` at once; disks,
networks, servers and odd content never do. Nothing here depends on the state of a licence: it always reports.
"""

from __future__ import annotations

import os
import sys

from . import TYPE_CHECKING, content, files, identity
from .clock import Clock
from .config import Config, Reo
from .counters import Counters
from .delivery import Delivery
from .endpoints.getkeymanager import GetKeyManagerAdapter
from .endpoints.reo import ReoAdapter
from .errors import AgentError, EventError, in_words, mistake, part
from .spool.record import Record
from .spool.store import DISK, FULL, Spool
from .values import Capture, Core, DeliveryReport, here, inside
from .worker import Worker

if TYPE_CHECKING:
    from typing import Any, Callable, Mapping, Optional, Union

    from .values import Outcome, Transport
    from .verdicts import Adapter

    Consent = Union[None, bool, Callable[[], object]]


class Agent:
    """Calls home, keeps what could not be sent, believes only signed answers.

    ``license_key``: None, a text, a pair (key, activation identifier) or a callable that gives one, called
    once per record on the recording thread. ``on_outcome(outcome)`` hears how each record ended, on the
    delivering thread. ``clock`` (``time()``, ``monotonic()``), ``transport`` and ``environ`` replace the
    system's. Raises ``ConfigError`` or ``EventError`` for arguments of a wrong type, nothing else.

    What becomes of a call, in order::

        content.number, content.name ...     mistakes raise; unusable content is counted, and None is returned
        _ignored                             closed, no such endpoint, inside our own request: counted
        _usage_epoch                         of usage: the size of the consent file first, then consent
        _keep                                event id, time, identity, licence (asked once)
        adapter.value -> spool.record        on disk when this returns; an id for that alone
        worker.wake                          the rest is the worker's
    """

    def __init__(
        self,
        config: Config,
        license_key: content.Given = None,
        activation_identifier: Optional[str] = None,
        on_outcome: Optional[Callable[[Outcome], None]] = None,
        clock: Optional[Any] = None,
        transport: Optional[Transport] = None,
        environ: Optional[Mapping[str, str]] = None,
    ) -> None:
        if not isinstance(config, Config):
            raise mistake("config", config, "a Config")
        if on_outcome is not None and not callable(on_outcome):
            raise mistake("on_outcome", on_outcome, "None or a callable")
        _has("clock", clock, "time", "monotonic")
        _has("transport", transport, "send")
        _has("environ", environ, "get")
        self._config, self._consent = config, config.usage_consent
        self._environ: Mapping[str, str] = os.environ if environ is None else environ
        self._clock: Clock = clock or Clock()
        self._licence = content.Licence(license_key, activation_identifier)
        self._identity: Optional[identity.Identity] = None
        self._user = ""  # its value, once it was stored as far as it can be
        self._adapters: list[Adapter] = [_adapter(e, config) for e in config.endpoints]
        self._servers: list[Any] = [one for one in self._adapters if not one.usage]
        self._collectors: list[Any] = [one for one in self._adapters if one.usage]
        place = files.state_directory(config, self._environ) if config.endpoints else (None, "")
        core = Core(
            config=config,
            clock=self._clock,
            environ=self._environ,
            adapters=self._adapters,
            gate=self._gate,
            report=self._report,
            user_identifier=lambda: self._identify(store=False).value,
        )
        self._spool = core.spool = Spool(place[0], core)
        self._spool.note("directory", place[1] or None)
        self._counters = Counters(core)
        self._delivery = Delivery(core, transport, on_outcome)
        self._worker = Worker(core, self._delivery, self._counters)
        if config.deliver == "detached" and config.endpoints and transport is clock is None:
            start = part("detached", 'deliver="detached"').Detached
            self._worker.detached = start(self, environ)
        if self._consent is False:
            self._refuse()
        elif self._collectors:
            self._counters.begin(self._spool.consent.current())

    # -- recording ----

    def call_home(self) -> Optional[str]:
        """Record one call home per endpoint, under one event id; None if nothing survives the process.

        To a licence server the text "CALL HOME" in the endpoint's data group, whatever the activation state; to a
        usage endpoint, with consent, the activity "CALL HOME". In a process that ``multiprocessing`` started: None.
        """
        if not self._adapters or self._ignored(self._adapters, "endpoint"):
            return None
        if _is_child():  # it runs the product's start-up code again
            return self._lost("child process")
        epoch = self._usage_epoch() if self._collectors else 0
        adapters = [one for one in self._adapters if epoch or not one.usage]
        return self._keep(adapters, epoch, "call_home") if adapters else None

    def record_value(self, value: Any, *, data_group: str) -> Optional[str]:
        """Record one number under ``data_group`` for the licence servers (``numeric-single-value``).

        The event id; None if it was not kept, as for NaN. Raises ``EventError``.
        """
        return self._record("value", data_group, content.number(value, "value"))

    def record_point(self, x: Any, y: Any, *, data_group: str) -> Optional[str]:
        """Record two numbers that belong together (``numeric-xy-axis``); otherwise as ``record_value``."""
        return self._record("point", data_group, content.number(x, "x"), content.number(y, "y"))

    def record_text(self, text: str, *, data_group: str) -> Optional[str]:
        """Record a text, cut at 32,768 characters (``text``); otherwise as ``record_value``."""
        return self._record("text", data_group, content.text(text))

    def _record(self, how: str, data_group: str, *given: Optional[str]) -> Optional[str]:
        group = content.name(data_group, "data_group")
        if None in given:
            return self._lost("unusable content")
        if self._ignored(self._servers, "licence endpoint"):
            return None
        return self._keep(self._servers, 0, how, *given, group)

    def track(
        self,
        activity_type: str,
        user_id: Optional[str] = None,
        user_id_type: str = "USERNAME",
        ip_addr: Optional[str] = None,
        meta: Optional[Mapping[Any, Any]] = None,
    ) -> Optional[str]:
        """Record one usage event for the usage endpoints, if there is consent.

        ``user_id=None`` takes the user identifier; ``user_id_type`` is one of EMAIL SOCIAL LINKEDIN GITHUB
        USERNAME; ``meta`` takes any mapping, encoded safely and capped at 16 KiB. The event id; None if it
        was not kept. Raises ``EventError``.
        """
        activity = content.name(activity_type, "activity_type")
        kind = content.user_id_type(user_id_type, user_id is not None)
        user, address = content.user_id(user_id), content.ip_addr(ip_addr)
        extra = content.meta(meta)
        if (user is None) > (user_id is None) or (address is None) > (ip_addr is None):
            return self._lost("unusable content")
        if self._ignored(self._collectors, "usage endpoint"):
            return None
        epoch = self._usage_epoch()
        if not epoch:
            return None
        more = {"user_id": user, "user_id_type": kind, "ip_addr": address, "meta": extra}
        return self._keep(self._collectors, epoch, "track", activity, **more)

    def count(self, activity_type: str, n: int = 1) -> None:
        """Add ``n`` to a usage counter, if there is consent; 0 counts nothing.

        Sums are kept per ``count_window_s`` and reach the disk within a second. Raises ``EventError``.
        """
        activity, n = content.name(activity_type, "activity_type"), content.count(n)
        if not n or self._ignored(self._collectors, "usage endpoint"):
            return
        self._worker.hook()
        if not self._usage_allowed():
            self._lost("no consent")
        elif self._counters.add(activity, n) or self._worker.manual:
            self._worker.wake(recorded=False)

    def _ignored(self, adapters: list[Any], what: str) -> bool:
        """Whether nothing may be recorded now; counted."""
        if inside and here() in inside:
            self._lost("inside our own request")  # by an instrumented host
        elif self._worker.closed:
            self._lost("closed")
        elif not adapters:
            self._lost("no " + what)
        else:
            return False
        return True

    def _keep(
        self, adapters: list[Any], epoch: int, how: str, *given: Any, **more: Any
    ) -> Optional[str]:
        """Keep what each adapter makes of this moment; the event id if one record survives the process."""
        self._worker.hook()
        licence, kept = ("", ""), False
        if adapters is not self._collectors:
            licence = self._licence.read()
        id, user = os.urandom(16).hex(), self._user or self._identify(store=True).value
        capture = Capture(id, self._clock.time(), user, *licence)
        for adapter in adapters:
            usage, kind = adapter.usage, "usage" if adapter.usage else "licence"
            try:
                body = getattr(adapter, how)(capture, *given, **more)
                record = Record(kind, adapter.name, id, capture.at, body, epoch=epoch * usage)
                place = self._spool.record(record, sync=not usage)
            except Exception as error:  # a defect of ours, or an interpreter that is taken apart
                self._lost("failed: " + type(error).__name__)
                continue
            if place != DISK:
                self._lost("quota" if place == FULL else "kept in memory only")
            self._counters.unsynced |= usage
            kept |= place == DISK
        self._worker.wake(recorded=True)
        if self._worker.closed:  # meanwhile, by another thread: nothing of ours stays open
            self._spool.seal()
        return id if kept else None

    def _lost(self, why: str) -> Optional[str]:
        """Count what was not recorded, or not durably."""
        self._spool.lost(why)
        return None

    def _report(self, count: int, id: str) -> Optional[Record]:
        """The record that tells a licence server how many a quota or an age limit took; None: nobody to tell."""
        for adapter in self._servers:
            user, now = self._identify(store=False).value, self._clock.time()
            capture = Capture(id, now, user, *self._licence.last)
            body = adapter.value(capture, str(count), "agent-dropped")
            return Record("licence", adapter.name, id, now, body)
        return None

    # -- identity, licence, consent ----

    @property
    def user_identifier(self) -> str:
        """32 hexadecimal digits, the same for this user of this product on this machine; "" if disabled."""
        return self._identify(store=True).value if self._config.endpoints else ""

    def _identity_names(self) -> dict[str, Any]:
        """What the identity is derived from, and where it is kept."""
        names = ("vendor", "product_name", "identity_name")
        given = {name: getattr(self._config, name) for name in names}
        system = identity.System(self._environ)
        return {"system": system, "state_dir": self._spool.directory, **given}

    def _identify(self, *, store: bool) -> identity.Identity:
        """Whose records these are. Who only looks stores nothing."""
        if self._identity is None or (store and not self._user):
            self._identity = identity.resolve(**self._identity_names(), store=store)
            self._user = self._identity.value if store or self._identity.stored else ""
        return self._identity

    def set_license(
        self, license_key: content.Given, activation_identifier: Optional[str] = None
    ) -> None:
        """Use another licence from the next record on; nothing already recorded changes."""
        self._licence = content.Licence(license_key, activation_identifier)

    def set_usage_consent(self, consent: Consent) -> None:
        """True, False, None (not asked) or a callable. False purges all usage before it returns."""
        if consent is not None and type(consent) is not bool and not callable(consent):
            raise mistake("consent", consent, "True, False, None or a callable", EventError)
        self._consent = consent
        if consent is False:
            self._refuse()
        elif self._collectors and not self._worker.closed:
            self._counters.begin(self._spool.consent.current())
            self._spool.news = object()  # what was captured earlier may wait for this
            self._worker.wake(recorded=True)

    def _refuse(self) -> None:
        if self._config.endpoints:
            self._worker.notice_fork()
            self._spool.refuse_usage()
            self._counters.discard()
            self._delivery.call_off_usage()

    @property
    def _do_not_track(self) -> bool:
        """Whether ``DO_NOT_TRACK`` stops usage in this process (consoledonottrack.com)."""
        return self._environ.get("DO_NOT_TRACK", "") not in ("", "0")

    @property
    def _usage_stopped(self) -> bool:
        """Whether no usage may be captured or sent now, whatever a callable would say."""
        given = callable(self._consent) or self._consent is True
        return not given or self._do_not_track or self._spool.consent.blocked

    def _usage_allowed(self) -> bool:
        """Whether usage may be captured now; asks a callable, on the caller's thread."""
        consent: Any = self._consent
        try:
            return not self._usage_stopped and (consent is True or consent() is True)
        except (Exception, SystemExit):
            return False

    def _usage_epoch(self) -> int:
        """The epoch that usage may be captured under now; 0, and counted, where it may not.

        Read before consent is asked: a refusal in between ends what is captured here.
        """
        mark = self._spool.consent
        epoch = mark.current() or (self._usage_allowed() and mark.ensure())
        if epoch and self._usage_allowed():
            self._counters.begin(epoch)
            return epoch
        self._lost("no consent")
        return 0

    def _gate(self, record: Record) -> bool:
        """Whether a record may be sent now: usage only under the consent that it was captured under."""
        if not record.usage:
            return True
        return 0 < self._spool.consent.current() == record.epoch and not self._usage_stopped

    # -- delivering ----

    def flush(self, timeout: float = 5.0) -> DeliveryReport:
        """Deliver now, waiting at most ``timeout`` seconds; what came of it.

        Open counting windows end. Skips the start-up delay and our own backoff, never a pause that the server
        asked for. In "manual" mode this is the one call that touches the network, on the calling thread.
        """
        return self._flush(_seconds("timeout", timeout), skip=("backoff",))

    def _flush(self, timeout_s: float, *, skip: tuple[str, ...]) -> DeliveryReport:
        """Deliver what waits; ``skip`` names the kinds of waiting to ignore."""
        self._worker.notice_fork()
        totals, told = self._delivery.totals, ("delivered", "flagged", "untrusted")
        before = dict(totals)
        try:
            if self._adapters:
                self._worker.flush(timeout_s, *skip)
        except Exception as error:  # no descriptor to load a module with, or a defect of ours
            self._spool.note("delivery", error)
        counts = {name: totals.get(name, 0) - before.get(name, 0) for name in told}
        found, lanes = self._spool.count(), self._delivery.lanes
        pending = {name: found["pending"].get(name, 0) for name in lanes}
        return DeliveryReport(
            pending=sum(pending.values()),
            held=sum(n for name, n in pending.items() if lanes[name].wait == "held"),
            dead=found["dead"],
            drained=not any(pending.values()),
            **counts,
        )

    def close(self, timeout: Optional[float] = None) -> None:
        """End everything within ``timeout`` seconds (None: ``exit_timeout_s``); what was recorded stays on disk.

        Begins no request. Afterwards recording calls give None. May be called again.
        """
        limit = self._config.exit_timeout_s if timeout is None else timeout
        self._worker.close(_seconds("timeout", limit))

    def __enter__(self) -> Agent:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    # -- looking ----

    def status(self) -> dict[str, Any]:
        """How things stand, JSON-ready: endpoints, spool, consent, what is wrong. Opens no socket."""
        return self._look("status")

    def preview(self, samples: bool = False) -> list[dict[str, Any]]:
        """The exact requests of the next delivery, secrets masked; opens no socket, changes nothing.

        Each has endpoint, purpose, method, url, headers, body, event_ids, sample. ``samples=True`` adds
        one request of each kind that this configuration can send.
        """
        found: Any = self._look("preview", samples=samples)
        return found if type(found) is list else []

    def history(self, limit: int = 100) -> list[dict[str, Any]]:
        """The last answers received, oldest first: at, endpoint, event_id, verdict, code, reason, errors."""
        if type(limit) is not int or limit < 0:
            raise mistake("limit", limit, "an int from 0 on", EventError)
        self._worker.notice_fork()
        return self._spool.history(limit)

    def diagnostics(self, network: bool = False) -> dict[str, Any]:
        """Everything a support desk asks for, JSON-ready and free of secrets.

        ``network=True`` also asks each endpoint with a made-up API key and no record, ``request_timeout_s`` at most:
        how it was reached, what it answered, who signed that, how far the clocks differ.
        """
        return self._look("diagnostics", network=network)

    def _look(self, what: str, **given: bool) -> dict[str, Any]:
        """What ``looking`` sees; else what is wrong: its files may be half an update's."""
        self._worker.notice_fork()
        try:
            from . import looking

            self._spool.note(what)
            found: dict[str, Any] = getattr(looking, what)(self, **given)
            return found
        except AgentError:
            raise
        except Exception as error:
            said = "%s: %s" % (what, in_words(error))
            self._spool.note(what, said)
            return {"trouble": {"spool": said}, "not_recorded": dict(self._spool.not_recorded)}

    def export_spool(self, path: Any, move: bool = False) -> int:
        """Write all that waits to a new file, to be imported elsewhere; how many records.

        ``move=True`` then removes them here. Raises ``OSError`` where the file cannot be written.
        """
        self._worker.notice_fork()
        return int(part("transfer", "export_spool").export(self, path, move=move))

    def import_spool(self, path: Any) -> int:
        """Add an exported file's records to the spool; how many, 0 if this file was imported before.

        Raises ``OSError`` or ``EventError`` (not an export, damaged, no room in the quota).
        """
        self._worker.notice_fork()
        return int(part("transfer", "import_spool").import_(self, path))


def _adapter(endpoint: Any, config: Config) -> Adapter:
    kind: Any = ReoAdapter if isinstance(endpoint, Reo) else GetKeyManagerAdapter
    made: Adapter = kind(endpoint, config)
    return made


def _is_child() -> bool:
    """Whether ``multiprocessing`` started this process, or is about to run the product's main module in it."""
    process: Any = sys.modules.get("multiprocessing.process")
    begins = process is not None and getattr(process.current_process(), "_inheriting", False)
    return begins or (process is not None and process.parent_process() is not None)


def _has(field: str, value: object, *methods: str) -> None:
    if value is not None and not all(callable(getattr(value, name, None)) for name in methods):
        allowed = "None or an object with " + ", ".join(name + "()" for name in methods)
        raise mistake(field, value, allowed)


def _seconds(field: str, value: Any) -> float:
    if type(value) is bool or not issubclass(type(value), (int, float)) or not value >= 0:
        raise mistake(field, value, "a number of seconds, at least 0", EventError)
    return float(min(value, 1e6))
