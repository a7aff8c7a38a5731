"""What a writer, a reader and a reaper do to one segment: torn, damaged, planted, copied, newer, forked."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
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
    segments,
    spool,
    usage,
    waiting,
    write_segment,
)

from agent import files, jsonline
from agent.spool import names, records
from agent.spool.ledger import _is_known
from agent.spool.store import DISK, FULL, MEMORY
from agent.spool.view import DAMAGED_BYTES, SegmentView


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "state"


# --- lines --------------------------------------------------------------------------------------


NOTES = (Path(__file__).parents[2] / "vendor_notes" / "SPOOL.md").read_text("utf-8")
EXAMPLES = re.findall(r"^[0-9a-f]{8} .*$", NOTES, re.MULTILINE)


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_line_of_the_notes_checks_and_is_known(example: str) -> None:
    value = jsonline.decode(example.encode("ascii"))
    assert jsonline.encode(value) == example.encode("ascii") + b"\n"
    if isinstance(value, list):
        assert _is_known(value)
    elif value["k"] != "export":
        assert records.parse(value, "") not in (records.DAMAGED, records.NEWER)


def test_the_notes_show_every_kind_of_line() -> None:
    found = [jsonline.decode(example.encode("ascii")) for example in EXAMPLES]
    kinds = {value[0] if isinstance(value, list) else value["k"] for value in found}
    assert kinds == {"licence", "count", "export", "a", "b", "f", "s"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_could_not_be_written_again_is_damage(number: str) -> None:
    text = b'{"v":1,"at":%s}' % number.encode()
    assert jsonline.decode(b"%08x %b" % (jsonline.crc32(text), text)) is None


@pytest.mark.parametrize(
    "change",
    [{"at": 10**400}, {"at": True, "b": 1}, {"k": "other"}, {"v": "1"}, {"v": 0}, {"id": 7}]
    + [{"g": "x"}, {"c": 1.5}, {"end": "x"}, {"why": 1}, {"b": []}, {"at": "1"}],
)
def test_a_line_that_checks_but_is_no_record_is_damage(
    place: Path, change: dict[str, object]
) -> None:
    write_segment(place, [jsonline.encode({**licence("a").to_json(), **change}), line("b")])
    found = look(place)
    assert [record.id for record in found.records()] == ["b"]
    assert sum(len(view.damaged) for view in found.views()) == 1


def test_every_offset_of_a_cut_costs_at_most_the_record_that_was_cut(place: Path) -> None:
    lines = [line("a"), line("b"), line("c")]
    whole = b"".join(lines)
    path = write_segment(place, [])
    ends = [len(lines[0]), len(lines[0] + lines[1]), len(whole)]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        # A record whose newline alone is missing is whole: its checksum says so.
        assert waiting(place) == ["a", "b", "c"][: sum(cut >= end - 1 for end in ends)]


@settings(max_examples=60)
@given(data=st.data())
def test_noise_costs_the_lines_it_touches(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    ids = ["id-%d" % n for n in range(6)]
    lines = [line(id) for id in ids]
    whole = bytearray(b"".join(lines))
    touched = set()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] = data.draw(st.sampled_from([0, whole[at] ^ 1, whole[at] ^ 128, 10]))
        end = 0
        for number, text in enumerate(lines):
            end += len(text)
            if at < end:
                touched.add(ids[number])
                if at == end - 1 and number + 1 < len(ids):
                    touched.add(ids[number + 1])  # the newline between two
                break
    place = tmp_path_factory.mktemp("noise")
    write_segment(place, [bytes(whole)])
    found = waiting(place)
    assert [id for id in ids if id not in touched] == [id for id in found if id not in touched]
    assert set(found) <= set(ids)


def test_damage_is_set_aside_counted_and_bounded(place: Path) -> None:
    target = spool(place)
    for ms in range(4):
        write_segment(
            place, [b"x" * 70_000 + b"\n", b"short\n", line("id-%d" % ms), b"torn"], ms=ms
        )
    assert deliver(target) == ["id-0", "id-1", "id-2", "id-3"]
    kept = (place / names.DAMAGED).read_bytes()
    assert kept.count(b"\n") == 12  # three in each
    assert b"short\n" in kept and b"torn\n" in kept and len(kept) < DAMAGED_BYTES
    write_segment(place, [b"y" * 1000 + b"\n"] * 2000)
    deliver(target)
    assert (place / names.DAMAGED).stat().st_size < 2 * DAMAGED_BYTES + 1024
    assert not segments(place)


# --- writers ------------------------------------------------------------------------------------


def test_a_torn_tail_waits_for_its_writer_and_is_damage_without_one(place: Path) -> None:
    target = spool(place)
    keep(target, "a")
    (path,) = segments(place)
    with open(path, "ab") as file:
        file.write(line("b")[:-10])
    found = look(place)
    assert [record.id for record in found.records()] == ["a"]
    assert [len(view.damaged) for view in found.views()] == [
        0
    ]  # its writer may be in the middle of it
    other = spool(place)
    assert deliver(other) == ["a"] and segments(place) == [path]
    with open(path, "ab") as file:
        file.write(line("b")[-10:])
    assert deliver(other) == ["b"]
    with open(path, "ab") as file:
        file.write(b"0000")
    target.seal()
    deliver(other)
    assert segments(place) == [] and (place / names.DAMAGED).read_bytes() == b"0000\n"


SHORT = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
target = spool(directory)
keep(target, "a")
size = segments(directory)[0].stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))
print(target.record(licence("b"), sync=True), target.record(licence("c", "x" * 1000), sync=True))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(target.record(licence("d"), sync=True), len(target.memory), target.trouble)
os.kill(os.getpid(), 9)
"""


def test_a_short_write_tears_no_line_and_swallows_no_neighbour(place: Path) -> None:
    out, _ = child(SHORT, directory=place).communicate(timeout=30)
    # The second fits into a segment of its own; the third into none.
    kept, trouble = out.splitlines()[0].split(), out.splitlines()[1]
    assert [*kept, *trouble.split()[:2]] == [DISK, MEMORY, DISK, "1"]
    assert "write:" in trouble  # as long as one does not survive
    assert sorted(waiting(place)) == ["a", "b", "d"]
    assert all(path.read_bytes().endswith(b"\n") for path in segments(place))


def test_a_failed_sync_moves_the_record_whole_to_another_segment(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, real, fail = spool(place), os.fsync, [True]

    def fsync(fd: int) -> None:
        if fail and fail.pop():
            raise OSError(5, "the disk is ill")
        real(fd)

    keep(target, "a")
    monkeypatch.setattr(os, "fsync", fsync)
    keep(target, "b")
    assert len(segments(place)) == 2 and waiting(place) == ["a", "b"]


def test_a_file_system_that_cannot_sync_a_directory_is_no_trouble(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(fd: int) -> None:
        if os.path.isdir("/proc/self/fd/%d" % fd):
            raise OSError(22, "Invalid argument")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    target = spool(place)
    keep(target, "a")
    assert target.trouble == "" and len(segments(place)) == 1


def test_a_directory_that_vanishes_is_made_again_and_the_record_kept(place: Path) -> None:
    target = spool(place)
    keep(target, "a")
    shutil.rmtree(place)
    keep(target, "b")
    assert waiting(place) == ["b"]


def test_a_lock_on_a_file_that_lost_its_name_is_no_lock(place: Path) -> None:
    place.mkdir()
    path = str(place / "file")
    for successor in (False, True):
        fd = files.create(path)
        assert files.hold(fd, path) is True
        files.unlock(fd)
        os.unlink(path)
        if successor:
            files.close(files.create(path))
        assert files.hold(fd, path) is False
        files.close(fd)


WRITERS = """
target = spool(directory, power=False)
for n in range(40):
    id = "%s-%d" % (sys.argv[2], n)
    target.record(licence(id), sync=False)
    target.seal()
    target._writers.clear()   # each time a first append: a new segment, or one taken over
    print(id, flush=True)
"""
REAPER = """
target = spool(directory, power=False)
print("ready", flush=True)
sent = 0
while os.path.exists(directory + ".go"):
    for id in deliver(target):
        print(id, flush=True)
for id in deliver(target):
    print(id, flush=True)
"""


def test_no_acknowledged_record_is_lost_to_a_concurrent_reaper(place: Path) -> None:
    go = Path(str(place) + ".go")
    go.touch()
    reaper = child(REAPER, directory=place)
    assert reaper.stdout is not None and reaper.stdout.readline() == "ready\n"
    writers = [child(WRITERS, n, directory=place) for n in range(6)]
    written = [id for writer in writers for id in done(writer).split()]
    go.unlink()
    sent = done(reaper).split()
    assert len(written) == 240 and sorted(sent) == sorted(written)
    assert segments(place) == []


def test_processes_that_record_once_and_end_share_a_segment(place: Path) -> None:
    for n in range(20):
        target = spool(place)
        keep(target, "id-%d" % n)
        target.seal()
    assert len(segments(place)) == 1
    assert waiting(place) == ["id-%d" % n for n in range(20)]


def test_a_segment_that_somebody_writes_is_not_taken_over(place: Path) -> None:
    first, second = spool(place), spool(place)
    keep(first, "a")
    keep(second, "b")
    keep(first, "c")
    assert len(segments(place)) == 2 and sorted(waiting(place)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "content",
    [b"noise\n", b"", b"torn", jsonline.encode({**licence("a").to_json(), "v": 2})],
    ids=["damaged", "empty", "torn", "newer"],
)
def test_a_segment_that_is_not_plainly_ours_is_not_taken_over(place: Path, content: bytes) -> None:
    path = write_segment(place, [line("old"), content])
    path.write_bytes(content if not content else path.read_bytes())
    before = path.read_bytes()
    keep(spool(place), "new")
    assert path.read_bytes() == before and len(segments(place)) == 2


def test_counters_are_never_taken_over_for_their_windows_ended_with_their_writer(
    place: Path,
) -> None:
    for n in range(2):
        target = spool(place)
        target.append(names.COUNTERS, usage("id-%d" % n).to_json(), sync=False)
        target.seal()
    assert len(segments(place, names.COUNTERS)) == 2


def test_a_segment_is_sealed_by_size_by_count_and_by_age(place: Path) -> None:
    clock = FakeClock()
    target = spool(place, clock=clock, max_bytes=640_000)  # 10,000 bytes each
    for n in range(30):
        keep(target, "id-%d" % n, text="x" * 1000)
    assert len(segments(place)) == 4
    target = spool(place, clock=clock, max_records=640)  # 10 records each
    keep(target, *("id-%d" % n for n in range(30, 51)))
    grown = len(segments(place))
    assert 6 <= grown <= 7
    clock.advance(3601)
    keep(target, "late")
    assert len(segments(place)) == grown + 1
    assert len(waiting(place)) == 52


def test_the_order_of_a_run_outlives_a_clock_that_goes_back(place: Path) -> None:
    clock = FakeClock()
    target = spool(place, clock=clock, max_records=64)  # a segment for each record
    for n in range(10):
        keep(target, "id-%d" % n)
        clock.at -= 100_000
    assert waiting(place) == ["id-%d" % n for n in range(10)]


def test_a_signal_in_the_middle_of_an_append_records_beside_it(place: Path) -> None:
    target = spool(place)
    keep(target, "a")
    real, results = os.fsync, []

    def handler(*_: object) -> None:
        results.append(target.record(licence("from-the-handler"), sync=True))

    def fsync(fd: Any) -> None:
        os.fsync = real  # once
        os.kill(os.getpid(), signal.SIGUSR1)
        real(fd)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        os.fsync = fsync
        keep(target, "b")
    finally:
        os.fsync = real
        signal.signal(signal.SIGUSR1, before)
    keep(target, "c")
    assert results == [DISK] and len(segments(place)) == 2
    assert sorted(waiting(place)) == ["a", "b", "c", "from-the-handler"]
    assert sorted(deliver(spool(place))) == ["a", "b", "c", "from-the-handler"]


# --- forks --------------------------------------------------------------------------------------


def is_locked(path: Path) -> bool:
    """As another process sees it."""
    code = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    run = subprocess.run(["python3", "-c", code, str(path)], capture_output=True, text=True)
    return run.returncode != 0 and "BlockingIOError" in run.stderr


FORK = """
import fcntl
target = spool(directory)
keep(target, "parent-1")
claim = target.claim()
(path,) = segments(directory)
read, write = os.pipe()
pid = os.fork()
if not pid:
    target.after_fork()
    keep(target, "child")
    assert target.claim() is None, "the parent delivers"
    os.write(write, b"x")
    time.sleep(60)
os.read(read, 1)
def is_held(path):
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
before = is_held(path)                            # the child did not unlock it
keep(target, "parent-2")
target.seal()
target.release(claim)
print(before, is_held(path), is_held(directory + "/lock"), len(segments(directory)))
print(*sorted(waiting(directory)))
again = target.claim()
assert again is not None
target.release(again)
os.kill(pid, 9)
os.waitpid(pid, 0)
"""


def test_a_forked_child_neither_frees_nor_keeps_what_its_parent_holds(place: Path) -> None:
    out = done(child(FORK, directory=place)).splitlines()
    assert out == ["True False False 2", "child parent-1 parent-2"]


def test_a_child_closes_every_descriptor_of_ours(place: Path) -> None:
    code = """
target = spool(directory)
keep(target, "a", "b")
target.claim()
target.backlog.refresh()
for record in target.backlog.records():
    target.backlog.ledger.begin(record)
view = SegmentView(directory, names.segment("u", 1))
open(view.path, "w").close()
os.chmod(view.path, 0o600)
assert view.seize()
def ours():
    links = (os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd"))
    return [t for t in (os.readlink(l) for l in links if os.path.islink(l)) if t.startswith(directory)]
assert len(ours()) == 4, ours()
if os.fork() == 0:
    target.after_fork()
    print(len(ours()), flush=True)
    os._exit(0)
os.wait()
print(len(ours()))
"""
    code = "from agent.spool.view import SegmentView\n" + code
    assert done(child(code, directory=place)).split() == ["0", "4"]


# --- what else may lie there --------------------------------------------------------------------


def test_a_newer_format_is_left_untouched_and_never_removed(place: Path) -> None:
    newer = jsonline.encode({"v": 2, "k": "licence", "anything": [1]})
    path = write_segment(place, [line("old"), newer])
    before = path.read_bytes()
    target = spool(place, max_bytes=20_000)
    assert deliver(target) == ["old"] and deliver(target) == []
    for n in range(60):
        target.record(licence("id-%d" % n, "x" * 400), sync=False)
    target.refuse_usage()
    deliver(spool(place))
    assert path.read_bytes() == before
    assert sum(view.newer for view in look(place).views()) == 1


def test_a_copied_segment_delivers_each_record_once(place: Path) -> None:
    target = spool(place)
    keep(target, "a", "b")
    (path,) = segments(place)
    shutil.copy(path, place / names.segment("l", 7))
    target.seal()
    assert deliver(spool(place)) == ["a", "b"]
    assert segments(place) == []


@pytest.mark.parametrize("kind", ["directory", "pipe", "link", "nothing readable"])
@pytest.mark.parametrize(
    "what", ["segment", "sidecar", names.FACTS, names.LOCK, names.HISTORY, names.DAMAGED]
)
def test_whatever_lies_in_the_place_of_a_file_costs_only_that_file(
    place: Path, tmp_path: Path, kind: str, what: str
) -> None:
    target = spool(place)
    keep(target, "a")
    path = place / what
    if what == "segment":
        path = place / names.segment("l", 3)
    elif what == "sidecar":
        path = place / names.sidecar(segments(place)[0].name)
    outside = tmp_path / "outside"
    outside.write_bytes(b"not ours")
    if kind == "directory":
        path.mkdir()
        (path / "content").touch()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(outside)
    else:
        path.touch(0o000)
    other = spool(place)
    lane = other.facts.lane("tag")
    other.facts.refresh()
    lane.prove()
    other.facts.save(lane)
    other.history.add({"at": 1})
    other.history.last(3)
    keep(other, "b")
    assert sorted(deliver(other)) == ["a", "b"] and deliver(other) == []
    assert outside.read_bytes() == b"not ours"
    keep(target, "c")


def test_a_file_or_a_link_in_place_of_the_directory_keeps_records_in_memory(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere"
    real.mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(real)
    for path in (tmp_path / "file", tmp_path / "link", tmp_path / "file" / "below"):
        target = spool(path)
        assert target.record(licence("a"), sync=True) == MEMORY
        assert target.trouble and deliver(target) == ["a"] and target.memory == []
    assert list(real.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_not_used(place: Path) -> None:
    place.mkdir()
    os.chown(place, 12345, 12345)
    target = spool(place)
    assert target.record(licence("a"), sync=True) == MEMORY
    assert list(place.iterdir()) == []
    below = spool(place / "below")  # nor one in somebody else's home
    assert below.record(licence("a"), sync=True) == MEMORY
    assert list(place.iterdir()) == []


def test_a_directory_that_others_may_write_is_closed_to_them(place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)
    keep(spool(place), "a")
    assert place.stat().st_mode & 0o777 == 0o700
    assert segments(place)[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o1777, 0o1770, 0o3777, 0o777])
def test_a_directory_that_others_use_too_is_refused_and_left_as_it_is(
    place: Path, mode: int
) -> None:
    place.mkdir()
    if not mode & 0o1000:
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        (place / "of somebody").touch()
        os.chown(place / "of somebody", 12345, 12345)
    place.chmod(mode)
    before = os.listdir(place)
    target = spool(place)
    assert target.record(licence("a"), sync=True) == MEMORY
    assert "shared" in target.trouble
    assert deliver(target) == ["a"]
    assert place.stat().st_mode & 0o7777 == mode and os.listdir(place) == before


@pytest.mark.skipif(os.name == "nt", reason="no modes there")
def test_files_of_ours_that_others_may_read_are_closed_to_them_once_written(place: Path) -> None:
    target = spool(place)
    keep(target, "a")
    target.history.add({"at": 1})
    target.seal()
    (place / names.LOCK).touch()
    for path in place.iterdir():
        path.chmod(0o666)
    again = spool(place)
    again.history.add({"at": 2})
    assert deliver(again) == ["a"]
    left = {path.name: path.stat().st_mode & 0o777 for path in place.iterdir()}
    assert {names.HISTORY, names.LOCK} <= set(left) and set(left.values()) == {0o600}


def test_files_with_other_names_are_nobodys(place: Path) -> None:
    place.mkdir()
    strangers = ["video.seg", "l-1-2.seg", "consent-form.pdf", "imported-photos", "notes.ack"]
    strangers += [
        "consent-\u00b2",
        "identity-card",
        "L-%012x-%016x.seg" % (1, 2),
        "facts.bak",
        "x.tmp",
    ]
    for name in strangers:
        (place / name).write_bytes(b"content of somebody")
    target = spool(place, max_bytes=100_000)
    for n in range(300):
        target.record(licence("id-%d" % n, "x" * 500), sync=False)
    target.refuse_usage()
    deliver(target)
    assert all((place / name).read_bytes() == b"content of somebody" for name in strangers)
    assert not any(map(names.is_ours, strangers))


@pytest.mark.parametrize(
    "name",
    ["facts", "lock", "history", "damaged", "consent-0", "consent-1760000000000"]
    + ["imported-%016x" % 5, "identity-%016x" % 5, "identity-%016x.lock" % 5]
    + ["l-%012x-%016x.seg" % (1, 2), "y-%012x-%016x.ack" % (1, 2)]
    + [
        "facts.%016x.tmp" % 1,
        "identity-%016x.%016x.tmp" % (5, 1),
        "l-%012x-%016x.ack.%016x.tmp" % (1, 2, 3),
    ],
)
def test_every_file_of_ours_is_known_by_its_name(name: str) -> None:
    assert names.is_ours(name)


def test_a_full_memory_says_so(tmp_path: Path) -> None:
    target = spool(None)
    results = [target.record(licence("id-%d" % n), sync=True) for n in range(1001)]
    assert results == [MEMORY] * 1000 + [FULL]


def test_windows_closes_before_it_unlinks(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There an open file cannot be unlinked: whoever reaps closes first, and a writer's file stays."""
    target = spool(place)
    keep(target, "a")
    target.seal()
    order: list[str] = []
    real_close, real_unlink = os.close, os.unlink
    monkeypatch.setattr(files, "WINDOWS", True)
    monkeypatch.setattr(files, "lock", lambda fd: True)

    def close(fd: int) -> None:
        order.append("close")
        real_close(fd)

    monkeypatch.setattr(os, "close", close)

    def unlink(path: str) -> None:
        order.append("unlink")
        real_unlink(path)

    monkeypatch.setattr(os, "unlink", unlink)
    view = SegmentView(str(place), segments(place)[0].name)
    assert view.seize()
    del order[:]
    assert view.remove()
    assert order[:2] == ["close", "unlink"]


def test_an_unlinked_file_that_stays_is_reaped_by_a_later_pass(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = spool(place)
    keep(target, "a")
    target.seal()
    real, refusals = os.unlink, [PermissionError(13, "in use")] * 3

    def unlink(path: str) -> None:
        if refusals:
            raise refusals.pop()
        real(path)

    monkeypatch.setattr(os, "unlink", unlink)
    other = spool(place)
    assert deliver(other) == ["a"] and len(segments(place)) == 1
    while refusals:
        assert deliver(other) == []
    assert deliver(other) == [] and segments(place) == []


# --- where locks do not work --------------------------------------------------------------------


@pytest.mark.parametrize("error", [37, 95, 22, 9])  # ENOLCK, EOPNOTSUPP, EINVAL, EBADF
def test_without_locks_delivery_goes_on_and_nothing_young_is_reaped(
    place: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def flock(fd: int, how: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", flock)
    target = spool(place)
    keep(target, "a")
    target.seal()
    assert target.lockless
    other = spool(place)
    assert deliver(other) == ["a"] and other.lockless
    assert deliver(other) == [] and len(segments(place)) == 1
    old = START - 8 * 86400
    os.utime(segments(place)[0], (old, old))
    assert deliver(other) == [] and segments(place) == []
