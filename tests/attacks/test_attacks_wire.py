"""Attacks below the signature: redirects, bombs, floods, and answers pushed early over a kept connection.

The one in the middle speaks raw HTTP to the real client. No record is lost, none is believed to have arrived that did
not, and ``status()`` and ``history()`` say what happened.
"""

import gzip
import socket
import tracemalloc
import zlib
from typing import Optional

import pytest
from support.agent import endpoint
from support.attacks import CUT, START, STRANGER, Honest, Scene, http_answer, receipt, signed
from support.sockets import Server, answers

GENUINE = signed(receipt(START))  # captured: signed by the server for somebody's record


# -- redirects -----------------------------------------------------------------------------------

ELSEWHERE = {
    "a key that is not ours": signed(receipt(START), STRANGER),
    "a valid captured answer": GENUINE,
}


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
@pytest.mark.parametrize("signs_with", ELSEWHERE)
def test_a_redirect_to_a_signing_proxy(line: Scene, signs_with: str, status: int) -> None:
    """Nobody calls there: no answer is fetched, and no key or record is carried to another origin."""
    with Server(answers(http_answer(ELSEWHERE[signs_with]))) as proxy:
        there = "http://localhost:%d/api/v1/send-telemetry-data" % proxy.port
        line.says(b"", status, "Location: " + there)
        line.withstands("retry", "HTTP %d" % status)
        assert proxy.accepted == 0


HEADERS = [
    "Location: /elsewhere?api_key=",
    "Location: //localhost/",
    "Location: file:///etc/passwd",
]
HEADERS += ["Location: ", "Refresh: 0; url=/elsewhere", 'Alt-Svc: h2=":1"']


@pytest.mark.parametrize("header", HEADERS)
def test_a_redirect_to_the_same_server(line: Scene, header: str) -> None:
    line.says(b"", 307, header)
    line.withstands("retry", "HTTP 307")
    assert {r.split(b" ")[1] for r in line.middle.requests} == {b"/api/v1/send-telemetry-data"}


# -- bombs ---------------------------------------------------------------------------------------


def deflated(data: bytes, wbits: int = -15) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return packer.compress(data) + packer.flush()


BOMB = b'{"a":"' + b" " * 40_000_000
GZIPPED = gzip.compress(BOMB, 9, mtime=0)
PACKED = {
    "gzip": GZIPPED,
    "deflate": zlib.compress(BOMB, 9),
    "deflate, raw": deflated(BOMB),
    "gzip, gzip": gzip.compress(GZIPPED, 9, mtime=0),
    # brotli.compress(BOMB, quality=11, lgwin=24)
    "br": bytes.fromhex(
        "cfffff7ff88dd460cd9863a588ce5e8184c56d81c0d9fbff15fcffff875f02200e0b0074"
        "efffb3404b0cbf04401c160100478901"
    ),
}


@pytest.mark.parametrize("coding", PACKED)
def test_a_decompression_bomb(line: Scene, coding: str) -> None:
    """40 MB of blanks in what no answer may be larger than: a few of them are unpacked at most."""
    line.says(PACKED[coding], 200, "Content-Encoding: " + coding.replace(", raw", ""))
    with line.agent() as product:
        line.record(product, "first")
        product.flush()  # what has to be loaded is
        line.record(product, "second")
        tracemalloc.start()
        try:
            line.wait(1)
            line.fails(product, "untrusted", "HTTP 200, not proven: the answer")
            assert tracemalloc.get_traced_memory()[1] < 4_000_000
        finally:
            tracemalloc.stop()
        line.recovers(product)


HEADS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(GENUINE),
}


@pytest.mark.parametrize("head", HEADS)
def test_a_genuine_answer_that_breaks_off(line: Scene, head: str) -> None:
    """All of the proof is there; that the server had more to say is, too."""

    def breaks_off(connection: socket.socket, server: Server) -> None:
        server.read_request(connection)
        connection.sendall(HEADS[head] + GENUINE)

    honest, line.middle.behaviour = line.middle.behaviour, breaks_off
    with line.agent() as product:
        line.record(product, "first", "second")
        line.fails(product, "untrusted", "HTTP 200, not proven")
        line.middle.behaviour = honest
        line.recovers(product)


# -- floods --------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"
FLOODS = {
    "10,000 headers": OK + b"X-Flood: 1\r\n" * 10_000,
    "one endless header": OK + b"X-Flood: " + b"x" * 600_000,
    "one header folded for ever": OK + b"X-Flood: x\r\n" + b" folded\r\n" * 50_000,
    "an endless status line": b"HTTP/1.1 200 " + b"O" * 600_000,
    "10,000 continues": b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    "fat headers": OK + (b"X-Flood: " + b"x" * 60_000 + b"\r\n") * 101,
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_header_flood(line: Scene, name: str) -> None:
    """With a genuine answer at its end, which nobody gets to."""
    tail = b"\r\nContent-Length: %d\r\n\r\n" % len(GENUINE) + GENUINE
    line.replays(FLOODS[name] + tail)
    line.withstands("offline", "answer: ")


# -- answers pushed early ------------------------------------------------------------------------

SPLITS = {
    "one more": http_answer(GENUINE),
    "a hundred more": http_answer(GENUINE) * 100,
    "behind a line break": b"\r\n\r\n" + http_answer(GENUINE),
    "behind a continue": b"HTTP/1.1 100 Continue\r\n\r\n" + http_answer(GENUINE),
    "behind a chunk's end": b"0\r\n\r\n" + http_answer(GENUINE),
}


@pytest.mark.parametrize("padding", [0, 700, 7_000, 8_192, 30_000])
@pytest.mark.parametrize("name", SPLITS)
def test_an_answer_pushed_early_does_not_answer_the_next_record(
    line: Scene, name: str, padding: int
) -> None:
    """Response splitting: behind the first answer stands a genuine one; the second record is swallowed.

    The padding moves the border over every buffer on the way.
    """

    def push(request: bytes, honest: Honest) -> Optional[bytes]:
        if line.asked > 1:
            return None  # swallowed
        body = honest().partition(b"\r\n\r\n")[2]
        return http_answer(body + b" " * padding) + SPLITS[name]

    line.attack = push
    with line.agent() as product:
        line.record(product, "first", "second")
        report = product.flush()
        assert (report.delivered, report.pending) == (1, 1)
        assert line.believed() == {"first"} and line.on_disk() == {"second"}
        line.says_so(product, "offline", CUT)
        line.intact(product)
        line.recovers(product)


def test_an_answer_pushed_while_the_connection_rests(line: Scene) -> None:
    """It comes once all is answered, before the next flush; that one has a connection of its own."""
    line.attack = lambda request, honest: honest() + http_answer(GENUINE) * 20
    with line.agent() as product:
        line.delivers(product, "first")
        line.attack = lambda request, honest: None
        line.record(product, "second")
        line.fails(product, "offline", CUT)
        line.recovers(product)


@pytest.mark.parametrize("injected", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_two_lengths_for_one_answer(line: Scene, injected: str) -> None:
    """Injected headers move the border between two answers: what does not add up proves nothing."""
    line.says(b"5\r\nabcde\r\n0\r\n\r\n" + http_answer(GENUINE), 200, injected)
    with line.agent() as product:
        line.record(product, "first", "second")
        report = product.flush()
        assert report.delivered == 0 and report.pending == 2
        assert endpoint(product)["waiting"] == "backoff"
        assert endpoint(product)["reason"].startswith(("untrusted", "offline"))
        line.intact(product)
        line.recovers(product)


def test_a_line_break_in_a_record_is_no_second_request(line: Scene) -> None:
    """The other direction: what the host records cannot split the request, nor add a field to it."""
    evil = "x\r\n\r\nPOST /evil HTTP/1.1\r\n\r\n&license_key=free&\0\u2028"
    with line.agent() as product:
        line.record(product, evil, "second")
        assert product.flush().delivered == 2
        assert line.asked == 2 and all(b"\nPOST" not in r for r in line.middle.requests)
    found = [record["fields"] for record in line.collector.records()]
    assert [f["license_key"] for f in found] == ["demo-license-key"] * 2
