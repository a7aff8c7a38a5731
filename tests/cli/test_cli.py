"""The command line as such: help, exit statuses, streams, secrets, and how it was started."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.cli import API_KEY, COMMANDS, LICENSE_KEY, PEM, ROOT, Site, command, run

import agent
from agent.cli import settings
from agent.cli.config_file import from_mapping

POSIX = os.name == "posix"
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


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_every_command_has_help_with_examples(name: str) -> None:
    done = run(*name.split(), "--help")
    assert (done.status, done.err) == (0, "")
    examples = done.out.partition("examples:\n")[2].splitlines()
    assert examples and all(name in line for line in examples)
    assert "--json" in done.out and "--config" in done.out and "--inject" not in done.out
    assert max(map(len, done.out.replace("pytest", "agent").splitlines())) <= 80


@pytest.mark.parametrize("name", FORMS)
def test_without_a_configuration_a_command_says_how_to_make_one(name: str) -> None:
    done = run(*name.split(), *FORMS[name])
    assert (done.status, done.out) == (2, "")
    assert "--config FILE" in done.err and settings.EXAMPLE in done.err


def test_the_example_of_a_configuration_is_one(tmp_path: Path) -> None:
    (tmp_path / "global.pem").write_text(PEM)
    config = from_mapping(json.loads(settings.EXAMPLE), base_dir=str(tmp_path))
    assert [endpoint.name for endpoint in config.endpoints] == ["getkeymanager", "reo"]


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
    id = site.run("spool", "list", "--json").json[0]["id"]
    for name, more in {"spool show": (id,), **FORMS}.items():
        for form in ((), ("--json",)):
            done = site.run(*name.split(), *more, *form)
            assert name != "spool show" or (done.status == 0 and "****" in done.out)
            assert API_KEY not in done.out + done.err
            assert LICENSE_KEY not in done.out + done.err


def test_commands_that_look_leave_everything_as_it_is(site: Site) -> None:
    site.run("call-home", "--no-send")
    id = site.run("track", "EXPORT", "--no-send", "--json").json["event_id"]
    for consent in (True, None, False):  # False would purge if an agent acted on it
        site.write(usage_consent=consent)
        before = {path.name: path.read_bytes() for path in site.state.iterdir()}
        for look in ("history", "preview", "spool status", "spool list", "spool show", "doctor"):
            more = (id,) if look == "spool show" else ()
            assert site.run(*look.split(), *more).status == 0
        assert {path.name: path.read_bytes() for path in site.state.iterdir()} == before
        assert site.run("spool", "status", "--json").json["usage_consent"] is consent
    asked = [(record["answer"], len(record["fields"])) for record in site.server.records()]
    assert asked == [(100, 1), (401, 0)] * 3, "doctor asks with a made-up key and sends no record"


def test_a_product_brings_its_own_configuration(site: Site) -> None:
    only_cli = ("license_key", "activation_identifier")
    config = from_mapping({k: v for k, v in site.document().items() if k not in only_cli})
    done = run("call-home", config=config)
    assert done.status == 0 and site.answers("getkeymanager") == [831]
    assert agent.main(["spool", "status", "--json"], config=config) == 0
    for form in ((), ("call-home",), ("spool", "purge")):
        shown = run(*form, "--help", config=config).out
        examples = shown.partition("examples:\n")[2]
        assert examples.strip() and "--config" not in examples
        assert "in place of the product's own" in " ".join(shown.split())


# --- streams and signals --------------------------------------------------------------------------


@contextmanager
def started(*words: str, **environ: str) -> Iterator[Any]:
    """A command in a process of its own, with both streams in our hands."""
    with subprocess.Popen(
        command(*words),
        cwd=ROOT,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=(
            (lambda: signal.signal(signal.SIGINT, signal.default_int_handler)) if POSIX else None
        ),
    ) as child:
        yield child


def test_a_reader_who_has_enough_is_no_mistake(site: Site) -> None:
    with started("preview", "--samples", "--config", site.file) as child:
        child.stdout.close()
        assert (child.stderr.read(), child.wait(20)) == (b"", 1)


@pytest.mark.skipif(not POSIX, reason="Ctrl-C reaches a whole console there")
def test_ctrl_c_ends_a_command_at_once(site: Site) -> None:
    site.run("call-home", "--no-send")
    site.server.fault("blackhole")
    with started("spool", "replay", "--config", site.file) as child:
        while not site.server.requests():
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        assert child.stderr.read() == b"interrupted\n"
        assert (child.stdout.read(), child.wait(20)) == (b"", 130)
    site.server.fault(None)
    assert site.run("spool", "replay").status == 0
    (site.place / "tmp").mkdir()
    with started("demo", TMPDIR=str(site.place / "tmp")) as child:
        child.stdout.readline()
        child.send_signal(signal.SIGINT)
        assert (child.stderr.read(), child.wait(20)) == (b"interrupted\n", 130)
    assert os.listdir(site.place / "tmp") == []


def test_a_terminal_is_not_given_orders_by_a_record(site: Site) -> None:
    site.run("record", "--text", "\x1b[2J\r\nred", "--data-group", "g\u202e", "--no-send")
    id = site.run("spool", "list", "--json").json[0]["id"]
    for form in (("spool", "show", id), ("preview",)):
        assert not [char for char in site.run(*form).out if char in "\x1b\r\u202e"]
