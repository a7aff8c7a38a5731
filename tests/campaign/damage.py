"""The damage campaign: a spool of 1,000 records, spoiled in one way in each round, then started and delivered.

Whatever was done to its files, the next start succeeds, every undamaged record is delivered exactly once, none with
another content, damaged lines are counted, no usage is sent whose consent is gone, and the start after that finds
nothing to do. The whole agent on damage of each kind of file: ``test_spool_versions``.
``rounds`` is the number of flipped bits; the other treatments come in proportion.
"""

import gc
import multiprocessing
import os
import random
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from support.spool import spool

from agent.values import Verdict

from . import damage_spool as spools, report
from .damage_spool import Expected, Key, Oracle, State

ROUNDS, SHORT_ROUNDS = 10_000, 40
RECORDS, SHORT_RECORDS = 920, 150
# Processor time, which a busy machine does not stretch. Nothing takes longer.
HANG_S = 20.0

# Treatment, and how many of it to each flipped bit.
GROUPS: dict[str, tuple[spools.Treatment, float]] = {
    "cut at every byte of the last 4 KB": (spools.cut_end, 0.4096),
    "cut at random": (spools.cut_anywhere, 0.1),
    "one bit flipped": (spools.flip, 1.0),
    "4 KB blocks overwritten": (spools.block, 0.2),
    "files emptied, deleted, swapped, renamed, joined": (spools.whole, 0.12),
    "lines doubled, reordered, moved": (spools.lines, 0.06),
    "CRLF, BOM, garbage or NULs at the end": (spools.tools, 0.06),
}
SETTLEMENT = "settlement damaged"
DELIVERED = Verdict("delivered")


def judge(oracle: Oracle, expected: Expected, sent: list[tuple[Key, bool]]) -> report.Row:
    """One round: what was delivered, each with whether its content was right, beside what was to be."""
    times = Counter(key for key, _ in sent)
    known = {key: oracle.known[key] for key in times if key in oracle.known}
    again = {key: times[key] - 1 + bool(one.settled) for key, one in known.items()}
    explained = [key for key, n in again.items() if n == 1 and key in expected.again]
    missing = sorted(expected.must - times.keys())
    row = report.Row("", rounds=1, recorded=len(oracle.before.must), delivered=len(times))
    row.figure("of the records undamaged", len(expected.must))
    row.lost, row.duplicated = len(missing), sum(again.values())
    row.wrong = sum(not right for _, right in sent)
    row.causes[SETTLEMENT] += len(explained)
    usage = [key for key in times if key[0] == "reo"]
    for what, keys in (
        ("lost", missing),
        ("wrong", [key for key, right in sent if not right]),
        ("delivered again", [key for key, n in again.items() if n and key not in explained]),
        ("a dead letter was delivered", sorted(times.keys() & expected.dead)),
        ("usage was sent without its consent", [] if expected.usage else usage),
    ):
        row.breaks(keys, "%s: %d, as %s" % (what, len(keys), keys[:1]))
    return row


# --- rounds of the spool alone --------------------------------------------------------------------


def _pass(place: Path) -> tuple[list[tuple[Key, dict[str, Any]]], float, int, Any]:
    """A process that starts and delivers everything: what, how long until the first, lines damaged, its spool."""
    sent: list[tuple[Key, dict[str, Any]]] = []
    began_at, start_s = time.process_time(), 0.0
    target = spool(place, power=False)
    assert target.claim(), "nobody else delivers"
    damaged: int = target.census()["damaged"]
    for record in target.waiting(()):
        start_s = start_s or time.process_time() - began_at
        if record.kind == "aggregate":  # an attempt fixes whose it is
            record.body["domain"] = "acme.example"
            assert target.try_(record, sync=True)
        target.answer(record, DELIVERED, 1.0)
        sent.append((record.key, record.to_json()))
    target.release()
    return sent, start_s or time.process_time() - began_at, damaged, target


def _left(place: Path, target: Any) -> list[str]:
    """Segments that should not be there any more, once everything was delivered."""
    kept = {record.place[0] for record in target.records(dead=True)}
    return sorted({path.name for path in place.glob("*.seg")} - kept)


def _round(place: Path, oracle: Oracle, state: State) -> report.Row:
    spools.lay(place, state)
    expected = oracle.expect(state)
    sent, start_s, damaged, _ = _pass(place)
    more, later_s, _, target = _pass(place)
    right = [(key, oracle.is_right(key, value, expected)) for key, value in sent]
    found = judge(oracle, expected, right)
    found.figure("s of processor time for a start", start_s)
    found.figure("s for one after it", later_s)
    found.figure("damaged lines counted", damaged)
    lines = "%d damaged lines of %d" % (damaged, expected.damaged_lines)
    found.breaks(damaged != expected.damaged_lines, lines)
    found.breaks(more, "a second pass delivers %d, as %s" % (len(more), more[:1]))
    dead = {record.key for record in target.records(dead=True)}
    found.breaks(dead != expected.dead, "dead letters: %d of %d" % (len(dead), len(expected.dead)))
    left = _left(place, target)
    found.breaks(left, "left: %s" % ", ".join(left))
    return found


# --- all of it ------------------------------------------------------------------------------------

Round = tuple[str, int]  # of which group, its number


class Process:
    """What one process needs for its rounds; ``begin`` makes its own."""

    mine: Any = None

    def __init__(self, oracle: Oracle, seed: int, work: Path) -> None:
        self._oracle, self._seed = oracle, seed
        self._place = work / ("process-%d" % os.getpid()) / "state"

    def play(self, one: Round) -> report.Row:
        group, n = one
        treat = GROUPS[group][0]
        state = treat(self._oracle.files, random.Random("%d %s %d" % (self._seed, group, n)), n)
        began_at = time.process_time()
        try:
            row = _round(self._place, self._oracle, state)
        except Exception as error:  # a start that fails is what this campaign looks for
            where = traceback.extract_tb(error.__traceback__)[-1]
            row = report.Row("", rounds=1)
            row.broken.append("%r at %s:%s" % (error, where.filename, where.lineno))
        took_s = time.process_time() - began_at
        row.breaks(took_s > HANG_S, "took %.0f s" % took_s)
        row.broken = ["%s, round %d: %s" % (group, n, what) for what in row.broken]
        row.treatment = group
        return row


def _begin(*given: Any) -> None:
    gc.disable()  # a round makes no circles worth a look
    Process.mine = Process(*given)


def _play(one: Round) -> report.Row:
    row: report.Row = Process.mine.play(one)
    return row


def _plan(rounds: int, seed: int) -> list[Round]:
    plan: list[Round] = []
    for group, (treat, share) in GROUPS.items():
        count = max(1, round(rounds * share))
        # Few of the cuts are spread over the 4 KB, all of them are one for each byte.
        numbers = [n * spools.BLOCK // count for n in range(count)]
        if treat is not spools.cut_end:  # of few rounds, other kinds with another seed
            numbers = [seed + n for n in range(count)]
        plan += [(group, n) for n in numbers]
    return plan


def run(*, rounds: int, seed: int, progress: report.Progress, work: Path) -> list[report.Row]:
    records = RECORDS if rounds >= 1000 else SHORT_RECORDS
    oracle = Oracle(spools.build(work / "made" / "state", records))
    sizes = len(oracle.before.must), len(oracle.files), sum(map(len, oracle.files.values()))
    progress.say("%d records wait in %d files of %d bytes" % sizes)
    plan = _plan(rounds, seed)
    rows = {name: report.Row(name) for name in GROUPS}
    processes = min(4, os.cpu_count() or 1) if rounds >= 1000 and hasattr(os, "fork") else 1
    fork: Any = multiprocessing.get_context("fork" if hasattr(os, "fork") else None)
    with fork.Pool(processes, _begin, (oracle, seed, work)) as pool:
        for done, row in enumerate(pool.imap_unordered(_play, plan, 10), 1):
            rows[row.treatment].add(row)
            for what in row.broken:
                progress.say(what)
            progress.step(row.treatment, done, len(plan))
    return list(rows.values())
