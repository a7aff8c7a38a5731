"""The bench runs, its figures have a shape, and one that misses its aim is said so; how large they are is no test."""

from pathlib import Path

import pytest
from bench import __main__ as bench, measure

pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def on_a_disk_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "HERE", tmp_path / ".bench")


def test_one_command_prints_and_fills_a_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "PERFORMANCE.md"
    document.write_text("before\n<!-- bench cold -->\nstale\n<!-- /bench -->\nafter\n")
    options = ["--rounds", "1", "--report", str(document)]
    assert bench.main(["import", "cold", *options]) == 0
    out, err = capsys.readouterr()
    assert "- third-party modules that importing loads: 0, aim at most 0: met\n" in out
    assert "| agent | " in out and " | 1 | 0 | " in out
    missed = out.count("**missed**")
    assert out.endswith("\n%d of 3 aims met\n" % (3 - missed))
    assert "has no block for 'import'" in err
    text = document.read_text()
    assert text.startswith("before\n<!-- bench cold -->\n`python -m tests.bench cold`")
    assert text.endswith("<!-- /bench -->\nafter\n") and "stale" not in text
    assert "| agent, first start | " in text and "- durable call_home(), first start" in text
    assert not list((tmp_path / ".bench").iterdir())
