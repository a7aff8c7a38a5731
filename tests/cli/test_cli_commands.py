"""What each command does: to the server, to the disk, and to its exit status."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cli import API_KEY, LICENSE_KEY, Site, collector, run, spawn

from agent import Config


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with collector() as server:
        yield Site(server, tmp_path)


def fields(site: Site, endpoint: str) -> list[dict[str, Any]]:
    return [r["fields"] for r in site.server.records() if r["endpoint"] == endpoint]


# --- recording ------------------------------------------------------------------------------------


def test_call_home_is_delivered_and_proven(site: Site) -> None:
    done = site.run("call-home")
    (event,) = fields(site, "reo-usage")
    assert done.out == "recorded %s; delivered 2, pending 0\n" % event["event_id"]
    assert (done.status, done.err) == (0, "")
    (call,) = fields(site, "getkeymanager")
    assert (call["license_key"], call["activation_identifier"]) == (LICENSE_KEY, "desk-1")
    assert site.answers("getkeymanager") == [830]


def test_a_licence_on_the_command_line_goes_before_the_files(site: Site) -> None:
    done = site.run("call-home", "--license-key", "other")
    (call,) = fields(site, "getkeymanager")
    assert (call["license_key"], call["activation_identifier"]) == ("other", "")
    assert done.status == 0 and "flagged 1" in done.out
    line = "getkeymanager: flagged %s: license_key: The selected license key is invalid."
    assert line % done.out.split()[1].rstrip(";") in done.err
    site.run("call-home", "--activation-identifier", "desk-2")
    call = fields(site, "getkeymanager")[-1]
    assert (call["license_key"], call["activation_identifier"]) == (LICENSE_KEY, "desk-2")


def test_a_server_that_is_down_leaves_it_pending(site: Site) -> None:
    site.server.fault("refuse")
    done = site.run("call-home")
    assert done.status == 1 and done.out.endswith("; delivered 0, pending 2\n")
    assert "getkeymanager: 1 record waiting: offline" in done.err
    report = site.run("call-home", "--json").json["report"]
    assert (report["delivered"], report["pending"], report["drained"]) == (0, 4, False)


def test_no_send_opens_no_socket(site: Site) -> None:
    for form in (("call-home",), ("track", "EXPORT"), ("count", "RENDER")):
        done = site.run(*form, "--no-send", "--json")
        assert done.status == 0 and done.json["report"] is None
    assert site.server.requests() == []
    assert len(site.run("spool", "list", "--json").json) == 4


def test_track_count_and_record(site: Site) -> None:
    meta = '{"format": "pdf"}'
    more = ("--user-id", "ann@acme.example", "--user-id-type", "EMAIL", "--ip-addr", "192.0.2.7")
    done = site.run("track", "EXPORT", "--meta", meta, *more)
    (event,) = fields(site, "reo-usage")
    assert done.out.split()[1].rstrip(";") == event["event_id"]
    assert (event["activity_type"], event["meta"]) == ("EXPORT", {"format": "pdf"})
    assert (event["user_id"], event["user_id_type"]) == (more[1], "EMAIL")
    assert event["ip_addr"] == "192.0.2.7"

    assert site.run("count", "RENDER", "--n", "12").out == "counted; delivered 1, pending 0\n"
    assert fields(site, "reo-aggregate")[0]["count"] == 12

    for form in (("--value", "-3.2"), ("--point", "-1", "2"), ("--text", "opengl")):
        assert site.run("record", *form, "--data-group", "g").status == 0
    value, point, text = fields(site, "getkeymanager")
    assert value["numeric_data_single_value"] == "-3.2" and value["data_group"] == "g"
    assert (point["numeric_data_x"], point["numeric_data_y"]) == ("-1", "2")
    assert text["text_data"] == "opengl"


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (("track", "EXPORT"), "no consent"),
        (("count", "RENDER"), "no consent"),
        (("record", "--value", "nan", "--data-group", "g"), "unusable content"),
    ],
)
def test_what_is_not_recorded_is_said(site: Site, form: tuple[str, ...], reason: str) -> None:
    site.write(usage_consent=None)
    done = site.run(*form)
    assert done.status == 1 and done.out.startswith("not recorded: " + reason)
    assert site.run(*form, "--json").json["not_recorded"] == {reason: 1}
    assert site.server.requests() == []


@pytest.mark.parametrize(
    "form",
    [
        ("track", "EXPORT", "--user-id-type", "email"),
        ("track", "EXPORT", "--meta", "{"),
        ("track", "EXPORT", "--meta", "[1]"),
        ("track", ""),
        ("count", "RENDER", "--n", "0"),
        ("record", "--value", "1", "--data-group", ""),
        ("call-home", "--timeout", "nan"),
    ],
)
def test_a_mistake_in_an_event_is_status_2(site: Site, form: tuple[str, ...]) -> None:
    done = site.run(*form)
    assert (done.status, done.out) == (2, "") and done.err.startswith("error: ")
    assert site.server.requests() == []


# --- looking --------------------------------------------------------------------------------------


def test_preview_shows_requests_and_sends_none(site: Site) -> None:
    assert "nothing waits" in site.run("preview").err
    site.run("call-home", "--no-send")
    out = site.run("preview").out
    assert "POST %s/api/v1/send-telemetry-data\n" % site.server.url in out
    assert "X-API-KEY: ****\n" in out
    samples = site.run("preview", "--samples", "--json").json
    assert [request["sample"] for request in samples].count(True) == 7
    assert site.server.requests() == []


def test_history_shows_what_was_answered(site: Site) -> None:
    assert "no answer was received" in site.run("history").err
    site.server.fault("wrong-key", "getkeymanager")
    site.run("call-home")
    found = {answer["endpoint"]: answer["verdict"] for answer in site.run("history", "--json").json}
    assert found == {"getkeymanager": "untrusted", "reo": "delivered"}
    lines = site.run("history").out.splitlines()
    assert len(lines) == 3 and lines[0].split()[:2] == ["when", "endpoint"]
    assert len(site.run("history", "--json", "--limit", "1").json) == 1


# --- id, erase, doctor ----------------------------------------------------------------------------


def test_id_is_what_the_product_sends(site: Site) -> None:
    value = site.run("id").out.strip()
    site.run("call-home")
    assert fields(site, "getkeymanager")[0]["user_identifier"] == value
    explained = site.run("id", "--explain", "--json").json
    assert explained["user_identifier"] == value and "quality" in explained
    assert "quality" in site.run("id", "--explain").out
    reset = site.run("id", "--reset", "--json").json
    assert reset["before"] == value


def test_id_for_a_name_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    value = run("id", "--vendor", "Acme", "--product", "Studio").out.strip()
    assert len(value) == 32
    config = Config(vendor="Acme", product_name="Studio", product_id="1", product_version="1")
    done = run("id", config=config)
    assert (done.status, done.out) == (1, "") and "no endpoint" in done.err


def test_erase_leaves_nothing_of_ours_and_everything_else(site: Site) -> None:
    site.run("call-home", "--no-send")
    (site.state / "notes.txt").write_text("mine")
    done = site.run("erase", "--json")
    assert done.status == 0
    assert done.json == {"directory": str(site.state), "remaining": [], "erased": True}
    assert os.listdir(site.state) == ["notes.txt"]


# --- spool ----------------------------------------------------------------------------------------


def test_spool_list_and_show(site: Site) -> None:
    assert "nothing waits" in site.run("spool", "list").err
    id = site.run("call-home", "--no-send", "--json").json["event_id"]
    other = site.run("record", "--text", "x", "--data-group", "g", "--no-send", "--json").json
    listed = site.run("spool", "list", "--json").json
    assert [entry["id"] for entry in listed] == [id, id, other["event_id"]] or len(listed) == 3
    assert {entry["state"] for entry in listed} == {"pending"}
    heads = site.run("spool", "list").out.splitlines()[0].split()
    assert heads == ["id", "endpoint", "kind", "age", "attempts", "state"]

    shown = site.run("spool", "show", id[:8], "--json").json
    assert {record["endpoint"] for record in shown} == {"getkeymanager", "reo"}
    licence = next(record for record in shown if record["endpoint"] == "getkeymanager")
    assert licence["body"]["license_key"] == "****" and licence["body"]["text_data"] == "CALL HOME"
    assert site.run("spool", "show", "ffffffff").status == 1
    assert site.run("spool", "show", id[:3]).status == 2


def test_spool_status_counts_what_waits_and_says_what_for(site: Site) -> None:
    site.server.fault("refuse")
    site.run("call-home")
    out = site.run("spool", "status").out
    assert "backoff" in out and "offline" in out
    status = site.run("spool", "status", "--json").json
    assert status["pending"] == 2 and status["state_dir"] == str(site.state)


def test_replay_does_not_wait_for_the_backoff(site: Site) -> None:
    site.server.fault("refuse")
    for _ in range(3):
        site.run("call-home")
    assert site.run("spool", "replay").status == 1
    site.server.fault(None)
    done = site.run("spool", "replay")
    assert done.status == 0 and done.out == "delivered 6, flagged 0, pending 0, dead 0\n"
    assert "6 of 6" in done.err
    assert site.run("spool", "replay", "--json").json["drained"] is True


def test_replay_asks_who_refused_us_only_when_told(site: Site) -> None:
    site.server.fault("401-100", "getkeymanager")
    site.run("call-home")
    site.server.fault(None)
    seen = len(site.server.requests())
    assert site.run("spool", "replay").status == 1
    assert len(site.server.requests()) == seen
    assert site.run("spool", "replay", "--held").status == 0
    assert site.answers("getkeymanager") == [830]


def test_replay_never_cuts_a_pause_that_the_server_asked_for(site: Site) -> None:
    site.server.fault("429-retry-after", "getkeymanager")
    site.run("call-home")
    site.server.fault(None)
    assert site.run("spool", "replay", "--held", "--dead").status == 1
    assert site.answers("getkeymanager") == []


def test_replay_brings_dead_letters_back(site: Site) -> None:
    id = site.dead_letter()
    (entry,) = site.run("spool", "list", "--json").json
    assert (entry["id"], entry["state"], entry["why"]) == (id, "dead", "Choosy.")
    assert "dead: Choosy." in site.run("spool", "list").out
    assert site.run("spool", "replay").status == 0 and site.answers("getkeymanager") == []
    assert site.run("spool", "replay", "--dead").status == 0
    assert site.answers("getkeymanager") == [831]
    assert site.run("spool", "list", "--json").json == []


def test_an_export_is_carried_to_another_machine(site: Site, tmp_path: Path) -> None:
    id = site.run("call-home", "--no-send", "--json").json["event_id"]
    file = str(tmp_path / "waiting.spool")
    assert site.run("spool", "export", file).out == "copied 2 records to %s\n" % file
    again = site.run("spool", "export", file)
    assert (again.status, again.out) == (2, "")
    assert again.err == "error: %s exists already; name a new file\n" % file
    moved = site.run("spool", "export", "--move", str(tmp_path / "m.spool"), "--json").json
    assert moved == {"records": 2, "file": str(tmp_path / "m.spool"), "moved": True}
    assert site.run("spool", "list", "--json").json == []

    site.write(state_dir=str(tmp_path / "elsewhere"))
    assert site.run("spool", "import", file).out == "imported 2 records\n"
    again = site.run("spool", "import", file)
    assert (again.status, again.out) == (0, "imported 0 records\n") and "before" in again.err
    assert site.run("spool", "replay").status == 0
    assert [event["event_id"] for event in fields(site, "reo-usage")] == [id]


def test_purge_must_be_meant(site: Site) -> None:
    site.dead_letter()
    site.run("call-home", "--no-send")
    site.run("count", "RENDER", "--no-send")
    done = site.run("spool", "purge")
    assert (done.status, done.out) == (2, "")
    assert "3 waiting records and 1 dead letter" in done.err
    assert len(site.run("spool", "list", "--json").json) == 4
    done = site.run("spool", "purge", "--yes")
    assert (done.status, done.out) == (0, "removed 3 records and 1 dead letter\n")
    assert site.run("spool", "list", "--json").json == []
    assert not [name for name in os.listdir(site.state) if name.endswith(".seg")]


# --- one whole life, as typed ---------------------------------------------------------------------


def test_as_a_user_types_it(site: Site) -> None:
    config = ("--config", site.file)
    site.server.fault("refuse")
    assert spawn("call-home", *config).status == 1
    site.server.fault(None)
    done = spawn("spool", "replay", "--json", *config)
    assert done.status == 0 and json.loads(done.out)["delivered"] == 2
    assert API_KEY not in done.out + done.err
