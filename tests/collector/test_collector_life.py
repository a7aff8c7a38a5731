"""The collector as a server: many clients at once, its control API, and nothing left behind."""

from __future__ import annotations

import json
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from urllib.parse import urlsplit

import pytest
from support.collector import (
    LICENCE,
    PATH_OF,
    USAGE,
    Reply,
    ask,
    post_licence,
    post_usage,
    raw_request,
    read_to_end,
    usage_payload,
    verified,
    wait_until,
)

from agent.collector import ENDPOINTS, FAULTS, Collector


def ours() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("collector")]


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def test_sixteen_clients_at_once_lose_nothing() -> None:
    texts = {"%d-%d" % (client, number) for client in range(16) for number in range(25)}
    with Collector() as collector, ThreadPoolExecutor(16) as threads:
        replies = list(threads.map(lambda text: post_licence(collector, text_data=text), texts))
        key = collector.keys[0]
        records = collector.records()
    assert {verified(reply.json, key)["code"] for reply in replies} == {830}
    assert len(records) == len(texts) and {r["fields"]["text_data"] for r in records} == texts


def test_close_gives_back_every_thread_and_socket_whatever_clients_do() -> None:
    assert ours() == []
    before = open_descriptors()
    with ExitStack() as clients:
        collector = clients.enter_context(Collector(drip_interval_s=3600))
        for name, (endpoint, path) in zip(("huge", "blackhole", "drip-body"), PATH_OF.items()):
            collector.fault(name, endpoint)
            for _ in range(3):
                clients.enter_context(raw_request(collector, path))
        wait_until(lambda: len(collector.requests()) == 9)
        where = urlsplit(collector.url)
        address = (where.hostname or "", where.port or 0)
        silent = clients.enter_context(socket.create_connection(address))
        halfway = clients.enter_context(socket.create_connection(address))
        halfway.sendall(b"POST %b HTTP/1.1\r\nContent-Length: 100\r\n\r\nonly" % LICENCE.encode())
        wait_until(lambda: len(ours()) == 1 + 9 + 2)
        collector.close()
        assert ours() == []
        silent.settimeout(20)
        assert silent.recv(1) == b""
        with closing(socket.socket()) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(address)
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


@pytest.mark.parametrize("path", [LICENCE, "/_collector/fault"])
@pytest.mark.parametrize(
    "headers, status",
    [
        (b"", b"411"),
        (b"Content-Length: 4000001\r\n", b"413"),
        (b"Content-Length: -1\r\n", b"400"),
        (b"Transfer-Encoding: chunked\r\n", b"501"),
    ],
)
def test_a_body_that_is_not_announced_or_too_big_is_not_read(
    path: str, headers: bytes, status: bytes
) -> None:
    with Collector() as collector:
        request = b"POST %b HTTP/1.1\r\n%b\r\n" % (path.encode(), headers)
        where = urlsplit(collector.url)
        with socket.create_connection((where.hostname or "", where.port or 0), 20) as sock:
            sock.sendall(request + b"x" * 8_000_000)
            answer = read_to_end(sock)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"Connection: close" in answer
        assert post_licence(collector).status == 200


def test_the_control_api_shows_and_forgets() -> None:
    with Collector() as collector:
        post_licence(collector)
        post_usage(collector)
        listed = ask(collector, "GET", "/_collector/records")
        assert listed.headers["content-type"] == "application/json"
        assert (listed.status, listed.json) == (200, collector.records())
        names = ["endpoint", "received_at", "fields", "flags", "answer"]
        assert [list(record) for record in listed.json] == [names] * 2
        seen = ask(collector, "GET", "/_collector/requests").json
        assert seen == collector.requests()
        assert (seen[1]["method"], seen[1]["path"]) == ("POST", USAGE)
        assert json.loads(seen[1]["body"]) == {"payload": usage_payload()}
        assert ask(collector, "DELETE", "/_collector/records").status == 200
        assert (collector.records(), len(collector.requests())) == ([], 2)
        assert ask(collector, "DELETE", "/_collector/requests").status == 200
        assert collector.requests() == []
        assert ask(collector, "GET", "/_collector/nothing").status == 404


@pytest.mark.parametrize(
    "body",
    [
        '{"fault": "503"}',
        '{"fault": "500", "endpoint": "reo"}',
        '{"fault": "500", "count": 0}',
        '{"fault": "500", "times": 3}',
        '{"count": 3}',
        "[]",
        "fault=500",
    ],
)
def test_a_mistake_over_http_names_what_is_known(body: str) -> None:
    with Collector() as collector:
        reply: Reply = ask(collector, "POST", "/_collector/fault", body)
        assert (reply.status, post_usage(collector).status) == (400, 200)
        assert reply.json["error"]
        assert reply.json["faults"] == list(FAULTS)
        assert reply.json["endpoints"] == list(ENDPOINTS)
