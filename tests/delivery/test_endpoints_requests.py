"""What goes over the wire, byte for byte, and that no record whatever keeps a request from being made."""

from __future__ import annotations

import json
import pathlib
import urllib.parse
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from support.endpoints import (
    API_KEY,
    LICENSE_KEY,
    NOW,
    SOURCE,
    config,
    getkeymanager,
    reo,
    unsigned,
)

from agent import endpoints, events, jsonline
from agent.config import GetKeyManager, Reo
from agent.endpoints import Capture
from agent.errors import ConfigError
from agent.version import VERSION

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
WINDOW = ("RENDER", 1250, "w" * 32, 1_708_990_000.0, 1_708_993_600.0)
NOBODY = Capture("0" * 32, NOW, "a" * 32)

RECORDS: dict[str, Any] = {
    "licence-call-home": (getkeymanager, "licence", lambda a: a.call_home(SOURCE)),
    "licence-value": (getkeymanager, "licence", lambda a: a.value(SOURCE, "3.2", "export-seconds")),
    "licence-point": (getkeymanager, "licence", lambda a: a.point(SOURCE, "1", "2", "canvas")),
    "licence-text": (
        getkeymanager,
        "licence",
        lambda a: a.text(SOURCE, "r\u00e9sum\u00e9 & 100% = \U0001f600+~", "rend\u00e9r er"),
    ),
    "licence-without-a-key": (getkeymanager, "licence", lambda a: a.call_home(NOBODY)),
    "usage-call-home": (reo, "usage", lambda a: a.call_home(SOURCE)),
    "usage-full": (
        lambda: reo(environment="PRODUCTION", product_id="reoWebApp"),
        "usage",
        lambda a: a.track(
            SOURCE,
            "EXPORT",
            user_id="bob@example.org",
            user_id_type="EMAIL",
            ip_addr="156.59.87.83",
            meta={"name": "r\u00e9sum\u00e9", "size": 3, "parts": [1.5, None]},
        ),
    ),
    "aggregate": (
        lambda: reo(environment="PRODUCTION"),
        "aggregate",
        lambda a: {**a.aggregate(*WINDOW), "domain": "acme.example"},
    ),
    "aggregate-from-an-address": (
        lambda: reo(ip_addr="156.59.87.83"),
        "aggregate",
        lambda a: a.aggregate(*WINDOW),
    ),
}


def printed(request: Any) -> str:
    head = ["%s %s" % (request.method, request.url)]
    head += ["%s: %s" % header for header in request.headers.items()]
    return "\n".join(head + ["", request.body.decode("ascii"), ""]).replace(
        "/" + VERSION, "/VERSION"
    )


def made(name: str, **options: Any) -> Any:
    make, kind, capture = RECORDS[name]
    adapter = make()
    body = jsonline.loads(jsonline.dumps(capture(adapter)))  # as it comes back from the disk
    return adapter.request(kind, body, event_id=SOURCE.event_id, now=NOW, **options)


@pytest.mark.parametrize("name", RECORDS)
def test_the_bytes_of_a_request(name: str) -> None:
    assert printed(made(name)) == (GOLDEN / ("request-%s.txt" % name)).read_text("ascii")


@pytest.mark.parametrize("name", RECORDS)
def test_a_retry_has_the_same_bytes(name: str) -> None:
    assert printed(made(name)) == printed(made(name))


@pytest.mark.parametrize("name", RECORDS)
def test_a_preview_hides_the_secrets_and_nothing_else(name: str) -> None:
    masked, sent = printed(made(name, mask=True)), printed(made(name))
    assert API_KEY not in masked and LICENSE_KEY not in masked
    assert masked == sent.replace(API_KEY, "****").replace(LICENSE_KEY, "****")


@pytest.mark.parametrize("name", RECORDS)
def test_the_body_on_disk_holds_no_api_key(name: str) -> None:
    make, _, capture = RECORDS[name]
    assert API_KEY not in jsonline.dumps(capture(make()))


@pytest.mark.parametrize("name", [name for name in RECORDS if name.startswith("licence")])
def test_a_licence_record_carries_every_field_of_the_table(name: str) -> None:
    form = dict(urllib.parse.parse_qsl(made(name).body.decode(), True, strict_parsing=True))
    always = {"api_key", "data_type", "data_group", "product_id", "product_version"}
    always |= {"user_identifier", "license_key", "activation_identifier"}
    by_type = {
        "numeric-single-value": {"numeric_data_single_value"},
        "numeric-xy-axis": {"numeric_data_x", "numeric_data_y"},
        "text": {"text_data"},
    }
    assert set(form) == always | by_type[form["data_type"]]
    assert form["api_key"] == API_KEY and form["product_version"] == "5.2.5"


def test_a_call_home_goes_into_the_endpoints_own_group() -> None:
    body = getkeymanager(data_group="starts").call_home(SOURCE)
    assert (body["data_type"], body["text_data"]) == ("text", "CALL HOME")
    assert body["data_group"] == "starts"


def test_the_product_id_of_an_endpoint_goes_before_the_configurations() -> None:
    assert getkeymanager().call_home(SOURCE)["product_id"] == "42"
    assert getkeymanager(product_id="7").call_home(SOURCE)["product_id"] == "7"
    assert reo().call_home(SOURCE)["product_id"] == "42"
    assert reo(product_id="7").call_home(SOURCE)["product_id"] == "7"


def test_the_address_may_have_a_prefix() -> None:
    adapter = getkeymanager(base_url="https://acme.example/licences/")
    request = adapter.request("licence", adapter.call_home(SOURCE), event_id="1", now=NOW)
    assert request.url == "https://acme.example/licences/api/v1/send-telemetry-data"


def test_a_single_event_tells_when_it_occurred_and_an_aggregated_one_when_it_was_sent() -> None:
    adapter = reo(domain="acme.example")
    for kind, body in (
        ("usage", adapter.call_home(SOURCE)),
        ("aggregate", adapter.aggregate(*WINDOW)),
    ):
        sent = [
            json.loads(adapter.request(kind, body, event_id="1", now=now).body)["payload"]
            for now in (NOW, NOW + 86_400.9)
        ]
        times = [payload["event_at"] for payload in sent]
        assert all(type(at) is int for at in times)
        if kind == "usage":
            assert times == [int(SOURCE.at)] * 2
        else:
            assert times == [int(NOW), int(NOW + 86_400.9)] and "event_at" not in body
            assert sent[0]["meta"] == {"window_start": 1_708_990_000, "window_end": 1_708_993_600}


def test_event_ids_are_texts() -> None:
    adapter = reo()
    assert adapter.call_home(SOURCE)["event_id"] == SOURCE.event_id
    assert adapter.aggregate(*WINDOW)["event_id"] == "w" * 32


def test_what_is_unknown_is_left_out() -> None:
    assert set(reo().call_home(SOURCE)) == {
        *("activity_type", "source", "user_id_type", "user_id", "event_id", "event_at"),
        *("product_id", "user_agent"),
    }
    assert reo().track(SOURCE, "X", meta={})["meta"] == {}


def test_the_configured_address_is_that_of_single_events_too() -> None:
    adapter = reo(ip_addr="10.0.0.1")
    assert adapter.call_home(SOURCE)["ip_addr"] == "10.0.0.1"
    assert adapter.track(SOURCE, "X", ip_addr="10.0.0.2")["ip_addr"] == "10.0.0.2"


# --- origin -------------------------------------------------------------------------------------


def raising() -> str:
    raise OSError("no resolver")


@pytest.mark.parametrize(
    ("changes", "origin"),
    [
        ({}, {}),
        ({"domain": "acme.example"}, {"domain": "acme.example"}),
        ({"ip_addr": "10.0.0.1"}, {"ip_addr": "10.0.0.1"}),
        (
            {"domain": "acme.example", "ip_addr": "::1"},
            {"domain": "acme.example", "ip_addr": "::1"},
        ),
        ({"domain": lambda: "acme.example"}, {"domain": "acme.example"}),
        ({"domain": raising}, {}),
        ({"domain": raising, "ip_addr": "10.0.0.1"}, {"ip_addr": "10.0.0.1"}),
        ({"domain": lambda: None}, {}),
        ({"domain": lambda: ""}, {}),
        ({"domain": lambda: 5}, {}),
        ({"domain": lambda: b"acme.example"}, {}),
        ({"domain": lambda: "a b"}, {}),
        ({"domain": lambda: "a" * 10**7}, {}),
        ({"domain": lambda: "\ud800"}, {}),
    ],
)
def test_an_origin_is_known_or_not_and_never_guessed(changes: Any, origin: Any) -> None:
    adapter = reo(**changes)
    assert adapter.origin() == origin
    body = adapter.aggregate(*WINDOW)
    assert "domain" not in body and "ip_addr" not in body
    sent = adapter.request("aggregate", body, event_id="1", now=NOW)
    payload = json.loads(sent.body)["payload"]
    assert {name: payload[name] for name in ("ip_addr", "domain") if name in payload} == origin


def test_a_frozen_origin_stays() -> None:
    adapter = reo(domain="new.example")
    body = {**adapter.aggregate(*WINDOW), "domain": "old.example"}
    sent = adapter.request("aggregate", body, event_id="1", now=NOW)
    assert json.loads(sent.body)["payload"]["domain"] == "old.example"


# --- adapters -----------------------------------------------------------------------------------


def test_what_an_adapter_says_of_itself() -> None:
    licence, free, usage = getkeymanager(), unsigned(name="other"), reo()
    assert (licence.name, licence.usage, licence.signed) == ("getkeymanager", False, True)
    assert (free.name, free.usage, free.signed) == ("other", False, False)
    assert (usage.name, usage.usage, usage.signed) == ("reo", True, False)


def test_the_identity_changes_with_the_server_or_the_account() -> None:
    makers: list[Any] = [getkeymanager, reo]
    changes: list[dict[str, Any]] = [
        {},
        {"name": "n"},
        {"base_url": "https://o.example"},
        {"api_key": "k"},
        {"product_id": "7"},
    ]
    found = [make(**change).identity for make in makers for change in changes]
    assert len(set(found)) == len(found)
    assert getkeymanager(data_group="other").identity == getkeymanager().identity
    one, other = GetKeyManager(base_url="https://h", api_key="k", allow_unsigned=True), Reo(
        api_key="k"
    )
    for target in (one, other):
        assert (
            endpoints.adapter(target, config(target)).identity
            == endpoints.adapter(target, config(target, product_version="9")).identity
        )


# --- records of any content ---------------------------------------------------------------------

texts = st.text(st.characters(codec=None), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(
    ["api_key", "license_key", "data_type", "meta", "count", "domain", "event_at"]
)
bodies = st.dictionaries(fields | texts, json_values, max_size=6)


def check(request: Any, *, masked: bool) -> None:
    assert request.method == "POST" and API_KEY not in request.url
    for name, value in request.headers.items():
        assert (name + value).isascii() and (name + value).isprintable()
    assert (API_KEY in printed(request)) is not masked


def test_a_lone_surrogate_in_an_imported_record_is_sent_as_a_question_mark() -> None:
    body = {"text_data": "a\ud800b", "\udfff": 1}
    request = getkeymanager().request("licence", body, event_id="1", now=NOW)
    assert request.body.endswith(b"&text_data=a%3Fb&%3F=1")


@settings(max_examples=40)
@given(bodies, st.booleans())
def test_any_licence_record_makes_a_request(body: Any, mask: bool) -> None:
    request = getkeymanager().request("licence", body, event_id="1", now=NOW, mask=mask)
    check(request, masked=mask)
    form = urllib.parse.parse_qsl(request.body.decode("ascii"), True, strict_parsing=True)
    assert form[0] == ("api_key", "****" if mask else API_KEY)
    assert [name for name, _ in form].count("api_key") == 1


@settings(max_examples=40)
@given(st.sampled_from(["usage", "aggregate"]), bodies, st.booleans())
def test_any_usage_record_makes_a_request(kind: str, body: Any, mask: bool) -> None:
    request = reo().request(kind, body, event_id="1", now=NOW, mask=mask)
    check(request, masked=mask)
    assert list(json.loads(request.body)) == ["payload"]


@settings(max_examples=40)
@given(texts, texts, texts, texts)
def test_any_text_arrives_as_it_was_captured(
    text: str, group: str, key: str, activation: str
) -> None:
    source = Capture("1", NOW, "a" * 32, key, activation)
    adapter = getkeymanager()
    body = adapter.text(source, events.text(text), events.name("g" + group, "data_group"))
    request = adapter.request(
        "licence", jsonline.loads(jsonline.dumps(body)), event_id="1", now=NOW
    )
    form = dict(urllib.parse.parse_qsl(request.body.decode("ascii"), True, strict_parsing=True))
    assert form == {**body, "api_key": API_KEY}
    if "\ufffd" not in "".join(body.values()):
        assert [form["text_data"], form["license_key"]] == [text, key]


def test_a_key_of_another_copy_of_this_package_is_refused() -> None:
    class PublicKey:
        """As it would be in a copy under another name: everything is there, its exceptions are others."""

        name, algorithm, fingerprint = "global", "ed25519", "0" * 64

        def verify(self, message: bytes, signature: bytes) -> None:
            raise AssertionError

    target = GetKeyManager(
        base_url="https://keys.acme.example", api_key=API_KEY, keys=(PublicKey(),)
    )
    with pytest.raises(
        ConfigError, match="^keys: got PublicKey, allowed is PublicKey of"
    ) as caught:
        endpoints.adapter(target, config(target))
    assert caught.value.field == "keys"
