"""The documents against the code: what they list is sent and stored, what they show runs, what they link to is there.

A document is read as people read it: headings, tables whose first column is in backquotes, fenced blocks.
"""

from __future__ import annotations

import contextlib
import datetime
import decimal
import fractions
import inspect
import json
import re
import shlex
import socketserver
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from support.keyring import OLD, ROOTS, document

import agent
from agent import config as settings, endpoints, events, flushing, jsonline, plain
from agent.collector import Collector
from agent.spool import names
from agent.version import VERSION

ROOT = Path(__file__).resolve().parents[2]
NOTES = ROOT / "vendor_notes"
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *NOTES.rglob("*.md")])
WIDEST = 120


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=relative)


# --- reading a document -------------------------------------------------------------------------


def sections(name: str) -> dict[str, str]:
    """Heading -> the text below it, up to the next heading of any level; code does not count as headings."""
    found: dict[str, list[str]] = {"": []}
    lines, fenced = found[""], False
    for line in (NOTES / name).read_text("utf-8").splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("#") and not fenced:
            lines = found.setdefault(line.lstrip("# "), [])
        else:
            lines.append(line)
    return {heading: "\n".join(text) for heading, text in found.items()}


def rows(text: str) -> list[list[str]]:
    """The cells of every table row whose first cell is in backquotes."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]


def listed(text: str) -> set[str]:
    return {row[0].strip("`") for row in rows(text)}


def blocks(path: Path, language: str) -> list[str]:
    fence = re.compile(r"^```%s\n(.*?)^```$" % language, re.MULTILINE | re.DOTALL)
    return fence.findall(path.read_text("utf-8"))


# --- form ---------------------------------------------------------------------------------------


@each(DOCUMENTS)
def test_no_line_is_too_wide(path: Path) -> None:
    text = path.read_text("utf-8")
    # A table that a command writes has one row for each case, however long that is.
    text = re.sub(r"(?<=<!-- networks -->\n).*?(?=<!-- /networks -->)", "", text, flags=re.DOTALL)
    lines = enumerate(text.splitlines(), 1)
    assert not [number for number, line in lines if len(line) > WIDEST]


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


@pytest.mark.parametrize(
    "command",
    [
        "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/python -m agent demo",
        "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/python -m pytest",
    ],
)
def test_the_readme_gives_the_two_commands(command: str) -> None:
    assert "    %s\n" % command in (ROOT / "README.md").read_text("utf-8")


# --- what is sent and stored --------------------------------------------------------------------


class Answering(socketserver.ThreadingTCPServer):
    """Keeps every request; answers 500, a 400 where ``refusing``, or nothing where ``silent``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.arrived = threading.Semaphore(0)
        self.refusing = self.silent = False
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return "http://127.0.0.1:%d" % self.server_address[1]


class _Answer(socketserver.StreamRequestHandler):
    server: Answering

    def handle(self) -> None:
        path = self.rfile.readline().decode().split()[1]
        headers = {}
        for line in iter(lambda: self.rfile.readline().decode().strip(), ""):
            name, _, value = line.partition(": ")
            headers[name] = value
        body = self.rfile.read(int(headers.get("Content-Length", 0)))
        self.server.seen.append((path, headers, body))
        self.server.arrived.release()
        if self.server.silent:
            self.server.released.wait(20)
        else:
            status = b"400 No" if self.server.refusing else b"500 No"
            self.wfile.write(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)


class Evidence:
    """Everything one of each kind of record left on the wire, in the preview and on the disk."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.shown: list[dict[str, Any]] = []
        self.lines: list[tuple[str, Any]] = []  # (file name, value)
        self.files: set[str] = set()

    def collect(self, directory: Path) -> None:
        for path in directory.iterdir():
            self.files.add(path.name)
            if path.is_file():
                for line in path.read_bytes().split(b"\n"):
                    if line:
                        value = jsonline.decode(line)
                        assert value is not None, path.name
                        self.lines.append((path.name, value))

    def fields(self, path: str) -> set[str]:
        """The names of the fields that were sent or shown to an address."""
        found: set[str] = set()
        bodies = [body.decode() for sent, _, body in self.requests if sent == path]
        bodies += [one["body"] for one in self.shown if one["url"].endswith(path)]
        for body in bodies:
            if body.startswith("{"):
                payload = json.loads(body)
                assert list(payload) == ["payload"]
                for name, value in payload["payload"].items():
                    nested = path == AGGREGATE and isinstance(value, dict)
                    found |= {"%s.%s" % (name, key) for key in value} if nested else {name}
            else:
                found |= {pair.partition("=")[0] for pair in body.split("&")}
        return found

    def keys(self, suffix: str, **equal: object) -> set[str]:
        """The keys of all lines of files whose name ends (or begins) so, and that hold these values."""
        found: set[str] = set()
        for name, value in self.lines:
            if name.endswith(suffix) or name.startswith(suffix):
                if all(value.get(key) in expected for key, expected in equal.items()):  # type: ignore[operator]
                    found |= set(value)
        return found


LICENCE = "/api/v1/send-telemetry-data"
USAGE = "/api/product/usage"
AGGREGATE = "/api/product/aggregateusage"


def product(url: str, state_dir: Path, **changes: Any) -> agent.Config:
    """A configuration in which everything that can be sent is set."""
    fields: dict[str, Any] = {
        "vendor": "Acme",
        "product_name": "Studio",
        "product_id": "42",
        "product_version": "5.2.5",
        "usage_consent": True,
        "deliver": "manual",
        "state_dir": state_dir,
        "endpoints": (
            agent.GetKeyManager(base_url=url, api_key="k-licence", allow_unsigned=True),
            agent.Reo(
                base_url=url,
                api_key="k-usage",
                environment="PRODUCTION",
                domain="acme.example",
                ip_addr="192.0.2.7",
            ),
        ),
    }
    return agent.Config(**{**fields, **changes})


def record_all(telemetry: agent.Agent) -> None:
    telemetry.call_home()
    telemetry.record_value(3.2, data_group="export-seconds")
    telemetry.record_point(1, 2, data_group="canvas")
    telemetry.record_text("opengl", data_group="renderer")
    telemetry.track("EXPORT", ip_addr="192.0.2.8", meta={"format": "png"})
    for _ in range(2):
        telemetry.count("RENDER")
        telemetry.call_home()  # writes counters too


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    """Runs that together do everything that sends or stores a field."""
    found, at = Evidence(), tmp_path_factory.mktemp("state")
    server = Answering()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        _send_all(found, server, at / "one")
        _break_off(found, server, at / "two")
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
    found.requests = server.seen
    yield found


def _send_all(found: Evidence, server: Answering, state: Path) -> None:
    """Failures first, then refusals: backoff, dead letters, revived ones; an export and its import."""
    with agent.Agent(product(server.url, state), license_key=("k", "a")) as telemetry:
        record_all(telemetry)
        found.shown = telemetry.preview(samples=True)
        telemetry.flush(timeout=10.0)
        found.collect(state)
        telemetry.export_spool(state.parent / "carried", move=False)
        telemetry.set_usage_consent(False)
        server.refusing = True
        telemetry.flush(timeout=10.0)
        found.collect(state)
        flushing.replay(telemetry._engine, dead=True, held=False, timeout_s=0.0)
        found.collect(state)
        server.refusing = False
        telemetry.set_usage_consent(True)
        telemetry.track("EXPORT")  # under another state of consent
        found.collect(state)
    for line in (state.parent / "carried").read_bytes().splitlines():
        found.lines.append(("carried", jsonline.decode(line)))
    elsewhere = state.parent / "elsewhere"
    with agent.Agent(product(server.url, elsewhere)) as telemetry:
        assert telemetry.import_spool(state.parent / "carried")
        telemetry.count("RENDER")
        telemetry.flush(timeout=10.0)  # the probe: a counter is sent where it is the only usage
        found.collect(elsewhere)
    _have_a_keyring(found, server, state.parent / "keyring")
    # Each kind of usage alone: which one is the probe of a server that fails is decided by the names of two files.
    for name in ("count", "track"):
        only = product(server.url, state.parent / name)
        with agent.Agent(only.replace(endpoints=only.endpoints[1:])) as telemetry:
            getattr(telemetry, name)("RENDER")
            telemetry.flush(timeout=10.0)
            found.collect(state.parent / name)


def _have_a_keyring(found: Evidence, server: Answering, state: Path) -> None:
    ring = agent.Keyring((OLD,), roots=(ROOTS[0].key,), document=document())
    signed = agent.GetKeyManager(base_url=server.url, api_key="k", keys=ring)
    with agent.Agent(product(server.url, state, endpoints=(signed,))) as telemetry:
        telemetry.call_home()
        telemetry.flush(timeout=10.0)
        found.collect(state)


def _break_off(found: Evidence, server: Answering, state: Path) -> None:
    """A request in flight that ends because the product does."""
    server.silent = True
    threaded = product(server.url, state, deliver="thread", start_delay_s=0, exit_timeout_s=0.05)
    telemetry = agent.Agent(threaded.replace(endpoints=threaded.endpoints[:1]))
    while server.arrived.acquire(False):
        pass
    telemetry.call_home()
    assert server.arrived.acquire(timeout=20)
    telemetry.close()
    found.collect(state)


@pytest.mark.parametrize(
    ("heading", "path"),
    [("Licence telemetry", LICENCE), ("Usage event", USAGE), ("Aggregated usage", AGGREGATE)],
)
def test_every_field_sent_is_listed(evidence: Evidence, heading: str, path: str) -> None:
    text = sections("DATA.md")[heading]
    assert "`POST {base_url}%s`" % path in text
    assert listed(text) == evidence.fields(path)


def test_every_field_is_in_the_preview_of_samples_or_of_what_waits(evidence: Evidence) -> None:
    sent = {path: set(evidence.fields(path)) for path in (LICENCE, USAGE, AGGREGATE)}
    evidence_shown = Evidence()
    evidence_shown.shown = evidence.shown
    assert {path: evidence_shown.fields(path) for path in sent} == sent
    assert any(one["sample"] for one in evidence.shown)


def test_every_header_sent_is_listed(evidence: Evidence) -> None:
    documented = rows(sections("DATA.md")["HTTP headers"])
    sent = {name for _, headers, _ in evidence.requests for name in headers}
    assert {row[0].strip("`") for row in documented} == sent
    to_all = {row[0].strip("`") for row in documented if row[2] == "both"}
    assert {path for path, _, _ in evidence.requests} == {LICENCE, USAGE, AGGREGATE}
    for path, headers, _ in evidence.requests:
        assert set(headers) - to_all == (set() if path == LICENCE else {"X-API-KEY"})


@pytest.mark.parametrize(
    ("heading", "where", "equal"),
    [
        ("Record", names.SEGMENT, {"k": ("licence", "usage", "aggregate")}),
        ("Counter total", names.SEGMENT, {"k": ("count",)}),
        ("Endpoint state", names.FACTS, {"k": ("lane",)}),
        ("Origin", names.FACTS, {"k": ("origin",)}),
        ("Keyring version", names.FACTS, {"k": ("keyring",)}),
        ("Answer", names.HISTORY, {}),
        ("Identity", "identity-", {}),
        ("Export header", "carried", {"k": ("export",)}),
    ],
)
def test_every_field_stored_is_listed(
    evidence: Evidence, heading: str, where: str, equal: dict[str, Any]
) -> None:
    assert listed(sections("DATA.md")[heading]) == evidence.keys(where, **equal)


def test_every_entry_of_a_sidecar_is_listed(evidence: Evidence) -> None:
    entries = [value for name, value in evidence.lines if name.endswith(names.SIDECAR)]
    assert listed(sections("DATA.md")["Sidecar entry"]) == {entry[0] for entry in entries}


def test_no_other_kind_of_file_holds_anything(evidence: Evidence) -> None:
    known = (names.SEGMENT, names.SIDECAR)
    others = {name for name, _ in evidence.lines if not name.endswith(known)}
    single = {name for name in others if not name.startswith("identity-")}
    assert single == {names.FACTS, names.HISTORY, "carried"}


def test_neither_key_is_stored_or_shown_where_it_is_not_said(evidence: Evidence) -> None:
    stored = json.dumps([value for _, value in evidence.lines])
    shown = json.dumps(evidence.shown)
    assert "k-licence" not in stored + shown and "k-usage" not in stored + shown


# --- what becomes of content --------------------------------------------------------------------


def test_the_limits_of_content_are_those_of_the_code() -> None:
    from agent.endpoints import getkeymanager

    lines = sections("DATA.md")["What becomes of content"].splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    stated = {row[0]: row[1] for row in table[1:]}
    field = "{:,} characters".format(getkeymanager._FIELD_MAX_CHARS)
    name = "%d characters" % events.NAME_MAX_CHARS
    expected = {
        "`activity_type`": name,
        "`data_group` of a call": name,
        "`user_id`": "{:,} characters".format(events.USER_ID_MAX_CHARS),
        "text of `record_text()`": "{:,} characters".format(events.TEXT_MAX_CHARS),
        "`license_key`": field,
        "`activation_identifier`": field,
        "numbers": "finite, under {:,} bits".format(events._NUMBER_MAX_BITS + 1),
        "`n` of `count()`": "1 to {:,}".format(events.COUNT_MAX),
        "`meta`: a text in it": "{:,} characters".format(plain.STRING_MAX_CHARS),
        "`meta`: items of one object or list": str(plain.ITEMS_MAX),
        "`meta`: levels, itself the first": str(plain.DEPTH_MAX),
        "`meta`: all of it, as JSON in ASCII": "{:,} bytes".format(plain.TOTAL_MAX_BYTES),
    }
    assert stated == expected


def test_the_marks_of_what_is_left_out_are_those_that_are_described() -> None:
    many = events.meta({"list": list(range(300)), **{str(n): n for n in range(300)}})
    assert many is not None and many["_truncated"] is True and many["list"][-1] == "…"
    deep: dict[str, Any] = {}
    for _ in range(20):
        deep = {"in": deep}
    shown, levels = events.meta(deep), 0
    while isinstance(shown, dict):
        shown, levels = shown["in"], levels + 1
    assert (levels, shown) == (8, "…")


EXAMPLES = [row[:2] for row in rows(sections("DATA.md")["Examples of values in `meta`"])]


@pytest.mark.parametrize(("given", "sent"), EXAMPLES, ids=[given for given, _ in EXAMPLES])
def test_the_examples_of_values_in_meta_are_what_is_sent(given: str, sent: str) -> None:
    space: dict[str, Any] = {
        "Decimal": decimal.Decimal,
        "Fraction": fractions.Fraction,
        "date": datetime.date,
        "timedelta": datetime.timedelta,
    }
    value = eval(given.strip("`"), space)
    assert events.meta({"value": value}) == {"value": json.loads(sent.strip("`"))}


# --- the tables of VENDORING.md -----------------------------------------------------------------


def signature(call: Callable[..., Any]) -> dict[str, str]:
    """Parameter -> default as the documents write it."""
    parameters = list(inspect.signature(call).parameters.values())[1:]
    named = [one for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD]
    return {
        one.name: "required" if one.default is one.empty else "`%r`" % (one.default,)
        for one in named
    }


@pytest.mark.parametrize(
    "kind", [agent.Config, agent.GetKeyManager, agent.Keyring, agent.Reo, agent.Agent]
)
def test_every_setting_is_listed_with_its_default(kind: Any) -> None:
    text = sections("VENDORING.md")["Settings"]
    starts = [text.index("All of `Config`")]
    starts += [
        text.index("\n`%s`:" % name) for name in ("GetKeyManager", "Keyring", "Reo", "Agent")
    ]
    tables = dict(zip(("Config", "GetKeyManager", "Keyring", "Reo", "Agent"), starts))
    start = tables[kind.__name__]
    end = min([other for other in starts if other > start] or [len(text)])
    documented = {row[0].strip("`"): row[1] for row in rows(text[start:end])}
    expected = signature(kind.__init__)
    if "usage_consent" in expected:
        assert documented.pop("usage_consent") == "required with `Reo`"
        assert expected.pop("usage_consent") == "`%r`" % settings._NOT_GIVEN
    assert documented == expected
    assert list(documented) == list(expected)


@pytest.mark.parametrize(
    ("heading", "kind"),
    [("Hearing of the outcome", agent.Outcome), ("Ways to deliver", agent.DeliveryReport)],
)
def test_every_field_of_what_callers_are_told_is_listed(heading: str, kind: Any) -> None:
    documented = [row[0].strip("`") for row in rows(sections("VENDORING.md")[heading])]
    assert documented == list(kind.__slots__)


def test_everything_that_a_preview_shows_is_listed(evidence: Evidence) -> None:
    documented = listed(sections("VENDORING.md")["Preview"])
    assert [one for one in evidence.shown if set(one) != documented] == []
    sent = {name for _, headers, _ in evidence.requests for name in headers}
    shown = {name for one in evidence.shown for name in one["headers"]}
    assert sent - shown == {"Content-Length"} and not shown - sent


def test_the_threat_model_is_the_list_of_attacks() -> None:
    tests = [*(ROOT / "tests" / "attacks").glob("test_attacks_*.py")]
    tests += [ROOT / "tests" / "trust" / "test_keyring_rotation.py"]
    attacks = re.findall(r"^def test_(\w+)", "\n".join(path.read_text() for path in tests), re.M)
    assert sorted(listed(sections("SECURITY.md")["The threat model, line by line"])) == sorted(
        attacks
    )


def test_the_line_for_a_missing_library_is_what_is_said() -> None:
    from agent.transport.http import _explain

    reason = _explain(ModuleNotFoundError("No module named 'urllib3'", name="urllib3"))
    assert reason in sections("VENDORING.md")["Troubleshooting"]


def patterns() -> dict[str, re.Pattern[str]]:
    """File name as VENDORING.md has it -> what matches such names."""
    table = sections("VENDORING.md")["The state directory"]
    named = [row[0].strip("`") for row in rows(table[table.index("| file |") :])]
    return {
        name: re.compile(r"[\w.-]+".join(map(re.escape, re.split(r"<\w+>", name))))
        for name in named
    }


def sample(name: str) -> str:
    """A file name after a pattern of VENDORING.md."""
    filled = name.replace("<segment>", "l-<ms>-<random>").replace("<file>", "facts")
    filled = filled.replace("<ms>", "0" * 12).replace("<n>", "3")
    return re.sub(r"<\w+>", "0" * 16, filled)


def test_every_file_in_the_state_directory_is_listed(evidence: Evidence) -> None:
    known = patterns()
    for name in evidence.files:
        assert names.is_ours(name), name
        assert any(pattern.fullmatch(name) for pattern in known.values()), name


def test_every_name_of_ours_is_listed_and_no_other() -> None:
    known = patterns()
    assert not [name for name in known if not names.is_ours(sample(name))]
    classes = {row[0] for row in known if row.endswith(names.SEGMENT)}
    constants = {name: value for name, value in vars(names).items() if isinstance(value, str)}
    ours = {value for name, value in constants.items() if name.strip("_").isupper()}
    assert classes == {value for value in ours if len(value) == 1}
    words = {value for value in ours if value.isalpha() and not set(value) <= classes}
    assert {"facts", "lock"} <= words
    assert not [word for word in words if not any(row.startswith(word) for row in known)]
    for end in (names.SEGMENT, names.SIDECAR, names.TEMPORARY):
        assert any(row.endswith(end) for row in known)


# --- PROTOCOL.md --------------------------------------------------------------------------------

SOURCE = endpoints.Capture(
    "0f8fad5bd9cb469fa16570867728950e",
    1708999140.25,
    "9d5b6f0c3a2e4f718192a3b4c5d6e7f8",
    "demo-license-key",
    "12135644",
)


def encoded() -> list[str]:
    """The three requests of PROTOCOL.md as the encoders make them."""
    licence = agent.GetKeyManager(
        base_url="https://keys.acme.example", api_key="demo-api-key", allow_unsigned=True
    )
    usage = agent.Reo(api_key="demo-api-key", domain="acme.example")
    about = product("https://unused.example", ROOT, endpoints=(licence, usage))
    licensing: Any = endpoints.adapter(licence, about)
    reo: Any = endpoints.adapter(usage, about)
    total = reo.aggregate("RENDER", 1250, SOURCE.event_id, 1708995540, 1708999140)
    made = [
        (licensing, "licence", licensing.call_home(SOURCE)),
        (reo, "usage", reo.track(SOURCE, "EXPORT", meta={"format": "png"})),
        (reo, "aggregate", {**total, **reo.origin()}),
    ]
    texts = []
    for adapter, kind, body in made:
        request = adapter.request(kind, body, event_id=SOURCE.event_id, now=1708999200.0)
        head = ["%s %s" % (request.method, request.url)]
        head += ["%s: %s" % header for header in request.headers.items()]
        texts.append("\n".join(head).replace(VERSION, "VERSION") + "\n\n" + request.body.decode())
    return texts


def test_the_examples_of_requests_are_what_the_encoders_make() -> None:
    shown = []
    for block in blocks(NOTES / "PROTOCOL.md", "http"):
        head, _, body = block.partition("\n\n")
        shown.append(head + "\n\n" + body.replace("\n", ""))
    assert shown == encoded()


def signed_answer() -> bytes:
    return blocks(NOTES / "PROTOCOL.md", "json")[0].replace("\n", "").encode("ascii")


def test_the_example_of_a_signed_answer_is_signed() -> None:
    envelope = signed_answer()
    keys = Collector().public_keys
    receipt = agent.verify(envelope, keys[:1], now=1708999140)
    assert (receipt.code, receipt.timestamp) == (830, 1708999140)
    with pytest.raises(agent.SignatureInvalid):
        agent.verify(envelope, keys[1:], now=1708999140)


def test_every_outcome_is_in_the_table_of_verdicts() -> None:
    text = sections("PROTOCOL.md")["Verdicts"]
    outcomes = {
        value for name, value in vars(endpoints.verdicts).items() if name == str(value).upper()
    }
    assert len(outcomes) == 9
    assert not [outcome for outcome in outcomes if outcome.upper() not in text]


def statuses(text: str) -> set[int]:
    return {int(number) for number in re.findall(r"\b[34]\d\d\b", text)}


def test_the_statuses_in_the_tables_are_those_of_the_code() -> None:
    from agent.endpoints import verdicts

    table = sections("PROTOCOL.md")["Verdicts"].splitlines()
    held = [line for line in table if line.endswith("| HELD |") and " 401" in line]
    rejected = [line for line in table if line.endswith("| REJECTED |")]
    assert len(held) == len(rejected) == 2
    assert {frozenset(statuses(line)) for line in held} == {verdicts.HELD_STATUSES}
    assert {frozenset(statuses(line)) for line in rejected} == {verdicts.REJECTED_STATUSES}


# --- what is shown runs -------------------------------------------------------------------------

RUNNABLE = [path for path in DOCUMENTS if blocks(path, "python")]
PLACEHOLDERS = ("https://keys.acme.example", "https://ingest.reo.dev")


@each(RUNNABLE)
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
            code = on_loopback(block, collector.url)
            exec(compile(code, relative(path), "exec"), space)
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


def shell_lines() -> list[tuple[str, list[str]]]:
    """(document, words behind ``-m agent``) of every command line shown."""
    found = []
    for path in DOCUMENTS:
        for line in re.findall(r"python -m agent\b[^`\n]*", path.read_text("utf-8")):
            words = shlex.split(line.replace("…", "").strip())
            if len(words) > 3 and words[3] not in ("COMMAND", "--help"):
                found.append((relative(path), words[3:]))
    return found


@pytest.mark.parametrize(
    ("document", "words"),
    [pytest.param(*one, id="%s: %s" % (one[0], " ".join(one[1]))) for one in shell_lines()],
)
def test_the_command_lines_shown_are_understood(document: str, words: list[str]) -> None:
    from agent.cli import commands

    assert callable(commands.parser().read(words).run)


def test_the_configuration_file_shown_is_one(tmp_path: Path) -> None:
    from agent.cli import config_file

    (shown,) = blocks(NOTES / "VENDORING.md", "json")
    (tmp_path / "now.pem").write_text(Collector().keys[0]["public_key"])
    (tmp_path / "product.json").write_text(shown)
    found, key, activation = config_file.load_with_licence(tmp_path / "product.json")
    assert [endpoint.name for endpoint in found.endpoints] == ["getkeymanager", "reo"]
    assert (key, activation) == ("demo-license-key", "12135644")


# --- the size of a copy -------------------------------------------------------------------------


def test_the_size_that_is_stated_is_the_size() -> None:
    from test_structure import VENDORED, lines_of_code

    text = (NOTES / "decisions" / "0008-size-of-the-vendored-part.md").read_text("utf-8")
    (stated,) = re.findall(r"^Present size: ([\d,]+) lines of code", text, re.MULTILINE)
    actual = sum(map(lines_of_code, VENDORED))
    # Within a twentieth, so that not every change has to touch the record.
    assert abs(int(stated.replace(",", "")) - actual) <= actual // 20, actual
