"""Servers on loopback that are described by how they misbehave, and certificates to speak TLS with.

A ``Server`` runs a function per connection in a thread of its own; leaving the context ends all of them. Nothing here
knows the package under test.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Optional
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Behaviour = Callable[[socket.socket, "Server"], object]


class Server:
    """Listens at ``port``; ``accepted`` counts connections, ``requests`` holds what ``read_request`` read."""

    def __init__(self, behaviour: Behaviour, listener: Optional[socket.socket] = None) -> None:
        self.behaviour = behaviour
        self.accepted = 0
        self.requests: list[bytes] = []
        self.seen = threading.Event()  # something happened that a test waits for
        self.ended = threading.Event()
        self.gone = threading.Event()  # a client closed its connection
        self.left = threading.Event()  # this server closed a connection
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Server:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for sock in [self._listener, *self._connections]:
            with suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # of TLS, too, the plain one
            if os.name == "nt":  # a shutdown wakes nobody there
                with suppress(OSError):
                    socket.close(sock.detach())
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            self._connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                self.behaviour(connection, self)
            except OSError:
                pass  # the client left, which is often the point of the test
        self.left.set()

    def knows(self, connection: socket.socket) -> None:
        """Have this one ended too: TLS takes the descriptor out of the socket that was accepted."""
        self._connections.append(connection)

    def read_request(self, connection: socket.socket) -> bytes:
        """One whole request, or b"" when the client has closed."""
        request = message(connection)
        if request:
            self.requests.append(request)
        (self.seen if request else self.gone).set()
        return request


def message(sock: socket.socket) -> bytes:
    """A head, and a body of the length that it gives; b"" where either ends before."""
    data, size = b"", None
    while size is None or len(data) < size:
        more = sock.recv(65536)
        if not more:
            return b""
        data += more
        end = data.find(b"\r\n\r\n")
        if size is None and end >= 0:
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", data[:end])
            size = end + 4 + int(length[1] if length else 0)
    return data


def asked(url: str, request: bytes) -> bytes:
    """What the server at this address answers to these bytes."""
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as upstream:
        upstream.sendall(request)
        return message(upstream)


def answers(*parts: bytes, once: bool = False) -> Behaviour:
    """Answers every request of a connection with the same bytes; ``once``: one, and closes."""

    def behaviour(connection: socket.socket, server: Server) -> None:
        while server.read_request(connection):
            for part in parts:
                connection.sendall(part)
            if once:
                return

    return behaviour


def drips(start: bytes, again: bytes = b"x", every_s: float = 0.02) -> Behaviour:
    """Sends ``start``, then a little now and again for as long as somebody listens."""

    def behaviour(connection: socket.socket, server: Server) -> None:
        connection.recv(65536)
        server.seen.set()
        connection.sendall(start)
        while not server.ended.wait(every_s):
            connection.sendall(again)

    return behaviour


def floods(start: bytes, again: bytes) -> Behaviour:
    """Sends ``start``, then ``again`` as fast as the network takes it."""
    return drips(start, again * 1000, 0)


def silent(connection: socket.socket, server: Server) -> None:
    """Accepts, reads everything, never says a word."""
    while connection.recv(65536):
        server.seen.set()
    server.gone.set()


@contextmanager
def full_queue() -> Iterator[int]:
    """A port at which connecting ends in nothing: the kernel drops what knocks, as a firewall does."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with suppress(OSError):
            while True:
                knocking = stack.enter_context(socket.socket())
                knocking.settimeout(0.1)
                knocking.connect(listener.getsockname())
        yield listener.getsockname()[1]


def relay(one: socket.socket, two: socket.socket) -> None:
    """Pass on both ways until one of them ends, each piece at once: a request may come as two."""
    for sock in (one, two):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while -1 not in (one.fileno(), two.fileno()):  # closed by another thread
        for source in select.select([one, two], [], [])[0]:
            source.setblocking(False)
            try:
                data = source.recv(65536)
                while isinstance(source, ssl.SSLSocket) and source.pending():
                    data += source.recv(65536)
            except ssl.SSLWantReadError:
                continue  # a message of TLS itself, which ``select`` cannot know
            finally:
                source.setblocking(True)
            if not data:
                return
            (two if source is one else one).sendall(data)


@contextmanager
def names(*addresses: str, ask: Optional[Callable[[str], object]] = None) -> Iterator[list[str]]:
    """Every name but localhost has ``addresses``, ``host:port`` each; ``ask`` may take its time, or raise."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *how: Any, **more: Any) -> list[Any]:
        if host == "localhost" or not any(char.isalpha() for char in host) or ":" in host:
            return real(host, port, *how, **more)
        asked.append(host)
        if ask is not None:
            ask(host)
        found = (address.rpartition(":") for address in addresses)
        return [real(host, int(port), *how, **more)[0] for host, _, port in found]

    with mock.patch("socket.getaddrinfo", getaddrinfo):
        yield asked


def ok(body: bytes, *headers: bytes) -> bytes:
    """A plain answer with a length."""
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def tls(context: ssl.SSLContext, behaviour: Behaviour) -> Behaviour:
    """The same behaviour after a handshake."""

    def wrapped(connection: socket.socket, server: Server) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            server.knows(secure)
            behaviour(secure, server)

    return wrapped


class Authority:
    """A certificate authority of its own, whose certificates lie as PEM files in ``directory``."""

    def __init__(self, directory: Path, name: str = "A private CA") -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self._name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(name, self.key, x509.BasicConstraints(True, None))
        self.path = directory / (name.replace(" ", "-") + ".pem")
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(
        self,
        name: str,
        key: Any,
        *extensions: x509.ExtensionType,
        begins: int = -30,
        days: int = 30,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.timezone.utc)
        subject, issuer = (
            x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
            for text in (name, self._name)
        )
        builder = (
            x509.CertificateBuilder(issuer, subject, key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=begins))
            .not_valid_after(now + datetime.timedelta(days=days))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, isinstance(extension, x509.BasicConstraints))
        return builder.sign(self.key, hashes.SHA256())

    def issue(
        self,
        *hosts: str,
        name: str = "a server",
        key: Any = None,
        more: tuple[Any, ...] = (),
        **days: int,
    ) -> Path:
        """A PEM file with key and certificate for ``hosts``, from now + ``begins`` to now + ``days``."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        extensions: list[Any] = [x509.BasicConstraints(False, None), *more]
        if hosts:
            extensions.append(x509.SubjectAlternativeName(list(map(general_name, hosts))))
        return self._write(key, self._sign(name, key, *extensions, **days))

    def issue_self(self, host: str) -> Path:
        """A PEM file with the authority itself, as a server for ``host``."""
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        own = self._sign(self._name, self.key, x509.BasicConstraints(True, None), names)
        return self._write(self.key, own)

    def _write(self, key: Any, certificate: x509.Certificate) -> Path:
        path = self.directory / ("%x.pem" % certificate.serial_number)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def context(self, path: Path) -> ssl.SSLContext:
        """A server's context with the certificate of ``issue``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def over_tls(self, behaviour: Behaviour, *hosts: str) -> Behaviour:
        """The same behaviour, after a handshake as one of ``hosts``."""
        return tls(self.context(self.issue(*hosts)), behaviour)


def general_name(host: str) -> x509.GeneralName:
    """A name or an address."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
