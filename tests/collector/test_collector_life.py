"""The collector as a server: keep-alive, many clients at once, its control API, and nothing left behind."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from urllib.parse import urlencode, urlsplit

import pytest
import urllib3
from support.collector import (
    FORM_TYPE,
    LICENCE,
    PATH_OF,
    REO_HEADERS,
    USAGE,
    Reply,
    ask,
    licence_form,
    post,
    post_licence,
    post_usage,
    raw_request,
    read_to_end,
    set_fault,
    usage_payload,
    verified,
    wait_until,
)

from agent.collector import ENDPOINTS, FAULTS, Collector
from agent.collector.faults import Fault
from agent.collector.listener import Connection


def ours() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("collector")]


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def test_one_connection_serves_many_requests_and_endpoints() -> None:
    licence = urlencode(licence_form())
    usage = json.dumps({"payload": usage_payload()})
    with Collector() as collector, closing(
        http.client.HTTPConnection(urlsplit(collector.url).netloc)
    ) as connection:
        local = set()
        for _ in range(20):
            for path, body, headers in ((LICENCE, licence, FORM_TYPE), (USAGE, usage, REO_HEADERS)):
                connection.request("POST", path, body, headers)
                assert connection.getresponse().read()
                local.add(connection.sock.getsockname())
        assert len(local) == 1
        assert len(collector.records()) == 40


def test_an_honest_keep_alive_outlives_faults_that_are_mere_answers() -> None:
    with Collector() as collector, urllib3.PoolManager(maxsize=1) as pool:
        for name in (
            *[f for f in FAULTS if f[0] in "45"],
            "portal",
            "redirect",
            "huge",
            "unsigned",
        ):
            collector.fault(name)
            pool.request(
                "POST",
                collector.url + LICENCE,
                body=urlencode(licence_form()),
                headers=FORM_TYPE,
                redirect=False,
                retries=False,
            )
        host = urlsplit(collector.url)
        assert pool.connection_from_host(host.hostname, host.port, "http").num_connections == 1


def test_sixteen_clients_at_once_lose_nothing() -> None:
    each, clients = 25, 16
    with Collector() as collector, urllib3.PoolManager(maxsize=clients) as pool:

        def deliver(client: int) -> list[int]:
            codes = []
            for number in range(each):
                form = licence_form(text_data="%d-%d" % (client, number))
                reply = pool.request(
                    "POST", collector.url + LICENCE, body=urlencode(form), headers=FORM_TYPE
                )
                codes.append(verified(json.loads(reply.data), collector.keys[0])["code"])
            return codes

        with ThreadPoolExecutor(clients) as threads:
            codes = [code for part in threads.map(deliver, range(clients)) for code in part]
        records = collector.records()
    assert codes == [830] * (each * clients)
    texts = [record["fields"]["text_data"] for record in records]
    assert len(set(texts)) == len(texts) == each * clients
    for client in range(clients):
        mine = [text for text in texts if text.startswith("%d-" % client)]
        assert mine == ["%d-%d" % (client, number) for number in range(each)]
    times = [record["received_at"] for record in records]
    assert times == sorted(times)


def test_a_count_is_exact_under_concurrency() -> None:
    with Collector() as collector, ThreadPoolExecutor(8) as threads:
        collector.fault("500", count=13)
        statuses = list(threads.map(lambda _: post_usage(collector).status, range(40)))
    assert sorted(statuses) == [200] * 27 + [500] * 13


def test_answers_can_be_held_back_and_closing_does_not_wait_for_them() -> None:
    with Collector(answer_delay_s=3600) as collector, raw_request(collector) as sock:
        wait_until(lambda: collector.records())
        sock.settimeout(0.05)
        with pytest.raises(OSError):
            sock.recv(1)
        collector.close()
        sock.settimeout(20)
        assert sock.recv(1) == b""
        collector.answer_delay_s = 0.0
        collector.start()
        assert post_licence(collector).status == 200


def test_close_gives_back_every_thread_and_socket_whatever_clients_do() -> None:
    assert ours() == []
    before = open_descriptors()
    with ExitStack() as clients:
        collector = clients.enter_context(Collector(drip_interval_s=3600))
        misbehaviour = [
            ("huge", "getkeymanager"),
            ("blackhole", "getkeymanager"),
            ("drip-headers", "reo-usage"),
            ("drip-body", "reo-aggregate"),
        ]
        for done, (name, endpoint) in enumerate(misbehaviour, 1):
            collector.fault(name, endpoint)
            for _ in range(3):
                clients.enter_context(raw_request(collector, PATH_OF[endpoint]))
            seen = done * 3
            wait_until(lambda: len(collector.requests()) == seen)  # noqa: B023 (called at once)
        where = urlsplit(collector.url)
        address = (where.hostname or "", where.port or 0)
        silent = clients.enter_context(socket.create_connection(address))
        halfway = clients.enter_context(socket.create_connection(address))
        halfway.sendall(b"POST %b HTTP/1.1\r\nContent-Length: 100\r\n\r\nonly" % LICENCE.encode())
        wait_until(lambda: len(ours()) == 1 + 12 + 2)
        collector.close()
        assert ours() == []
        silent.settimeout(20)
        assert silent.recv(1) == b""
        with closing(socket.socket()) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(address)
    assert open_descriptors() == before


def test_an_answer_that_is_being_written_goes_out_before_the_port_closes() -> None:
    recorded, go_on = threading.Event(), threading.Event()

    def between_record_and_answer(line: str) -> None:
        recorded.set()
        go_on.wait(20)

    with Collector(log=between_record_and_answer) as collector, ThreadPoolExecutor(2) as threads:
        reply = threads.submit(post_licence, collector)
        assert recorded.wait(20)
        where = urlsplit(collector.url)
        with socket.create_connection((where.hostname or "", where.port or 0), 20) as idle:
            wait_until(lambda: len(ours()) == 3)
            closing_down = threads.submit(collector.fault, "refuse")
            assert idle.recv(1) == b""  # so the older one was told too
            go_on.set()
        assert reply.result().json["response"]["code"] == 830
        closing_down.result()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_childs_copies_keep_nothing_open() -> None:
    with Collector() as collector, raw_request(collector) as answered:
        wait_until(lambda: collector.records())
        stay, go = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(stay, 1)
            os._exit(0)
        try:
            collector.fault("refuse")
            assert b"830" in read_to_end(answered)
            with pytest.raises(ConnectionRefusedError):
                post_licence(collector)
            collector.fault(None)
            assert post_licence(collector).status == 200
            collector.close()
            with pytest.raises(ConnectionRefusedError):
                post_licence(collector)
        finally:
            os.close(stay)
            os.close(go)
            os.waitpid(child, 0)


def test_a_fault_that_ended_meanwhile_holds_nobody() -> None:
    near, far = socket.socketpair()
    with near, far:
        fault = Fault("blackhole")
        fault.over.set()
        near.settimeout(20)
        Connection(near).hold(fault)  # would wait for `far`


def test_a_collector_that_refuses_leaves_nothing_behind() -> None:
    before = open_descriptors()
    with Collector(fault="refuse") as collector:
        assert ours() == []
        collector.fault(None)
        assert len(ours()) == 1
        collector.fault("refuse")
        assert ours() == []
    assert open_descriptors() == before


def test_close_and_start_keep_the_port_and_what_was_received() -> None:
    collector = Collector()
    with pytest.raises(RuntimeError):
        collector.url
    with collector:
        url = collector.url
        post_licence(collector)
        assert collector.start() is collector
    collector.close()
    with pytest.raises(ConnectionRefusedError):
        post_licence(collector)
    with collector:
        assert collector.url == url
        post_licence(collector)
    assert len(collector.records()) == 2


def test_a_taken_port_raises() -> None:
    with Collector() as first, pytest.raises(OSError):
        Collector(port=urlsplit(first.url).port or 0).start()


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.168.1.1", "example.com"])
def test_nothing_but_loopback_is_served(host: str) -> None:
    with pytest.raises(ValueError, match="127.0.0.1 only"):
        Collector(host=host)
    with Collector(host="localhost") as collector:
        assert collector.url.startswith("http://127.0.0.1:")


def test_a_clients_early_leave_is_nobodys_trouble(capfd: pytest.CaptureFixture[str]) -> None:
    with Collector() as collector:
        for name in ("huge", "drip-body", "blackhole", None):
            collector.fault(name)
            with raw_request(collector):
                pass
            where = urlsplit(collector.url)
            with socket.create_connection((where.hostname or "", where.port or 0)) as sock:
                sock.sendall(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n")
        collector.fault(None)
        assert post_licence(collector).status == 200
    assert capfd.readouterr() == ("", "")


def raw_exchange(collector: Collector, request: bytes) -> bytes:
    where = urlsplit(collector.url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=20) as sock:
        sock.sendall(request)
        return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.mark.parametrize("path", [LICENCE, "/_collector/fault"])
@pytest.mark.parametrize(
    "headers, status",
    [
        (b"", b"411"),
        (b"Content-Length: 4000001\r\n", b"413"),
        (b"Content-Length: -1\r\n", b"400"),
        (b"Content-Length: 1_0\r\n", b"400"),
        (b"Content-Length: %b\r\n" % (b"9" * 5000), b"400"),
        (b"Transfer-Encoding: chunked\r\n", b"501"),
    ],
)
def test_a_body_that_is_not_announced_or_too_big_is_not_read(
    path: str, headers: bytes, status: bytes
) -> None:
    with Collector() as collector:
        request = b"POST %b HTTP/1.1\r\n%b\r\n" % (path.encode(), headers)
        answer = raw_exchange(collector, request + b"x" * 8_000_000)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"Connection: close" in answer
        assert post_licence(collector).status == 200


def test_half_a_request_is_none() -> None:
    body = urlencode(licence_form()).encode()
    head = "POST %s HTTP/1.1\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    request = (head % (LICENCE, FORM_TYPE["Content-Type"], len(body) + 1)).encode() + body
    with Collector() as collector:
        where = urlsplit(collector.url)
        with socket.create_connection((where.hostname or "", where.port or 0), 20) as sock:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""
        assert (collector.requests(), collector.records()) == ([], [])


def test_what_is_no_http_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with Collector() as collector:
        assert b"400" in raw_exchange(collector, b"\x16\x03\x01\r\n\r\n")
        assert b"501" in raw_exchange(collector, b"PATCH / HTTP/1.1\r\n\r\n")
    assert capfd.readouterr() == ("", "")


def test_the_control_api_shows_and_forgets() -> None:
    with Collector() as collector:
        post_licence(collector)
        post_usage(collector)
        listed = ask(collector, "GET", "/_collector/records")
        assert (listed.status, listed.json) == (200, collector.records())
        assert listed.headers["content-type"] == "application/json"
        assert [list(record) for record in listed.json] == [
            ["endpoint", "received_at", "fields", "flags", "answer"]
        ] * 2
        seen = ask(collector, "GET", "/_collector/requests")
        assert seen.json == collector.requests()
        assert [(r["method"], r["endpoint"], r["path"]) for r in seen.json] == [
            ("POST", "getkeymanager", LICENCE),
            ("POST", "reo-usage", USAGE),
        ]
        assert seen.json[1]["headers"]["content-type"] == "application/json"
        assert json.loads(seen.json[1]["body"]) == {"payload": usage_payload()}
        assert ask(collector, "DELETE", "/_collector/records").status == 200
        assert collector.records() == []
        assert len(collector.requests()) == 2
        assert ask(collector, "DELETE", "/_collector/requests").status == 200
        assert collector.requests() == []
        assert ask(collector, "GET", "/_collector/nothing").status == 404


def test_faults_over_http_are_those_of_the_object() -> None:
    with Collector() as collector:
        done = set_fault(collector, fault="500", endpoint="getkeymanager", count=1)
        assert (done.status, done.json) == (
            200,
            {"fault": "500", "endpoint": "getkeymanager", "count": 1},
        )
        assert [post(collector, e).status for e in ENDPOINTS] == [500, 200, 200]
        set_fault(collector, fault="429-retry-after", retry_after=3)
        assert post_usage(collector).headers["retry-after"] == "3"
        set_fault(collector, fault="redirect", status=308, redirect_to="http://127.0.0.1:1/")
        assert post_usage(collector).status == 308
        assert set_fault(collector, fault=None).status == 200
        assert post_usage(collector).status == 200


@pytest.mark.parametrize(
    "body",
    [
        '{"fault": "503"}',
        '{"fault": ["500"]}',
        '{"fault": "500", "endpoint": "reo"}',
        '{"fault": null, "endpoint": "reo"}',
        '{"fault": "500", "count": 0}',
        '{"fault": "500", "times": 3}',
        '{"count": 3}',
        "[]",
        "fault=500",
        "",
    ],
)
def test_a_mistake_over_http_names_what_is_known(body: str) -> None:
    with Collector() as collector:
        reply: Reply = ask(collector, "POST", "/_collector/fault", body)
        assert (reply.status, post_usage(collector).status) == (400, 200)
        assert reply.json["error"]
        assert reply.json["faults"] == list(FAULTS)
        assert reply.json["endpoints"] == list(ENDPOINTS)


def test_clear_is_as_freshly_started() -> None:
    with Collector() as collector:
        collector.fault("forged-outer")
        post_licence(collector)
        collector.clear()
        assert (collector.records(), collector.requests()) == ([], [])
        assert post_licence(collector).json["response"]["code"] == 830


def test_what_is_handed_out_is_a_copy() -> None:
    with Collector() as collector:
        post_licence(collector)
        collector.records()[0]["fields"].clear()
        collector.requests()[0]["headers"].clear()
        assert collector.records()[0]["fields"] and collector.requests()[0]["headers"]


def test_log_gets_a_line_per_request() -> None:
    lines: list[str] = []
    with Collector(log=lines.append) as collector:
        post_licence(collector)
        collector.fault("500")
        post_usage(collector)
        collector.fault("refuse", count=1)
        with pytest.raises(ConnectionResetError):
            post_licence(collector)
    assert lines == ["getkeymanager 200", "reo-usage 500 500", "getkeymanager - refuse"]
