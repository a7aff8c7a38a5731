"""Attacks by refusals: forged answers that would throw a record away, silence us for a day, or for a year.

Where keys are configured nothing unsigned can make a dead letter or a pause that outlasts our own longest backoff.
Usage endpoints have no signatures: what a forged answer can do there is pinned, and told.
"""

import json
from email.utils import formatdate

import pytest
from support.agent import endpoint, pass_, work_until
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


NOW, NEXT_YEAR = formatdate(START, usegmt=True), formatdate(START + YEAR_S, usegmt=True)
LAST_YEAR, TOMORROW = (formatdate(START + s, usegmt=True) for s in (-YEAR_S, DAY_S))
YEAR_HEADERS = {
    "a year in seconds": ("Retry-After: %d" % YEAR_S,),
    "a date in a year, by the server's own clock": ("Date: " + NOW, "Retry-After: " + NEXT_YEAR),
    "tomorrow, by a clock of last year": ("Date: " + LAST_YEAR, "Retry-After: " + TOMORROW),
    "twenty digits": ("Retry-After: " + "9" * 20,),
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
