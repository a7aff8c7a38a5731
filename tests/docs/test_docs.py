"""The documents against the code: what they list is sent and stored, what they show runs, what they name is there.

A document is read as people read it: headings, tables whose first column is in backquotes, fenced blocks.
"""

import contextlib
import inspect
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from support.agent import config
from support.keyring import KEYS, OLD, ROOTS, document
from test_structure import CORE, PACKAGE, ROOT, code, each, relative

import agent
from agent import content, lines, verdicts
from agent.collector import Collector
from agent.spool import segment
from agent.values import Verdict

NOTES = ROOT / "vendor_notes"
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *NOTES.rglob("*.md")])
WIDEST = 120
LICENCE, USAGE = "/api/v1/send-telemetry-data", "/api/product/usage"
AGGREGATE = "/api/product/aggregateusage"


# --- reading a document -------------------------------------------------------------------------


def sections(name: str) -> dict[str, str]:
    """Heading -> the text below it, up to the next heading of any level; code does not count as headings."""
    found: dict[str, list[str]] = {"": []}
    text, fenced = found[""], False
    for line in (NOTES / name).read_text("utf-8").splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("#") and not fenced:
            text = found.setdefault(line.lstrip("# "), [])
        else:
            text.append(line)
    return {heading: "\n".join(text) for heading, text in found.items()}


def rows(text: str) -> list[list[str]]:
    """The cells of every table row whose first cell begins in backquotes."""
    found = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in found]


def listed(text: str) -> set[str]:
    return {name for row in rows(text) for name in re.findall(r"`([^`]+)`", row[0])}


def blocks(path: Path, language: str) -> list[str]:
    fence = re.compile(r"^```%s\n(.*?)^```$" % language, re.MULTILINE | re.DOTALL)
    return fence.findall(path.read_text("utf-8"))


# --- form ---------------------------------------------------------------------------------------


@each(DOCUMENTS)
def test_no_line_is_too_wide(path: Path) -> None:
    text = path.read_text("utf-8")
    # A table that a command writes has one row for each case, a line of a file is shown whole, however long that is.
    text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"<!-- (networks|bench \w+) -->\n.*?<!-- /\w+ -->", "", text, flags=re.DOTALL)
    assert not [line for line in text.splitlines() if len(line) > WIDEST]


@each(DOCUMENTS)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text("utf-8"))
    ours = [target for target in targets if "://" not in target]
    assert not [target for target in ours if not (path.parent / target).exists()]


def test_every_document_can_be_found_from_the_readme() -> None:
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in seen or not path.exists():
            continue
        seen.add(path)
        if path.is_dir():
            waiting += path.glob("*.md")
        elif path.suffix == ".md":
            targets = re.findall(r"\]\(([^)#:]+)\)", path.read_text("utf-8"))
            waiting += [(path.parent / target).resolve() for target in targets]
    assert not set(NOTES.rglob("*.md")) - seen


@each(DOCUMENTS)
def test_the_files_and_tests_that_a_document_names_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    named = re.findall(r"`((?:agent|tests)/[\w./]+?)/?`", text)
    assert not [name for name in named if not (ROOT / name).exists()]
    known = {one.name for one in (ROOT / "tests").rglob("test_*.py")}
    assert not set(re.findall(r"`(?:[\w/]+/)?(test_\w+\.py)`", text)) - known


def test_the_readme_says_the_size_that_the_command_prints() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert "`python tests/test_structure.py`" in text
    (stated,) = re.findall(r"([\d,]+) lines of code", text)
    # Rounded up to the next 50, so that not every change has to touch it.
    assert stated == "{:,}".format(-(-code(CORE) // 50) * 50)


def test_the_reading_order_is_that_of_the_modules_there_are() -> None:
    text = sections("READING.md")["The order"]
    for row in rows(text):
        assert (ROOT / "agent" / row[0].strip("`")).is_file(), row[0]
    named = set(re.findall(r"`([\w/]+\.py)`", "\n".join(sections("READING.md").values())))
    assert named >= {path.relative_to(PACKAGE).as_posix() for path in CORE}


# --- what is sent and stored --------------------------------------------------------------------


class Evidence:
    """What one of each kind of record left on the wire, in the preview and on the disk."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.shown: list[dict[str, Any]] = []
        self.lines: list[tuple[str, Any]] = []  # (file name, value)
        self.files: set[str] = set()

    def collect(self, directory: Path) -> None:
        for path in directory.iterdir():
            self.files.add(path.name)
            for line in path.read_bytes().strip(b".").splitlines():  # dots: of consent
                if line:
                    assert lines.decode(line) is not None, path.name
                    self.lines.append((path.name, lines.decode(line)))

    def fields(self, path: str, *, shown: bool = False) -> set[str]:
        """The names of the fields that were sent, or shown, to an address."""
        bodies = [one["body"] for one in self.requests if one["path"] == path and not shown]
        bodies += [one["body"] for one in self.shown if one["url"].endswith(path) and shown]
        found: set[str] = set()
        for body in bodies:
            if not body.startswith("{"):
                found |= {pair.partition("=")[0] for pair in body.split("&")}
                continue
            (payload,) = json.loads(body).values()
            for name, value in payload.items():
                nested = path == AGGREGATE and isinstance(value, dict)
                found |= {"%s.%s" % (name, key) for key in value} if nested else {name}
        return found

    def keys(self, file: str) -> set[str]:
        """The names in all lines of files whose name ends, or begins, so."""
        mine = [v for name, v in self.lines if name.endswith(file) or name.startswith(file)]
        return {key for value in mine if isinstance(value, dict) for key in value}


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    """Runs that together do everything that sends or stores a field: failures, then deliveries, export and import."""
    found, at = Evidence(), tmp_path_factory.mktemp("state")
    with Collector() as server:
        server.fault("500")
        with agent.Agent(everything(server.url, at / "one"), ("key", "desk-1")) as telemetry:
            record_all(telemetry)
            found.shown = telemetry.preview(samples=True)
            telemetry.flush(timeout=10.0)
            found.collect(at / "one")
            telemetry.export_spool(at / "carried")
            header = (at / "carried").read_bytes().partition(b"\n")[0]
            found.lines.append(("carried", lines.decode(header)))
            server.fault(None)
            telemetry.flush(timeout=10.0)
            found.collect(at / "one")
        with agent.Agent(everything(server.url, at / "two")) as telemetry:
            assert telemetry.import_spool(at / "carried")
            spool = telemetry._spool
            assert spool.claim()
            spool.answer(next(spool.waiting(())), Verdict("rejected"), 1.0)
            assert spool.revive() == 1
            spool.release()
            telemetry.flush(timeout=10.0)
            found.collect(at / "two")
        ring = agent.Keyring((OLD,), roots=KEYS, document=document())
        with agent.Agent(config(server.url, ring, at / "ring", only="licence")) as telemetry:
            telemetry.call_home()
            telemetry.flush(timeout=10.0)
            found.collect(at / "ring")
        found.requests = server.requests()
    yield found


def everything(url: str, state_dir: Path) -> agent.Config:
    """A configuration in which everything that can be sent is set."""
    address = {"base_url": url, "api_key": "demo-api-key"}
    more = {"environment": "PRODUCTION", "domain": "acme.example", "ip_addr": "192.0.2.7"}
    licence = agent.GetKeyManager(allow_unsigned=True, **address)  # type: ignore[arg-type]
    usage = agent.Reo(source="TELEMETRY", **address, **more)
    return config(url, (), state_dir, endpoints=(licence, usage))


def record_all(telemetry: agent.Agent) -> None:
    telemetry.call_home()
    telemetry.record_value(3.2, data_group="export-seconds")
    telemetry.record_point(1, 2, data_group="canvas")
    telemetry.record_text("opengl", data_group="renderer")
    telemetry.track("EXPORT", ip_addr="192.0.2.8", meta={"format": "png"})
    telemetry.count("RENDER")


@pytest.mark.parametrize(
    ("heading", "path"),
    [("Licence telemetry", LICENCE), ("Usage event", USAGE), ("Aggregated usage", AGGREGATE)],
)
def test_every_field_sent_is_listed_and_shown(evidence: Evidence, heading: str, path: str) -> None:
    text = sections("DATA.md")[heading]
    assert "`POST {base_url}%s`" % path in text
    assert listed(text) == evidence.fields(path) == evidence.fields(path, shown=True)


def test_every_header_sent_is_listed(evidence: Evidence) -> None:
    documented = rows(sections("DATA.md")["HTTP headers"])
    own = {LICENCE: "GetKeyManager", USAGE: "Reo.Dev", AGGREGATE: "Reo.Dev"}
    assert {one["path"] for one in evidence.requests} == set(own)
    for one in evidence.requests:
        expected = {row[0] for row in documented if row[2] in ("both", own[one["path"]])}
        assert {"`%s`" % name for name in one["headers"]} == {name.lower() for name in expected}


@pytest.mark.parametrize(
    ("heading", "file"),
    [
        ("Record", segment.SUFFIX),
        ("Book line", segment.BOOK),
        ("Identity", "identity-"),
        ("Export header", "carried"),
    ],
)
def test_every_field_stored_is_listed(evidence: Evidence, heading: str, file: str) -> None:
    assert listed(sections("DATA.md")[heading]) == evidence.keys(file)


def test_every_file_in_the_state_directory_is_listed(evidence: Evidence) -> None:
    table = sections("VENDORING.md")["The state directory"]
    known = listed(table[table.index("| file |") :])
    patterns = [r"[\w.-]+".join(map(re.escape, re.split(r"<\w+>", name))) for name in known]
    for name in evidence.files:
        assert segment.is_ours(name) and any(re.fullmatch(one, name) for one in patterns), name
    filled = {name.replace("<file>", segment.BOOK).replace("<ms>", "0" * 12) for name in known}
    assert all(segment.is_ours(re.sub(r"<\w+>", "0" * 16, name)) for name in filled)
    assert known >= {segment.BOOK, segment.LOCK, segment.ROOM, segment.CONSENT}


# --- what becomes of content --------------------------------------------------------------------


def test_the_limits_of_content_are_those_of_the_code() -> None:
    table = sections("DATA.md")["What becomes of content"].splitlines()
    stated = re.findall(r"^\| [^|]+ \| [a-z, ]*(\d[\d,]*)", "\n".join(table), re.MULTILINE)
    lengths = [content.NAME_MAX_CHARS, content.USER_ID_MAX_CHARS, content.TEXT_MAX_CHARS]
    lengths += [content.LICENCE_MAX_CHARS, content.NUMBER_MAX_BITS + 1, content.COUNT_MAX]
    lengths += [content.STRING_MAX_CHARS, content.ITEMS_MAX, content.DEPTH_MAX]
    assert stated[:10] == ["{:,}".format(n) for n in [*lengths, content.META_MAX_BYTES]]


def test_the_examples_of_values_in_meta_are_what_is_sent() -> None:
    text = sections("DATA.md")["What becomes of content"]
    examples = rows(text[text.index("| given in Python |") :])
    assert len(examples) > 3
    for given, sent in examples:
        value = eval(given.strip("`"))
        assert content.meta({"value": value}) == {"value": json.loads(sent.strip("`"))}


# --- the tables of VENDORING.md -----------------------------------------------------------------


def parameters(call: Callable[..., Any]) -> list[tuple[str, str]]:
    """Each parameter, and its default as the documents write it."""
    found = list(inspect.signature(call).parameters.values())
    return [
        (one.name, "required" if one.default is one.empty else "`%r`" % (one.default,))
        for one in found
    ]


@pytest.mark.parametrize("name", ["Config", "GetKeyManager", "Keyring", "Reo", "Agent"])
def test_every_setting_is_listed_with_its_default(name: str) -> None:
    text = sections("VENDORING.md")["Settings"]
    start = text.index("All of `Config`" if name == "Config" else "\n`%s`:" % name)
    table = text[text.index("| field |", start) :]
    documented = [(row[0].strip("`"), row[1]) for row in rows(table[: table.index("\n\n")])]
    assert documented == [
        (field, "required with `Reo`" if field == "usage_consent" else default)
        for field, default in parameters(getattr(agent, name))
    ]


@pytest.mark.parametrize(
    ("heading", "kind"),
    [("Hearing of the outcome", agent.Outcome), ("Ways to deliver", agent.DeliveryReport)],
)
def test_every_field_of_what_callers_are_told_is_listed(heading: str, kind: Any) -> None:
    documented = [row[0].strip("`") for row in rows(sections("VENDORING.md")[heading])]
    assert documented == list(kind.__annotations__)


def test_everything_that_a_preview_shows_is_listed(evidence: Evidence) -> None:
    documented = listed(sections("VENDORING.md")["Preview"])
    assert [one for one in evidence.shown if set(one) != documented] == []
    sent = {name for one in evidence.requests for name in one["headers"]}
    assert {n.lower() for one in evidence.shown for n in one["headers"]} == sent - {
        "content-length"
    }


# --- PROTOCOL.md --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["licence-call-home", "usage-call-home", "aggregate"])
def test_the_examples_of_requests_are_what_the_encoders_make(name: str) -> None:
    shown = [block.partition("\n\n") for block in blocks(NOTES / "PROTOCOL.md", "http")]
    golden = (ROOT / "tests" / "golden" / ("request-%s.txt" % name)).read_text("utf-8")
    assert golden.strip() in [head + "\n\n" + body.replace("\n", "") for head, _, body in shown]


def signed_answer() -> bytes:
    return blocks(NOTES / "PROTOCOL.md", "json")[0].replace("\n", "").encode("ascii")


def test_the_example_of_a_signed_answer_is_signed() -> None:
    first, second = Collector().public_keys
    receipt = agent.verify(signed_answer(), [first], now=1708999140)
    assert (receipt.code, receipt.timestamp) == (830, 1708999140)
    with pytest.raises(agent.SignatureInvalid):
        agent.verify(signed_answer(), [second], now=1708999140)


def test_the_outcomes_and_statuses_in_the_tables_are_those_of_the_code() -> None:
    text = sections("PROTOCOL.md")["Verdicts"]
    outcomes = {value for name, value in vars(verdicts).items() if value == name.lower()}
    assert len(outcomes) == 11
    assert not [one for one in outcomes if "| %s" % one.upper() not in text.replace(", ", "| ")]
    for outcome in ("HELD", "REFUSED"):
        (row,) = [r for r in text.splitlines() if r.endswith("| %s |" % outcome) and "code`" in r]
        stated = {int(number) for number in re.findall(r"\b4\d\d\b", row)}
        assert stated == getattr(verdicts, outcome + "_STATUSES")


# --- what is shown runs -------------------------------------------------------------------------


@each([path for path in DOCUMENTS if blocks(path, "python")])
def test_the_python_in_a_document_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(sys, "argv", ["product"])
    told: list[Any] = []
    with Collector() as collector, contextlib.ExitStack() as stack:
        first, second = (key["public_key"] for key in collector.keys)
        space: dict[str, Any] = {
            "__name__": "product",
            "PEM": first,
            "NEXT_PEM": second,
            "read_licence": lambda: ("demo-license-key", "12135644"),
            "save_setting": lambda name, value: told.append((name, value)),
            "remember_hint": told.append,
            "usb_stick": str(tmp_path),
            "answer": signed_answer(),
            "answered_at": 1708999140,
            "ROOT_1_PEM": ROOTS[0].pem,
            "ROOT_2_PEM": ROOTS[1].pem,
            "beside_the_program": str(tmp_path),
        }
        stack.callback(lambda: "telemetry" in space and space["telemetry"].close())
        for block in blocks(path, "python"):
            exec(compile(on_loopback(block, collector.url), relative(path), "exec"), space)
        if path.name == "VENDORING.md":
            assert space["saved"] is True and "problem" not in space
        if path.name == "README.md":
            report = space["telemetry"].flush(timeout=10.0)
            assert report.drained and report.delivered == 1
        sent = [record["fields"] for record in collector.records()]
        assert sent and all(fields["text_data"] == "CALL HOME" for fields in sent)


def on_loopback(block: str, url: str) -> str:
    """A block of code whose addresses and API keys are the collector's."""
    code = block.replace("https://keys.acme.example", url).replace("YOUR-API-KEY", "demo-api-key")
    code = code.replace("agent.Reo(", "agent.Reo(base_url=%r, " % url)
    assert "https://" not in code, "would leave this machine"
    return code


@each(DOCUMENTS)
def test_the_command_lines_shown_are_understood(path: Path) -> None:
    from agent.cli import commands

    text = path.read_text("utf-8")
    shown = re.findall(r"`python -m agent\b([^`]*)`", text)
    shown += re.findall(r"^    .*python -m agent\b(.*)$", text, re.MULTILINE)
    for line in shown:
        words = shlex.split(line.replace("…", ""))
        if words and words[0] not in ("COMMAND", "--help"):
            assert callable(commands.parser().read(words).run), line


def test_the_configuration_file_shown_is_one(tmp_path: Path) -> None:
    from agent.cli import config_file

    (shown,) = blocks(NOTES / "VENDORING.md", "json")
    (tmp_path / "now.pem").write_text(Collector().keys[0]["public_key"])
    (tmp_path / "product.json").write_text(shown)
    found, key, activation = config_file.load_with_licence(tmp_path / "product.json")
    assert [endpoint.name for endpoint in found.endpoints] == ["getkeymanager", "reo"]
    assert (key, activation) == ("demo-license-key", "12135644")
