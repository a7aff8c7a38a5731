"""Values, nesting and files that nobody of ours wrote: nothing of them raises, hangs, or stops delivery for good."""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agent import Desk, desk
from support.spool import (
    START,
    FakeClock,
    child,
    deliver,
    done,
    keep,
    licence,
    line,
    look,
    spool,
    usage,
    waiting,
    write_segment,
)

import agent
from agent import files, jsonline
from agent.collector import Collector
from agent.spool import facts, names, transfer, view
from agent.spool.facts import Facts, Lane
from agent.spool.store import DISK

pytestmark = pytest.mark.once

TAG = "00112233445566aa"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def at(place: Path) -> Iterator[Desk]:
    with desk(place) as found:
        yield found


def plant(place: Path, **fields: Any) -> None:
    place.mkdir(mode=0o700, exist_ok=True)
    path = place / names.FACTS
    path.write_bytes(jsonline.encode({"v": 1, "k": "lane", "tag": TAG, **fields}))
    path.chmod(0o600)


# --- facts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [10**400, -(10**400), 1e308, -1e308, 10**13])
@pytest.mark.parametrize(
    "field", ["failures", "set_at", "delay_s", "proofs", "floor", "holds", "expired_at"]
)
def test_a_planted_number_raises_nothing_and_stops_nothing_for_good(
    place: Path, field: str, number: Any
) -> None:
    plant(place, **{"wait": facts.BACKOFF, "set_at": START, "delay_s": 5.0, field: number})
    target = Facts(str(place), FakeClock())
    target.refresh()
    lane = target.lane(TAG)
    assert 0 <= lane.remaining_s(START) <= 86400
    assert lane.floor is None
    lane.back_off(START, 0.5, "offline")
    assert 30 <= lane.delay_s <= 6 * 3600
    lane.hold(START, "refused")
    assert 3600 <= lane.delay_s <= 86400
    lane.prove()
    target.save(lane)
    assert target.trouble == "" and lane.remaining_s(START) == 0.0


@pytest.mark.parametrize(
    "value",
    [{"wait": "bogus"}, {"wait": "x" * 17}, {"reason": "x" * 5000}, {"expired_run": "x" * 65}]
    + [{"failures": -1}, {"delay_s": -1.0}, {"holds": -1}, {"proofs": -1}],
)
def test_a_fact_out_of_bounds_is_ignored(value: dict[str, Any]) -> None:
    lane = Lane(TAG)
    lane.take(value)
    assert lane.to_json() == Lane(TAG).to_json()


@pytest.mark.parametrize("ahead_s, believed", [(86400, True), (86401, False), (10**9, False)])
def test_a_floor_more_than_a_day_ahead_of_the_clock_is_not_believed(
    place: Path, ahead_s: int, believed: bool
) -> None:
    plant(place, floor=int(START) + ahead_s, proofs=3)
    target = Facts(str(place), FakeClock())
    target.refresh()
    assert target.lane(TAG).floor == (int(START) + ahead_s if believed else None)
    assert target.lane(TAG).proofs == 3


@pytest.mark.parametrize("end", [10**400, -(10**400), 1e300, 1e12])
def test_an_end_of_a_window_beyond_all_times_is_damage(place: Path, end: Any) -> None:
    value = {**usage("u").to_json(), "k": "aggregate", "end": end}
    write_segment(place, [jsonline.encode(value), line("a")])
    assert waiting(place) == ["a"]


@pytest.mark.parametrize(
    ("content", "ours"),
    [
        (b"", True),
        (b"\n3f", True),  # the first line, which a full disk cut short
        (b'\n3f2a9b01 {"v":1,"k":', True),
        (b'3f2a9bx1 {"v":1}\n', True),  # a bit flipped
        (bytes(300), True),  # a power cut
        (b"my precious undo history\n" * 9, False),
        (b"2026-11-24 10:00 opened\n", False),
        (b"\x89PNG\r\n\x1a\n", False),
    ],
)
def test_a_torn_file_of_ours_is_not_taken_for_somebody_else_s(
    place: Path, content: bytes, ours: bool
) -> None:
    place.mkdir(mode=0o700, exist_ok=True)
    (place / names.FACTS).write_bytes(content)
    target = Facts(str(place), FakeClock())
    target.refresh()
    lane = target.lane(TAG)
    lane.back_off(START, 0.5, "offline")
    target.save(lane)
    assert (target.trouble == "") == ours
    after = Facts(str(place), FakeClock())
    after.refresh()
    assert after.lane(TAG).failures == int(ours)
    assert ours or (place / names.FACTS).read_bytes() == content


# --- long files -----------------------------------------------------------------------------------

FLUSH = """
import time
import agent
product = agent.Agent(agent.Config(
    vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5", state_dir=directory,
    deliver="manual", endpoints=(
        agent.GetKeyManager(name="server", base_url=sys.argv[2], api_key="demo-api-key", allow_unsigned=True),)))
began = time.process_time()
product.flush(0.5)
print(time.process_time() - began, product.status()["damaged"])
if os.path.exists("/proc/self/status"):  # the most memory that this program ever had, in KB
    print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
"""


def test_a_planted_segment_of_hundreds_of_thousands_of_records_costs_little(place: Path) -> None:
    """One of 60 MB cost 1.1 GB of memory and 25 seconds of a flush that was given 5."""
    record = {"v": 1, "k": "licence", "e": "server", "at": START, "b": {}}
    write_segment(place, [jsonline.encode({**record, "id": "%x" % n}) for n in range(300_000)])
    with Collector() as collector:
        took_s, damaged, *most_kb = done(child(FLUSH, collector.url, directory=place)).split()
    assert damaged == "1" and float(took_s) < 5
    assert sum(map(int, most_kb)) < 140_000


def test_what_lies_behind_the_longest_segment_is_one_damaged_line_read_once(place: Path) -> None:
    count = view.READ_BYTES // len(line("id-00000"))
    path = write_segment(place, [line("id-%05d" % n) for n in range(3 * count)])
    found = view.SegmentView(str(place), path.name)
    for _ in range(3):
        found.refresh()
        assert len(found.records) == count and len(found.damaged) == 1
    target = spool(place, max_records=100_000)
    assert len(deliver(target)) == count and deliver(target) == []
    assert not path.exists() and (place / names.DAMAGED).read_bytes().count(b"\n") == 1


def test_the_longest_record_that_can_be_made_is_read_whole(at: Desk) -> None:
    """Every field as long as it may be, of characters that take twelve bytes each; as a dead letter too."""
    wide = "\U0001f600"
    settings: dict[str, Any] = {
        "product_id": wide * 1024,
        "product_version": wide * 1024,
        "only": "licence",
    }
    at.collector.fault("unsigned-400")
    with at.agent(license_key=(wide * 9999, wide * 9999), keys=(), **settings) as product:
        assert product.record_text(wide * 32_768, data_group=wide * 999)
        (path,) = at.state_dir.glob("l-*")
        assert 0.98 * view.LONGEST_BYTES < path.stat().st_size < view.LONGEST_BYTES
        assert product.status()["pending"] == 1 and product.status()["damaged"] == 0
        assert product.flush().dead == 1
        assert product.status()["damaged"] == 0


def test_an_end_of_a_count_beyond_all_times_spoils_neither_its_record_nor_the_pass(
    at: Desk,
) -> None:
    """The record took it over, could not be read back, and the pass raised into the host."""
    at.collector.fault("unsigned-400")
    with at.agent(only="usage") as product:
        product.track("OTHER")
    record = {**usage("u").to_json(), "k": "aggregate", "e": "reo", "b": {"count": 2}}
    ended = {"v": 1, "k": "count", "e": "reo", "id": "u", "n": 7, "end": 1e12}
    write_segment(at.state_dir, [jsonline.encode(value) for value in (record, ended)])
    with at.agent(only="usage") as product:
        product.flush()
        assert product.status()["trouble"] == {}
        assert product.export_spool(at.state_dir.parent / "moved") >= 0


# --- nesting --------------------------------------------------------------------------------------


def nested(depth: int, brackets: str = "[]") -> bytes:
    text = b'{"v":1,"k":"licence","e":"server","id":"deep","at":1.0,"b":{"x":%s1%s}}' % (
        brackets[0].encode() * depth,
        brackets[-1].encode() * depth,
    )
    return b"%08x %b\n" % (jsonline.crc32(text), text)


DEEP = """
import sys
sys.setrecursionlimit(10**6)
print(waiting(directory), sum(len(view.damaged) for view in look(directory).views()))
"""


@pytest.mark.parametrize("depth", [300, 20_000, 250_000])
def test_a_deeply_nested_line_ends_no_interpreter_whose_limit_was_raised(
    place: Path, depth: int
) -> None:
    write_segment(place, [nested(depth), line("a")])
    assert done(child(DEEP, directory=place)).strip() == "['a'] 1"


@pytest.mark.parametrize("text", ["[" * 30_000, '\\"[{' * 10_000, "\\\\[" * 10_000, '"[' * 9000])
def test_brackets_in_a_text_are_no_nesting(place: Path, text: str) -> None:
    target = spool(place)
    keep(target, "a", text=text)
    (record,) = look(place).records()
    assert record.body["text_data"] == text


def test_a_wide_value_is_no_deep_one() -> None:
    value = {"list": [[n, {"n": n}] for n in range(1000)]}
    assert jsonline.decode(jsonline.encode(value)[:-1]) == value
    deep: Any = 1
    for _ in range(jsonline.DEPTH_MAX):
        deep = [deep]
    assert jsonline.decode(jsonline.encode(deep)[:-1]) == deep
    assert jsonline.decode(jsonline.encode([deep])[:-1]) is None


# --- export and import ----------------------------------------------------------------------------


def exported(target: Any, path: Path) -> None:
    origin = Facts(target.directory).origin(create=True)
    transfer.write_export(path, list(look(target.directory).records()), at=START, origin=origin)


@pytest.mark.parametrize("what", ["fifo", "directory", "/dev/zero"])
def test_what_is_no_regular_file_is_not_imported_and_hangs_nobody(
    tmp_path: Path, what: str
) -> None:
    path = tmp_path / "here"
    if what == "fifo":
        os.mkfifo(path)
    elif what == "directory":
        path.mkdir()
    else:
        path.symlink_to(what)
    with pytest.raises(OSError):
        transfer.read_export(path)


@pytest.mark.parametrize("path", ["/tmp/\0x", b"\0", 5.5, None, ["x"], "\ud800"])
def test_what_is_no_path_is_named(path: Any) -> None:
    for call in (transfer.read_export, lambda p: transfer.write_export(p, [], at=START)):
        with pytest.raises(agent.EventError) as caught:
            call(path)
        assert caught.value.field == "path"


def test_usage_is_not_imported_while_it_is_refused(place: Path, tmp_path: Path) -> None:
    home = spool(place)
    keep(home, "licence")
    assert home.record(usage("u"), sync=True) == DISK
    exported(home, tmp_path / "file")
    other = spool(tmp_path / "other")
    found = transfer.read_export(tmp_path / "file")
    assert transfer.put_import(other, found, refused=True) == 1
    assert waiting(tmp_path / "other") == ["licence"]


def test_usage_exported_before_a_refusal_is_not_taken_back_at_home(
    place: Path, tmp_path: Path
) -> None:
    home = spool(place)
    assert home.record(usage("before", home.consent.current(anchor=True)), sync=True) == DISK
    exported(home, tmp_path / "before")
    home.refuse_usage()
    assert home.record(usage("after", home.consent.current()), sync=True) == DISK
    exported(home, tmp_path / "after")
    assert transfer.put_import(home, transfer.read_export(tmp_path / "before")) == 0
    assert waiting(place) == ["after"]
    assert transfer.put_import(home, transfer.read_export(tmp_path / "after")) == 1
    elsewhere = spool(tmp_path / "elsewhere")
    assert transfer.put_import(elsewhere, transfer.read_export(tmp_path / "before")) == 1


def test_a_directory_keeps_its_origin_when_its_facts_are_rewritten(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "COMPACT_BYTES", 2000)
    target = spool(place)
    keep(target, "a")
    assert target.facts.origin() == ""
    origin = Facts(str(place)).origin(create=True)
    assert names.is_hex(origin, 16)
    for _ in range(40):
        lane = target.facts.lane("tag")
        lane.prove()
        target.facts.save(lane)
        target.facts.refresh()
        target.facts.compact()
    assert (place / names.FACTS).stat().st_size < 3000
    assert Facts(str(place)).origin(create=True) == origin


def test_the_mark_of_an_import_goes_when_its_records_would_be_too_old(
    place: Path, tmp_path: Path
) -> None:
    home = spool(place)
    keep(home, "a")
    exported(home, tmp_path / "file")
    target = spool(tmp_path / "other")
    assert transfer.put_import(target, transfer.read_export(tmp_path / "file")) == 1
    (mark,) = (tmp_path / "other").glob("imported-*")
    made_at = mark.stat().st_mtime
    target.sweep(None)
    target.sweep(made_at - 1)
    assert mark.exists()
    target.sweep(made_at + 1)
    assert not mark.exists()


# --- locks ----------------------------------------------------------------------------------------


def test_a_lock_whose_module_cannot_be_loaded_is_no_lock_and_no_error(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def importing(name: str, *more: Any) -> Any:
        if name == "fcntl":
            raise ImportError("Too many open files")
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", importing)
    monkeypatch.delitem(sys.modules, "fcntl", raising=False)
    target = spool(place)
    keep(target, "a")
    assert target.lockless and deliver(target) == ["a"]
    fd = files.create(str(place / "other"))
    assert files.lock(fd) is None
    files.release(fd)
    assert licence("b").usage is False
