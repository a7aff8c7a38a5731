"""Servers, proxies and resolvers that take their time, and somebody who wants to stop waiting.

Upper bounds are a multiple of what was asked for: a machine under load must not fail them, a missing deadline must.
"""

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from operator import le
from pathlib import Path
from typing import Any

import pytest
from support.agent import run_python
from support.collector import wait_until
from support.faults import interrupted_at
from support.requests import closed_port, post, refused
from support.sockets import Authority, Behaviour, Server, answers, drips, floods, names, ok, silent

from agent.transport import HttpTransport
from agent.values import Request, Unreachable, inside

TIMEOUT_S = 0.25
LATE_S = 6 * TIMEOUT_S
FOREVER_S = 50.0


@contextmanager
def within(limit_s: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < limit_s


@pytest.fixture(autouse=True)
def nothing_in_clear_text(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """SSLSocket.shutdown forgets TLS before it shuts: what another thread writes in between leaves as it is."""
    forgot: list[object] = []
    monkeypatch.setattr(ssl.SSLSocket, "shutdown", lambda self, how: forgot.append(self))
    yield
    assert not forgot


# A record of 16 KB is announced and dripped: neither it nor the handshake ever ends.
HALF_A_RECORD = b"\x16\x03\x03\x40\x00"


def tunnels(connection: socket.socket, server: Server) -> None:
    """A proxy that agrees, and behind it a server that begins its part of the handshake and never ends it."""
    server.read_request(connection)
    connection.sendall(b"HTTP/1.1 200 Fine\r\n\r\n")
    drips(HALF_A_RECORD, b"\0")(connection, server)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

# What a server does, what stands between (TLS, a proxy), and where that ends.
SLOW: dict[str, tuple[Behaviour, str, str]] = {
    "says nothing": (silent, "", "answer"),
    "drips headers": (drips(b"HTTP/1.1 200 OK\r\nX-Y: "), "", "answer"),
    "drips a status line": (drips(b"H"), "", "answer"),
    "drips a body": (drips(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"), "", "answer"),
    "drips a body without a length": (drips(b"HTTP/1.1 200 OK\r\n\r\n"), "", "answer"),
    "drips chunks": (drips(CHUNKED, b"1\r\nx\r\n"), "", "answer"),
    "floods a chunk's end": (floods(CHUNKED + b"0\r\n", b"X: y\r\n"), "", "answer"),
    "stops in the body": (drips(ok(b"12345")[:-1], b""), "", "answer"),
    "drips 100 Continue": (drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "", "answer"),
    "floods 103": (floods(b"", b"HTTP/1.1 103 Hints\r\n\r\n"), "", "answer"),
    "says nothing in the handshake": (silent, "handshake", "TLS"),
    "drips in the handshake": (drips(HALF_A_RECORD, b"\0"), "handshake", "TLS"),
    "says nothing behind TLS": (silent, "TLS", "answer"),
    "drips headers behind TLS": (drips(b"HTTP/1.1 200 OK\r\nX-Y: "), "TLS", "answer"),
    "drips a body behind TLS": (drips(b"HTTP/1.1 200 OK\r\n\r\n"), "TLS", "answer"),
    "says nothing to CONNECT": (silent, "http", "proxy"),
    "drips an answer to CONNECT": (drips(b"HTTP/1.1 200 OK\r\nX-Y: "), "http", "proxy"),
    "drips in the handshake behind CONNECT": (tunnels, "http", "TLS"),
    "drips in TLS inside TLS": (tunnels, "https", "TLS"),
    "drips to SOCKS": (drips(b"\5\0\5\0\0\3\xff"), "socks5h", "proxy"),
}


@pytest.fixture(params=SLOW)
def slow(request: Any, authority: Authority) -> Iterator[tuple[HttpTransport, Request, Server]]:
    """A transport, a request on it that never ends, and the server that is to blame."""
    behaviour, between, _ = SLOW[request.param]
    if between == "socks5h":
        pytest.importorskip("socks")
    if between in ("TLS", "https"):
        behaviour = authority.over_tls(behaviour, "127.0.0.1")
    with Server(behaviour) as server:
        proxy = None
        if between in ("http", "https", "socks5h"):
            proxy = "%s://127.0.0.1:%d" % (between, server.port)
        made = HttpTransport(environ={}, ca_bundle=str(authority.path), proxy=proxy)
        yield made, post(server.port, scheme="https" if between else "http"), server
        made.close()


def too_late(transport: HttpTransport, request: Request) -> str:
    started = time.monotonic()
    with within(LATE_S):
        error = refused(transport, request, TIMEOUT_S)
    assert time.monotonic() - started > TIMEOUT_S * 0.9
    assert error.reason == "%s: no answer within 0.25 s" % error.stage
    return error.stage


def test_whoever_is_slow_gets_the_time_it_was_given(
    slow: tuple[HttpTransport, Request, Server], request: pytest.FixtureRequest
) -> None:
    transport, asked, _ = slow
    assert too_late(transport, asked) == SLOW[request.node.callspec.params["slow"]][2]


def test_an_interrupt_ends_every_wait(slow: tuple[HttpTransport, Request, Server]) -> None:
    transport, asked, server = slow
    interrupted(transport, asked, server.seen)


def interrupted(
    transport: HttpTransport, request: Request, seen: threading.Event, by: str = "interrupt"
) -> None:
    """Interrupts from another thread once ``seen`` is set; the sender must notice at once."""
    at: list[float] = []

    def interrupt() -> None:
        seen.wait(0.5)
        at.append(time.monotonic())
        getattr(transport, by)()

    other = threading.Thread(target=interrupt)
    other.start()
    error = refused(transport, request, FOREVER_S)
    noticed = time.monotonic()
    other.join()
    assert noticed - at[0] < 3
    # On Windows a shutdown wakes no write: the one before may hang still.
    assert by == "close" or error.reason == "interrupted" or os.name == "nt"


@pytest.mark.parametrize("tls", [False, True])
def test_a_server_that_does_not_read_gets_the_time_it_was_given(
    transport: HttpTransport, authority: Authority, tls: bool
) -> None:
    def deaf(connection: socket.socket, server: Server) -> None:
        connection.recv(1)
        server.seen.set()
        server.ended.wait()

    with Server(authority.over_tls(deaf, "127.0.0.1") if tls else deaf) as server:
        request = post(server.port, bytes(20_000_000), scheme="https" if tls else "http")
        assert too_late(transport, request) == "answer"
        server.seen.clear()
        interrupted(transport, request, server.seen)


def test_a_server_behind_tls_that_reads_after_a_pause_gets_the_body_as_it_is(
    transport: HttpTransport, authority: Authority
) -> None:
    body = b"".join(b"%07d\n" % n for n in range(1_000_000))

    def dozes(connection: socket.socket, server: Server) -> None:
        server.ended.wait(0.5)
        server.read_request(connection)
        connection.sendall(ok(b"yes"))

    with Server(authority.over_tls(dozes, "127.0.0.1")) as server:
        request = post(server.port, body, scheme="https")
        assert transport.send(request, timeout_s=FOREVER_S).body == b"yes"
        assert server.requests[0].endswith(b"\r\n\r\n" + body)


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


def test_a_host_that_stops_the_clock_takes_no_deadline_away(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    import agent.transport

    began = time.monotonic()
    monkeypatch.setattr(agent.transport, "monotonic", lambda: 7.0)
    for name in ("time", "monotonic", "perf_counter"):
        monkeypatch.setattr(time, name, lambda: 7.0)
    with Server(drips(b"H")) as server:
        refused(transport, post(server.port), TIMEOUT_S)
    monkeypatch.undo()
    assert time.monotonic() - began < LATE_S


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_nothing_that_fails_or_works_leaves_a_socket_or_a_thread(
    authority: Authority, full_port: int
) -> None:
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    with Server(silent) as quiet, Server(drips(b"HTTP/1.1 200 OK\r\n\r\n")) as dripping:
        with Server(answers(ok(b"yes"))) as plain:
            before = held()
            transport = HttpTransport(environ={}, ca_bundle=str(authority.path))
            for port in (quiet.port, dripping.port, plain.port, full_port, closed_port()):
                for scheme in ("http", "https"):
                    with suppress(Unreachable):
                        transport.send(post(port, scheme=scheme), timeout_s=0.1)
            assert transport.send(post(plain.port), timeout_s=FOREVER_S).complete
            transport.close()
            wait_until(lambda: all(map(le, held(), before)))  # the servers' own end, too


# --- names and addresses ------------------------------------------------------------------------


def test_a_dead_address_leaves_the_next_its_turn(transport: HttpTransport, full_port: int) -> None:
    with Server(answers(ok(b"yes"))) as server:
        dead = "127.0.0.1:%d" % full_port
        with names(dead, "127.0.0.1:%d" % server.port), within(8):
            request = post(80, host="keys.example")
            assert transport.send(request, timeout_s=2).body == b"yes"
        with names(dead), within(8):
            error = refused(transport, post(81, host="keys.example"), 0.5)
            refused(transport, post(81, host="keys.example"), 0)
    assert error.stage == "connection"


def test_what_a_name_has_or_has_not_is_told(transport: HttpTransport) -> None:
    def unknown(host: str) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def broken(host: str) -> None:
        raise UnicodeError("with the name in it")

    with names(ask=unknown):
        error = refused(transport, post(80, host="keys.example"))
        assert error.reason == "name resolution: Name or service not known"
    with names(ask=broken):
        assert refused(transport, post(80, host="keys.example")).reason.endswith("UnicodeError")
    with names("127.0.0.1:%d" % closed_port()):
        error = refused(transport, post(80, host="keys.example"))
        assert error.stage == "connection" and "ECONNREFUSED" in error.reason


class Hung:
    """Look-ups of one name that end when they are told to."""

    def __init__(self, host: str) -> None:
        self.host, self.begun, self.over = host, threading.Event(), threading.Event()
        self.count = 0

    def __call__(self, host: str) -> None:
        if host == self.host:
            self.count += 1
            self.begun.set()
            assert self.over.wait(50)


@pytest.fixture
def hung() -> Iterator[Hung]:
    made = Hung("one.example")
    yield made
    made.over.set()


def test_one_look_up_hangs_at_most_other_servers_are_reached_and_names_work_again(
    transport: HttpTransport, hung: Hung
) -> None:
    with Server(answers(ok(b"yes"))) as server:
        with names("127.0.0.1:%d" % server.port, ask=hung):
            one, two = (post(80, host=host) for host in ("one.example", "two.example"))
            assert too_late(transport, one) == "name resolution"
            for _ in range(3):
                with within(LATE_S):
                    error = refused(transport, one, FOREVER_S)
                assert error.reason.endswith("does not answer (an earlier request hangs)")
                assert transport.send(two, timeout_s=FOREVER_S).body == b"yes"
                transport.rest()  # and a rest forgets nothing of it
            assert hung.count == 1
            hung.over.set()

            def works() -> bool:
                with suppress(Unreachable):
                    return transport.send(one, timeout_s=FOREVER_S).body == b"yes"
                return False

            wait_until(works)
            # The one that was left behind has sent nothing late.
            assert len(server.requests) == 4


def test_an_interrupt_ends_a_look_up_and_an_attempt_to_connect(
    transport: HttpTransport, hung: Hung, full_port: int
) -> None:
    with names(ask=hung):
        interrupted(transport, post(80, host="one.example"), hung.begun)
    seen = threading.Event()
    timer = threading.Timer(0.3, seen.set)
    timer.start()
    interrupted(transport, post(full_port), seen)
    timer.join()


SILENT = """
import os, signal, socket, sys, threading, time, urllib.request, urllib3
from agent.transport import HttpTransport
from agent.values import Request, Unreachable, here, inside
def getaddrinfo(*asked, **how):
    print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())) != [], here() in inside, flush=True)
    time.sleep(1000)  # as a call that nothing ends
socket.getaddrinfo = getaddrinfo
transport = HttpTransport(environ={})
try:
    transport.send(Request("POST", "http://keys.example/", {}, b""), timeout_s=1)
except Unreachable as error:
    print(error, here() in inside, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
transport.close()
"""


@pytest.mark.skipif(os.name == "nt", reason="needs pthread_sigmask")
def test_a_thread_left_behind_gets_no_signal_and_keeps_no_exit() -> None:
    with within(20):
        done = run_python(SILENT)
    assert (done.returncode, done.stderr) == (0, "")
    said = "name resolution: no answer within 1 s False set()"
    assert done.stdout.splitlines() == ["True True", said]


def test_any_call_may_be_left_behind(transport: HttpTransport) -> None:
    over = threading.Event()
    for found in ({"domain": "acme.example"}, {}, None):
        assert transport.aside(lambda found=found: found, 5) == found  # type: ignore[misc]
    with pytest.raises(Unreachable, match="^ZeroDivisionError$"):
        transport.aside(lambda: 1 / 0, 5)
    with within(LATE_S), pytest.raises(Unreachable, match="no answer within 0.25 s"):
        transport.aside(over.wait, TIMEOUT_S)
    with Server(answers(ok(b"yes"))) as server:
        assert transport.send(post(server.port), timeout_s=5).body == b"yes"
    with within(LATE_S), pytest.raises(Unreachable, match="hangs"):
        transport.aside(lambda: 1, 5)
    over.set()


# --- somebody who does not want to wait ---------------------------------------------------------


def test_an_interrupt_concerns_one_connection_or_while_nothing_is_sent_nobody(
    transport: HttpTransport,
) -> None:
    with Server(silent) as stuck, Server(answers(ok(b"yes"))) as server:
        for _ in range(2):
            transport.interrupt()
            assert transport.send(post(server.port), timeout_s=FOREVER_S).body == b"yes"
        interrupted(transport, post(stuck.port), stuck.seen)
        assert stuck.gone.wait(5)
        assert transport.send(post(server.port), timeout_s=FOREVER_S).body == b"yes"
        assert server.accepted == 1


def test_closing_from_another_thread_ends_the_request_and_its_connection(
    transport: HttpTransport,
) -> None:
    with Server(silent) as server:
        interrupted(transport, post(server.port), server.seen, by="close")
        assert server.gone.wait(5)


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
                    assert "interrupted" in error.reason or "hangs" in error.reason
        finally:
            over.set()
            other.join()
        assert transport.send(post(server.port), timeout_s=FOREVER_S).body == b"yes"


def try_every_line(what: str) -> None:
    with Server(answers(ok(b"yes"))) as server:
        for at in range(1, 1000):
            transport = HttpTransport(environ={})

            def send(transport: HttpTransport = transport) -> None:
                assert transport.send(post(server.port), timeout_s=FOREVER_S).body == b"yes"

            if what != "first":
                send()
            with suppress(KeyboardInterrupt), interrupted_at(at, KeyboardInterrupt) as lines:
                getattr(transport, what, send)()
            if what != "close":
                send()
            transport.close()
            if lines[0] < at:
                break
    assert at > 5 and not inside


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a handle that had no name yet
@pytest.mark.parametrize("what", ["first", "next", "rest", "close"])
def test_ctrl_c_at_any_line_leaves_a_transport_that_works_and_ends(what: str) -> None:
    # On a thread: one that is raised where a real one cannot come leaves its mark on the thread's exceptions.
    with ThreadPoolExecutor(1) as own:
        own.submit(try_every_line, what).result()
