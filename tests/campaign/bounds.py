"""Bounds: quotas under many writers, 100,000 pending records, clocks that jump, two months in one process, drop counts.

``--rounds`` says how often each fresh process of the curve is measured, and how many random walks of the clock are
made; from ten on the sizes are those of the full form. The curve stands in the notes of its rows.
"""

from __future__ import annotations

import random
from pathlib import Path

from . import bounds_curve, bounds_life, bounds_quota, report

ROUNDS, SHORT_ROUNDS = 15, 1


def run(*, rounds: int, seed: int, progress: report.Progress, work: Path) -> list[report.Row]:
    """Every treatment in turn; the sizes of the full form from ten rounds on."""
    chance = random.Random(seed)
    rows = []
    for part in (bounds_quota, bounds_curve, bounds_life):
        place = work / part.__name__.rpartition("_")[2]
        place.mkdir()
        rows += part.run(rounds, chance, progress, place)
    return rows
