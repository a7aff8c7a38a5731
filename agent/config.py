"""The vendor's settings as immutable values: ``Config`` and its endpoints ``GetKeyManager`` and ``Reo``.

Every field is checked at once: a mistake raises ``ConfigError`` that names the field, what came and what is allowed,
and never shows a secret. Of addresses only what every HTTP library reads alike is accepted, so nothing here can be
taken for one host and connected to another. Nothing is opened or resolved; what a setting does is up to other floors.
"""

from __future__ import annotations

import os

from .errors import ConfigError, Missing, is_a, mistake, part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Optional, TypeVar, Union

    Consent = Union[bool, None, Callable[[], object]]
    Domain = Union[str, None, Callable[[], object]]
    Path = Union[str, os.PathLike[str]]
    Self = TypeVar("Self", bound="_Value")

# Waits of threading are limited to 4,294,967 s on Windows; beyond 2^53 JSON numbers are not exact everywhere.
_WAIT_MAX_S, _INT_MAX = 4_000_000, 2**53
# Ten calls home. A text of 32,768 ASCII characters needs 40,000; in other alphabets a character takes up to 12 bytes:
# 500,000 hold any text.
_QUOTA_MIN_BYTES = 4_096
# What is put behind a base_url, and so is the likeliest wrong paste.
_OWN_PATHS = "/api/v1 /api/v1/send-telemetry-data /api/product /api/product/usage /api/product/aggregateusage".split()
_HOST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")
# RFC 3986, 3.2.1 and 3.3: unreserved, sub-delims, "%", ":"; in a path also "@" and "/".
_USERINFO = _HOST | frozenset("~!$&'()*+,;=:%")
_PATH = _USERINFO | frozenset("@/")
# Its type is what an error shows, its repr what ``help`` does.
_NOT_GIVEN: Any = type("nothing", (), {"__repr__": lambda self: "nothing"})()


class _Value:
    """Slots that are written once, compared by value, printed without secrets, pickled by name."""

    __slots__: tuple[str, ...] = ()

    def __new__(cls: type[Self], *args: object, **given: object) -> Self:
        if args:
            raise ConfigError("%s takes keyword arguments only" % cls.__name__)
        for name in given:
            if name not in cls.__slots__:
                raise unknown_name(cls.__name__, name, cls.__slots__)
        for name in cls.__slots__:
            if name not in given and name not in (cls.__init__.__kwdefaults__ or {}):
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
    under ``name``: leave it as it is through all versions of a product. Raises ``ConfigError``.
    """

    __slots__ = tuple("base_url api_key data_group keys product_id name allow_unsigned".split())

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str,
        data_group: str = "call-home",
        keys: Any = (),
        product_id: Optional[str] = None,
        name: str = "getkeymanager",
        allow_unsigned: bool = False,
    ) -> None:
        self.base_url = _base_url(base_url)
        self.api_key = _text("api_key", api_key, _KEY)
        self.data_group = _text("data_group", data_group)
        self.keys = _keys(keys)
        self.product_id = _optional("product_id", product_id)
        self.name = _text("name", name, _SLUG)
        self.allow_unsigned = allow_unsigned
        if type(allow_unsigned) is not bool:
            raise mistake("allow_unsigned", allow_unsigned, "True or False")
        if not self.keys and not allow_unsigned:
            message = "keys: none given, so no answer could be proven; pass keys=(PublicKey.from_pem(PEM),) with the"
            message += " public key of your GetKeyManager account, or allow_unsigned=True to believe any answer"
            raise ConfigError(message, "keys")


class Reo(_Value):
    """The usage collector, which gets records with the user's consent only. Raises ``ConfigError``.

    ``domain`` (a host name, or a callable that gives one) or ``ip_addr`` says whose usage aggregated events are; they
    wait until one of them is known. ``source`` is what single events say of themselves: "PRODUCT_CLOUD", or
    "TELEMETRY", and then they carry the domain where it is known. Records are kept under ``name``.
    """

    __slots__ = tuple("api_key base_url product_id environment source domain ip_addr name".split())

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str = "https://ingest.reo.dev",
        product_id: Optional[str] = None,
        environment: Optional[str] = None,
        source: str = "PRODUCT_CLOUD",
        domain: Domain = None,
        ip_addr: Optional[str] = None,
        name: str = "reo",
    ) -> None:
        self.api_key = _text("api_key", api_key, _KEY)
        self.base_url = _base_url(base_url)
        self.product_id = _optional("product_id", product_id)
        self.environment = _optional("environment", environment)
        self.source = _choice("source", source, "PRODUCT_CLOUD", "TELEMETRY")
        self.domain = _domain(domain)
        self.ip_addr = _optional("ip_addr", ip_addr, ("None or an IP address", is_ip))
        self.name = _text("name", name, _SLUG)


class Config(_Value):
    """Everything that the agent is told. Units are in the names; paths are kept absolute. Raises ``ConfigError``.

    ``vendor`` and ``product_name`` name the state directory and are part of the user identifier; ``product_id`` and
    ``product_version`` are sent. ``endpoints``: where records go; none switches the agent off. ``usage_consent``:
    True, False, None (not asked yet) or a callable; required with a ``Reo``. ``deliver``: "thread", "manual" (only
    ``flush`` sends) or "detached". ``durability``: "power", or "process", which survives a kill and no power cut.
    ``proxy`` and ``ca_bundle``: None for what the environment and the system have. ``proxy_auth``, "user:password", is
    for a proxy whose address names no user. ``replace`` gives a changed copy.
    """

    __slots__ = tuple(
        "vendor product_name product_id product_version endpoints usage_consent state_dir identity_name deliver"
        " detached_command durability start_delay_s exit_timeout_s request_timeout_s count_window_s max_age_days"
        " max_bytes max_records proxy proxy_auth ca_bundle".split()
    )

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
        self.vendor = _text("vendor", vendor)
        self.product_name = _text("product_name", product_name)
        self.product_id = _text("product_id", product_id)
        self.product_version = _text("product_version", product_version)
        self.endpoints = _endpoints(endpoints)
        self.usage_consent = _consent(usage_consent, self.endpoints)
        self.state_dir = _path("state_dir", state_dir)
        self.identity_name = _optional("identity_name", identity_name)
        self.deliver = _choice("deliver", deliver, "thread", "manual", "detached")
        words = _items("detached_command", detached_command, "a tuple of non-empty str")
        self.detached_command = tuple(_text("detached_command", word, _WORD) for word in words)
        self.durability = _choice("durability", durability, "power", "process")
        self.start_delay_s = float(_number("start_delay_s", start_delay_s, 0))
        self.exit_timeout_s = float(_number("exit_timeout_s", exit_timeout_s, 0))
        self.request_timeout_s = float(_number("request_timeout_s", request_timeout_s))
        self.count_window_s = float(_number("count_window_s", count_window_s))
        self.max_age_days: float = _number("max_age_days", max_age_days)
        self.max_bytes: int = _number("max_bytes", max_bytes, _QUOTA_MIN_BYTES, _INT_MAX)
        self.max_records: int = _number("max_records", max_records, 1, _INT_MAX)
        self.proxy = _proxy(proxy)
        login = ("None or USER:PASSWORD", lambda text: text.find(":") > 0 and text.isprintable())
        self.proxy_auth = _optional("proxy_auth", proxy_auth, login)
        self.ca_bundle = _path("ca_bundle", ca_bundle)
        if deliver == "detached":
            part("detached", 'deliver="detached"')


def unknown_name(owner: str, name: str, allowed: Iterable[str]) -> ConfigError:
    """The error for a setting that ``owner`` has not; it names the one that was probably meant."""
    from difflib import get_close_matches

    closest = "".join(get_close_matches(name[:60], list(allowed), 1, 0.0))
    return ConfigError("%s: unknown name %r; did you mean %r?" % (owner, name[:60], closest), name)


def _shown(name: str, value: Any) -> str:
    secret = name in ("api_key", "proxy_auth") or (name == "proxy" and "@" in (value or ""))
    if secret and value is not None:
        return "'****'"
    if callable(value):
        return "<callable %s>" % getattr(value, "__qualname__", type(value).__name__)
    return repr(value)


# -- one check per kind of setting: the value as it is kept, or ConfigError ----------------------------------


def is_host(text: str) -> bool:
    """Whether ``text`` looks like a host name or an IPv4 address, of at most 255 octets on the wire (RFC 1035)."""
    labels = (text[:-1] if text.endswith(".") else text).split(".")
    return len(text) <= 253 and all(
        0 < len(label) < 64 and label[0] != "-" and _HOST.issuperset(label) for label in labels
    )


def is_ip(text: str) -> bool:
    """Whether ``text`` is an IP address without a zone."""
    if ":" not in text:
        return text.count(".") == 3 and set(map(str, range(256))).issuperset(text.split("."))
    import ipaddress

    try:
        return "%" not in text and bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def _is_line(text: str) -> bool:
    return bool(text.strip()) and len(text) <= 1024 and text.isprintable()


# Kinds of texts: what an error says is allowed, and whether a text is so.
_LINE = ("a non-empty, printable str of at most 1024 characters", _is_line)
_WORD = ("a non-empty str, or os.PathLike", lambda text: text and "\0" not in text)
_KEY = ("ASCII without spaces around", lambda k: k.isascii() and k == k.strip() and _is_line(k))
_SLUG = ("1 to 64 of A-Z a-z 0-9 . _ -", lambda n: 0 < len(n) <= 64 and _HOST.issuperset(n))


def _text(field: str, value: object, kind: tuple[str, Callable[[str], object]] = _LINE) -> str:
    """``value`` as an exact ``str``, if it is a text of that kind."""
    allowed, fits = kind
    if is_a(value, str) and fits(str.__str__(value)):
        return str.__str__(value)
    raise mistake(field, value, allowed)


def _optional(field: str, value: object, kind: Any = _LINE) -> Optional[str]:
    return None if value is None else _text(field, value, kind)


def _choice(field: str, value: object, *allowed: str) -> str:
    return _text(field, value, (" or ".join(map(repr, allowed)), allowed.__contains__))


def _number(field: str, value: Any, least: float = 0.001, most: int = _WAIT_MAX_S) -> Any:
    """A number from ``least`` to ``most``, a whole one where ``least`` is at least 1."""
    kinds, kind = ((int,), "an int") if least >= 1 else ((int, float), "a number")
    if type(value) in kinds and least <= value <= most:
        return value
    raise mistake(field, value, "%s from %s to %d" % (kind, least, most))


def _path(field: str, value: object) -> Optional[str]:
    """An absolute path: the host may change its working directory while our thread writes."""
    if value is None:
        return None
    path = os.fspath(value) if hasattr(type(value), "__fspath__") else value  # type: ignore[call-overload]
    found = os.path.expanduser(_text(field, path, _WORD))
    try:
        return os.path.abspath(found)
    except OSError:  # the working directory is gone
        return found


def _items(field: str, value: Any, allowed: str) -> tuple[Any, ...]:
    if issubclass(type(value), (tuple, list)):
        return tuple(value)
    raise mistake(field, value, allowed)


def _endpoints(value: object) -> tuple[GetKeyManager | Reo, ...]:
    allowed, names = "a tuple of GetKeyManager and Reo, each of its own name", set()
    found = _items("endpoints", value, allowed)
    for endpoint in found:
        if type(endpoint) not in (GetKeyManager, Reo) or endpoint.name in names:
            raise mistake("endpoints", endpoint, allowed)
        names.add(endpoint.name)
    return found


def _consent(value: object, endpoints: tuple[GetKeyManager | Reo, ...]) -> Consent:
    if value is _NOT_GIVEN and not any(isinstance(endpoint, Reo) for endpoint in endpoints):
        return None
    if value is None or type(value) is bool or callable(value):
        return value
    allowed = "True, False, None (not asked yet) or a callable; a usage endpoint needs one of them"
    raise mistake("usage_consent", value, allowed)


def _keys(value: Any) -> Any:
    """A tuple of keys; a keyring as it is."""
    if is_a(value, Missing):
        value()
    allowed = "a tuple of PublicKey (see PublicKey.from_pem) or a Keyring"
    ring = hasattr(value, "trusted")
    found = _items("keys", value.keys if ring else value, allowed)
    if not all(hasattr(key, "fingerprint") and hasattr(key, "verify") for key in found):
        raise mistake("keys", value, allowed)
    return value if ring else found


def _domain(value: Any) -> Domain:
    if is_a(value, Missing):
        value()
    allowed = "a domain name, a callable that gives one, or None"
    return value if value is None or callable(value) else _text("domain", value, (allowed, is_host))


# -- addresses -----------------------------------------------------------------------------------------------


def _base_url(value: object) -> str:
    url = https_url("base_url", value)
    path = "/" + "".join(url.split("/", 3)[3:])
    own = "".join(one for one in _OWN_PATHS if path.lower().endswith(one))
    if own:
        right = url[: -len(own)]
        message = "base_url: ends with the API's own path %s, allowed is %r" % (own, right)
        raise ConfigError(message, "base_url")
    return url


def https_url(field: str, value: object) -> str:
    """The address without its trailing slash; scheme and host in lower case."""
    allowed = "https://HOST[:PORT][/PREFIX], or http:// for localhost, 127.0.0.0/8 and [::1]; without user and query"
    scheme, userinfo, host, port, path = _parts(field, value, allowed)
    if userinfo or not (scheme == "https" or (scheme == "http" and is_loopback(host))):
        raise mistake(field, value, allowed)
    return "%s://%s%s%s" % (scheme, host, port, path.rstrip("/"))


def _proxy(value: object) -> Optional[str]:
    if value is None or (is_a(value, str) and value == "direct"):
        return value
    allowed = 'None, "direct" or SCHEME://[USER:PASSWORD@]HOST[:PORT], with http, https, socks5 or socks5h'
    scheme, _, _, _, path = _parts("proxy", value, allowed)
    if scheme not in ("http", "https", "socks5", "socks5h") or path.strip("/"):
        raise mistake("proxy", value, allowed)
    if scheme.startswith("socks"):
        try:
            __import__("socks")
        except ImportError:
            message = "proxy: %s:// needs PySocks, which cannot be imported here" % scheme
            raise ConfigError(message, "proxy") from None
    return str.__str__(value)


def _parts(field: str, value: object, allowed: str) -> tuple[str, str, str, str, str]:
    """Scheme, user info, host, ":port" and path of an absolute address; IPv6 hosts keep their brackets."""
    scheme, _, rest = _text(field, value, (allowed, lambda url: "://" in url)).partition("://")
    authority, slash, path = rest.partition("/")
    userinfo, at, place = authority.rpartition("@")
    ends = place.rfind("]") + 1 if place[:1] == "[" else (place + ":").index(":")
    host, colon, port = place[:ends], place[ends : ends + 1], place[ends + 1 :]
    if not (
        (scheme.isascii() and scheme.isalnum())
        and (bool(at) == bool(userinfo) and _USERINFO.issuperset(userinfo))
        and (":" in host and is_ip(host[1:-1]) if host[:1] == "[" else is_host(host))
        and (not colon or (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536))
        and (colon in ("", ":") and _PATH.issuperset(path) and ".." not in path.split("/"))
    ):
        raise mistake(field, value, allowed)
    return scheme.lower(), userinfo, host.lower(), colon + port[:6], slash + path


def is_loopback(host: str) -> bool:
    """Whether a host can only mean this machine. Short forms such as 127.1 do not count."""
    return host in ("localhost", "[::1]") or (host.startswith("127.") and is_ip(host))
