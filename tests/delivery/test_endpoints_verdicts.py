"""The verdict table, every row, and answers that try to be taken for something else."""

from __future__ import annotations

import base64
import email.utils
import html
import json
import urllib.parse
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st
from support.endpoints import (
    API_KEY,
    NOW,
    getkeymanager,
    public_key,
    receipt,
    reo,
    response,
    signed_body,
    unsigned,
)

from agent.endpoints import Verdict, verdicts
from agent.endpoints.verdicts import (
    DELIVERED,
    FLAGGED,
    HELD,
    OFFLINE,
    REJECTED,
    RETRY,
    SKEWED,
    THROTTLED,
    UNTRUSTED,
)
from agent.signatures import Freshness
from agent.transport import Response

HOUR_S, DAY_S = 3600, 24 * 3600
PORTAL = b"<html><title>Welcome to our wireless network</title></html>"
SUCCESS = {"response_code": "200", "response": "Data Uploaded", "status": "success"}
AUTHENTICATION = {"response_code": 400, "response": "Authentication Failure", "status": "failure"}
ADAPTERS = {"signed": getkeymanager, "unsigned": unsigned, "reo": reo}
OUTCOMES = {DELIVERED, FLAGGED, HELD, THROTTLED, OFFLINE, SKEWED, UNTRUSTED, RETRY, REJECTED}


def judge(adapter: Any, answer: Response, *, freshness: Any = None, now: float = NOW) -> Verdict:
    fresh = Freshness() if freshness is None else freshness
    found: Verdict = adapter.judge(answer, now=now, monotonic=1000.0, freshness=fresh)
    return found


def outcome(adapter: Any, status: int, body: Any = b"", complete: bool = True) -> str:
    return judge(adapter, response(status, body, complete)).outcome


def failure(code: Any, text: Any = "the server's reason") -> dict[str, Any]:
    return {"response_code": code, "response": text, "status": "failure"}


def test_the_set_of_outcomes_is_closed() -> None:
    named = {
        value for name, value in vars(verdicts).items() if name.isupper() and type(value) is str
    }
    assert named == OUTCOMES and all(value.islower() for value in OUTCOMES)


# --- proven answers -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 403, 404, 407, 429, 500, 503])
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (830, DELIVERED),
        (831, FLAGGED),
        (100, HELD),
        (101, HELD),
        (102, HELD),
        (103, HELD),
        (150, HELD),
    ],
)
def test_a_proven_code_decides_alone(status: int, code: int, expected: str) -> None:
    errors = {"product_id": ["The selected product id is invalid."]} if code == 831 else []
    body = signed_body(receipt(code, errors=errors))
    found = judge(getkeymanager(), response(status, body, retry_after="60"))
    assert (found.outcome, found.code, found.proven) == (expected, code, True)
    assert found.timestamp == int(NOW) and found.retry_after_s is None
    assert found.errors == (errors or None)
    assert ("code %d" % code in found.reason) is (expected == HELD)


def test_the_outer_response_decides_nothing() -> None:
    refused, saved = receipt(100), receipt(830)
    assert outcome(getkeymanager(), 200, signed_body(refused, outer=saved)) == HELD
    assert outcome(getkeymanager(), 401, signed_body(saved, outer=refused)) == DELIVERED


@pytest.mark.parametrize("age_s", [-2 * DAY_S, 2 * DAY_S])
@pytest.mark.parametrize("code", [830, 831, 100])
@pytest.mark.parametrize("status", [200, 401, 500])
def test_a_proven_answer_of_another_time(age_s: int, code: int, status: int) -> None:
    body = signed_body(receipt(code, timestamp=int(NOW) + age_s))
    found = judge(getkeymanager(), response(status, body), now=int(NOW))
    assert (found.outcome, found.code, found.proven) == (SKEWED, code, False)
    assert "%+d s" % age_s in found.reason, "the drift is shown"


def test_an_answer_heard_before() -> None:
    freshness = Freshness(floor=int(NOW))
    body = signed_body(receipt(830, timestamp=int(NOW) - HOUR_S))
    found = judge(getkeymanager(), response(200, body), freshness=freshness)
    assert found.outcome == SKEWED and freshness.floor == int(NOW)


def test_only_a_fresh_answer_moves_the_floor() -> None:
    freshness = Freshness()
    judge(getkeymanager(), response(200, PORTAL), freshness=freshness)
    judge(
        getkeymanager(),
        response(200, signed_body(receipt(830), by="stranger")),
        freshness=freshness,
    )
    assert (freshness.floor, freshness.agreed) == (None, False)
    judge(getkeymanager(), response(200, signed_body(receipt(830))), freshness=freshness)
    assert (freshness.floor, freshness.agreed) == (int(NOW), True)


def forgeries() -> dict[str, bytes]:
    honest = json.loads(signed_body(receipt(830)))
    text = base64.b64encode(json.dumps(receipt(100)).encode()).decode()
    return {
        "nothing": b"",
        "a portal": PORTAL,
        "not JSON": b"{",
        "another kind of JSON": b"[830]",
        "the bare receipt": json.dumps(receipt(830)).encode(),
        "no signature": json.dumps({**honest, "signature": None}).encode(),
        "an empty signature": json.dumps({**honest, "signature": ""}).encode(),
        "another text": json.dumps({**honest, "response_base64": text}).encode(),
        "another key": signed_body(receipt(830), by="stranger"),
        "an unknown code": signed_body(receipt(200)),
        "no timestamp": signed_body({"code": 830, "message": ""}),
        "a code as text": signed_body({**receipt(830), "code": "830"}),
        "no object": signed_body([830]),
        "success of another protocol": json.dumps(SUCCESS).encode(),
        "deep nesting": b"[" * 60_000,
    }


@pytest.mark.parametrize("name", forgeries())
@pytest.mark.parametrize(
    "status", [200, 201, 204, 400, 401, 402, 403, 404, 405, 410, 413, 422, 451]
)
def test_what_should_have_been_proven_and_is_not(name: str, status: int) -> None:
    found = judge(getkeymanager(), response(status, forgeries()[name]))
    assert (found.outcome, found.proven, found.code) == (UNTRUSTED, False, None)
    assert "HTTP %d" % status in found.reason and len(found.reason) <= 200


def test_an_answer_that_broke_off_proves_nothing() -> None:
    body = signed_body(receipt(830))
    assert outcome(getkeymanager(), 200, body, False) == UNTRUSTED
    assert outcome(reo(), 200, SUCCESS, False) == RETRY
    assert outcome(unsigned(), 200, body, False) == RETRY
    for make in (unsigned, reo):
        assert outcome(make(), 400, b"{", False) == RETRY


def test_a_second_key_is_as_good_as_the_first() -> None:
    adapter = getkeymanager(keys=(public_key("old"), public_key("global")))
    assert outcome(adapter, 200, signed_body(receipt(830))) == DELIVERED


# --- what the status alone tells, for every endpoint --------------------------------------------


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("body", [b"", PORTAL, SUCCESS, AUTHENTICATION], ids=str)
@pytest.mark.parametrize(
    "status", [300, 301, 302, 303, 304, 307, 308, 399, 408, 429, 500, 502, 503, 504, 599]
)
def test_nobody_judged_the_record(kind: str, body: Any, status: int) -> None:
    if kind == "reo" and body is AUTHENTICATION:
        assert (
            outcome(ADAPTERS[kind](), status, body) == HELD
        )  # its body decides, whatever the status
        return
    found = judge(ADAPTERS[kind](), response(status, body, location="https://evil.example"))
    assert found.outcome == RETRY and "HTTP %d" % status in found.reason


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_proxy_that_asks_for_credentials(kind: str) -> None:
    assert outcome(ADAPTERS[kind](), 407, b"") == OFFLINE


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "told_s"),
    [
        ("1", 1),
        ("120", 120),
        (" 120 ", 120),
        (str(5 * HOUR_S), 5 * HOUR_S),
        (email.utils.formatdate(int(NOW) + 600, usegmt=True), 600),
        ("Tuesday, 27-Feb-24 02:10:00 GMT", 600),
        ("Tue Feb 27 02:10:00 2024", 600),
    ],
)
@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_pause_that_was_asked_for(kind: str, status: int, header: str, told_s: int) -> None:
    found = judge(ADAPTERS[kind](), response(status, b"", retry_after=header))
    assert found.outcome == THROTTLED and found.retry_after_s == pytest.approx(told_s, abs=1)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("header", [str(10 * DAY_S), "9" * 5000, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_pause_has_an_end(status: int, header: str) -> None:
    ends = {"signed": 6 * HOUR_S, "unsigned": DAY_S, "reo": DAY_S}
    for kind, end_s in ends.items():
        found = judge(ADAPTERS[kind](), response(status, b"", retry_after=header))
        assert (found.outcome, found.retry_after_s) == (THROTTLED, end_s)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    "header",
    ["", "0", "-1", "1.5", "1e9", "soon", "\u0661\u0662", "inf", "nan", "12 34", "x" * 10_000]
    + [
        "Wed, 21 Oct 2015 07:28:00 GMT",
        "Mon, 99 Foo 2024 99:99:99 GMT",
        "Mon, 01 Jan 99999999999999 00:00:00 GMT",
    ],
)
def test_a_pause_that_is_none(status: int, header: str) -> None:
    for make in ADAPTERS.values():
        assert judge(make(), response(status, b"", retry_after=header)).outcome == RETRY


def test_a_date_is_read_by_the_servers_own_clock() -> None:
    """Ours may be wrong by years; the distance between two dates of one server is not."""
    date, until = (email.utils.formatdate(at, usegmt=True) for at in (10**9, 10**9 + 60))
    found = judge(reo(), response(503, b"", retry_after=until, date=date))
    assert (found.outcome, found.retry_after_s) == (THROTTLED, 60)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_pause_in_the_body_of_a_429(kind: str) -> None:
    adapter = ADAPTERS[kind]()
    for body in ({"retry_after": 90}, {"retry_after": "90"}, {"response": {"retry_after": 90.0}}):
        found = judge(adapter, response(429, body))
        assert (found.outcome, found.retry_after_s) == (THROTTLED, 90)
        assert outcome(adapter, 503, body) == RETRY, "only documented for 429"
        assert judge(adapter, response(429, body, retry_after="30")).retry_after_s == 30
        assert outcome(adapter, 429, body, False) == RETRY
    for value in (0, -5, None, "soon", True, [90], {"s": 90}, "1" * 20_000):
        found = judge(adapter, response(429, {"retry_after": value}))
        assert found.outcome == (THROTTLED if value == "1" * 20_000 else RETRY)
    assert outcome(adapter, 429, b'{"retry_after": NaN}') == RETRY


# --- the usage collector: the body decides ------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_success_is_the_documented_one(status: int) -> None:
    assert outcome(reo(), status, SUCCESS) == DELIVERED
    assert outcome(reo(), status, {"status": "success"}) == DELIVERED
    found = judge(reo(), response(status, SUCCESS))
    assert (found.proven, found.code, found.timestamp) == (False, None, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        PORTAL,
        b"null",
        b"[]",
        b'"success"',
        b"success",
        b"{}",
        b'{"status": true}',
        b"\xff\xfe",
    ]
    + [
        b'{"status": "SUCCESS"}',
        b'{"status": ["success"]}',
        b'{"ok": true}',
        b'{"status": "queued"}',
    ]
    + [b'{"status": "failure", "status": "success"}', b'{"status": "success"', b"[" * 60_000]
    + [b'{"payload": {"status": "success"}}', b'{"status": "success", "x": NaN}', b'{"x":' * 9000],
)
def test_a_2xx_that_is_no_success(body: bytes) -> None:
    for status in (200, 201, 204):
        assert outcome(reo(), status, body) == RETRY


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 413, 422, 418])
def test_an_authentication_failure_is_nobodys_record(status: int) -> None:
    found = judge(reo(), response(status, AUTHENTICATION))
    assert (found.outcome, found.reason) == (HELD, "Authentication Failure")


@pytest.mark.parametrize("kind", ["unsigned", "reo"])
@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 410, 451])
@pytest.mark.parametrize("body", [b"", PORTAL, SUCCESS], ids=str)
def test_somebody_has_to_act(kind: str, status: int, body: Any) -> None:
    found = judge(ADAPTERS[kind](), response(status, body))
    assert found.outcome == HELD and "HTTP %d" % status in found.reason


@pytest.mark.parametrize("code", [401, 402, "403", 404, 405, "410", 451])
@pytest.mark.parametrize("status", [200, 400])
def test_a_failure_that_says_that_somebody_has_to_act(code: Any, status: int) -> None:
    assert outcome(reo(), status, failure(code)) == HELD


@pytest.mark.parametrize("kind", ["unsigned", "reo"])
@pytest.mark.parametrize("status", [400, 413, 415, 422])
@pytest.mark.parametrize("body", [b"", PORTAL], ids=str)
def test_a_record_that_was_refused(kind: str, status: int, body: Any) -> None:
    found = judge(ADAPTERS[kind](), response(status, body))
    assert found.outcome == REJECTED and "HTTP %d" % status in found.reason


@pytest.mark.parametrize("code", [400, "400", 413, 415, 422])
@pytest.mark.parametrize("status", [200, 400, 409, 422])
def test_a_failure_that_refuses_the_record(code: Any, status: int) -> None:
    found = judge(reo(), response(status, failure(code, "meta must be an object")))
    assert (found.outcome, found.reason) == (REJECTED, "meta must be an object")


@pytest.mark.parametrize("code", [500, "429", 200, None, True, "x", -400, 400.0, [400], "4" * 5000])
def test_a_failure_that_says_nothing_about_the_record(code: Any) -> None:
    assert outcome(reo(), 200, failure(code)) == RETRY


@pytest.mark.parametrize("kind", ["unsigned", "reo"])
@pytest.mark.parametrize("status", [0, 100, 199, 406, 409, 418, 425, 431, 499])
def test_any_other_status(kind: str, status: int) -> None:
    assert outcome(ADAPTERS[kind](), status, b"") == RETRY


def test_a_success_with_a_400_costs_no_record() -> None:
    assert outcome(reo(), 400, SUCCESS) == RETRY


def test_a_servers_text_is_one_short_line_without_secrets() -> None:
    hostile = "bad key %s \x1b[2J\n\u202e\ud800" % API_KEY + "x" * 10_000 + API_KEY
    found = judge(reo(), response(400, failure(400, hostile)))
    assert found.outcome == REJECTED and API_KEY not in found.reason
    assert len(found.reason) == 200 and found.reason.isprintable() and "****" in found.reason
    for cut in range(170, 200):
        reason = judge(reo(), response(400, failure(400, "x" * cut + API_KEY))).reason
        assert API_KEY[:4] not in reason, "half a secret"


@pytest.mark.parametrize("secret", ["", " ", "e", "ab", "abc", " abc "])
def test_a_secret_too_short_to_be_one_shreds_no_text(secret: str) -> None:
    text = "every text has an e in it, and abc"
    assert verdicts.masked(text, secret) == verdicts.brief(text, secret=secret) == text


@pytest.mark.parametrize("said", ["ABCD", "abcd", "aBcD.", "xabcdx", "İabcd", "ßABCD…"])
def test_a_secret_is_masked_however_it_is_written(said: str) -> None:
    found = verdicts.masked("it was %s" % said, "\tAbCd ")
    assert "abcd" not in found.lower() and "****" in found and len(found) == len("it was " + said)


ODD = 'k1%41:a@b/c?d&e="f"+<g>\'\\h i*~k1'


@pytest.mark.parametrize(
    "said",
    [
        ODD,
        json.dumps(ODD)[1:-1],
        urllib.parse.quote(ODD, safe=""),
        urllib.parse.quote_plus(ODD),
        urllib.parse.quote_plus(ODD, safe="*").replace("~", "%7E"),  # as our own request has it
        html.escape(ODD),
    ],
)
def test_a_secret_is_masked_however_it_is_encoded(said: str) -> None:
    """Whoever repeats a request repeats the form in it; and its beginning is its end here."""
    assert verdicts.masked("it was %s, no" % said, ODD) == "it was ****, no"
    for cut in range(verdicts.SECRET_MIN_CHARS, len(said)):
        found = verdicts.masked("it was %s…" % said[:cut], ODD)
        assert found == "it was ****"


# --- a licence server without keys --------------------------------------------------------------


def plain_envelope(code: Any, *, outer: Any = None, **changes: Any) -> dict[str, Any]:
    return {**json.loads(signed_body({**receipt(830), "code": code}, outer=outer)), **changes}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (830, DELIVERED),
        (831, FLAGGED),
        (100, HELD),
        (101, HELD),
        (102, HELD),
        (103, HELD),
        (150, HELD),
    ],
)
def test_without_keys_the_code_is_believed(code: int, expected: str) -> None:
    status = 200 if code > 800 else 401
    bare = {"response": {"code": code}}
    for body in (plain_envelope(code), plain_envelope(code, outer={"code": 999}), bare):
        found = judge(unsigned(), response(status, body))
        assert (found.outcome, found.code, found.proven) == (expected, code, False)


@pytest.mark.parametrize("text", [5, None, "%%%", "e30=", "\u00e9", "W10=", "bnVsbA=="])
def test_without_keys_the_signed_text_goes_before_the_outer_one(text: Any) -> None:
    assert outcome(unsigned(), 200, plain_envelope(830, response_base64=text)) == RETRY


@pytest.mark.parametrize("code", [0, 200, 829, None, True, "x", [830], 1e300])
def test_without_keys_an_unknown_code_settles_nothing(code: Any) -> None:
    assert outcome(unsigned(), 200, plain_envelope(code)) == RETRY


def test_without_keys_a_code_needs_its_status() -> None:
    for status, expected in ((302, RETRY), (400, REJECTED), (401, HELD), (500, RETRY)):
        assert outcome(unsigned(), status, plain_envelope(830)) == expected
    assert outcome(unsigned(), 400, plain_envelope(100)) == HELD


@pytest.mark.parametrize("body", [b"", PORTAL, b"[]", b"{}", SUCCESS], ids=str)
def test_without_keys_a_portal_is_no_delivery(body: Any) -> None:
    assert outcome(unsigned(), 200, body) == RETRY


# --- errors of 831 ------------------------------------------------------------------------------


def test_errors_are_bounded() -> None:
    errors = {"field %d" % number: ["m" * 300] * 9 for number in range(5)}
    many = {"field %d" % number: ["m"] for number in range(100)}
    for given_, fields in ((errors, 5), (many, 32)):
        for adapter in (getkeymanager(), unsigned()):
            body = signed_body(receipt(831, errors=given_), outer={})
            found = judge(adapter, response(200, body)).errors
            assert found is not None and len(found) == fields
            for messages in found.values():
                assert len(messages) <= 8 and all(len(text) <= 200 for text in messages)


@pytest.mark.parametrize(
    "errors", [None, [], "x", 5, {"f": "m"}, {"f": 5}, {"f": [None, {}]}, {"\x1b": [API_KEY]}]
)
def test_errors_of_an_odd_shape(errors: Any) -> None:
    found = judge(unsigned(), response(200, {"response": {"code": 831, "errors": errors}}))
    assert found.outcome == FLAGGED and found.errors is not None
    for field, messages in found.errors.items():
        assert field.isprintable() and all(type(text) is str for text in messages)
    assert API_KEY not in repr(found)


# --- any answer at all --------------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from(
        ["success", "failure", "Authentication Failure", 830, 831, 100, 400, 401, "400"]
    ),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            [
                "status",
                "response_code",
                "response",
                "response_base64",
                "signature",
                "code",
                "errors",
            ]
            + ["retry_after", "timestamp"]
        ),
        inner,
    ),
    max_leaves=10,
)
documents = json_values.map(lambda value: json.dumps(value).encode())
inner_documents = documents.map(
    lambda data: json.dumps(
        {"response_base64": base64.b64encode(data).decode(), "signature": "aaaa"}
    ).encode()
)
headers = st.dictionaries(
    st.sampled_from(["retry-after", "date", "location", "content-type"]),
    st.text(max_size=40)
    | st.integers().map(str)
    | st.datetimes().map(str)
    | st.text("MonTueJanFeb0123456789 ,:-+GMT", min_size=18, max_size=40),
)
statuses = st.integers(-1, 1000) | st.sampled_from([200, 401, 407, 429, 503])


@settings(max_examples=150)
@given(
    st.sampled_from([*ADAPTERS]),
    statuses,
    headers,
    st.binary() | documents | inner_documents,
    st.booleans(),
)
@example("reo", 503, {"retry-after": "Mon, 01 Jan 0000 00:00:00 +99999999999999"}, b"", True)
@example("reo", 429, {}, b'{"retry_after": 1e999}', True)
@example("unsigned", 200, {}, b'{"response_base64": "' + b"W" * 60_000 + b'"}', True)
def test_any_answer_gets_a_verdict(
    kind: str, status: int, named: dict[str, str], body: bytes, complete: bool
) -> None:
    found = judge(ADAPTERS[kind](), Response(status, named, body, complete))
    assert found.outcome in OUTCOMES and not found.proven
    assert (found.retry_after_s is not None) == (found.outcome == THROTTLED)
    assert found.retry_after_s is None or 0 < found.retry_after_s <= DAY_S
    assert (
        len(found.reason) <= 200 + len(": not an answer of this server")
        and found.reason.isprintable()
    )
    if kind == "signed":
        assert found.outcome not in (
            DELIVERED,
            FLAGGED,
            HELD,
            SKEWED,
            REJECTED,
        ), "nothing was proven"
