"""What a server can do to us within the time it has: lie about lengths, redirect, compress, break off, vanish."""

from __future__ import annotations

import gzip
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sockets import Server, answers, answers_once, floods, ok, silent

from agent.transport import MAX_ANSWER_BYTES, HttpTransport, Request, Response, Unreachable

CANARY = "s3cr3t-canary"


@pytest.fixture
def transport() -> Iterator[HttpTransport]:
    made = HttpTransport(environ={})
    yield made
    made.close()


def post(port: int, body: bytes = b"a=1", path: str = "/x") -> Request:
    headers = {"User-Agent": "product/1", "X-API-KEY": CANARY}
    return Request("POST", "http://127.0.0.1:%d%s" % (port, path), headers, body)


def refused(transport: HttpTransport, request: Request, timeout_s: float = 5) -> Unreachable:
    with pytest.raises(Unreachable) as caught:
        transport.send(request, timeout_s=timeout_s)
    error = caught.value
    assert error.__cause__ is None and error.__context__ is None
    assert CANARY not in "%s %r %r" % (error, error, error.args)
    return error


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# --- the plain case -----------------------------------------------------------------------------


def test_a_request_goes_out_as_given_and_the_answer_comes_back(transport: HttpTransport) -> None:
    with Server(answers(ok(b"yes", b"X-One: 1", b"X-one: 2"))) as server:
        response = transport.send(post(server.port, b"a=1&b=2", "/p?q=1"), timeout_s=5)
    assert (response.status, response.body, response.complete) == (200, b"yes", True)
    assert response.headers == {"content-length": "3", "x-one": "1, 2"}
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert body == b"a=1&b=2"
    assert sorted(head.split(b"\r\n")) == sorted(
        [
            b"POST /p?q=1 HTTP/1.1",
            b"Host: 127.0.0.1:%d" % server.port,
            b"Accept-Encoding: identity",
            b"Content-Length: 7",
            b"User-Agent: product/1",
            b"X-API-KEY: " + CANARY.encode(),
        ]
    )


def test_localhost_needs_no_resolver() -> None:
    def nobody(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        raise AssertionError("asked for " + host)

    transport = HttpTransport(environ={}, resolve=nobody)
    with Server(answers(ok(b""))) as server:
        for host in ("localhost", "127.0.0.1"):
            url = "http://%s:%d/" % (host, server.port)
            assert transport.send(Request("GET", url, {}, b""), timeout_s=5).status == 200
    transport.close()


def test_many_requests_use_one_connection(transport: HttpTransport) -> None:
    with Server(answers(ok(b"yes"))) as server:
        for _ in range(20):
            transport.send(post(server.port), timeout_s=5)
        assert (server.accepted, len(server.requests)) == (1, 20)


def test_an_empty_body_keeps_the_connection(transport: HttpTransport) -> None:
    with Server(answers(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        for _ in range(3):
            assert transport.send(post(server.port), timeout_s=5).complete
        assert server.accepted == 1


def test_resting_closes_the_connection_and_the_next_request_opens_another(
    transport: HttpTransport,
) -> None:
    with Server(answers(ok(b"yes"))) as server:
        transport.send(post(server.port), timeout_s=5)
        assert not server.gone.is_set()
        transport.rest()
        assert server.gone.wait(5)
        transport.send(post(server.port), timeout_s=5)
        assert server.accepted == 2


def test_closing_is_final_and_may_be_repeated(transport: HttpTransport) -> None:
    with Server(answers(ok(b"yes"))) as server:
        transport.send(post(server.port), timeout_s=5)
        transport.close()
        transport.close()
        assert server.gone.wait(5)
        assert refused(transport, post(server.port)).reason == "the transport is closed"
        assert server.accepted == 1


def test_a_connection_that_died_while_idle_is_not_used_again(transport: HttpTransport) -> None:
    with Server(answers_once(ok(b"yes"))) as server:
        for _ in range(3):
            assert transport.send(post(server.port), timeout_s=5).body == b"yes"
            assert server.left.wait(5)
            server.left.clear()
        assert server.accepted == 3


def test_two_addresses_keep_a_connection_each(transport: HttpTransport) -> None:
    with Server(answers(ok(b"1"))) as one, Server(answers(ok(b"2"))) as two:
        bodies = [transport.send(post(s.port), timeout_s=5).body for s in (one, two, one, two)]
        assert bodies == [b"1", b"2", b"1", b"2"]
        assert (one.accepted, two.accepted) == (1, 1)


# --- nothing is resent, followed or decoded -----------------------------------------------------


def test_a_lost_answer_is_not_fetched_by_sending_again(transport: HttpTransport) -> None:
    with Server(answers_once()) as server:
        error = refused(transport, post(server.port))
        assert error.reason == "answer: the server closed the connection without an answer"
        assert len(server.requests) == 1


def test_a_kept_connection_that_drops_a_request_is_no_reason_to_send_again(
    transport: HttpTransport,
) -> None:
    def once_then_drop(connection: socket.socket, server: Server) -> None:
        server.read_request(connection)
        connection.sendall(ok(b"yes"))
        server.read_request(connection)

    with Server(once_then_drop) as server:
        transport.send(post(server.port, b"1"), timeout_s=5)
        refused(transport, post(server.port, b"2"))
        assert [request[-1:] for request in server.requests] == [b"1", b"2"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_nothing_more(transport: HttpTransport, status: int) -> None:
    with Server(silent) as elsewhere:
        location = "Location: http://127.0.0.1:%d/" % elsewhere.port
        head = "HTTP/1.1 %d Moved\r\n%s\r\nContent-Length: 0\r\n\r\n" % (status, location)
        with Server(answers(head.encode())) as server:
            assert transport.send(post(server.port), timeout_s=5).status == status
        assert elsewhere.accepted == 0


def test_a_server_that_says_when_to_come_back_does_not_hold_us(transport: HttpTransport) -> None:
    busy = b"HTTP/1.1 503 Busy\r\nRetry-After: 50\r\nContent-Length: 0\r\n\r\n"
    with Server(answers(busy)) as server:
        response = transport.send(post(server.port), timeout_s=5)
        assert (response.status, response.headers["retry-after"]) == (503, "50")
        assert len(server.requests) == 1


def test_a_compression_bomb_stays_packed(transport: HttpTransport) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    assert len(bomb) < MAX_ANSWER_BYTES
    with Server(answers(ok(bomb, b"Content-Encoding: gzip"))) as server:
        response = transport.send(post(server.port), timeout_s=5)
    assert (response.body, response.complete) == (bomb, True)


# --- bodies of every size -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, complete",
    [(MAX_ANSWER_BYTES, True), (MAX_ANSWER_BYTES + 1, False), (3 * MAX_ANSWER_BYTES, False)],
)
def test_the_limit_is_exact(transport: HttpTransport, size: int, complete: bool) -> None:
    with Server(answers(ok(b"x" * size))) as server:
        for _ in range(2):  # the rest of a long one must not be taken for the next answer
            response = transport.send(post(server.port), timeout_s=5)
            assert (response.body, response.complete) == (b"x" * MAX_ANSWER_BYTES, complete)
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n",
    ],
    ids=["no length", "10 GB", "chunked"],
)
def test_an_endless_body_is_cut(transport: HttpTransport, head: bytes) -> None:
    with Server(floods(head, b"x" * 100)) as server:
        response = transport.send(post(server.port), timeout_s=5)
    assert (response.body, response.complete) == (b"x" * MAX_ANSWER_BYTES, False)


def test_what_will_not_be_read_is_hung_up_on(transport: HttpTransport) -> None:
    def pauses(connection: socket.socket, server: Server) -> None:
        server.read_request(connection)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n"
        connection.sendall(head + b"x" * (MAX_ANSWER_BYTES + 8192))
        server.read_request(connection)

    with Server(pauses) as server:
        assert not transport.send(post(server.port), timeout_s=5).complete
        assert server.gone.wait(5)


def test_chunks_of_one_byte_do_not_multiply_what_is_read(transport: HttpTransport) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    with Server(floods(head, b"1;%s\r\nx\r\n" % (b"y" * 99))) as server:
        response = transport.send(post(server.port), timeout_s=5)
    assert len(response.body) < MAX_ANSWER_BYTES and not response.complete


def test_chunks_are_put_together(transport: HttpTransport) -> None:
    parts = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nye\r\n"]
    with Server(answers(*parts, b"1\r\ns\r\n0\r\n\r\n")) as server:
        for _ in range(2):
            response = transport.send(post(server.port), timeout_s=5)
            assert (response.body, response.complete) == (b"yes", True)
        assert server.accepted == 1


def test_a_body_without_a_length_ends_with_the_connection(transport: HttpTransport) -> None:
    with Server(answers_once(b"HTTP/1.0 200 OK\r\n\r\nyes")) as server:
        response = transport.send(post(server.port), timeout_s=5)
    assert (response.body, response.complete) == (b"yes", True)


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nyes",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nyes",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n",
    ],
    ids=["length", "in a chunk", "between chunks"],
)
def test_a_body_that_breaks_off_is_incomplete(transport: HttpTransport, cut: bytes) -> None:
    with Server(answers_once(cut)) as server:
        response = transport.send(post(server.port), timeout_s=5)
        assert (response.status, response.complete) == (200, False)
        assert b"yes".startswith(response.body)
        transport.send(post(server.port), timeout_s=5)
        assert server.accepted == 2


def test_a_chunk_size_that_is_no_number_is_incomplete(transport: HttpTransport) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    with Server(answers_once(head)) as server:
        assert not transport.send(post(server.port), timeout_s=5).complete


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


def test_nobody_listens(transport: HttpTransport) -> None:
    error = refused(transport, post(closed_port()))
    assert error.stage == "connection"
    assert "ECONNREFUSED" in error.reason


@pytest.mark.parametrize(
    "noise",
    [
        b"",
        b"\r\n" * 100,
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK" + b"y" * 100_000,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        bytes(range(256)),
    ],
    ids=["nothing", "blank", "ssh", "status", "head cut", "long line", "many headers", "binary"],
)
def test_what_is_no_http_is_no_answer(
    transport: HttpTransport, noise: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with Server(answers_once(noise)) as server:
        try:
            response = transport.send(post(server.port), timeout_s=5)
        except Unreachable as error:
            assert error.stage == "answer"
        else:
            assert (response.body, b"Content-Le" in noise) == (b"", True)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "start, again",
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-Header: %s\r\n" % (b"y" * 10_000)),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 ", b"y"),
    ],
    ids=["headers", "100 Continue", "status line"],
)
def test_an_endless_head_is_cut_short(transport: HttpTransport, start: bytes, again: bytes) -> None:
    with Server(floods(start, again)) as server:
        assert refused(transport, post(server.port), timeout_s=50).stage == "answer"


@pytest.mark.parametrize(
    "request_",
    [
        Request("POST", "http://127.0.0.1:1/", {"X": "%s\r\nEvil: 1" % CANARY}, b""),
        Request("PO ST", "http://127.0.0.1:1/" + CANARY, {}, b""),
        Request("POST", "gopher://127.0.0.1/" + CANARY, {}, b""),
        Request("POST", "http://[127.0.0.1/" + CANARY, {}, b""),
        Request("POST", "http://127.0.0.1:99999/" + CANARY, {}, b""),
        Request("POST", "http://%s.%s/" % (CANARY, "x" * 70), {}, b""),
        Request("POST", CANARY, {}, b""),
    ],
    ids=["header", "method", "scheme", "brackets", "port", "label", "no url"],
)
def test_an_impossible_request_is_unreachable_too(
    transport: HttpTransport, request_: Request
) -> None:
    refused(transport, request_)


# --- the host never pays ------------------------------------------------------------------------


def test_neither_requests_nor_answers_print_what_they_carry() -> None:
    request = Request(
        "POST", "https://u:%s@h/p?k=%s" % (CANARY, CANARY), {"K": CANARY}, CANARY.encode()
    )
    response = Response(200, {"k": CANARY}, CANARY.encode(), False)
    assert CANARY not in repr(request) + repr(response)


def test_the_failure_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(Unreachable("TLS: no", "TLS")))
    assert (type(error), str(error), error.reason, error.stage) == (
        Unreachable,
        "TLS: no",
        "TLS: no",
        "TLS",
    )


def test_a_host_that_debugs_its_own_http_does_not_get_our_headers_printed(
    transport: HttpTransport, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import http.client

    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    with Server(answers(ok(b"yes"))) as server:
        transport.send(post(server.port), timeout_s=5)
    assert capfd.readouterr() == ("", "")


def test_no_secret_reaches_the_log_at_its_most_talkative(
    transport: HttpTransport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    broken = b"HTTP/1.1 200 OK\r\nno colon here\r\nContent-Length: 0\r\n\r\n"
    for behaviour in (answers(ok(b"yes")), answers_once(broken), answers_once(b"")):
        with Server(behaviour) as server:
            try:
                transport.send(post(server.port, CANARY.encode()), timeout_s=5)
            except Unreachable:
                pass
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    "head",
    [
        b"X: y\r\nGarbage, text of the server\r\nA: b\r\n",
        b"no colon here\r\nContent-Length: 2\r\n",
        b"X : y\r\nContent-Length: 2\r\n",
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"transfer-encoding: gzip, chunked\r\nCONTENT-LENGTH: 2\r\n",
        b"Content-Type: multipart/mixed\r\nContent-Length: 2\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: x\r\n",
        b"Content-Type: message/delivery-status\r\nContent-Length: 2\r\n",
    ],
    ids=[
        "garbage",
        "first line",
        "space",
        "two lengths",
        "two lengths, odd",
        "multipart",
        "encoded multipart",
        "mail",
    ],
)
def test_a_malformed_head_is_no_answer_and_no_line_in_the_hosts_log(
    transport: HttpTransport, head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    with Server(answers_once(b"HTTP/1.1 200 OK\r\n" + head + b"\r\nhi")) as server:
        error = refused(transport, post(server.port))
    assert error.reason == "answer: not an HTTP answer (malformed headers)"
    assert [one for one in caplog.records if one.levelno > logging.DEBUG] == []
    assert "arbage" not in caplog.text and "colon" not in caplog.text


def test_a_malformed_answer_says_nothing_on_the_stderr_of_a_host_with_basic_logging() -> None:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with Server(answers_once(b"HTTP/1.1 200 OK\r\nX: y\r\nGarbage\r\nA: b\r\n\r\nhi")) as server:
        command = [
            sys.executable,
            "-c",
            "import logging; logging.basicConfig()" + SOURCE_SENDS % server.port,
        ]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "lengths", [b"2, 3", b"x", b"-1", b"2\r\nContent-Length: 3", b"2, 2", b""], ids=repr
)
def test_an_odd_length_is_no_line_in_the_hosts_log(
    transport: HttpTransport, lengths: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\nhi" % lengths
    with Server(answers_once(answer)) as server:
        try:
            transport.send(post(server.port), timeout_s=5)
        except Unreachable:
            pass
    assert [one for one in caplog.records if one.levelno > logging.DEBUG] == []


def test_no_thread_is_started_for_an_address_in_digits(transport: HttpTransport) -> None:
    with Server(silent) as server:
        with pytest.raises(Unreachable):
            transport.send(post(server.port), timeout_s=0.1)
        ours = [thread for thread in threading.enumerate() if "resolver" in thread.name]
        assert ours == []


SOURCE_SENDS = """
from agent.transport import HttpTransport, Request, Unreachable
transport = HttpTransport(proxy="direct", environ={})
try:
    transport.send(Request("POST", "http://127.0.0.1:%s/", {}, b""), timeout_s=5)
except Unreachable:
    pass
transport.close()
"""

SOURCE = """
import sys, warnings
before = set(sys.modules), list(warnings.filters)
from agent.transport import HttpTransport, Request, Unreachable
transport = HttpTransport(proxy="http://u:p@h:1", ca_bundle="/nowhere", environ={})
request = Request("POST", "http://127.0.0.1:%s/", {}, b"")
transport.interrupt(); transport.rest()
loaded = set(sys.modules) - before[0]
assert not loaded & {"socket", "ssl", "urllib3", "http", "logging", "threading", "urllib"}, loaded
import ssl
ssl_before = dict(vars(ssl)); filters = list(warnings.filters)
transport = HttpTransport(proxy="direct", environ={})
try:
    transport.send(request, timeout_s=5)
except Unreachable:
    pass
import logging
assert logging.getLogger().handlers == [] and logging.root.level == logging.WARNING
assert [one for one in warnings.filters if one not in filters and one[2].__module__ != "urllib3.exceptions"] == []
assert {k: v for k, v in vars(ssl).items() if ssl_before.get(k) is not v} == {}
transport.close()
"""


def test_nothing_heavy_is_loaded_before_a_send_and_nothing_global_is_changed_by_one() -> None:
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-W", "error", "-c", SOURCE % closed_port()]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_closes_its_copy_leaves_the_parents_connection_alone(
    transport: HttpTransport,
) -> None:
    def answer_late(connection: socket.socket, server: Server) -> None:
        while server.read_request(connection):
            if not child_done.wait(20):
                return
            connection.sendall(ok(b"yes"))

    child_done = threading.Event()

    def fork_in_flight() -> None:
        assert server.seen.wait(10)
        script = os.fork()
        if script == 0:
            transport.close()  # what a forked child does with what it inherited
            os._exit(0)
        os.waitpid(script, 0)
        child_done.set()

    with Server(answer_late) as server:
        forker = threading.Thread(target=fork_in_flight)
        forker.start()
        try:
            assert transport.send(post(server.port), timeout_s=20).body == b"yes"
        finally:
            forker.join()
