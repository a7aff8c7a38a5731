"""``Agent``: what a product holds. It checks arguments, hands on to the engine, and never shows the network.

Mistakes (a wrong type, an unknown name, a missing argument) raise ``EventError`` or ``ConfigError`` at once. A full
disk, a dead network, a hostile server or odd content never raise into the host.
"""

from __future__ import annotations

from . import events
from .checks import is_a, mistake
from .config import Config
from .engine import Engine
from .errors import ConfigError, EventError
from .licensing import Licence
from .outcomes import DeliveryReport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Any, Optional, Union

    from .licensing import Given
    from .outcomes import Outcome
    from .transport.values import Transport

    Consent = Union[None, bool, Callable[[], object]]


class Agent:
    """Calls home, keeps what could not be sent, believes only signed answers.

    ``license_key`` is None, a text, a pair (key, activation identifier) or a callable that gives one, called
    once per record on the recording thread. ``on_outcome(outcome)`` hears how each record ended, on the
    delivering thread. ``clock`` (``time()``, ``monotonic()``), ``transport`` and ``environ`` replace the
    system's. Raises ``ConfigError`` or ``EventError`` for arguments of a wrong type, nothing else.
    """

    def __init__(
        self,
        config: Config,
        license_key: Given = None,
        activation_identifier: Optional[str] = None,
        on_outcome: Optional[Callable[[Outcome], None]] = None,
        clock: Optional[Any] = None,
        transport: Optional[Transport] = None,
        environ: Optional[Mapping[str, str]] = None,
    ) -> None:
        if not isinstance(config, Config):
            raise ConfigError(
                "config: got %s, allowed is a Config" % type(config).__name__, "config"
            )
        if on_outcome is not None and not callable(on_outcome):
            raise ConfigError("on_outcome: must be callable", "on_outcome")
        _has("clock", clock, ("time", "monotonic"))
        _has("transport", transport, ("send",))
        _has("environ", environ, ("get",))
        self._licence = Licence(license_key, activation_identifier)
        self._engine = Engine(
            config, on_outcome=on_outcome, clock=clock, transport=transport, environ=environ
        )

    # -- recording -------------------------------------------------------------------------------

    def call_home(self) -> Optional[str]:
        """Record one call home per endpoint, under one event id.

        To a licence server the text "CALL HOME" in the endpoint's data group, whatever the activation state;
        to a usage endpoint, with consent, the activity "CALL HOME". The event id, or None if nothing was
        kept so that it survives the process.
        """
        engine = self._engine
        if engine.closed:
            self._lost("closed")
        if engine.closed or not engine.adapters:
            return None
        source = engine.capture(self._licence.read())
        kept = False
        for adapter in engine.licence_adapters:
            kept |= engine.put("licence", adapter.name, source, adapter.call_home(source))
        epoch = engine.usage_epoch() if engine.usage_adapters else None
        if epoch is not None:
            for reo in engine.usage_adapters:
                body = reo.call_home(source)
                kept |= engine.put("usage", reo.name, source, body, epoch=epoch)
        elif engine.usage_adapters:
            self._lost("no consent")
        engine.wake()
        return source.event_id if kept else None

    def record_value(self, value: Any, *, data_group: str) -> Optional[str]:
        """Record one number under ``data_group`` for the licence servers (``numeric-single-value``).

        The event id; None if it was not kept, as for NaN. Raises ``EventError``.
        """
        return self._record_numbers({"value": value}, data_group)

    def record_point(self, x: Any, y: Any, *, data_group: str) -> Optional[str]:
        """Record two numbers that belong together (``numeric-xy-axis``); otherwise as ``record_value``."""
        return self._record_numbers({"x": x, "y": y}, data_group)

    def record_text(self, text: str, *, data_group: str) -> Optional[str]:
        """Record a text, cut at 32,768 characters (``text``); otherwise as ``record_value``."""
        content, group = events.text(text), events.name(data_group, "data_group")
        return self._record("text", [content], group)

    def _record_numbers(self, given: dict[str, Any], data_group: str) -> Optional[str]:
        numbers = [events.number(value, field) for field, value in given.items()]
        group = events.name(data_group, "data_group")
        whole = [number for number in numbers if number is not None]
        if len(whole) < len(numbers):
            self._lost("not a finite number")
            return None
        return self._record("point" if len(whole) == 2 else "value", whole, group)

    def _record(self, how: str, content: list[str], group: str) -> Optional[str]:
        engine = self._engine
        if engine.closed or not engine.licence_adapters:
            self._lost("closed" if engine.closed else "no licence endpoint")
            return None
        source = engine.capture(self._licence.read())
        kept = False
        for adapter in engine.licence_adapters:
            body = getattr(adapter, how)(source, *content, group)
            kept |= engine.put("licence", adapter.name, source, body)
        engine.wake()
        return source.event_id if kept else None

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
        activity = events.name(activity_type, "activity_type")
        user = None if user_id is None else events.user_id(user_id)
        kind, address, extra = (
            events.user_id_type(user_id_type),
            events.ip_addr(ip_addr),
            events.meta(meta),
        )
        engine = self._engine
        if not self._usable():
            return None
        epoch = engine.usage_epoch()
        if epoch is None:
            self._lost("no consent")
            return None
        source = engine.capture(("", ""))
        kept = False
        for reo in engine.usage_adapters:
            body = reo.track(
                source,
                activity,
                user_id=user or source.user_identifier,
                user_id_type=kind,
                ip_addr=address,
                meta=extra,
            )
            kept |= engine.put("usage", reo.name, source, body, epoch=epoch)
        engine.wake()
        return source.event_id if kept else None

    def count(self, activity_type: str, n: int = 1) -> None:
        """Add ``n`` (at least 1) to a usage counter, if there is consent.

        Sums are kept per ``count_window_s`` and reach the disk within a second. Raises ``EventError``.
        """
        activity, n = events.name(activity_type, "activity_type"), events.count(n)
        if not self._usable():
            return
        if self._engine.usage_allowed():
            self._engine.count(activity, n)
        else:
            self._lost("no consent")

    def _usable(self) -> bool:
        engine = self._engine
        if engine.closed or not engine.usage_adapters:
            self._lost("closed" if engine.closed else "no usage endpoint")
            return False
        return True

    def _lost(self, why: str) -> None:
        self._engine.count_lost(why)

    # -- licence and consent ---------------------------------------------------------------------

    def set_license(self, license_key: Given, activation_identifier: Optional[str] = None) -> None:
        """Use another licence from the next record on; nothing already recorded changes."""
        self._licence = Licence(license_key, activation_identifier)

    def set_usage_consent(self, consent: Consent) -> None:
        """True, False, None (not asked) or a callable. False purges all usage before it returns."""
        if consent is not None and type(consent) is not bool and not callable(consent):
            raise mistake("consent", consent, "True, False, None or a callable", EventError)
        self._engine.set_consent(consent)

    # -- delivering ------------------------------------------------------------------------------

    def flush(self, timeout: float = 5.0) -> DeliveryReport:
        """Deliver now, waiting at most ``timeout`` seconds; what came of it.

        Open counting windows end. Skips the start-up delay and our own backoff, never a pause that the server
        asked for. In "manual" mode this is the one call that touches the network, on the calling thread.
        """
        timeout_s = _seconds("timeout", timeout)
        try:
            from . import flushing
        except (ImportError, OSError):  # no descriptor is left to load it with
            counts = dict.fromkeys(DeliveryReport.__slots__, 0)
            counts["pending"] = len(self._engine.spool.memory)
            return DeliveryReport(**{**counts, "drained": False})
        return flushing.flush(self._engine, timeout_s)

    def close(self, timeout: Optional[float] = None) -> None:
        """End everything within ``timeout`` seconds (None: ``exit_timeout_s``); what was recorded stays on disk.

        Begins no request. Afterwards recording calls give None. May be called again.
        """
        limit_s = self._engine.config.exit_timeout_s
        self._engine.close(limit_s if timeout is None else _seconds("timeout", timeout))

    def __enter__(self) -> Agent:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    # -- looking ---------------------------------------------------------------------------------

    @property
    def user_identifier(self) -> str:
        """32 hexadecimal digits, the same for this user of this product on this machine; "" if disabled."""
        return self._engine.identity.value if self._engine.config.endpoints else ""

    def status(self) -> dict[str, Any]:
        """How things stand, JSON-ready: endpoints, spool, consent, what is wrong. Opens no socket."""
        try:
            from . import insight
        except (ImportError, OSError) as error:  # no descriptor is left to load it with
            return self._engine.outline(str(error))
        return insight.status(self._engine, self._licence)

    def preview(self, samples: bool = False) -> list[dict[str, Any]]:
        """The exact requests of the next delivery, secrets masked; opens no socket, changes nothing.

        Each has endpoint, purpose, method, url, headers, body, event_ids, sample. ``samples=True`` adds
        one request of each kind that this configuration can send.
        """
        from . import insight

        return insight.preview(self._engine, self._licence, samples=samples)

    def history(self, limit: int = 100) -> list[dict[str, Any]]:
        """The last answers received, oldest first: at, endpoint, event_id, verdict, code, reason, errors."""
        if type(limit) is bool or not is_a(limit, int) or limit < 0:
            raise mistake("limit", limit, "an int from 0 on", EventError)
        self._engine.courier.teller.write()  # of a pass that is not over
        return self._engine.spool.history.last(limit)

    def diagnostics(self, network: bool = False) -> dict[str, Any]:
        """Everything a support desk asks for, JSON-ready and free of secrets.

        ``network=True`` also asks each endpoint, with a made-up API key and no record: how it was reached, what it
        answered, who signed that, how far the clocks differ. Takes up to ``request_timeout_s`` for each.
        """
        from . import insight

        return insight.diagnostics(self._engine, self._licence, network=network)

    def export_spool(self, path: Any, move: bool = False) -> int:
        """Write all that waits to a new file, to be imported elsewhere; how many records.

        ``move=True`` then removes them here. Raises ``OSError`` where the file cannot be written.
        """
        from . import flushing

        return flushing.export(self._engine, path, move=move)

    def import_spool(self, path: Any) -> int:
        """Add an exported file's records to the spool; how many, 0 if this file was imported before.

        Raises ``OSError`` or ``EventError`` (not an export, damaged, no room in the quota).
        """
        from . import flushing

        return flushing.import_(self._engine, path)


def _has(field: str, value: object, methods: tuple[str, ...]) -> None:
    if value is not None and not all(callable(getattr(value, name, None)) for name in methods):
        allowed = "None or an object with " + ", ".join(name + "()" for name in methods)
        raise ConfigError(
            "%s: got %s, allowed is %s" % (field, type(value).__name__, allowed), field
        )


def _seconds(field: str, value: Any) -> float:
    number = type(value) is not bool and (is_a(value, int) or is_a(value, float))
    if not number or not value >= 0:
        raise mistake(field, value, "a number of seconds, at least 0", EventError)
    return float(min(value, 1e6))
