"""The collector as Reo.Dev: every rule of the two documented tables, and the documented answers."""

import json
from typing import Any

import pytest
from support.agent import ROOT
from support.collector import (
    AGGREGATE,
    REO_HEADERS,
    USAGE,
    Reply,
    aggregate_payload,
    ask,
    post_aggregate,
    post_usage,
    usage_payload,
)

from agent.collector import Collector

SUCCESS = {"response_code": "200", "response": "Data Uploaded", "status": "success"}
WRONG_KEY = {"response_code": 400, "response": "Authentication Failure", "status": "failure"}

# The vendor's two sample requests, word for word but for a line break inside the user agent.
VENDORS = json.loads((ROOT / "tests" / "golden" / "reo-samples.json").read_text("utf-8"))


def refused(reply: Reply) -> str:
    """What a malformed payload was told."""
    assert reply.status == 400
    assert list(reply.json) == ["response_code", "response", "status"]
    assert (reply.json["response_code"], reply.json["status"]) == (400, "failure")
    text: str = reply.json["response"]
    return text


@pytest.mark.parametrize(
    "path, endpoint, payload",
    [
        (USAGE, "reo-usage", VENDORS[0]),
        (USAGE, "reo-usage", usage_payload()),
        (AGGREGATE, "reo-aggregate", VENDORS[1]),
        (AGGREGATE, "reo-aggregate", aggregate_payload()),
    ],
)
def test_a_right_event_is_uploaded(
    collector: Collector, path: str, endpoint: str, payload: dict[str, Any]
) -> None:
    reply = ask(collector, "POST", path, json.dumps({"payload": payload}), REO_HEADERS)
    assert (reply.status, reply.json) == (200, SUCCESS)
    (record,) = collector.records()
    assert (record["endpoint"], record["fields"], record["answer"]) == (endpoint, payload, 200)
    assert record["flags"] == {} and collector.requests()[0]["headers"]["x-api-key"] == "****"
    assert "demo-api-key" not in json.dumps(collector.records() + collector.requests())


SINGLE = "source activity_type user_id_type user_id event_at product_id".split()
SUM = "mode source activity_type count event_at product_id".split()
POST = {"single": post_usage, "sum": post_aggregate}


@pytest.mark.parametrize("missing", [None, ""], ids=["absent", "empty"])
@pytest.mark.parametrize(
    "kind, field", [*(("single", field) for field in SINGLE), *(("sum", field) for field in SUM)]
)
def test_a_required_field_is_missing(
    collector: Collector, kind: str, field: str, missing: Any
) -> None:
    assert refused(POST[kind](collector, **{field: missing})) == field + " is required"
    assert collector.records()[-1]["answer"] == 400


def test_single_events_of_shipped_software_need_no_user(collector: Collector) -> None:
    for user in ({"user_id": None, "user_id_type": None}, {"user_id": "", "user_id_type": ""}):
        assert post_usage(collector, source="TELEMETRY", domain="reo.dev", **user).json == SUCCESS


@pytest.mark.parametrize(
    "kinds, field, value, allowed",
    [
        ("single sum", "activity_type", 5, "a string"),
        ("single sum", "event_at", "639303296", "an integer, Unix seconds"),
        ("single sum", "event_at", 1708999057000, "an integer, Unix seconds"),
        ("single sum", "ip_addr", "localhost", "an IP address"),
        ("single sum", "meta", "text", "an object"),
        ("single", "source", "SAAS", "PRODUCT_CLOUD or TELEMETRY"),
        ("single", "user_id_type", "TWITTER", "EMAIL or SOCIAL or LINKEDIN or GITHUB or USERNAME"),
        ("sum", "mode", "IP", "DOMAIN"),
        ("sum", "source", "PRODUCT_CLOUD", "TELEMETRY"),
        ("sum", "count", "1250", "an integer"),
    ],
)
def test_a_value_is_wrong(
    collector: Collector, kinds: str, field: str, value: Any, allowed: str
) -> None:
    for kind in kinds.split():
        reply = POST[kind](collector, **{field: value})
        assert refused(reply) == "%s must be %s" % (field, allowed)


def test_an_aggregated_event_needs_a_domain_or_an_address(collector: Collector) -> None:
    domain, address = {"domain": "reo.dev"}, {"ip_addr": "156.59.87.83"}
    for right in (domain, address, {**domain, "ip_addr": ""}):
        assert post_aggregate(collector, **{"domain": None, **right}).json == SUCCESS
    for wrong in ({"domain": "", "ip_addr": ""}, {"domain": None}):
        assert refused(post_aggregate(collector, **wrong)) == "domain or ip_addr is required"


@pytest.mark.parametrize(
    "body, told",
    [
        ("{", "the body is not JSON"),
        ('{"payload": {"event_at": NaN}}', "the body is not JSON"),
        ("[" * 100_000, "the body is not JSON"),
        (b"\xff", "the body is not JSON"),
        ("[]", "payload must be an object"),
        ('{"payload": []}', "payload must be an object"),
    ],
)
def test_what_is_no_payload_is_refused(collector: Collector, body: Any, told: str) -> None:
    assert refused(ask(collector, "POST", USAGE, body, REO_HEADERS)) == told
    assert collector.records()[-1]["fields"] == {}


@pytest.mark.parametrize("key", ["another", "", None])
def test_a_wrong_api_key_is_an_authentication_failure(collector: Collector, key: Any) -> None:
    headers = {"Content-Type": "application/json", **({} if key is None else {"X-API-KEY": key})}
    reply = ask(collector, "POST", USAGE, json.dumps({"payload": usage_payload()}), headers)
    assert (reply.status, reply.json) == (401, WRONG_KEY)
    assert collector.records()[-1]["answer"] == 401
