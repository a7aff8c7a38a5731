"""What a recording command says and gives back where less happened than was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cli import Site, collector, run

from agent import Agent
from agent.cli.config_file import load

RECORDING = {
    "call-home": (),
    "track": ("EXPORT",),
    "count": ("RENDER",),
    "record": ("--value", "1", "--data-group", "g"),
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with collector() as server:
        yield Site(server, tmp_path)


def fields(site: Site, endpoint: str) -> list[dict[str, Any]]:
    return [r["fields"] for r in site.server.records() if r["endpoint"] == endpoint]


# --- consent --------------------------------------------------------------------------------------


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


# --- nobody to report to --------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDING)
def test_without_an_endpoint_nothing_is_recorded_and_that_is_said(site: Site, name: str) -> None:
    site.write(endpoints=[])
    own = load(site.write(endpoints=[], license_key="", activation_identifier=""))
    for done in (site.run(name, *RECORDING[name]), run(name, *RECORDING[name], config=own)):
        assert (done.status, done.err) == (1, "")
        assert done.out == "not recorded: disabled: no endpoint is configured\n"
    assert not site.state.exists()


# --- a disk that takes nothing --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["call-home", "record"])
def test_what_was_only_in_memory_is_well_if_it_was_delivered(site: Site, name: str) -> None:
    place = site.place / "file"
    place.write_text("")
    site.write(state_dir=str(place), endpoints=site.document()["endpoints"][:1])
    done = site.run(name, *RECORDING[name])
    why = "recorded in memory only (%s is not a directory)" % place
    assert done.out == "%s; delivered 1, pending 0\n" % why
    assert (done.status, done.err) == (0, "")
    assert site.run(name, *RECORDING[name], "--json").json["in_memory"] is True
    done = site.run(name, *RECORDING[name], "--no-send")
    assert (done.status, done.out) == (1, why + "\n") and "is lost now" in done.err
    site.server.fault("refuse")
    done = site.run(name, *RECORDING[name])
    assert (done.status, done.out) == (1, "%s; delivered 0, pending 1\n" % why)
    assert "is lost now" in done.err


# --- endpoints that refuse, or are unknown --------------------------------------------------------


def renamed(site: Site) -> None:
    """Three records of endpoints that go by another name now, and one of a known name."""
    site.run("call-home", "--no-send")
    site.run("track", "EXPORT", "--no-send")
    licence, usage = site.document()["endpoints"]
    site.write(endpoints=[{**licence, "name": "keys"}, {**usage, "name": "usage"}])
    site.run("record", *RECORDING["record"], "--no-send")


def test_records_of_unknown_endpoints_are_left_alone_and_shown(site: Site) -> None:
    renamed(site)
    what = "3 records of unknown endpoints (getkeymanager: 1, reo: 2)"
    done = site.run("doctor", "--no-network")
    assert done.status == 0 and what in done.out
    assert "old name again, or remove the records: spool purge --yes --unknown" in done.out
    assert "getkeymanager: 1, reo: 2" in site.run("spool", "status").out
    done = site.run("spool", "replay")
    assert done.status == 0 and "left alone: " + what in done.err
    left = site.run("spool", "replay", "--json").json["unknown_endpoints"]
    assert left == {"getkeymanager": 1, "reo": 2}


def test_a_purge_leaves_the_records_of_unknown_endpoints(site: Site) -> None:
    renamed(site)
    done = site.run("spool", "purge")
    assert done.status == 2 and "remove 1 waiting record and 0" in done.err
    assert "would leave 3 records of endpoints" in done.err
    done = site.run("spool", "purge", "--yes")
    assert (done.status, done.out) == (0, "removed 1 record and 0 dead letters\n")
    assert "left: 3 records" in done.err and "--unknown" in done.err
    assert len(site.run("spool", "list", "--json").json) == 3
    assert "remove 3 waiting" in site.run("spool", "purge", "--unknown").err
    done = site.run("spool", "purge", "--yes", "--unknown")
    assert done.out == "removed 3 records and 0 dead letters\n"
    assert site.run("spool", "list", "--json").json == []
    assert "--unknown" in run("spool", "purge", "--help").out


def test_a_sum_without_an_origin_waits_and_says_why(site: Site) -> None:
    _, usage = site.document()["endpoints"]
    site.write(endpoints=[{**usage, "domain": None}])
    done = site.run("count", "RENDER")
    assert done.status == 1 and "domain or ip_addr" in done.err


def test_purge_leaves_the_open_counters_of_a_running_product(site: Site) -> None:
    with Agent(load(site.file).replace(deliver="manual")) as product:
        product.count("RENDER", n=2)
        product.track("EXPORT")
        done = site.run("spool", "purge", "--yes", "--json")
        assert done.json == {"removed": 1, "dead_removed": 0, "left": 1, "unknown_left": 0}
        product.count("RENDER", n=3)
        assert product.flush().drained
    assert [total["count"] for total in fields(site, "reo-aggregate")] == [5]
    assert fields(site, "reo-usage") == []
