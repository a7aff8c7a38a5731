"""Real file systems in a bad state: full, out of inodes, read-only, gone, somebody else's, with odd names.

``test_agent_trouble`` has what needs no file system of its own, ``test_campaigns`` system calls that fail.
"""

import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agent import Desk, FakeClock, desk, snapshot
from support.disks import EXT4, EXT4_1K, KINDS, TMPFS, NotHere, fill, fill_names, mounted, remount
from support.product import arrived, quiet, says

import agent
from agent.spool import segment

pytestmark = [pytest.mark.once, pytest.mark.skipif(os.name == "nt", reason="needs a POSIX system")]


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    # Children know only the system's clock.
    with desk(tmp_path / "state", FakeClock(time.time())) as found:
        found.durability = "power"
        yield found


@pytest.fixture
def disk(request: pytest.FixtureRequest, at: Desk, tmp_path: Path) -> Iterator[Path]:
    """A small file system; the state directory lies on it."""
    settings: dict[str, Any] = dict(request.param)
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


def record(product: agent.Agent, *texts: str) -> set[str]:
    """Record these; those that were acknowledged."""
    return {text for text in texts if product.record_text(text, data_group="g") is not None}


def trouble(product: agent.Agent) -> str:
    """What status says of the disk."""
    found: str = product.status()["trouble"].get("spool", "")
    return found


def fine(product: agent.Agent) -> bool:
    """Everything is delivered, and nothing is wrong any more."""
    drained, status = product.flush(timeout=30).drained, product.status()
    return drained and status["trouble"] == {} and status["in_memory"] == 0


@on(*KINDS)
def test_a_disk_that_is_full_to_the_last_byte(at: Desk, disk: Path) -> None:
    texts = ["%03d " % number + "x" * 300 for number in range(60)]
    with at.agent() as product:
        assert len(record(product, *texts[:10])) == 10
        product.count("RENDER", 2)
        event = product.track("EXPORT")
        filler = fill(disk)
        missed = 50 - len(record(product, *texts[10:]))
        product.count("RENDER", 3)
        assert missed > 20 and product.status()["in_memory"] >= missed
        assert "No space" in trouble(product)
        report = product.flush(timeout=30)
        assert set(at.texts()) == set(texts) and report.delivered >= 61
        filler.unlink()
        assert fine(product) and record(product, "after") == {"after"}
    arrived(at, *texts, "after", sums={"RENDER": 5})
    usage = [r["fields"] for r in at.collector.records() if r["endpoint"] == "reo-usage"]
    assert [one["event_id"] for one in usage if one["activity_type"] == "EXPORT"] == [event]


@on(TMPFS, EXT4_1K)
def test_delivery_frees_a_full_disk(at: Desk, disk: Path) -> None:
    """Nothing can be written, not even that an answer came; what is settled goes all the same."""
    with at.agent(only="licence") as product:
        texts = record(product, *("%03d" % n for n in range(30)))
    fill(disk)
    with at.agent(only="licence") as product:
        assert product.flush(timeout=30).drained
    assert segment.listing(str(at.state_dir)) == []
    arrived(at, *texts)


@on(TMPFS, size_kb=4096)
def test_what_a_quota_drops_on_a_full_disk_is_counted_exactly(at: Desk, disk: Path) -> None:
    texts = ["%03d " % number + "x" * 1000 for number in range(300)]
    with at.agent(only="licence", max_bytes=200_000) as product:
        record(product, *texts[:200])
        filler = fill(disk)
        record(product, *texts[200:])
        lost = product.status()["not_recorded"]
        filler.unlink()
        while not product.flush(timeout=30).drained:
            pass
        assert fine(product)
    records = [record["fields"] for record in at.collector.records()]
    dropped = [r for r in records if r["data_group"] == "agent-dropped"]
    reported = sum(int(one["numeric_data_single_value"]) for one in dropped)
    came = {r["text_data"] for r in records if r["data_group"] == "g"}
    assert len(came) + reported == 300 - lost.get("quota", 0) and reported > 50


@on(TMPFS, EXT4, inodes=40)
def test_a_disk_without_a_file_to_give(at: Desk, disk: Path) -> None:
    with at.agent() as first, at.agent() as second:
        assert record(first, "one")
        made = fill_names(disk)
        assert len(made) > 5
        # The open segment grows; another process finds no room for one of its own.
        assert record(first, "two") and not record(second, "three")
        assert "No space" in trouble(second)
        assert second.flush(timeout=30).drained
        for path in made:
            path.unlink()
        assert record(second, "four") and fine(second)
    arrived(at, "one", "two", "three", "four")


@on(TMPFS, EXT4, size_kb=4096)
def test_a_disk_that_is_read_only_from_the_start(at: Desk, disk: Path) -> None:
    with at.agent() as product:
        record(product, "before")
        user = product.user_identifier
    remount(disk, "ro")
    before = snapshot(at.state_dir)
    with at.agent() as product:
        assert product.user_identifier == user
        assert not record(product, "during") and "ead-only" in trouble(product)
        # What lies on the disk would be sent at every start.
        assert product.flush(timeout=30).pending == 1 and "ead-only" in trouble(product)
        product.set_usage_consent(False)
    assert snapshot(at.state_dir) == before and at.texts() == ["during"]
    remount(disk, "rw")
    with at.agent() as product:
        assert product.user_identifier == user
        assert record(product, "after") and fine(product)
    arrived(at, "before", "during", "after")


@on(EXT4_1K, size_kb=8192)
def test_a_disk_that_turns_read_only_while_it_is_used(at: Desk, disk: Path) -> None:
    """What ext4 does after an error."""
    with at.agent() as product:
        assert record(product, "before")
        remount(disk, "abort")
        if record(product, "during", "more"):
            pytest.skip("this kernel's ext4 does not turn read-only on demand")
        assert "ead-only" in trouble(product) or "nput/output" in trouble(product)
        product.track("EXPORT")
        assert product.flush(timeout=30).pending == 1 and trouble(product)
    assert set(at.texts()) == {"during", "more"}


OTHER_USER = """
names = "vendor product_name product_id product_version endpoints deliver usage_consent".split()
given = {name: getattr(config, name) for name in names}
def life(place):
    with agent.Agent(agent.Config(**given, state_dir=place)) as t:
        kept = t.call_home()
        t.track("A"); t.count("B"); t.flush(1); t.preview(); t.diagnostics(); t.set_usage_consent(False)
        return [kept, t.status()["trouble"].get("spool", "")]
assert life(state_dir)[0]  # loads everything while that can be read
os.setgroups([]); os.setgid(12345); os.setuid(12345)
print(json.dumps([life(os.path.dirname(state_dir) + place) for place in PLACES]))
"""


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)
def test_a_process_of_another_user(at: Desk, tmp_path: Path) -> None:
    for name, mode in (("open", 0o755), ("closed", 0o700)):
        (tmp_path / name / "state").mkdir(parents=True)
        (tmp_path / name).chmod(mode)
        (tmp_path / name / "state").chmod(mode)
    above = [path for path in tmp_path.parents if path.stat().st_uid == 0 and len(path.parts) > 2]
    modes = [path.stat().st_mode for path in above]
    places = ["/open/state", "/open/new", "/closed/state", "/closed/new"]
    try:
        for path in [tmp_path, *above]:
            path.chmod(path.stat().st_mode | 0o011)
        told = says(at, OTHER_USER.replace("PLACES", repr(places)), deliver="manual")
    finally:
        for path, mode in zip(above, modes):
            path.chmod(mode)
    assert [kept for kept, _ in told] == [None] * 4
    assert "another user" in told[0][1]
    assert all("ermission" in wrong for _, wrong in told[1:])
    assert snapshot(tmp_path / "open") == snapshot(tmp_path / "closed") == {}
    assert os.listdir(tmp_path / "open") == ["state"]


@pytest.mark.parametrize("recreated", [True, False])
def test_a_directory_that_vanishes_again_and_again(at: Desk, recreated: bool) -> None:
    over = threading.Event()

    def remove() -> None:
        while not over.is_set():
            shutil.rmtree(at.state_dir, ignore_errors=True)
            if recreated:
                os.makedirs(at.state_dir, 0o700, exist_ok=True)

    with at.agent() as product:
        thread = threading.Thread(target=remove)
        thread.start()
        try:
            for number in range(40):
                record(product, "%d" % number)
                product.track("EXPORT")
                product.count("RENDER")
                if number % 10 == 9:
                    product.status()
                    product.flush()
        finally:
            over.set()
            thread.join()
        shutil.rmtree(at.state_dir, ignore_errors=True)
        kept = record(product, "last", "very last")
        assert len(kept) == 2 and fine(product)
    with at.agent() as product:
        assert product.flush(timeout=30).drained
    assert kept <= set(at.texts()) and set(Counter(at.texts()).values()) == {1}


@pytest.mark.parametrize(
    "name",
    [b"zustand \xc3\xa4 \xe2\x98\x83", b"undecodable \xff\xfe", b"new\nline", b"-rf", b"%s%n{}"]
    + [b"d" * 300, b"/".join([b"d" * 200] * 25), b"/".join([b"d" * 250] * 15)],
)
def test_a_path_of_any_bytes_and_any_length(at: Desk, tmp_path: Path, name: bytes) -> None:
    at.state_dir = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
    at.collector.fault("500")
    with at.agent() as product:
        kept = record(product, "x")
        assert product.track("EXPORT") or not kept
        assert bool(kept) == (len(name) < 100 or 3000 < len(name) < 4000)
        assert bool(kept) != bool(trouble(product))
        product.flush()
        json.dumps([product.status(), product.diagnostics(), product.preview()])
        at.collector.fault(None)
        at.clock.advance(86400)
        assert kept or product.flush().drained
    with at.agent() as product:
        assert product.flush().drained
    assert at.texts() == ["x"]


NO_DESCRIPTORS = """
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
LATER and t.record_text("first", data_group="g")
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1 + SPARE, hard))
kept = t.record_text("second", data_group="g")
t.track("EXPORT")
t.count("RENDER")
t.flush(0.2)
status, user = t.status(), t.user_identifier
t.set_usage_consent(True)
t.history()
assert kept is not None or status["trouble"]["spool"], status
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
assert t.user_identifier == user
assert t.record_text("third", data_group="g")
assert t.flush(10).drained and t.status()["trouble"] == {}, t.status()["trouble"]
t.close(5)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
@pytest.mark.parametrize("mode", ["manual", "thread"])
@pytest.mark.parametrize("later", [True, False])
@pytest.mark.parametrize("spare", [0, 2])
def test_a_host_that_has_no_descriptor_left(at: Desk, mode: str, later: bool, spare: int) -> None:
    code = NO_DESCRIPTORS.replace("LATER", str(later)).replace("SPARE", str(spare))
    quiet(at, code, deliver=mode, start_delay_s=0)
    arrived(at, *["first"] * later, "second", "third")
