"""One request, one answer, one wall-clock limit: urllib3 with everything clever switched off, on a thread of its own.

Names, proxies, handshakes, dripping answers may block for ever, so a request runs on a daemon thread that may be left
behind. Who waits holds the time, shuts the socket when that is over, and goes on, whatever the host did to its clock,
``socket`` or ``ssl``. Nothing is followed, resent or believed here; no text of a server gets into a reason.
"""

from __future__ import annotations

import _thread  # its functions are looked up when they are used: gevent and eventlet replace them
import os
import sys
from contextlib import suppress

from .clock import monotonic, start_thread, take
from .errors import TYPE_CHECKING, in_words, root_of
from .files import above_stdio, identity
from .values import MAX_ANSWER_BYTES, Response, Unreachable, Withheld, here, inside, unpacked

if TYPE_CHECKING:
    from typing import Any, Callable, Mapping, Optional

    from .values import Request

# So long a thread may take to notice that its socket was shut; then it counts as left behind.
_GRACE_S = 0.1
_SHUT_RDWR, _HTTPS_PORT = 2, 443
# What goes out beside the headers of a request.
_HEADERS = "host content-length accept-encoding proxy-authorization".split()
# Where one of these cannot be loaded just now (no descriptor), hashlib logs into the host's stderr, urllib3 has no TLS
# and the interpreter no codec of host names, for good. Any name that not every Python has could be the host's.
_NATIVE = "unicodedata _ssl zlib _hashlib _blake2 _md5 _sha1 _sha3".split()
# Below /etc, of BSD and macOS, Debian, Fedora, SUSE: a frozen OpenSSL looks where it was built (pyinstaller#5450).
_BUNDLES = (
    "ssl/cert.pem ssl/certs/ca-certificates.crt pki/tls/certs/ca-bundle.crt ssl/ca-bundle.pem"
)


class Seen:
    """What the last new connection came by: for people, never for a decision.

    ``proxy`` is its address without user name, "" for none; ``proxy_from`` says where that is written.
    """

    proxy = proxy_from = peer = tls = cipher = store = ""


class HttpTransport:
    """HTTP/1.1 over kept connections. One thread at a time, but for ``interrupt`` and ``close``.

    ::

        who asks                                   the line to that server: a thread, and its connection
        send(request)
          line.begin(...)      ------------------> urllib3: connect, ask whether to go on, write, read
          sleeps for timeout_s at most
            done: the answer    <----------------- wakes it, and waits for the next request
            late, interrupted: line.end() -------> its socket is shut; it ends, and the connection with it
              not within _GRACE_S                  inside a system call: is left behind, and until it has
                                                   come back no other request to that server begins
        rest()                                     ends them all: a line lives for one pass
    """

    def __init__(self, environ: Optional[Mapping[str, str]] = None, **settings: Any) -> None:
        """``settings``: of a ``Config``'s its proxy, proxy_auth and ca_bundle. ``environ``: None: the process's.

        ``proxy``: None asks environment and system, "" and "direct" mean none.
        """
        names = "proxy", "proxy_auth", "ca_bundle"
        self.proxy, self.proxy_auth, self.ca_bundle = map(settings.get, names)
        self.environ = os.environ if environ is None else environ
        self.seen, self.closed = Seen(), False
        self._lines: dict[object, _Line] = {}
        self.after_fork()

    def send(self, request: Request, *, timeout_s: float) -> Response:
        """The answer to ``request``; raises ``Unreachable`` within ``timeout_s`` seconds of wall-clock time."""
        server = tuple(request.url.split("/", 3)[:3])
        answer: Response = self._run(server, lambda line: line.exchange(request), timeout_s)
        return answer

    def aside(self, call: Callable[[], Any], timeout_s: float) -> Any:
        """What ``call()`` returns, on a thread that may be left behind; raises ``Unreachable`` like ``send``."""
        return self._run("aside", lambda line: call(), timeout_s)

    def _run(self, server: object, call: Callable[[_Line], Any], timeout_s: float) -> Any:
        if self._pid != os.getpid():  # a fork that nobody told of
            self.after_fork()
        line, said = self._lines.get(server) or _Line(self), None
        if line.over or line.said is None:  # or a Ctrl-C came to whoever waited
            if not line.end():
                raise Unreachable("does not answer (an earlier request hangs)", line.stage)
            line = _Line(self)
        try:
            self._woken = line.begin(call, timeout_s)
            if self.closed:
                raise RuntimeError("the transport is closed")
            if self._lines.get(server) is not line:
                start_thread(line.serve)
                self._lines[server] = line
            line.asked.release()
            interrupted = take(self._woken, line.timeout_s)  # by no clock of the host
            late = Unreachable("no answer within %g s" % line.timeout_s, line.stage)
            said = line.said or (Unreachable("interrupted") if interrupted else late)
        except RuntimeError as error:
            said = line.said = Unreachable(str(error))
        finally:
            self._woken = None
            if said is None or line.said is None:
                line.end()
            if self.closed:
                self.rest()
        if isinstance(said, Unreachable):
            raise said
        return said[0]

    def rest(self) -> None:
        """Close idle connections; CA certificates and proxy settings are read again by the next send."""
        for server, line in list(self._lines.items()):
            if line.end(0.0 if line.over else _GRACE_S):
                self._lines.pop(server, None)

    def close(self) -> None:
        """Break off what runs and close everything; from any thread, any number of times."""
        self.closed = True
        self.interrupt()
        if self._woken is None:  # else who waits for a request does it
            self.rest()

    def interrupt(self) -> None:
        """Break off the request in flight, if there is one; from any thread, and from a signal handler."""
        with suppress(AttributeError, RuntimeError):  # there is none, or it knows already
            self._woken.release()

    def after_fork(self) -> None:
        """In the child: begin anew; connections and threads are the parent's."""
        self._pid, self._woken = os.getpid(), None
        lines, self._lines = self._lines, {}
        for line in lines.values():
            line.forked()


class _Line:
    """The way to one server: a thread, its connection, and the request that is on it.

    Who waits sets ``over``, then shuts ``handle``; the thread sets ``handle``, then looks at ``over``. One of both is
    in time, so a thread that was left behind sends nothing late.
    """

    over, _gone, stage = False, False, ""
    said: Any = ()  # what came of it: one thing, or an ``Unreachable``; None while it is asked

    def __init__(self, owner: HttpTransport) -> None:
        self.owner, self._pid = owner, os.getpid()
        none: Any = None
        # A dup of the plain socket, to shut: SSLSocket.shutdown forgets TLS first, and what is written in that moment
        # leaves in clear text.
        self.handle = self.connection = self._pool = self._sock = none
        # All of one kind: gevent may come while the thread is here, and its locks wake greenlets alone.
        self._new_lock = new = _thread.allocate_lock
        # ``_lock``: nobody shuts the handle while it is closed.
        self.asked, self._alive, self._lock = new(), new(), new()
        self.asked.acquire()
        self._alive.acquire()

    def begin(self, call: Callable[[_Line], Any], timeout_s: float) -> Any:
        """Forget the last request; returns the lock whose release ends the wait for this one."""
        self.said, self.stage, self._call = None, "", call
        self.timeout_s = max(0.01, timeout_s)
        self._ends_at = monotonic() + self.timeout_s
        self._woken = self._new_lock()
        self._woken.acquire()
        return self._woken

    def serve(self) -> None:
        """All that happens on the thread."""
        me = here()
        inside.add(me)
        try:
            while self.asked.acquire() and not self.over:
                woken = self._woken  # from ``said`` on there may be another's
                try:
                    said: Any = (self._call(self),)
                except BaseException as error:  # noqa: B036 - the host may have hooked anything
                    self.over, said = True, self._why(root_of(error))
                self.said = said
                with suppress(RuntimeError):  # who waits is awake
                    woken.release()
                if self.over:
                    break
        finally:
            with suppress(Exception):  # there is none, or nothing is left of it
                self.connection.close()
            with suppress(Exception):  # one that a proxy refused Python 3.9 leaves open
                os.close(self._sock.detach())
            self.hold(None)
            # urllib3 keeps what is in a pool, and so all of us, until the pool goes.
            self._pool = self.connection = None
            inside.discard(me)
            self._gone = True
            self._alive.release()

    def _why(self, root: BaseException) -> Unreachable:
        """``root`` made anew: the frames in its traceback hold headers and body."""
        if self.stage == "name resolution" and type(root).__name__ != "gaierror":
            self.stage = "connection"
        kind = Withheld if isinstance(root, Withheld) else Unreachable
        return kind(in_words(root), self.stage)

    def end(self, patience_s: float = _GRACE_S) -> bool:
        """Send nothing more, and notice at once; from any thread. Whether that has come to its end by then."""
        self.over = True
        with suppress(RuntimeError):  # it knows already
            self.asked.release()
        self._alone("shutdown", self.handle, _SHUT_RDWR)
        if not self._gone:
            self._alive.acquire(True, patience_s)
        return self._gone

    def left_s(self) -> float:
        """How long one system call may take: by this ends a thread that nothing wakes."""
        return max(0.0, min(self._ends_at - monotonic(), self.timeout_s)) + _GRACE_S

    def hold(self, handle: Any) -> None:
        """From here on ``end`` shuts this one."""
        if self.handle is not None:
            self._alone("close", self.handle)
        self._identity = handle and identity(os.fstat, handle.fileno())
        self.handle = handle

    def _alone(self, verb: str, handle: Any, *given: int) -> None:
        """Who was broken off in here by a Ctrl-C is not waited for long."""
        held = self._lock.acquire(True, _GRACE_S)
        with suppress(AttributeError, OSError):  # there is none, or it is closed
            self.let_be(handle)
            getattr(handle, verb)(*given)
        if held:
            self._lock.release()

    def go_on(self, sock: Any) -> None:
        """Raise ``Unreachable`` where nobody waits any more."""
        self._sock = sock
        sock.settimeout(self.left_s())
        if self.over or self._pid != os.getpid():
            raise Unreachable("is over")

    def let_be(self, sock: Any) -> None:
        """A host may have closed it: what has its number by now is not ours to touch."""
        if identity(os.fstat, sock.fileno()) != self._identity:  # Windows tells nothing of a socket
            sock.detach()

    def exchange(self, request: Request) -> Response:
        """One request and its answer."""
        url, self.request = request.url, request
        self._pool = self._pool or self._make_pool(url)
        how: Any = {"retries": False, "redirect": False, "assert_same_host": False}
        how.update(preload_content=False, decode_content=False, timeout=self.left_s())
        place = url if self._absolute else "/" + url.split("/", 3)[3]
        headers = {**request.headers, "Accept-Encoding": "identity"}
        send: Any = type(self._pool).urlopen
        # Wrapped for a host that makes an event of each request, and so another request.
        while hasattr(send, "__wrapped__"):
            send = send.__wrapped__
        answer = send(self._pool, request.method, place, request.body, headers, **how)
        body, whole = b"", False
        with suppress(Exception):  # broken off
            body = answer.read(MAX_ANSWER_BYTES + 1, decode_content=False)
            whole = not answer.length_remaining
        answer.close()
        headers = {name.lower(): answer.headers[name] for name in answer.headers}
        body, unpacked_whole = unpacked(body, headers.get("content-encoding", ""))
        return Response(answer.status, headers, body, whole and unpacked_whole)

    def _make_pool(self, url: str) -> Any:
        for name in _NATIVE:
            # It may not be in this build of Python, or under another name.
            with suppress(ModuleNotFoundError):
                __import__(name)
        from http.client import HTTPResponse

        from urllib3 import PoolManager, ProxyManager, make_headers

        from .values import find_proxy

        owner, seen, self.stage = self.owner, self.owner.seen, "proxy"
        self.proxy, who, seen.proxy_from = find_proxy(url, owner)
        seen.proxy, (user, _, password) = self.proxy, who.partition(":")
        manager: Any = PoolManager()
        if self.proxy[:4] == "http":
            basic = ("%s:%s" % (user, password)).encode().decode("latin-1")  # back to UTF-8
            auth = make_headers(proxy_basic_auth=basic) if who else None
            manager = ProxyManager(self.proxy, proxy_headers=auth)
        elif self.proxy:
            __import__("socks")  # first: urllib3 would warn on stderr
            from urllib3.contrib.socks import SOCKSProxyManager

            manager = SOCKSProxyManager(self.proxy, user or None, password or None)
        self.stage = "TLS"
        if "https:" in (url[:6], self.proxy[:6]):
            self.context, seen.store = client_context(owner.ca_bundle, owner.environ)
        pool = manager.connection_from_url(url)  # the one for this server
        answer = type("Answer", (_Answer, HTTPResponse), {"line": self})
        ours = {"line": self, "response_class": answer}
        pool.ConnectionCls = type("Connection", (_Connection, pool.ConnectionCls), ours)
        self._absolute = self.proxy[:4] == "http" and url[:5] == "http:"
        return pool

    def forked(self) -> None:
        """In the child: let go of the parent's sockets, which a thread may hold that is not here."""
        for sock in (self.handle, getattr(self.connection, "sock", self.handle)):
            with suppress(Exception):
                self.let_be(sock)
                os.close(sock.detach())


_Base: Any = object  # urllib3's and http.client's own come in with the first request


class _Connection(_Base):  # type: ignore[misc]
    """urllib3's; its ``send`` asks before it writes: the one hook for lateness, consent and forks."""

    # A host that debugs its own HTTP by the class-wide one must not get our headers printed.
    debuglevel = 0
    _held = b""

    def putheader(self, header: str, *values: str) -> None:
        """Our own names and no others, whatever instruments the host."""
        if header.lower() in [*_HEADERS, *map(str.lower, self.line.request.headers)]:
            super().putheader(header, *values)

    def connect(self) -> None:
        """Through proxy and TLS. urllib3's own warns on stderr of an early clock, and changes contexts."""
        import _socket

        line, host = self.line, self._tunnel_host
        line.connection, line.stage = self, "proxy" if line.proxy else "name resolution"
        self.timeout = line.left_s() / 3  # a dead address leaves the next its turn
        self.sock = self._new_conn()
        if self.sock.fileno() < 3:
            self.sock = type(self.sock)(fileno=above_stdio(self.sock.detach()))
        line.hold(_socket.socket(fileno=above_stdio(_socket.dup(self.sock.fileno()))))
        line.go_on(self.sock)
        line.owner.seen.peer = "%s port %d" % self.sock.getpeername()[:2]
        if host:
            if line.proxy[:6] == "https:":
                self._start_tls(self.host)
            self._tunnel()
            line.go_on(self.sock)
        if self.default_port == _HTTPS_PORT:
            line.stage = "TLS" if host or line.proxy[:4] != "http" else "proxy"
            self._start_tls(host or self.host)
        self.is_verified = True

    def _start_tls(self, host: str) -> None:
        sock, seen, context = self.sock, self.line.owner.seen, self.line.context
        if hasattr(sock, "cipher"):  # TLS already, to a proxy
            from urllib3.util.ssltransport import SSLTransport

            self.sock = SSLTransport(sock, context, host.strip("[]"))
        else:
            self.sock = context.wrap_socket(sock, server_hostname=host.strip("[]"))
        seen.tls, seen.cipher = self.sock.version(), (self.sock.cipher() or ("",))[0]
        if not seen.tls:  # of one that was reset already the ssl module makes a socket without TLS
            raise Unreachable("the connection was lost before the handshake")

    def close(self) -> None:
        """urllib3 calls it too."""
        with suppress(AttributeError):  # there is none yet
            self.line.let_be(self.line._sock)
        super().close()

    def send(self, data: bytes) -> None:
        """Write, if that is still allowed; head and body together, or a relay waits between them (Nagle)."""
        line, tunnel = self.line, data[:8] == b"CONNECT "
        if self.sock is None:
            self.connect()
        if line.request.body and not (tunnel or self._held):
            self._held = data
            return
        data, self._held = self._held + data, b""
        line.stage = "proxy" if tunnel else "answer"
        line.let_be(self.sock)
        line.go_on(self.sock)
        if not line.request.may_send():
            raise Withheld("withheld")
        super().send(data)


class _Answer(_Base):  # type: ignore[misc]
    """http.client's, past every 1xx; it ends the connection where more than the answer came."""

    def begin(self) -> None:
        """Read the head; raises ``Unreachable`` where readers of it could disagree."""
        super().begin()
        # http.client skips 100 alone: after a 103 the next request would get this one's answer.
        while self.status < 200:
            if self.status == 101:
                raise Unreachable("not an HTTP answer (another protocol)")
            self.headers = None
            super().begin()
        # RFC 9112, 6.3: the same length twice is one. Two, or one beside chunks: smuggling.
        said = [*self.msg.get_all("content-length", ()), *self.msg.get_all("transfer-encoding", ())]
        lengths = {one.strip() for one in ",".join(said).split(",")}
        # Before urllib3 sees it, which would log the server's bytes as a warning into the host's stderr.
        if len(lengths) > 1 or self.msg.defects or self.msg.get_payload():
            raise Unreachable("not an HTTP answer (malformed headers, or two lengths)")
        if self.length is None and min(lengths).isdecimal():
            self.length: Any = int(min(lengths))

    def _close_conn(self) -> None:
        """The body was read. What came behind it, in a buffer or in that of TLS, would show to nobody."""
        with suppress(Exception):  # nothing is there
            self.line._sock.settimeout(0)
            self.line.over |= self.fp.peek(1) != b""
        super()._close_conn()


def client_context(ca_bundle: Optional[str], environ: Mapping[str, str]) -> tuple[Any, str]:
    """A context that trusts the first of these that is there, and its name; raises where none is.

    ``ca_bundle`` (a PEM file whose revocation lists are obeyed, or a directory as ``openssl rehash`` makes it);
    SSL_CERT_FILE (of a pipe there would be no end); the system's store; ``certifi``. Certificates and host names are
    always checked, TLS is 1.2 or newer.
    """
    import ssl

    path, store, named = ca_bundle or "", "ca_bundle", environ.get("SSL_CERT_FILE", "")
    if not path and os.path.isfile(named):
        path, store = named, "SSL_CERT_FILE"
    # The system's own verifier knows more than the files that OpenSSL reads; elsewhere there are only those files.
    if not path and sys.platform in ("win32", "darwin"):
        with suppress(ImportError):
            from truststore import SSLContext  # type: ignore[import-not-found, unused-ignore]

            return SSLContext(ssl.PROTOCOL_TLS_CLIENT), "the system's store, through truststore"
    context: Any = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tells = type(context).__module__ == "ssl"  # truststore's, if a host put it there, does not
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False  # RFC 9525, 2: a common name is no host name
    if not path:
        store = "the system's store"
        if not named:  # else OpenSSL would read it, whatever it is
            context.load_default_certs()
        # Of a directory there OpenSSL reads what it needs when it verifies.
        capath = not named and ssl.get_default_verify_paths().capath
        if tells and not context.cert_store_stats()["x509"] and not (capath and os.listdir(capath)):
            bundles = [path for path in _BUNDLES.split() if os.path.isfile("/etc/" + path)]
            path = store = "/etc/" + bundles[0] if bundles else __import__("certifi").where()
    if path:
        try:
            context.load_verify_locations(**{"capath" if os.path.isdir(path) else "cafile": path})
        except OSError as error:  # ssl.SSLError is one
            raise Unreachable("%s cannot be read: %s" % (store, in_words(error))) from None
    if tells and ca_bundle and context.cert_store_stats()["crl"]:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context, store
