"""The collector as a server: started and closed again, and its control API."""

from __future__ import annotations

import json

import pytest
from support.collector import USAGE, Reply, ask, post_licence, post_usage, usage_payload

from agent.collector import ENDPOINTS, FAULTS, Collector


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
