"""What each command does: to the server, to the disk, and to its exit status; and what it says where less happened."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.cli import LICENSE_KEY, Site, command, run

from agent import Agent
from agent.cli.config_file import load

RECORDING = {
    "call-home": (),
    "track": ("EXPORT",),
    "count": ("RENDER",),
    "record": ("--value", "1", "--data-group", "g"),
}


def ids(site: Site) -> list[str]:
    """The records that wait, and the dead ones, as listed."""
    return [entry["id"] for entry in site.run("spool", "list", "--json").json]


# --- recording ------------------------------------------------------------------------------------


def test_call_home_is_delivered_and_proven(site: Site) -> None:
    done = site.run("call-home")
    (event,) = site.fields("reo-usage")
    assert done.out == "recorded %s; delivered 2, pending 0\n" % event["event_id"]
    assert (done.status, done.err) == (0, "")
    (call,) = site.fields("getkeymanager")
    assert (call["license_key"], call["activation_identifier"]) == (LICENSE_KEY, "desk-1")
    assert site.answers("getkeymanager") == [830]


def test_a_licence_on_the_command_line_goes_before_the_files(site: Site) -> None:
    done = site.run("call-home", "--license-key", "other")
    assert done.status == 0 and "flagged 1" in done.out
    line = "getkeymanager: flagged %s: license_key: The selected license key is invalid."
    assert line % done.out.split()[1].rstrip(";") in done.err
    site.run("call-home", "--activation-identifier", "desk-2")
    found = [(f["license_key"], f["activation_identifier"]) for f in site.fields("getkeymanager")]
    assert found == [("other", ""), (LICENSE_KEY, "desk-2")]


def test_no_send_opens_no_socket(site: Site) -> None:
    for name in ("call-home", "track", "count"):
        done = site.run(name, *RECORDING[name], "--no-send", "--json")
        assert done.status == 0 and done.json["report"] is None
    assert site.server.requests() == [] and len(ids(site)) == 4


def test_track_count_and_record(site: Site) -> None:
    more = ("--user-id", "ann@acme.example", "--user-id-type", "EMAIL", "--ip-addr", "192.0.2.7")
    site.run("track", "EXPORT", "--meta", '{"format": "pdf"}', *more)
    (event,) = site.fields("reo-usage")
    assert (event["activity_type"], event["meta"]) == ("EXPORT", {"format": "pdf"})
    assert [event[name] for name in ("user_id", "user_id_type", "ip_addr")] == [*more[1::2]]

    assert site.run("count", "RENDER", "--n", "12").out == "counted; delivered 1, pending 0\n"
    assert site.fields("reo-aggregate")[0]["count"] == 12

    for form in (("--value", "-3.2"), ("--point", "-1", "2"), ("--text", "opengl")):
        assert site.run("record", *form, "--data-group", "g").status == 0
    value, point, text = site.fields("getkeymanager")
    assert value["numeric_data_single_value"] == "-3.2" and value["data_group"] == "g"
    assert (point["numeric_data_x"], point["numeric_data_y"]) == ("-1", "2")
    assert text["text_data"] == "opengl"


# --- where less happened than was asked for -------------------------------------------------------


def test_a_server_that_is_down_leaves_it_pending(site: Site) -> None:
    site.server.fault("refuse")
    done = site.run("call-home")
    assert done.status == 1 and done.out.endswith("; delivered 0, pending 2\n")
    assert "getkeymanager: 1 record waiting: offline" in done.err
    report = site.run("call-home", "--json").json["report"]
    assert (report["delivered"], report["pending"], report["drained"]) == (0, 4, False)
    out = site.run("spool", "status").out
    assert "backoff" in out and "offline" in out
    status = site.run("spool", "status", "--json").json
    assert status["pending"] == 4 and status["state_dir"] == str(site.state)


def test_what_cannot_be_sent_or_has_no_origin_is_said(site: Site) -> None:
    nan = ("record", "--value", "nan", "--data-group", "g")
    done = site.run(*nan)
    assert done.status == 1 and done.out.startswith("not recorded: unusable content")
    assert site.run(*nan, "--json").json["not_recorded"] == {"unusable content": 1}
    assert site.server.requests() == []
    _, usage = site.document()["endpoints"]
    site.write(endpoints=[{**usage, "domain": None}])
    done = site.run("count", "RENDER")
    assert done.status == 1 and "domain or ip_addr" in done.err


@pytest.mark.parametrize(
    ("consent", "environ", "cause"),
    [
        (None, "", "usage_consent is null: not asked yet"),
        (False, "", "usage_consent is false"),
        (True, "1", "DO_NOT_TRACK is set"),
        (False, "1", "DO_NOT_TRACK is set, usage_consent is false"),
    ],
)
def test_missing_consent_stops_usage_and_is_no_failure_of_a_call_home(
    site: Site, monkeypatch: pytest.MonkeyPatch, consent: Any, environ: str, cause: str
) -> None:
    site.write(usage_consent=consent)
    monkeypatch.setenv("DO_NOT_TRACK", environ)
    note = "note: usage endpoints were left out: %s\n" % cause
    done = site.run("call-home")
    assert (done.status, done.err) == (0, note)
    assert done.out.startswith("recorded ") and done.out.endswith("; delivered 1, pending 0\n")
    done = site.run("call-home", "--no-send")
    assert (done.status, done.err) == (0, note) and "but" not in done.out
    for name in ("track", "count"):
        done = site.run(name, *RECORDING[name], "--no-send")
        assert (done.status, done.out) == (1, "not recorded: no consent (%s)\n" % cause)
    assert site.answers("getkeymanager") == [830] and site.answers("reo-usage") == []


@pytest.mark.parametrize("name", RECORDING)
def test_without_an_endpoint_nothing_is_recorded_and_that_is_said(site: Site, name: str) -> None:
    own = load(site.write(endpoints=[], license_key="", activation_identifier=""))
    for done in (site.run(name, *RECORDING[name]), run(name, *RECORDING[name], config=own)):
        said = "not recorded: disabled: no endpoint is configured\n"
        assert done == (1, said, "") and not site.state.exists()


def test_what_was_only_in_memory_is_well_if_it_was_delivered(site: Site) -> None:
    place = site.place / "file"
    place.write_text("")
    site.write(state_dir=str(place), endpoints=site.document()["endpoints"][:1])
    why = "recorded in memory only (%s is not a directory)" % place
    assert site.run("call-home") == (0, why + "; delivered 1, pending 0\n", "")
    assert site.run("call-home", "--json").json["in_memory"] is True
    site.server.fault("refuse")
    for more, said in ((("--no-send",), why), ((), why + "; delivered 0, pending 1")):
        done = site.run("call-home", *more)
        assert (done.status, done.out) == (1, said + "\n") and "is lost now" in done.err


# --- looking --------------------------------------------------------------------------------------


def test_history_shows_what_was_answered(site: Site) -> None:
    assert "no answer was received" in site.run("history").err
    site.server.fault("wrong-key", "getkeymanager")
    site.run("call-home")
    found = {answer["endpoint"]: answer["verdict"] for answer in site.run("history", "--json").json}
    assert found == {"getkeymanager": "untrusted", "reo": "delivered"}
    assert len(site.run("history").out.splitlines()) == 3
    assert len(site.run("history", "--json", "--limit", "1").json) == 1


def test_id_is_what_the_product_sends(site: Site) -> None:
    value = site.run("id").out.strip()
    assert not site.state.exists() and site.run("call-home").status == 0
    assert site.fields("getkeymanager")[0]["user_identifier"] == value
    explained = site.run("id", "--explain", "--json").json
    assert explained["user_identifier"] == value and "quality" in explained
    assert site.run("id", "--reset", "--json").json["before"] == value
    assert len(run("id", "--vendor", "Acme", "--product", "Studio").out.strip()) == 32


# --- spool ----------------------------------------------------------------------------------------


def test_spool_list_and_show(site: Site) -> None:
    assert "nothing waits" in site.run("spool", "list").err
    id = site.run("call-home", "--no-send", "--json").json["event_id"]
    listed = site.run("spool", "list", "--json").json
    assert [(entry["id"], entry["state"]) for entry in listed] == [(id, "pending")] * 2
    heads = site.run("spool", "list").out.splitlines()[0].split()
    assert heads == ["id", "endpoint", "kind", "age", "attempts", "state"]
    shown = site.run("spool", "show", id[:8], "--json").json
    licence, _ = sorted(shown, key=lambda record: str(record["endpoint"]))
    assert licence["body"]["license_key"] == "****" and licence["body"]["text_data"] == "CALL HOME"
    assert site.run("spool", "show", "ffffffff").status == 1
    assert site.run("spool", "show", id[:3]).status == 2


def test_replay_does_not_wait_for_the_backoff(site: Site) -> None:
    site.server.fault("refuse")
    site.run("call-home")
    assert site.run("spool", "replay").status == 1
    site.server.fault(None)
    done = site.run("spool", "replay")
    assert done.status == 0 and done.out == "delivered 2, flagged 0, pending 0, dead 0\n"
    assert "2 of 2" in done.err
    assert site.run("spool", "replay", "--json").json["drained"] is True


@pytest.mark.parametrize(
    ("fault", "more", "cut"),
    [
        ("401-100", (), False),
        ("401-100", ("--held",), True),
        ("429-retry-after", ("--held", "--dead"), False),
    ],
)
def test_replay_cuts_a_refusal_when_told_and_never_a_pause_that_the_server_asked_for(
    site: Site, fault: str, more: tuple[str, ...], cut: bool
) -> None:
    site.server.fault(fault, "getkeymanager")
    site.run("call-home")
    site.server.fault(None)
    seen = len(site.server.requests())
    assert site.run("spool", "replay", *more).status == int(not cut)
    assert len(site.server.requests()) == seen + cut


def test_replay_brings_dead_letters_back(site: Site) -> None:
    id = site.dead_letter()
    (entry,) = site.run("spool", "list", "--json").json
    assert (entry["id"], entry["state"], entry["why"]) == (id, "dead", "Choosy.")
    assert "dead: Choosy." in site.run("spool", "list").out
    assert site.run("spool", "replay").status == 0 and site.answers("getkeymanager") == []
    assert site.run("spool", "replay", "--dead").status == 0
    assert site.answers("getkeymanager") == [831] and ids(site) == []


def test_an_export_is_carried_to_another_machine(site: Site, tmp_path: Path) -> None:
    id = site.run("call-home", "--no-send", "--json").json["event_id"]
    file, other = str(tmp_path / "waiting.spool"), str(tmp_path / "m.spool")
    assert site.run("spool", "export", file).out == "copied 2 records to %s\n" % file
    moved = site.run("spool", "export", "--move", other, "--json").json
    assert moved == {"records": 2, "file": other, "moved": True} and ids(site) == []

    site.write(state_dir=str(tmp_path / "elsewhere"))
    assert site.run("spool", "import", file).out == "imported 2 records\n"
    again = site.run("spool", "import", file)
    assert (again.status, again.out) == (0, "imported 0 records\n") and "before" in again.err
    assert site.run("spool", "replay").status == 0
    assert [event["event_id"] for event in site.fields("reo-usage")] == [id]


def test_purge_must_be_meant_and_leaves_the_open_counters_of_a_running_product(site: Site) -> None:
    site.dead_letter()
    site.run("call-home", "--no-send")
    with Agent(load(site.write()).replace(deliver="manual")) as product:
        product.count("RENDER", n=2)
        done = site.run("spool", "purge")
        assert (done.status, done.out) == (2, "")
        assert "3 waiting records and 1 dead letter" in done.err  # one of them is open, and left
        done = site.run("spool", "purge", "--yes", "--json")
        assert done.json == {"removed": 2, "dead_removed": 1, "left": 1, "unknown_left": 0}
        product.count("RENDER", n=3)
        assert product.flush().drained
    assert [total["count"] for total in site.fields("reo-aggregate")] == [5]
    assert ids(site) == [] and site.fields("reo-usage") == []


def test_records_of_unknown_endpoints_are_left_alone_shown_and_removed_only_by_name(
    site: Site,
) -> None:
    site.run("call-home", "--no-send")
    site.run("track", "EXPORT", "--no-send")
    licence, usage = site.document()["endpoints"]
    site.write(endpoints=[{**licence, "name": "keys"}, {**usage, "name": "usage"}])
    what = "3 records of unknown endpoints (getkeymanager: 1, reo: 2)"
    done = site.run("doctor", "--no-network")
    assert done.status == 0 and what in done.out
    assert "old name again, or remove the records: spool purge --yes --unknown" in done.out
    assert "getkeymanager: 1, reo: 2" in site.run("spool", "status").out
    done = site.run("spool", "replay")
    assert done.status == 0 and "left alone: " + what in done.err
    left = site.run("spool", "replay", "--json").json["unknown_endpoints"]
    assert left == {"getkeymanager": 1, "reo": 2}

    site.run("record", *RECORDING["record"], "--no-send")
    done = site.run("spool", "purge")
    assert done.status == 2 and "remove 1 waiting record and 0" in done.err
    assert "would leave 3 records of endpoints" in done.err
    done = site.run("spool", "purge", "--yes")
    assert (done.status, done.out) == (0, "removed 1 record and 0 dead letters\n")
    assert "left: 3 records" in done.err and "--unknown" in done.err and len(ids(site)) == 3
    assert "remove 3 waiting" in site.run("spool", "purge", "--unknown").err
    done = site.run("spool", "purge", "--yes", "--unknown")
    assert done.out == "removed 3 records and 0 dead letters\n" and ids(site) == []


# --- erase ----------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="pseudo-terminals as Linux has them")
def test_erase_asks_on_a_terminal_and_says_that_the_product_still_runs(site: Site) -> None:
    import pty

    def erase(said: bytes, *more: str) -> tuple[int, bool]:
        ours, theirs = pty.openpty()
        with open(ours, "wb", 0) as keyboard, open(theirs, "wb", 0) as terminal:
            keyboard.write(said + b"\n")
            words = command("erase", *more, "--config", site.file)
            streams: Any = {"stdin": terminal, "stderr": terminal, "stdout": subprocess.DEVNULL}
            return subprocess.call(words, **streams), site.state.exists()

    with Agent(load(site.file).replace(deliver="manual")) as product:
        assert product.call_home() and erase(b"n") == erase(b"") == (1, True)
        assert erase(b"y") == (0, False) and product.call_home()
        assert erase(b"", "--yes") == (0, False) and product.call_home()
        assert "still running" in site.run("erase").err and product.call_home()
    assert "still running" not in site.run("erase").err
