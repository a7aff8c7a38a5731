"""Every fault behaves as its name says: on the wire, in what is recorded, and in how long it lasts."""

import contextlib
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from support.collector import (
    PATH_OF,
    post,
    post_licence,
    post_usage,
    raw_request,
    read_to_end,
    set_fault,
    verified,
    wait_until,
)

from agent.collector import FAULTS, Collector

DAY_S = 86_400
NOW = 1_800_000_000.5
RECORDED = (
    "drip-headers drip-body unsigned wrong-key stale replay forged-outer unknown-code huge truncated not-json "
    "drop-answer"
).split()
AUTHENTICATION_FAILURE = {
    "response_code": 400,
    "response": "Authentication Failure",
    "status": "failure",
}


@pytest.fixture
def calendar() -> SimpleNamespace:
    """A clock that a test sets."""
    return SimpleNamespace(now=NOW)


@pytest.fixture
def collector(calendar: SimpleNamespace) -> Iterator[Collector]:
    with Collector(clock=lambda: calendar.now, drip_interval_s=0) as collector:
        yield collector


@pytest.mark.parametrize("endpoint", PATH_OF)
@pytest.mark.parametrize("name", sorted({*FAULTS, *RECORDED}))
def test_a_request_is_recorded_only_where_the_fault_strikes_after_it_was_taken_in(
    collector: Collector, name: str, endpoint: str
) -> None:
    assert set_fault(collector, fault=name, endpoint=endpoint).status == 200
    with raw_request(collector, PATH_OF[endpoint]) as sock, contextlib.suppress(ConnectionError):
        wait_until(lambda: collector.requests())
        if name == "blackhole":
            collector.fault(None)
        elif name != "refuse":
            sock.shutdown(socket.SHUT_WR)  # so that a kept connection ends
        read_to_end(sock)
    (seen,) = collector.requests()
    assert (seen["endpoint"], seen["fault"]) == (endpoint, name)
    recorded = [(r["endpoint"], r["answer"] in (830, 200), r["fault"]) for r in collector.records()]
    assert recorded == ([(endpoint, True, name)] if name in RECORDED else [])
    assert set_fault(collector, fault=None).status == 200
    assert post(collector, endpoint).status == 200


def test_a_fault_concerns_its_endpoint_and_lasts_for_its_count(collector: Collector) -> None:
    asked = {"fault": "500", "endpoint": "reo-usage", "count": 2}
    done = set_fault(collector, **asked)
    assert (done.status, done.json) == (200, asked)
    assert [post(collector, e).status for e in PATH_OF] == [200, 500, 200]
    collector.fault("portal")
    collector.fault("429", endpoint="reo-aggregate", count=1)
    assert [post(collector, e).status for e in PATH_OF] == [200, 500, 429]
    assert [b"<html>" in post(collector, e).body for e in PATH_OF] == [True] * 3
    collector.fault(None)
    assert [post(collector, e).status for e in PATH_OF] == [200] * 3


def test_refuse_closes_the_port_and_keeps_it(collector: Collector) -> None:
    url = collector.url
    with raw_request(collector) as kept:
        wait_until(lambda: collector.records())
        collector.fault("refuse")
        assert b"830" in read_to_end(kept)  # answered before, and ended now
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            post_licence(collector)
    where = urlsplit(url)
    with contextlib.closing(socket.socket()) as other, pytest.raises(OSError):
        other.bind((where.hostname, where.port))
    collector.fault(None)
    assert collector.url == url and post_licence(collector).status == 200
    collector.fault("refuse", count=1)  # for some requests: their connections are reset
    with pytest.raises(ConnectionResetError):
        post_licence(collector)
    assert post_licence(collector).status == 200


def test_blackhole_reads_and_says_nothing_until_cleared(collector: Collector) -> None:
    for release in (lambda: collector.fault(None), lambda: collector.fault("500")):
        collector.fault("blackhole")
        with raw_request(collector) as sock:
            wait_until(lambda: collector.requests())
            sock.sendall(b"x" * 3_000_000)  # read, or this would block
            release()
            assert sock.recv(1) == b""
        collector.clear()


@pytest.mark.parametrize("name", ["drip-headers", "drip-body"])
def test_dripping_goes_byte_by_byte_and_stops_when_cleared(name: str) -> None:
    with Collector(drip_interval_s=0.02) as collector:
        collector.fault(name)
        with raw_request(collector) as sock:
            got = sock.recv(65536)
            while name == "drip-body" and got.endswith(b"\r\n\r\n"):
                got += sock.recv(65536)
            collector.fault(None)
            got += read_to_end(sock)
    head, _, body = got.partition(b"\r\n\r\n")
    if name == "drip-headers":
        assert 0 < len(got) < 100 and b"HTTP/1.1 200 OK\r\n".startswith(got[:17])
    else:
        (length,) = [int(x[15:]) for x in head.split(b"\r\n") if x.startswith(b"Content-Length:")]
        assert 0 < len(body) < length


def test_429_with_and_without_a_time(collector: Collector) -> None:
    collector.fault("429")
    reply = post_licence(collector)
    assert (reply.status, "retry-after" in reply.headers) == (429, False)
    assert "retry_after" not in reply.json
    collector.fault("429-retry-after")
    reply = post_usage(collector)
    assert (reply.status, reply.json["retry_after"]) == (429, 20)
    assert reply.headers["retry-after"] == "20"
    date = "Fri, 31 Dec 2027 23:59:59 GMT"
    set_fault(collector, fault="429-retry-after", retry_after=date)
    assert post_licence(collector).headers["retry-after"] == date


@pytest.mark.parametrize("name", ["401-100", "401-101", "401-102", "401-103", "403-150"])
def test_a_refusal_is_signed_where_answers_are_signed(collector: Collector, name: str) -> None:
    status, code = map(int, name.split("-"))
    collector.fault(name)
    reply = post_licence(collector)
    signed = verified(reply.json, collector.keys[0])
    assert (reply.status, signed["code"], signed["timestamp"]) == (status, code, int(NOW))
    assert reply.json["response"] == signed
    reply = post_usage(collector)
    assert (reply.status, reply.json) == (status, AUTHENTICATION_FAILURE)


def test_an_answer_that_is_odd_only_in_its_size_or_of_another_call(collector: Collector) -> None:
    for name, code, size in (("huge", 830, 10_000_000), ("unknown-code", 200, 0)):
        collector.fault(name)
        reply = post_licence(collector)
        assert (reply.status, verified(reply.json, collector.keys[0])["code"]) == (200, code)
        assert not size or len(reply.body) == size
        assert (post_usage(collector).json["status"] == "success") == (name == "huge")


def test_stale_is_signed_a_month_ago(collector: Collector, calendar: SimpleNamespace) -> None:
    collector.fault("stale")
    signed = verified(post_licence(collector).json, collector.keys[0])
    assert (signed["code"], signed["timestamp"]) == (830, int(NOW) - 30 * DAY_S)


def test_forged_outer_lies_beside_a_good_signature(collector: Collector) -> None:
    collector.fault("forged-outer")
    for license_key, true, forged in (("demo-license-key", 830, 831), ("", 831, 830)):
        envelope = post_licence(collector, license_key=license_key).json
        assert verified(envelope, collector.keys[0])["code"] == true
        assert envelope["response"]["code"] == forged
        assert bool(envelope["response"]["errors"]) == (forged == 831)
