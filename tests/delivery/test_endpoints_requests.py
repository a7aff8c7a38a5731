"""What goes over the wire, byte for byte, and that no record whatever keeps a request from being made."""

import json
import pathlib
import urllib.parse
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from support.endpoints import API_KEY, LICENSE_KEY, NOW, SOURCE, getkeymanager, public_key, reo

from agent import __version__, lines
from agent.errors import ConfigError
from agent.spool.record import Record
from agent.values import Capture

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
WINDOW = ("RENDER", 1250, "w" * 32, 1_708_990_000.0, 1_708_993_600.0)
NOBODY = Capture("0" * 32, NOW, "a" * 32)
TEXT = ("r\u00e9sum\u00e9 & 100% = \U0001f600+~", "rend\u00e9r er")
FULL = {"user_id": "bob@example.org", "user_id_type": "EMAIL", "ip_addr": "156.59.87.83"}
META = {"name": "r\u00e9sum\u00e9", "size": 3, "parts": [1.5, None]}
LIVE: dict[str, Any] = {"environment": "PRODUCTION"}
# The settings that differ, the kind, and what is recorded.
RECORDS: dict[str, Any] = {
    "licence-call-home": ({}, "licence", lambda a: a.call_home(SOURCE)),
    "licence-value": ({}, "licence", lambda a: a.value(SOURCE, "3.2", "export-seconds")),
    "licence-point": ({}, "licence", lambda a: a.point(SOURCE, "1", "2", "canvas")),
    "licence-text": ({}, "licence", lambda a: a.text(SOURCE, *TEXT)),
    "licence-without-a-key": ({}, "licence", lambda a: a.call_home(NOBODY)),
    "usage-call-home": ({}, "usage", lambda a: a.call_home(SOURCE)),
    "usage-full": (
        {**LIVE, "product_id": "reoWebApp"},
        "usage",
        lambda a: a.track(SOURCE, "EXPORT", **FULL, meta=META),
    ),
    "aggregate": (LIVE, "aggregate", lambda a: {**a.aggregate(*WINDOW), "domain": "acme.example"}),
    "aggregate-from-an-address": (
        {"ip_addr": "156.59.87.83"},
        "aggregate",
        lambda a: a.aggregate(*WINDOW),
    ),
}


def printed(request: Any) -> str:
    head = ["%s %s" % (request.method, request.url)]
    head += ["%s: %s" % header for header in request.headers.items()]
    text = "\n".join(head + ["", request.body.decode("ascii"), ""])
    return text.replace("/" + __version__, "/VERSION")


def made(name: str, **options: Any) -> Any:
    changes, kind, capture = RECORDS[name]
    adapter: Any = getkeymanager() if kind == "licence" else reo(**changes)
    kept = lines.dumps(capture(adapter))
    assert API_KEY not in kept, "nor on disk"
    return asked(adapter, kind, lines.loads(kept), SOURCE.event_id, **options)


def asked(adapter: Any, kind: str, body: Any, id: str = "1", now: float = NOW, **mask: bool) -> Any:
    return adapter.request(Record(kind, adapter.name, id, NOW, body), now=now, **mask)


@pytest.mark.parametrize("name", RECORDS)
def test_the_bytes_of_a_request_and_of_its_retry(name: str) -> None:
    golden = (GOLDEN / ("request-%s.txt" % name)).read_text("ascii")
    assert printed(made(name)) == printed(made(name)) == golden


@pytest.mark.parametrize("name", RECORDS)
def test_a_preview_hides_the_secrets_and_nothing_else(name: str) -> None:
    masked, sent = printed(made(name, mask=True)), printed(made(name))
    assert API_KEY not in masked and LICENSE_KEY not in masked
    assert masked == sent.replace(API_KEY, "****").replace(LICENSE_KEY, "****")


@pytest.mark.parametrize("name", [name for name in RECORDS if name.startswith("licence")])
def test_a_licence_record_carries_every_field_of_the_table(name: str) -> None:
    form = dict(urllib.parse.parse_qsl(made(name).body.decode(), True, strict_parsing=True))
    always = {"api_key", "data_type", "data_group", "product_id", "product_version"}
    always |= {"user_identifier", "license_key", "activation_identifier"}
    data = {name for name in form if "_data_" in name or name == "text_data"}
    assert set(form) == always | data and len(data) == 1 + (name == "licence-point")
    assert form["api_key"] == API_KEY and form["product_version"] == "5.2.5"


def test_a_licence_record_names_itself_so_that_a_retry_is_no_second_one() -> None:
    for event_id, sent in (("a1", "a1"), ("a\r\nX: \u00e9", "a%0D%0AX%3A%20%C3%A9")):
        request = asked(getkeymanager(), "licence", {}, event_id)
        assert request.headers["Idempotency-Key"] == sent


def test_what_an_endpoint_says_of_itself_is_in_its_records() -> None:
    adapter = getkeymanager(base_url="https://acme.example/licences/", data_group="g")
    assert adapter.call_home(SOURCE)["data_group"] == "g"
    assert getkeymanager(product_id="7").call_home(SOURCE)["product_id"] == "7"
    request = asked(adapter, "licence", {})
    assert request.url == "https://acme.example/licences/api/v1/send-telemetry-data"


def payload_of(adapter: Any, kind: str, body: Any, now: float = NOW, mask: bool = False) -> Any:
    return json.loads(asked(adapter, kind, body, now=now, mask=mask).body)["payload"]


def test_a_single_event_tells_when_it_occurred_and_an_aggregated_one_when_it_was_sent() -> None:
    adapter = reo(domain="acme.example")
    single, sum_ = adapter.call_home(SOURCE), adapter.aggregate(*WINDOW)
    assert "event_at" not in sum_
    for now in (NOW, NOW + 86_400.9):
        assert payload_of(adapter, "usage", single, now)["event_at"] == int(SOURCE.at)
        sent = payload_of(adapter, "aggregate", sum_, now)
        assert type(sent["event_at"]) is int and sent["event_at"] == int(now)


def test_the_configured_address_is_that_of_single_events_too() -> None:
    adapter = reo(ip_addr="10.0.0.1")
    assert adapter.call_home(SOURCE)["ip_addr"] == "10.0.0.1"
    assert adapter.track(SOURCE, "X", **FULL)["ip_addr"] == "156.59.87.83"


def test_shipped_software_says_so_and_names_its_domain_once_it_is_known() -> None:
    plain = reo(domain="acme.example").call_home(SOURCE)
    assert plain["source"] == "PRODUCT_CLOUD" and "domain" not in plain
    shipped = reo(source="TELEMETRY", domain="acme.example").call_home(SOURCE)
    assert (shipped["source"], shipped["domain"]) == ("TELEMETRY", "acme.example")
    asked = reo(source="TELEMETRY", domain=lambda: "acme.example")
    assert "domain" not in asked.call_home(SOURCE), "nobody is asked on the host's thread"
    asked.origin()
    assert asked.call_home(SOURCE)["domain"] == "acme.example"


# --- origin -------------------------------------------------------------------------------------

HERE, THERE = {"domain": "acme.example"}, {"ip_addr": "10.0.0.1"}
ORIGINS: list[tuple[dict[str, Any], dict[str, str]]] = [({}, {}), (HERE, HERE), (THERE, THERE)]
ORIGINS += [({"domain": lambda: "acme.example"}, HERE), ({"domain": lambda: 1 / 0}, {})]
ORIGINS += [({"domain": lambda: 1 / 0, **THERE}, THERE)]
for nonsense in (None, "", 5, b"acme.example", "a b", "a" * 10**7, "\ud800"):
    ORIGINS.append(({"domain": lambda nonsense=nonsense: nonsense}, {}))


@pytest.mark.parametrize(("changes", "origin"), ORIGINS)
def test_an_origin_is_known_or_not_and_never_guessed(changes: Any, origin: Any) -> None:
    adapter = reo(**changes)
    body = adapter.aggregate(*WINDOW)
    assert adapter.origin() == origin and not {"domain", "ip_addr"} & set(body)
    payload = payload_of(adapter, "aggregate", {**body, **origin})
    assert {name: payload[name] for name in ("ip_addr", "domain") if name in payload} == origin
    frozen = payload_of(adapter, "aggregate", {**body, "domain": "old.example"})
    assert frozen["domain"] == "old.example" and "ip_addr" not in frozen


def test_a_look_asks_no_callable_and_says_so() -> None:
    adapter = reo(domain=lambda: pytest.fail("asked"))
    assert adapter.origin(ask=False) == {}
    shown = payload_of(adapter, "aggregate", adapter.aggregate(*WINDOW), mask=True)
    assert shown["domain"] == "(asked when it is sent)"


# --- adapters -----------------------------------------------------------------------------------


def test_a_wait_is_over_when_what_may_have_caused_it_changes() -> None:
    changes: Any = ({}, {"base_url": "https://o.example"}, {"api_key": "k"}, {"product_id": "7"})
    found = [make(**change).cause() for make in (getkeymanager, reo) for change in changes]
    found.append(getkeymanager(keys=(public_key("next"),)).cause())
    assert len(set(found)) == len(found)
    assert getkeymanager(data_group="other").cause() == getkeymanager().cause()


def test_signed_times_belong_to_an_address_and_its_keys_alone() -> None:
    others: list[dict[str, Any]] = [{"keys": (public_key("next"),)}, {"base_url": "https://o"}]
    floor = getkeymanager().floor_cause()
    assert getkeymanager(api_key="k", product_id="7").floor_cause() == floor
    assert floor not in [getkeymanager(**other).floor_cause() for other in others]


def test_a_key_of_another_copy_of_this_package_is_refused() -> None:
    class PublicKey:
        """As it would be in a copy under another name: everything is there, its exceptions are others."""

        name, algorithm, fingerprint, verify = "global", "ed25519", "0" * 64, None

    with pytest.raises(ConfigError, match="^keys: .*of this very package"):
        getkeymanager(keys=(PublicKey(),))


# --- records of any content ---------------------------------------------------------------------

texts = st.text(st.characters(codec=None), max_size=20)
json_values: Any = st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | texts
json_values |= st.lists(json_values, max_size=3) | st.dictionaries(texts, json_values, max_size=3)
names = st.sampled_from(["api_key", "license_key", "data_type", "meta", "domain", "event_at"])


@settings(max_examples=80)
@given(st.booleans(), st.dictionaries(names | texts, json_values, max_size=6), texts, st.booleans())
def test_any_record_makes_a_request(usage: bool, body: Any, event_id: str, mask: bool) -> None:
    for kind in ("usage", "aggregate") if usage else ("licence",):
        adapter: Any = reo() if usage else getkeymanager()
        request = asked(adapter, kind, body, event_id, mask=mask)
        assert request.method == "POST" and API_KEY not in request.url + repr(request)
        assert all(text.isascii() and text.isprintable() for text in request.headers.values())
        assert (API_KEY in printed(request)) is not mask
        if usage:
            assert list(json.loads(request.body)) == ["payload"]
            continue
        form = urllib.parse.parse_qsl(request.body.decode("ascii"), True, strict_parsing=True)
        assert form[0] == ("api_key", "****" if mask else API_KEY)
        assert [name for name, _ in form].count("api_key") == 1
