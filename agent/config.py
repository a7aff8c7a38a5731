"""The vendor's settings as immutable values: ``Config`` and its endpoints ``GetKeyManager`` and ``Reo``.

Each is a table, one line per setting: its type, its kind (a check, and what is allowed), its default. A mistake raises
``ConfigError``, which names the field and shows no secret. Of addresses only what every HTTP library reads alike is
accepted. Nothing is opened or resolved.
"""

from __future__ import annotations

import os
import sys

from .errors import SECRETS, TYPE_CHECKING, ConfigError, Missing, mistake, part

if TYPE_CHECKING:
    from typing import Any, Callable, ClassVar, Iterable

    from typing_extensions import Self, dataclass_transform

    Kind = tuple[Callable[[Any], object], str]

# Windows waits for 4,294,967 s at most; beyond 2^53 JSON numbers are not exact everywhere.
_WAIT_MAX_S, _INT_MAX = 4_000_000, 2**53
_HOST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")
# RFC 3986, 3.2.1 and 3.3: unreserved, sub-delims, "%", ":"; in a path also "@" and "/".
_USERINFO = _HOST | frozenset("~!$&'()*+,;=:%")
_PATH = _USERINFO | frozenset("@/")
_ASCII = frozenset(map(chr, range(0x21, 0x7F)))


# -- checks: what is kept of a value; None, or any exception, where it is of another kind ----


def is_host(text: str) -> bool:
    """Whether ``text`` looks like a host name or an IPv4 address, of at most 255 octets on the wire (RFC 1035)."""
    labels = (text[:-1] if text.endswith(".") else text).split(".")
    fit = [0 < len(one) < 64 and one[0] != "-" and _HOST.issuperset(one) for one in labels]
    return len(text) <= 253 and all(fit)


def is_ip(text: str) -> bool:
    """Whether ``text`` is an IP address without a zone."""
    if ":" not in text:
        return text.count(".") == 3 and set(map(str, range(256))).issuperset(text.split("."))
    import ipaddress

    try:
        return "%" not in text and bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def _text(allowed: str, fits: Callable[[str], object]) -> Kind:
    """A kind of texts; of a subclass an exact ``str`` is kept."""

    def check(value: Any) -> str | None:
        text = str.__str__(value)
        return text if text and fits(text) else None

    return check, allowed


def _one_of(*words: str) -> Kind:
    return _text(" or ".join(map(repr, words)), words.__contains__)


def _is_line(text: str) -> bool:
    return bool(text.strip()) and len(text) <= 1024 and text.isprintable()


def _number(least: float, most: int, kind: type[float] = float) -> Kind:
    def check(value: Any) -> float | None:
        return kind(value) if type(value) in (int, kind) and least <= value <= most else None

    return check, "%s from %s to %d" % ("an int" if kind is int else "a number", least, most)


def _flag(value: Any) -> object:
    return value if type(value) is bool else None


def _or_call(check: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda value: value if callable(value) else check(value)


def _path(value: Any) -> str | None:
    """Absolute: the host may change its working directory."""
    path = os.path.expanduser(str.__str__(os.fspath(value)))
    return os.path.abspath(path) if path and "\0" not in path else None


def _items(value: Any) -> Any:
    return tuple(value) if issubclass(type(value), (tuple, list)) else None


def _words(value: Any) -> object:
    words = tuple(os.fspath(word) for word in _items(value))
    return words if all(type(word) is str and word and "\0" not in word for word in words) else None


def _keys(value: Any) -> object:
    """Keys, or a keyring. Those of another copy of this package would raise errors of that copy."""
    ring = hasattr(value, "trusted")
    found = _items(value.keys if ring else value)
    own = all(type(key).__module__.startswith("%s.signatures" % __package__) for key in found)
    return (value if ring else found) if own else None


def _endpoints(value: Any) -> object:
    found = _items(value)
    names = {one.name for one in found if type(one) in (GetKeyManager, Reo)}
    return found if len(names) == len(found) else None


def _parts(value: Any) -> tuple[str, str, str, str]:
    """Scheme, user info, host with its port, path of an absolute address; raises ``ValueError``."""
    scheme, _, rest = str.__str__(value).partition("://")
    authority, slash, path = rest.partition("/")
    userinfo, at, place = authority.rpartition("@")
    ends = place.rfind("]") + 1 if place[:1] == "[" else (place + ":").index(":")
    host, port = place[:ends].lower(), place[ends:]
    if not (
        (scheme.isascii() and scheme.isalnum())
        and (bool(at) == bool(userinfo) and _USERINFO.issuperset(userinfo))
        and (":" in host and is_ip(host[1:-1]) if host[:1] == "[" else is_host(host))
        and (not port or (port == ":%d" % int(port[1:]) and 0 < int(port[1:]) < 65536))
        and (_PATH.issuperset(path) and ".." not in path.split("/"))
    ):
        raise ValueError
    return scheme.lower(), userinfo, host + port, (slash + path).rstrip("/")


def _https(value: Any) -> str | None:
    """Without its trailing slash; plain http to this machine alone, which 127.1 may not mean."""
    scheme, userinfo, place, path = _parts(value)
    host = place[:5] if place[:1] == "[" else place.partition(":")[0]
    here = host in ("localhost", "[::1]") or (host.startswith("127.") and is_ip(host))
    safe = not userinfo and (scheme == "https" or (scheme == "http" and here))
    return "%s://%s%s" % (scheme, place, path) if safe else None


def _proxy(value: Any) -> str | None:
    scheme, _, _, path = _parts(value) if value != "direct" else ("http", "", "", "")
    fits = scheme in ("http", "https", "socks5", "socks5h") and not path
    return str.__str__(value) if fits else None


_LINE = _text("a non-empty, printable str of at most 1024 characters", _is_line)
_KEY = _text("printable ASCII without spaces", _ASCII.issuperset)
_WAIT, _SPAN = _number(0, _WAIT_MAX_S), _number(0.001, _WAIT_MAX_S)
_PLACE = _path, "a non-empty str, or os.PathLike"
HTTPS = _https, "https://HOST[:PORT][/PREFIX], or http:// for this machine; without user and query"
_PROXY = _proxy, 'None, "direct" or (http|https|socks5|socks5h)://[USER:PASSWORD@]HOST[:PORT]'
_KEYS = _keys, "a tuple of PublicKey (of this very package; see PublicKey.from_pem) or a Keyring"
_ENDPOINTS = _endpoints, "a tuple of GetKeyManager and Reo, each of its own name"
_CONSENT = _or_call(_flag), "True, False, None (not asked yet) or a callable"
_DOMAIN = _or_call(_text("", is_host)[0]), "a domain name, a callable that gives one, or None"
_COMMAND = _words, "a tuple of non-empty str, or os.PathLike"
_LOGIN = _text("None or USER:PASSWORD", lambda text: _is_line(text) and text.find(":") > 0)


# -- tables ----


def setting(kind: Kind, **default: Any) -> Any:
    """One line of a table, required without ``default``; None is allowed where it is the default."""
    return (*kind, default)


class _Signature:
    """What a table takes, told to ``inspect``: it alone asks, so it is loaded."""

    def __get__(self, _: object, table: type[Settings]) -> Any:
        inspect: Any = sys.modules["inspect"]
        make, kind = inspect.Parameter, inspect.Parameter.KEYWORD_ONLY
        told = [make(name, kind, **one[2]) for name, one in table.fields.items()]
        return inspect.Signature(told)


if TYPE_CHECKING:

    @dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(setting,))
    class Table:
        """To a type checker the tables are made like data classes."""

else:
    Table = object


class Settings(Table):
    """Checked values that never change; compared by value, shown without secrets."""

    fields: ClassVar[dict[str, Any]]  # name -> (check, what is allowed, {"default": ...} or {})
    __signature__ = _Signature()

    def __init_subclass__(cls) -> None:
        lines = vars(cls).items()
        cls.fields = {name: one for name, one in lines if type(one) is tuple and name[0] != "_"}

    def __init__(self, **given: Any) -> None:
        for name in given:
            if name not in self.fields:
                raise unknown_name(type(self).__name__, name, self.fields)
        for name, (check, allowed, default) in self.fields.items():
            if not default and name not in given:
                raise ConfigError("%s: %s is missing" % (type(self).__name__, name), name)
            value = given.get(name, default.get("default"))
            omitted = value is None and None in default.values()
            self.__dict__[name] = None if omitted else kept(name, value, check, allowed)
        self._agree(given)

    def _agree(self, given: dict[str, Any]) -> None:
        """Check what concerns several settings."""

    def replace(self, **changes: Any) -> Self:
        """A copy with other values in the named fields, checked like a new one."""
        return type(self)(**{**vars(self), **changes})

    def __setattr__(self, name: str, value: object = None) -> None:
        raise AttributeError("%s is immutable; use replace()" % type(self).__name__)

    __delattr__ = __setattr__

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __repr__(self) -> str:
        hidden = {name: "****" for name in SECRETS if vars(self).get(name)}
        shown = ["%s=%r" % one for one in {**vars(self), **hidden}.items()]
        return "%s(%s)" % (type(self).__name__, ", ".join(shown))


def kept(field: str, value: object, check: Callable[[Any], object], allowed: str) -> Any:
    """What is kept of a value; raises ``ConfigError``."""
    if type(value) is Missing:
        part(value.home, value.name)
    try:
        found = check(value)
    except Exception:  # it is something else, or does not let itself be asked
        found = None
    if found is None:
        raise mistake(field, value, allowed)
    return found


def unknown_name(owner: str, name: str, allowed: Iterable[str]) -> ConfigError:
    """The error for a setting that ``owner`` has not, with the one that was probably meant."""
    from difflib import get_close_matches

    closest = "".join(get_close_matches(name[:60], list(allowed), 1, 0.0))
    return ConfigError("%s: unknown name %r; did you mean %r?" % (owner, name[:60], closest), name)


class GetKeyManager(Settings):
    """The licence server at ``base_url``. ``keys``, or a ``Keyring``: what its answers must be signed with.

    Without keys ``allow_unsigned=True`` has to say so. ``data_group`` is that of ``call_home``. Records are kept
    under ``name``: leave it as it is through all versions of a product. Raises ``ConfigError``.
    """

    base_url: str = setting(HTTPS)
    api_key: str = setting(_KEY)
    data_group: str = setting(_LINE, default="call-home")
    keys: Any = setting(_KEYS, default=())
    product_id: str | None = setting(_LINE, default=None)
    name: str = setting(_LINE, default="getkeymanager")
    allow_unsigned: bool = setting((_flag, "True or False"), default=False)

    def _agree(self, given: dict[str, Any]) -> None:
        _ends_before("/api/v1", self.base_url)
        if not (self.keys or self.allow_unsigned):
            hint = "pass keys=(PublicKey.from_pem(PEM),), or allow_unsigned=True for any answer"
            raise ConfigError("keys: none given, so no answer could be proven; " + hint, "keys")


class Reo(Settings):
    """The usage collector, which gets records with the user's consent only. Raises ``ConfigError``.

    ``domain`` (a host name, or a callable that gives one) or ``ip_addr`` says whose usage aggregated events are; they
    wait until one of them is known. ``source`` is what single events say of themselves: "PRODUCT_CLOUD", or
    "TELEMETRY", and then they carry the domain where it is known. Records are kept under ``name``.
    """

    api_key: str = setting(_KEY)
    base_url: str = setting(HTTPS, default="https://ingest.reo.dev")
    product_id: str | None = setting(_LINE, default=None)
    environment: str | None = setting(_LINE, default=None)
    source: str = setting(_one_of("PRODUCT_CLOUD", "TELEMETRY"), default="PRODUCT_CLOUD")
    domain: str | Callable[[], object] | None = setting(_DOMAIN, default=None)
    ip_addr: str | None = setting(_text("None or an IP address", is_ip), default=None)
    name: str = setting(_LINE, default="reo")

    def _agree(self, given: dict[str, Any]) -> None:
        _ends_before("/api/product", self.base_url)


def _ends_before(own: str, base_url: str) -> None:
    """The address in an API's documents is the likeliest paste; its ``own`` path is added to this one."""
    before, found, _ = (base_url + "/").partition(own + "/")
    if found:
        raise ConfigError("base_url: leave out %s, allowed is %s" % (own, before), "base_url")


class Config(Settings):
    """Everything that the agent is told. Units are in the names; paths are kept absolute. Raises ``ConfigError``.

    ``vendor`` and ``product_name`` name the state directory and are part of the user identifier; ``product_id`` and
    ``product_version`` are sent. ``endpoints``: where records go; none switches the agent off. ``usage_consent``:
    True, False, None (not asked yet) or a callable; required with a ``Reo``. ``deliver``: "thread", "manual" (only
    ``flush`` sends) or "detached". ``durability``: "power", or "process", which survives a kill and no power cut.
    ``proxy`` and ``ca_bundle``: None for what the environment and the system have. ``proxy_auth``, "user:password", is
    for a proxy whose address names no user. ``replace`` gives a changed copy.
    """

    vendor: str = setting(_LINE)
    product_name: str = setting(_LINE)
    product_id: str = setting(_LINE)
    product_version: str = setting(_LINE)
    endpoints: tuple[GetKeyManager | Reo, ...] = setting(_ENDPOINTS, default=())
    usage_consent: bool | Callable[[], object] | None = setting(_CONSENT, default=None)
    state_dir: str | os.PathLike[str] | None = setting(_PLACE, default=None)
    identity_name: str | None = setting(_LINE, default=None)
    deliver: str = setting(_one_of("thread", "manual", "detached"), default="thread")
    detached_command: tuple[str, ...] = setting(_COMMAND, default=())
    durability: str = setting(_one_of("power", "process"), default="power")
    start_delay_s: float = setting(_WAIT, default=1.0)
    exit_timeout_s: float = setting(_WAIT, default=0.25)
    request_timeout_s: float = setting(_SPAN, default=10.0)
    count_window_s: float = setting(_SPAN, default=3600)
    max_age_days: float = setting(_SPAN, default=90)
    # Ten calls home; 500,000 hold any text, in alphabets that take 12 bytes a character too.
    max_bytes: int = setting(_number(4_096, _INT_MAX, int), default=10_000_000)
    max_records: int = setting(_number(1, _INT_MAX, int), default=10_000)
    proxy: str | None = setting(_PROXY, default=None)
    proxy_auth: str | None = setting(_LOGIN, default=None)
    ca_bundle: str | os.PathLike[str] | None = setting(_PLACE, default=None)

    def _agree(self, given: dict[str, Any]) -> None:
        if "usage_consent" not in given and any(type(one) is Reo for one in self.endpoints):
            raise ConfigError("usage_consent: missing, allowed is " + _CONSENT[1], "usage_consent")
        if self.deliver == "detached":
            part("detached", 'deliver="detached"')
        if self.proxy is not None and self.proxy.startswith("socks"):
            try:
                __import__("socks")
            except ImportError:
                message = "proxy: SOCKS needs the library PySocks, which cannot be imported"
                raise ConfigError(message, "proxy") from None
