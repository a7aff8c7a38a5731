"""Every situation of ``tests/networks``: its outcome, and each record at the server exactly once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from networks.situations import Situation, everything, missing
from networks.stage import Stage


def cases() -> list[Any]:
    return [
        pytest.param(
            one, id=one.name, marks=[getattr(pytest.mark, one.cost)] if one.cost else []
        )
        for one in everything()
    ]


@pytest.mark.parametrize("situation", cases())
def test_a_network(situation: Situation, tmp_path: Path) -> None:
    why = missing(situation.needs)
    if why:
        pytest.skip(why)
    with Stage(tmp_path / "stage", clock=situation.clock()) as stage:
        situation.play(stage)
        stage.settled()
