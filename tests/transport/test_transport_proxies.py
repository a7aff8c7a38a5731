"""Proxies as companies run them: which one is asked, how it is spoken to, and where its password must not show up."""

import base64
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Optional

import pytest
from support.requests import refused
from support.sockets import Authority, Behaviour, Server, answers, floods, names, ok, relay

from agent.transport import HttpTransport
from agent.values import Request, Unreachable, find_proxy

NAME = "keys.example"
USER = "dom\\ain user"
PASSWORD = "p@ss:w/ö rd#%"
ENCODED = "dom%5Cain%20user:p%40ss%3Aw%2F%C3%B6%20rd%23%25"
CREDENTIALS = base64.b64encode(("%s:%s" % (USER, PASSWORD)).encode())
SECRETS = (USER, PASSWORD, ENCODED, ENCODED.split(":")[1], CREDENTIALS.decode())


def connect_proxy(target: int, demand: bytes = b"") -> Behaviour:
    """An HTTP proxy that takes every CONNECT to the local port ``target``."""

    def behaviour(connection: socket.socket, server: Server) -> None:
        head = server.read_request(connection)
        if demand and b"uthorization: Basic " + demand + b"\r\n" not in head:
            connection.sendall(b"HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n")
            return
        connection.sendall(b"HTTP/1.1 200 Fine\r\nVia: us\r\n\r\n")
        pass_on(connection, target)

    return behaviour


def pass_on(connection: socket.socket, target: int) -> None:
    with socket.create_connection(("127.0.0.1", target)) as upstream:
        relay(connection, upstream)


@pytest.fixture
def keys(authority: Authority) -> Iterator[Server]:
    """A TLS server that only a proxy can find, for its name is nowhere."""
    with Server(authority.over_tls(answers(ok(b"yes")), NAME)) as server:
        yield server


class Client:
    """A transport that looks no name up itself, and whose failures are searched for the password."""

    def __init__(self, authority: Authority, **options: Any) -> None:
        options.setdefault("environ", {})
        self.transport = HttpTransport(ca_bundle=str(authority.path), **options)

    def get(self, url: str = "https://%s/x?q=1" % NAME) -> bytes:
        with names(ask=self._refuse):
            request = Request("GET", url, {"X-API-KEY": "k"}, b"")
            return self.transport.send(request, timeout_s=10).body

    @staticmethod
    def _refuse(host: str) -> None:
        raise AssertionError("looked up " + host)

    def fails(self, url: str = "https://%s/x" % NAME) -> str:
        error = refused(self.transport, Request("GET", url, {}, b""), secrets=SECRETS)
        assert error.stage == "proxy"
        return error.reason


Make = Callable[..., Client]


@pytest.fixture
def client(authority: Authority) -> Iterator[Make]:
    """Makes them, and closes them at the end."""
    with ExitStack() as opened:

        def make(**options: Any) -> Client:
            made = Client(authority, **options)
            opened.callback(made.transport.close)
            return made

        yield make


# --- through a proxy ----------------------------------------------------------------------------


def test_https_goes_through_a_tunnel_and_stays_private(client: Make, keys: Server) -> None:
    with Server(connect_proxy(keys.port)) as proxy:
        made = client(proxy="http://127.0.0.1:%d" % proxy.port)
        for _ in range(5):
            assert made.get() == b"yes"
        seen = made.transport.seen
        made.transport.close()
        assert proxy.gone.wait(0) or keys.gone.wait(5)
    assert proxy.requests[0].startswith(b"CONNECT keys.example:443 HTTP/1.")
    assert b"X-API-KEY" not in proxy.requests[0]
    assert keys.requests[0].startswith(b"GET /x?q=1 HTTP/1.1\r\nHost: keys.example\r\n")
    assert (proxy.accepted, len(keys.requests)) == (1, 5)
    assert (
        seen.proxy == "http://127.0.0.1:%d" % proxy.port and seen.proxy_from == "the setting proxy"
    )
    assert seen.peer == "127.0.0.1 port %d" % proxy.port
    assert (seen.tls, seen.store) == ("TLSv1.3", "ca_bundle")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_password_gets_it_and_the_server_does_not(
    authority: Authority, client: Make, keys: Server, scheme: str
) -> None:
    behaviour = connect_proxy(keys.port, CREDENTIALS)
    if scheme == "https":
        behaviour = authority.over_tls(behaviour, "127.0.0.1")
    with Server(behaviour) as proxy:
        place = "127.0.0.1:%d" % proxy.port
        for options in (
            {"proxy": "%s://%s@%s" % (scheme, ENCODED, place)},
            {"proxy": "%s://%s" % (scheme, place), "proxy_auth": "%s:%s" % (USER, PASSWORD)},
            {"environ": {"HTTPS_PROXY": "%s://%s@%s" % (scheme, ENCODED, place)}},
        ):
            made = client(**options)
            assert [made.get() for _ in range(3)] == [b"yes"] * 3
            assert made.transport.seen.proxy == "%s://%s" % (scheme, place)
        assert proxy.accepted == 3
    assert b"Proxy" not in b"".join(keys.requests)


@pytest.mark.parametrize(
    "answer, reason",
    [
        (b"HTTP/1.1 407 Who?\r\n\r\n", "refused to connect (HTTP 407)"),
        (b"HTTP/1.1 302 There\r\nLocation: http://x/\r\n\r\n", "refused to connect (HTTP 302)"),
        (b"", "the server closed the connection without an answer"),
        (b"SSH-2.0\r\n\r\n", "not an HTTP answer (BadStatusLine)"),
    ],
)
def test_a_proxy_that_will_not_or_cannot(client: Make, answer: bytes, reason: str) -> None:
    with Server(answers(answer, once=True)) as proxy:
        made = client(proxy="http://%s@127.0.0.1:%d" % (ENCODED, proxy.port))
        assert made.fails() == "proxy: " + reason


def test_a_proxy_that_never_stops_talking(client: Make) -> None:
    with Server(floods(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")) as proxy:
        made = client(proxy="http://127.0.0.1:%d" % proxy.port)
        request = Request("GET", "https://%s/" % NAME, {}, b"")
        assert refused(made.transport, request, 0.5).stage == "proxy"


def test_certificates_of_proxy_and_server_are_checked(client: Make, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "Stranger")
    with Server(stranger.over_tls(answers(ok(b"no")), NAME, "127.0.0.1")) as forger:
        made = client(proxy="https://%s@127.0.0.1:%d" % (ENCODED, forger.port))
        assert made.fails().startswith("proxy: certificate refused: unable to get local issuer")
        with Server(connect_proxy(forger.port)) as proxy:
            made = client(proxy="http://127.0.0.1:%d" % proxy.port)
            with pytest.raises(Unreachable, match="^TLS: certificate refused"):
                made.get()
        assert forger.requests == []


@pytest.mark.parametrize("userinfo", ["", ENCODED + "@"])
def test_http_is_fetched_by_the_proxy_that_was_given(client: Make, userinfo: str) -> None:
    with Server(answers(ok(b"from the proxy"))) as proxy:
        made = client(proxy="http://%s127.0.0.1:%d" % (userinfo, proxy.port))
        for _ in range(2):
            assert made.get("http://127.0.0.1:8080/x?q=1") == b"from the proxy"
    head = proxy.requests[0].split(b"\r\n")
    assert head[0] == b"GET http://127.0.0.1:8080/x?q=1 HTTP/1.1"
    assert b"Host: 127.0.0.1:8080" in head
    assert (b"proxy-authorization: Basic " + CREDENTIALS in head) == bool(userinfo)
    assert proxy.accepted == 1


@pytest.mark.parametrize(
    "setting",
    [
        "gopher://%s@127.0.0.1:1",
        "http://%s@",
        "http://%s@127.0.0.1:x",
        "file:///%s",
        # What stands before the first of these would pass for host and port.
        "http://ada:12#%s@127.0.0.1:1",
        "http://ada:12/%s@127.0.0.1:1",
        "ada:12?%s@127.0.0.1:1",
    ],
)
def test_a_setting_that_is_no_proxy_is_not_repeated_and_not_gone_around(
    client: Make, setting: str
) -> None:
    made = client(environ={"https_proxy": setting % ENCODED})
    made.fails()
    assert "ada" not in made.transport.seen.proxy


# --- SOCKS --------------------------------------------------------------------------------------


def socks_proxy(target: int) -> Behaviour:
    """SOCKS 5 (RFC 1928) to the local port ``target``; ``requests`` are the names that it was told."""

    def behaviour(connection: socket.socket, server: Server) -> None:
        connection.recv(99)
        connection.sendall(b"\5\0")
        server.requests.append(connection.recv(99))
        connection.sendall(bytes((5, 0, 0, 1)) + bytes(6))
        pass_on(connection, target)

    return behaviour


@pytest.mark.parametrize("scheme", ["socks5h", "socks"])
def test_a_name_is_looked_up_by_a_socks_proxy_alone(
    client: Make, keys: Server, scheme: str
) -> None:
    pytest.importorskip("socks")
    with Server(socks_proxy(keys.port)) as proxy:
        made = client(proxy="%s://127.0.0.1:%d" % (scheme, proxy.port))
        for _ in range(3):
            assert made.get() == b"yes"
        assert made.transport.seen.proxy == "socks5h://127.0.0.1:%d" % proxy.port
    told = b"\5\1\0\3" + bytes((len(NAME),)) + NAME.encode() + struct.pack("!H", 443)
    assert (proxy.accepted, proxy.requests) == (1, [told])


def test_without_pysocks_a_socks_proxy_is_named_and_not_gone_around(
    client: Make, keys: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "socks", None)
    made = client(environ={"all_proxy": "socks5://127.0.0.1:%d" % keys.port})
    assert made.fails() == "proxy: SOCKS proxies need PySocks"
    assert not keys.accepted


# --- which proxy --------------------------------------------------------------------------------


def chosen(url: str, environ: Mapping[str, str], proxy: Optional[str] = None) -> str:
    return find_proxy(url, HttpTransport(environ=environ, proxy=proxy))[0]


@pytest.mark.parametrize(
    "url, environ, expected",
    [
        ("https://h.example/", {"https_proxy": "a:1", "HTTPS_PROXY": "b:1"}, "http://a:1"),
        ("https://h.example/", {"https_proxy": "", "HTTPS_PROXY": "b:1"}, ""),
        ("https://h.example/", {"http_proxy": "a:1"}, ""),
        ("https://h.example/", {"ALL_PROXY": "socks5://a:1"}, "socks5://a:1"),
        ("https://h.example/", {"all_proxy": "a:1", "https_proxy": "b:1"}, "http://b:1"),
        # What goes in clear text is for this machine, and asks nobody else.
        ("http://127.0.0.1:8080/", {"http_proxy": "a:1", "all_proxy": "a:1"}, ""),
    ],
)
def test_the_environments_proxy(url: str, environ: Mapping[str, str], expected: str) -> None:
    assert chosen(url, environ) == expected
    for direct in ("", "direct"):
        assert chosen(url, environ, direct) == ""
    assert chosen(url, {**environ, "no_proxy": "*"}, "http://given:1") == "http://given:1"
    # What else keeps a proxy out is tried on real ones: tests/networks.
    for excluded in ("", "oh.example", "h.example:8443"):
        assert chosen(url, {**environ, "no_proxy": excluded}) == expected


@pytest.mark.parametrize(
    "named", ["http://h:port", "http://h:0", "http://:1", "ftp://h", "http://["]
)
def test_what_is_no_proxys_address_is_named_as_such(named: str) -> None:
    with pytest.raises(Unreachable, match="the environment or the system names no proxy"):
        chosen("https://h.example/", {"https_proxy": named})


def test_the_process_environment_and_the_system_are_asked_when_no_environment_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import os
    from urllib import request

    transport = HttpTransport()
    monkeypatch.setenv("HTTPS_PROXY", "http://a:1")
    assert find_proxy("https://h.example/", transport)[0] == "http://a:1"
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(request, "getproxies", lambda: {"https": "http://system:1"})
    monkeypatch.setattr(request, "proxy_bypass", lambda host: host == "intranet:443")
    assert find_proxy("https://h.example/", transport)[0] == "http://system:1"
    assert find_proxy("https://intranet/", transport)[0] == ""
    assert chosen("https://h.example/", {}) == ""  # a given environment stands for all of it
