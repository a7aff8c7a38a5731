"""One request, one answer, one wall-clock limit: urllib3 with everything clever switched off, on a thread of its own.

Looking a name up, a proxy, a handshake, an answer that drips: each blocks for as long as it likes, so a request runs on
a daemon thread that may be left behind. Who waits for it holds the time, shuts the socket down when that is over, and
goes on, whatever the host did to its clock, ``socket`` or ``ssl``. Nothing is followed, resent or believed here; no
text of a server gets into a reason; a proxy's password goes to that proxy alone.
"""

from __future__ import annotations

import _thread  # its functions are looked up when they are used: gevent and eventlet replace them
import os
import sys
from contextlib import suppress
from time import monotonic

from .clock import start_thread
from .values import MAX_ANSWER_BYTES, Response, Unreachable, Withheld, inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from http.client import HTTPResponse as _BaseAnswer
    from typing import Any, Callable, Optional

    from urllib3.connection import HTTPSConnection as _BaseConnection

    from .config import Config
    from .values import Request
else:  # urllib3's own come in when the first request is sent
    _BaseAnswer = _BaseConnection = object

# How long a thread is given to notice that its socket was shut, before it counts as left behind.
_GRACE_S = 0.1
_CHUNK_BYTES = (
    1024  # so that what is packed into one, which is decoded at once, is at most a megabyte
)
_INTERIM_MAX = 16
_SHUT_RDWR = 2
_IMPORTED_BY = os.getpid()
# What the libraries below do without where it cannot be loaded, which may be for want of a descriptor just now.
_NATIVE = "unicodedata _ssl zlib _hashlib _blake2 _md5 _sha1 _sha2 _sha256 _sha512 _sha3".split()
# Where systems keep their bundle: a frozen program's OpenSSL looks where its build machine kept it (pyinstaller#5450).
_SYSTEM_BUNDLES = [
    "/etc/ssl/cert.pem",  # Alpine, Arch, BSD, macOS
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",  # older Fedora, RHEL
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu
    "/etc/ssl/ca-bundle.pem",  # SUSE
]


class Seen:
    """What the last new connection came by, as far as it came: for people, never for a decision.

    ``proxy`` is its address without user name; ``proxy_from`` says where that is written, or why there is none.
    """

    proxy = proxy_from = peer = tls = cipher = store = ""


class HttpTransport:
    """HTTP/1.1 over kept connections. One thread at a time, but for ``interrupt`` and ``close``.

    ::

        who asks                                   the line to that server
        send(request)
          start_thread(line.run) ----------------> urllib3: connect, ask whether to go on, write, read
          sleeps for timeout_s at most
            done: the answer    <----------------- wakes it
            late, interrupted: line.stop() ------> its socket is shut; it ends, and the connection with it
              not within _GRACE_S                  inside a system call: is left behind, and until it has
                                                   come back no other request to that server begins
    """

    def __init__(
        self,
        *,
        proxy: Optional[str] = None,
        proxy_auth: Optional[str] = None,
        ca_bundle: Optional[str] = None,
        environ: Optional[Mapping[str, str]] = None,
        resolve: Any = None,
    ) -> None:
        """``proxy``: None asks environment and system, "" and "direct" mean none. ``environ``: None is the process's.

        ``resolve`` stands in for ``socket.getaddrinfo`` in tests.
        """
        self.proxy, self.proxy_auth, self.ca_bundle = proxy, proxy_auth, ca_bundle
        self.environ = os.environ if environ is None else environ
        self.resolve, self.seen, self.closed = resolve, Seen(), False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._woken: Any = None
        self._context: Any = None
        self._lines: dict[object, _Line] = {}

    @classmethod
    def of(cls, config: Config, environ: Mapping[str, str]) -> HttpTransport:
        """The one that a configuration describes."""
        how: Any = {name: getattr(config, name) for name in ("proxy", "proxy_auth", "ca_bundle")}
        return cls(environ=environ, **how)

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
        line = self._lines.setdefault(server, _Line(self))
        if not line.ends(_GRACE_S):
            raise _unreachable("does not answer (an earlier request hangs)", line.stage)
        interrupted, self._woken = False, line.begin(timeout_s)
        try:
            if self.closed:
                raise RuntimeError("the transport is closed")
            start_thread(line.run, call)
            interrupted = line.woken.acquire(True, line.timeout_s)  # by no clock of the host
        except RuntimeError as error:
            line.done, line.failure = True, Unreachable(str(error))
        finally:  # also after a Ctrl-C
            self._woken = None
            if not line.done:
                line.stop(interrupted)
                line.ends(_GRACE_S)
            if self.closed:
                self.rest()
        failure = line.over or line.failure
        if failure is not None:
            raise failure
        return line.answer

    def trust(self) -> tuple[Any, str]:
        """One context for all connections, so that authorities are read once."""
        self._context = self._context or client_context(self.ca_bundle, self.environ)
        return self._context

    def rest(self) -> None:
        """Close idle connections; CA certificates and proxy settings are read again by the next send."""
        self._context = None
        for server, line in list(self._lines.items()):
            if line.done:
                self._lines.pop(server, None)
                line.close()

    def close(self) -> None:
        """Break off what runs and close everything; from any thread, any number of times."""
        self.closed = True
        self.interrupt()  # who is in the middle of a request rests at its end
        if self._woken is None:
            self.rest()

    def interrupt(self) -> None:
        """Break off the request in flight, if there is one; from any thread, and from a signal handler."""
        woken = self._woken
        if woken is not None and self._pid == os.getpid():
            with suppress(RuntimeError):  # is awake
                woken.release()

    def after_fork(self) -> None:
        """In the child: begin anew; connections and threads are the parent's."""
        lines = self._lines
        self._begin()
        for line in lines.values():
            line.drop()


class _Line:
    """The way to one server: its kept connection, and the request that is on it.

    Who waits sets ``over`` and then shuts ``handle``; the thread sets ``handle`` and then looks at ``over``. One of
    both is in time, so a thread that was left behind sends nothing late.
    """

    def __init__(self, owner: HttpTransport) -> None:
        self.owner, self.done, self.stage = owner, True, ""
        self.connection: Any = None
        # Another descriptor of the plain socket, to shut down: SSLSocket.shutdown forgets TLS first, and what the
        # thread writes in that moment would leave in clear text.
        self.handle: Any = None
        self._lock = _thread.allocate_lock()  # between closing and shutting it
        self._manager: Any = None

    def begin(self, timeout_s: float) -> Any:
        """Forget the last request; returns what ends the wait for this one when it is released."""
        self.timeout_s, self.pid = max(0.01, timeout_s), os.getpid()
        self._ends_at = monotonic() + self.timeout_s
        self.stage, self.done, self.unread = "", False, False
        self.answer: Any = None
        self.over: Optional[Unreachable] = None
        self.failure: Optional[Unreachable] = None
        self.woken = _thread.allocate_lock()
        self.woken.acquire()
        return self.woken

    def run(self, call: Callable[[_Line], Any]) -> None:
        """All that happens on the thread."""
        inside.request = True
        try:
            self.answer = call(self)
        except (
            BaseException
        ) as error:  # noqa: B036 - whatever the host hooked, nothing is printed into it
            self.failure = _explain(error, self.stage)
        if self.over or self.failure or self.unread:
            self.close()  # what is still to come would pass for the next answer
        self._hold(None)
        self.done = True
        with suppress(RuntimeError):  # is awake
            self.woken.release()

    def ends(self, timeout_s: float) -> bool:
        """Whether the thread comes to its end within the time."""
        while not self.done and self.woken.acquire(True, timeout_s):
            pass
        return self.done

    def stop(self, interrupted: bool) -> None:
        """Send nothing more, and notice at once."""
        late = _unreachable("no answer within %g s" % self.timeout_s, self.stage)
        self.over = Unreachable("interrupted") if interrupted else late
        with self._lock, suppress(OSError):  # is not connected any more
            if self.handle is not None:
                self.handle.shutdown(_SHUT_RDWR)

    def left_s(self) -> float:
        """How long one system call may take: by this ends a thread that nothing wakes."""
        return max(0.01, min(self._ends_at - monotonic(), self.timeout_s))

    def begin_on(self, sock: Any) -> None:
        """From here on ``stop`` ends what happens on ``sock``; raises ``Unreachable`` where nobody waits any more."""
        import _socket

        self._hold(_socket.socket(fileno=_socket.dup(sock.fileno())))
        sock.settimeout(self.left_s())
        if self.over or self.pid != os.getpid():
            raise Unreachable("is over")

    def _hold(self, handle: Any) -> None:
        with self._lock:
            if self.handle is not None:
                self.handle.close()
            self.handle = handle

    def exchange(self, request: Request) -> Response:
        """One request and its answer."""
        self.request = request
        self._manager = self._manager or self._make_manager(request.url)
        answer = self._manager.urlopen(
            request.method,
            request.url,
            body=request.body,
            headers={**request.headers, "Accept-Encoding": "identity"},
            timeout=self.left_s(),
            retries=False,
            redirect=False,
            preload_content=False,
        )
        body, more = b"", b"more"
        with suppress(Exception):  # broken off: what came is returned as incomplete
            while more and len(body) <= MAX_ANSWER_BYTES:
                more = answer.read(_CHUNK_BYTES)
                body += more
        if more:
            answer.close()
            self.unread = True
        body = body[3 if body[:3] == b"\xef\xbb\xbf" else 0 : MAX_ANSWER_BYTES]
        headers = {name.lower(): answer.headers[name] for name in answer.headers}
        return Response(answer.status, headers, body, not more)

    def _make_manager(self, url: str) -> Any:
        for name in _NATIVE:
            # hashlib would log a traceback into the host's stderr instead, urllib3 go without TLS and the interpreter
            # without the codec of host names, for good.
            with suppress(
                ModuleNotFoundError
            ):  # not in this build of Python, or under another name
                __import__(name)
        from http.client import HTTPResponse

        self.stage, owner = "proxy", self.owner
        self.seen = owner.seen = Seen()
        self.proxy, who, self.seen.proxy_from = _find_proxy(url, owner)
        self.seen.proxy = self.proxy
        context = None
        if "https:" in (url[:6], self.proxy[:6]):
            self.stage = "TLS"
            context, self.seen.store = owner.trust()
        self.stage = "proxy"
        manager = _make_manager(self.proxy, who, context)
        answer = type("Answer", (_Answer, HTTPResponse), {"line": self})
        ours = {"line": self, "response_class": answer}
        pools = {}
        for scheme, pool in manager.pool_classes_by_scheme.items():
            connection = type("Connection", (_Connection, pool.ConnectionCls), ours)
            pools[scheme] = type("Pool", (pool,), {"ConnectionCls": connection})
        manager.pool_classes_by_scheme = pools
        return manager

    def close(self) -> None:
        """Close the connection; not beside the thread."""
        if self.connection is not None:
            self.connection.close()

    def drop(self) -> None:
        """In a forked child: give descriptors back, without a lock, whose holder is gone, and without a word."""
        for sock in (self.handle, getattr(self.connection, "sock", None)):
            with suppress(AttributeError, OSError):
                os.close(getattr(sock, "socket", sock).detach())  # "socket": of TLS inside TLS


class _Connection(_BaseConnection):
    """urllib3's connection, whose ``send`` asks before it writes: the one hook for lateness, consent and forks."""

    line: _Line
    debuglevel = (
        0  # a host that debugs its own HTTP by the class-wide one must not get our headers printed
    )
    _held = b""

    def connect(self) -> None:
        """Connected, through proxy and TLS."""
        line: Any = self.line
        line.connection, line.owner.seen = self, line.seen
        super().connect()
        sock: Any = self.sock
        if hasattr(sock, "cipher"):
            line.seen.tls, line.seen.cipher = sock.version() or "", (sock.cipher() or ("",))[0]
            if (
                not line.seen.tls
            ):  # of one that was reset already the ssl module makes a socket without TLS
                raise Unreachable("the connection was lost before the handshake")

    def _new_conn(self) -> Any:
        line, by_http = self.line, self.line.proxy[:4] == "http"
        line.stage = "proxy" if line.proxy else "name resolution"
        if line.proxy and not by_http:
            sock = super()._new_conn()  # PySocks
            line.begin_on(sock)
        else:
            sock = self._dial()
        line.stage = "proxy" if by_http else "TLS"
        return sock

    def _dial(self) -> Any:
        import socket

        line, failure = self.line, "the name has no address"
        look_up = line.owner.resolve or socket.getaddrinfo
        found = look_up(self.host, self.port, 0, socket.SOCK_STREAM)
        line.stage = line.stage.replace("name resolution", "connection")
        # Families take turns: no run of dead addresses of one before the first of the other.
        families = [one[0] for one in found]
        turns = [(families[:at].count(families[at]), at) for at in range(len(found))]
        for tried, (_, at) in enumerate(sorted(turns), 1):
            sock = socket.socket(*found[at][:3])
            try:
                line.begin_on(sock)
                if tried < len(found):  # one that is dead leaves the next its turn
                    sock.settimeout(min(line.left_s(), line.timeout_s / 3))
                sock.connect(found[at][4])
                sock.settimeout(line.left_s())
                line.seen.peer = "%s port %d" % found[at][4][:2]
                return sock
            except (OSError, Unreachable) as error:
                sock.close()
                failure = _reason(error)
        # Not as an OSError: urllib3 takes some for an early answer, and looks for it without a connection.
        raise Unreachable(failure)

    def _tunnel(self) -> None:
        super()._tunnel()  # type: ignore[misc, unused-ignore]
        self.line.stage = "TLS"

    def putheader(self, header: Any, *values: Any) -> None:
        """Our own names and no others, whatever instruments the host."""
        ours = {"Host", "Content-Length", "Accept-Encoding", *self.line.request.headers}
        if header in ours or (header == "Proxy-Authorization" and self.line.proxy):
            super().putheader(header, *values)

    def send(self, data: Any) -> None:
        """Write, if that is still wanted and allowed; head and body together."""
        line, tunnel = self.line, data[:8] == b"CONNECT "
        if self.sock is None:
            self.connect()
        if line.request.body and data[-4:] == b"\r\n\r\n" and not (tunnel or self._held):
            self._held = data
            return
        data, self._held = self._held + data, b""
        line.stage = "proxy" if tunnel else "answer"
        line.begin_on(self.sock)
        if not line.request.may_send():
            raise Withheld("withheld")
        super().send(data)


class _Answer(_BaseAnswer):
    """http.client's answer, past every 1xx, and aware of what came behind it."""

    line: _Line

    def _read_status(self) -> Any:
        from http.client import parse_headers

        # http.client skips 100 alone: after a 103 the next request would get this one's answer.
        for _ in range(_INTERIM_MAX):
            found = super()._read_status()  # type: ignore[misc]
            if found[1] >= 200:
                return found
            parse_headers(self.fp)
        raise Unreachable("not an HTTP answer (interim ones without end)")

    def begin(self) -> None:
        """Read the head; raises ``Unreachable`` where readers of it could disagree."""
        super().begin()
        # Before urllib3 sees it, which would log the server's bytes as a warning into the host's stderr.
        # RFC 9112, 6.3: both lengths at once are an attempt at smuggling.
        lengths = "content-length" in self.msg and "transfer-encoding" in self.msg
        if lengths or self.msg.defects or self.msg.get_payload():
            raise Unreachable("not an HTTP answer (malformed headers)")

    def _close_conn(self) -> None:
        sock = self.line.connection.sock
        if sock is not None:  # is kept: only where nothing waits behind the answer
            with suppress(OSError):
                sock.settimeout(0)
                self.line.unread |= bool(self.fp.peek(1))
        super()._close_conn()  # type: ignore[misc]


def _make_manager(proxy: str, who: str, context: Any) -> Any:
    from binascii import b2a_base64
    from warnings import filterwarnings

    from urllib3 import PoolManager, ProxyManager
    from urllib3.exceptions import SystemTimeWarning

    # On stderr, at each connection, where the clock is before urllib3's release.
    filterwarnings("ignore", category=SystemTimeWarning)
    user, _, password = who.partition(":")
    if not proxy:
        return PoolManager(ssl_context=context)
    if proxy[:4] == "http":
        token = b2a_base64(("%s:%s" % (user, password)).encode(), newline=False).decode("ascii")
        headers = {"Proxy-Authorization": "Basic " + token} if who else {}
        both = {"ssl_context": context, "proxy_ssl_context": context}
        return ProxyManager(proxy, proxy_headers=headers, **both)
    __import__("socks")  # first: urllib3 would warn on stderr
    from urllib3.contrib.socks import SOCKSProxyManager

    return SOCKSProxyManager(proxy, user or None, password or None, ssl_context=context)


def _find_proxy(url: str, owner: HttpTransport) -> tuple[str, str, str]:
    """Address ("" for none), user name with password, and where that is written. May look names up, on Windows.

    The given one wins; "" and "direct" mean none. Else by the rules of ``urllib.request``: the environment's or, where
    that names none, the system's; ``all_proxy`` is for what no other names. What goes in clear text is for this machine
    alone (``config``), and nobody else is asked for it.
    """
    from functools import partial
    from urllib import request
    from urllib.parse import unquote, urlsplit

    rules: Any = request
    found, source, parts = owner.proxy, "the setting proxy", urlsplit(url)
    if found is None and parts.scheme == "https":
        # Capitals come first, so lower case wins.
        named = sorted(item for item in owner.environ.items() if item[0][-6:].lower() == "_proxy")
        proxies = {name[:-6].lower(): address for name, address in named}
        source, bypass = "the environment", partial(rules.proxy_bypass_environment, proxies=proxies)
        for kind in ("registry", "macosx_sysconf"):
            # Not in the child of a fork: the system's libraries may abort there (bpo-30385).
            if hasattr(rules, "getproxies_" + kind) and not proxies and os.getpid() == _IMPORTED_BY:
                proxies, source = getattr(rules, "getproxies_" + kind)(), "the system's settings"
                bypass = getattr(rules, "proxy_bypass_" + kind)
        socks = proxies.get("socks", "").rpartition("//")[2]
        found = proxies.get("https") or proxies.get("all") or (socks and "socks5h://" + socks)
        host = parts.hostname or ""
        if found and (bypass(host) or bypass("%s:%d" % (host, parts.port or 443))):
            found, source = "", "an exception in " + source
    if found in (None, "", "direct"):
        return "", "", source
    parts = urlsplit(found if "://" in found else "http://" + found)
    who, _, place = parts.netloc.rpartition("@")
    # Behind the host it is that of a password with a bare "/", "?" or "#": the start would pass for a host.
    if not place or "@" in parts.path + parts.query + parts.fragment:
        raise Unreachable(source + " names no proxy")
    # Desktops write "socks" and mean that the proxy looks names up.
    scheme = "socks5h" if parts.scheme == "socks" else parts.scheme
    return "%s://%s" % (scheme, place), unquote(who) or owner.proxy_auth or "", source


def client_context(ca_bundle: Optional[str], environ: Mapping[str, str]) -> tuple[Any, str]:
    """A context that trusts the first of these that is there, and its name; raises ``Unreachable`` where none is.

    ``ca_bundle`` (a PEM file, or a directory as ``openssl rehash`` makes it; if a file holds revocation lists, they are
    obeyed); SSL_CERT_FILE (of a pipe there would be no end); the system's store; the ``certifi`` package. Certificates
    and host names are always checked, TLS is 1.2 or newer, and no setting turns that off.
    """
    import ssl

    named, store = environ.get("SSL_CERT_FILE", ""), "SSL_CERT_FILE"
    path = named if os.path.isfile(named) else ""
    if ca_bundle:
        path, store = ca_bundle, "ca_bundle"
    make: Any = ssl.SSLContext
    if not path:
        store = "the system's store"
        # The system's own verifier knows more than the files that OpenSSL can read. Elsewhere there are only those
        # files, and truststore would read them again for every connection.
        if sys.platform in ("win32", "darwin"):
            with suppress(ImportError):
                from truststore import SSLContext as make  # type: ignore[import-not-found, no-redef, unused-ignore]
    context = make(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if make is not ssl.SSLContext:
        return context, store + ", through truststore"
    context.hostname_checks_common_name = False  # RFC 9525, 2: a common name is no host name
    if not path:
        context.load_default_certs()
        # OpenSSL finds a certificate in a directory by the hash in its name, "5ed36f99.0", when it verifies.
        capath = ssl.get_default_verify_paths().capath
        hashed = capath and any(name[8:9] == "." for name in os.listdir(capath))
        if not hashed and not context.cert_store_stats()["x509"]:
            path = store = _first_bundle()
    if path:
        try:
            context.load_verify_locations(**{"capath" if os.path.isdir(path) else "cafile": path})
        except OSError as error:  # ssl.SSLError is one
            raise Unreachable("%s cannot be read: %s" % (store, _reason(error))) from None
    if ca_bundle and context.cert_store_stats()["crl"]:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context, store


def _first_bundle() -> str:
    for path in filter(os.path.isfile, _SYSTEM_BUNDLES):
        return path
    try:
        import certifi  # type: ignore[import-not-found, unused-ignore]

        return str(certifi.where())
    except ImportError:
        raise Unreachable("no CA certificates found (set ca_bundle or SSL_CERT_FILE)") from None


def _unreachable(reason: str, stage: str) -> Unreachable:
    return Unreachable("%s: %s" % (stage, reason) if stage else reason, stage)


def _explain(error: BaseException, stage: str) -> Unreachable:
    """What to raise for ``error``, made anew: the frames in its traceback hold headers and body."""
    if isinstance(error, Withheld):
        return Withheld(error.reason)
    return _unreachable(_reason(error), stage)


def _reason(error: BaseException) -> str:
    """Why there was no answer, in words that are safe to show.

    Exceptions of HTTP libraries quote what they choked on: URLs, header values, the server's bytes. Only texts made
    here or by the operating system, and the fixed vocabulary of TLS, are passed on.
    """
    import errno
    import ssl
    from http.client import HTTPException, RemoteDisconnected

    # urllib3 keeps what it wraps among the arguments, or raises in the middle of handling it.
    while not isinstance(error, (Unreachable, OSError, HTTPException)):
        inner = [one for one in (*error.args, error.__context__) if isinstance(one, BaseException)]
        if not inner:
            break
        error = inner[0]
    error = getattr(error, "socket_err", None) or error  # PySocks
    if isinstance(error, Unreachable):
        return error.reason
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate refused: %s" % error.verify_message
    if isinstance(error, ssl.SSLError):
        said = error.reason or (error.strerror or "").partition(" (")[0]
        return str(said).replace("_", " ").lower()
    if isinstance(error, RemoteDisconnected):
        return "the server closed the connection without an answer"
    if isinstance(error, HTTPException):
        return "not an HTTP answer (%s)" % type(error).__name__
    if isinstance(error, ImportError):
        name = error.name or "needed here"
        return "the library %s cannot be imported" % ("PySocks" if name == "socks" else name)
    # The status of a proxy's answer to CONNECT is there and nowhere else.
    status = str(error).partition("Tunnel connection failed: ")[2][:3]
    if status.isdigit():
        return "refused to connect (HTTP %s)" % status
    if isinstance(error, OSError) and error.strerror:
        name = errno.errorcode.get(error.errno or 0, "")
        return "%s (%s)" % (error.strerror, name) if name else error.strerror
    return type(error).__name__
