"""The engine without Atheris: random mutations, seeded, nothing measured but outcomes.

An input with an outcome that no other had joins those that are mutated further. Without coverage that is the only sign
of progress, so outcomes are worded finely; in return it costs nothing, and runs wherever the tests run.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Callable, Optional

from . import corpus
from .findings import Finding
from .target import Target

POOL_MAX_BYTES = 8 * 1024
Progress = Callable[[Finding], None]


def run(
    target: Target,
    found: Finding,
    *,
    seconds: float,
    executions: Optional[int] = None,
    directory: Optional[Path] = None,
    progress: Progress = lambda finding: None,
) -> None:
    """Fuzz for so many seconds, or so many executions behind those of the seeds; new inputs go to ``directory`` too.

    ``found`` is filled in while it runs, so that an interrupted run shows what it has.
    """
    rnd, began_at = random.Random(found.seed), time.monotonic()
    pool = [*target.seeds(), *(data for _, data in corpus.kept(target.name))]
    if directory is not None and directory.is_dir():
        pool += corpus.load(directory)
    seen: set[str] = set()
    for data in pool:
        _try(target, data, found, seen)
    before, seeds = len(seen), len(pool)
    try:
        while time.monotonic() - began_at < seconds:
            if executions is not None and found.executions >= executions + seeds:
                break
            data = rnd.choice(pool)
            for _ in range(rnd.choice((1, 1, 2, 4))):
                data = target.mutate(data, rnd)
            if len(data) <= POOL_MAX_BYTES and _try(target, data, found, seen):
                pool.append(data)
                if directory is not None:
                    corpus.save(directory, data)
            if found.executions % 64 == 0:
                _sum_up(found, len(pool), len(seen) - before, began_at)
                progress(found)
    finally:
        _sum_up(found, len(pool), len(seen) - before, began_at)


def _sum_up(found: Finding, pool: int, new: int, began_at: float) -> None:
    found.corpus, found.new, found.seconds = pool, new, time.monotonic() - began_at


def _try(target: Target, data: bytes, found: Finding, seen: set[str]) -> bool:
    """One execution; whether its outcome is new."""
    found.executions += 1
    try:
        outcome = target.run(data)
    except (Exception, SystemExit) as error:
        found.add(data, error)
        return False
    new = outcome not in seen
    seen.add(outcome)
    return new
