"""Consent: usage is captured only with it, a refusal reaches what every process holds, and licence is not concerned."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agent import Desk, FakeClock, child_environ, desk, endpoint, pass_, snapshot

import agent
from agent.transport import HttpTransport


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path / "state") as found:
        yield found


def raising() -> bool:
    raise RuntimeError("no settings yet")


def leaving() -> bool:
    raise SystemExit(1)


def use(product: agent.Agent, what: str = "EXPORT") -> Any:
    product.count(what + "-COUNT", 3)
    return product.track(what)


def usage(at: Desk) -> list[str]:
    """The activities taken in by the usage collector."""
    records = [r["fields"] for r in at.collector.records() if r["endpoint"] != "getkeymanager"]
    return sorted(fields["activity_type"] for fields in records)


@pytest.mark.parametrize(
    "consent, recorded",
    [
        (True, True),
        (False, False),
        (None, False),
        (lambda: True, True),
        (lambda: False, False),
        (lambda: None, False),
        (lambda: "yes", False),
        (raising, False),
        (leaving, False),
    ],
)
def test_what_is_recorded(at: Desk, consent: Any, recorded: bool) -> None:
    with at.agent(usage_consent=consent) as product:
        assert product.call_home()
        assert bool(use(product)) is recorded
        assert product.flush().pending == 0
        lost = product.status()["not_recorded"]
        assert lost == ({} if recorded else {"no consent": 3})
    assert usage(at) == (["CALL HOME", "EXPORT", "EXPORT-COUNT"] if recorded else [])
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
    assert usage(at) == ["A"]


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
    assert usage(at) == ([] if stops else ["A", "BEFORE", "BEFORE-COUNT", "CALL HOME"])
    with at.agent() as product:
        product.flush()
    assert {"BEFORE", "BEFORE-COUNT"} <= set(usage(at))
    assert at.texts() == ["CALL HOME"]


def test_a_refusal_purges_before_it_returns(at: Desk) -> None:
    with at.agent() as product:
        product.call_home()
        use(product, "CANARY")
        product._counters.keep()
        product.count("CANARY-LATER")
        product.set_usage_consent(False)
        held = b"".join(snapshot(at.state_dir).values())
        assert b"CANARY" not in held
        assert use(product, "CANARY") is None
        assert product.flush().delivered == 1
        product.set_usage_consent(True)
        assert use(product, "NEW")
        assert product.flush().pending == 0
    assert usage(at) == ["NEW", "NEW-COUNT"]
    assert at.texts() == ["CALL HOME"]


def test_a_configuration_that_refuses_purges_too(at: Desk) -> None:
    with at.agent() as product:
        product.call_home()
        use(product, "CANARY")
    with at.agent(usage_consent=False) as product:
        assert b"CANARY" not in b"".join(snapshot(at.state_dir).values())
        product.flush()
    with at.agent() as product:
        product.flush()
    assert usage(at) == [] and at.texts() == ["CALL HOME"]


def test_not_asked_yet_keeps_what_was_recorded_and_sends_none_of_it(at: Desk) -> None:
    with at.agent() as product:
        use(product, "EARLIER")
    with at.agent(usage_consent=None) as product:
        product.flush()
        assert usage(at) == []
        assert endpoint(product, "reo")["waits_for"] == "consent"
        assert product.preview() == []
        product.set_usage_consent(True)
        product.flush()
    assert usage(at) == ["EARLIER", "EARLIER-COUNT"]


def test_consent_given_later_wakes_what_waits_for_it(at: Desk) -> None:
    with at.agent() as product:
        use(product, "EARLIER")
    with at.agent(usage_consent=None) as product:
        product.call_home()
        pass_(product)
        assert product._delivery.due_in_s() == 3600
        product.set_usage_consent(True)
        assert product._delivery.due_in_s() == 0


def test_what_was_counted_and_not_written_when_another_refused_is_not_sent(at: Desk) -> None:
    with at.agent() as one, at.agent() as other:
        assert one.track("CANARY")
        one.count("CANARY-COUNT")  # half a second before it is written
        other.set_usage_consent(False)
        assert one.flush().pending == 0
        assert use(one, "NEW")
        assert one.flush().pending == 0
    assert usage(at) == ["NEW", "NEW-COUNT"]


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
    assert usage(at) == ["AFTER"]


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
        canary = product.track("CANARY")
        product.flush()
        assert {answer["kind"] for answer in product.history()} == {"licence"}
        assert b"CANARY" not in b"".join(snapshot(at.state_dir).values())
        assert canary not in [outcome.event_id for outcome in told]


def test_a_refusal_that_cannot_be_written_stops_usage_in_this_process(at: Desk) -> None:
    with at.agent() as product:
        use(product, "CANARY")
        product._counters.keep()
        mark = at.state_dir / "agent.consent"
        mark.unlink()
        mark.mkdir()
        product.set_usage_consent(False)
        assert "refusal" in product.status()["trouble"]["spool"]
        product.set_usage_consent(True)
        assert use(product, "CANARY") is None
        product.flush()
        assert b"CANARY" not in b"".join(snapshot(at.state_dir).values())
        assert not mark.is_dir()  # what stood in its place gave way to whoever delivers
        product.set_usage_consent(False)
        product.set_usage_consent(True)
        assert use(product, "NEW") and product.flush().drained
    assert usage(at) == ["NEW", "NEW-COUNT"]


OTHER_PROCESS = """
import sys
import agent
url, pem, state_dir = sys.argv[1:4]
t = agent.Agent(agent.Config(
    vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5", usage_consent=True,
    state_dir=state_dir, start_delay_s=60, endpoints=(
        agent.GetKeyManager(base_url=url, api_key="demo-api-key", keys=(agent.PublicKey.from_pem(pem),)),
        agent.Reo(base_url=url, api_key="demo-api-key", domain="acme.example"))))
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
    pem = at.collector.keys[0]["public_key"]
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER_PROCESS, at.collector.url, pem, str(at.state_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environ(),
    )
    assert other.stdin is not None and other.stdout is not None

    def tell(command: str) -> str:
        assert other.stdin is not None and other.stdout is not None
        print(command, file=other.stdin, flush=True)
        return other.stdout.readline().strip()

    with other:
        assert tell("use CANARY") == "done"
        with at.agent() as product:
            product.set_usage_consent(False)
        assert b'"CANARY"' not in b"".join(snapshot(at.state_dir).values())
        assert tell("use NEW") == "done"
        assert tell("flush") == "0 done"
        other.stdin.close()
        assert other.wait(20) == 0
    # A counter that was counted before the other process looked again may be forgotten; never sent.
    assert "CANARY" not in usage(at) and "CANARY-COUNT" not in usage(at)
    assert "NEW" in usage(at)


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
        assert usage(at) == []
        product.set_usage_consent(False)
        product.set_usage_consent(True)
        product.flush()
    assert usage(at) == []


@pytest.mark.parametrize("environ", [{}, {"DO_NOT_TRACK": "1"}])
@pytest.mark.parametrize("consent", [lambda: False, lambda: None, raising, leaving, False])
def test_usage_is_not_imported_where_consent_says_no(
    at: Desk, tmp_path: Path, consent: Any, environ: dict[str, str]
) -> None:
    """A callable was not asked: what was imported against its word was sent."""
    with at.agent() as product:
        assert product.call_home()
        use(product, "ELSEWHERE")
        assert product.export_spool(tmp_path / "moved", move=True) == 4
    place = tmp_path / "elsewhere"
    with at.agent(state_dir=place, usage_consent=consent, environ=environ) as product:
        assert product.import_spool(tmp_path / "moved") == 1
        assert product.flush().pending == 0
    with at.agent(state_dir=place) as product:
        assert product.flush().delivered == 0
    assert usage(at) == [] and at.texts() == ["CALL HOME"]


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
