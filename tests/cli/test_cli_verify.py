"""verify: real answers of the licence server, and what anybody could do to them on the way."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from support.cli import Result, Site, run, spawn
from support.shared import shared_path

PLACE = ("vectors", "getkeymanager")


def key() -> str:
    return str(shared_path(*PLACE, "demo_public_key.pem"))


def answers() -> list[dict[str, Any]]:
    """The published envelopes of telemetry receipts."""
    document = json.loads(shared_path(*PLACE, "signed_responses.json").read_text("utf-8"))
    return [vector["envelope"] for vector in document["vectors"]]


def verify(tmp_path: Path, envelope: Any, *more: str) -> Result:
    path = tmp_path / "answer.json"
    path.write_text(envelope if isinstance(envelope, str) else json.dumps(envelope))
    return run("verify", "--key", key(), *more, str(path))


def test_every_real_answer_verifies(tmp_path: Path) -> None:
    codes = set()
    for envelope in answers():
        shown = verify(tmp_path, envelope, "--json").json
        codes.add(shown["code"])
        assert shown["verified"] is True and shown["key"] == "demo_public_key"
        assert shown["fresh"] is None, "nothing says when it came"
        judged = verify(tmp_path, envelope, "--json", "--at", str(shown["timestamp"] + 5)).json
        assert (judged["fresh"], judged["age_s"]) == (True, 5)
    assert codes == {100, 101, 102, 103, 150, 830, 831}


def receipt() -> dict[str, Any]:
    return next(one for one in answers() if one["response"]["code"] == 830)


def test_a_changed_answer_is_refused_with_its_reason(tmp_path: Path) -> None:
    good = receipt()
    text = good["response_base64"]
    changed = {**good, "response_base64": ("B" if text[0] == "A" else "A") + text[1:]}
    for envelope, reason in (
        (changed, "SignatureInvalid"),
        ({**good, "signature": ""}, "SignatureInvalid"),
        ({"response": good["response"]}, "EnvelopeMalformed"),
        ("<html>", "EnvelopeMalformed"),
        ("", "EnvelopeMalformed"),
    ):
        done = verify(tmp_path, envelope)
        assert (done.status, done.err) == (1, "")
        assert done.out.startswith("not verified: %s: " % reason)
        assert verify(tmp_path, envelope, "--json").json["reason"] == reason


def test_freshness_is_judged_only_at_a_given_time(tmp_path: Path) -> None:
    good = receipt()
    shown = verify(tmp_path, good).out
    assert "not judged" in shown and "age" in shown
    for at in ("2040-01-01T00:00:00Z", "2040-01-01T00:00:00+02:00", "2040-01-01", "2208988800"):
        done = verify(tmp_path, good, "--at", at)
        assert done.status == 1 and done.out.startswith("not verified: AnswerStale: ")
    for at in ("soon", "nan", "inf", "2040-13-01", ""):
        assert verify(tmp_path, good, "--at", at).status == 2


def test_an_answer_on_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = json.dumps(receipt()).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert run("verify", "--key", key()).status == 0
    assert spawn("verify", "--key", key()).out.startswith("not verified: EnvelopeMalformed")


def test_the_keys_of_the_configuration(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "answer.json"
    path.write_text(json.dumps(receipt()))
    assert site.run("verify", str(path)).out.startswith("not verified: SignatureInvalid")
    licence, _ = site.document()["endpoints"]
    site.write(endpoints=[{**licence, "keys": [{"pem_file": key()}]}])
    assert site.run("verify", str(path)).status == 0
    site.write(endpoints=[])
    assert site.run("verify", str(path)).status == 2
