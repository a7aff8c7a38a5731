"""Which proxy a request goes through: the one given, the environment's, the system's, or none.

``choose_proxy`` is pure and knows every rule; it looks no name up, as the standard library does here. A proxy's user
name and password appear in no ``repr`` and no reason, and go onto the wire of their proxy only.
"""

from __future__ import annotations

import os
import sys
from binascii import b2a_base64

from ..checks import is_loopback
from .values import Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Optional

    from .wire import Wire

_IMPORTED_BY = os.getpid()
_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_AUTH_SCHEMES = ("Basic", "Digest", "Negotiate", "NTLM", "Kerberos", "Bearer")
_HEAD_MAX_BYTES = 16_384
_SETTINGS_KEY = r"Software\Microsoft\Windows\CurrentVersion\Internet Settings"


class Proxy:
    """One proxy, taken apart; ``user`` and ``password`` are bytes without percent signs.

    ``by_name`` says that it is told names, and not addresses that were looked up here.
    """

    __slots__ = ("by_name", "host", "password", "port", "scheme", "socks", "user")

    def __init__(self, url: str, auth: Optional[str] = None, source: str = "its setting") -> None:
        """``auth``, "user:password", is for an address without a user name; ``source`` is where that is written.

        Raises ``Unreachable`` where ``url`` names no proxy of a kind that is spoken here.
        """
        from urllib.parse import unquote_to_bytes, urlsplit

        reason = source + " is no address of a proxy"
        try:
            parts = urlsplit(url if "://" in url else "http://" + url)
            if parts.scheme.startswith("socks4"):
                reason = "SOCKS 4 proxies are not supported, SOCKS 5 ones are (%s)" % source
            # Desktops write "socks" and mean that the proxy looks names up.
            self.scheme = "socks5h" if parts.scheme == "socks" else parts.scheme
            self.socks, self.by_name = self.scheme[:5] == "socks", self.scheme != "socks5"
            self.host = (parts.hostname or "").encode("idna").decode("ascii")
            self.port = parts.port or _DEFAULT_PORTS[self.scheme]
            self.user = unquote_to_bytes(parts.username or "")
            self.password = unquote_to_bytes(parts.password or "")
            if auth and not self.user:
                self.user, _, self.password = auth.encode("utf-8").partition(b":")
            # Behind the host it is that of a password with a bare "/", "?" or "#": what was cut off would be shown.
            stray = "@" in parts.path + parts.query + parts.fragment
            good = bool(self.host) and self.scheme in _DEFAULT_PORTS and not stray
        except (KeyError, ValueError):
            good = False
        if not good:  # out of the except block: the error there quotes the address
            raise Unreachable(reason, "proxy")

    @property
    def address(self) -> str:
        """What may be shown of it."""
        host = "[%s]" % self.host if ":" in self.host else self.host
        return "%s://%s:%d" % (self.scheme, host, self.port)

    def refusal(self, demanded: str) -> Unreachable:
        """What to raise for a 407; ``demanded`` is its Proxy-Authenticate (RFC 9110, 11.7.1)."""
        words = demanded.lower().replace(",", " ").split()
        schemes = [name for name in _AUTH_SCHEMES if name.lower() in words]
        tried = self.user and ("Basic" in schemes or not schemes)
        what = "refuses our user name or password" if tried else "demands authentication"
        told = ": " + ", ".join(schemes) if schemes else ""
        return Unreachable("%s (407%s)" % (what, told), "proxy")

    def headers(self) -> dict[str, str]:
        """The header that says who we are, where there is something to say (RFC 7617)."""
        token = b2a_base64(self.user + b":" + self.password, newline=False).decode("ascii")
        return {"Proxy-Authorization": "Basic " + token} if self.user else {}


def open_tunnel(wire: Wire, proxy: Proxy, *, host: str, port: int) -> None:
    """Make ``wire`` lead to ``host`` (RFC 9110, 9.3.6); raises ``Unreachable`` where the proxy will not."""
    authority = ("[%s]:%d" if ":" in host else "%s:%d") % (host, port)
    lines = ["CONNECT %s HTTP/1.1" % authority, "Host: %s" % authority]
    lines += ["%s: %s" % header for header in proxy.headers().items()]
    wire.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
    head = b""
    while b"\r\n\r\n" not in head and b"\n\n" not in head:
        more = wire.recv(4096)
        head += more
        if not more or len(head) > _HEAD_MAX_BYTES:
            raise Unreachable("no usable answer to CONNECT")
    words = head.split(b"\n", 1)[0].split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise Unreachable("no usable answer to CONNECT")
    status = int(words[1])
    if status == 407:
        fields = (line.partition(b":") for line in head.splitlines())
        demanded = [value for name, _, value in fields if name.lower() == b"proxy-authenticate"]
        raise proxy.refusal(b" ".join(demanded).decode("latin-1"))
    if not 200 <= status < 300:
        raise Unreachable("refused to connect (HTTP %d)" % status)


def find_proxy(
    url: str, *, given: Optional[str], auth: Optional[str], environ: Mapping[str, str]
) -> tuple[Optional[Proxy], str]:
    """The proxy for ``url`` or None, and where that is written.

    ``given`` wins; "" and "direct" mean none; None asks environment and system.
    """
    if given is None:
        given, source = choose_proxy(url, environ, _system_settings())
    else:
        given, source = "" if given == "direct" else given, "the setting proxy"
    return Proxy(given, auth, source) if given else None, source


def choose_proxy(
    url: str, environ: Mapping[str, str], system: Mapping[str, str]
) -> tuple[str, str]:
    """The address of the proxy for ``url``, "" for none; and where that is written, or why there is none.

    Lower case wins; an empty variable means none; HTTP_PROXY is a request header where REQUEST_METHOD is set
    (CVE-2016-5385). ``system`` maps schemes to proxies and "no" to patterns, divided by semicolons, of hosts that go
    without. A proxy on another machine is not asked for what only this machine can reach.
    """
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    host, scheme = (parts.hostname or "").rstrip("."), parts.scheme
    names = [scheme + "_proxy", scheme.upper() + "_PROXY", "all_proxy", "ALL_PROXY"]
    if "REQUEST_METHOD" in environ and "HTTP_PROXY" in names:
        names.remove("HTTP_PROXY")
    source = next((name for name in names if name in environ), "")
    excluded, by = environ.get("no_proxy", environ.get("NO_PROXY", "")), "NO_PROXY"
    if source:
        found = environ[source].strip()
    else:
        socks = system.get("socks", "").rpartition("//")[2]
        found = system.get(scheme, socks and "socks5h://" + socks)
        source = "the system's settings" if found else "no proxy is set"
        excluded, by = excluded + " " + system.get("no", ""), "NO_PROXY or the system's exceptions"
    if not found:
        return "", source
    port = parts.port or _DEFAULT_PORTS.get(scheme, 0)
    entries = excluded.lower().replace(",", " ").replace(";", " ").split()
    if any(_names(entry, host, port) for entry in entries):
        return "", by
    if _is_here(host):
        asked = urlsplit(found if "://" in found else "//" + found)
        if not _is_here(asked.hostname or ""):
            return "", "only this machine reaches that address"
    return found, source


def _is_here(host: str) -> bool:
    return is_loopback("[%s]" % host if ":" in host else host)


def _names(entry: str, host: str, port: int) -> bool:
    """Whether an exception names the host.

    ``*``, ``host``, ``.suffix``, ``host:port``, ``10.0.0.0/8``, ``[::1]:443``, ``10.*``; ``<local>`` is every name
    without a dot.
    """
    from fnmatch import fnmatchcase
    from ipaddress import ip_address, ip_network

    only_port = ""
    if entry.startswith("["):
        entry, _, only_port = entry[1:].partition("]")
    elif entry.count(":") == 1:
        entry, _, only_port = entry.partition(":")
    if only_port.strip(":") not in ("", str(port)):
        return False
    if fnmatchcase(host, entry):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        name = entry[1:] if entry.startswith("*.") else entry
        local = entry == "<local>" and "." not in host
        return local or ("." + host).endswith("." + name.strip("."))
    try:
        return address in ip_network(entry, strict=False)
    except ValueError:
        return False


def _system_settings() -> Mapping[str, str]:
    """What Windows or macOS is set to, as ``choose_proxy`` takes it; nothing elsewhere. PAC scripts are not run."""
    if sys.platform == "win32":
        import winreg
        from urllib.request import getproxies_registry  # type: ignore[attr-defined]

        found = dict(getproxies_registry())
        try:
            with winreg.OpenKey(winreg.HKEY_CURRENT_USER, _SETTINGS_KEY) as key:
                found["no"] = str(winreg.QueryValueEx(key, "ProxyOverride")[0])
        except OSError:
            pass
        return found
    # Not in the child of a fork, as far as can be seen: the system's libraries may abort there (bpo-30385).
    if sys.platform == "darwin" and os.getpid() == _IMPORTED_BY:
        from _scproxy import _get_proxy_settings  # type: ignore[import-not-found]
        from urllib.request import getproxies_macosx_sysconf  # type: ignore[attr-defined]

        found = dict(getproxies_macosx_sysconf())
        settings = _get_proxy_settings()
        excluded = ["<local>"] if settings.get("exclude_simple") else []
        found["no"] = ";".join([*excluded, *filter(None, settings.get("exceptions", ()))])
        return found
    return {}
