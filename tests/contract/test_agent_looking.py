"""Looking changes nothing and tells no secret: preview, history, status, diagnostics."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agent import Desk, desk, endpoint, snapshot
from support.product import PRODUCT, quiet

import agent

API_KEY = "canary-api-key-7f3a"
LICENCE = ("canary-licence-51c9", "activation-1")
SECRETS: Any = {"license_key": LICENCE, "api_key": API_KEY}


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path / "state", api_keys=(API_KEY,), license_keys=(LICENCE[0],)) as found:
        yield found


def some_of_everything(product: agent.Agent) -> None:
    product.call_home()
    product.record_value(3.25, data_group="export-seconds")
    product.record_point(1, -2, data_group="canvas")
    product.record_text("öpen & gl=%00+", data_group="renderer")
    product.track("EXPORT", meta={"files": [1, 2], "ö": "ü"})
    product.count("RENDER", 3)  # not on disk yet


def masked(body: str) -> str:
    return body.replace(LICENCE[0], "****").replace("%2A%2A%2A%2A", "****")


def test_the_preview_is_what_is_sent_but_for_the_secrets(at: Desk) -> None:
    with at.agent(**SECRETS) as product:
        some_of_everything(product)
        previewed = product.preview()
        assert product.flush().pending == 0
    sent = at.collector.requests()
    assert len(previewed) == len(sent) == 7
    # Under a clock that stands still the order of files is open.
    previewed.sort(key=lambda shown: masked(shown["body"]))
    sent.sort(key=lambda seen: masked(seen["body"]))
    for shown, seen in zip(previewed, sent):
        assert shown["url"] == at.collector.url + seen["path"]
        assert shown["method"] == seen["method"] == "POST"
        # Byte for byte, the secrets aside.
        assert masked(shown["body"]) == masked(seen["body"])
        assert len(shown["event_ids"]) == 1 and shown["sample"] is False
        for name, value in shown["headers"].items():
            assert seen["headers"][name.lower()] == value
    assert [shown["purpose"] for shown in previewed].count("licence telemetry") == 4
    assert API_KEY not in json.dumps(previewed) and LICENCE[0] not in json.dumps(previewed)


def test_looking_leaves_no_trace_where_nothing_was(at: Desk) -> None:
    with at.agent(**SECRETS) as product:
        assert product.preview() == []
        samples = product.preview(samples=True)
        assert [sample["sample"] for sample in samples] == [True] * 7
        purposes = {sample["purpose"] for sample in samples}
        assert purposes == {"licence telemetry", "usage event", "aggregated usage"}
        assert product.status()["pending"] == 0
        assert product.history() == []
        product.diagnostics()
        assert not at.state_dir.exists()
        shown = {json.loads(json.dumps(s))["body"] for s in samples}
        assert len(shown) == 7
        # The identity that is shown is the one that is going to be kept.
        identifier = product.user_identifier
        assert all(identifier in sample["body"] for sample in samples[:4])


def test_looking_changes_no_file_and_asks_nobody(at: Desk) -> None:
    at.collector.fault("500", count=1)
    with at.agent(**SECRETS) as product:
        some_of_everything(product)
        product.flush()
        before, seen = snapshot(at.state_dir), at.seen()
        for _ in range(2):
            assert product.preview(samples=True)
            assert product.status()["pending"] > 0
            assert product.history()
            assert product.diagnostics()["status"]["pending"] > 0
        assert snapshot(at.state_dir) == before
        assert at.seen() == seen


def test_looking_opens_no_socket(at: Desk) -> None:
    forbid = """
import sys
sys.addaudithook(lambda event, args: sys.exit("socket") if event.startswith("socket.") else None)
"""
    code = """
t.call_home(); t.count("A"); t.track("B")
assert len(t.preview(samples=True)) == 11
t.status(); t.history(); t.diagnostics()
t.close()
"""
    quiet(at, code, product=forbid + PRODUCT, deliver="manual")


def test_no_secret_anywhere_but_in_the_record_that_carries_it(at: Desk) -> None:
    at.collector.fault("401-100", endpoint="reo-usage", count=1)
    at.collector.fault("unsigned", endpoint="getkeymanager", count=1)
    proxy = "http://user:canary-password@127.0.0.1:1"
    with at.agent(**SECRETS) as product:
        some_of_everything(product)
        product.flush()
        product.flush()
        looks: list[Any] = [product.status(), product.history(), product.diagnostics()]
        looks += [product.preview(samples=True), repr(product) + repr(product.flush())]
    with at.agent(**SECRETS, proxy=proxy) as product:
        looks.append(product.diagnostics())
    text = json.dumps(looks)
    for secret in (API_KEY, LICENCE[0], "canary-password"):
        assert secret not in text
    held = b"".join(snapshot(at.state_dir).values())
    assert API_KEY.encode() not in held


def test_status_tells_what_is_pending_where(at: Desk) -> None:
    with at.agent(**SECRETS) as product:
        some_of_everything(product)
        status = product.status()
        json.dumps(status)
        assert status["pending"] == 6
        assert endpoint(product)["pending"] == 4 and endpoint(product, "reo")["pending"] >= 2
        assert status["oldest_at"] == at.clock.at and status["trouble"] == {}
    with at.agent(only="usage", api_key=API_KEY) as product:
        status = product.status()
        # Names that this configuration does not know are left alone and counted.
        assert status["unknown_endpoints"] == {"getkeymanager": 4}
        product.flush()
        assert product.status()["unknown_endpoints"] == {"getkeymanager": 4}
    with at.agent(**SECRETS) as product:
        assert product.flush().delivered == 4


def test_status_beside_a_delivery_disturbs_nothing(at: Desk) -> None:
    """Looking reads the shared facts for itself: a look in the middle of a pass must not set anything back."""
    looks: list[Any] = []

    def look(outcome: agent.Outcome) -> None:
        looks.append(product.status()["endpoints"][0]["failures"])

    with at.agent(**SECRETS, only="licence", on_outcome=look) as product:
        for number in range(3):
            product.record_text(str(number), data_group="g")
        at.collector.fault("500", count=1)
        product.flush()
        assert product.flush().delivered == 3
        # The lines that a pass has not written yet are not taken back by the lines of the pass before.
        assert endpoint(product)["failures"] == 0 and endpoint(product)["proven"]
        product.record_text("3", data_group="g")
        assert product.flush().delivered == 1
    assert len(looks) == 4


def test_diagnostics_with_the_network_asks_without_a_key(at: Desk) -> None:
    with at.agent(**SECRETS) as product:
        product.call_home()
        found = product.diagnostics(network=True)
        json.dumps(found)
        assert [probe["reached"] for probe in found["network"]] == [True, True]
        at.collector.close()
        found = product.diagnostics(network=True)
        assert [probe["reached"] for probe in found["network"]] == [False, False]
        assert all(probe["reason"] for probe in found["network"])
    asked = [(r["body"], r["headers"].get("x-api-key")) for r in at.collector.requests()]
    # The collector masks keys as well: that none was sent it says by its refusals.
    assert asked == [("api_key=****", None), ('{"payload":{}}', "****")]
    assert [record["answer"] for record in at.collector.records()] == [100, 401]
