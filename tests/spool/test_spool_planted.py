"""Values, nesting and files that nobody of ours wrote: nothing of them raises, hangs, or stops delivery for good."""

import os
from pathlib import Path
from typing import Any

import pytest
from support.spool import (
    START,
    child,
    deliver,
    done,
    keep,
    licence,
    line,
    look,
    segments,
    spool,
    usage,
    waiting,
    write_segment,
)
from support.systems import of_posix, posix

from agent import lines
from agent.spool import segment
from agent.spool.store import DISK, MEMORY

pytestmark = pytest.mark.once

# --- lines ----------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    text = b'{"v":1,"k":"licence","e":"server","id":"deep","at":1.0,"b":{"x":%s1%s}}'
    text %= (b"[" * depth, b"]" * depth)
    return b"%08x %b\n" % (lines.crc32(text), text)


DEEP = """
sys.setrecursionlimit(10**6)
print(waiting(directory), look(directory).census()["damaged"])
"""


def test_a_deeply_nested_line_ends_no_interpreter_whose_limit_was_raised(place: Path) -> None:
    write_segment(place, [nested(300), nested(20_000), nested(250_000), line("a")])
    assert done(child(DEEP, directory=place)).strip() == "['a'] 3"


@pytest.mark.parametrize("text", ["[" * 30_000, '\\"[{' * 10_000, "\\\\[" * 10_000, '"[' * 9000])
def test_brackets_in_a_text_are_no_nesting(place: Path, text: str) -> None:
    keep(spool(place), "a", text=text)
    (record,) = look(place).records()
    assert record.body["text_data"] == text


def test_a_wide_value_is_no_deep_one() -> None:
    value: Any = {"list": [[n, {"n": n}] for n in range(1000)]}
    assert lines.decode(lines.encode(value)) == value
    deep: Any = 1
    for _ in range(lines.DEPTH_MAX):
        deep = [deep]
    assert lines.decode(lines.encode([deep] + [[]] * 99)) is None
    assert lines.decode(lines.encode(deep)) == deep


@pytest.mark.parametrize("number", [10**400, -(10**400), 1e308, -1, True, None, "x", [1]])
def test_a_planted_entry_of_the_book_raises_nothing(place: Path, number: Any) -> None:
    keep(spool(place), "a")
    entry = {"v": 1, "k": "record", "e": "server", "id": "a"}
    values: list[Any] = [
        {**entry, "run": "run", "failed": number, "counted": number},
        {**entry, "failed": number},
        {**entry, "id": "b", "outcome": "delivered", "verdict": "delivered", "at": number},
        {**entry, "id": "b", "verdict": number, "at": 1},
        {**entry, "e": number, "outcome": "delivered"},
        {**entry, "run": number, "outcome": number},
        {**entry, "origin": number},
        [number, "server", "a"],
        number,
        {"v": 1, "k": number, "tag": number},
        {"v": 1, "k": "book", "tag": "x", "size": number},
        {"v": 1, "k": "lane", "tag": "x", "failures": number},
    ]
    (place / "agent.book").write_bytes(b"".join(map(lines.encode, values)))
    (place / "agent.book").chmod(0o600)
    target = spool(place)
    target.history(9)
    assert target.census()["pending"] == {"server": 1} and target.trouble == {}
    assert deliver(target) == ["a"] and target.trouble == {}


# --- long files -----------------------------------------------------------------------------------

LONG = """
began = time.process_time()
target = spool(directory)
print(len(deliver(target, limit=3)), target.census()["damaged"], time.process_time() - began)
if os.path.exists("/proc/self/status"):  # the most memory that this program ever had, in KB
    print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
"""


def test_a_planted_segment_of_tens_of_thousands_of_records_costs_little(place: Path) -> None:
    """One of 60 MB cost 1.1 GB of memory."""
    record = {"v": 1, "k": "licence", "e": "server", "at": START, "b": {"x": "x" * 500}}
    write_segment(place, [lines.encode({**record, "id": "%x" % n}) for n in range(30_000)])
    sent, damaged, took_s, *most_kb = done(child(LONG, directory=place)).split()
    assert (sent, damaged) == ("3", "0") and float(took_s) < 7
    assert sum(map(int, most_kb)) < 90_000


def test_a_long_file_of_damage_is_counted_and_goes(place: Path) -> None:
    write_segment(place, [b"\0" * 9_000_000, b"\n", b"x\n" * 90_000, line("a")])
    assert look(place).census()["damaged"] > 90_000
    assert deliver(spool(place)) == ["a"] and segments(place) == []


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["directory", "nothing readable", *of_posix("pipe", "link", "dangling")]
)
@pytest.mark.parametrize(
    "what", ["segment", "agent.book", "agent.lock", "agent.room", "agent.consent"]
)
def test_whatever_lies_in_the_place_of_a_file_costs_only_that_file(
    place: Path, tmp_path: Path, kind: str, what: str
) -> None:
    keep(spool(place), "a")
    path = place / (what if what != "segment" else "l-%012x-%016x.seg" % (3, 3))
    outside = tmp_path / "outside"
    outside.write_bytes(b"not ours")
    if kind == "directory":
        path.mkdir()
        (path / "content").touch()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind in ("link", "dangling"):
        path.symlink_to(outside if kind == "link" else tmp_path / "nowhere")
    else:
        path.touch(0o000)
    other = spool(place, max_bytes=40_000, power=False)
    other.book.note("lane", "tag", failures=1)
    other.refresh()
    other.history(3)
    keep(other, "b")
    epoch = other.consent.ensure()
    assert bool(epoch) == (what != "agent.consent" or kind == "nothing readable")
    assert sorted(deliver(other)) == ["a", "b"] and deliver(other) == []
    other.refuse_usage()
    for n in range(60):
        assert other.record(licence("id-%d" % n, "x" * 900), sync=False) in (DISK, MEMORY)
    assert outside.read_bytes() == b"not ours" and not (tmp_path / "nowhere").exists()
    keep(spool(place), "c")


@posix
def test_what_others_may_read_or_write_is_closed_to_them(place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)
    target = spool(place)
    keep(target, "a", "b")
    assert place.stat().st_mode & 0o777 == 0o700
    assert target.record(usage("u", target.consent.ensure()), sync=True) == DISK
    deliver(target, limit=1)
    target.seal()
    for path in place.iterdir():
        path.chmod(0o666)
    again = spool(place)
    keep(again, "c")
    deliver(again, limit=1)
    again.refuse_usage()
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o600}


def test_without_a_directory_nothing_is_done_to_the_one_that_the_host_works_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent.lock").mkdir()
    (tmp_path / "agent.book").touch()
    target = spool(None)
    assert target.record(licence("a"), sync=True) == MEMORY
    target.book.note("lane", "tag", failures=1)
    assert deliver(target) == ["a"] and target.census()["bytes"] == 0
    target.refuse_usage()
    assert sorted(os.listdir(tmp_path)) == ["agent.book", "agent.lock"]
    assert (tmp_path / "agent.book").stat().st_size == 0 and target.trouble == {}


def test_files_with_other_names_are_nobodys_and_all_of_ours_are_known(place: Path) -> None:
    place.mkdir()
    strangers = ["video.seg", "l-1-2.seg", "consent-form.pdf", "agent.txt", "identity-card"]
    strangers += ["L-%012x-%016x.seg" % (1, 2), "agent.book.bak", "x.tmp", "agent.book.tmp"]
    strangers += ["z-%012x-%016x.seg" % (1, 2), "l-%012X-%016x.seg" % (10, 2), ".agent.lock"]
    for name in strangers:
        (place / name).write_bytes(b"content of somebody")
    target = spool(place, max_bytes=40_000)
    for n in range(100):
        target.record(licence("id-%d" % n, "x" * 500), sync=False)
    target.refuse_usage()
    deliver(target)
    assert all((place / name).read_bytes() == b"content of somebody" for name in strangers)
    assert not any(map(segment.is_ours, strangers))
    ours = ["agent.book", "agent.lock", "agent.room", "agent.consent", "identity-%016x" % 5]
    ours += [
        "%s.%016x.tmp" % (name, 1) for name in ours if name not in ("agent.lock", "agent.room")
    ]
    ours += ["%s-%012x-%016x.seg" % (class_, 1, 2) for class_ in "luc"]
    assert all(map(segment.is_ours, [*ours, "identity-%016x.lock" % 5]))


def test_a_record_of_an_endpoint_that_nobody_knows_is_kept_and_counted(place: Path) -> None:
    write_segment(place, [lines.encode({**licence("a").to_json(), "e": "retired"}), line("b")])
    assert look(place).census()["pending"] == {"retired": 1, "server": 1}
    assert waiting(place) == ["a", "b"]
