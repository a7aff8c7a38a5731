"""The spool against a model: random histories of a few processes, kills in system calls, power cuts.

``tests/spool/test_spool_model.py`` holds the rules, ``tests/support/model.py`` the world; a round is one history of
up to 25 steps. Power cuts are simulated: what was not synced is lost, in part or whole.
"""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import hypothesis
from hypothesis.stateful import run_state_machine_as_test
from support.model import World
from test_spool_model import SpoolMachine

from . import report

ROUNDS, SHORT_ROUNDS = 2000, 5
# So many at a time, each batch with a seed of its own.
BATCH = 50


def run(*, rounds: int, seed: int, progress: report.Progress, work: Path) -> list[report.Row]:
    """One row: what the histories held, and the shortest one that broke a promise."""
    row = report.Row("histories against a model")
    told: dict[str, int] = {}
    done = 0

    class Machine(SpoolMachine):
        def teardown(self) -> None:
            world = self.world
            super().teardown()
            if world is not None:
                _sum_up(world, row, told)

    with mock.patch("tempfile.tempdir", str(work)):
        while done < rounds and not row.broken:
            batch = min(BATCH, rounds - done)
            settings = hypothesis.settings(
                SpoolMachine.TestCase.settings,
                max_examples=batch,
                derandomize=False,
                print_blob=False,
            )
            try:
                run_state_machine_as_test(hypothesis.seed(seed + done)(Machine), settings=settings)
            except AssertionError as error:
                notes = getattr(error, "__notes__", [])
                row.broken.append(" ".join([repr(error), *notes]))
            done += batch
            progress.step("histories", done, rounds, "%d recorded" % row.recorded)
    row.rounds = done
    row.note = ", ".join("%s %d" % found for found in sorted(told.items()))
    return [row]


def _sum_up(world: World, row: report.Row, told: dict[str, int]) -> None:
    for what, n in world.told.items():
        told[what] = told.get(what, 0) + n
    for rec in world.known.values():
        row.recorded += 1
        row.delivered += rec.accepted > 0
        if rec.accepted > 1:
            row.duplicated += rec.accepted - 1
            row.causes["answer or settlement lost"] = (
                row.causes.get("answer or settlement lost", 0) + rec.accepted - 1
            )
