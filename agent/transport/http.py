"""The transport that is used unless a vendor passes another: urllib3 with everything clever switched off.

One request is one exchange: nothing is followed, retried, decoded or resent, so whoever asks knows what the server
may have seen. Connections are dialled here, address by address, through proxy and TLS, under one deadline; urllib3
frames the request, parses the answer and keeps the connection for the next. Nothing heavy loads before a send.
"""

from __future__ import annotations

import os
import sys

from .. import story
from . import certificates, socks
from .dial import Resolver, connect
from .proxies import find_proxy, open_tunnel
from .values import MAX_ANSWER_BYTES, Response, Seen, Unreachable
from .wire import Deadline

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Collection, Mapping
    from typing import Any, Callable, Optional

    from ..config import Config
    from .dial import Resolve
    from .proxies import Proxy
    from .values import Request
    from .wire import Wire

_CHUNK_BYTES = 8192
_CERTIFICATE = 11  # a message of the TLS handshake: RFC 8446, 4
_DEFAULT_PORTS = {"http": 80, "https": 443}
# What the libraries below do without where it cannot be loaded, which may be for want of a descriptor just now.
_NATIVE = "unicodedata _ssl zlib _hashlib _blake2 _md5 _sha1 _sha2 _sha256 _sha512 _sha3".split()


class HttpTransport:
    """HTTP/1.1 over keep-alive connections. One thread at a time, but for ``interrupt`` and ``close``."""

    def __init__(
        self,
        *,
        proxy: Optional[str] = None,
        proxy_auth: Optional[str] = None,
        ca_bundle: Optional[str] = None,
        pins: Optional[Mapping[tuple[str, int], Collection[str]]] = None,
        environ: Optional[Mapping[str, str]] = None,
        resolve: Optional[Resolve] = None,
    ) -> None:
        """``proxy``: None asks environment and system, "" and "direct" mean none. ``environ``: None is the process's.

        ``pins``: (host, port) -> the keys of which its certificate must have one. ``resolve`` stands in for
        ``socket.getaddrinfo(host, port)`` in tests.
        """
        self._proxy, self._proxy_auth = proxy, proxy_auth
        self._ca_bundle, self._pins = ca_bundle, pins or {}
        self._environ = os.environ if environ is None else environ
        self._resolver = Resolver(resolve)
        self._deadline = Deadline()
        self._pools: dict[tuple[str, str, int], tuple[Any, Optional[Proxy]]] = {}
        self._context: Optional[tuple[ssl.SSLContext, str]] = None
        self._closed = False
        self.seen = Seen()

    @classmethod
    def of(cls, config: Config, environ: Mapping[str, str]) -> HttpTransport:
        """The one that a configuration describes."""
        from urllib.parse import urlsplit

        pins: dict[tuple[str, int], Collection[str]] = {}
        for endpoint in config.endpoints:
            if endpoint.pins:
                parts = urlsplit(endpoint.base_url)
                # Two endpoints on one server: what either allows.
                where = (parts.hostname or "").rstrip("."), parts.port or 443
                pins[where] = {*pins.get(where, ()), *endpoint.pins}
        return cls(
            proxy=config.proxy,
            proxy_auth=config.proxy_auth,
            ca_bundle=config.ca_bundle,
            pins=pins,
            environ=environ,
        )

    def send(self, request: Request, *, timeout_s: float) -> Response:
        """The answer to ``request``; raises ``Unreachable`` within ``timeout_s`` seconds of wall-clock time."""
        deadline = self._deadline
        deadline.begin(timeout_s)
        reason = stage = ""
        try:
            if not self._closed:
                return self._exchange(request)
            reason = "the transport is closed"
        except Unreachable as error:
            reason, stage = error.reason, error.stage or deadline.stage
        except Exception as error:
            reason, stage = _explain(error), deadline.stage
        finally:
            deadline.end()
            # An interrupt that came with the last byte has shut a connection that was kept.
            if self._closed or (deadline.interrupted and not reason):
                self.rest()
        # Raised here, not from what was caught: the frames in that traceback hold headers and body.
        if deadline.interrupted:
            raise Unreachable("interrupted")
        raise Unreachable("%s: %s" % (stage, reason) if stage else reason, stage)

    def rest(self) -> None:
        """Close idle connections; CA certificates and proxy settings are read again by the next send."""
        pools, self._pools = self._pools, {}
        self._context = None
        for pool, _ in pools.values():
            pool.close()

    def close(self) -> None:
        """Break off what runs and close everything; from any thread, any number of times."""
        self._closed = True
        self.interrupt()
        self.rest()

    def after_fork(self) -> None:
        """In the child: begin anew; the connections, and who may be in the middle of one, are the parent's."""
        for known in list(self._deadline.wires.values()):
            wire = known()
            if wire is not None:
                wire.drop()
        self._pools, self._deadline = {}, Deadline()

    def interrupt(self) -> None:
        """Break off the request in flight, if there is one; from any thread."""
        self._deadline.interrupt()

    def _exchange(self, request: Request) -> Response:
        from functools import partial
        from urllib.parse import urlsplit

        if not self._pools:
            _load_native()
        parts = urlsplit(request.url)
        host = (parts.hostname or "").encode("idna").decode("ascii").rstrip(".")
        where = parts.scheme, host, parts.port or _DEFAULT_PORTS[parts.scheme]
        if where not in self._pools:
            proxy, source = find_proxy(
                request.url, given=self._proxy, auth=self._proxy_auth, environ=self._environ
            )
            self._pools[where] = _new_pool(where, partial(self._dial, where, proxy, source)), proxy
        pool, proxy = self._pools[where]
        headers = {**request.headers, "Accept-Encoding": "identity"}
        target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
        forwarding = proxy if proxy and parts.scheme == "http" and not proxy.socks else None
        if forwarding is not None:
            # RFC 9112, 3.2.2: a proxy that is to fetch http is given the whole address.
            target = "http://" + parts.netloc.rpartition("@")[2] + target
            headers.update(forwarding.headers())
        self._deadline.enter("answer")
        answer = pool.urlopen(
            request.method,
            target,
            body=request.body,
            headers=headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
            enforce_content_length=True,
        )
        response = self._read(answer)
        if forwarding is not None and response.status == 407:
            raise forwarding.refusal(response.headers.get("proxy-authenticate", ""))
        return response

    def _read(self, answer: Any) -> Response:
        body, more = b"", b"more"
        try:
            while more and len(body) <= MAX_ANSWER_BYTES:
                more = answer.read(_CHUNK_BYTES, decode_content=False)
                body += more
        except Unreachable:
            raise
        except Exception:
            pass  # broken off: what came is returned as incomplete
        finally:
            # The unread rest would be taken for the next answer.
            answer.close() if more else answer.release_conn()
        self._deadline.left_s()  # an interrupt looks like the end of a body
        headers = {name.lower(): answer.headers[name] for name in answer.headers}
        return Response(answer.status, headers, body[:MAX_ANSWER_BYTES], not more)

    def _dial(self, where: tuple[str, str, int], proxy: Optional[Proxy], source: str) -> Wire:
        scheme, host, port = where
        deadline, seen = self._deadline, Seen()
        self.seen = seen
        seen.proxy, seen.proxy_from = proxy.address if proxy else "", source
        seen.took_s = deadline.took_s
        deadline.enter("proxy" if proxy else "name resolution")
        first = (proxy.host, proxy.port) if proxy else (host, port)
        addresses = self._resolver.addresses(*first, deadline=deadline)
        seen.addresses = [str(address[0]) for _, address in addresses]
        deadline.enter("proxy" if proxy else "connection")
        wire = connect(addresses, deadline)
        try:
            seen.peer = wire.peer()
            if proxy:
                wire = self._through(proxy, wire, where)
            if scheme == "https":
                deadline.enter("TLS")
                wire = self._secured(wire, host)
                pins = self._pins.get((host, port), ())
                if pins and certificates.pin(wire.certificate()) not in pins:
                    raise Unreachable("the server's key is none of the pins" + self._issuer())
        except BaseException:
            wire.close()
            raise
        deadline.enter("answer")
        story.connected(seen)
        return wire

    def _through(self, proxy: Proxy, wire: Wire, where: tuple[str, str, int]) -> Wire:
        scheme, host, port = where
        if proxy.socks:
            if not proxy.by_name:
                found = self._resolver.addresses(host, port, deadline=self._deadline)
                # A proxy that is asked for one address cannot try the other family.
                host = min((str(address[0]) for _, address in found), key=lambda text: ":" in text)
            socks.open_tunnel(wire, proxy, host=host, port=port)
            return wire
        if proxy.scheme == "https":
            wire = self._secured(wire, proxy.host)
        if scheme == "https":
            open_tunnel(wire, proxy, host=host, port=port)
        return wire

    def _secured(self, wire: Wire, host: str) -> Wire:
        """``wire`` with TLS to ``host`` on it; what the peer sent for that is in ``seen``."""
        import ssl

        from .tls import client_context

        self._context = self._context or client_context(self._ca_bundle, self._environ)
        context, self.seen.store = self._context
        chain = self.seen.chain = []

        def watch(_wire: Any, _way: str, version: int, _type: int, kind: int, data: bytes) -> None:
            if kind == _CERTIFICATE and not chain:
                chain.extend(certificates.in_message(data, version))

        # The only way to a certificate that was refused. Where Python has it no more, reasons name no issuer.
        watched: Any = getattr(context, "_ctx", context)  # truststore's own is inside
        watched._msg_callback = watch
        try:
            wire = wire.start_tls(context, host)
        except ssl.SSLCertVerificationError as error:
            why = getattr(error, "verify_message", "") or "not trusted"
            raise Unreachable("certificate refused: " + why + self._issuer()) from None
        finally:
            watched._msg_callback = None
        self.seen.tls, self.seen.cipher = wire.version()
        if not self.seen.tls:
            # Reset before the handshake began: the ssl module takes that for "not connected yet".
            raise Unreachable("the connection was lost before the handshake")
        return wire

    def _issuer(self) -> str:
        return ' (issued by "%s")' % self.seen.chain[0].issuer if self.seen.chain else ""


def _new_pool(where: tuple[str, str, int], dial: Callable[[], Wire]) -> Any:
    """urllib3's pool of one kept connection, whose new ones come from ``dial``, TLS included."""
    from http.client import HTTPResponse

    from urllib3 import HTTPConnectionPool
    from urllib3.connection import HTTPConnection

    scheme, host, port = where

    # Refused before urllib3 sees it: that would log a warning, with the server's bytes and a traceback, into the
    # host's stderr. RFC 9112, 6.3: both lengths at once are an attempt at smuggling.
    class Answer(HTTPResponse):
        def begin(self) -> None:
            super().begin()
            lengths = "content-length" in self.msg and "transfer-encoding" in self.msg
            if lengths or self.msg.defects or self.msg.get_payload():
                raise Unreachable("not an HTTP answer (malformed headers)")

    # The whole of connect() is replaced: urllib3's warns on stderr when the clock is before 2025. And a host that
    # debugs its own HTTP by http.client's class-wide debuglevel must not get our headers printed.
    class Connection(HTTPConnection):
        debuglevel = 0
        response_class = Answer
        default_port = _DEFAULT_PORTS[scheme]  # type: ignore[misc]

        def connect(self) -> None:
            try:
                self.sock = dial()
            # urllib3 takes some of these for an early answer, and looks for it without a connection.
            except OSError as error:
                raise Unreachable(_explain(error)) from None

    pool = HTTPConnectionPool(host, port, timeout=None, maxsize=1, retries=False)
    pool.ConnectionCls = Connection
    return pool


def _load_native() -> None:
    """Load what is there of ``_NATIVE``; raises ``ImportError`` or ``OSError`` where that fails.

    ``hashlib`` would log a traceback into the host's stderr instead, urllib3 go without TLS and the interpreter
    without the codec of host names, for good.
    """
    for name in _NATIVE:
        try:
            __import__(name)
        except ModuleNotFoundError:
            pass  # not in this build of Python, or under another name


def _explain(error: BaseException) -> str:
    """Why there was no answer, in words that are safe to show.

    Exceptions of HTTP libraries quote what they choked on: URLs, header values, the server's bytes. Only texts made
    here or by the operating system, and the fixed vocabulary of TLS, are passed on.
    """
    while inner := [part for part in error.args if isinstance(part, BaseException)]:
        error = inner[0]  # urllib3 keeps what it wraps among its arguments
    if isinstance(error, _known("ssl", "SSLError")):
        said = error.reason or (error.strerror or "").partition(" (")[0] or type(error).__name__
        return str(said).replace("_", " ").lower()
    if isinstance(error, _known("http.client", "RemoteDisconnected")):
        return "the server closed the connection without an answer"
    if isinstance(error, _known("http.client", "HTTPException")):
        return "not an HTTP answer (%s)" % type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, ImportError):
        return "the library %s cannot be imported" % (error.name or "needed here")
    return type(error).__name__


def _known(module: str, name: str) -> Any:
    """An exception of a module that is loaded, else nothing: it may be the one that could not be."""
    return getattr(sys.modules.get(module), name, ())
