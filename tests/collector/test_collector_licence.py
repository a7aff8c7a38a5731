"""The collector as the licence server: what it accepts, flags and refuses, field by field."""

import json
from typing import Any, Optional
from urllib.parse import urlencode

import pytest
from support.collector import FORM_TYPE, LICENCE, ask, licence_form, post_licence, verified
from support.shared import shared_path

from agent.collector import Collector

RIGHT = {
    "is_correct_format": True,
    "license_key_exists": True,
    "product_exists": True,
    "product_version_exists": True,
    "has_red_flags": False,
}
FIELDS = "product_id user_identifier license_key activation_identifier product_version data_type data_group"


def judged(collector: Collector, **changes: Optional[str]) -> tuple[int, Any, dict[str, bool]]:
    """Code, errors and stored flags of one record."""
    reply = post_licence(collector, **changes)
    signed = verified(reply.json, collector.keys[0])
    record = collector.records()[-1]
    assert reply.status == 200
    assert reply.json["response"] == signed
    assert record["answer"] == signed["code"]
    return signed["code"], signed["errors"], record["flags"]


def test_a_right_record_of_each_data_type_is_830(collector: Collector) -> None:
    none = {"text_data": None}
    point = {"numeric_data_x": "1", "numeric_data_y": "-2.5e3", **none}
    value = {"numeric_data_single_value": "3.2", **none}
    assert judged(collector) == (830, [], RIGHT)
    assert judged(collector, data_type="numeric-xy-axis", **point) == (830, [], RIGHT)
    assert judged(collector, data_type="numeric-single-value", **value) == (830, [], RIGHT)


@pytest.mark.parametrize("missing", [None, "", " "], ids=["absent", "empty", "blank"])
@pytest.mark.parametrize("field", FIELDS.split())
def test_a_missing_field_is_saved_with_red_flags(
    collector: Collector, field: str, missing: Optional[str]
) -> None:
    code, errors, flags = judged(collector, **{field: missing})
    wanted = {field: ["The %s field is required." % field.replace("_", " ")]}
    if field == "product_id":  # of no product, no version can be known
        wanted["product_version"] = ["The selected product version is invalid."]
    assert (code, errors) == (831, wanted)
    assert not flags["is_correct_format"]
    assert flags["has_red_flags"]


def test_what_the_catalogue_does_not_know_is_flagged_though_well_formed(
    collector: Collector,
) -> None:
    for field, known, also in (
        ("license_key", ["license_key_exists"], []),
        ("product_version", ["product_version_exists"], []),
        ("product_id", ["product_exists", "product_version_exists"], ["product_version"]),
    ):
        code, errors, flags = judged(collector, **{field: "unknown"})
        told = "The selected %s is invalid."
        assert errors == {one: [told % one.replace("_", " ")] for one in (field, *also)}
        assert code == 831
        assert flags == {**RIGHT, **dict.fromkeys(known, False), "has_red_flags": True}


def test_a_record_is_kept_as_received_but_for_the_api_key(collector: Collector) -> None:
    post_licence(collector, text_data="ä & = +", extra="kept")
    (record,) = collector.records()
    assert record["endpoint"] == "getkeymanager"
    assert record["fields"] == licence_form(api_key="****", text_data="ä & = +", extra="kept")
    assert "demo-api-key" not in json.dumps(collector.records() + collector.requests())


def test_an_unknown_api_key_is_a_signed_100(collector: Collector) -> None:
    for wrong in ("another", "", None):
        reply = post_licence(collector, api_key=wrong)
        assert reply.status == 401
        assert verified(reply.json, collector.keys[0])["code"] == 100
        record = collector.records()[-1]
        assert (record["answer"], record["flags"]) == (100, {})


def multipart(fields: dict[str, str], boundary: str = "----a1") -> tuple[bytes, dict[str, str]]:
    parts = [
        '--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (boundary, name, value)
        for name, value in fields.items()
    ]
    body = "".join(parts) + "--%s--\r\n" % boundary
    return body.encode(), {"Content-Type": "multipart/form-data; boundary=" + boundary}


def test_multipart_is_understood_as_the_vendors_own_examples_send_it(collector: Collector) -> None:
    fields = licence_form(text_data="zwei\r\nZeilen ä")
    reply = ask(collector, "POST", LICENCE, *multipart(fields))
    assert verified(reply.json, collector.keys[0])["code"] == 830
    assert collector.records()[-1]["fields"] == {**fields, "api_key": "****"}
    assert "demo-api-key" not in json.dumps(collector.requests())


def test_what_is_no_form_is_refused_unsigned(collector: Collector) -> None:
    whole, form_type = multipart(licence_form())
    for body, headers in (
        (whole[:-20], form_type),
        (json.dumps({}).encode(), {"Content-Type": "application/json"}),
        (urlencode(licence_form()).encode(), {}),
        (b"api_key=%ff", FORM_TYPE),
    ):
        reply = ask(collector, "POST", LICENCE, body, headers)
        assert (reply.status, list(reply.json)) == (400, ["message"])
        assert "demo-api-key" not in reply.body.decode()
        assert collector.records()[-1]["answer"] == 400


def test_an_api_key_is_refused_for_a_documented_reason_alone() -> None:
    with pytest.raises(ValueError, match="100, 101, 102, 103, 150"):
        Collector(api_keys={"odd": 830})


@pytest.mark.parametrize("code", [830, 831, 100, 101, 102, 103, 150])
def test_answers_equal_the_published_ones_byte_for_byte(code: int) -> None:
    path = shared_path("vectors", "getkeymanager", "signed_responses.json")
    published = json.loads(path.read_text("utf-8"))
    (example,) = [v for v in published["vectors"] if v["envelope"]["response"]["code"] == code]
    wanted = example["envelope"]
    api_keys = {"demo-api-key": code if code in (101, 102, 103, 150) else None}
    body = {"api_key": "unknown" if code == 100 else "demo-api-key", "product_id": "999"}
    now = wanted["response"]["timestamp"] + 0.9
    with Collector(api_keys=api_keys, clock=lambda: now) as collector:
        form = licence_form() if code == 830 else body
        reply = ask(collector, "POST", LICENCE, urlencode(form), FORM_TYPE)
    assert reply.status == example["http_status"]
    assert list(reply.json) == list(wanted)
    assert {**reply.json, "signature": ""} == {**wanted, "signature": ""}
    assert len(reply.json["signature"]) == len(wanted["signature"])
