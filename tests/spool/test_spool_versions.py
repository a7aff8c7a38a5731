"""Spools of other versions: replayed when they are known, left alone byte for byte when they are newer.

``golden/spool_v1`` holds every kind of file and line of ``vendor_notes/SPOOL.md``; it is never made anew, only a new
version gets a directory of its own. ``golden/spool_newer`` is what some later version might leave behind.
"""

import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.agent import START, Desk, config
from support.spool import ROOT, look, segments

import agent
from agent import lines
from agent.errors import EventError
from agent.spool import record as records, segment
from agent.spool.book import UNTRIED

GOLDEN = Path(__file__).parents[1] / "golden"


def unpack(name: str, place: Path) -> dict[str, bytes]:
    """A golden spool as a state directory; its files."""
    shutil.copytree(GOLDEN / name, place)
    place.chmod(0o700)
    for path in place.iterdir():
        path.chmod(0o600)
    return {path.name: path.read_bytes() for path in place.iterdir()}


def id(pair: str) -> str:
    return pair * 16


# --- version 1 ------------------------------------------------------------------------------------


def test_the_golden_spool_of_version_1_holds_every_kind_of_file_and_line() -> None:
    found = {path.name: path.read_bytes() for path in (GOLDEN / "spool_v1").iterdir()}
    assert {name[0] for name in found if segment.is_segment(name)} == set(segment.CLASSES)
    assert {"agent.book", "agent.lock", "agent.room", "agent.consent"} <= set(found)
    values = [lines.decode(line) for text in found.values() for line in text.split(b"\n")]
    objects = [value for value in values if isinstance(value, dict)]
    told = {name for value in objects if value.get("k") == "record" for name in value}
    assert told >= {"run", "failed", "counted", "outcome", "origin", "verdict", "at", "epoch"} | {
        "revived"
    }
    kinds = {*records.KINDS, "book", "record", "lane", "floor", "home", "import", "export", "moon"}
    assert {value.get("k") for value in objects} == kinds
    fields = {name for value in objects if value.get("k") in records.KINDS for name in value}
    assert fields >= {"v", "k", "e", "id", "at", "b", "r", "c", "end"}
    assert None in values, "damage"


def test_the_golden_spool_of_version_1_is_read(place: Path) -> None:
    unpack("spool_v1", place)
    found = look(place)
    waiting = {record.id: record for record in found.records()}
    assert sorted(waiting) == sorted(id(pair) for pair in ("a1", "a7", "c3", "d4", "e5"))
    assert waiting[id("a1")].body["license_key"] == "demo-license-key"
    assert waiting[id("c3")].body["activity_type"] == "EXPORT" and waiting[id("c3")].epoch == 5
    assert (waiting[id("d4")].body["count"], waiting[id("d4")].ended_at) == (7, START + 3600)
    assert (waiting[id("e5")].body["count"], waiting[id("e5")].ended_at) == (3, None)
    assert waiting[id("e5")].body["domain"] == "acme.example"
    tried = [found.book.states.get(waiting[id(pair)].key, UNTRIED) for pair in ("a1", "a7")]
    assert [(s.failed, s.counted, s.left_open) for s in tried] == [(2, 1, False), (0, 0, True)]
    assert [record.id for record in found.records(dead=True)] == [id("d0")]
    census = found.census()
    assert (census["dead"], census["damaged"], census["newer"]) == (1, 1, 1)
    assert census["strays"] == {"reo"} and found.consent.current() == 5
    assert found.book.fact("lane", "00112233445566aa")["delay_s"] == 3600.0
    assert found.book.fact("floor", "99aabbccddeeff00")["floor"] == int(START)
    assert found.book.fact("home", "")["id"] == "00000000feedface"
    assert found.book.fact("import", "fedcba9876543210")
    answers = [(answer["event_id"][:2], answer["verdict"]) for answer in found.history(9)]
    told = ["a1 retry", "b2 delivered", "d0 rejected", "c0 delivered", "a7 rejected"]
    assert answers == [tuple(one.split()) for one in told]


def test_the_golden_spool_of_version_1_is_delivered(at: Desk) -> None:
    before = unpack("spool_v1", at.state_dir)
    at.clock.advance(4000)
    with at.agent() as product:
        status = product.status()
        found = [status[name] for name in ("pending", "dead", "damaged", "newer")]
        assert found == [5, 1, 1, 1]
        report = product.flush()
        # The server flags a licence without an activation.
        assert (report.delivered, report.flagged, report.pending, report.dead) == (3, 2, 0, 1)
        told = [r["fields"] for r in at.collector.records() if "reo" in r["endpoint"]]
        assert {fields["event_id"]: fields.get("count") for fields in told} == {
            id("c3"): None,
            id("d4"): 7,
            id("e5"): 3,
        }
        assert at.activities() == ["EXPORT", "RENDER", "RENDER"]
        assert at.texts() == ["CALL HOME", "CALL HOME"]
    # All that is done is gone, but for the segment that holds a dead letter and a line of a newer version.
    kept = "l-0199c82cc000-0000000000000001.seg"
    assert [path.name for path in segments(at.state_dir)] == [kept]
    assert (at.state_dir / kept).read_bytes() == before[kept]


@pytest.mark.parametrize("damage", [b"", b"\xff" * 5000, None], ids=["empty", "noise", "cut"])
def test_damage_of_each_kind_of_file_stops_no_start(at: Desk, damage: Any) -> None:
    unpack("spool_v1", at.state_dir)
    with at.agent() as product:
        product.call_home()
    whole = at.state_dir
    found = sorted(whole.iterdir())
    assert len({path.name[:9] for path in found}) > 8, "identity, too"
    for number, path in enumerate(found):
        at.state_dir = whole.with_name("state-%d" % number)
        shutil.copytree(whole, at.state_dir)
        data = path.read_bytes()
        data = data[: len(data) // 2] if damage is None else damage
        (at.state_dir / path.name).write_bytes(data)
        at.collector.clear()
        with at.agent() as product:
            assert product.record_text("new", data_group="g")
            assert product.status() and product.diagnostics() and product.preview()
            assert product.flush().pending == 0
        with at.agent() as product:
            assert product.flush().delivered == 0
        assert at.texts().count("new") == 1, path.name


# --- a newer version ------------------------------------------------------------------------------


def untouched(files_: dict[str, bytes], place: Path) -> None:
    now = {path.name: path.read_bytes() for path in place.iterdir()}
    for name, content in files_.items():
        if name == "agent.book":
            assert all(line in now[name] for line in content.split(b"\n"))
        else:
            assert now[name] == content, name


def test_what_a_newer_version_wrote_is_left_alone(at: Desk) -> None:
    """Start, recording, delivery, ageing: byte for byte. A quota may evict it, a refusal takes usage, ``erase`` all."""
    before = unpack("spool_newer", at.state_dir)
    with at.agent() as product:
        assert product.status()["newer"] == 6 and product.status()["damaged"] == 0
        at.collector.fault("refuse")
        for n in range(20):
            product.record_text("%03d" % n + "x" * 300, data_group="g")
            product.track("EXPORT")
        product.count("RENDER", 3)
        product.flush()
        untouched(before, at.state_dir)
    with at.agent() as product:
        at.collector.fault(None)
        at.clock.advance(200 * 86400)
        product.call_home()
        product.flush()
        at.clock.advance(200 * 86400)
        product.flush()
        assert product.flush().pending == 0  # the report of what was too old has arrived too
        untouched(before, at.state_dir)
        assert product.status()["newer"] == 6
        product.set_usage_consent(False)
        assert product.status()["newer"] == 3
    assert at.texts().count("CALL HOME") >= 1
    with at.agent(max_bytes=20_000) as product:
        for n in range(90):
            product.record_text("%03d" % n + "x" * 300, data_group="g")
        assert product.status()["newer"] == 0
        assert product.status()["not_recorded"]["dropped"] >= 3
    assert agent.erase(at.config()) == []
    strangers = ["journal", "export.spool", "export-of-newer-lines.spool"]
    strangers.append("z-0199c82cd388-0000000000000017.seg")
    assert {path.name for path in at.state_dir.iterdir()} == set(strangers)


@pytest.mark.parametrize("name", ["export.spool", "export-of-newer-lines.spool"])
def test_an_export_of_a_newer_version_is_refused_whole(at: Desk, name: str) -> None:
    with at.agent() as product:
        with pytest.raises(EventError):
            product.import_spool(GOLDEN / "spool_newer" / name)
        assert product.status()["pending"] == 0


# --- up and down ----------------------------------------------------------------------------------


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """This package as a later version: it writes format 2 and reads both."""
    vendored = tmp_path / "vendored" / "later_agent"
    shutil.copytree(ROOT / "agent", vendored, ignore=shutil.ignore_patterns("__pycache__"))
    changes = {
        "record.py": [
            ("FORMAT_VERSION = 1", "FORMAT_VERSION = 2"),
            ("version < FORMAT", "1 > FORMAT"),
        ],
        "segment.py": [('{"v":1,"k":"', '{"v":2,"k":"')],
    }
    for name, pairs in changes.items():
        path = vendored / "spool" / name
        text = path.read_text(encoding="utf-8")
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(vendored.parent))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield importlib.import_module("later_agent")
    for name in [name for name in sys.modules if name.partition(".")[0] == "later_agent"]:
        del sys.modules[name]


def later_product(later: ModuleType, at: Desk) -> Any:
    keys = (later.PublicKey.from_pem(at.collector.keys[0]["public_key"]),)
    given = config(at.collector.url, keys, at.state_dir, package=later)
    return later.Agent(given, ("demo-license-key", "activation-1"), clock=at.clock)


def record_some(product: Any, prefix: str) -> None:
    for n in range(3):
        product.record_text("%s%d" % (prefix, n), data_group="g")
        product.track("EXPORT", meta={"n": "%s%d" % (prefix, n)})
    product.count("RENDER-" + prefix, 5)


def test_an_update_and_a_way_back(at: Desk, later: ModuleType) -> None:
    """Both versions record on one state directory, in turns: each record arrives once, none is touched by the older."""
    at.collector.fault("refuse")
    with at.agent() as product:
        record_some(product, "old")
        product.flush()
    with later_product(later, at) as product:
        record_some(product, "new")
        product.flush()
    newer = {p.name: p.read_bytes() for p in segments(at.state_dir) if b'"v":2' in p.read_bytes()}
    assert newer and all(b'"v":1' not in content for content in newer.values())
    at.collector.fault(None)

    # Down again: the older version delivers what it knows and counts the rest.
    with at.agent() as product:
        record_some(product, "back")
        assert product.flush().pending == 0
        assert product.status()["newer"] == 7
        with pytest.raises(OSError):
            product.export_spool(at.state_dir / "none" / "x")
    assert {p.name: p.read_bytes() for p in segments(at.state_dir)} == newer
    texts = ["%s%d" % (prefix, n) for prefix in ("old", "back") for n in range(3)]
    assert sorted(at.texts()) == sorted(texts)

    # And up: everything that was left is delivered.
    with later_product(later, at) as product:
        report = product.flush()
        assert (report.delivered, report.pending, report.dead) == (7, 0, 0)
    assert not segments(at.state_dir)
    assert sorted(at.texts()) == sorted([*texts, "new0", "new1", "new2"])
    assert len([r for r in at.collector.records() if r["endpoint"] == "reo-usage"]) == 9
    assert at.sums() == {"RENDER-old": 5, "RENDER-new": 5, "RENDER-back": 5}


def test_a_golden_export_is_imported_and_delivered(at: Desk) -> None:
    path = GOLDEN / "spool_v1" / "export.spool"
    at.clock.advance(4000)
    with at.agent() as product:
        assert (product.import_spool(path), product.import_spool(path)) == (3, 0)
        report = product.flush()
        assert (report.delivered, report.flagged, report.pending) == (2, 1, 0)
    assert at.texts() == ["CALL HOME"] and at.sums() == {"RENDER": 3}


def test_two_exports_of_one_directory_are_one_elsewhere(at: Desk, tmp_path: Path) -> None:
    with at.agent() as product:
        record_some(product, "a")
        for name in ("first", "second"):
            assert product.export_spool(tmp_path / name) == 7
    with at.agent(state_dir=tmp_path / "elsewhere") as product:
        for name in ("first", "second"):
            assert product.import_spool(tmp_path / name) == 7
        assert product.status()["pending"] == 7 and product.flush().delivered == 7
    with at.agent() as product:  # and what was copied is sent again, under the same ids
        assert product.flush().delivered == 7
    assert at.texts() == ["a0", "a1", "a2"] * 2 and at.sums() == {"RENDER-a": 5}
