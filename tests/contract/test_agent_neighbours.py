"""The product's own files beside ours: common names (`history`, `lock`, `facts`, `counts`) may be somebody else's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agent import Desk, desk, engine_of, snapshot
from support.spool import line, write_segment

import agent
from agent.spool import facts, names


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path / "state") as found:
        yield found


def belongings(directory: Path) -> dict[str, bytes]:
    """What a product keeps there."""
    (directory / "counts").mkdir(mode=0o700, parents=True)
    (directory / "counts" / "of the day").write_bytes(b"7")
    (directory / "history").write_bytes(b"opened a document\n" * 7000)
    (directory / "facts").write_bytes(b'{"theme": "dark"}\n' * 3000)
    (directory / "lock").write_bytes(b"4711\n")
    for path in directory.iterdir():
        path.chmod(0o700 if path.is_dir() else 0o600)
    directory.chmod(0o700)
    return snapshot(directory)


def use(product: agent.Agent) -> None:
    for number in range(3):
        assert product.record_text(str(number), data_group="g")
        assert product.track("EXPORT")
        product.count("RENDER")
        assert product.flush(timeout=20).drained
    product.set_usage_consent(False)
    assert product.flush().drained


def test_the_default_directory_is_not_the_products_own(
    at: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There its `history` was replaced, its `counts` renamed, and `erase` took its `lock`."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    place = tmp_path / "home" / "Acme" / "Studio"
    theirs = belongings(place)
    with at.agent(state_dir=None, environ=os.environ) as product:
        use(product)
        assert product.status()["state_dir"] == str(place / "telemetry")
        assert product.status()["trouble"] == {}
    assert (place / "telemetry").is_dir()
    assert agent.erase(at.config(state_dir=None)) == []
    assert snapshot(place) == theirs and not (place / "telemetry").exists()


def test_erase_removes_the_directories_above_where_they_are_empty(
    at: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    with at.agent(state_dir=None, environ=os.environ) as product:
        use(product)
    assert agent.erase(at.config(state_dir=None)) == []
    assert os.listdir(tmp_path / "home") == []


def test_files_of_the_products_in_a_given_directory_stay_as_they_are(at: Desk) -> None:
    theirs = belongings(at.state_dir)
    for number in range(8):  # more than are counted anew each time
        write_segment(at.state_dir, [line("%d-%d" % (number, n)) for n in range(9)], ms=number + 1)
    with at.agent(max_records=100) as product:
        use(product)
        assert len(product.history()) == 3  # from memory, what was about usage is gone
        engine_of(product).spool.sweep(None)
        assert "somebody else's" in product.status()["trouble"]["facts"]
    now = snapshot(at.state_dir)
    assert {name: now.get(name) for name in theirs} == theirs
    remaining = agent.erase(at.config())
    assert {os.path.basename(path) for path in remaining} == {"history", "facts", "lock", "counts"}
    assert snapshot(at.state_dir) == theirs


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"\n" * 9])
def test_what_a_power_cut_made_of_a_file_of_ours_is_nobody_elses(at: Desk, content: bytes) -> None:
    at.state_dir.mkdir(mode=0o700)
    for name in names.COMMON:
        (at.state_dir / name).write_bytes(content)
        (at.state_dir / name).chmod(0o600)
    with at.agent() as product:
        use(product)
        assert product.history() and product.status()["trouble"] == {}
    assert agent.erase(at.config()) == [] and not at.state_dir.exists()


def test_a_history_of_ours_that_is_damaged_in_part_is_ours(at: Desk) -> None:
    with at.agent() as product:
        use(product)
    path = at.state_dir / names.HISTORY
    path.write_bytes(b"x" * facts.HISTORY_BYTES + b"\n" + path.read_bytes())
    with at.agent() as product:
        product.record_text("more", data_group="g")
        product.flush()
    assert path.stat().st_size < facts.HISTORY_BYTES
