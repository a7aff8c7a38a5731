"""Mistakes of whoever types or calls: each is one line that names what is wrong in the words of its place."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.cli import PEM, Site, run

import agent

VERSION = agent.__version__


def error(*argv: str) -> str:
    """The first line of a usage error."""
    done = run(*argv)
    assert (done.status, done.out) == (2, ""), done
    first, *rest = done.err.splitlines()
    assert first.startswith("error: ") and ": :" not in first and len(rest) <= 1
    return first[len("error: ") :]


# --- options --------------------------------------------------------------------------------------


# What is typed, and how its one line ends.
WRONG = {
    "call-hom": "unknown command 'call-hom'; did you mean call-home?",
    "spool statu": "unknown command 'statu'; did you mean status?",
    "call-home --no-snd": "unknown option --no-snd; did you mean --no-send?",
    "spool replay --deaf": "unknown option --deaf; did you mean --dead?",
    "demo --jsn": "unknown option --jsn; did you mean --json?",
    "--confg x history": "unknown option --confg; did you mean --config?",
    "record": "missing: --value NUMBER, --point X Y or --text TEXT; and --data-group NAME",
    "record --value 1": "missing: --data-group NAME",
    "record --point 1 y --data-group g": "argument --point: not a number: 'y'",
    "count RENDER --n many": "argument --n: not a whole number: 'many'",
    "track EXPORT --user-id-type EMAIL": "what --user-id is: give both, or neither",
}
OTHERS = "|spool|nonsense|call-home extra|count|verify|spool show abcd extra|collector --port 70000"
OTHERS += "|collector --fault nope|collector --algorithm dsa|collector --product 42|demo --inject 0"
OTHERS += "|demo --inject 11|id --vendor Acme|verify --key nowhere.pem|call-home --config nowhere"


@pytest.mark.parametrize("typed", [*WRONG, *OTHERS.split("|")])
def test_wrong_usage_is_one_clear_line_and_status_2(typed: str) -> None:
    assert error(*typed.split()).endswith(WRONG.get(typed, ""))


@pytest.mark.parametrize("name", ["help", "demo --inject 99", "keys inspect nowhere"])
def test_a_configuration_where_it_has_no_meaning_is_accepted_and_not_read(name: str) -> None:
    for typed in ([*name.split(), "--config", "nope"], ["--config", "nope", *name.split()]):
        done = run(*typed)
        assert done.err.startswith("--config is not read") and "nope" not in done.err
        assert done.status == (0 if name == "help" else 2)  # whatever it is without


def test_a_product_s_own_switch_stands_in_what_is_to_be_typed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["product.py", "--telemetry", "spool", "statuss"])
    assert "--telemetry spool --help shows" in run("spool", "statuss").err
    monkeypatch.setattr(sys, "argv", ["product.py", "--telemetry", "spool", "status", "--help"])
    assert " --telemetry spool status --config" in run("spool", "status", "--help").out


# --- events and files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("track EXPORT --user-id u --user-id-type email", "user_id_type"),
        ("track EXPORT --meta [1]", "meta: got list"),
        ("count RENDER --n 0", "--n"),
        ("call-home --timeout nan", "timeout"),
        ("spool import PLACE/nowhere", "nowhere cannot be read: "),
        ("spool import PLACE/agent.json", "is not an exported spool"),
        ("spool export PLACE/agent.json", "agent.json exists already; name a new file"),
        ("spool export PLACE/no/file", "file cannot be made: "),
        ("verify PLACE/nowhere", "nowhere cannot be read: "),
        ("verify --key PLACE/agent.json x", "--key PLACE/agent.json: holds more than one PEM"),
        ("verify --key PLACE/cut.pem x", "--key PLACE/cut.pem: holds no usable public key: "),
    ],
)
def test_a_wrong_event_or_file_is_wrong_usage(site: Site, typed: str, words: str) -> None:
    (site.place / "cut.pem").write_text(PEM[:90])
    found = error(*typed.replace("PLACE", str(site.place)).split(), "--config", site.file)
    found = found.replace(str(site.place), "PLACE")
    assert words in found and not found.startswith("path") and found.count("PLACE") <= 1
    assert site.server.requests() == []


# --- the configuration file -----------------------------------------------------------------------


def mistake(site: Site, document: dict[str, Any]) -> str:
    """What is wrong with a configuration, without the file's name."""
    Path(site.file).write_text(json.dumps(document))
    found = error("history", "--config", site.file)
    assert found.startswith(site.file + ": ")
    return found[len(site.file) + 2 :]


def test_a_mistake_in_the_file_is_told_in_the_words_of_the_file(site: Site) -> None:
    licence, usage = site.document()["endpoints"]

    def told(*endpoints: Any, **changes: Any) -> str:
        return mistake(site, site.document(endpoints=endpoints or [licence, usage], **changes))

    assert told(vendr="Acme") == "unknown name 'vendr'; did you mean 'vendor'?"
    assert told({**usage, "domian": 1}).startswith("endpoints[0]: unknown name 'domian'; did")
    allowed = 'a domain name, "dns_domain" (this machine\'s own) or null'
    assert told({**usage, "domain": 5}).endswith("domain: got 5, allowed is " + allowed)
    assert told(licence, {"kind": "reo"}) == "endpoints[1]: api_key is missing"
    for kind in ("reo", {"kind": ["reo"]}):
        assert told(kind).startswith("endpoints[0].kind: ")
    assert told({**licence, "base_url": "http://x.example"}).startswith("endpoints[0].base_url: ")
    for keys, where in (
        (PEM, ""),
        ([{"pem": PEM, "pem_file": "x"}], "[0]"),
        ([{"pem_file": "no"}], "[0].pem_file"),
        ([{"pme": PEM}], "[0]"),
    ):
        found = told({**licence, "keys": keys})
        assert found.startswith("endpoints[0].keys%s: " % where) and licence["api_key"] not in found
    assert told(vendor=5).startswith("vendor: ")
    assert told(state_dir=5) == "state_dir: got 5, allowed is a non-empty text"
    found = told({**licence, "keys": []})
    assert found.startswith("endpoints[0].keys: none given")
    assert 'add "keys": [{"name": "global", "pem_file": "global.pem"}]' in found
    assert '"allow_unsigned": true' in found and "PublicKey" not in found
    found = told({**licence, "keys": [{"name": "k", "pem": "x"}]})
    assert found.startswith("endpoints[0].keys[0]: holds no PEM public key")
    consent = 'true, false or null (not asked yet; in TOML "not-asked")'
    assert told(usage_consent="yes") == "usage_consent: got str, allowed is " + consent
    document = site.document()
    del document["usage_consent"]
    found = mistake(site, document)
    assert found == 'usage_consent is missing: for a usage endpoint add "usage_consent": ' + consent
    del document["vendor"]
    assert mistake(site, document) == "vendor is missing"


# --- calling it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "came"), [([1], "list with int"), ("id", "str"), (5, "int"), (b"id", "bytes")]
)
def test_arguments_of_a_wrong_type_are_named(argv: Any, came: str) -> None:
    with pytest.raises(TypeError, match="argv: got %s, allowed" % came):
        agent.main(argv)


def test_the_version_is_told() -> None:
    assert run("--version") == (0, "agent %s\n" % VERSION, "")
    assert run("--version", "--json").json == {"name": "agent", "version": VERSION}
