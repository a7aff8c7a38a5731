"""A state directory that cannot be used: the product goes on, status says why, what memory holds is delivered."""

import contextlib
import os
from pathlib import Path

import pytest
from support.agent import Desk, snapshot
from support.spool import line, write_segment
from support.systems import links

import agent


def goes_on(at: Desk, words: str, *, usage: bool = True) -> None:
    """Everything works from memory, usage where its consent can be remembered; the trouble is named."""
    told: list[agent.Outcome] = []
    with at.agent(on_outcome=told.append) as product:
        assert product.call_home() is None  # it would not survive the process
        assert product.record_text("x", data_group="g") is None
        assert product.track("EXPORT") is None
        status = product.status()
        assert words in status["trouble"]["spool"]
        assert status["in_memory"] == status["pending"] == (4 if usage else 2)
        lost = {"kept in memory only": 4} if usage else {"kept in memory only": 2, "no consent": 2}
        assert status["not_recorded"] == lost
        product.diagnostics()
        product.count("RENDER", 2)
        report = product.flush()
        assert (report.pending, report.drained) == (0, True)
        assert report.delivered == len(told) == (5 if usage else 2)
        assert not any(outcome.from_earlier_run for outcome in told)
        assert product.preview() == []
    assert at.texts() == ["CALL HOME", "x"]


def test_a_file_in_its_place(at: Desk) -> None:
    at.state_dir.write_text("a file")
    goes_on(at, "directory", usage=False)
    assert at.state_dir.read_text() == "a file"


@pytest.mark.skipif(os.name == "nt", reason="no such modes there")
@pytest.mark.parametrize("mode", [0o755, 0o777, 0o1777, 0o1770, 0o3777])
def test_a_directory_that_is_not_the_user_s_alone(at: Desk, mode: int) -> None:
    """As under ``sudo``, which keeps HOME: no file of root's may lock the user out. Or like /tmp."""
    at.state_dir.mkdir()
    if not mode & 0o1000:  # open to all is shared once somebody used it
        theirs = at.state_dir / "of somebody" if mode == 0o777 else at.state_dir
        theirs.touch()
        if os.geteuid():
            pytest.skip("only root can give files away")
        os.chown(theirs, 12345, 12345)
    at.state_dir.chmod(mode)
    before, names = at.state_dir.stat(), os.listdir(at.state_dir)
    shared = mode != 0o755
    words = "is shared with other users" if shared else "belongs to another user"
    goes_on(at, words, usage=not shared)
    assert os.listdir(at.state_dir) == names and at.state_dir.stat().st_mode == before.st_mode


@links
def test_a_link_in_its_place(at: Desk, tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "agent.book").write_text("somebody's")
    at.state_dir.symlink_to(treasure)
    goes_on(at, "is a link")
    assert snapshot(treasure) == {"agent.book": b"somebody's"}


def test_memory_is_bounded_and_says_what_it_did_not_keep(at: Desk) -> None:
    at.state_dir.write_text("a file")
    with at.agent(only="licence") as product:
        for number in range(1200):
            product.record_value(number, data_group="g")
        lost = product.status()["not_recorded"]
        assert lost == {"kept in memory only": 1000, "quota": 200}
        assert product.status()["in_memory"] == 1000


def test_a_quota_that_nothing_can_be_evicted_from_silences_nobody(at: Desk) -> None:
    """Living processes write into all of it. No call home left the product, and status said that all was well."""
    fcntl = pytest.importorskip("fcntl")
    with contextlib.ExitStack() as held, at.agent(max_bytes=1_000_000) as product:
        for ms in range(48):
            lines = [line("%d-%d" % (ms, n), "y" * 900) for n in range(41)]
            path = write_segment(at.state_dir, lines, ms=ms)
            fcntl.flock(held.enter_context(open(path, "rb")), fcntl.LOCK_EX)
        assert product.call_home() is None  # it would not survive the process
        assert product.record_text("x", data_group="g") is None
        assert product.track("EXPORT") is None
        status = product.status()
        assert "quota" in status["trouble"]["spool"] and status["in_memory"] == 2
        # Usage goes without, but is counted: its CALL HOME and the event.
        assert status["not_recorded"] == {"kept in memory only": 2, "quota": 2}
        held.close()
        assert product.call_home() is not None
        product.flush(timeout=30)  # makes room, and so a report
        assert product.flush(timeout=30).drained and product.status()["trouble"] == {}


@pytest.mark.parametrize(("max_bytes", "letter"), [(40_000, "x"), (500_000, "\U0001f600")])
def test_the_longest_text_fits_into_the_smallest_quota_that_is_promised_for_it(
    at: Desk, max_bytes: int, letter: str
) -> None:
    text = letter * 32_768
    with at.agent(only="licence", max_bytes=max_bytes, max_records=1) as product:
        for _ in range(3):  # what a run leaves behind (history, facts) takes room too
            assert product.record_text(text, data_group="g" * 255)
            assert product.status()["not_recorded"].get("quota") is None
            assert product.flush().drained
    assert at.texts().count(text) == 3
