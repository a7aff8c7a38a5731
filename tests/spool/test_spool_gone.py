"""Records that are gone, and files that are none of ours, cost a later start nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.spool import licence, look, segments, spool, usage, waiting

from agent.spool.segment import Reading
from agent.spool.store import DISK


@pytest.mark.parametrize("how", ["refused", "removed"])
def test_an_attempt_that_was_left_open_at_a_record_that_is_gone_slows_no_later_start(
    tmp_path: Path, how: str
) -> None:
    """Each start took it for one more product that ended before an answer came."""
    killed = spool(tmp_path / "state")
    killed.record(usage("one", killed.consent.ensure()), sync=True)
    killed.record(licence("two"), sync=True)
    assert killed.claim()
    assert all(killed.try_(record) for record in killed.waiting(()))
    killed._book.close()
    killed._let_go()
    killed.seal()

    later = look(tmp_path / "state")
    if how == "refused":
        later.refuse_usage()
    else:
        segments(tmp_path / "state", "u")[0].unlink()
    assert later.claim()
    assert not later.left_open("reo") and later.left_open("server")
    later.release()
    assert waiting(tmp_path / "state") == ["two"]


@pytest.mark.skipif(os.name == "nt", reason="needs files with holes")
def test_a_file_of_any_size_in_a_segments_place_holds_up_nobody(tmp_path: Path) -> None:
    """20 GB, as a damaged disk may say, were read for 100 s on the thread that recorded."""
    target = spool(tmp_path / "state")
    assert target.record(licence("one"), sync=True) == DISK
    planted = tmp_path / "state" / "l-000000000001-0000000000000001.seg"
    planted.touch(0o600)
    os.truncate(planted, 20 << 30)
    reading = Reading(str(planted))
    reading.refresh()
    assert reading.cursor < 1 << 28
    assert target.record(licence("two"), sync=True) == DISK
    assert waiting(tmp_path / "state") == ["one", "two"]
