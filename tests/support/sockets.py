"""Servers on loopback that are described by how they misbehave, and certificates to speak TLS with.

A ``Server`` runs a function per connection in a thread of its own; leaving the context ends all of them. Nothing here
knows the package under test.
"""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
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
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                self.gone.set()
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        while len(body) < length:
            more = connection.recv(65536)
            if not more:
                self.gone.set()
                return b""
            body += more
        self.requests.append(head + b"\r\n\r\n" + body)
        self.seen.set()
        return self.requests[-1]


def answers(*parts: bytes) -> Behaviour:
    """Answers every request of a connection with the same bytes."""

    def behaviour(connection: socket.socket, server: Server) -> None:
        while server.read_request(connection):
            for part in parts:
                connection.sendall(part)

    return behaviour


def answers_once(*parts: bytes) -> Behaviour:
    """Answers one request, then closes."""

    def behaviour(connection: socket.socket, server: Server) -> None:
        server.read_request(connection)
        for part in parts:
            connection.sendall(part)

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

    def behaviour(connection: socket.socket, server: Server) -> None:
        connection.recv(65536)
        connection.sendall(start)
        while not server.ended.is_set():
            connection.sendall(again * 1000)

    return behaviour


def silent(connection: socket.socket, server: Server) -> None:
    """Accepts, reads everything, never says a word."""
    while connection.recv(65536):
        server.seen.set()
    server.gone.set()


def relay(one: socket.socket, two: socket.socket) -> None:
    """Pass on both ways until one of them ends; one direction per thread, for TLS shows nothing to ``select``."""

    def pass_on(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for sock in (source, sink):
            try:
                # Not that of TLS, which would go on in clear text.
                own = socket.socket if isinstance(sock, ssl.SSLSocket) else type(sock)
                own.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                pass

    other = threading.Thread(target=pass_on, args=(two, one), daemon=True)
    other.start()
    pass_on(one, two)
    other.join(10)


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


class Authority:
    """A certificate authority of its own, whose certificates lie as PEM files in ``directory``."""

    def __init__(self, directory: Path, name: str = "A private CA") -> None:
        self.directory = directory
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(self._name, self._key, [], True, 365)
        self.path = directory / (name.replace(" ", "-") + ".pem")
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: list[x509.GeneralName],
        is_ca: bool,
        days: int,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=30))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def issue(self, *hosts: str, common_name: str = "a server", days: int = 30) -> Path:
        """A PEM file with key and certificate for ``hosts``; a negative number of days is one that is over."""
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
        return self._write(key, self._sign(subject, key, names, False, days))

    def _write(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Path:
        path = self.directory / ("%x.pem" % certificate.serial_number)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return path

    def issue_self(self, host: str) -> Path:
        """A PEM file with the authority itself, as a server for ``host``."""
        names: list[x509.GeneralName] = [x509.DNSName(host)]
        return self._write(self._key, self._sign(self._name, self._key, names, True, 30))

    def context(self, path: Path) -> ssl.SSLContext:
        """A server's context with the certificate of ``issue``."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def over_tls(self, behaviour: Behaviour, *hosts: str) -> Behaviour:
        """The same behaviour, after a handshake as one of ``hosts``."""
        context = self.context(self.issue(*hosts))

        def wrapped(connection: socket.socket, server: Server) -> None:
            with context.wrap_socket(connection, server_side=True) as secure:
                behaviour(secure, server)

        return wrapped
