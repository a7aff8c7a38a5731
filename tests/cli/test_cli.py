"""The command line as such: help, mistakes, exit statuses, streams, and how it was started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli import (
    API_KEY,
    COMMANDS,
    LICENSE_KEY,
    PEM,
    ROOT,
    Site,
    collector,
    command,
    run,
)

import agent
from agent.cli import settings
from agent.cli.config_file import from_mapping

FORMS = {
    "id": (),
    "call-home": ("--no-send",),
    "track": ("EXPORT", "--no-send"),
    "count": ("RENDER", "--no-send"),
    "record": ("--value", "1", "--data-group", "g", "--no-send"),
    "preview": ("--samples",),
    "history": (),
    "spool status": (),
    "spool list": (),
    "doctor": (),
    "spool replay": (),
    "spool purge": ("--yes",),
    "erase": (),
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with collector() as server:
        yield Site(server, tmp_path)


# --- help and mistakes ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_every_command_has_help_with_examples(name: str) -> None:
    done = run(*name.split(), "--help")
    assert (done.status, done.err) == (0, "")
    examples = done.out.partition("examples:\n")[2].splitlines()
    assert examples and all(name in line for line in examples)
    assert "--json" in done.out
    assert "--config" in done.out
    assert "--inject" not in done.out


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("call-hom", "call-home"),
        ("spool statu", "status"),
        ("call-home --no-snd", "--no-send"),
        ("spool replay --deaf", "--dead"),
        ("demo --jsn", "--json"),
        ("--confg x history", "--config"),
    ],
)
def test_a_typing_mistake_is_answered_with_what_was_meant(typed: str, meant: str) -> None:
    done = run(*typed.split())
    assert (done.status, done.out) == (2, "")
    first = done.err.splitlines()[0]
    assert first.startswith("error: unknown ") and "did you mean %s?" % meant in first


@pytest.mark.parametrize(
    "typed",
    [
        *("", "spool", "nonsense", "call-home extra", "count", "count RENDER --n many"),
        *("record --value 1", "record --value x --data-group g", "record --data-group g"),
        *("verify", "spool show abcd extra", "collector --port x", "collector --port 70000"),
        *("collector --fault nope", "collector --algorithm dsa", "collector --product 42"),
        *("demo --inject 0", "demo --inject 11", "id --vendor Acme", "verify --key nowhere.pem"),
        "call-home --config nowhere.json",
    ],
)
def test_wrong_usage_is_one_clear_line_and_status_2(typed: str) -> None:
    done = run(*typed.split())
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("error: ") and "Traceback" not in done.err
    assert len(done.err.splitlines()) <= 2


@pytest.mark.parametrize("name", FORMS)
def test_without_a_configuration_a_command_says_how_to_make_one(name: str) -> None:
    done = run(*name.split(), *FORMS[name])
    assert (done.status, done.out) == (2, "")
    assert "--config FILE" in done.err and settings.EXAMPLE in done.err


def test_the_example_of_a_configuration_is_one(tmp_path: Path) -> None:
    (tmp_path / "global.pem").write_text(PEM)
    config = from_mapping(json.loads(settings.EXAMPLE), base_dir=str(tmp_path))
    assert [endpoint.name for endpoint in config.endpoints] == ["getkeymanager", "reo"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"vendr": "Acme"}, "vendr"),
        ({"max_bytes": "many"}, "max_bytes"),
        ({"license_key": 5}, "license_key"),
        ({"endpoints": [{"kind": "reo", "api_key": API_KEY, "domian": "x"}]}, "endpoints[0]"),
        ({"endpoints": [{"kind": "reo", "api_key": " " + API_KEY}]}, "endpoints[0]"),
    ],
)
def test_a_mistake_in_the_file_names_file_and_field(
    site: Site, changes: dict[str, object], field: str
) -> None:
    site.write(**changes)
    done = site.run("call-home")
    assert (done.status, done.out) == (2, "")
    assert site.file in done.err and field in done.err and len(done.err.splitlines()) == 1
    assert API_KEY not in done.err


# --- what every command keeps ---------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMS)
def test_json_is_all_there_is_on_stdout(site: Site, name: str) -> None:
    site.run("call-home", "--no-send")
    done = site.run(*name.split(), *FORMS[name], "--json")
    assert done.status == 0, done
    assert isinstance(done.json, (dict, list))
    before = run("--json", "--config", site.file, *name.split(), *FORMS[name])
    assert type(before.json) is type(done.json), "both options may come first"


def test_no_command_prints_a_secret(site: Site) -> None:
    site.server.fault("unsigned")  # the server repeats nothing, the record stays
    site.run("call-home")
    shown = []
    for name, more in FORMS.items():
        for form in ((), ("--json",)):
            shown.append(site.run(*name.split(), *more, *form))
            if name == "spool list" and not form:
                id = shown[-1].out.split()[6]
                shown += [site.run("spool", "show", id, *form) for form in ((), ("--json",))]
                assert shown[-1].status == 0 and "****" in shown[-1].out
    for done in shown:
        assert API_KEY not in done.out + done.err
        assert LICENSE_KEY not in done.out + done.err


def test_commands_that_look_leave_everything_as_it_is(site: Site) -> None:
    site.run("call-home", "--no-send")
    site.run("track", "EXPORT", "--no-send")
    for consent in (True, None, False):  # False would purge if an agent acted on it
        site.write(usage_consent=consent)
        before = {path.name: path.read_bytes() for path in site.state.iterdir()}
        for name in ("history", "preview", "spool status", "spool list", "spool show", "doctor"):
            more = (site.run("spool", "list").out.split()[6],) if name == "spool show" else ()
            assert site.run(*name.split(), *more).status == 0
        assert {path.name: path.read_bytes() for path in site.state.iterdir()} == before
        assert site.run("spool", "status", "--json").json["usage_consent"] is consent
    asked = [(record["answer"], len(record["fields"])) for record in site.server.records()]
    assert asked == [(100, 1), (401, 0)] * 3, "doctor asks with a made-up key and sends no record"


def test_a_product_brings_its_own_configuration(site: Site) -> None:
    document = site.document()
    for field in ("license_key", "activation_identifier"):
        del document[field]
    config = from_mapping(document)
    done = run("call-home", config=config)
    assert done.status == 0 and site.answers("getkeymanager") == [831]
    assert agent.main(["spool", "status", "--json"], config=config) == 0


# --- streams and signals --------------------------------------------------------------------------


def test_a_reader_who_has_enough_is_no_mistake(site: Site) -> None:
    with subprocess.Popen(
        command("preview", "--samples", "--config", site.file),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait(20) == 1


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C reaches a whole console there")
def test_an_interrupted_command_ends_at_once_with_130(site: Site) -> None:
    site.run("call-home", "--no-send")
    site.server.fault("blackhole")
    with subprocess.Popen(
        command("spool", "replay", "--config", site.file),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        while not site.server.requests():
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        assert child.stderr.read() == b"interrupted\n"
        assert (child.stdout.read(), child.wait(20)) == (b"", 130)
    site.server.fault(None)
    assert site.run("spool", "replay").status == 0


def test_a_terminal_is_not_given_orders_by_a_record(site: Site) -> None:
    site.run("record", "--text", "\x1b[2J\r\nred", "--data-group", "g\u202e", "--no-send")
    id = site.run("spool", "list", "--json").json[0]["id"]
    for form in (("spool", "show", id), ("preview",)):
        assert not [char for char in site.run(*form).out if char in "\x1b\r\u202e"]


# --- how it was started ---------------------------------------------------------------------------
