"""Every situation of ``tests/networks``: its outcome, each record exactly once, and no secret in sight."""

from __future__ import annotations

import re
from pathlib import Path
from zlib import crc32

import pytest
from networks import __main__ as networks, report
from networks.situations import Situation, everything, missing
from networks.stage import Stage, Verdict
from support.canary import Canaries

pytestmark = pytest.mark.ends

STYLES = ("punctuation", "quotes", "short", "unicode")


CASES = [
    pytest.param(one, id=one.name, marks=[getattr(pytest.mark, one.cost)] if one.cost else [])
    for one in everything()
]


@pytest.mark.parametrize("situation", CASES)
def test_a_network(situation: Situation, tmp_path: Path) -> None:
    why = missing(situation.needs)
    if why:
        pytest.skip(why)
    canaries = Canaries(STYLES[crc32(situation.name.encode()) % len(STYLES)])
    stage = Stage(tmp_path / "stage", canaries)
    with canaries.listening(stage.state_dir) as heard:
        with stage:
            situation.play(stage)
            stage.settled()
            heard.add("addresses", [request["path"] for request in stage.collector.requests()])
        heard.add("what is shown", stage.shown)
        heard.add("preview", stage.previews, but=("activation identifier",))
        if stage.log.exists():
            heard.add("what other processes print", stage.log)
    heard.is_clean()
    assert not [one for one in stage.verdicts if re.search(r"(?i)error\b", one.outcome)]


def row(*verdicts: Verdict, why: str = "", error: str = "") -> report.Row:
    one = Situation("a-name-of-its-own", "Proxies", "Some words", (), "", lambda stage: None)
    return report.Row(one, list(verdicts), len(verdicts), why, error)


def test_one_command_fills_a_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row holds one situation, whatever was said, and says so where it was not seen."""
    document = tmp_path / "NETWORKS.md"
    document.write_text("before\n" + report.BEGIN + "stale\n" + report.END + "after\n")
    seen = row(Verdict('offline: TLS: expired by "Some | CA"', 0.019), Verdict("delivered", 1.0))
    left, wrong = row(why="needs the program squid"), row(error="AssertionError: secret")
    assert report.fill(document, [seen, left, wrong])
    text = document.read_text()
    assert text.startswith("before\n" + report.BEGIN) and text.endswith(report.END + "after\n")
    assert [line[15:] for line in text.splitlines() if "its-own" in line] == [
        'offline: TLS: expired by "Some \\| CA"; arrived 2 times | 0.02 | `a-name-of-its-own` |',
        "left out: needs the program squid |  | `a-name-of-its-own` |",
        "**not as expected** |  | `a-name-of-its-own` |",
    ]
    assert "stale" not in text and "secret" not in text
    assert networks.main(["-k", "reset-request"]) == 0
    assert "reset-request" in capsys.readouterr().out
    for arguments in (["-k", "nothing"], ["-k", "squid", "--report", str(document)]):
        with pytest.raises(SystemExit) as ended:
            networks.main(arguments)
        assert ended.value.code == 2
