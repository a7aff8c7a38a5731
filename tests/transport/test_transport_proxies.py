"""Proxies as companies run them: which one is asked, how it is spoken to, and where its password must not show up."""

from __future__ import annotations

import base64
import pickle
import select
import socket
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import pytest
from support.sockets import Authority, Behaviour, Server, answers, answers_once, floods, ok

from agent.transport import HttpTransport, Request, Unreachable
from agent.transport.proxies import Proxy, choose_proxy

NAME = "keys.example"
USER = "dom\\ain user"
PASSWORD = "p@ss:w/ö rd#%"
ENCODED = "dom%5Cain%20user:p%40ss%3Aw%2F%C3%B6%20rd%23%25"
CREDENTIALS = base64.b64encode(("%s:%s" % (USER, PASSWORD)).encode())
REMOTE = "http://proxy.example:3128"


def relay(one: socket.socket, two: socket.socket) -> None:
    while True:
        for ready in select.select([one, two], [], [])[0]:
            data = ready.recv(65536)
            if not data:
                return
            (two if ready is one else one).sendall(data)


def connect_proxy(target: int, demand: bytes = b"", yes: bytes = b"200 Fine") -> Behaviour:
    """An HTTP proxy that takes every CONNECT to the local port ``target``."""

    def behaviour(connection: socket.socket, server: Server) -> None:
        head = server.read_request(connection)
        if demand and b"Proxy-Authorization: Basic " + demand + b"\r\n" not in head:
            connection.sendall(b"HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", target)) as upstream:
            connection.sendall(b"HTTP/1.1 " + yes + b"\r\nVia: us\r\n\r\n")
            relay(connection, upstream)

    return behaviour


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def keys(authority: Authority) -> Iterator[Server]:
    """A TLS server that only a proxy can find, for its name is nowhere."""
    with Server(authority.over_tls(answers(ok(b"yes")), NAME)) as server:
        yield server


class Client:
    """A transport whose failures are searched for the password."""

    def __init__(self, authority: Authority, **options: Any) -> None:
        options.setdefault("environ", {})
        options.setdefault("resolve", self._refuse)
        self.transport = HttpTransport(ca_bundle=str(authority.path), **options)

    @staticmethod
    def _refuse(host: str, port: int) -> list[Any]:
        raise AssertionError("looked up " + host)

    def get(self, url: str = "https://%s/x?q=1" % NAME) -> bytes:
        return self.transport.send(Request("GET", url, {"X-API-KEY": "k"}, b""), timeout_s=10).body

    def fails(self, url: str = "https://%s/x" % NAME) -> str:
        with pytest.raises(Unreachable) as caught:
            self.get(url)
        error = caught.value
        shown = "%s %r %r %r" % (error, error, error.args, pickle.dumps(error))
        for secret in (USER, PASSWORD, ENCODED, ENCODED.split(":")[1], CREDENTIALS.decode()):
            assert secret not in shown
        assert error.stage == "proxy"
        return error.reason


# --- through a proxy ----------------------------------------------------------------------------


@pytest.mark.parametrize("yes", [b"200 Connection established", b"200", b"299 Fine"])
def test_https_goes_through_a_tunnel_and_stays_private(
    authority: Authority, keys: Server, yes: bytes
) -> None:
    with Server(connect_proxy(keys.port, yes=yes)) as proxy:
        client = Client(authority, proxy="http://127.0.0.1:%d" % proxy.port)
        for _ in range(5):
            assert client.get() == b"yes"
        client.transport.close()
        assert proxy.gone.wait(0) or keys.gone.wait(5)
    assert proxy.requests == [
        b"CONNECT keys.example:443 HTTP/1.1\r\nHost: keys.example:443\r\n\r\n"
    ]
    assert keys.requests[0].startswith(b"GET /x?q=1 HTTP/1.1\r\nHost: keys.example\r\n")
    assert (proxy.accepted, len(keys.requests)) == (1, 5)


def test_a_proxy_that_wants_a_password_gets_it_and_the_server_does_not(
    authority: Authority, keys: Server
) -> None:
    with Server(connect_proxy(keys.port, CREDENTIALS)) as proxy:
        client = Client(authority, proxy="http://%s@127.0.0.1:%d" % (ENCODED, proxy.port))
        assert client.get() == b"yes"
        client.transport.close()
    assert b"X-API-KEY" not in proxy.requests[0]
    assert b"Proxy" not in keys.requests[0]


def test_a_wrong_password_is_said_without_showing_it(authority: Authority, keys: Server) -> None:
    with Server(connect_proxy(keys.port, b"other")) as proxy:
        for userinfo, reason in (
            ("", "demands authentication (407)"),
            (ENCODED + "@", "refuses our user name or password (407)"),
        ):
            client = Client(authority, proxy="http://%s127.0.0.1:%d" % (userinfo, proxy.port))
            assert client.fails() == "proxy: " + reason
            client.transport.close()
    assert keys.accepted == 0


def test_a_proxy_from_the_environment(authority: Authority, keys: Server) -> None:
    with Server(connect_proxy(keys.port, CREDENTIALS)) as proxy:
        url = "http://%s@127.0.0.1:%d" % (ENCODED, proxy.port)
        client = Client(authority, environ={"https_proxy": url})
        assert client.get() == b"yes"
        client.transport.close()


def test_the_process_environment_is_read_when_none_is_given(
    authority: Authority, keys: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(connect_proxy(keys.port)) as proxy:
        client = Client(authority, environ=None)
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:%d" % proxy.port)
        assert client.get() == b"yes"
        client.transport.close()


@pytest.mark.parametrize("direct", ["", "direct"])
def test_no_proxy_by_configuration(authority: Authority, keys: Server, direct: str) -> None:
    def here(host: str, port: int) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", keys.port))]

    environ = {"https_proxy": "http://127.0.0.1:1"}
    client = Client(authority, proxy=direct, environ=environ, resolve=here)
    assert client.get() == b"yes"
    client.transport.close()


def test_a_proxy_that_is_spoken_to_over_tls(authority: Authority, keys: Server) -> None:
    behaviour = authority.over_tls(connect_proxy_over_tls(keys.port), "127.0.0.1")
    with Server(behaviour) as proxy:
        client = Client(authority, proxy="https://%s@127.0.0.1:%d" % (ENCODED, proxy.port))
        for _ in range(3):
            assert client.get() == b"yes"
        client.transport.close()
        assert keys.gone.wait(5)
    assert (proxy.accepted, len(keys.requests)) == (1, 3)


def connect_proxy_over_tls(target: int) -> Behaviour:
    """One direction per thread: what TLS holds in its buffer does not show in select()."""

    def behaviour(connection: socket.socket, server: Server) -> None:
        server.read_request(connection)
        with socket.create_connection(("127.0.0.1", target)) as upstream:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            connection.settimeout(0.01)
            upstream.settimeout(0.01)
            while not server.ended.is_set():
                for source, sink in ((connection, upstream), (upstream, connection)):
                    try:
                        data = source.recv(65536)
                    except socket.timeout:
                        continue
                    if not data:
                        return
                    sink.sendall(data)

    return behaviour


def test_a_tls_proxy_that_nobody_vouches_for(
    authority: Authority, keys: Server, tmp_path: Any
) -> None:
    stranger = Authority(tmp_path, "Stranger")
    with Server(stranger.over_tls(connect_proxy_over_tls(keys.port), "127.0.0.1")) as proxy:
        client = Client(authority, proxy="https://%s@127.0.0.1:%d" % (ENCODED, proxy.port))
        assert client.fails().startswith("proxy: certificate refused: unable to get local issuer")
        client.transport.close()
        assert proxy.requests == []


def test_the_certificate_behind_a_proxy_is_checked(authority: Authority, tmp_path: Any) -> None:
    stranger = Authority(tmp_path, "Stranger")
    with Server(stranger.over_tls(answers(ok(b"no")), NAME)) as forger:
        with Server(connect_proxy(forger.port)) as proxy:
            client = Client(authority, proxy="http://127.0.0.1:%d" % proxy.port)
            with pytest.raises(Unreachable, match="^TLS: certificate refused"):
                client.get()
            client.transport.close()
            assert forger.requests == []


@pytest.mark.parametrize("userinfo", ["", ENCODED + "@"])
def test_http_is_fetched_by_the_proxy(authority: Authority, userinfo: str) -> None:
    with Server(answers(ok(b"from the proxy"))) as proxy:
        client = Client(authority, proxy="http://%s127.0.0.1:%d" % (userinfo, proxy.port))
        for _ in range(2):
            assert client.get("http://127.0.0.1:8080/x?q=1") == b"from the proxy"
        client.transport.close()
    head = proxy.requests[0].split(b"\r\n")
    assert head[0] == b"GET http://127.0.0.1:8080/x?q=1 HTTP/1.1"
    assert b"Host: 127.0.0.1:8080" in head
    assert (b"Proxy-Authorization: Basic " + CREDENTIALS in head) == bool(userinfo)
    assert proxy.accepted == 1


def test_a_proxy_that_demands_a_password_for_http(authority: Authority) -> None:
    demand = b"HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n"
    with Server(answers(demand)) as proxy:
        client = Client(authority, proxy="http://%s@127.0.0.1:%d" % (ENCODED, proxy.port))
        reason = client.fails("http://127.0.0.1:1/")
        assert reason == "proxy: refuses our user name or password (407)"
        client.transport.close()


def test_a_server_that_says_407_is_no_proxy(authority: Authority) -> None:
    demand = b"HTTP/1.1 407 Who?\r\nContent-Length: 0\r\n\r\n"
    with Server(answers(demand)) as server:
        client = Client(authority)
        request = Request("GET", "http://127.0.0.1:%d/" % server.port, {}, b"")
        assert client.transport.send(request, timeout_s=10).status == 407
        client.transport.close()


@pytest.mark.parametrize(
    "answer, reason",
    [
        (b"HTTP/1.1 403 No\r\n\r\n", "refused to connect (HTTP 403)"),
        (b"HTTP/1.1 302 There\r\nLocation: http://x/\r\n\r\n", "refused to connect (HTTP 302)"),
        (b"", "no usable answer to CONNECT"),
        (b"HTTP/1.1 200 OK\r\nX", "no usable answer to CONNECT"),
        (b"SSH-2.0\r\n\r\n", "no usable answer to CONNECT"),
        (b"\r\n\r\n", "no usable answer to CONNECT"),
    ],
    ids=["403", "302", "nothing", "cut", "ssh", "blank"],
)
def test_a_proxy_that_will_not_or_cannot(authority: Authority, answer: bytes, reason: str) -> None:
    with Server(answers_once(answer)) as proxy:
        client = Client(authority, proxy="http://%s@127.0.0.1:%d" % (ENCODED, proxy.port))
        assert client.fails() == "proxy: " + reason
        client.transport.close()


def test_a_proxy_that_never_stops_talking(authority: Authority) -> None:
    with Server(floods(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")) as proxy:
        client = Client(authority, proxy="http://%s@127.0.0.1:%d" % (ENCODED, proxy.port))
        assert client.fails() == "proxy: no usable answer to CONNECT"
        client.transport.close()


def test_a_proxy_that_is_not_there(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = Client(authority, proxy="http://%s@127.0.0.1:%d" % (ENCODED, port))
    assert "ECONNREFUSED" in client.fails()
    client.transport.close()


@pytest.mark.parametrize(
    "setting",
    [
        "gopher://%s@127.0.0.1:1",
        "http://%s@",
        "http://%s@127.0.0.1:99999",
        "http://%s@[::1",
        "http://%s@127.0.0.1:x",
        "%s",
        "file:///%s",
        # What stands before the first of these would pass for host and port.
        "http://ada:12#%s@127.0.0.1:1",
        "http://ada:12/%s@127.0.0.1:1",
        "ada:12?%s@127.0.0.1:1",
    ],
)
def test_a_setting_that_is_no_proxy_is_not_repeated(authority: Authority, setting: str) -> None:
    client = Client(authority, environ={"https_proxy": setting % ENCODED})
    assert client.fails() == "proxy: https_proxy is no address of a proxy"
    assert client.transport.seen.proxy == ""
    client.transport.close()


def test_a_proxy_does_not_print_its_password() -> None:
    proxy = Proxy("http://%s@proxy.example" % ENCODED)
    assert (proxy.user.decode(), proxy.password.decode()) == (USER, PASSWORD)
    assert "Proxy" in repr(proxy) and USER not in repr(proxy) and PASSWORD not in repr(proxy)


@pytest.mark.parametrize("scheme", ["socks4", "socks4a"])
def test_a_socks_4_proxy_is_not_gone_around(
    authority: Authority, keys: Server, scheme: str
) -> None:
    setting = "%s://%s@127.0.0.1:%d" % (scheme, ENCODED, keys.port)
    for client, source in (
        (Client(authority, proxy=setting), "(the setting proxy)"),
        (Client(authority, environ={"all_proxy": setting}), "(all_proxy)"),
    ):
        failure = client.fails()
        assert failure.startswith("proxy: SOCKS 4 proxies are not supported")
        assert failure.endswith(source)
        client.transport.close()
    assert not keys.seen.is_set()


def test_credentials_of_the_configuration_are_for_an_address_without(
    authority: Authority, keys: Server
) -> None:
    other = base64.b64encode(b"own:secret")
    auth = "%s:%s" % (USER, PASSWORD)
    with Server(connect_proxy(keys.port, CREDENTIALS)) as proxy:
        url = "http://127.0.0.1:%d" % proxy.port
        client = Client(authority, environ={"https_proxy": url}, proxy_auth=auth)
        assert client.get() == b"yes"
        client.transport.close()
    with Server(connect_proxy(keys.port, other)) as proxy:
        url = "http://own:secret@127.0.0.1:%d" % proxy.port
        client = Client(authority, proxy=url, proxy_auth=auth)
        assert client.get() == b"yes"
        client.transport.close()


@pytest.mark.parametrize(
    "fields, told",
    [
        (
            b'Proxy-Authenticate: Negotiate\r\nproxy-authenticate: NTLM realm="a:b"',
            "Negotiate, NTLM",
        ),
        (b'Proxy-Authenticate: Basic realm="x", Digest realm="y"', "Basic, Digest"),
        (b"Proxy-Authenticate: \x1b[31mEvil\xff", ""),
    ],
)
@pytest.mark.parametrize("url", ["https://%s/x" % NAME, "http://127.0.0.1:1/"])
def test_what_a_proxy_demands_is_told(
    authority: Authority, fields: bytes, told: str, url: str
) -> None:
    demand = b"HTTP/1.1 407 Who?\r\n%b\r\nContent-Length: 0\r\n\r\n" % fields
    with Server(answers(demand)) as proxy:
        client = Client(authority, proxy="http://127.0.0.1:%d" % proxy.port)
        reason = client.fails(url)
        assert reason == "proxy: demands authentication (407%s)" % (told and ": " + told)
        client.transport.close()


def test_a_connection_says_which_proxy_it_took_and_why(authority: Authority, keys: Server) -> None:
    with Server(connect_proxy(keys.port, CREDENTIALS)) as proxy:
        place = "127.0.0.1:%d" % proxy.port
        client = Client(authority, environ={"ALL_PROXY": "http://%s@%s" % (ENCODED, place)})
        assert client.get() == b"yes"
        seen = client.transport.seen
        client.transport.close()
    assert (seen.proxy, seen.proxy_from) == ("http://" + place, "ALL_PROXY")
    assert (seen.addresses, seen.peer) == (["127.0.0.1"], place)
    assert (seen.tls, seen.store) == ("TLSv1.3", "ca_bundle")
    assert [one.issuer for one in seen.chain] == ["A private CA"]
    assert sorted(seen.took_s) == ["TLS", "answer", "proxy"]


# --- which proxy --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url, environ, chosen",
    [
        ("https://h.example/", {}, ""),
        ("https://h.example/", {"https_proxy": "a:1"}, "a:1"),
        ("https://h.example/", {"HTTPS_PROXY": "a:1"}, "a:1"),
        ("https://h.example/", {"https_proxy": "a:1", "HTTPS_PROXY": "b:1"}, "a:1"),
        ("https://h.example/", {"https_proxy": "", "HTTPS_PROXY": "b:1"}, ""),
        ("https://h.example/", {"https_proxy": "", "all_proxy": "b:1"}, ""),
        ("https://h.example/", {"http_proxy": "a:1"}, ""),
        ("https://h.example/", {"all_proxy": "a:1"}, "a:1"),
        ("https://h.example/", {"ALL_PROXY": "a:1"}, "a:1"),
        ("https://h.example/", {"all_proxy": "a:1", "https_proxy": "b:1"}, "b:1"),
        ("https://h.example/", {"https_proxy": " a:1 "}, "a:1"),
        ("http://h.example/", {"http_proxy": "a:1"}, "a:1"),
        ("http://h.example/", {"HTTP_PROXY": "a:1"}, "a:1"),
        ("http://h.example/", {"HTTP_PROXY": "a:1", "REQUEST_METHOD": "GET"}, ""),
        ("http://h.example/", {"http_proxy": "a:1", "REQUEST_METHOD": "GET"}, "a:1"),
        ("https://h.example/", {"HTTPS_PROXY": "a:1", "REQUEST_METHOD": "GET"}, "a:1"),
        ("http://h.example/", {"https_proxy": "a:1"}, ""),
        # What only this machine can reach is not asked of another one.
        ("http://localhost:8080/", {"http_proxy": REMOTE}, ""),
        ("http://127.0.0.1:8080/", {"http_proxy": REMOTE}, ""),
        ("http://[::1]:8080/", {"all_proxy": REMOTE}, ""),
        ("http://127.0.0.1:8080/", {"http_proxy": "http://127.0.0.1:1"}, "http://127.0.0.1:1"),
        ("http://127.0.0.1:8080/", {"http_proxy": "localhost:1"}, "localhost:1"),
        (
            "http://127.0.0.1/",
            {"http_proxy": "http://127.0.0.1:1", "no_proxy": "127.0.0.1"},
            "",
        ),
    ],
)
def test_the_environments_proxy(url: str, environ: Mapping[str, str], chosen: str) -> None:
    assert choose_proxy(url, environ, {})[0] == chosen


@pytest.mark.parametrize(
    "excluded, url, direct",
    [
        ("*", "https://h.example/", True),
        ("a, *", "https://h.example/", True),
        ("", "https://h.example/", False),
        (",, ,", "https://h.example/", False),
        ("h.example", "https://h.example/", True),
        ("H.Example", "https://h.EXAMPLE/", True),
        ("h.example", "https://h.example./", True),
        ("h.example.", "https://h.example/", True),
        ("a b,h.example,c", "https://h.example/", True),
        ("a h.example b", "https://h.example/", True),
        ("example", "https://h.example/", True),
        (".example", "https://h.example/", True),
        ("*.example", "https://h.example/", True),
        (".h.example", "https://h.example/", True),
        ("h.example", "https://a.b.h.example/", True),
        ("h.example", "https://oh.example/", False),
        ("h.example", "https://h.example.evil/", False),
        (".", "https://h.example/", False),
        ("h.example:443", "https://h.example/", True),
        ("h.example:8443", "https://h.example/", False),
        ("h.example:8443", "https://h.example:8443/", True),
        (".example:443", "https://h.example/", True),
        ("h.example:80", "http://h.example/", True),
        ("10.0.0.1", "https://10.0.0.1/", True),
        ("10.0.0.1:443", "https://10.0.0.1/", True),
        ("10.0.0.1:80", "https://10.0.0.1/", False),
        ("0.0.1", "https://10.0.0.1/", False),
        ("10.0.0.0/8", "https://10.1.2.3/", True),
        ("10.0.0.1/8", "https://10.1.2.3/", True),
        ("10.0.0.0/8", "https://11.1.2.3/", False),
        ("10.0.0.0/8", "https://10.example/", False),
        ("10.0.0.0/99", "https://10.1.2.3/", False),
        ("2001:db8::1", "https://[2001:db8::1]/", True),
        ("[2001:db8::1]", "https://[2001:DB8:0::1]/", True),
        ("[2001:db8::1]:443", "https://[2001:db8::1]/", True),
        ("[2001:db8::1]:80", "https://[2001:db8::1]/", False),
        ("2001:db8::/32", "https://[2001:db8::1]/", True),
        ("2001:db8::/32", "https://[2001:db9::1]/", False),
        ("10.0.0.0/8", "https://[2001:db8::1]/", False),
        ("[", "https://h.example/", False),
        ("[]:443", "https://h.example/", False),
        (":443", "https://h.example/", False),
    ],
)
def test_no_proxy(excluded: str, url: str, direct: bool) -> None:
    for environ in (
        {"all_proxy": REMOTE, "no_proxy": excluded},
        {"ALL_PROXY": REMOTE, "NO_PROXY": excluded},
        {"all_proxy": REMOTE, "no_proxy": excluded, "NO_PROXY": "other"},
    ):
        assert choose_proxy(url, environ, {})[0] == ("" if direct else REMOTE)
    # What the environment excludes is excluded from the system's proxy too.
    system = {"http": REMOTE, "https": REMOTE}
    assert choose_proxy(url, {"no_proxy": excluded}, system)[0] == ("" if direct else REMOTE)


@pytest.mark.parametrize(
    "system, url, chosen",
    [
        ({"https": "a:1"}, "https://h.example/", "a:1"),
        ({"http": "a:1"}, "https://h.example/", ""),
        ({"socks": "http://a:1"}, "https://h.example/", "socks5h://a:1"),
        ({"socks": "http://a:1", "https": "b:1"}, "https://h.example/", "b:1"),
        ({"https": "a:1", "no": "<local>"}, "https://intranet/", ""),
        ({"https": "a:1", "no": "<local>"}, "https://h.example/", "a:1"),
        ({"https": "a:1", "no": "*.example; other"}, "https://h.example/", ""),
        ({"https": "a:1", "no": "*.EXAMPLE"}, "https://h.example/", ""),
        ({"https": "a:1", "no": "10.*"}, "https://10.1.2.3/", ""),
        ({"https": "a:1", "no": "169.254.0.0/16"}, "https://169.254.7.7/", ""),
        ({"https": "a:1", "no": "169.254.0.0/16"}, "https://169.255.7.7/", "a:1"),
        ({"https": "a:1", "no": ";; ;"}, "https://h.example/", "a:1"),
        ({"https": "a:1", "no": "ample"}, "https://h.example/", "a:1"),
        ({"http": REMOTE}, "http://127.0.0.1:8080/", ""),
    ],
)
def test_the_systems_proxy(system: Mapping[str, str], url: str, chosen: str) -> None:
    assert choose_proxy(url, {}, system)[0] == chosen
    # A proxy of the environment comes first, and what the system excludes is not its concern.
    environ: Optional[Mapping[str, str]] = {"all_proxy": "http://127.0.0.1:9"}
    assert choose_proxy(url, environ or {}, system)[0] == "http://127.0.0.1:9"
