"""What a server can do to us within the time it has: lie about lengths, redirect, compress, break off, vanish.

Redirects, bombs and floods with a genuine answer at their end: ``tests/attacks/test_attacks_wire.py``.
"""

import gzip
import logging
import os
import socket
import zlib
from collections.abc import Callable
from contextlib import suppress

import pytest
from support.agent import run_python
from support.requests import CANARY, post, refused
from support.sockets import Authority, Behaviour, Server, answers, floods, ok
from support.systems import posix

from agent.transport import HttpTransport
from agent.values import MAX_ANSWER_BYTES, Request, Unreachable, Withheld, here, inside


def each(server: Server, transport: HttpTransport) -> list[bytes]:
    """The body that each of three requests is answered with."""
    return [transport.send(post(server.port), timeout_s=5).body for _ in range(3)]


# --- the plain case -----------------------------------------------------------------------------


def test_a_request_goes_out_as_given_and_the_answer_comes_back(transport: HttpTransport) -> None:
    with Server(answers(ok(b"yes", b"X-One: 1", b"X-one: 2"))) as server:
        response = transport.send(post(server.port, b"a=1&b=2", "/p?q=1"), timeout_s=5)
    assert (response.status, response.body, response.complete) == (200, b"yes", True)
    assert response.headers == {"content-length": "3", "x-one": "1, 2"}
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert body == b"a=1&b=2"
    assert sorted(head.split(b"\r\n")) == [
        b"Accept-Encoding: identity",
        b"Content-Length: 7",
        b"Host: 127.0.0.1:%d" % server.port,
        b"POST /p?q=1 HTTP/1.1",
        b"User-Agent: product/1",
        b"X-API-KEY: " + CANARY.encode(),
    ]


def test_each_address_keeps_one_connection_and_one_thread_for_many_requests(
    transport: HttpTransport,
) -> None:
    with Server(answers(ok(b"1"))) as one, Server(answers(ok(b"2"))) as two:
        asked: list[tuple[int, int]] = []

        def may_send() -> bool:
            asked.append(here())
            return here() in inside

        for server in [one, two] * 10:
            request = post(server.port)
            request.may_send = may_send
            assert transport.send(request, timeout_s=5).body == (b"1" if server is one else b"2")
        assert (one.accepted, two.accepted, len(one.requests)) == (1, 1, 10)
        assert asked[:2] * 10 == asked and len(set(asked)) == 2 and not {here()} & inside
        transport.rest()
        assert not inside


@posix  # Windows numbers sockets apart from files
def test_a_kept_connection_whose_number_the_host_took_writes_into_none_of_its_sockets(
    transport: HttpTransport,
) -> None:
    """Some close every descriptor that they do not know; their next socket gets one of those numbers."""
    with Server(answers(ok(b"1"))) as server:
        transport.send(post(server.port), timeout_s=5)
        (line,) = transport._lines.values()
        ours = line.connection.sock.fileno()
        mine, peer = socket.socketpair()
        os.dup2(mine.fileno(), ours)
        with suppress(Unreachable):
            transport.send(post(server.port), timeout_s=5)
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(1)
        transport.rest()
        os.fstat(ours)  # nor is it closed
        os.close(ours)
        mine.close()
        peer.close()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "parts, body",
    [
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], b""),
        ([CHUNKED, b"2\r\nye\r\n", b"1\r\ns\r\n0\r\n\r\n"], b"yes"),
    ],
)
def test_what_ends_without_a_length_keeps_the_connection(
    transport: HttpTransport, parts: list[bytes], body: bytes
) -> None:
    with Server(answers(*parts)) as server:
        assert each(server, transport) == [body] * 3
        assert server.accepted == 1


def test_a_rest_closes_the_connection_and_closing_is_final(transport: HttpTransport) -> None:
    with Server(answers(ok(b"yes"))) as server:
        for accepted in (1, 2):
            transport.send(post(server.port), timeout_s=5)
            assert server.accepted == accepted and not server.gone.is_set()
            transport.rest()
            assert server.gone.wait(5)
            server.gone.clear()
        transport.send(post(server.port), timeout_s=5)
        transport.close()
        transport.close()
        assert server.gone.wait(5)
        assert refused(transport, post(server.port)).reason == "the transport is closed"
        assert server.accepted == 3


def test_a_connection_that_died_while_idle_is_not_used_again(transport: HttpTransport) -> None:
    with Server(answers(ok(b"yes"), once=True)) as server:
        for _ in range(3):
            assert transport.send(post(server.port), timeout_s=5).body == b"yes"
            assert server.left.wait(5)
            server.left.clear()
        assert server.accepted == 3


# --- before the first byte ----------------------------------------------------------------------


def test_consent_is_asked_on_the_connected_socket_and_a_no_sends_nothing(
    transport: HttpTransport,
) -> None:
    connected: list[int] = []

    def refuses() -> bool:
        connected.append(server.accepted)
        return False

    with Server(answers(ok(b"yes"))) as server:
        withheld = post(server.port)
        withheld.may_send = refuses
        for _ in range(2):  # on a new connection, then on a kept one
            with pytest.raises(Withheld):
                transport.send(withheld, timeout_s=5)
            assert transport.send(post(server.port), timeout_s=5).body == b"yes"
        assert len(server.requests) == 2
    assert len(connected) == 2


# --- one answer to one request ------------------------------------------------------------------


def numbered(before: bytes, after: bytes = b"") -> Behaviour:
    """Answers with the number of the request, between other bytes."""

    def behaviour(connection: socket.socket, server: Server) -> None:
        while server.read_request(connection):
            connection.sendall(before + ok(b"%d" % len(server.requests)) + after)

    return behaviour


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("first", [0, 8192])
def test_what_comes_behind_an_answer_is_not_taken_for_the_next(
    transport: HttpTransport, authority: Authority, tls: bool, first: int
) -> None:
    """Right behind it, or behind as much as is read at once, where TLS holds it back."""
    padding = b"x" * (first - len(ok(b"1")))
    behaviour = numbered(b"", padding + ok(b"evil"))
    with Server(authority.over_tls(behaviour, "127.0.0.1") if tls else behaviour) as server:
        request = post(server.port, scheme="https" if tls else "http")
        bodies = [transport.send(request, timeout_s=5).body for _ in range(3)]
        assert bodies == [b"1", b"2", b"3"]


# --- bodies of every size and coding ------------------------------------------------------------


def raw_deflate(body: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-15)
    return packing.compress(body) + packing.flush()


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, raw_deflate])
def test_a_packed_body_is_read_as_far_as_the_limit(
    transport: HttpTransport, pack: Callable[[bytes], bytes]
) -> None:
    coding = b"Content-Encoding: " + (b"gzip" if pack is gzip.compress else b"deflate")
    for body in (b"yes", bytes(20_000_000)):
        with Server(answers(ok(pack(body), coding))) as server:
            for _ in range(2):
                response = transport.send(post(server.port), timeout_s=10)
                assert response.body == body[:MAX_ANSWER_BYTES]
                assert response.complete == (body == b"yes")
    plain = b'{\n    "response": {\n        "code": 830'  # begins like one that was deflated
    with Server(answers(ok(plain, coding))) as server:  # some unpack, and leave the header
        response = transport.send(post(server.port), timeout_s=5)
        assert (response.body, response.complete) == (plain, True)


def test_the_limit_is_exact(transport: HttpTransport) -> None:
    for size in (MAX_ANSWER_BYTES, MAX_ANSWER_BYTES + 1):
        with Server(answers(ok(b"x" * size))) as server:
            for _ in range(2):  # the rest of a long one must not be taken for the next answer
                response = transport.send(post(server.port), timeout_s=5)
                assert response.body == b"x" * MAX_ANSWER_BYTES
                assert response.complete == (size == MAX_ANSWER_BYTES)
            assert len(server.requests) == 2


@pytest.mark.parametrize(
    "framing", [b"", b"Content-Length: 10737418240\r\n", b"Transfer-Encoding: chunked\r\n"]
)
def test_an_endless_body_is_cut_and_hung_up_on(transport: HttpTransport, framing: bytes) -> None:
    start = b"fffffff\r\n" if b"chunked" in framing else b""
    with Server(floods(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n" + start, b"x" * 100)) as server:
        response = transport.send(post(server.port), timeout_s=5)
        assert (response.body, response.complete) == (b"x" * MAX_ANSWER_BYTES, False)
        assert server.left.wait(5)


def test_a_body_without_a_length_ends_with_the_connection(transport: HttpTransport) -> None:
    with Server(answers(b"HTTP/1.0 200 OK\r\n\r\nyes", once=True)) as server:
        response = transport.send(post(server.port), timeout_s=5)
    assert (response.body, response.complete) == (b"yes", True)


CUT = {
    "length": b"Content-Length: 9\r\n\r\nyes",
    "in a chunk": b"Transfer-Encoding: chunked\r\n\r\n9\r\nyes",
    "between chunks": b"Transfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n",
    "no chunk": b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize("cut", CUT)
def test_a_body_that_breaks_off_is_incomplete(transport: HttpTransport, cut: str) -> None:
    with Server(answers(b"HTTP/1.1 200 OK\r\n" + CUT[cut], once=True)) as server:
        response = transport.send(post(server.port), timeout_s=5)
        assert (response.status, response.complete) == (200, False)
        assert b"yes".startswith(response.body)
        transport.send(post(server.port), timeout_s=5)
        assert server.accepted == 2


def test_an_early_answer_to_a_body_nobody_reads_is_heard(transport: HttpTransport) -> None:
    def too_large(connection: socket.socket, server: Server) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Too large\r\nContent-Length: 0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    with Server(too_large) as server:
        assert transport.send(post(server.port, bytes(1_000_000)), timeout_s=5).status == 413


# --- no answer at all ---------------------------------------------------------------------------


NOISE = [
    b"",
    b"SSH-2.0-OpenSSH_9.6\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n",
    b"HTTP/1.1 101 Up\r\nUpgrade: h2c\r\n\r\n" + ok(b""),
    b"HTTP/1.1 200 OK\r\nContent-Le",
]
NOISE += [
    b"HTTP/1.1 200 OK\r\n%s\r\n\r\nhi" % head
    for head in (
        b"\r\n".join([b"X: y"] * 200),
        b"X: y\r\nGarbage, text of the server\r\nA: b",
        b"no colon here\r\nContent-Length: 2",
        b"X : y\r\nContent-Length: 2",
        b"transfer-encoding: gzip, chunked\r\nCONTENT-LENGTH: 2",
        b"Content-Length: 2\r\nContent-Length: 3",
        b"Content-Length: x",
    )
]


@pytest.mark.parametrize("noise", NOISE, ids=lambda noise: repr(noise[-50:]))
def test_what_is_no_http_is_no_answer_and_no_line_in_the_hosts_log(
    transport: HttpTransport,
    noise: bytes,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(1)
    with Server(answers(noise, once=True)) as server:
        try:
            transport.send(post(server.port, CANARY.encode()), timeout_s=5)
        except Unreachable as error:
            assert error.stage == "answer"
            assert "arbage" not in error.reason and "colon" not in error.reason
        else:
            assert b"Content-Le" in noise  # cut in the head, and lengths that are none
    assert capfd.readouterr() == ("", "")
    assert [one for one in caplog.records if one.levelno > logging.DEBUG] == []
    assert "arbage" not in caplog.text and CANARY not in caplog.text


LABEL = "http://%s.%s/" % (CANARY, "x" * 70)


@pytest.mark.parametrize("url", ["gopher://h/", "http://[127.0.0.1/", "http://h:99999/", "", LABEL])
def test_an_impossible_request_is_unreachable_too(transport: HttpTransport, url: str) -> None:
    refused(transport, Request("POST", url + CANARY, {}, b""))
    refused(transport, Request("PO ST", "http://127.0.0.1:1/" + CANARY, {}, b""))
    refused(transport, Request("POST", "http://127.0.0.1:1/", {"X": "%s\r\nE: 1" % CANARY}, b""))


# --- the host never pays ------------------------------------------------------------------------


FOOTPRINT = """
import sys, warnings
before = set(sys.modules)
from agent.transport import HttpTransport
from agent.values import Request
HttpTransport(proxy="http://u:p@h:1", ca_bundle="/nowhere", environ={}).interrupt()
loaded = set(sys.modules) - before
assert not loaded & {"socket", "ssl", "urllib3", "http", "logging", "threading", "urllib"}, loaded
import logging, ssl
ssl_before, filters = dict(vars(ssl)), list(warnings.filters)
transport = HttpTransport(proxy="direct", environ={})
assert transport.send(Request("POST", sys.argv[1], {}, b""), timeout_s=5).status == 200
transport.close()
assert logging.getLogger().handlers == [] and logging.root.level == logging.WARNING
new = [one for one in warnings.filters if one not in filters]
assert all(one[1] is not None or one[2].__module__ == "urllib3.exceptions" for one in new), new
assert {name: value for name, value in vars(ssl).items() if ssl_before.get(name) is not value} == {}
"""


def test_nothing_heavy_is_loaded_before_a_send_and_nothing_global_is_changed_by_one() -> None:
    with Server(answers(ok(b"yes"))) as server:
        done = run_python(FOOTPRINT, "http://127.0.0.1:%d/" % server.port, options=("-W", "error"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_a_connection_of_its_own_and_leaves_the_parents(
    transport: HttpTransport,
) -> None:
    with Server(answers(ok(b"yes"))) as server:
        for accepted in (2, 3):
            transport.send(post(server.port), timeout_s=5)
            child = os.fork()
            if not child:
                try:
                    status = transport.send(post(server.port), timeout_s=5).status
                    transport.close()
                    os._exit(status - 200)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
            transport.send(post(server.port), timeout_s=5)
            assert server.accepted == accepted
