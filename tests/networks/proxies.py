"""Proxies: real ones, and small raw ones for what no real one does on demand."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Optional

from support.sockets import Authority, Behaviour, Server

from . import programs
from .programs import NAME, address
from .situations import PROXIES, package, situation
from .stage import Stage, relay, tls

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


def named(stage: Stage) -> str:
    """The collector under a name that only a proxy knows."""
    return stage.https(NAME)


# --- squid --------------------------------------------------------------------------------------


@situation("squid", PROXIES, "squid")
def squid(stage: Stage) -> None:
    """Squid; the server's name is known to it alone"""
    port = programs.squid(stage, "").port
    stage.delivers(stage.product(named(stage), usage=True, proxy=address("http", port)), 3)


@situation("squid-basic", PROXIES, "squid", "openssl")
def squid_basic(stage: Stage) -> None:
    """Squid with Basic authentication, user and password in its address"""
    port = programs.squid(stage).port
    who = stage.secrets.proxy_user, stage.secrets.proxy_password
    stage.delivers(stage.product(named(stage), usage=True, proxy=address("http", port, *who)), 3)


@situation("squid-configured", PROXIES, "squid", "openssl")
def squid_configured(stage: Stage) -> None:
    """Squid from the environment, user and password from the configuration"""
    port = programs.squid(stage).port
    who = "%s:%s" % (stage.secrets.proxy_user, stage.secrets.proxy_password)
    environ = {"https_proxy": address("http", port)}
    product = stage.product(named(stage), command=CHILD, environ=environ, proxy_auth=who)
    stage.delivers(product, 3)


@situation("squid-password", PROXIES, "squid", "openssl")
def squid_password(stage: Stage) -> None:
    """Squid with Basic authentication and a password that is wrong, then right"""
    port, url = programs.squid(stage).port, named(stage)
    user, password = stage.secrets.proxy_user, stage.secrets.proxy_password
    wrong = stage.product(url, proxy=address("http", port, user, password[::-1] + "x"))
    stage.fails(wrong, ASKED)
    stage.fails(stage.product(url, proxy=address("http", port)), ASKED)
    stage.delivers(stage.product(url, proxy=address("http", port, user, password)))


@situation("squid-ntlm", PROXIES, "squid")
def squid_ntlm(stage: Stage) -> None:
    """Squid that takes Negotiate and NTLM only; an administrator then lets the host pass"""
    port, url = programs.squid(stage, "ntlm").port, named(stage)
    product = stage.product(url, proxy=address("http", port))
    stage.fails(product, ASKED)
    allowed = programs.squid(stage, "").port
    stage.delivers(stage.product(url, proxy=address("http", allowed)))


@situation("squid-refuses", PROXIES, "squid")
def squid_refuses(stage: Stage) -> None:
    """Squid that cannot reach the server"""
    port, url = programs.squid(stage, "").port, named(stage)
    nowhere = "https://%s:9" % NAME
    product = stage.product(nowhere, proxy=address("http", port))
    stage.fails(product, r"offline: proxy: refused to connect \(HTTP 503\)")
    stage.delivers(stage.product(url, proxy=address("http", port)))


def killer(stage: Stage, running: programs.Program) -> str:
    """A server's address at which the proxy dies with the second request, before that is answered."""

    def kill(number: int, connection: socket.socket) -> None:
        if number == 2:
            running.kill()
            raise ConnectionAbortedError

    behaviour = stage.behind_tls(NAME, behaviour=stage.answering(before=kill))
    return "https://%s:%d" % (NAME, stage.serve(behaviour).port)


@situation("squid-dies-request", PROXIES, "squid")
def squid_dies_in_a_request(stage: Stage) -> None:
    """Squid is killed while a request is under way, before the server has it"""
    running = programs.squid(stage, "")
    product = stage.product(killer(stage, running), proxy=address("http", running.port))
    stage.delivers(product)
    stage.verdicts.clear()
    stage.fails(product, "offline: answer: .*")
    running.again()
    stage.delivers(product)


@situation("squid-dies-tls", PROXIES, "squid")
def squid_dies_in_tls(stage: Stage) -> None:
    """Squid is killed in the middle of the TLS handshake"""
    running = programs.squid(stage, "")

    def kill(connection: socket.socket, server: Server) -> None:
        connection.recv(1)
        running.kill()

    server = stage.serve(kill)
    url = "https://%s:%d" % (NAME, server.port)
    product = stage.product(url, proxy=address("http", running.port))
    stage.fails(product, "offline: TLS: .*")
    running.again()
    server.behaviour = stage.behind_tls(NAME)
    stage.delivers(product)


@situation("squid-dies-between", PROXIES, "squid")
def squid_dies_between_two(stage: Stage) -> None:
    """Squid is killed between two records of one delivery"""
    running = programs.squid(stage, "")
    product = stage.product(killer(stage, running), proxy=address("http", running.port))
    stage.record(product, 5)
    found = product.flush(20)
    assert (found["delivered"], found["pending"], found["dead"]) == (1, 4, 0)
    stage.said(found, "offline: answer: .*")
    running.again()
    stage.delivers(product)


@situation("proxy-dies-connect", PROXIES)
def dies_before_connect(stage: Stage) -> None:
    """A proxy that dies before it has answered CONNECT"""

    def dies(connection: socket.socket, server: Server) -> None:
        server.read_request(connection)

    proxy, url = stage.serve(dies), stage.https()
    product = stage.product(url, proxy=address("http", proxy.port))
    stage.fails(product, "offline: proxy: .*")
    proxy.behaviour = connect
    stage.delivers(product)


# --- others -------------------------------------------------------------------------------------


@situation("tinyproxy", PROXIES, "tinyproxy")
def tinyproxy(stage: Stage) -> None:
    """Tinyproxy with Basic authentication: no password, then the right one"""
    port = programs.tinyproxy(stage).port
    who = programs.plain(stage.secrets.proxy_user), programs.plain(stage.secrets.proxy_password)
    url = stage.https()
    stage.fails(stage.product(url, proxy=address("http", port)), ASKED)
    stage.delivers(stage.product(url, usage=True, proxy=address("http", port, *who)), 3)


@situation("tinyproxy-http", PROXIES, "tinyproxy")
def tinyproxy_http(stage: Stage) -> None:
    """A server of this machine over http://, by way of a proxy of this machine (tinyproxy)"""
    port = programs.tinyproxy(stage).port
    who = programs.plain(stage.secrets.proxy_user), programs.plain(stage.secrets.proxy_password)
    product = stage.product(stage.collector.url, usage=True, proxy=address("http", port, *who))
    stage.delivers(product, 3)


@situation("proxy.py", PROXIES, "py:proxy")
def proxy_py(stage: Stage) -> None:
    """proxy.py with Basic authentication"""
    port = programs.proxy_py(stage, over_tls=False).port
    who = stage.secrets.proxy_user, stage.secrets.proxy_password
    stage.delivers(stage.product(stage.https(), proxy=address("http", port, *who)), 3)


@situation("proxy.py-tls", PROXIES, "py:proxy")
def proxy_py_over_tls(stage: Stage) -> None:
    """An https:// proxy (proxy.py behind a certificate): TLS inside TLS"""
    port = programs.proxy_py(stage, over_tls=True).port
    who = stage.secrets.proxy_user, stage.secrets.proxy_password
    stage.delivers(stage.product(stage.https(), proxy=address("https", port, *who)), 3)


@situation("microsocks", PROXIES, "microsocks", "py:socks.py")
def microsocks(stage: Stage) -> None:
    """SOCKS 5 (microsocks) by way of PySocks, open to all, names looked up here and there"""
    port, url = programs.microsocks(stage, auth=False).port, stage.https()
    for scheme in ("socks5", "socks5h"):
        stage.delivers(stage.product(url, usage=True, proxy=address(scheme, port)))


@situation("microsocks-auth", PROXIES, "microsocks", "py:socks.py")
def microsocks_auth(stage: Stage) -> None:
    """SOCKS 5 (microsocks) with user and password: wrong, then right"""
    port, url = programs.microsocks(stage, auth=True).port, stage.https()
    user, password = stage.secrets.proxy_user, stage.secrets.proxy_password
    wrong = stage.product(url, proxy=address("socks5h", port, user, password + "x"))
    stage.fails(wrong, r"offline: proxy: refuses us or our password \(SOCKS\)")
    stage.delivers(stage.product(url, proxy=address("socks5h", port, user, password)))


@situation("socks-missing", PROXIES)
def socks_missing(stage: Stage) -> None:
    """The environment names a SOCKS proxy, and PySocks is not installed"""
    place = stage.directory / "packages"
    place.mkdir()
    (place / "socks.py").write_text("raise ImportError(name='socks')\n")
    url, environ = stage.https(), {"all_proxy": "socks5h://127.0.0.1:9"}
    product = stage.product(url, command=CHILD, environ=environ, python_path=(place,))
    stage.fails(product, "offline: proxy: SOCKS proxies need PySocks")
    stage.delivers(stage.product(url))


@situation("proxy-dead", PROXIES)
def dead(stage: Stage) -> None:
    """A proxy that is switched off, then taken out of the environment of the running product"""
    environ = {"HTTPS_PROXY": DEAD}
    product = stage.product(stage.https(), environ=environ)
    stage.fails(product, GONE)
    environ.clear()
    stage.delivers(product)


@situation("proxy-appears", PROXIES)
def appears(stage: Stage) -> None:
    """A machine comes into an office: from no proxy to one, and back, while the product runs"""
    environ: dict[str, str] = {}
    proxy, url = stage.serve(connect), stage.https()
    product = stage.product(url, environ=environ)
    stage.delivers(product)
    environ["https_proxy"] = address("http", proxy.port)
    stage.delivers(product)
    assert proxy.accepted == 1
    environ.clear()
    stage.delivers(product)
    assert proxy.accepted == 1


@situation("proxy-environment", PROXIES, cost="once")
def environment(stage: Stage) -> None:
    """The proxy in each spelling of a real environment: https_proxy, HTTPS_PROXY, all_proxy, ALL_PROXY"""
    proxy, url = stage.serve(connect), stage.https()
    for number, name in enumerate(("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"), 1):
        environ = {name: address("http", proxy.port)}
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
        server = stage.serve(stage.behind_tls("::1"), listener)
        return "https://[::1]:%d" % server.port
    return ""


@situation("no-proxy-environment", PROXIES, cost="once")
def no_proxy_environment(stage: Stage) -> None:
    """A dead proxy, and the host in NO_PROXY, both in a real environment"""
    url = stage.https()
    environ = {"HTTPS_PROXY": DEAD, "NO_PROXY": "localhost"}
    stage.delivers(stage.product(url, command=CHILD, environ=environ))


# --- gateways that look into TLS ----------------------------------------------------------------


class Gateway:
    """A TLS-inspecting proxy, its authority, and the product that has to go through it."""

    def __init__(self, stage: Stage) -> None:
        place = stage.directory / "gateway"
        place.mkdir()
        self._stage = stage
        self.authority = Authority(place, "Acme Web Gateway")
        proxy = stage.serve(inspecting(self.authority, stage.authority.path))
        self.url, self.proxy = stage.https(), address("http", proxy.port)

    def fails(self) -> None:
        """With the authorities of the outside alone, the gateway is not believed."""
        product = self._stage.product(self.url, proxy=self.proxy)
        self._stage.fails(product, "offline: TLS: certificate refused: .*")

    def delivers(
        self,
        environ: Optional[Mapping[str, str]] = None,
        command: Optional[tuple[str, ...]] = None,
        python_path: tuple[Path, ...] = (),
    ) -> None:
        """The product finds the gateway's authority by some other way than ``ca_bundle``."""
        product = self._stage.product(
            self.url,
            proxy=self.proxy,
            ca=Path(),
            environ=environ,
            command=command,
            python_path=python_path,
        )
        self._stage.delivers(product, 2)

    def store(self, *, filled: bool = True) -> Path:
        """A directory of certificates as systems have it, with the gateway's authority in it, or empty."""
        place = self._stage.directory / ("store" if filled else "empty")
        place.mkdir()
        if filled:
            command = ["openssl", "x509", "-hash", "-noout", "-in", str(self.authority.path)]
            made = subprocess.run(command, capture_output=True, text=True, check=True)
            for name in (made.stdout.strip() + ".0", "ca-certificates.crt"):
                shutil.copy(self.authority.path, place / name)
        return place


@situation("inspected-bundle", PROXIES)
def inspected_bundle(stage: Stage) -> None:
    """A gateway that looks into TLS; its CA then in `ca_bundle`"""
    gateway = Gateway(stage)
    gateway.fails()
    ca = gateway.authority.path
    stage.delivers(stage.product(gateway.url, proxy=gateway.proxy, ca=ca, usage=False), 2)


@situation("inspected-file", PROXIES)
def inspected_file(stage: Stage) -> None:
    """… in SSL_CERT_FILE"""
    gateway = Gateway(stage)
    gateway.fails()
    gateway.delivers({"SSL_CERT_FILE": str(gateway.authority.path)})


@situation("inspected-directory", PROXIES, "openssl")
def inspected_directory(stage: Stage) -> None:
    """… in SSL_CERT_DIR"""
    gateway = Gateway(stage)
    gateway.fails()
    gateway.delivers({"SSL_CERT_DIR": str(gateway.store())}, CHILD)


def over(place: Path, *more: str) -> tuple[str, ...]:
    """A command to run a program to which ``place`` is the system's store of certificates."""
    script = (
        'for at; do [ "$at" = -- ] && break; [ -e "$at" ] && mount --bind %s "$at"; done' % place
    )
    script += '; while [ "$1" != -- ]; do shift; done; shift; exec "$@"'
    return ("unshare", "--mount", "sh", "-c", script, "sh", *STORES, "--")


def stores() -> tuple[str, ...]:
    """Where this system, and the OpenSSL of this Python, look for certificates."""
    paths = ssl.get_default_verify_paths()
    found = [paths.openssl_capath, "/etc/ssl/certs", "/etc/pki/tls/certs"]
    return tuple(dict.fromkeys(path for path in found if Path(path).is_dir()))


STORES = stores()


@situation("inspected-system", PROXIES, "openssl", "namespaces")
def inspected_system(stage: Stage) -> None:
    """… in the system's store"""
    gateway = Gateway(stage)
    gateway.fails()
    gateway.delivers(command=over(gateway.store()))


@situation("inspected-truststore", PROXIES, "openssl", "namespaces", "py:truststore")
def inspected_truststore(stage: Stage) -> None:
    """… in the system's store, `truststore` there (which speaks for Windows and macOS only)"""
    gateway = Gateway(stage)
    gateway.fails()
    place = stage.directory / "packages"
    place.mkdir()
    (place / "truststore").symlink_to(package("truststore"))
    gateway.delivers(command=over(gateway.store()), python_path=(place,))


@situation("inspected-certifi", PROXIES, "namespaces")
def inspected_certifi(stage: Stage) -> None:
    """… in the bundle of `certifi`, where the system has no store"""
    gateway = Gateway(stage)
    gateway.fails()
    place = stage.directory / "packages"
    (place / "certifi").mkdir(parents=True)
    code = "def where():\n    return %r\n" % str(gateway.authority.path)
    (place / "certifi" / "__init__.py").write_text(code)
    gateway.delivers(command=over(gateway.store(filled=False)), python_path=(place,))


@situation("no-ca", PROXIES, "namespaces")
def no_ca(stage: Stage) -> None:
    """No authority anywhere: no store, no `certifi`"""
    gateway = Gateway(stage)
    place = stage.directory / "packages"
    place.mkdir()
    (place / "certifi.py").write_text("raise ImportError(name='certifi')\n")
    product = stage.product(
        gateway.url,
        ca=Path(),
        command=over(gateway.store(filled=False)),
        python_path=(place,),
    )
    stage.fails(product, r"offline: TLS: no CA certificates .*")
    stage.delivers(stage.product(gateway.url))


@situation("mitmproxy", PROXIES, "mitmdump", "openssl")
def mitmproxy(stage: Stage) -> None:
    """mitmproxy with Basic authentication looks into TLS: no password, then no CA, then both (SSL_CERT_FILE)"""
    running, ca = programs.mitmproxy(stage)
    url = stage.https()
    who = stage.secrets.proxy_user, stage.secrets.proxy_password
    proxy = address("http", running.port, *who)
    stage.fails(stage.product(url, proxy=address("http", running.port)), ASKED)
    stage.fails(stage.product(url, proxy=proxy), "offline: TLS: certificate refused: .*")
    environ = {"SSL_CERT_FILE": str(ca)}
    stage.delivers(stage.product(url, proxy=proxy, ca=Path(), environ=environ), 3)
