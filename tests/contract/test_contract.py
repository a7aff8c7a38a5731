"""The public names, their signatures and their defaults, as other people's products rely on them."""

import inspect
import json
import pickle
import pydoc
import re
from pathlib import Path
from typing import Any

import pytest
from support.agent import ROOT, Desk, run_python

import agent
from agent.transport import HttpTransport

# Of a class what makes it; "usage_consent" is required with a usage endpoint.
SIGNATURES = (ROOT / "tests" / "golden" / "public-signatures.txt").read_text("utf-8").splitlines()
ERRORS = """AgentError ConfigError EventError VerificationError
SignatureInvalid AnswerStale EnvelopeMalformed CodeUnknown Unverifiable""".split()
BARE = agent.Config(vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5")


@pytest.mark.parametrize("line", SIGNATURES, ids=lambda line: line.split("(")[0])
def test_names_and_defaults(line: str) -> None:
    found: Any = agent
    for name in line.partition("(")[0].split("."):
        found = getattr(found, name)
    signature = inspect.signature(found)
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    text = str(signature.replace(parameters=plain, return_annotation=signature.empty))
    assert line == line.partition("(")[0] + text


def test_everything_public_is_there() -> None:
    expected = {"Agent", "Config", "DeliveryReport", "GetKeyManager", "Outcome", "PublicKey"}
    expected |= {"Receipt", "Reo", "dns_domain", "erase", "main", "verify", *ERRORS}
    assert expected <= set(agent.__all__) and expected <= set(dir(agent))
    assert all(getattr(agent, name) is not None for name in agent.__all__)
    with pytest.raises(AttributeError, match="NoSuchName"):
        agent.NoSuchName  # type: ignore[attr-defined]  # noqa: B018


def test_help_names_everything_public_and_no_address_of_a_machine() -> None:
    text = pydoc.plaintext.document(agent)  # type: ignore[attr-defined]
    opening = text.partition("PACKAGE CONTENTS")[0]
    assert not [name for name in agent.__all__ if not re.search(r"\b%s\b" % name, opening)]
    for name in agent.__all__:
        assert inspect.getdoc(getattr(agent, name)), name
    assert not re.search(r" at 0x[0-9a-f]{6,}", text)
    methods = [name for name in vars(agent.Agent) if not name.startswith("_")]
    assert not [name for name in methods if not inspect.getdoc(getattr(agent.Agent, name))]


def test_the_ladder_of_errors() -> None:
    for name in ERRORS:
        assert issubclass(getattr(agent, name), agent.AgentError)
    assert issubclass(agent.ConfigError, ValueError) and issubclass(agent.EventError, ValueError)
    for name in ERRORS[4:]:
        assert issubclass(getattr(agent, name), agent.VerificationError)
    error = pickle.loads(pickle.dumps(agent.AnswerStale("old", -90_000)))
    assert error.skew_s == -90_000 and str(error) == "old"


def test_the_report_and_the_outcome_have_the_promised_fields(at: Desk) -> None:
    told: list[agent.Outcome] = []
    with at.agent(on_outcome=told.append) as product:
        product.call_home()
        report = product.flush()
    numbers = "delivered flagged pending held dead untrusted".split()
    assert all(type(getattr(report, name)) is int for name in numbers)
    assert type(report.drained) is bool
    assert set(report.to_json()) == {*numbers, "drained"}
    fields = "event_id endpoint verdict reason errors recorded_at had_license_key from_earlier_run"
    assert set(told[0].to_json()) == set(fields.split())
    json.dumps([report.to_json(), *(outcome.to_json() for outcome in told)])


# One for each argument; what all else is a mistake is tried where arguments are read.
MISTAKES: list[tuple[str, Any]] = [
    ("value", lambda t: t.record_value("3", data_group="g")),
    ("data_group", lambda t: t.record_value(3, data_group="")),
    ("x", lambda t: t.record_point(None, 2, data_group="g")),
    ("y", lambda t: t.record_point(1, "2", data_group="g")),
    ("text", lambda t: t.record_text(b"x", data_group="g")),
    ("activity_type", lambda t: t.track(7)),
    ("activity_type", lambda t: t.count(None)),
    ("n", lambda t: t.count("RENDER", n=-1)),
    ("user_id_type", lambda t: t.track("A", user_id_type="PHONE")),
    ("user_id", lambda t: t.track("A", user_id=7)),
    ("ip_addr", lambda t: t.track("A", ip_addr=7)),
    ("user_id", lambda t: t.track("A", user_id_type="EMAIL")),
    ("meta", lambda t: t.track("A", meta=["a"])),
    ("timeout", lambda t: t.flush(timeout=-1)),
    ("timeout", lambda t: t.flush(timeout=float("nan"))),
    ("timeout", lambda t: t.close(timeout=-1)),
    ("consent", lambda t: t.set_usage_consent("yes")),
]


@pytest.mark.parametrize("field, mistake", MISTAKES)
def test_a_mistake_raises_at_once_names_the_field_and_keeps_nothing(
    at: Desk, field: str, mistake: Any
) -> None:
    with at.agent() as product:
        with pytest.raises(agent.EventError, match=field) as caught:
            mistake(product)
        assert caught.value.field == field
        assert not at.state_dir.exists()
        assert product.status()["pending"] == 0


NAN = float("nan")
UNUSABLE: list[Any] = [
    lambda t: t.record_value(NAN, data_group="g"),
    lambda t: t.record_value(float("-inf"), data_group="g"),
    lambda t: t.record_point(1, NAN, data_group="g"),
    lambda t: t.record_text("", data_group="g"),
    lambda t: t.track("A", user_id=""),
    lambda t: t.track("A", ip_addr="not an address"),
]


def test_content_that_cannot_be_sent_is_counted_and_no_mistake(at: Desk) -> None:
    with at.agent() as product:
        assert [record(product) for record in UNUSABLE] == [None] * len(UNUSABLE)
        product.count("RENDER", 0)  # counts nothing
        assert product.status()["not_recorded"] == {"unusable content": len(UNUSABLE)}
        assert product.status()["pending"] == 0 and not at.state_dir.exists()


def test_what_is_recorded_inside_our_own_request_is_dropped_and_counted(at: Desk) -> None:
    """An instrumented host would make a record of each request, and a request of each record."""

    class Instrumented(HttpTransport):
        def send(self, request: Any, *, timeout_s: float) -> Any:
            assert product.call_home() is None and product.track("REQUEST") is None
            assert product.record_value(1, data_group="requests") is None
            product.count("REQUEST")
            return super().send(request, timeout_s=timeout_s)

    def on_outcome(outcome: agent.Outcome) -> None:
        inside.append(product.record_text("in on_outcome", data_group="g"))

    inside: list[Any] = []
    given: Any = {"transport": Instrumented(environ={}), "only": "licence"}
    with at.agent(on_outcome=on_outcome, **given) as product:
        assert product.call_home()
        assert product.flush().delivered == 1 and inside[0]
        assert product.status()["not_recorded"] == {"inside our own request": 4}


def test_arguments_of_the_agent_are_checked() -> None:
    with pytest.raises(agent.ConfigError, match="config"):
        agent.Agent({})  # type: ignore[arg-type]
    for field in ("clock", "transport", "environ", "on_outcome"):
        for value in (3, "x", object()):
            with pytest.raises(agent.ConfigError, match="%s: got" % field) as caught:
                agent.Agent(BARE, **{field: value})  # type: ignore[arg-type]
            assert caught.value.field == field
    with pytest.raises(agent.EventError, match="activation_identifier"):
        agent.Agent(BARE, "key", 7)  # type: ignore[arg-type]
    with pytest.raises(agent.EventError, match="license_key"):
        agent.Agent(BARE, 7)  # type: ignore[arg-type]
    with agent.Agent(BARE) as product, pytest.raises(agent.EventError, match="license_key"):
        product.set_license(("a", 3))  # type: ignore[arg-type]


def test_after_close_everything_is_quiet_and_nothing_raises(at: Desk) -> None:
    with at.agent() as product:
        pass
    assert product.call_home() is None
    assert product.record_value(1, data_group="g") is None
    assert product.track("A") is None
    product.count("A")
    product.set_license("other")
    report = product.flush()
    assert report.pending == 0 and report.drained
    product.close()
    product.close(timeout=0)
    assert product.status()["closed"] and product.status()["not_recorded"]["closed"] == 4
    assert not at.seen()


def test_usage_without_a_usage_endpoint_is_counted(at: Desk) -> None:
    with at.agent(only="licence") as product:
        assert product.track("A") is None
        product.count("A")
        assert product.status()["not_recorded"] == {"no usage endpoint": 2}
    with at.agent(only="usage") as product:
        assert product.record_text("x", data_group="g") is None
        assert product.status()["not_recorded"] == {"no licence endpoint": 1}
        assert product.call_home() is not None


def test_the_disabled_agent_touches_nothing(tmp_path: Path) -> None:
    """No file, no thread, no machine id read, every call answers."""
    code = """
import sys, os, threading
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event in ("open", "os.mkdir", "os.listdir",
    "socket.__new__", "os.scandir") else None)
import agent
config = agent.Config(vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5",
                      endpoints=(), state_dir=sys.argv[1], start_delay_s=0)
t = agent.Agent(config, "key", on_outcome=print)
del opened[:]
assert t.call_home() is None and t.record_value(1, data_group="g") is None
assert t.record_point(1, 2, data_group="g") is None and t.record_text("x", data_group="g") is None
assert t.track("A") is None and t.count("A") is None
t.set_usage_consent(False); t.set_usage_consent(True); t.set_license("k")
report = t.flush()
assert report.drained and not (report.pending or report.delivered)
assert t.user_identifier == "" and t.preview() == [] and t.preview(samples=True) == []
assert t.history() == []
status = t.status()
assert status["version"] == agent.__version__
assert not status["enabled"] and status["pending"] == 0 and status["endpoints"] == []
assert t.diagnostics()["identity"] is None
t.close()
assert agent.erase(config) == []
assert threading.active_count() == 1
ours = [str(path) for path in opened if not str(path).endswith((".py", ".pyc", ".so", "/agent"))]
ours = [path for path in ours if sys.argv[1] in path or "machine-id" in path or "socket" in path]
assert not ours, ours
assert not os.path.exists(sys.argv[1])
"""
    found = run_python(code, str(tmp_path / "state"))
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
