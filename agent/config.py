"""The vendor's settings as immutable values: ``Config`` and its endpoints ``GetKeyManager`` and ``Reo``.

Every field is checked at once: a mistake raises ``ConfigError`` that names the field, what came and what is allowed,
and never shows a secret. Nothing is opened, resolved or imported here; what a setting does is up to the floors above.
"""

from __future__ import annotations

from . import checks
from .errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Optional, TypeVar

    from .checks import Consent, Domain, Key, Keys, Path

    Self = TypeVar("Self", bound="_Value")


# Its type is what an error shows, its repr what ``help`` does.
_NOT_GIVEN: Any = type("nothing", (), {"__repr__": lambda self: "nothing"})()


class _Value:
    """Slots that are written once, compared by value, printed without secrets."""

    __slots__: tuple[str, ...] = ()

    def __new__(cls: type[Self], *args: object, **given: object) -> Self:
        defaults = cls.__init__.__kwdefaults__ or {}
        if args:
            raise ConfigError("%s takes keyword arguments only" % cls.__name__)
        for name in given:
            if name not in cls.__slots__:
                raise checks.unknown_name(cls.__name__, name, cls.__slots__)
        for name in cls.__slots__:
            if name not in given and name not in defaults:
                raise ConfigError("%s: %s is missing" % (cls.__name__, name), name)
        return super().__new__(cls)

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self, name):
            raise AttributeError("%s is immutable; use replace()" % type(self).__name__)
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError("%s is immutable" % type(self).__name__)

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    def replace(self: Self, **changes: Any) -> Self:
        """A copy with other values in the named fields, checked like a new one."""
        return type(self)(**{**self._fields(), **changes})

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash((type(self), *self._fields().values()))

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, Any]]:
        return (), self._fields()  # pickle and copy make a new one of these

    def __repr__(self) -> str:
        fields = ("%s=%s" % (name, _shown(name, value)) for name, value in self._fields().items())
        return "%s(%s)" % (type(self).__name__, ", ".join(fields))


class GetKeyManager(_Value):
    """The licence server at ``base_url``. ``keys``, or a ``Keyring``: what its answers must be signed with.

    Without keys ``allow_unsigned=True`` has to say so. ``data_group`` is that of ``call_home``. Records are kept
    under ``name``: leave it as it is through all versions of a product. ``pins``, "sha256/BASE64": of which public keys
    the server must show one, none or at least two. Raises ``ConfigError``.
    """

    __slots__ = ("base_url", "api_key", "data_group", "keys", "product_id", "name",
                 "allow_unsigned", "pins")  # fmt: skip

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        data_group: str = "call-home",
        keys: Iterable[Key] | Keys = (),
        product_id: Optional[str] = None,
        name: str = "getkeymanager",
        allow_unsigned: bool = False,
        pins: Iterable[str] = (),
    ) -> None:
        self.base_url = checks.base_url(base_url)
        self.api_key = checks.api_key(api_key)
        self.data_group = checks.text("data_group", data_group)
        self.keys = checks.keys(keys)
        self.product_id = checks.optional_text("product_id", product_id)
        self.name = checks.slug(name)
        if not isinstance(allow_unsigned, bool):
            raise checks.mistake("allow_unsigned", allow_unsigned, "True or False")
        self.allow_unsigned = allow_unsigned
        self.pins = checks.pins(pins, self.base_url)
        if not self.keys and not allow_unsigned:
            message = (
                "keys: none given, so no answer of this server could be proven; pass "
                "keys=(PublicKey.from_pem(PEM),) with the public key of your GetKeyManager account, "
                "or allow_unsigned=True to believe any answer"
            )
            raise ConfigError(message, "keys")


class Reo(_Value):
    """The usage collector, which gets records with the user's consent only. Raises ``ConfigError``.

    ``domain`` (a host name, or a callable that gives one) or ``ip_addr`` says whose usage aggregated events are; they
    wait until one of them is known. Records are kept under ``name``; ``pins`` as with ``GetKeyManager``.
    """

    __slots__ = ("api_key", "base_url", "product_id", "environment", "domain", "ip_addr", "name",
                 "pins")  # fmt: skip

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str = "https://ingest.reo.dev",
        product_id: Optional[str] = None,
        environment: Optional[str] = None,
        domain: Domain = None,
        ip_addr: Optional[str] = None,
        name: str = "reo",
        pins: Iterable[str] = (),
    ) -> None:
        self.api_key = checks.api_key(api_key)
        self.base_url = checks.base_url(base_url)
        self.product_id = checks.optional_text("product_id", product_id)
        self.environment = checks.optional_text("environment", environment)
        self.domain = checks.domain(domain)
        self.ip_addr = checks.ip_addr(ip_addr)
        self.name = checks.slug(name)
        self.pins = checks.pins(pins, self.base_url)


class Config(_Value):
    """Everything that the agent is told. Units are in the names; paths are kept absolute. Raises ``ConfigError``.

    ``vendor`` and ``product_name`` name the state directory and are part of the user identifier; ``product_id`` and
    ``product_version`` are sent. ``endpoints``: where records go; none switches the agent off. ``usage_consent``:
    True, False, None (not asked yet) or a callable; required with a ``Reo``. ``deliver``: "thread", "manual" (only
    ``flush`` sends) or "detached". ``durability``: "power", or "process", which survives a kill and no power cut.
    ``proxy`` and ``ca_bundle``: None for what the environment and the system have. ``proxy_auth``, "user:password", is
    for a proxy whose address names no user. ``replace`` gives a changed copy.
    """

    __slots__ = ("vendor", "product_name", "product_id", "product_version", "endpoints",
                 "usage_consent", "state_dir", "identity_name", "deliver", "detached_command",
                 "durability", "start_delay_s", "exit_timeout_s", "request_timeout_s",
                 "count_window_s", "max_age_days", "max_bytes", "max_records", "proxy",
                 "proxy_auth", "ca_bundle")  # fmt: skip

    def __init__(
        self,
        *,
        vendor: str,
        product_name: str,
        product_id: str,
        product_version: str,
        endpoints: Iterable[GetKeyManager | Reo] = (),
        usage_consent: Consent = _NOT_GIVEN,
        state_dir: Optional[Path] = None,
        identity_name: Optional[str] = None,
        deliver: str = "thread",
        detached_command: Iterable[str] = (),
        durability: str = "power",
        start_delay_s: float = 1.0,
        exit_timeout_s: float = 0.25,
        request_timeout_s: float = 10.0,
        count_window_s: float = 3600,
        max_age_days: float = 90,
        max_bytes: int = 10_000_000,
        max_records: int = 10_000,
        proxy: Optional[str] = None,
        proxy_auth: Optional[str] = None,
        ca_bundle: Optional[Path] = None,
    ) -> None:
        self.vendor = checks.text("vendor", vendor)
        self.product_name = checks.text("product_name", product_name)
        self.product_id = checks.text("product_id", product_id)
        self.product_version = checks.text("product_version", product_version)
        self.endpoints = _endpoints(endpoints)
        self.usage_consent = _consent(usage_consent, self.endpoints)
        self.state_dir = checks.absolute_path("state_dir", state_dir)
        self.identity_name = checks.optional_text("identity_name", identity_name)
        self.deliver = checks.choice("deliver", deliver, ("thread", "manual", "detached"))
        self.detached_command = checks.words(detached_command)
        self.durability = checks.choice("durability", durability, ("power", "process"))
        self.start_delay_s = checks.seconds("start_delay_s", start_delay_s)
        self.exit_timeout_s = checks.seconds("exit_timeout_s", exit_timeout_s)
        self.request_timeout_s = checks.seconds("request_timeout_s", request_timeout_s, zero=False)
        self.count_window_s = checks.seconds("count_window_s", count_window_s, zero=False)
        self.max_age_days: float = checks.number("max_age_days", max_age_days)
        self.max_bytes: int = checks.number("max_bytes", max_bytes, whole=checks.QUOTA_LEAST_BYTES)
        self.max_records: int = checks.number("max_records", max_records, whole=1)
        self.proxy = checks.proxy(proxy)
        self.proxy_auth = checks.proxy_auth(proxy_auth)
        self.ca_bundle = checks.absolute_path("ca_bundle", ca_bundle)


def _shown(name: str, value: object) -> str:
    if name == "api_key" or (name == "proxy_auth" and value is not None):
        return "'****'"
    if name == "proxy" and isinstance(value, str):
        return repr(checks.masked(value))
    if callable(value):
        return "<callable %s>" % getattr(value, "__qualname__", type(value).__name__)
    return repr(value)


def _endpoints(value: object) -> tuple[GetKeyManager | Reo, ...]:
    allowed = "a tuple of GetKeyManager and Reo, each of its own name"
    if not isinstance(value, (tuple, list)):
        raise checks.mistake("endpoints", value, allowed)
    names: list[str] = []
    for endpoint in value:
        if not isinstance(endpoint, (GetKeyManager, Reo)):
            raise checks.mistake("endpoints", endpoint, allowed)
        if endpoint.name in names:
            raise checks.mistake("endpoints", value, "%s, not two %r" % (allowed, endpoint.name))
        names.append(endpoint.name)
    return tuple(value)


def _consent(value: object, endpoints: tuple[GetKeyManager | Reo, ...]) -> Consent:
    if value is _NOT_GIVEN and not any(isinstance(endpoint, Reo) for endpoint in endpoints):
        return None
    if value is None or isinstance(value, bool) or callable(value):
        return value
    allowed = "True, False, None (not asked yet) or a callable; a usage endpoint needs one of them"
    raise checks.mistake("usage_consent", value, allowed)
