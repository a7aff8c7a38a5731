"""Consent: usage is captured only with it, a refusal reaches what every process holds, and licence is not concerned."""

import time
from pathlib import Path
from typing import Any

import pytest
from support.agent import Desk, FakeClock, endpoint, pass_, snapshot
from support.product import started

import agent
from agent.transport import HttpTransport


def raising() -> bool:
    raise RuntimeError("no settings yet")


def leaving() -> bool:
    raise SystemExit(1)


def use(product: agent.Agent, what: str = "EXPORT") -> Any:
    product.count(what + "-COUNT", 3)
    return product.track(what)


def canary(at: Desk) -> bool:
    """Whether anything on disk holds it."""
    return b"CANARY" in b"".join(snapshot(at.state_dir).values())


REFUSED = (False, lambda: False, lambda: None, lambda: "yes", raising, leaving)


@pytest.mark.parametrize(
    "consent, recorded",
    [(True, True), (lambda: True, True), *((consent, False) for consent in (None, *REFUSED))],
)
def test_what_is_recorded(at: Desk, consent: Any, recorded: bool) -> None:
    with at.agent(usage_consent=consent) as product:
        assert product.call_home()
        assert bool(use(product)) is recorded
        assert product.flush().pending == 0
        lost = product.status()["not_recorded"]
        assert lost == ({} if recorded else {"no consent": 3})
    assert at.activities() == (["CALL HOME", "EXPORT", "EXPORT-COUNT"] if recorded else [])
    assert at.texts() == ["CALL HOME"]


def test_consent_is_asked_at_capture_on_the_callers_thread(at: Desk) -> None:
    asked: list[bool] = []
    answer = [True]

    def ask() -> bool:
        asked.append(True)
        return answer[0]

    with at.agent(usage_consent=ask) as product:
        product.track("A")
        answer[0] = False
        product.track("B")
        times = len(asked)
        product.flush()  # what was captured with consent goes
        assert len(asked) == times
    assert at.activities() == ["A"]


@pytest.mark.parametrize("value, stops", [("1", True), ("true", True), ("0", False), ("", False)])
def test_do_not_track_stops_usage_here_and_purges_nothing(
    at: Desk, value: str, stops: bool
) -> None:
    with at.agent() as product:
        use(product, "BEFORE")
    with at.agent(environ={"DO_NOT_TRACK": value}) as product:
        assert product.call_home()
        assert (product.track("A") is None) is stops
        product.flush()
        assert product.status()["do_not_track"] is stops
        if stops:
            assert endpoint(product, "reo")["waits_for"] == "consent"
            assert endpoint(product, "reo")["pending"] == 2
    assert at.activities() == ([] if stops else ["A", "BEFORE", "BEFORE-COUNT", "CALL HOME"])
    with at.agent() as product:
        product.flush()
    assert {"BEFORE", "BEFORE-COUNT"} <= set(at.activities())
    assert at.texts() == ["CALL HOME"]


def test_a_refusal_purges_before_it_returns(at: Desk) -> None:
    with at.agent() as product:
        product.call_home()
        use(product, "CANARY")
        product._counters.keep()
        product.count("CANARY-LATER")
        product.set_usage_consent(False)
        assert not canary(at)
        assert use(product, "CANARY") is None
        assert product.flush().delivered == 1
        product.set_usage_consent(True)
        assert use(product, "NEW")
        assert product.flush().pending == 0
    assert at.activities() == ["NEW", "NEW-COUNT"]
    assert at.texts() == ["CALL HOME"]


def test_a_configuration_that_refuses_purges_too(at: Desk) -> None:
    with at.agent() as product:
        product.call_home()
        use(product, "CANARY")
    with at.agent(usage_consent=False) as product:
        assert not canary(at)
        product.flush()
    with at.agent() as product:
        product.flush()
    assert at.activities() == [] and at.texts() == ["CALL HOME"]


def test_not_asked_yet_keeps_what_was_recorded_and_sends_none_of_it(at: Desk) -> None:
    with at.agent() as product:
        use(product, "EARLIER")
    with at.agent(usage_consent=None) as product:
        product.flush()
        pass_(product)
        assert at.activities() == [] and product.preview() == []
        assert endpoint(product, "reo")["waits_for"] == "consent"
        assert product._delivery.due_in_s() is None  # a decision is news
        product.set_usage_consent(True)
        assert product._delivery.due_in_s() == 0
        product.flush()
    assert at.activities() == ["EARLIER", "EARLIER-COUNT"]


def test_a_refusal_in_the_middle_of_a_capture_wins(at: Desk) -> None:
    """Consent was asked, and refused elsewhere before the record was written."""
    with at.agent() as other:
        use(other, "FIRST")

        def ask() -> bool:
            if refusing:
                other.set_usage_consent(False)
                other.set_usage_consent(True)
            return True

        refusing = False
        with at.agent(usage_consent=ask) as product:
            product.track("BEFORE")
            refusing = True
            product.track("DURING")
            refusing = False
            product.track("AFTER")
            product.flush()
    assert at.activities() == ["AFTER"]


def test_a_refusal_before_an_answer_is_written_down_leaves_no_word_of_it(at: Desk) -> None:
    class Refuses(HttpTransport):
        def send(self, request: Any, *, timeout_s: float) -> Any:
            response = super().send(request, timeout_s=timeout_s)
            if b"CANARY" in request.body:
                product.set_usage_consent(False)
            return response

    told: list[Any] = []
    given: Any = {"transport": Refuses(environ={}), "on_outcome": told.append}
    with at.agent(**given) as product:
        product.call_home()
        captured = product.track("CANARY")
        product.flush()
        assert {answer["kind"] for answer in product.history()} == {"licence"}
        assert not canary(at)
        assert captured not in [outcome.event_id for outcome in told]


COMMANDS = """
for command in sys.stdin:
    what, _, name = command.strip().partition(" ")
    if what == "use":
        assert t.track(name)
        t.count(name + "-COUNT")
    elif what == "flush":
        print(t.flush(20).pending, end=" ")
    print("done", flush=True)
"""


def test_a_living_process_holds_usage_while_another_refuses(at: Desk) -> None:
    at.clock = FakeClock(time.time())
    with started(at, COMMANDS, start_delay_s=60) as other:
        assert other.stdin is not None and other.stdout is not None

        def tell(command: str) -> str:
            print(command, file=other.stdin, flush=True)
            return str(other.stdout.readline().strip())  # type: ignore[union-attr]

        assert tell("use CANARY") == "done"
        with at.agent() as product:
            product.set_usage_consent(False)
        assert b'"CANARY"' not in b"".join(snapshot(at.state_dir).values())
        assert tell("use NEW") == "done"
        assert tell("flush") == "0 done"
        other.stdin.close()
        assert other.wait(20) == 0
    # A counter that was counted before the other process looked again may be forgotten; never sent.
    assert not {"CANARY", "CANARY-COUNT"} & set(at.activities()) and "NEW" in at.activities()


def test_an_export_made_before_a_refusal_is_not_taken_back_at_home(
    at: Desk, tmp_path: Path
) -> None:
    """The file is the user's own and knows where it comes from; elsewhere it takes on the consent of that place."""
    with at.agent() as product:
        use(product, "CARRIED")
        assert product.export_spool(tmp_path / "file", move=True) == 2
        product.set_usage_consent(False)
        product.set_usage_consent(None)
        assert product.import_spool(tmp_path / "file") == 0
        product.flush()
        assert at.activities() == []
        product.set_usage_consent(False)
        product.set_usage_consent(True)
        product.flush()
    assert at.activities() == []


@pytest.mark.parametrize("consent", REFUSED)
@pytest.mark.parametrize("do_not_track", ["", "1"])
def test_usage_is_not_imported_where_consent_says_no(
    at: Desk, tmp_path: Path, consent: Any, do_not_track: str
) -> None:
    """A callable was not asked: what was imported against its word was sent."""
    with at.agent() as product:
        assert product.call_home()
        use(product, "ELSEWHERE")
        assert product.export_spool(tmp_path / "moved", move=True) == 4
    place, environ = tmp_path / "elsewhere", {"DO_NOT_TRACK": do_not_track}
    with at.agent(state_dir=place, usage_consent=consent, environ=environ) as product:
        assert product.import_spool(tmp_path / "moved") == 1
        assert product.flush().pending == 0
    with at.agent(state_dir=place) as product:
        assert product.flush().delivered == 0
    assert at.activities() == [] and at.texts() == ["CALL HOME"]


def test_what_a_usage_endpoint_answered_leaves_with_the_usage(at: Desk) -> None:
    """Its reason for a wait may repeat what was recorded; what the licence server said stays."""
    at.collector.fault("500")
    with at.agent() as product:
        product.call_home()
        use(product, "CANARY")
        product.flush()
        before = {name: endpoint(product, name) for name in ("getkeymanager", "reo")}
        assert all(found["reason"] and found["failures"] for found in before.values())
        product.set_usage_consent(False)
        assert endpoint(product) == before["getkeymanager"]
        assert endpoint(product, "reo")["reason"] == ""
        assert endpoint(product, "reo")["failures"] == before["reo"]["failures"]
    with at.agent(usage_consent=False) as product:  # every start refuses again
        assert endpoint(product)["reason"] == before["getkeymanager"]["reason"]
