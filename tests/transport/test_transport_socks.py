"""SOCKS 5 proxies: who looks names up, what they refuse, and that none of them decides how long that takes."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.sockets import Authority, Behaviour, Server, answers, ok
from test_transport_proxies import ENCODED, NAME, PASSWORD, USER, Client, relay

from agent.transport import Request, Unreachable
from agent.transport.proxies import Proxy

GREETING = b"\5\1\0"
GREETING_WITH_USER = b"\5\2\0\2"
LOGIN = b"\1%c%b%c%b" % (
    len(USER.encode()),
    USER.encode(),
    len(PASSWORD.encode()),
    PASSWORD.encode(),
)
DONE = b"\5\0\0\1\0\0\0\0\0\0"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def keys(authority: Authority) -> Iterator[Server]:
    with Server(authority.over_tls(answers(ok(b"yes")), NAME)) as server:
        yield server


def take(connection: socket.socket, expected: bytes) -> None:
    got = b""
    while len(got) < len(expected):
        more = connection.recv(len(expected) - len(got))
        assert more, got
        got += more
    assert got == expected


def socks_proxy(target: int, *dialogue: tuple[bytes, bytes]) -> Behaviour:
    """A proxy that holds this ``dialogue`` (what must come, what is said) and then leads to the port ``target``."""

    def behaviour(connection: socket.socket, server: Server) -> None:
        for expected, said in dialogue:
            take(connection, expected)
            connection.sendall(said)
        server.requests.append(b"CONNECTED")
        with socket.create_connection(("127.0.0.1", target)) as upstream:
            relay(connection, upstream)

    return behaviour


def to_name(name: str, port: int = 443) -> bytes:
    return b"\5\1\0\3%c%b" % (len(name), name.encode()) + port.to_bytes(2, "big")


@pytest.mark.parametrize("scheme", ["socks5h", "socks"])
@pytest.mark.parametrize(
    "done", [DONE, b"\5\0\0\4" + bytes(18), b"\5\0\0\3\4name\0\0"], ids=["IPv4", "IPv6", "name"]
)
def test_a_name_is_looked_up_by_the_proxy_alone(
    authority: Authority, keys: Server, scheme: str, done: bytes
) -> None:
    behaviour = socks_proxy(keys.port, (GREETING, b"\5\0"), (to_name(NAME), done))
    with Server(behaviour) as proxy:
        client = Client(authority, proxy="%s://127.0.0.1:%d" % (scheme, proxy.port))
        for _ in range(3):
            assert client.get() == b"yes"
        assert client.transport.seen.proxy == "socks5h://127.0.0.1:%d" % proxy.port
        client.transport.close()
        assert (proxy.accepted, proxy.requests) == (1, [b"CONNECTED"])


def test_socks5_gets_an_address_that_was_looked_up_here_and_rather_one_that_everybody_reaches(
    authority: Authority, keys: Server
) -> None:
    def here(host: str, port: int) -> list[Any]:
        assert host == NAME
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", port)),
        ]

    asked = b"\5\1\0\1\xc0\0\2\7\1\xbb"
    with Server(socks_proxy(keys.port, (GREETING, b"\5\0"), (asked, DONE))) as proxy:
        client = Client(authority, proxy="socks5://127.0.0.1:%d" % proxy.port, resolve=here)
        assert client.get() == b"yes"
        client.transport.close()


def test_an_address_goes_as_an_address(authority: Authority, keys: Server) -> None:
    asked = b"\5\1\0\4" + bytes(15) + b"\1" + (443).to_bytes(2, "big")
    with Server(authority.over_tls(answers(ok(b"six")), "::1")) as six:
        with Server(socks_proxy(six.port, (GREETING, b"\5\0"), (asked, DONE))) as proxy:
            client = Client(authority, proxy="socks5h://127.0.0.1:%d" % proxy.port)
            assert client.get("https://[::1]/") == b"six"
            client.transport.close()


def test_user_and_password_go_to_a_proxy_that_asks_for_them(
    authority: Authority, keys: Server
) -> None:
    dialogue = (GREETING_WITH_USER, b"\5\2"), (LOGIN, b"\1\0"), (to_name(NAME), DONE)
    with Server(socks_proxy(keys.port, *dialogue)) as proxy:
        for options in (
            {"proxy": "socks5h://%s@127.0.0.1:%d" % (ENCODED, proxy.port)},
            {
                "proxy": "socks5h://127.0.0.1:%d" % proxy.port,
                "proxy_auth": "%s:%s" % (USER, PASSWORD),
            },
        ):
            client = Client(authority, **options)
            assert client.get() == b"yes"
            client.transport.close()


def test_plain_http_to_this_machine_goes_through_it_too(authority: Authority) -> None:
    with Server(answers(ok(b"yes"))) as server:
        asked = b"\5\1\0\1\x7f\0\0\1" + server.port.to_bytes(2, "big")
        with Server(socks_proxy(server.port, (GREETING, b"\5\0"), (asked, DONE))) as proxy:
            client = Client(authority, proxy="socks5://127.0.0.1:%d" % proxy.port)
            assert client.get("http://127.0.0.1:%d/x" % server.port) == b"yes"
            client.transport.close()
        assert server.requests[0].startswith(b"GET /x HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "dialogue, reason",
    [
        ([(GREETING_WITH_USER, b"\5\xff")], "demands authentication"),
        ([(GREETING_WITH_USER, b"\5\1")], "demands authentication"),
        ([(GREETING_WITH_USER, b"\4\0")], "no SOCKS 5 proxy answers there"),
        ([(GREETING_WITH_USER, b"HTTP/1.1 400 What\r\n")], "no SOCKS 5 proxy answers there"),
        ([(GREETING_WITH_USER, b"\5\2"), (LOGIN, b"\1\1")], "refuses our user name or password"),
        (
            [(GREETING_WITH_USER, b"\5\0"), (to_name(NAME), b"\5\5\0\1\0\0\0\0\0\0")],
            "refused to connect (SOCKS: connection refused)",
        ),
        (
            [(GREETING_WITH_USER, b"\5\0"), (to_name(NAME), b"\5\x63\0\1")],
            "refused to connect (SOCKS: code 99)",
        ),
    ],
    ids=["none-fits", "gssapi", "socks4", "http", "wrong-password", "refused", "unknown-code"],
)
def test_a_proxy_that_will_not_says_why_and_nothing_is_sent(
    authority: Authority, keys: Server, dialogue: list[tuple[bytes, bytes]], reason: str
) -> None:
    with Server(socks_proxy(keys.port, *dialogue)) as proxy:
        client = Client(authority, proxy="socks5h://%s@127.0.0.1:%d" % (ENCODED, proxy.port))
        assert client.fails() == "proxy: " + reason
        client.transport.close()
    assert keys.requests == []


@pytest.mark.parametrize("said", [b"", b"\5", b"\5\0", b"\5\0\5\0\0\1\0"])
def test_a_proxy_that_breaks_off(authority: Authority, said: bytes) -> None:
    def breaks_off(connection: socket.socket, server: Server) -> None:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):
            pass

    with Server(breaks_off) as proxy:
        client = Client(authority, proxy="socks5h://127.0.0.1:%d" % proxy.port)
        assert client.fails() == "proxy: closed the connection without an answer"
        client.transport.close()


def test_a_proxy_that_drips_gets_the_time_of_the_request_and_no_more(authority: Authority) -> None:
    def drips(connection: socket.socket, server: Server) -> None:
        said = b"\5\0\5\0\0\3\xff" + bytes(300)
        for byte in said:
            if server.ended.wait(0.1):
                return
            connection.sendall(bytes((byte,)))

    with Server(drips) as proxy:
        client = Client(authority, proxy="socks5h://127.0.0.1:%d" % proxy.port)
        began_at = time.monotonic()
        with pytest.raises(Unreachable, match="^proxy: no answer within 0.5 s$"):
            client.transport.send(Request("GET", "https://%s/" % NAME, {}, b""), timeout_s=0.5)
        assert time.monotonic() - began_at < 5
        client.transport.close()


def test_a_user_name_that_socks_cannot_carry(authority: Authority) -> None:
    with Server(socks_proxy(1, (GREETING_WITH_USER, b"\5\2"))) as proxy:
        url = "socks5h://%s:x@127.0.0.1:%d" % ("u" * 256, proxy.port)
        client = Client(authority, proxy=url)
        assert "longer than SOCKS allows" in client.fails()
        client.transport.close()


def test_the_usual_port_is_1080() -> None:
    assert Proxy("socks5://proxy.example").address == "socks5://proxy.example:1080"
