"""One check per kind of setting, addresses included: each returns the value as it is kept, or raises ``ConfigError``.

An error names the field, what came and what is allowed, and never repeats a secret. Of addresses only what every HTTP
library reads alike is accepted (printable ASCII, no user name, no query), so nothing here can be taken for one host
and connected to another. Nothing is resolved or opened; which field gets which check is written in ``config``.
"""

from __future__ import annotations

import os

from .errors import ConfigError, EventError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Optional, Protocol, TypeGuard, TypeVar, Union

    Consent = Union[bool, None, Callable[[], object]]
    Domain = Union[str, None, Callable[[], object]]
    Path = Union[str, os.PathLike[str]]
    Kind = TypeVar("Kind")
    Mistake = TypeVar("Mistake", ConfigError, EventError)

    class Key(Protocol):
        """What a public key is to the settings; ``endpoints`` asks for the real thing."""

        fingerprint: str

        def verify(self, message: bytes, signature: bytes) -> None: ...

    class Keys(Protocol):
        """A keyring."""

        @property
        def keys(self) -> Iterable[Key]: ...


_CLOSED = ("deliver", "durability", "user_id_type")
_ADDRESSES = ("base_url", "proxy")
_MORE = frozenset("@?#")  # of an address: user information, a query, a fragment
_TEXT_MAX_CHARS = 1024
HOST_MAX_CHARS = 253  # RFC 1035, 2.3.4: 255 octets on the wire
# Ten calls home. A text of 32,768 ASCII characters needs 40,000; in other alphabets a character takes up to 12 bytes:
# 500,000 hold any text.
QUOTA_LEAST_BYTES = 4_096
# Waits of threading are limited to 4,294,967 s on Windows.
_WAIT_MAX_S = 4_000_000
_PROXIES = ("http", "https", "socks5", "socks5h")
_PINS_LEAST = 2
_ALNUM = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_SLUG = _HOST = frozenset(_ALNUM + "-._")
# RFC 3986, 3.2.1 and 3.3: unreserved, sub-delims, "%", ":"; in a path also "@" and "/".
_USERINFO = frozenset(_ALNUM + "-._~!$&'()*+,;=:%")
_PATH = _USERINFO | frozenset("@/")
_OCTETS = frozenset(map(str, range(256)))


def mistake(
    field: str, value: object, allowed: str, error: type[Mistake] = ConfigError  # type: ignore[assignment]
) -> Mistake:
    """Names what came: numbers and what should be out of a closed set as it is, of an address scheme and host.

    Of anything else only the type: what was put into the wrong field may be a secret.
    """
    came = type(value).__name__
    number = type(value) is float or (type(value) is int and abs(value) < 10**18)
    if value is None or type(value) is bool or (number and field != "api_key"):
        came = repr(value)
    elif type(value) is str:
        scheme, separator, rest = str(value).partition("://")
        host = rest.partition("/")[0].partition(":")[0]
        came = "str of %d characters" % len(value)
        if field in _CLOSED and "@" not in value:
            came = repr(value[:60])
        elif (
            field in _ADDRESSES and scheme in _PROXIES and is_host(host) and _MORE.isdisjoint(value)
        ):
            came = repr(scheme + separator + host + "…"[: rest != host])
    return error("%s: got %s, allowed is %s" % (field, came, allowed), field)


def is_a(value: object, kind: type[Kind]) -> TypeGuard[Kind]:
    """``isinstance`` by the type alone: a caller's object may raise when it is asked for its ``__class__``."""
    return issubclass(type(value), kind)


def unknown_name(owner: str, name: str, allowed: Iterable[str]) -> ConfigError:
    from difflib import get_close_matches

    closest = get_close_matches(name[:60], list(allowed), 1, 0.0)
    message = "%s: unknown name %r; did you mean %r?" % (owner, name[:60], "".join(closest))
    return ConfigError(message, name)


def _exact(field: str, value: object, allowed: str, fits: Callable[[str], object]) -> str:
    """``value`` as an exact ``str``, if it is a text that ``fits``."""
    if is_a(value, str) and fits(str.__str__(value)):
        return str.__str__(value)
    raise mistake(field, value, allowed)


def text(field: str, value: object) -> str:
    """A line of text that fits in a header, a path and a form."""
    allowed = "a non-empty, printable str of at most %d characters" % _TEXT_MAX_CHARS
    return _exact(field, value, allowed, _is_line)


def _is_line(text: str) -> bool:
    return bool(text.strip()) and len(text) <= _TEXT_MAX_CHARS and text.isprintable()


def optional_text(field: str, value: object) -> Optional[str]:
    return None if value is None else text(field, value)


def api_key(value: object) -> str:
    allowed = "non-empty, printable ASCII without spaces around it"
    return _exact(
        "api_key",
        value,
        allowed,
        lambda key: _is_line(key) and key.isascii() and key == key.strip(),
    )


def slug(value: object) -> str:
    allowed = "1 to 64 of the characters A-Z a-z 0-9 . _ -"
    return _exact(
        "name", value, allowed, lambda name: 0 < len(name) <= 64 and _SLUG.issuperset(name)
    )


def choice(field: str, value: object, allowed: tuple[str, ...]) -> str:
    return _exact(field, value, " or ".join(map(repr, allowed)), allowed.__contains__)


def number(field: str, value: Any, *, whole: int = 0, zero: bool = False, most: int = 2**53) -> Any:
    """An int or a float above 0, or from 0 on, and not above ``most``; with ``whole`` an int from there on."""
    fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not fits or not whole <= value <= most or (value == 0 and not zero):
        least = "an int >= %d" % whole if whole else "a number %s 0" % (">=" if zero else ">")
        raise mistake(field, value, "%s, at most %d" % (least, most))
    return int(value) if isinstance(value, int) else float(value)


def seconds(field: str, value: object, *, zero: bool = True) -> float:
    return float(number(field, value, zero=zero, most=_WAIT_MAX_S))


def absolute_path(field: str, value: object) -> Optional[str]:
    """An absolute path: the host may change its working directory while our thread writes."""
    if value is None:
        return None
    allowed = "None or a path (str or os.PathLike)"
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    path = os.path.expanduser(path) if isinstance(path, str) else path
    path = _exact(field, path, allowed, lambda path: path and "\0" not in path)
    try:
        return path if os.path.isabs(path) else os.path.abspath(path)
    except OSError:  # the working directory is gone
        return path


def words(value: object) -> tuple[str, ...]:
    allowed = "a tuple of non-empty str"
    if not isinstance(value, (tuple, list)):
        raise mistake("detached_command", value, allowed)
    return tuple(
        _exact("detached_command", word, allowed, lambda word: word and "\0" not in word)
        for word in value
    )


def keys(value: object) -> tuple[Key, ...] | Keys:
    """A tuple of keys; a keyring as it is."""
    found = getattr(value, "keys", value)
    if isinstance(found, (tuple, list)) or (found is not value and hasattr(found, "__iter__")):
        keys = tuple(found)
        if all(hasattr(key, "fingerprint") and hasattr(key, "verify") for key in keys):
            return value if hasattr(value, "roots") else keys  # type: ignore[return-value]
    raise mistake(
        "keys",
        found if found is not None else value,
        "a tuple of PublicKey (see PublicKey.from_pem) or a keyring",
    )


def ip_addr(value: object) -> Optional[str]:
    return None if value is None else _exact("ip_addr", value, "None or an IP address", is_ip)


def domain(value: object) -> Domain:
    if value is None or callable(value):
        return value
    allowed = "a domain name, a callable that gives one, or None"
    return _exact("domain", value, allowed, is_host)


def base_url(value: object) -> str:
    """The address without its trailing slash; scheme and host in lower case."""
    allowed = (
        "https://HOST[:PORT][/PREFIX], or http:// for localhost, 127.0.0.0/8 and [::1] only; "
        "no user name, no query, other alphabets as punycode"
    )
    scheme, userinfo, host, port, path = _parts("base_url", value, allowed)
    if userinfo or not (scheme == "https" or (scheme == "http" and is_loopback(host))):
        raise mistake("base_url", value, allowed)
    return scheme + "://" + host + (":" + port if port else "") + path.rstrip("/")


def proxy(value: object) -> Optional[str]:
    if value is None or (is_a(value, str) and value == "direct"):
        return value
    allowed = 'None, "direct" or SCHEME://[USER:PASSWORD@]HOST[:PORT] with SCHEME ' + ", ".join(
        _PROXIES
    )
    scheme, _, _, _, path = _parts("proxy", value, allowed)
    if scheme not in _PROXIES or path.strip("/"):
        raise mistake("proxy", value, allowed)
    return str.__str__(value)


def proxy_auth(value: object) -> Optional[str]:
    allowed = "None or USER:PASSWORD, printable"
    if value is None:
        return None
    return _exact(
        "proxy_auth", value, allowed, lambda text: text.find(":") > 0 and text.isprintable()
    )


def pins(value: object, url: str) -> tuple[str, ...]:
    """Digests of public keys (RFC 7469, 2.4), none or at least two: who has one only is locked out when it changes."""
    allowed = "a tuple of 2 or more of sha256/BASE64, the server's key and one in reserve"
    if not isinstance(value, (tuple, list)):
        raise mistake("pins", value, allowed)
    found = tuple(_exact("pins", pin, allowed, _is_pin) for pin in value)
    if 0 < len(set(found)) < _PINS_LEAST:
        raise ConfigError("pins: only one, allowed is " + allowed, "pins")
    if value and not url.startswith("https:"):
        raise ConfigError("pins: base_url is no https address, so it shows no key", "pins")
    return found


def _is_pin(text: str) -> bool:
    from binascii import Error, a2b_base64, b2a_base64

    kind, _, digest = text.partition("/")
    try:
        found = a2b_base64(digest)
    except (Error, ValueError):
        return False
    exact = b2a_base64(found, newline=False).decode("ascii") == digest
    return kind == "sha256" and len(found) == 32 and exact


def masked(url: str) -> str:
    """``url`` with its user name and password hidden."""
    scheme, separator, rest = url.partition("://")
    _, at, host = rest.rpartition("@")
    return scheme + separator + ("****@" + host if at else rest)


def _parts(field: str, value: object, allowed: str) -> tuple[str, str, str, str, str]:
    """Scheme, user info, host, port and path of an absolute address; IPv6 hosts keep their brackets."""
    scheme, _, rest = _exact(field, value, allowed, lambda url: "://" in url).partition("://")
    authority, slash, path = rest.partition("/")
    userinfo, at, place = authority.rpartition("@")
    host, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        host, colon, port = place, "", ""
    bracketed = host[:1] == "[" and host[-1:] == "]" and ":" in host
    if not (
        (scheme.isascii() and scheme.isalnum())
        and (bool(at) == bool(userinfo) and _USERINFO.issuperset(userinfo))
        and (is_ip(host[1:-1]) if bracketed else is_host(host))
        and (not colon or (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536))
        and (_PATH.issuperset(path) and ".." not in path.split("/"))
    ):
        raise mistake(field, value, allowed)
    return scheme.lower(), userinfo, host.lower(), port[:6], slash + path


def is_host(text: str) -> bool:
    """Whether ``text`` looks like a host name or an IPv4 address."""
    labels = (text[:-1] if text.endswith(".") else text).split(".")
    return len(text) <= HOST_MAX_CHARS and all(
        0 < len(label) < 64 and label[0] != "-" and _HOST.issuperset(label) for label in labels
    )


def is_loopback(host: str) -> bool:
    """Whether a host can only mean this machine. Short forms such as 127.1 do not count."""
    return host in ("localhost", "[::1]") or (host.startswith("127.") and is_ip(host))


def is_ip(text: str) -> bool:
    """Whether ``text`` is an IP address without a zone."""
    if ":" not in text:
        parts = text.split(".")
        return len(parts) == 4 and _OCTETS.issuperset(parts)
    import ipaddress

    try:
        return "%" not in text and bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False
