"""From a name to a connected socket: names to addresses, addresses to whichever answers first.

``getaddrinfo`` cannot be interrupted, so it runs in a thread that is left behind when it is late: at most one such
thread per resolver, and while it hangs every further look-up fails at once. Addresses in digits and ``localhost``
(RFC 6761, 6.3) are never looked up. ``connect`` tries addresses as RFC 8305 has it.
"""

from __future__ import annotations

import errno
import os
import sys

from .values import Unreachable
from .wire import Wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    import threading
    from typing import Any, Callable, Optional

    from .wire import Deadline

    # As from socket.getaddrinfo: family, type, protocol, canonical name, socket address.
    Resolve = Callable[[str, int], list[tuple[Any, Any, Any, Any, Any]]]
    Address = tuple[int, Any]

# RFC 8305, 5: 250 ms until the next address is tried beside those that have not answered.
_NEXT_ADDRESS_S = 0.25
_ADDRESSES_MAX = 8
_UNDER_WAY = frozenset((0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN))


def _system(host: str, port: int, flags: int = 0) -> list[tuple[Any, Any, Any, Any, Any]]:
    import socket

    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))


class Resolver:
    """Looks one name up at a time; ``resolve`` is for tests."""

    __slots__ = ("_answer", "_resolve", "_thread")

    def __init__(self, resolve: Optional[Resolve] = None) -> None:
        self._resolve = resolve or _system
        self._thread: Optional[threading.Thread] = None
        self._answer: list[Any] = []

    def addresses(self, host: str, port: int, *, deadline: Deadline) -> list[Address]:
        """(family, socket address) pairs, best first, families taking turns; raises ``Unreachable``."""
        import socket
        from itertools import zip_longest

        if host == "localhost" or host.endswith(".localhost"):
            return [(socket.AF_INET6, ("::1", port, 0, 0)), (socket.AF_INET, ("127.0.0.1", port))]
        try:
            found = _system(host, port, socket.AI_NUMERICHOST)
        except socket.gaierror:
            found = self._look_up(host, port, deadline)
        if not found:
            raise Unreachable("the name has no address")
        # RFC 8305, 4: no run of dead addresses of one family before the first of the other.
        families: dict[int, list[Address]] = {}
        for family, _, _, _, address in found:
            families.setdefault(family, []).append((family, address))
        return [one for turn in zip_longest(*families.values()) for one in turn if one]

    def _look_up(self, host: str, port: int, deadline: Deadline) -> list[Any]:
        import threading

        if self._thread is not None and self._thread.is_alive() and not self._answer:
            raise Unreachable("does not answer (an earlier look-up still hangs)")
        if sys.is_finalizing():  # Thread.start() would hang on Python 3.9 to 3.11
            raise Unreachable("the interpreter is shutting down")
        answer: list[Any] = []
        done = threading.Event()

        def look_up() -> None:
            try:
                answer.append(self._resolve(host, port))
            except Exception as error:
                answer.append(getattr(error, "strerror", None) or type(error).__name__)
            finally:
                done.set()

        self._answer = answer
        self._thread = threading.Thread(target=look_up, name="name-resolver", daemon=True)
        self._thread.start()
        deadline.waker = done.set
        done.wait(deadline.left_s())
        if not answer:
            deadline.left_s()
            raise Unreachable("does not answer")
        self._thread.join()
        if isinstance(answer[0], str):
            raise Unreachable(answer[0])
        return list(answer[0])


def connect(addresses: list[Address], deadline: Deadline) -> Wire:
    """A connection to whichever address answers first; raises ``Unreachable``."""
    import selectors
    import socket

    waiting = addresses[:_ADDRESSES_MAX]
    failure = errno.EADDRNOTAVAIL
    trying: list[socket.socket] = []
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or trying:
                if waiting:
                    sock, failure = _begin(*waiting.pop(0))
                    if sock is None:
                        continue
                    trying.append(sock)
                    selector.register(sock, selectors.EVENT_WRITE)
                for key, _ in selector.select(min(deadline.left_s(), _NEXT_ADDRESS_S)):
                    ready: Any = key.fileobj
                    failure = ready.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    selector.unregister(ready)
                    trying.remove(ready)
                    if not failure:
                        ready.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        return Wire(ready, deadline)
                    ready.close()
        finally:
            for sock in trying:
                sock.close()
    raise Unreachable("%s (%s)" % (os.strerror(failure), errno.errorcode.get(failure, failure)))


def _begin(family: int, address: Any) -> tuple[Optional[socket.socket], int]:
    """A socket that is connecting, or None and why not."""
    import socket

    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:  # no such family here
        return None, error.errno or errno.EAFNOSUPPORT
    sock.setblocking(False)
    code = sock.connect_ex(address)
    if code in _UNDER_WAY:
        return sock, 0
    sock.close()
    return None, code
