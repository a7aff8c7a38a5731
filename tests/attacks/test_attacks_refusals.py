"""Attacks by refusals: forged answers that would throw a record away, silence us for a day, or for a year.

Where keys are configured nothing unsigned can make a dead letter or a pause that outlasts our own longest backoff.
Usage endpoints have no signatures: what a forged answer can do there is pinned, and told.
"""

from __future__ import annotations

import json
from email.utils import formatdate

import pytest
from support.agent import endpoint, fields, pass_, work_until
from support.attacks import (
    BACKOFF_MAX_S,
    DAY_S,
    HOUR_S,
    START,
    STRANGER,
    YEAR_S,
    Honest,
    Scene,
    http_answer,
    receipt,
    signed,
)
from support.spool import waiting

REFUSAL = json.dumps({"response": receipt(START, code=101, message="Inactive API Key")}).encode()
BODIES = {
    "none": b"",
    "a message": b'{"message": "Bad Request"}',
    "the vendor's refusal, unsigned": REFUSAL,
    "the vendor's refusal, signed by a stranger": signed(receipt(START, code=101), STRANGER),
    "Reo's failure": b'{"response_code":400,"response":"Authentication Failure","status":"failure"}',
    "Reo's success": b'{"response_code":"200","response":"Data Uploaded","status":"success"}',
}


# -- to throw a record away, or to silence us ----------------------------------------------------


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("status", [400, 413, 415, 422, 401, 403, 404, 451])
def test_a_forged_rejection_or_refusal(line: Scene, status: int, body: str) -> None:
    """It makes no dead letter; and where a real one would pause us for hours, this costs a backoff of a minute."""
    line.says(BODIES[body], status)
    with line.agent() as product:
        line.record(product, "first", "second")
        line.fails(product, "untrusted", "HTTP %d, not proven: " % status)
        assert endpoint(product)["retry_in_s"] <= 60
        line.recovers(product)


@pytest.mark.parametrize("status", [422, 401])
def test_a_forged_refusal_kept_up_for_three_weeks(line: Scene, status: int) -> None:
    """However often it comes, we ask again after our own longest backoff at the latest."""
    line.says(REFUSAL, status)
    with line.agent() as product:
        line.record(product, "first", "second")
        product.flush()
        waits = work_until(product, line.clock, START + 21 * DAY_S)
        assert max(waits) <= BACKOFF_MAX_S
        line.intact(product)
        line.says_so(product, "untrusted", "HTTP %d, not proven: " % status)
        line.recovers(product)


def test_a_censor_who_refuses_one_record_and_lets_others_pass(line: Scene) -> None:
    """Nothing tells it from a record that the server cannot digest: set aside in the end, kept on disk, revived."""

    def censor(request: bytes, honest: Honest) -> bytes:
        return http_answer(b"", 400) if b"text_data=inconvenient" in request else honest()

    line.attack = censor
    with line.agent() as product:
        line.record(product, "inconvenient", "before")
        for refused in range(40):
            if product.status()["dead"]:
                break
            line.record(product, "r%d" % refused)
            work_until(product, line.clock, line.clock.at + 7 * HOUR_S)
        # Never for less than a dozen refusals, each after the server proved another record.
        asked = [r for r in line.middle.requests if b"text_data=inconvenient" in r]
        assert len(asked) >= 12 and line.on_disk() == set()
        (dead,) = waiting(line.state_dir, dead=True)
        assert line.recorded[dead] == "inconvenient"
        assert [o.verdict for o in line.told if o.event_id == dead] == ["rejected"]
        assert "HTTP 400, not proven" in product.history()[-1]["reason"]
        line.attack = None
        assert product._spool.claim() and product._spool.revive() == 1
        product._spool.release()
        assert product.flush().delivered == 1
    assert line.arrived() == set(line.recorded.values())


def test_a_forged_refusal_under_a_signed_receipt_s_status(line: Scene) -> None:
    """The one in the middle turns an honest 200 into a 401: the signed code decides alone."""
    line.attack = lambda request, honest: honest().replace(b"HTTP/1.1 200", b"HTTP/1.1 401", 1)
    with line.agent() as product:
        line.delivers(product, "first", "second")


def test_a_signed_refusal_under_a_forged_success(line: Scene) -> None:
    """Status and outer response say that all is well: the record is kept."""
    line.says(signed(receipt(START, code=102), response=receipt(START)), 200)
    line.withstands("held", "(code 102)")


NOW, NEXT_YEAR = formatdate(START, usegmt=True), formatdate(START + YEAR_S, usegmt=True)
LAST_YEAR, TOMORROW = (formatdate(START + s, usegmt=True) for s in (-YEAR_S, DAY_S))
YEAR_HEADERS = {
    "a year in seconds": ("Retry-After: %d" % YEAR_S,),
    "a date in a year": ("Retry-After: " + NEXT_YEAR,),
    "a date in a year, by the server's own clock": ("Date: " + NOW, "Retry-After: " + NEXT_YEAR),
    "tomorrow, by a clock of last year": ("Date: " + LAST_YEAR, "Retry-After: " + TOMORROW),
    "the year 9999": ("Retry-After: Fri, 31 Dec 9999 23:59:59 GMT",),
    "twenty digits": ("Retry-After: " + "9" * 20,),
    "four thousand digits": ("Retry-After: " + "9" * 4000,),
    "2^63": ("Retry-After: %d" % 2**63,),
}


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("name", YEAR_HEADERS)
def test_a_forged_retry_after_of_a_year(line: Scene, name: str, status: int) -> None:
    line.says(b"", status, *YEAR_HEADERS[name])
    with line.agent() as product:
        line.record(product, "first", "second")
        line.fails(product, "throttled", "HTTP %d: asked to wait %d s" % (status, BACKOFF_MAX_S))
        assert endpoint(product)["retry_in_s"] == BACKOFF_MAX_S
    # Nor does it grow over a restart, or by being said again.
    with line.agent() as product:
        for _ in range(3):
            line.clock.advance(BACKOFF_MAX_S + 1)
            pass_(product)
            assert endpoint(product)["retry_in_s"] == BACKOFF_MAX_S
        assert line.asked == 4
        line.recovers(product)


@pytest.mark.parametrize("told", [31_536_000, "31536000", 1e300, 10**40], ids=repr)
def test_a_forged_retry_after_in_the_body(line: Scene, told: object) -> None:
    line.says(json.dumps({"message": "Too Many Attempts.", "retry_after": told}).encode(), 429)
    line.withstands("throttled", "HTTP 429: asked to wait %d s" % BACKOFF_MAX_S)


NONSENSE = ["-1", "0", "NaN", "inf", "1e9", "soon", "0x7fffffff", "٣٦٠٠", "1, 2", "\t"]
NONSENSE += ["Fri, 99 Foo", LAST_YEAR]


@pytest.mark.parametrize("told", NONSENSE)
def test_a_forged_retry_after_that_is_none(line: Scene, told: str) -> None:
    """Then our own backoff counts, as after any failure: no hammering either."""
    line.says(b"", 503, "Retry-After: " + told.encode().decode("latin-1"))
    line.withstands("retry", "HTTP 503")


@pytest.mark.parametrize("status", [500, 502, 504, 599, 408, 429])
def test_a_forged_breakdown(line: Scene, status: int) -> None:
    line.says(b"<h1>down</h1>", status)
    line.withstands("retry", "HTTP %d" % status)


def test_a_forged_demand_for_a_proxy_password(line: Scene) -> None:
    line.says(b"", 407, "Proxy-Authenticate: Basic")
    with line.agent() as product:
        line.record(product, "first", "second")
        product.flush()
        line.says_so(product, "offline", "HTTP 407: the proxy asks for credentials")
        assert "authorization" not in line.middle.requests[0].lower().decode()
        line.intact(product)
        line.recovers(product)


def test_a_portal_with_every_status_there_is(line: Scene) -> None:
    """Whatever it answers, for a week: each costs one backoff, none costs a record."""
    statuses = iter([*range(200, 206), *range(207, 227), *range(400, 452), *range(500, 512)] * 10)
    line.attack = lambda request, honest: http_answer(b"<html>sign in</html>", next(statuses))
    with line.agent() as product:
        line.record(product, "first", "second", "third")
        for _ in range(90):
            product.flush()
            line.wait(1800)
        line.intact(product)
        assert {a["verdict"] for a in product.history()} <= {"untrusted", "retry", "offline"}
        line.recovers(product)


# -- where nothing is signed ---------------------------------------------------------------------


@pytest.mark.parametrize("name", YEAR_HEADERS)
def test_a_forged_retry_after_of_a_year_for_usage(line: Scene, name: str) -> None:
    """A day, where nothing can be proven; the licence endpoint beside it is not touched."""
    year = http_answer(b"", 429, *YEAR_HEADERS[name])
    line.attack = lambda request, honest: year if b"/product/" in request else honest()
    with line.agent(only=None) as product:
        product.call_home()
        assert product.flush().delivered == 1
        assert endpoint(product, "reo")["waiting"] == "pause"
        assert endpoint(product, "reo")["retry_in_s"] == DAY_S
        line.attack = None
        line.wait(DAY_S + 1)
        pass_(product)
        assert product.status()["pending"] == 0


def test_a_rejected_licence_record_tells_its_api_key_to_nobody(line: Scene) -> None:
    """A server that repeats what it was sent, in every place that is shown."""

    def repeat(request: bytes, honest: Honest) -> bytes:
        sent = fields({"body": request.partition(b"\r\n\r\n")[2].decode()})
        text = "%s %s" % (sent["api_key"], sent["license_key"])
        return http_answer(json.dumps({"message": text, "error": text}).encode(), 400, "X: " + text)

    line.attack = repeat
    with line.agent(api_key="canary-api-key") as product:
        line.record(product, "first")
        line.fails(product, "untrusted", "HTTP 400, not proven: ")
        shown = json.dumps([product.status(), product.history(), product.diagnostics()])
        assert "canary-api-key" not in shown and "demo-license-key" not in shown
    on_disk = b"".join(path.read_bytes() for path in line.state_dir.rglob("*") if path.is_file())
    assert b"canary-api-key" not in on_disk
