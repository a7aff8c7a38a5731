"""The collector as a server: started and closed again, its keys, and its control API."""

import json
import socket
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from support.collector import USAGE, ask, control, post_licence, post_usage, usage_payload

from agent.collector import ENDPOINTS, FAULTS, Collector
from agent.signatures.keys import PublicKey


def test_a_client_that_says_nothing_does_not_hold_up_a_close() -> None:
    """A shutdown wakes nobody who reads, on Windows."""
    collector = Collector()
    collector.start()
    where = urlsplit(collector.url)
    with socket.create_connection((where.hostname or "", where.port or 0)):
        time.sleep(0.1)  # its thread reads by now, as a rule
        closing = threading.Thread(target=collector.close, daemon=True)
        closing.start()
        closing.join(10)
        assert not closing.is_alive()


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


def test_a_mistake_over_http_names_what_is_known() -> None:
    wrong: list[Any] = [{"fault": "503"}, {"fault": "500", "endpoint": "reo"}, {"count": 3}, []]
    wrong += [{"fault": "500", "count": 0}, {"fault": "500", "times": 3}]
    with Collector() as collector:
        for body in (*map(json.dumps, wrong), "fault=500"):
            reply = control(collector, body)
            assert (reply.status, post_usage(collector).status) == (400, 200)
            assert reply.json["error"] and reply.json["faults"] == list(FAULTS)
            assert reply.json["endpoints"] == list(ENDPOINTS)


def test_keys_have_the_shape_of_the_contract() -> None:
    for algorithm, kind in (("rsa", "rsa-pkcs1v15-sha256"), ("ed25519", "ed25519")):
        keys = Collector(algorithm=algorithm).keys
        assert [key["name"] for key in keys] == ["global", "global-next"]
        for key in keys:
            assert list(key) == ["name", "algorithm", "public_key"] and key["algorithm"] == kind
            public = serialization.load_pem_public_key(key["public_key"].encode())
            # The same text that a well-kept encoder writes, to the last byte.
            form = serialization.PublicFormat.SubjectPublicKeyInfo
            pem = public.public_bytes(serialization.Encoding.PEM, form)
            assert pem.decode() == key["public_key"]
            assert PublicKey.from_pem(pem).algorithm == kind
