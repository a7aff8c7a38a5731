"""The spool against a model: random histories of a few processes, kills in system calls, power cuts.

``tests/spool/test_spool_model.py`` holds the rules, ``tests/support/model.py`` the world; a round is one history of
up to 25 steps. Power cuts are simulated: what was not synced is lost, in part or whole.
"""

from collections import Counter
from pathlib import Path
from unittest import mock

import hypothesis
from hypothesis.stateful import run_state_machine_as_test
from test_spool_model import SpoolMachine  # type: ignore[import-not-found]

from . import report

ROUNDS, SHORT_ROUNDS = 2000, 5
# So many at a time, each batch with a seed of its own.
BATCH = 50
CAUSE = "answer or settlement lost"


def run(*, rounds: int, seed: int, progress: report.Progress, work: Path) -> list[report.Row]:
    """One row: what the histories held, and the shortest one that broke a promise."""
    row = report.Row("histories against a model")
    told: Counter[str] = Counter()

    class Machine(SpoolMachine):
        def teardown(self) -> None:
            world = self.world
            super().teardown()
            if world is not None:
                told.update(world.told)
                row.recorded += len(world.known)
                accepted = [rec.accepted for rec in world.known.values() if rec.accepted]
                row.delivered += len(accepted)
                row.duplicated += sum(accepted) - len(accepted)

    with mock.patch("tempfile.tempdir", str(work)):
        while row.rounds < rounds and not row.broken:
            batch = min(BATCH, rounds - row.rounds)
            settings = hypothesis.settings(
                SpoolMachine.TestCase.settings,
                max_examples=batch,
                derandomize=False,
                print_blob=False,
            )
            machine = hypothesis.seed(seed + row.rounds)(Machine)
            try:
                run_state_machine_as_test(machine, settings=settings)
            except AssertionError as error:
                notes = getattr(error, "__notes__", [])
                row.broken.append(" ".join([repr(error), *notes]))
            row.rounds += batch
            progress.step("histories", row.rounds, rounds)
    row.causes[CAUSE] = row.duplicated
    row.note = ", ".join("%s %d" % found for found in sorted(told.items()))
    return [row]
