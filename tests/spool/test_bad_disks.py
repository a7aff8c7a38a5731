"""Real file systems in a bad state: full, out of inodes, read-only, gone, somebody else's, with odd names.

``test_agent_trouble`` has what needs no file system of its own, ``test_campaign_faults`` system calls that fail.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agent import Desk, child_environ, desk, endpoint, run_python, snapshot
from support.disks import EXT4, EXT4_1K, KINDS, TMPFS, NotHere, fill, fill_names, mounted

import agent
from agent.spool import segment

pytestmark = [pytest.mark.once, pytest.mark.skipif(os.name == "nt", reason="needs a POSIX system")]


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path / "state") as found:
        unsigned = found.config
        found.config = lambda **changes: unsigned(**{"keys": (), **changes})  # type: ignore[method-assign]
        yield found


@pytest.fixture
def disk(request: pytest.FixtureRequest, at: Desk, tmp_path: Path) -> Iterator[Path]:
    """A small file system; the state directory lies on it."""
    settings: dict[str, Any] = {"kind": TMPFS, **getattr(request, "param", {})}
    try:
        with mounted(tmp_path / "disk", settings.pop("kind"), **settings) as place:
            at.state_dir = place / "state"
            yield place
    except NotHere as reason:
        pytest.skip(str(reason))


def on(*kinds: str, **settings: Any) -> Any:
    """The same test on several file systems."""
    given = [{"kind": kind, **settings} for kind in kinds]
    return pytest.mark.parametrize("disk", given, ids=kinds, indirect=True)


def record(product: agent.Agent, texts: Iterator[str] | list[str], acknowledged: set[str]) -> int:
    """Record these; how many were not acknowledged."""
    missed = 0
    for text in texts:
        if product.record_text(text, data_group="g") is None:
            missed += 1
        else:
            acknowledged.add(text)
    return missed


def everything_arrived(at: Desk, texts: set[str]) -> None:
    """Each of them exactly once, and the count."""
    counts = Counter(at.texts())
    assert set(counts) == texts
    assert set(counts.values()) == {1}


@on(*KINDS)
def test_a_disk_that_is_full_to_the_last_byte(at: Desk, disk: Path) -> None:
    texts = ["%03d " % number + "x" * 300 for number in range(60)]
    acknowledged: set[str] = set()
    with at.agent() as product:
        assert record(product, texts[:10], acknowledged) == 0
        product.count("RENDER", 2)
        event = product.track("EXPORT")
        filler = fill(disk)
        missed = record(product, texts[10:], acknowledged)
        product.count("RENDER", 3)
        status = product.status()
        assert missed > 20 and status["in_memory"] >= missed
        assert "No space" in status["trouble"]["spool"]
        report = product.flush(timeout=30)
        assert set(at.texts()) == set(texts) and report.delivered >= 61
        assert "No space" in product.status()["trouble"].get("spool", "No space")
        filler.unlink()
        assert product.flush(timeout=30).drained
        assert product.status()["trouble"] == {} and product.status()["in_memory"] == 0
        assert product.record_text("after", data_group="g") is not None
    with at.agent() as product:
        assert product.flush(timeout=30).drained
    everything_arrived(at, {*texts, "after"})
    usage = [r["fields"] for r in at.collector.records() if r["endpoint"] != "getkeymanager"]
    assert sum(one.get("count", 0) for one in usage) == 5
    assert [one["event_id"] for one in usage if one["activity_type"] == "EXPORT"] == [event]


@on(TMPFS, EXT4_1K)
def test_delivery_frees_a_full_disk(at: Desk, disk: Path) -> None:
    """Nothing can be written, not even that an answer came; what is settled goes all the same."""
    acknowledged: set[str] = set()
    with at.agent(only="licence") as product:
        assert record(product, ["%03d" % n for n in range(30)], acknowledged) == 0
    fill(disk)
    with at.agent(only="licence") as product:
        assert product.flush(timeout=30).drained
    everything_arrived(at, acknowledged)
    assert segment.listing(str(at.state_dir)) == []
    with at.agent(only="licence") as product:
        assert product.flush().delivered == 0


@on(TMPFS, size_kb=4096)
def test_what_a_quota_drops_on_a_full_disk_is_counted_exactly(at: Desk, disk: Path) -> None:
    acknowledged: set[str] = set()
    texts = ["%03d " % number + "x" * 1000 for number in range(300)]
    with at.agent(only="licence", max_bytes=200_000) as product:
        record(product, texts[:200], acknowledged)
        filler = fill(disk)
        record(product, texts[200:], acknowledged)
        lost = product.status()["not_recorded"]
        filler.unlink()
        while not product.flush(timeout=30).drained:
            pass
        assert product.status()["trouble"] == {}
    records = [record["fields"] for record in at.collector.records()]
    dropped = [r for r in records if r["data_group"] == "agent-dropped"]
    reported = sum(int(one["numeric_data_single_value"]) for one in dropped)
    arrived = {r["text_data"] for r in records if r["data_group"] == "g"}
    assert len(arrived) + reported == 300 - lost.get("quota", 0) and reported > 50


@on(TMPFS, EXT4, inodes=40)
def test_a_disk_without_a_file_to_give(at: Desk, disk: Path) -> None:
    acknowledged: set[str] = set()
    with at.agent() as first, at.agent() as second:
        assert record(first, ["one"], acknowledged) == 0
        made = fill_names(disk)
        assert len(made) > 5
        # The open segment grows; another process finds no room for one of its own.
        assert record(first, ["two"], acknowledged) == 0
        assert record(second, ["three"], acknowledged) == 1
        assert "No space" in second.status()["trouble"]["spool"]
        assert second.flush(timeout=30).drained
        for path in made:
            path.unlink()
        assert record(second, ["four"], acknowledged) == 0
        assert second.flush(timeout=30).drained and second.status()["trouble"] == {}
    everything_arrived(at, {"one", "two", "three", "four"})


UNTIL_FULL = """
import json, os, sys
import agent
t = agent.Agent(agent.Config(
    vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5", usage_consent=True,
    state_dir=sys.argv[1], deliver="manual", endpoints=(
        agent.GetKeyManager(base_url="http://127.0.0.1:1", api_key="k", allow_unsigned=True),
        agent.Reo(base_url="http://127.0.0.1:1", api_key="k", domain="acme.example"))))
missed = number = 0
texts, events = [], []
while missed < 20:
    text = "%04d " % number + "x" * (number * 37 % 2000)
    number += 1
    if t.record_text(text, data_group="g"):
        texts.append(text)
    else:
        missed += 1
    event = t.track("EXPORT", meta={"text": text})
    events += [event] if event else []
os.write(1, json.dumps([texts, events]).encode())
os.kill(os.getpid(), 9)
"""


@on(TMPFS, EXT4_1K)
def test_a_disk_that_fills_up_while_a_writer_is_killed(at: Desk, disk: Path) -> None:
    space = shutil.disk_usage(disk).free
    if space > 500_000:
        (disk / "big").write_bytes(b"x" * (space - 400_000))
    child = subprocess.run(
        [sys.executable, "-c", UNTIL_FULL, str(at.state_dir)],
        capture_output=True,
        env=child_environ(),
        timeout=40,
        check=False,
    )
    assert (child.returncode, child.stderr) == (-signal.SIGKILL, b"")
    texts, events = json.loads(child.stdout)
    assert len(texts) > 50 and len(events) > 20
    with at.agent(api_key="k") as product:  # still full
        assert product.status()["pending"] >= len(texts) + len(events)
    at.collector.clear()
    with at.agent() as product:
        assert product.flush(timeout=40).drained
    arrived = Counter(at.texts())
    assert set(texts) <= set(arrived) and set(arrived.values()) == {1}
    usage = Counter(
        r["fields"]["event_id"] for r in at.collector.records() if r["endpoint"] == "reo-usage"
    )
    assert set(events) <= set(usage) and set(usage.values()) == {1}


def remount(disk: Path, *options: str) -> None:
    found = subprocess.run(
        ["mount", "-o", ",".join(("remount", *options)), str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        pytest.skip("cannot be remounted here: " + found.stderr.strip())


@on(TMPFS, EXT4, size_kb=4096)
def test_a_disk_that_is_read_only_from_the_start(at: Desk, disk: Path) -> None:
    acknowledged: set[str] = set()
    with at.agent() as product:
        record(product, ["before"], acknowledged)
        user = product.user_identifier
    remount(disk, "ro")
    before = snapshot(at.state_dir)
    with at.agent() as product:
        assert product.user_identifier == user
        assert record(product, ["during"], acknowledged) == 1
        assert "ead-only" in product.status()["trouble"]["spool"]
        # What lies on the disk would be sent at every start.
        assert product.flush(timeout=30).pending == 1
        assert "ead-only" in product.status()["trouble"]["spool"]
        product.set_usage_consent(False)
    assert snapshot(at.state_dir) == before
    assert at.texts() == ["during"]
    remount(disk, "rw")
    with at.agent() as product:
        assert product.user_identifier == user
        record(product, ["after"], acknowledged)
        assert product.flush(timeout=30).drained and product.status()["trouble"] == {}
    assert Counter(at.texts()) == {"before": 1, "during": 1, "after": 1}


@on(EXT4_1K, size_kb=8192)
def test_a_disk_that_turns_read_only_while_it_is_used(at: Desk, disk: Path) -> None:
    """What ext4 does after an error."""
    acknowledged: set[str] = set()
    with at.agent() as product:
        assert record(product, ["before"], acknowledged) == 0
        remount(disk, "abort")
        if record(product, ["during", "more"], acknowledged) == 0:
            pytest.skip("this kernel's ext4 does not turn read-only on demand")
        trouble = product.status()["trouble"]["spool"]
        assert "ead-only" in trouble or "nput/output" in trouble
        product.track("EXPORT")
        assert product.flush(timeout=30).pending == 1
        assert product.status()["trouble"]
    assert set(at.texts()) == {"during", "more"}


OTHER_USER = """
import json, os, sys
import agent
def life(place):
    t = agent.Agent(agent.Config(
        vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5", usage_consent=True,
        state_dir=place, deliver="manual", endpoints=(
            agent.GetKeyManager(base_url="http://127.0.0.1:1", api_key="k", allow_unsigned=True),
            agent.Reo(base_url="http://127.0.0.1:1", api_key="k", domain="acme.example"))))
    with t:
        kept = t.call_home()
        t.track("A"); t.count("B"); t.flush(1); t.preview(); t.diagnostics(); t.set_usage_consent(False)
        return [kept, t.status()["trouble"].get("spool", "")]
assert life(sys.argv[1])[0]  # loads everything while that can be read
os.setgroups([]); os.setgid(12345); os.setuid(12345)
print(json.dumps([life(place) for place in sys.argv[2:]]))
"""


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)
def test_a_process_of_another_user(tmp_path: Path) -> None:
    open_to_all, closed = tmp_path / "open", tmp_path / "closed"
    for place, mode in ((open_to_all, 0o755), (closed, 0o700)):
        (place / "state").mkdir(parents=True)
        place.chmod(mode)
        (place / "state").chmod(mode)
    above = [path for path in tmp_path.parents if path.stat().st_uid == 0 and len(path.parts) > 2]
    modes = [path.stat().st_mode for path in above]
    try:
        for path in [tmp_path, *above]:
            path.chmod(path.stat().st_mode | 0o011)
        places = [open_to_all / "state", open_to_all / "new", closed / "state", closed / "new"]
        found = run_python(OTHER_USER, str(tmp_path / "own"), *map(str, places))
    finally:
        for path, mode in zip(above, modes):
            path.chmod(mode)
    assert (found.returncode, found.stderr) == (0, "")
    told = json.loads(found.stdout)
    assert [kept for kept, _ in told] == [None] * 4
    assert "another user" in told[0][1]
    assert all("ermission" in trouble for _, trouble in told[1:])
    assert snapshot(open_to_all) == snapshot(closed) == {}
    assert sorted(os.listdir(open_to_all)) == ["state"]


@pytest.mark.parametrize("target", ["directory", "file", "nothing"])
def test_a_link_in_place_of_any_file_is_not_followed(at: Desk, tmp_path: Path, target: str) -> None:
    with at.agent(state_dir=tmp_path / "donor") as product:
        product.record_text("carried", data_group="g")
        product.export_spool(tmp_path / "out")
        product.flush()
        user = product.user_identifier
    shapes = {re_named(path.name) for path in (tmp_path / "donor").iterdir()}
    identity = next(name for name in shapes if name.startswith("identity"))
    given = ["agent.book", "agent.lock", "agent.room", "agent.consent", identity]
    given.append(identity + ".lock")
    assert {"agent.book", "agent.lock"} < shapes
    outside = tmp_path / "outside"
    for number, name in enumerate(given):
        if target == "directory":
            outside.mkdir(exist_ok=True)
        elif target == "file":
            outside.write_bytes(b"somebody's")
        at.collector.clear()
        at.state_dir = tmp_path / str(number)
        at.state_dir.mkdir(mode=0o700)
        (at.state_dir / name).symlink_to(outside)
        with at.agent() as product:
            assert product.user_identifier == user
            assert product.record_text("one", data_group="g"), name
            assert product.track("EXPORT") or name == "agent.consent", name
            product.count("RENDER")
            product.history()
            product.diagnostics()
            assert product.import_spool(tmp_path / "out") == 1
            # Without a book no sum is sent: it could be another one the next time.
            assert product.flush(timeout=30).drained or name == "agent.book", name
            product.set_usage_consent(False)
        assert sorted(at.texts()) == ["carried", "one"], name
        if target == "file":
            assert outside.read_bytes() == b"somebody's", name
        elif target == "directory":
            assert not any(outside.iterdir()), name
        else:
            assert not outside.exists(), name


def re_named(name: str) -> str:
    """A file's name, without what is drawn at random."""
    return name if not segment.is_segment(name) else "segment"


@pytest.mark.parametrize("recreated", [True, False])
def test_a_directory_that_vanishes_again_and_again(at: Desk, recreated: bool) -> None:
    over = threading.Event()

    def remove() -> None:
        while not over.is_set():
            shutil.rmtree(at.state_dir, ignore_errors=True)
            if recreated:
                os.makedirs(at.state_dir, 0o700, exist_ok=True)

    acknowledged: set[str] = set()
    with at.agent() as product:
        thread = threading.Thread(target=remove)
        thread.start()
        try:
            for number in range(40):
                record(product, ["%d" % number], acknowledged)
                product.track("EXPORT")
                product.count("RENDER")
                if number % 10 == 9:
                    product.status()
                    product.flush()
        finally:
            over.set()
            thread.join()
        shutil.rmtree(at.state_dir, ignore_errors=True)
        kept: set[str] = set()
        assert record(product, ["last", "very last"], kept) == 0
        assert product.flush(timeout=30).drained
        assert product.status()["trouble"] == {} and product.status()["in_memory"] == 0
    with at.agent() as product:
        assert product.flush(timeout=30).drained
    assert kept <= set(at.texts())
    assert set(Counter(at.texts()).values()) == {1}


def test_homes_that_are_none(at: Desk, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    homes = [
        "",
        "relative",
        ".",
        str(tmp_path / "file"),
        str(tmp_path / "loop"),
        "/proc/self",
        "/dev/null",
    ]
    for variable in ("HOME", "XDG_STATE_HOME"):
        for home in homes:
            with at.agent(state_dir=None, environ={variable: home}) as product:
                assert product.record_text("x", data_group="g") is None, home
                assert product.status()["trouble"]["spool"]
                assert product.flush().drained
                product.diagnostics()
    assert at.texts() == ["x"] * 2 * len(homes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


@pytest.mark.parametrize(
    "path", ["d" * 300, "/".join(["d" * 200] * 25), "/".join(["d" * 250] * 15)]
)
def test_a_path_that_is_too_long(at: Desk, tmp_path: Path, path: str) -> None:
    at.state_dir = tmp_path / path
    with at.agent() as product:
        assert product.record_text("x", data_group="g") is None or len(str(at.state_dir)) < 4000
        product.track("EXPORT")
        status = product.status()
        assert status["trouble"].get("spool") or not status["in_memory"]
        product.set_usage_consent(False)
        product.set_usage_consent(True)
        assert product.flush().drained
        product.diagnostics()
    assert at.texts() == ["x"]


@pytest.mark.parametrize(
    "name",
    [b"zustand \xc3\xa4 \xe2\x98\x83", b"undecodable \xff\xfe", b"new\nline", b"-rf", b"%s%n{}"],
)
def test_a_path_of_any_bytes(at: Desk, tmp_path: Path, name: bytes) -> None:
    try:
        os.mkdir(os.path.join(os.fsencode(tmp_path), name))
    except OSError as error:
        pytest.skip("no such name here: %s" % error)
    at.state_dir = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name, b"state")))
    at.collector.fault("500")
    with at.agent() as product:
        assert product.record_text("x", data_group="g") and product.track("EXPORT")
        product.flush()
        assert product.export_spool(at.state_dir.parent / "out") == 2
        json.dumps([product.status(), product.diagnostics(), product.preview()])
        assert endpoint(product)["waiting"] == "backoff"
    at.collector.fault(None)
    at.clock.advance(86400)
    with at.agent() as product:
        assert product.status()["trouble"] == {} and product.flush().drained
    assert at.texts() == ["x"]


NO_DESCRIPTORS = """
import json, os, resource, sys
import agent
def product(mode):
    return agent.Agent(agent.Config(
        vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5", usage_consent=True,
        state_dir=sys.argv[1] + mode, deliver=mode, start_delay_s=0, endpoints=(
            agent.GetKeyManager(base_url=sys.argv[2], api_key="demo-api-key", allow_unsigned=True),
            agent.Reo(base_url=sys.argv[2], api_key="demo-api-key", domain="acme.example"))))
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
def limit(spare):
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1 + spare, hard))
mode, spare = sys.argv[3], int(sys.argv[4])
t = product(mode)
kept = [t.record_text("first", data_group="g")] if sys.argv[5] == "later" else []
limit(spare)
kept.append(t.record_text("second", data_group="g"))
event = t.track("EXPORT")
t.count("RENDER")
first, status = t.flush(0.2), t.status()
user = t.user_identifier
t.set_usage_consent(True)
t.history()
assert kept[-1] is not None or status["trouble"]["spool"], status
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
assert t.user_identifier == user
assert t.record_text("third", data_group="g")
assert mode == "thread" or t.flush(10).drained
assert mode == "thread" or t.status()["trouble"] == {}, t.status()["trouble"]
t.close(5)
with product("manual" if mode == "manual" else mode) as t:
    t.flush(10)
    print(json.dumps([t.status()["pending"], first.delivered]))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
@pytest.mark.parametrize("mode", ["manual", "thread"])
@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_host_that_has_no_descriptor_left(at: Desk, mode: str, when: str) -> None:
    for spare in (0, 2):
        at.collector.clear()
        place = "%s-%d" % (at.state_dir, spare)
        found = run_python(NO_DESCRIPTORS, place, at.collector.url, mode, str(spare), when)
        assert (found.returncode, found.stderr) == (0, ""), spare
        assert json.loads(found.stdout)[0] == 0
        wanted = {"first", "second", "third"} if when == "later" else {"second", "third"}
        assert set(at.texts()) == wanted and set(Counter(at.texts()).values()) == {1}


SMALL_FILES = """
import json, resource, signal, sys
import agent
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does itself
def product():
    return agent.Agent(agent.Config(
        vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5", usage_consent=True,
        state_dir=sys.argv[1], deliver="manual", endpoints=(
            agent.GetKeyManager(base_url=sys.argv[2], api_key="demo-api-key", allow_unsigned=True),
            agent.Reo(base_url=sys.argv[2], api_key="demo-api-key", domain="acme.example"))))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
t = product()
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), hard))
kept = [t.record_text("%02d " % n + "x" * n * 20, data_group="g") for n in range(40)]
t.track("EXPORT")
t.count("RENDER")
assert t.status()["trouble"] or None not in kept
assert t.flush(20).pending <= 1  # a sum is sent once it is written down
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert t.record_text("last", data_group="g")
assert t.flush(20).drained and t.status()["trouble"] == {}, t.status()
t.close()
with product() as t:
    assert t.flush(20).drained and t.status()["trouble"] == {}
"""


@pytest.mark.parametrize("limit", [0, 700])
def test_a_process_that_may_write_only_small_files(at: Desk, limit: int) -> None:
    found = run_python(SMALL_FILES, str(at.state_dir), at.collector.url, str(limit))
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    everything_arrived(at, {"%02d " % n + "x" * n * 20 for n in range(40)} | {"last"})
