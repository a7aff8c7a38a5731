"""Proxies: real ones, and small raw ones for what no real one does on demand."""

import contextlib
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.sockets import Authority, Behaviour, Server, relay, tls

from . import programs
from .programs import NAME, address
from .situations import PROXIES, situation
from .stage import Run, Stage

CHILD: tuple[str, ...] = ()  # a process of its own and nothing around it
DEAD = "http://127.0.0.1:9"
GONE = "offline: proxy: Connection refused.*"
ASKED = r"offline: proxy: refused to connect \(HTTP 407\)"


def connect(connection: socket.socket, server: Server) -> None:
    """A proxy that takes every CONNECT to a port of loopback, whatever the name."""
    head = server.read_request(connection)
    port = int(head.split()[1].rpartition(b":")[2])
    with socket.create_connection(("127.0.0.1", port)) as upstream:
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        relay(connection, upstream)


def inspecting(authority: Authority, upstream_ca: Path) -> Behaviour:
    """A gateway that looks into TLS: what it shows to the inside is signed by ``authority``."""

    def behaviour(connection: socket.socket, server: Server) -> None:
        host, _, port = server.read_request(connection).split()[1].decode().rpartition(":")
        outside = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        outside.load_verify_locations(upstream_ca)
        inside = authority.context(authority.issue(host))
        with socket.create_connection(("127.0.0.1", int(port))) as plain:
            with outside.wrap_socket(plain, server_hostname=host) as upstream:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                tls(inside, lambda secure, _: relay(secure, upstream))(connection, server)

    return behaviour


class Squid:
    """Squid, and the collector under a name that it alone knows."""

    def __init__(self, stage: Stage, auth: str = "") -> None:
        self.stage, self.program = stage, programs.squid(stage, auth)
        self.server = stage.serve(stage.behind_tls(NAME))
        self.url = "https://%s:%d" % (NAME, self.server.port)

    def product(self, *login: str, url: str = "", **how: Any) -> Run:
        """One that goes through it."""
        how.setdefault("proxy", address("http", self.program.port, *login))
        return self.stage.product(url or self.url, **how)


# --- squid --------------------------------------------------------------------------------------


@situation("squid", PROXIES, "squid")
def squid(stage: Stage) -> None:
    """Squid; the server's name is known to it alone"""
    stage.delivers(Squid(stage).product(usage=True), 3)


@situation("squid-basic", PROXIES, "squid", "openssl")
def squid_basic(stage: Stage) -> None:
    """Squid with Basic authentication; from the environment, user and password from the configuration"""
    at, auth = Squid(stage, "basic"), ":".join(stage.login)
    environ = {"https_proxy": address("http", at.program.port)}
    stage.delivers(at.product(proxy=None, command=CHILD, environ=environ, proxy_auth=auth), 3)


@situation("squid-password", PROXIES, "squid", "openssl")
def squid_password(stage: Stage) -> None:
    """Squid with Basic authentication; user and password in its address, wrong, then right"""
    at, (user, password) = Squid(stage, "basic"), stage.login
    stage.fails(at.product(user, password[::-1] + "x"), ASKED)
    stage.fails(at.product(), ASKED)
    stage.delivers(at.product(user, password, usage=True), 3)


@situation("squid-ntlm", PROXIES, "squid")
def squid_ntlm(stage: Stage) -> None:
    """Squid that takes Negotiate and NTLM only; an administrator then lets the host pass"""
    stage.fails(Squid(stage, "ntlm").product(), ASKED)
    stage.delivers(Squid(stage).product())


@situation("squid-refuses", PROXIES, "squid")
def squid_refuses(stage: Stage) -> None:
    """Squid that cannot reach the server"""
    at, nowhere = Squid(stage), "https://%s:9" % NAME
    stage.fails(at.product(url=nowhere), r"offline: proxy: refused to connect \(HTTP 503\)")
    stage.delivers(at.product())


@situation("squid-dies-tls", PROXIES, "squid")
def squid_dies_in_tls(stage: Stage) -> None:
    """Squid is killed in the middle of the TLS handshake"""

    def kill(connection: socket.socket, server: Server) -> None:
        connection.recv(1)
        at.program.kill()

    at = Squid(stage)
    at.server.behaviour, well = kill, at.server.behaviour
    product = at.product()
    stage.fails(product, "offline: TLS: .*")
    at.program.again()
    at.server.behaviour = well
    stage.delivers(product)


@situation("squid-dies-between", PROXIES, "squid")
def squid_dies_between_two(stage: Stage) -> None:
    """Squid is killed between two records of one delivery"""

    def kill(number: int, connection: socket.socket, ask: Callable[[], bytes]) -> None:
        if number == 2:
            at.program.kill()
            raise ConnectionAbortedError
        connection.sendall(ask())

    at = Squid(stage)
    at.server.behaviour = stage.behind_tls(NAME, behaviour=stage.answering(kill))
    product = at.product()
    stage.fails(product, "offline: answer: .*", delivered=1, count=5)
    at.program.again()
    stage.delivers(product)


# --- others -------------------------------------------------------------------------------------


@situation("proxy-dies-connect", PROXIES)
def dies_before_connect(stage: Stage) -> None:
    """A proxy that dies before it has answered CONNECT"""
    proxy = stage.serve(lambda connection, server: server.read_request(connection))
    product = stage.product(stage.https(), proxy=address("http", proxy.port))
    stage.fails(product, "offline: proxy: .*")
    proxy.behaviour = connect
    stage.delivers(product)


@situation("proxy-tls", PROXIES)
def over_tls(stage: Stage) -> None:
    """An https:// proxy: TLS inside TLS"""
    proxy = stage.serve(stage.behind_tls("127.0.0.1", behaviour=connect))
    stage.delivers(stage.product(stage.https(), proxy=address("https", proxy.port)), 3)


@situation("tinyproxy", PROXIES, "tinyproxy")
def tinyproxy(stage: Stage) -> None:
    """Tinyproxy with Basic authentication: no password, then the right one; a server of this machine by http://"""
    port, url = programs.tinyproxy(stage).port, stage.https()
    proxy = address("http", port, *map(programs.plain, stage.login))
    stage.fails(stage.product(url, proxy=address("http", port)), ASKED)
    for at in (url, stage.collector.url):
        # Over http:// it ends each connection after an answer, and does not say so.
        stage.delivers(stage.product(at, usage=True, proxy=proxy), 3, tries=10)


@situation("microsocks", PROXIES, "microsocks", "PySocks")
def microsocks(stage: Stage) -> None:
    """SOCKS 5 (microsocks) by way of PySocks, names looked up here and there; a wrong password, then the right one"""
    (user, password), url = stage.login, stage.https()
    port = programs.microsocks(stage).port
    wrong = stage.product(url, proxy=address("socks5h", port, user, password + "x"))
    stage.fails(wrong, r"offline: proxy: refuses us or our password \(SOCKS\)")
    for scheme in ("socks5", "socks5h"):
        proxy = address(scheme, port, user, password)
        stage.delivers(stage.product(url, usage=True, proxy=proxy))


def package(stage: Stage, name: str, code: str) -> Path:
    """A place to load a module from that is this code."""
    place = stage.directory / "packages"
    place.mkdir()
    (place / (name + ".py")).write_text(code)
    return place


# --- from the environment -----------------------------------------------------------------------


@situation("proxy-appears", PROXIES)
def appears(stage: Stage) -> None:
    """A laptop comes into an office and leaves it while the product runs: no proxy, one, one that is gone, none"""
    environ: dict[str, str] = {}
    proxy = stage.serve(connect)
    product = stage.product(stage.https(), environ=environ)
    stage.delivers(product)
    environ["https_proxy"] = address("http", proxy.port)
    stage.delivers(product)
    environ["https_proxy"] = DEAD
    stage.fails(product, GONE)
    environ.clear()
    stage.delivers(product)
    assert proxy.accepted == 1


@situation("proxy-environment", PROXIES, cost="once")
def environment(stage: Stage) -> None:
    """The proxy of a real environment: HTTPS_PROXY, all_proxy"""
    proxy, url = stage.serve(connect), stage.https()
    for number, name in enumerate(("HTTPS_PROXY", "all_proxy"), 1):
        environ = {name: address("http", proxy.port), "no_proxy": "other.example"}
        stage.delivers(stage.product(url, command=CHILD, environ=environ))
        assert proxy.accepted == number


@situation("no-proxy", PROXIES)
def no_proxy(stage: Stage) -> None:
    """A dead proxy, and an exception from it: host, suffix, host and port, address, IPv6, `*`"""
    url = stage.https("localhost", "127.0.0.1", "::1")
    port = url.rpartition(":")[2]
    in_digits, ipv6 = "https://127.0.0.1:" + port, six(stage)
    product = stage.product(url, environ={"https_proxy": DEAD, "no_proxy": "other.example,.lan"})
    stage.fails(product, GONE)
    forms = [(url, "x, localhost"), (url, ".localhost"), (url, "localhost:" + port), (url, "*")]
    forms += [(in_digits, "127.0.0.1"), (in_digits, "0.1")]
    forms += [(ipv6, "[::1]")] if ipv6 else []
    for at, (where, form) in enumerate(forms):
        environ = {"https_proxy": DEAD, ("no_proxy", "NO_PROXY")[at % 2]: form}
        stage.delivers(stage.product(where, environ=environ))


def six(stage: Stage) -> str:
    """The collector at [::1], "" where there is no IPv6."""
    with contextlib.suppress(OSError):
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
        return "https://[::1]:%d" % stage.serve(stage.behind_tls("::1"), listener).port
    return ""


# --- gateways that look into TLS ----------------------------------------------------------------


def inspected(stage: Stage, *ways: Callable[[Authority], dict[str, Any]]) -> None:
    """A TLS-inspecting proxy is not believed but where the product finds its authority, in one of these ``ways``."""
    authority = Authority(stage.directory / "gateway", "Acme Web Gateway")
    proxy = stage.serve(inspecting(authority, stage.authority.path))
    how: dict[str, Any] = {"url": stage.https(), "proxy": address("http", proxy.port)}
    stage.fails(stage.product(**how), "offline: TLS: certificate refused: .*")
    for way in ways:
        stage.delivers(stage.product(**how, **{"ca": Path(), **way(authority)}), 2)


def store(stage: Stage, *authorities: Authority) -> Path:
    """A directory of certificates as systems have it."""
    place = stage.directory / "store"
    place.mkdir()
    for one in authorities:
        command = ["openssl", "x509", "-hash", "-noout", "-in", str(one.path)]
        made = subprocess.run(command, capture_output=True, text=True, check=True)
        for name in (made.stdout.strip() + ".0", "ca-certificates.crt"):
            (place / name).write_bytes(one.path.read_bytes())
    return place


def over(place: Path) -> tuple[str, ...]:
    """A command to run a program to which ``place`` is the system's store of certificates."""
    script = (
        'for at; do [ "$at" = -- ] && break; [ -e "$at" ] && mount --bind %s "$at"; done' % place
    )
    script += '; while [ "$1" != -- ]; do shift; done; shift; exec "$@"'
    usual = (ssl.get_default_verify_paths().openssl_capath, "/etc/ssl/certs", "/etc/pki/tls/certs")
    return ("unshare", "--mount", "sh", "-c", script, "sh", *dict.fromkeys(usual), "--")


@situation("inspected-bundle", PROXIES)
def inspected_bundle(stage: Stage) -> None:
    """A gateway that looks into TLS; its CA then in `ca_bundle`"""
    inspected(stage, lambda its: {"ca": its.path})


@situation("inspected-file", PROXIES)
def inspected_file(stage: Stage) -> None:
    """… in SSL_CERT_FILE"""
    inspected(stage, lambda its: {"environ": {"SSL_CERT_FILE": str(its.path)}})


@situation("inspected-directory", PROXIES, "openssl")
def inspected_directory(stage: Stage) -> None:
    """… in SSL_CERT_DIR; in the directory that is `ca_bundle`"""

    def way(its: Authority) -> dict[str, Any]:
        return {"environ": {"SSL_CERT_DIR": str(store(stage, its))}, "command": CHILD}

    inspected(stage, way, lambda its: {"ca": stage.directory / "store"})


@situation("inspected-system", PROXIES, "openssl", "namespaces")
def inspected_system(stage: Stage) -> None:
    """… in the system's store"""
    inspected(stage, lambda its: {"command": over(store(stage, its))})


@situation("inspected-certifi", PROXIES, "namespaces")
def inspected_certifi(stage: Stage) -> None:
    """… in the bundle of `certifi`, where the system has no store"""

    def way(its: Authority) -> dict[str, Any]:
        place = package(stage, "certifi", "def where():\n    return %r\n" % str(its.path))
        return {"command": over(store(stage)), "python_path": place}

    inspected(stage, way)


@situation("no-ca", PROXIES, "namespaces")
def no_ca(stage: Stage) -> None:
    """No authority anywhere: no store, no `certifi`"""
    place = package(stage, "certifi", "raise ImportError(name='certifi')\n")
    how: dict[str, Any] = {"command": over(store(stage)), "python_path": place}
    stage.fails(
        stage.product(stage.https(), ca=Path(), **how), r"offline: TLS: no CA certificates .*"
    )
    stage.delivers(stage.product(stage.https()))
