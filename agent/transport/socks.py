"""SOCKS 5 (RFC 1928, RFC 1929), as much of it as leads one connection through a proxy.

Spoken here and not by PySocks, whose time limit is one for each byte that it waits for: here the request's deadline
and an interrupt end it like everything else.
"""

from __future__ import annotations

from .values import Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .proxies import Proxy
    from .wire import Wire

_NO_AUTHENTICATION, _USER_NAME = 0, 2
_IPV4, _NAME, _IPV6 = 1, 3, 4
# RFC 1928, 6.
_REPLIES = ("", "general failure", "not allowed by its rules", "network unreachable",
            "host unreachable", "connection refused", "time to live expired",
            "command not supported", "address type not supported")  # fmt: skip


def open_tunnel(wire: Wire, proxy: Proxy, *, host: str, port: int) -> None:
    """Make ``wire`` lead to ``host``, a name or an address; raises ``Unreachable`` where the proxy will not."""
    wire.sendall(bytes((5, 2, _NO_AUTHENTICATION, _USER_NAME) if proxy.user else (5, 1, 0)))
    version, method = _read(wire, 2)
    if version != 5:
        raise Unreachable("no SOCKS 5 proxy answers there")
    if method == _USER_NAME and proxy.user:
        wire.sendall(b"\1" + _counted(proxy.user) + _counted(proxy.password))
        if _read(wire, 2)[1]:
            raise Unreachable("refuses our user name or password")
    elif method != _NO_AUTHENTICATION:
        raise Unreachable("demands authentication")
    wire.sendall(b"\5\1\0" + _address(host) + port.to_bytes(2, "big"))
    version, reply, _, kind = _read(wire, 4)
    if reply or version != 5:
        why = _REPLIES[reply] if reply < len(_REPLIES) else "code %d" % reply
        raise Unreachable("refused to connect (SOCKS: %s)" % why)
    sizes = {_IPV4: 4, _IPV6: 16}
    _read(wire, (sizes[kind] if kind in sizes else _read(wire, 1)[0]) + 2)  # its own address


def _read(wire: Wire, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = wire.recv(size - len(found))
        found += more
        if not more:
            raise Unreachable("closed the connection without an answer")
    return found


def _counted(text: bytes) -> bytes:
    if len(text) > 255:
        raise Unreachable("its user name or password is longer than SOCKS allows")
    return bytes((len(text),)) + text


def _address(host: str) -> bytes:
    from ipaddress import ip_address

    try:
        address = ip_address(host)
    except ValueError:
        return bytes((_NAME,)) + _counted(host.encode("ascii"))
    return bytes((_IPV4 if address.version == 4 else _IPV6,)) + address.packed
