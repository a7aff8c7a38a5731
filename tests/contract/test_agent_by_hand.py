"""Export, import and erase: state carried and removed by hand, seen from the agent."""

import os
from pathlib import Path
from typing import Any

import pytest
from support.agent import Desk, endpoint, snapshot
from support.product import says
from support.spool import waiting
from support.systems import links

import agent


def recorded(product: agent.Agent, count: int = 3) -> None:
    for number in range(count):
        product.record_text(str(number), data_group="g")
    product.track("EXPORT")
    product.count("RENDER", 5)


def test_a_copy_leaves_everything_where_it_is(at: Desk, tmp_path: Path) -> None:
    with at.agent() as product:
        recorded(product)
        assert product.export_spool(tmp_path / "copy") == 5
        assert product.status()["pending"] == 5
        assert (tmp_path / "copy").stat().st_mode & 0o077 == 0 or os.name == "nt"
        with pytest.raises(OSError):
            product.export_spool(tmp_path / "copy")  # never overwrites
        with pytest.raises(OSError):
            product.export_spool(tmp_path / "no such directory" / "copy")


def test_moved_to_another_machine_once(at: Desk, tmp_path: Path) -> None:
    at.collector.fault("refuse")
    with at.agent() as product:
        recorded(product)
        product.flush()
        assert product.export_spool(tmp_path / "moved", move=True) == 5
        assert product.status()["pending"] == 0
        assert product.status()["not_recorded"] == {"exported": 5}
        assert product.preview() == []
        identifier = product.user_identifier
    at.collector.fault(None)
    told: list[agent.Outcome] = []
    elsewhere = tmp_path / "elsewhere"
    with at.agent(state_dir=elsewhere, on_outcome=told.append) as product:
        assert product.import_spool(tmp_path / "moved") == 5
        assert product.import_spool(str(tmp_path / "moved")) == 0
        assert product.status()["pending"] == 5
        report = product.flush()
        assert (report.delivered, report.pending) == (5, 0)
        assert product.import_spool(tmp_path / "moved") == 0
        assert all(outcome.from_earlier_run for outcome in told)
    with at.agent(state_dir=elsewhere) as product:
        assert product.import_spool(tmp_path / "moved") == 0
        assert product.flush().delivered == 0
    assert at.texts() == ["0", "1", "2"]
    licence = [r["fields"] for r in at.collector.records() if r["endpoint"] == "getkeymanager"]
    assert {fields["user_identifier"] for fields in licence} == {identifier}
    assert len(at.collector.records()) == 5


def test_a_foreign_or_damaged_file_is_refused_whole(at: Desk, tmp_path: Path) -> None:
    with at.agent() as product:
        recorded(product)
        product.export_spool(tmp_path / "file", move=True)
        whole = (tmp_path / "file").read_bytes()
        lines = whole.splitlines(keepends=True)
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        wrong = [bytes(flipped), whole[:-1], b"".join(lines[:-1]), whole + lines[-1], whole + whole]
        foreign = [b"", b"not an export", b"\x00" * 500, b'00000000 {"k":"export"}\n']
        for data in wrong + foreign:
            (tmp_path / "damaged").write_bytes(data)
            with pytest.raises(agent.EventError, match="damaged" if data in wrong else None):
                product.import_spool(tmp_path / "damaged")
        with pytest.raises(OSError):
            product.import_spool(tmp_path / "missing")
        assert product.status()["pending"] == 0
        for number in range(2):  # back home, as often as it is moved out
            assert product.import_spool(tmp_path / "file") == product.status()["pending"] == 5
            product.export_spool(tmp_path / ("file%d" % number), move=True)
            os.replace(tmp_path / ("file%d" % number), tmp_path / "file")
        assert product.import_spool(tmp_path / "file") == 5
    with at.agent() as product:
        product.export_spool(tmp_path / "copy")
        assert product.flush().pending == 0 and at.seen() == 5
        assert product.import_spool(tmp_path / "copy") == 0


IMPORT = """
count, most_kb = t.import_spool(%r), 0
if os.path.exists("/proc/self/status"):  # the most memory that this program ever had
    most_kb = int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
print(json.dumps([count, most_kb]))
"""


def test_what_was_moved_out_can_be_moved_in_however_much_it_is(at: Desk, tmp_path: Path) -> None:
    """It is never in memory as a whole."""
    text = "\U0001f600" * 32_768  # 12 bytes each: as long as a line can be
    with at.agent(only="licence", durability="process", max_bytes=200_000_000) as product:
        for _ in range(120):
            assert product.record_text(text, data_group="g")
        assert product.export_spool(tmp_path / "moved", move=True) == 120
        assert product.status()["pending"] == 0
    assert (tmp_path / "moved").stat().st_size > 45_000_000
    at.state_dir = tmp_path / "elsewhere"
    given: Any = {"deliver": "manual", "durability": "process", "max_bytes": 200_000_000}
    count, most_kb = says(at, IMPORT % str(tmp_path / "moved"), **given)
    assert count == len(waiting(at.state_dir)) == 120 and most_kb < 45_000


def test_an_import_that_the_quota_has_no_room_for_is_refused_before_it_begins(
    at: Desk, tmp_path: Path
) -> None:
    """It answered 3000, and 2,377 of them were dropped."""
    with at.agent(only="licence", durability="process") as product:
        for number in range(300):
            product.record_text(str(number), data_group="g")
        assert product.export_spool(tmp_path / "moved", move=True) == 300
    place = tmp_path / "elsewhere"
    bounds = (("max_records", 100), ("max_bytes", 40_000), ("max_records", 303))
    for name, bound in bounds:
        settings: Any = {name: bound}
        with at.agent(only="licence", state_dir=place, **settings) as product:
            assert product.record_text("own", data_group="g")
            with pytest.raises(agent.EventError, match="quota"):
                product.import_spool(tmp_path / "moved")
            assert product.status()["not_recorded"] == {}
    with at.agent(only="licence", state_dir=place, max_records=350) as product:
        assert product.import_spool(tmp_path / "moved") == 300
        assert product.flush(timeout=60).delivered == 303
        assert product.status()["not_recorded"] == {}


def test_erase_removes_all_and_says_so(at: Desk) -> None:
    with at.agent() as product:
        recorded(product)
        at.collector.fault("unsigned-400", endpoint="reo-usage")
        product.flush()
        product.set_usage_consent(False)
        recorded(product)
    assert len(snapshot(at.state_dir)) > 4
    assert agent.erase(at.config()) == []
    assert not at.state_dir.exists()
    assert agent.erase(at.config()) == []  # and creates nothing
    assert not at.state_dir.exists()


def test_erase_leaves_what_is_not_ours(at: Desk) -> None:
    with at.agent() as product:
        recorded(product)
    (at.state_dir / "notes.txt").write_text("of the user")
    assert agent.erase(at.config()) == []
    assert snapshot(at.state_dir) == {"notes.txt": b"of the user"}
    (at.state_dir / "agent.room").mkdir()
    assert agent.erase(at.config()) == [str(at.state_dir / "agent.room")]


def test_what_is_marked_read_only_is_erased_all_the_same(at: Desk) -> None:
    with at.agent() as product:
        recorded(product)
    for path in at.state_dir.iterdir():
        path.chmod(0o400)
    assert agent.erase(at.config()) == [] and not at.state_dir.exists()


@links
def test_erase_follows_no_link(at: Desk, tmp_path: Path) -> None:
    with at.agent() as product:
        recorded(product)
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "agent.book").write_text("somebody's")
    (at.state_dir / "identity-0123456789abcdef").symlink_to(treasure / "agent.book")
    agent.erase(at.config())
    assert snapshot(treasure) == {"agent.book": b"somebody's"}
    link = tmp_path / "link"
    link.symlink_to(treasure)
    assert agent.erase(at.config(state_dir=link)) == [str(link)]
    assert snapshot(treasure) == {"agent.book": b"somebody's"} and link.is_symlink()


def test_erased_under_a_living_agent(at: Desk) -> None:
    """It goes on with new files: nothing raises, what is recorded afterwards arrives."""
    with at.agent() as product:
        recorded(product)
        left = map(
            Path, agent.erase(at.config())
        )  # on Windows what somebody has open keeps its name
        assert not [path for path in left if path.stat().st_size or os.name == "posix"]
        assert product.record_text("after", data_group="g")
        assert product.track("AFTER")
        product.count("AFTER")
        assert product.flush().pending == 0
        assert endpoint(product)["pending"] == 0
    assert at.texts() == ["after"]
    assert os.path.isdir(at.state_dir)


def test_the_default_directory_is_not_the_products_own(
    at: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the product keeps beside it stays, and goes on as it is; directories above go where they are empty."""
    for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    place = tmp_path / "home" / "Acme" / "Studio"
    for theirs in (False, True):
        if theirs:
            place.mkdir(mode=0o700, parents=True)
            (place / "history").write_bytes(b"opened a document\n" * 7000)
        before = snapshot(tmp_path / "home") if theirs else {}
        with at.agent(state_dir=None, environ=os.environ) as product:
            recorded(product)
            assert product.flush().drained
            assert product.status()["state_dir"] == str(place / "telemetry")
        assert agent.erase(at.config(state_dir=None)) == []
        assert snapshot(tmp_path / "home") == before
        assert place.exists() == theirs
