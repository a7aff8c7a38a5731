"""The damage campaign: a spool of 1,000 records, spoiled in one way in each round, then started and delivered.

Whatever was done to its files, the next start succeeds, every undamaged record is delivered exactly once, none with
another content, damaged lines are counted, no usage is sent whose consent is gone, and the start after that finds
nothing to do. Most rounds deliver from the spool itself, some through the whole agent to a collector.
``rounds`` is the number of flipped bits; the other treatments come in proportion.
"""

import functools
import gc
import multiprocessing
import os
import random
import time
import traceback
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from support.agent import Desk, desk
from support.spool import spool

import agent
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
THROUGH = "some of each through agent and collector"
THROUGH_AGENT = 0.02
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
    _timed(found, start_s, later_s)
    found.figure("damaged lines counted", damaged)
    lines = "%d damaged lines of %d" % (damaged, expected.damaged_lines)
    found.breaks(damaged != expected.damaged_lines, lines)
    found.breaks(more, "a second pass delivers %d, as %s" % (len(more), more[:1]))
    dead = {record.key for record in target.records(dead=True)}
    found.breaks(dead != expected.dead, "dead letters: %d of %d" % (len(dead), len(expected.dead)))
    left = _left(place, target)
    found.breaks(left, "left: %s" % ", ".join(left))
    return found


def _timed(row: report.Row, start_s: float, later_s: float) -> None:
    row.figure("s of processor time for a start", start_s)
    row.figure("s for one after it", later_s)


# --- rounds through the agent ---------------------------------------------------------------------


class Whole:
    """The agent itself against a collector; knows what each record looks like when it arrives."""

    def __init__(self, place: Path, oracle: Oracle, at: Desk) -> None:
        self._oracle, self._at, self._place = oracle, at, place
        at.clock.at = 1_760_100_000.0
        undamaged = {name: data for name, data in oracle.files.items() if name != spools.BOOK}
        spools.lay(place, dict(undamaged))
        self._arrives = dict(self._run([]))

    def _run(self, broken: list[str]) -> list[tuple[Key, dict[str, Any]]]:
        """One life of the product: what arrived, in order, by its key."""
        self._at.collector.clear()
        told: list[agent.Outcome] = []
        began_at = time.process_time()
        with self._at.agent(on_outcome=told.append, durability="process") as product:
            product.status()
            if product.record_text("new", data_group="g") is None:
                broken.append("nothing recorded: %s" % product.status()["not_recorded"])
            self._start_s = time.process_time() - began_at
            product.flush(60)
            status = product.status()
            if status["pending"]:
                reasons = [(e["waiting"], e["waits_for"], e["reason"]) for e in status["endpoints"]]
                broken.append("%d still wait: %s" % (status["pending"], reasons))
        arrived = self._at.collector.records()
        if len(arrived) != len(told):
            broken.append("%d arrived, %d were told" % (len(arrived), len(told)))
        return [((o.endpoint, o.event_id), _fields(r)) for o, r in zip(told, arrived)]

    def round(self, state: State) -> report.Row:
        spools.lay(self._place, state)
        expected, broken = self._oracle.expect(state), list[str]()
        sent, start_s = self._run(broken), self._start_s
        known = [(key, fields) for key, fields in sent if key in self._oracle.known]
        new = [fields for key, fields in sent if key not in self._oracle.known]
        if [fields.get("text_data") for fields in new] != ["new"]:
            broken.append("what was recorded after the damage did not arrive once")
        again = self._run(broken)
        if len(again) != 1:
            broken.append("the next start delivers %d: %s" % (len(again), again[:2]))
        right = [(key, self._is_right(key, fields, expected)) for key, fields in known]
        found = judge(self._oracle, expected, right)
        found.broken += broken
        _timed(found, start_s, self._start_s)
        return found

    def _is_right(self, key: Key, fields: dict[str, Any], expected: Expected) -> bool:
        meant, values = self._arrives.get(key), expected.values.get(key, ())
        if meant is None or "count" not in fields:
            return fields == meant
        sums = [(one["b"]["count"], one["b"]["meta"]["window_end"]) for one in values]
        got = fields["count"], fields["meta"]["window_end"]
        return got in sums and {**fields, "count": 0, "meta": 0} == {**meant, "count": 0, "meta": 0}


def _fields(record: dict[str, Any]) -> dict[str, Any]:
    """What a collector took in, without what depends on when it was sent."""
    fields = dict(record["fields"])
    if record["endpoint"] == "reo-aggregate":
        fields.pop("event_at", None)
    return fields


# --- all of it ------------------------------------------------------------------------------------

Round = tuple[str, int, bool]  # of which group, its number, whether through the agent


class Process:
    """What one process needs for its rounds; ``begin`` makes its own."""

    mine: Any = None

    def __init__(self, oracle: Oracle, seed: int, work: Path) -> None:
        self._oracle, self._seed = oracle, seed
        self._place = work / ("process-%d" % os.getpid()) / "state"
        self._stack = ExitStack()

    @functools.cached_property
    def _whole(self) -> Whole:
        at = self._stack.enter_context(desk(self._place, algorithm="ed25519"))
        return Whole(self._place, self._oracle, at)

    def play(self, one: Round) -> report.Row:
        group, n, whole = one
        treat = GROUPS[group][0]
        state = treat(self._oracle.files, random.Random("%d %s %d" % (self._seed, group, n)), n)
        began_at = time.process_time()
        try:
            row = self._whole.round(state) if whole else _round(self._place, self._oracle, state)
        except Exception as error:  # a start that fails is what this campaign looks for
            where = traceback.extract_tb(error.__traceback__)[-1]
            row = report.Row("", rounds=1)
            row.broken.append("%r at %s:%s" % (error, where.filename, where.lineno))
        took_s = time.process_time() - began_at
        row.breaks(took_s > HANG_S, "took %.0f s" % took_s)
        row.broken = ["%s, round %d: %s" % (group, n, what) for what in row.broken]
        row.treatment = THROUGH if whole else group
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
        plan += [(group, n, False) for n in numbers]
    rng, groups = random.Random(seed), list(GROUPS)
    for _ in range(max(2, round(rounds * THROUGH_AGENT))):
        plan.append((rng.choice(groups), rng.randrange(10**6), True))
    return plan


def run(*, rounds: int, seed: int, progress: report.Progress, work: Path) -> list[report.Row]:
    records = RECORDS if rounds >= 1000 else SHORT_RECORDS
    oracle = Oracle(spools.build(work / "made" / "state", records))
    sizes = len(oracle.before.must), len(oracle.files), sum(map(len, oracle.files.values()))
    progress.say("%d records wait in %d files of %d bytes" % sizes)
    plan = _plan(rounds, seed)
    rows = {name: report.Row(name) for name in [*GROUPS, THROUGH]}
    processes = min(4, os.cpu_count() or 1) if rounds >= 1000 and hasattr(os, "fork") else 1
    fork: Any = multiprocessing.get_context("fork" if hasattr(os, "fork") else None)
    with fork.Pool(processes, _begin, (oracle, seed, work)) as pool:
        for done, row in enumerate(pool.imap_unordered(_play, plan, 10), 1):
            rows[row.treatment].add(row)
            for what in row.broken:
                progress.say(what)
            progress.step(row.treatment, done, len(plan))
    return list(rows.values())
