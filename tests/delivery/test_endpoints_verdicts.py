"""The verdict table, every row, and answers that try to be taken for something else."""

import base64
import email.utils
import json
from typing import Any

import pytest
from support.endpoints import (
    API_KEY,
    LICENSE_KEY,
    NOW,
    getkeymanager,
    receipt,
    reo,
    signed_body,
    unsigned,
)
from support.scripted import response

from agent.signatures.freshness import Freshness
from agent.values import Response, Verdict
from agent.verdicts import NOT_REPEATED, WRONG_ADDRESS

DELIVERED, FLAGGED, HELD, THROTTLED, OFFLINE = "delivered flagged held throttled offline".split()
SKEWED, UNTRUSTED, RETRY, REFUSED = "skewed untrusted retry refused".split()
HOUR_S, DAY_S = 3600, 24 * 3600
PORTAL = b"<html><title>Welcome to our wireless network</title></html>"
SUCCESS = {"response_code": "200", "response": "Data Uploaded", "status": "success"}
AUTHENTICATION = {"response_code": 400, "response": "Authentication Failure", "status": "failure"}
ADAPTERS: dict[str, Any] = {"signed": getkeymanager, "unsigned": unsigned, "reo": reo}
CODES = [(830, DELIVERED), (831, FLAGGED), *((code, HELD) for code in (100, 101, 102, 103, 150))]
UNSIGNED = ["unsigned", "reo"]


def judge(adapter: Any, answer: Response, *, freshness: Any = None, now: float = NOW) -> Verdict:
    given = {"now": now, "monotonic": 1000.0, "freshness": freshness or Freshness()}
    found: Verdict = adapter.judge(answer, **given, secret=LICENSE_KEY)
    return found


def outcome(adapter: Any, status: int, body: Any = b"", complete: bool = True) -> str:
    return judge(adapter, response(status, body, complete)).outcome


def failure(code: Any, text: Any = "the server's reason") -> dict[str, Any]:
    return {"response_code": code, "response": text, "status": "failure"}


# --- proven answers -----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 204, 302, 400, 403, 404, 407, 429, 503])
@pytest.mark.parametrize(("code", "expected"), CODES)
def test_a_proven_code_decides_alone(status: int, code: int, expected: str) -> None:
    errors = {"product_id": ["The selected product id is invalid."]} if code == 831 else []
    body = signed_body(receipt(code, errors=errors), outer=receipt(100 if code > 800 else 830))
    found = judge(getkeymanager(), response(status, body, retry_after="60"))
    assert (found.outcome, found.code) == (expected, code)
    assert found.timestamp == int(NOW) and not found.retry_after_s
    assert found.errors == (errors or None)
    assert ("code %d" % code in found.reason) is (expected == HELD)


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        *((None, {}), ([], {}), ("x", {"": ["x"]}), (["x", "y"], {"": ["x", "y"]})),
        *(({"f": "m"}, {"f": ["m"]}), ({"f": 5}, {"f": ["5"]}), ({"f": {"0": "m"}}, {"f": ["m"]})),
    ],
)
def test_a_stored_record_is_stored_whatever_the_shape_of_the_rest(errors: Any, said: Any) -> None:
    odd = {**receipt(831), "errors": errors, "message": errors}
    for code in (831, "831"):
        found = judge(getkeymanager(), response(200, signed_body({**odd, "code": code})))
        assert (found.outcome, found.code, found.errors) == (FLAGGED, 831, said)
        for status in (200, 400):
            found = judge(unsigned(), response(status, {"response": {**odd, "code": code}}))
            assert (found.outcome, found.code, found.errors) == (FLAGGED, 831, said)
    bare = b"\xef\xbb\xbf" + signed_body({"code": "830", "timestamp": int(NOW)})
    assert outcome(getkeymanager(), 200, bare) == outcome(unsigned(), 200, bare) == DELIVERED


@pytest.mark.parametrize("age_s", [-2 * DAY_S, 2 * DAY_S])
@pytest.mark.parametrize("code", [830, 831, 100])
def test_a_proven_answer_of_another_time(age_s: int, code: int) -> None:
    body = signed_body(receipt(code, timestamp=int(NOW) + age_s))
    for status in (200, 401, 500):
        found = judge(getkeymanager(), response(status, body), now=int(NOW))
        assert (found.outcome, found.code) == (SKEWED, code)
        assert "%+d s" % age_s in found.reason, "the drift is shown"


def test_only_a_fresh_answer_moves_the_floor() -> None:
    heard = Freshness(floor=int(NOW) - 1)
    old = signed_body(receipt(830, timestamp=int(NOW) - HOUR_S))
    assert judge(getkeymanager(), response(200, old), freshness=heard).outcome == SKEWED
    for body in (PORTAL, signed_body(receipt(830), by="stranger")):
        judge(getkeymanager(), response(200, body), freshness=heard)
    assert heard.floor == int(NOW) - 1
    judge(getkeymanager(), response(200, signed_body(receipt(830))), freshness=heard)
    assert heard.floor == int(NOW)


def forgeries() -> dict[str, bytes]:
    honest = json.loads(signed_body(receipt(830)))
    text = base64.b64encode(json.dumps(receipt(100)).encode()).decode()
    return {
        "nothing": b"",
        "a portal": PORTAL,
        "another kind of JSON": b"[830]",
        "the bare receipt": json.dumps(receipt(830)).encode(),
        "no signature": json.dumps({**honest, "signature": None}).encode(),
        "another text": json.dumps({**honest, "response_base64": text}).encode(),
        "another key": signed_body(receipt(830), by="stranger"),
        "an unknown code": signed_body(receipt(200)),
        "no timestamp": signed_body({"code": 830, "message": ""}),
        "success of another protocol": json.dumps(SUCCESS).encode(),
        "deep nesting": b"[" * 60_000,
    }


@pytest.mark.parametrize("name", forgeries())
@pytest.mark.parametrize("status", [200, 201, 400, 401, 403, 404, 413, 422, 451])
def test_what_should_have_been_proven_and_is_not(name: str, status: int) -> None:
    found = judge(getkeymanager(), response(status, forgeries()[name]))
    assert (found.outcome, found.timestamp, found.code) == (UNTRUSTED, None, None)
    assert "HTTP %d" % status in found.reason and len(found.reason) <= 200


def test_an_answer_that_broke_off_proves_nothing() -> None:
    assert outcome(getkeymanager(), 200, signed_body(receipt(830)), False) == UNTRUSTED
    assert outcome(unsigned(), 200, signed_body(receipt(830)), False) == RETRY
    assert outcome(reo(), 200, SUCCESS, False) == RETRY
    assert outcome(reo(), 400, failure(400), False) == RETRY, "nor does it refuse"


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_wrong_address_is_called_so_signed_or_not(kind: str) -> None:
    for body in (b"", PORTAL, b'{"message": "Not Found"}'):
        reason = judge(ADAPTERS[kind](), response(404, body)).reason
        assert reason.startswith("HTTP 404") and reason.endswith(WRONG_ADDRESS)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_what_is_between_us_and_an_answer_is_named(kind: str) -> None:
    yes = json.dumps(SUCCESS).encode() if kind == "reo" else signed_body(receipt(830))
    notices = b"\nWarning: x in /a.php on line 3\n", b"<b>Notice</b>: x on line <b>3</b><br />\n"
    found = {
        response(200, notice + yes): "sent a PHP notice before its answer" for notice in notices
    }
    found[response(200, yes[1:], content_encoding="br")] = "the answer is packed"
    found[response(200, yes, False)] = "the answer broke off"
    found[response(200, b"<html>The way is on line 5</html>")] = ": "
    for answer, why in found.items():
        reason = judge(ADAPTERS[kind](), answer).reason
        assert why in reason and ("PHP" in reason) == ("PHP" in why), reason


# --- what the status alone tells, for every endpoint --------------------------------------------


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("status", [300, 302, 304, 308, 399, 408, 429, 500, 502, 503, 599])
def test_nobody_judged_the_record(kind: str, status: int) -> None:
    for body in (b"", PORTAL, SUCCESS, AUTHENTICATION, failure(400)):
        found = judge(ADAPTERS[kind](), response(status, body, location="https://evil.example"))
        assert found.outcome == RETRY and "HTTP %d" % status in found.reason


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_proxy_that_asks_for_credentials(kind: str) -> None:
    assert outcome(ADAPTERS[kind](), 407, b"") == OFFLINE


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "told_s"),
    [
        *(("1", 1), (" 120 ", 120), (str(5 * HOUR_S), 5 * HOUR_S)),
        (email.utils.formatdate(int(NOW) + 600, usegmt=True), 600),
        ("Tuesday, 27-Feb-24 02:10:00 GMT", 600),
    ],
)
@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_pause_that_was_asked_for(kind: str, status: int, header: str, told_s: int) -> None:
    found = judge(ADAPTERS[kind](), response(status, b"", retry_after=header))
    assert found.outcome == THROTTLED and found.retry_after_s == pytest.approx(told_s, abs=1)


@pytest.mark.parametrize("header", [str(10 * DAY_S), "9" * 5000, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_pause_has_an_end(header: str) -> None:
    for kind, end_s in {"signed": 6 * HOUR_S, "unsigned": DAY_S, "reo": DAY_S}.items():
        found = judge(ADAPTERS[kind](), response(503, b"", retry_after=header))
        assert (found.outcome, found.retry_after_s) == (THROTTLED, end_s)


@pytest.mark.parametrize(
    "header",
    ["", "0", "-1", "1.5", "soon", "\u0661\u0662", "inf", "nan", "12 34", "x" * 10_000]
    + ["Wed, 21 Oct 2015 07:28:00 GMT", "Mon, 99 Foo 2024 99:99:99 GMT"]
    + ["Mon, 01 Jan 99999999999999 00:00:00 GMT"],
)
def test_a_pause_that_is_none(header: str) -> None:
    for make in ADAPTERS.values():
        assert judge(make(), response(429, b"", retry_after=header)).outcome == RETRY


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
    for value in (0, -5, None, "soon", True, [90], {"s": 90}):
        assert outcome(adapter, 429, {"retry_after": value}) == RETRY
    assert outcome(adapter, 429, b'{"retry_after": NaN}') == RETRY


# --- without keys: the body decides -------------------------------------------------------------


def test_a_success_is_the_documented_one() -> None:
    for status in (200, 202):
        found = judge(reo(), response(status, SUCCESS))
        assert (found.outcome, found.timestamp, found.code) == (DELIVERED, None, None)


@pytest.mark.parametrize(
    "body",
    [b"", b" ", PORTAL, b"null", b"[]", b'"success"', b"{}", b'{"status": true}', b"\xff\xfe"]
    + [b'{"status": "SUCCESS"}', b'{"status": ["success"]}', b'{"status": "queued"}']
    + [b'{"status": "failure", "status": "success"}', b'{"status": "success"', b"[" * 60_000]
    + [b'{"payload": {"status": "success"}}', b'{"status": "success", "x": NaN}', b'{"x":' * 9000],
)
def test_a_2xx_that_is_no_success(body: bytes) -> None:
    for make in (reo, unsigned):
        assert outcome(make(), 200, body) == outcome(make(), 204, body) == RETRY


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 413, 422, 418])
@pytest.mark.parametrize(
    "text",
    ["Authentication Failure", "Authentication failure.", "Invalid API Key", "Unknown x-api-key"]
    + ["Access denied", "Forbidden", "ApiKey expired"]
    + ["The api_key is not authorized", "Invalid credentials", "no permission for this product"],
)
def test_trouble_with_the_key_is_no_records_fault(status: int, text: str) -> None:
    found = judge(reo(), response(status, failure(400, text)))
    assert (found.outcome, found.reason) == (HELD, text)
    claimed = {"response": {"code": 104, "message": text}}
    assert outcome(unsigned(), status, claimed) == HELD
    # Of whatever key it may be, it is not in so many words about the record.
    assert outcome(reo(), status, failure(400, "Unknown key")) in (RETRY, HELD)


@pytest.mark.parametrize("code", [401, 402, "403", 404, 405, "410", 451])
def test_a_server_that_says_in_its_own_words_that_somebody_has_to_act(code: Any) -> None:
    assert outcome(reo(), 200, failure(code)) == outcome(reo(), 400, failure(code)) == HELD
    assert outcome(reo(), int(code), failure(None)) == HELD
    assert outcome(unsigned(), int(code), {"response": {"code": 999, "message": "no"}}) == HELD


@pytest.mark.parametrize("kind", UNSIGNED)
@pytest.mark.parametrize("status", [0, 199, 400, 401, 402, 403, 404, 409, 410, 413, 418, 422, 451])
@pytest.mark.parametrize(
    "body", [b"", PORTAL, b"{}", b'{"error": "bad request"}', SUCCESS], ids=str
)
def test_a_gateways_page_holds_and_refuses_nothing(kind: str, status: int, body: Any) -> None:
    found = judge(ADAPTERS[kind](), response(status, body))
    assert found.outcome == RETRY and "HTTP %d" % status in found.reason


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_record_that_the_server_refuses_in_its_own_words(status: int) -> None:
    found = judge(reo(), response(status, failure(None, "meta must be an object")))
    assert (found.outcome, found.reason) == (REFUSED, "meta must be an object")
    claimed = {"response": {"code": 999, "message": "data_type is unknown"}}
    found = judge(unsigned(), response(status, claimed))
    assert (found.outcome, found.reason) == (REFUSED, "data_type is unknown")
    assert outcome(getkeymanager(), status, claimed) == UNTRUSTED


FAILURES: list[tuple[Any, str]] = [(code, REFUSED) for code in (400, "400", 413, 415, 422)]
OTHERS = (500, "429", 200, None, True, "x", -400, 400.0, [400], "4" * 5000)
FAILURES += [(code, RETRY) for code in OTHERS]


@pytest.mark.parametrize(("code", "expected"), FAILURES)
def test_what_the_code_of_a_failure_says_of_the_record(code: Any, expected: str) -> None:
    for status in (200, 409):
        assert outcome(reo(), status, failure(code)) == expected


@pytest.mark.parametrize(("code", "expected"), CODES)
def test_without_keys_the_code_is_believed(code: int, expected: str) -> None:
    for body in ({"response": {"code": code}}, {"response": {"code": str(code)}}):
        for status in (200, 400, 401, 500):
            found = judge(unsigned(), response(status, body))
            assert (found.outcome, found.code, found.timestamp) == (expected, code, None)


@pytest.mark.parametrize("code", [0, 200, 829, None, True, "x", [830], 1e300])
def test_without_keys_an_unknown_code_settles_nothing(code: Any) -> None:
    assert outcome(unsigned(), 200, {"response": {"code": code}}) == RETRY


# --- a server's texts ---------------------------------------------------------------------------


def test_a_servers_text_is_one_short_printable_line() -> None:
    found = judge(reo(), response(400, failure(400, "bad \x1b[2J\n\u202e\ud800" + "x" * 10_000)))
    assert found.outcome == REFUSED and len(found.reason) == 200 and found.reason.isprintable()


@pytest.mark.parametrize("secret", [API_KEY, API_KEY.upper(), LICENSE_KEY, LICENSE_KEY.upper()])
def test_a_text_with_a_secret_is_not_repeated_at_all(secret: str) -> None:
    for text in ("no such thing: %s" % secret, "x" * 5000 + secret, quote_all(secret)):
        assert judge(reo(), response(400, failure(400, text))).reason == NOT_REPEATED
        claimed = {"response": {"code": 831, "errors": {text: [text, "fine"]}}}
        found = judge(unsigned(), response(200, claimed)).errors
        assert found == {NOT_REPEATED: [NOT_REPEATED, "fine"]}


def quote_all(text: str) -> str:
    """As a server that shows the request's body has it."""
    return "".join("%%%02x" % byte for byte in text.encode())


def test_errors_are_bounded() -> None:
    errors = {"field %d" % number: ["m" * 300] * 9 for number in range(5)}
    many = {"field %d" % number: ["m"] for number in range(100)}
    for adapter in (getkeymanager(), unsigned()):
        for given_, most in ((errors, (5, 8, 200)), (many, (32, 1, 1))):
            found: Any = judge(adapter, response(200, signed_body(receipt(831, errors=given_))))
            texts = list(found.errors.values())
            assert (len(texts), len(texts[0]), len(texts[0][0])) == most
