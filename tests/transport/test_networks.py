"""Every situation of ``tests/networks``: its outcome, each record exactly once, and no secret in sight."""

import re
from pathlib import Path
from zlib import crc32

import pytest
from networks import __main__ as networks
from networks.situations import Situation, everything, missing
from networks.stage import Stage
from support.canary import Canaries
from support.systems import posix

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


@posix
def test_one_command_prints_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert networks.main(["-k", "reset-after"]) == 0
    words, outcome, seconds, name = capsys.readouterr().out.splitlines()[-1].split(" | ")
    assert words.startswith("| Reset when") and outcome.endswith("; arrived 2 times")
    assert float(seconds) > 0 and name == "`reset-after` |"
    with pytest.raises(SystemExit) as ended:
        networks.main(["-k", "nothing"])
    assert ended.value.code == 2
