"""The bench runs, its figures have a shape, and one that misses its aim is said so; how large they are is no test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench import __main__ as bench, measure, verify

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def on_a_disk_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "HERE", tmp_path / ".bench")
    monkeypatch.setattr(verify, "TURNS", 1)  # how large figures are is no test


def test_one_command_fills_json_and_a_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written, document = tmp_path / "bench.json", tmp_path / "PERFORMANCE.md"
    document.write_text("before\n<!-- bench cold -->\nstale\n<!-- /bench -->\nafter\n")
    options = ["--rounds", "1", "--no-peers", "--json", str(written), "--report", str(document)]
    assert bench.main(["import", "cold", "verify", *options]) == 0
    results = json.loads(written.read_text())
    assert list(results["groups"]) == ["import", "cold", "verify"]
    for group in results["groups"].values():
        assert group["tables"]
        for table in group["tables"]:
            for cells in table["rows"].values():
                assert len(cells) == len(table["columns"])
        for aim in group["aims"]:
            assert aim["met"] == (aim["value"] <= aim["limit"]) and not aim["at_least"]
    (cold,) = results["groups"]["cold"]["tables"]
    to_the_record = cold["rows"]["agent, first start"][0]
    assert to_the_record["n"] == 1
    assert results["groups"]["import"]["tables"][0]["rows"]["agent"][1:3] == [1, 0]
    out, err = capsys.readouterr()
    assert "durable call_home(), first start" in out and "has no block for 'import'" in err
    text = document.read_text()
    assert text.startswith("before\n<!-- bench cold -->\n`python -m tests.bench cold`")
    assert text.endswith("<!-- /bench -->\nafter\n") and "stale" not in text
    assert "| agent, first start | " in text
    assert not list((tmp_path / ".bench").iterdir())
