"""Servers, proxies and resolvers that take their time, and somebody who wants to stop waiting.

Upper bounds are a multiple of what was asked for: a machine under load must not fail them, a missing deadline must.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.agent import FakeClock, desk
from support.sockets import Authority, Behaviour, Server, answers, drips, floods, ok, silent

from agent.clock import Clock
from agent.transport import HttpTransport, Request, Unreachable
from agent.transport.wire import Deadline

TIMEOUT_S = 0.25
LATE_S = 6 * TIMEOUT_S
FOREVER_S = 50.0


def post(port: int, scheme: str = "http", host: str = "127.0.0.1", body: bytes = b"x") -> Request:
    return Request("POST", "%s://%s:%d/x" % (scheme, host, port), {}, body)


def resolver_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "name-resolver"]


@contextmanager
def within(limit_s: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < limit_s


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def transport(authority: Authority) -> Iterator[HttpTransport]:
    made = HttpTransport(environ={}, ca_bundle=str(authority.path))
    yield made
    made.close()


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose queue is full: the kernel drops what knocks, as a firewall does."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    knocking = []
    while True:
        sock = socket.socket()
        knocking.append(sock)
        sock.settimeout(0.1)
        try:
            sock.connect(listener.getsockname())
        except OSError:
            break
    yield listener.getsockname()[1]
    for sock in [*knocking, listener]:
        sock.close()


# A record of 16 KB is announced and dripped: neither it nor the handshake ever ends.
HALF_A_RECORD = b"\x16\x03\x03\x40\x00"

SLOW: dict[str, tuple[Behaviour, str]] = {
    "says nothing": (silent, "answer"),
    "drips headers": (drips(b"HTTP/1.1 200 OK\r\nX-Y: "), "answer"),
    "drips a status line": (drips(b"H"), "answer"),
    "drips a body": (drips(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"), "answer"),
    "drips a body without a length": (drips(b"HTTP/1.1 200 OK\r\n\r\n"), "answer"),
    "drips chunks": (
        drips(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        "answer",
    ),
    "stops in the body": (drips(ok(b"12345")[:-1], b""), "answer"),
    "says 100 Continue for ever": (drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "answer"),
}
SLOW_TLS: dict[str, tuple[Behaviour, str]] = {
    "says nothing in the handshake": (silent, "TLS"),
    "drips in the handshake": (drips(HALF_A_RECORD, b"\0"), "TLS"),
}
SLOW_PROXY: dict[str, tuple[Behaviour, str]] = {
    "says nothing to CONNECT": (silent, "proxy"),
    "drips an answer to CONNECT": (drips(b"HTTP/1.1 200 OK\r\nX-Y: "), "proxy"),
}


# TLS reads on its own account: whole records, from half of one.
SLOW_BEHIND_TLS = {name: SLOW[name] for name in ("says nothing", "drips headers", "drips a body")}


def slow(cases: dict[str, tuple[Behaviour, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("behaviour, stage", cases.values(), ids=cases.keys())


def too_late(transport: HttpTransport, request: Request) -> Unreachable:
    started = time.monotonic()
    with within(LATE_S), pytest.raises(Unreachable) as caught:
        transport.send(request, timeout_s=TIMEOUT_S)
    assert time.monotonic() - started > TIMEOUT_S * 0.9
    assert caught.value.reason == "%s: no answer within 0.25 s" % caught.value.stage
    return caught.value


@slow(SLOW)
def test_a_slow_server_gets_the_time_it_was_given(
    transport: HttpTransport, behaviour: Behaviour, stage: str
) -> None:
    with Server(behaviour) as server:
        assert too_late(transport, post(server.port)).stage == stage


@slow(SLOW_TLS)
def test_a_slow_handshake_gets_the_time_it_was_given(
    transport: HttpTransport, behaviour: Behaviour, stage: str
) -> None:
    with Server(behaviour) as server:
        assert too_late(transport, post(server.port, "https")).stage == stage


@slow(SLOW_BEHIND_TLS)
def test_a_slow_server_behind_tls_gets_the_time_it_was_given(
    transport: HttpTransport, authority: Authority, behaviour: Behaviour, stage: str
) -> None:
    with Server(authority.over_tls(behaviour, "127.0.0.1")) as server:
        assert too_late(transport, post(server.port, "https")).stage == stage


@slow(SLOW_PROXY)
def test_a_slow_proxy_gets_the_time_it_was_given(behaviour: Behaviour, stage: str) -> None:
    with Server(behaviour) as server:
        transport = HttpTransport(proxy="http://127.0.0.1:%d" % server.port, environ={})
        assert too_late(transport, post(443, "https", "keys.example")).stage == stage
        transport.close()


def test_a_server_that_does_not_read_gets_the_time_it_was_given(transport: HttpTransport) -> None:
    def deaf(connection: socket.socket, server: Server) -> None:
        server.ended.wait()

    with Server(deaf) as server:
        too_late(transport, post(server.port, body=bytes(50_000_000)))


def test_a_server_behind_tls_that_does_not_read_gets_the_time_it_was_given(
    transport: HttpTransport, authority: Authority
) -> None:
    def deaf(connection: socket.socket, server: Server) -> None:
        server.ended.wait()

    with Server(authority.over_tls(deaf, "127.0.0.1")) as server:
        too_late(transport, post(server.port, "https", body=bytes(50_000_000)))


def test_a_server_behind_tls_that_reads_after_a_pause_gets_the_body_as_it_is(
    transport: HttpTransport, authority: Authority
) -> None:
    """The pause is longer than one wait of ours, and TLS sends the same bytes again or spoils the stream."""
    body = b"".join(b"%07d\n" % n for n in range(1_000_000))

    def dozes(connection: socket.socket, server: Server) -> None:
        server.ended.wait(1.2)
        server.read_request(connection)
        connection.sendall(ok(b"yes"))

    with Server(authority.over_tls(dozes, "127.0.0.1")) as server:
        request = post(server.port, "https", body=body)
        assert transport.send(request, timeout_s=FOREVER_S).body == b"yes"
        assert server.requests[0].endswith(b"\r\n\r\n" + body)


def tunnels(connection: socket.socket, server: Server) -> None:
    """A proxy that agrees, and behind it a server that begins its part of the handshake and never ends it."""
    server.read_request(connection)
    connection.sendall(b"HTTP/1.1 200 Fine\r\n\r\n")
    drips(HALF_A_RECORD, b"\0")(connection, server)


@pytest.mark.parametrize("proxy", ["http", "https"])
def test_a_slow_handshake_behind_a_proxy_gets_the_time_it_was_given(
    authority: Authority, proxy: str
) -> None:
    behaviour = tunnels if proxy == "http" else authority.over_tls(tunnels, "127.0.0.1")
    with Server(behaviour) as server:
        transport = HttpTransport(
            proxy="%s://127.0.0.1:%d" % (proxy, server.port),
            environ={},
            ca_bundle=str(authority.path),
        )
        assert too_late(transport, post(443, "https", "keys.example")).stage == "TLS"
        transport.close()


def test_a_firewall_that_drops_gets_the_time_it_was_given(
    transport: HttpTransport, full_port: int
) -> None:
    assert too_late(transport, post(full_port)).stage == "connection"


def test_no_time_at_all_is_no_answer(transport: HttpTransport) -> None:
    with Server(answers(ok(b"yes"))) as server:
        with within(LATE_S), pytest.raises(Unreachable):
            transport.send(post(server.port), timeout_s=0)
        assert transport.send(post(server.port), timeout_s=FOREVER_S).body == b"yes"


def test_a_request_that_was_late_spoils_nothing_for_the_next(transport: HttpTransport) -> None:
    def slow_at_first(connection: socket.socket, server: Server) -> None:
        server.read_request(connection)
        if server.accepted > 1:
            connection.sendall(ok(b"second"))
        else:
            connection.recv(1)  # until the client has had enough
            connection.sendall(ok(b"first"))

    with Server(slow_at_first) as server:
        too_late(transport, post(server.port))
        assert transport.send(post(server.port), timeout_s=FOREVER_S).body == b"second"


def test_a_flood_that_never_pauses_ends_all_the_same(transport: HttpTransport) -> None:
    with Server(floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n")) as server:
        with within(LATE_S), pytest.raises(Unreachable):
            transport.send(post(server.port), timeout_s=TIMEOUT_S)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_failure_leaves_a_socket_open(authority: Authority, full_port: int) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    transport = HttpTransport(environ={}, ca_bundle=str(authority.path))
    with Server(silent) as quiet, Server(drips(b"HTTP/1.1 200 OK\r\n\r\n")) as slow_body:
        for request in (
            post(quiet.port),
            post(quiet.port, "https"),
            post(slow_body.port),
            post(full_port),
            post(1),
        ):
            with pytest.raises(Unreachable):
                transport.send(request, timeout_s=0.1)
    transport.close()
    assert descriptors() == before


# --- addresses ----------------------------------------------------------------------------------


def entry(address: str, port: int) -> tuple[Any, Any, Any, Any, Any]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sockaddr = (address, port, 0, 0) if ":" in address else (address, port)
    return family, socket.SOCK_STREAM, 6, "", sockaddr


def test_an_address_that_does_not_answer_does_not_eat_the_time_of_the_next(full_port: int) -> None:
    with Server(answers(ok(b"yes"))) as server:
        dead = [entry("127.0.0.1", full_port)] * 3
        transport = HttpTransport(
            environ={}, resolve=lambda host, port: [*dead, entry("127.0.0.1", server.port)]
        )
        with within(5):
            request = Request("GET", "http://keys.example/", {}, b"")
            assert transport.send(request, timeout_s=FOREVER_S).body == b"yes"
        transport.close()


def test_addresses_of_both_families_take_turns(full_port: int) -> None:
    with Server(answers(ok(b"yes"))) as server:
        # Nobody listens at these, or there is no IPv6 here: both refuse at once. Eight are tried.
        dead = [entry("::1", 1)] * 20
        transport = HttpTransport(
            environ={}, resolve=lambda host, port: [*dead, entry("127.0.0.1", server.port)]
        )
        request = Request("GET", "http://keys.example/", {}, b"")
        assert transport.send(request, timeout_s=FOREVER_S).body == b"yes"
        transport.close()


def test_all_addresses_refuse() -> None:
    transport = HttpTransport(environ={}, resolve=lambda host, port: [entry("127.0.0.1", 1)] * 30)
    with within(5), pytest.raises(Unreachable, match="^connection: .*ECONNREFUSED"):
        transport.send(post(80, host="keys.example"), timeout_s=FOREVER_S)
    transport.close()


def test_an_address_that_is_refused_on_the_spot_says_why() -> None:
    everybody = [entry("255.255.255.255", 1)]
    transport = HttpTransport(environ={}, resolve=lambda host, port: everybody)
    with within(5), pytest.raises(Unreachable, match="^connection: ") as caught:
        transport.send(post(80, host="keys.example"), timeout_s=FOREVER_S)
    assert "EADDRNOTAVAIL" not in caught.value.reason
    transport.close()


def test_no_address_at_all() -> None:
    transport = HttpTransport(environ={}, resolve=lambda host, port: [])
    with within(5), pytest.raises(Unreachable) as caught:
        transport.send(post(80, host="keys.example"), timeout_s=FOREVER_S)
    assert caught.value.stage == "name resolution"
    transport.close()


# --- names --------------------------------------------------------------------------------------


class SilentResolver:
    """Answers nothing until it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.comes_back = threading.Event()
        self.port = 0

    def __call__(self, host: str, port: int) -> list[tuple[Any, Any, Any, Any, Any]]:
        self.asked.append(host)
        assert self.comes_back.wait(50)
        return [entry("127.0.0.1", self.port)]


@pytest.fixture
def resolver() -> Iterator[SilentResolver]:
    made = SilentResolver()
    yield made
    made.comes_back.set()
    for thread in resolver_threads():
        thread.join(10)


def test_at_most_one_look_up_ever_hangs_and_names_work_again_when_it_comes_back(
    resolver: SilentResolver,
) -> None:
    transport = HttpTransport(environ={}, resolve=resolver)
    assert too_late(transport, post(80, host="one.example")).stage == "name resolution"
    for _ in range(5):
        with within(LATE_S), pytest.raises(Unreachable, match="does not answer"):
            transport.send(post(80, host="two.example"), timeout_s=FOREVER_S)
    assert len(resolver_threads()) == 1
    assert resolver.asked == ["one.example"]
    with Server(answers(ok(b"yes"))) as server:
        # An address in digits needs no resolver, stuck or not.
        assert transport.send(post(server.port), timeout_s=FOREVER_S).body == b"yes"
        resolver.port = server.port
        resolver.comes_back.set()
        for thread in resolver_threads():
            thread.join(10)
        request = post(server.port, host="two.example")
        assert transport.send(request, timeout_s=FOREVER_S).body == b"yes"
    assert resolver.asked == ["one.example", "two.example"]
    transport.close()
    assert resolver_threads() == []


def forwards(url: str) -> Behaviour:
    """An HTTP proxy in front of a local server, one request for each connection."""
    port = int(url.rpartition(":")[2])

    def behaviour(connection: socket.socket, server: Server) -> None:
        request = server.read_request(connection).replace(url.encode(), b"", 1)
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            upstream.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            while data := upstream.recv(65536):
                connection.sendall(data)

    return behaviour


@pytest.mark.parametrize("deliver", ["thread", "manual"])
def test_an_agent_behind_a_silent_resolver_has_one_thread_more_and_delivers_when_it_is_back(
    resolver: SilentResolver, tmp_path: Path, deliver: str
) -> None:
    with desk(tmp_path / "state", FakeClock(time.time())) as at:
        with Server(forwards(at.collector.url)) as server:
            resolver.port = server.port
            transport = HttpTransport(
                environ={}, proxy="http://proxy.example:%d" % server.port, resolve=resolver
            )
            with at.agent(
                clock=Clock(), transport=transport, deliver=deliver, request_timeout_s=1
            ) as product:
                threads = threading.active_count() + (deliver == "thread")
                for n in range(6):
                    product.record_text("%d" % n, data_group="g")
                    with within(1 + LATE_S):
                        assert product.flush(timeout=0.3).pending == n + 1
                assert len(resolver.asked) == 1
                assert threading.active_count() <= threads + 1 + server.accepted
                resolver.comes_back.set()
                for thread in resolver_threads():
                    thread.join(10)
                assert product.flush(timeout=20).drained
                assert sorted(at.texts()) == ["%d" % n for n in range(6)]


def test_a_name_that_does_not_exist_says_so() -> None:
    def unknown(host: str, port: int) -> list[tuple[Any, Any, Any, Any, Any]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    transport = HttpTransport(environ={}, resolve=unknown)
    with pytest.raises(Unreachable) as caught:
        transport.send(post(80, host="keys.example"), timeout_s=FOREVER_S)
    assert caught.value.reason == "name resolution: Name or service not known"
    assert resolver_threads() == []
    transport.close()


def test_a_resolver_that_breaks_is_a_name_that_cannot_be_resolved() -> None:
    def broken(host: str, port: int) -> list[tuple[Any, Any, Any, Any, Any]]:
        raise UnicodeError("with the name in it")

    transport = HttpTransport(environ={}, resolve=broken)
    with pytest.raises(Unreachable, match="^name resolution: UnicodeError$"):
        transport.send(post(80, host="keys.example"), timeout_s=FOREVER_S)
    transport.close()


# --- somebody who does not want to wait ---------------------------------------------------------


def interrupted(transport: HttpTransport, request: Request, seen: threading.Event) -> None:
    """Interrupts from another thread once ``seen`` is set; the sender must notice at once."""
    at: list[float] = []

    def interrupt() -> None:
        assert seen.wait(20)
        at.append(time.monotonic())
        transport.interrupt()

    other = threading.Thread(target=interrupt)
    other.start()
    with pytest.raises(Unreachable, match="^interrupted$"):
        transport.send(request, timeout_s=FOREVER_S)
    noticed = time.monotonic()
    other.join()
    assert noticed - at[0] < 3


@slow(SLOW)
def test_an_interrupt_ends_the_wait_for_an_answer(
    transport: HttpTransport, behaviour: Behaviour, stage: str
) -> None:
    with Server(behaviour) as server:
        interrupted(transport, post(server.port), server.seen)


@slow(SLOW_BEHIND_TLS)
def test_an_interrupt_ends_the_wait_for_an_answer_behind_tls(
    transport: HttpTransport, authority: Authority, behaviour: Behaviour, stage: str
) -> None:
    with Server(authority.over_tls(behaviour, "127.0.0.1")) as server:
        interrupted(transport, post(server.port, "https"), server.seen)


@slow(SLOW_TLS)
def test_an_interrupt_ends_a_handshake(
    transport: HttpTransport, behaviour: Behaviour, stage: str
) -> None:
    with Server(behaviour) as server:
        interrupted(transport, post(server.port, "https"), server.seen)


def test_an_interrupt_ends_a_look_up(resolver: SilentResolver) -> None:
    seen = threading.Event()
    timer = threading.Timer(0.1, seen.set)

    def ask(host: str, port: int) -> list[tuple[Any, Any, Any, Any, Any]]:
        timer.start()
        return resolver(host, port)

    transport = HttpTransport(environ={}, resolve=ask)
    interrupted(transport, post(80, host="keys.example"), seen)
    timer.join()
    transport.close()


def test_an_interrupt_ends_a_connection_attempt(transport: HttpTransport, full_port: int) -> None:
    seen = threading.Event()
    timer = threading.Timer(0.3, seen.set)
    timer.start()
    interrupted(transport, post(full_port), seen)
    timer.join()


def test_an_interrupt_ends_the_sending_of_a_body(transport: HttpTransport) -> None:
    def deaf(connection: socket.socket, server: Server) -> None:
        connection.recv(1)
        server.seen.set()
        server.ended.wait()

    with Server(deaf) as server:
        interrupted(transport, post(server.port, body=bytes(50_000_000)), server.seen)


def test_an_interrupt_while_nothing_is_sent_concerns_nobody(transport: HttpTransport) -> None:
    with Server(answers(ok(b"yes"))) as server:
        for _ in range(3):
            transport.interrupt()
            assert transport.send(post(server.port), timeout_s=FOREVER_S).body == b"yes"
        assert server.accepted == 1


def test_a_request_after_an_interrupted_one_works(transport: HttpTransport) -> None:
    with Server(silent) as stuck, Server(answers(ok(b"yes"))) as server:
        transport.send(post(server.port), timeout_s=FOREVER_S)
        interrupted(transport, post(stuck.port), stuck.seen)
        assert stuck.gone.wait(5)
        assert transport.send(post(server.port), timeout_s=FOREVER_S).body == b"yes"
        assert server.accepted == 1


def test_closing_from_another_thread_ends_the_request_and_its_connection(
    transport: HttpTransport,
) -> None:
    with Server(silent) as server:

        def close() -> None:
            assert server.seen.wait(20)
            transport.close()

        other = threading.Thread(target=close)
        other.start()
        with within(FOREVER_S / 2), pytest.raises(Unreachable):
            transport.send(post(server.port), timeout_s=FOREVER_S)
        other.join()
        assert server.gone.wait(5)


def test_an_interrupt_is_over_before_the_next_request_can_use_the_connection() -> None:
    """Else it shuts the connection under a request that nobody interrupted."""
    deadline, begun = Deadline(), threading.Event()

    def next_request() -> None:
        deadline.end()
        deadline.begin(FOREVER_S)
        begun.set()

    following = threading.Thread(target=next_request)
    early: list[bool] = []

    def shut() -> None:
        following.start()
        early.append(begun.wait(0.1))

    deadline.begin(FOREVER_S)
    deadline.waker = shut
    deadline.interrupt()
    following.join()
    assert early == [False] and not deadline.interrupted


def test_interrupts_at_any_moment_leave_a_transport_that_works(transport: HttpTransport) -> None:
    over = threading.Event()

    def nag() -> None:
        while not over.wait(0.0005):
            transport.interrupt()

    with Server(answers(ok(b"yes"))) as server:
        other = threading.Thread(target=nag)
        other.start()
        try:
            for _ in range(100):
                try:
                    assert transport.send(post(server.port), timeout_s=FOREVER_S).body == b"yes"
                except Unreachable as error:
                    assert error.reason == "interrupted"
        finally:
            over.set()
            other.join()
        assert transport.send(post(server.port), timeout_s=FOREVER_S).body == b"yes"
