"""The damage campaign: a spool of 1,000 records, spoiled in one way in each round, then started and delivered.

Whatever was done to its files, the next start succeeds, every undamaged record is delivered exactly once, none with
another content, damaged lines are set aside and counted, and the start after that finds a clean directory. Most rounds
deliver from the spool itself, some through the whole agent to a collector. The peers' stores get the same treatment.
``rounds`` is the number of flipped bits; the other treatments come in proportion.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import stat
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional
from unittest.mock import patch

from support.agent import Desk, desk
from support.spool import look, spool

import agent
from agent.spool import names

from . import damage_spool as spools, report
from .damage_spool import HUGE, Expected, Key, Oracle, State
from .stores import PEERS, SqliteStore, peer

ROUNDS, SHORT_ROUNDS = 10_000, 40
RECORDS, SHORT_RECORDS = 1000, 150
# Processor time, which a busy machine does not stretch. Nothing takes longer, but for the files of 300 MB.
HANG_S, HUGE_HANG_S = 20.0, 120.0
# ``damaged`` is filled up to here; behind that lines are only counted, and behind twice that not even so.
SET_ASIDE_BYTES = 128 << 10

# Treatment, and how many of it to each flipped bit.
GROUPS: dict[str, tuple[spools.Treatment, float]] = {
    "cut at every byte of the last 4 KB": (spools.cut_end, 0.4096),
    "cut at random": (spools.cut_anywhere, 0.1),
    "one bit flipped": (spools.flip, 1.0),
    "4 KB blocks overwritten": (spools.block, 0.2),
    "files emptied, deleted, swapped, renamed, joined": (spools.whole, 0.12),
    "lines doubled, reordered, moved": (spools.lines, 0.06),
    "something else in a file's place": (spools.odd, 0.06),
    "CRLF, BOM, garbage or NULs at the end": (spools.tools, 0.06),
    "300 MB of NULs": (spools.huge, 0.003),
}
PEER_GROUPS = list(GROUPS)[1:5]
THROUGH_AGENT = 0.02
SETTLEMENT = "settlement damaged"
COPY = "a copy in a segment that dead letters keep"


@dataclass
class Found:
    """What one round, or many, came to."""

    rounds: int = 0
    recorded: int = 0
    undamaged: int = 0
    delivered: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    causes: Counter[str] = field(default_factory=Counter)  # of the duplicates
    set_aside: int = 0
    start_s: float = 0.0  # the worst
    later_s: float = 0.0  # the worst start after the damage was dealt with
    broken: list[str] = field(default_factory=list)

    def add(self, other: Found) -> None:
        for name, value in vars(other).items():
            if name.endswith("_s"):
                setattr(self, name, max(getattr(self, name), value))
            elif name != "broken":
                setattr(self, name, getattr(self, name) + value)  # numbers, and causes
        self.broken += other.broken[: 10 - len(self.broken)]

    def row(self, treatment: str) -> report.Row:
        note = "%d of the records undamaged, %d damaged lines set aside" % (
            self.undamaged,
            self.set_aside,
        )
        note += ", slowest start %.2f s of processor time, " % self.start_s
        note += "of those after it %.2f s" % self.later_s
        return report.Row(
            treatment,
            rounds=self.rounds,
            recorded=self.recorded,
            delivered=self.delivered,
            lost=self.lost,
            duplicated=self.duplicated,
            wrong=self.wrong,
            causes=dict(self.causes),
            note=note,
            broken=self.broken,
        )

    def judge(
        self, oracle: Oracle, expected: Expected, sent: list[tuple[Key, bool]], new: int = 0
    ) -> None:
        """Compare what was delivered, each with whether its content was right, with what was to be."""
        times = Counter(key for key, _ in sent)
        self.rounds += 1
        self.recorded += len(oracle.before.must) + new
        self.undamaged += len(expected.must) + new
        self.delivered += len(times)
        self.wrong += sum(not right for _, right in sent)
        missing = sorted(expected.must - times.keys())
        self.lost += len(missing)
        before = {key for key in times if key in oracle.known and oracle.known[key].settled_by}
        again = {key: n - 1 + (key in before) for key, n in times.items()}
        self.duplicated += sum(again.values())
        unexplained = []
        for key, n in again.items():
            if n and key in expected.copied:
                self.causes[COPY] += n
            elif n == 1 and key in expected.again:
                self.causes[SETTLEMENT] += n
            elif n:
                unexplained.append(key)
        if missing:
            self.broken.append("lost %d, as %s" % (len(missing), missing[0]))
        for key, right in sent:
            if not right:
                self.broken.append("wrong: %s %s" % key)
                break
        if unexplained:
            self.broken.append("delivered again: %s %s" % unexplained[0])
        buried = [key for key in times if key[1].endswith("!")]
        if buried:
            self.broken.append("a dead letter was delivered: %s %s" % buried[0])


# --- rounds of the spool alone --------------------------------------------------------------------


def _pass(place: Path) -> tuple[list[tuple[Key, dict[str, Any]]], float]:
    """A process that starts and delivers everything: what it sent, and how long until the first of it."""
    sent: list[tuple[Key, dict[str, Any]]] = []
    began_at = time.process_time()
    target = spool(place, power=False)
    start_s: Optional[float] = None
    claim = target.claim()
    assert claim is not None, "nobody else delivers"
    try:
        target.rescue()
        target.backlog.refresh()
        epoch = target.consent.current()
        for record in target.backlog.records():
            if start_s is None:
                start_s = time.process_time() - began_at
            ledger = target.backlog.ledger
            if record.usage and record.epoch < epoch:
                ledger.end(record, settled=True)
                continue
            ledger.begin(record)
            if record.kind == "aggregate":
                if not target.backlog.is_closed(record) or not ledger.freeze(record):
                    continue  # it waits
            ledger.end(record, settled=True)
            sent.append((record.key, record.to_json()))
        target.history.add({"at": 1})
        target.facts.refresh()
        target.sweep(None)
    finally:
        target.release(claim)
    return sent, start_s if start_s is not None else time.process_time() - began_at


def _left(place: Path, state: State) -> list[str]:
    """What should not be there any more, once everything was delivered."""
    kept = []
    for name in sorted(os.listdir(place)):
        segment = name[:-4] + ".seg"
        if spools.SEGMENT.fullmatch(name) or spools.SIDECAR.fullmatch(name):
            stays = segment in os.listdir(place) and any(
                record.why for view in look(place).views() for record in view.records.values()
                if view.name == segment
            )  # fmt: skip
            if not stays:
                kept.append(name)
        elif name != names.LOCK and os.lstat(place / name).st_size > 1 << 20:
            kept.append(name)
    return kept


def _round(place: Path, oracle: Oracle, state: State, exact: bool) -> Found:
    found = Found()
    spools.lay(place, state, place.with_name("aside"))
    expected = oracle.expect(state)
    sent, found.start_s = _pass(place)
    more, _ = _pass(place)
    right = [(key, oracle.is_right(key, value, expected)) for key, value in sent + more]
    found.judge(oracle, expected, right)
    again, found.later_s = _pass(place)
    if again:
        found.broken.append("a third pass delivers %s %s" % again[0][0])
    dead = {record.key for record in look(place).records(dead=True)}
    if dead != expected.dead:
        found.broken.append("dead letters: %d of %d" % (len(dead), len(expected.dead)))
    left = _left(place, state)
    if left:
        found.broken.append("left: %s" % ", ".join(left))
    found.set_aside = _set_aside(place)
    if exact and not isinstance(state.get(names.DAMAGED), spools.Odd):
        _judge_damage(found, place, oracle, state, expected)
    return found


def _read(path: Path) -> bytes:
    """A regular file's content, b"" where something else stands."""
    try:
        found = os.lstat(path)
        return path.read_bytes() if stat.S_ISREG(found.st_mode) and found.st_size < HUGE else b""
    except OSError:
        return b""


def _set_aside(place: Path) -> int:
    """Lines in ``damaged``."""
    return _read(place / names.DAMAGED).count(b"\n")


def _torn(place: Path, oracle: Oracle) -> int:
    """How many segments that stay, of dead letters, end within a line: set aside with them, one day."""
    tails = [_read(Path(view.path)).rpartition(b"\n")[2] for view in look(place).views()]
    return sum(tail != b"" and not oracle.is_line(tail) for tail in tails)


def _judge_damage(
    found: Found, place: Path, oracle: Oracle, state: State, expected: Expected
) -> None:
    """Every damaged line must be set aside, or still stand in a segment of dead letters."""
    standing = sum(len(view.damaged) for view in look(place).views()) + _torn(place, oracle)
    size = len(_read(place / names.DAMAGED))
    if found.set_aside + standing != expected.damaged_lines and size < SET_ASIDE_BYTES:
        found.broken.append(
            "%d damaged lines set aside, %d stand, of %d"
            % (found.set_aside, standing, expected.damaged_lines)
        )
    if size > SET_ASIDE_BYTES + 2048:
        found.broken.append("damaged has %d bytes" % size)


# --- rounds through the agent ---------------------------------------------------------------------


def _fields(record: dict[str, Any]) -> dict[str, Any]:
    """What a collector took in, without what depends on when it was sent."""
    fields = dict(record["fields"])
    if record["endpoint"] == "reo-aggregate":
        fields.pop("event_at", None)
    return fields


class Whole:
    """The agent itself against a collector; knows what each record looks like when it arrives."""

    def __init__(self, place: Path, oracle: Oracle, at: Desk) -> None:
        self._oracle, self._at = oracle, at
        at.clock.at = 1_760_100_000.0
        self._place = place
        self._arrives: dict[Key, dict[str, Any]] = {}
        undamaged: State = dict(oracle.files)
        for name in spools.of(oracle.files, spools.SIDECAR):
            del undamaged[name]
        spools.lay(place, undamaged, place.with_name("aside"))
        sent, _ = self._run(Found())
        self._arrives = {key: fields for key, fields in sent}

    def _run(self, found: Found) -> tuple[list[tuple[Key, dict[str, Any]]], int]:
        """One life of the product: (what arrived, in order, by its key; damaged lines it knows of)."""
        self._at.collector.clear()
        told: list[agent.Outcome] = []
        began_at = time.process_time()
        with self._at.agent(on_outcome=told.append, durability="process") as product:
            status = product.status()
            if product.record_text("new", data_group="g") is None:
                found.broken.append(
                    "nothing can be recorded: %s" % product.status()["not_recorded"]
                )
            found.start_s = max(found.start_s, time.process_time() - began_at)
            # The first pass may have to make room for files, or to make some readable.
            for n in range(3):
                if product.flush(60).drained and n:
                    break
            status = product.status()
            if status["pending"]:
                reasons = [(e["waiting"], e["reason"]) for e in status["endpoints"]]
                found.broken.append("%d still wait: %s" % (status["pending"], reasons))
        arrived = [record for record in self._at.collector.records()]
        if len(arrived) != len(told):
            found.broken.append("%d arrived, %d were told" % (len(arrived), len(told)))
        keys = [(outcome.endpoint, outcome.event_id) for outcome in told]
        return list(zip(keys, map(_fields, arrived))), status["damaged"]

    def round(self, state: State, exact: bool) -> Found:
        found = Found()
        spools.lay(self._place, state, self._place.with_name("aside"))
        expected = self._oracle.expect(state)
        sent, damaged = self._run(found)
        known = [(key, fields) for key, fields in sent if key in self._oracle.known]
        new = [fields for key, fields in sent if key not in self._oracle.known]
        if [fields.get("text_data") for fields in new] != ["new"]:
            found.broken.append("what was recorded after the damage did not arrive once")
        right = [(key, self._is_right(key, fields, expected)) for key, fields in known]
        found.judge(self._oracle, expected, right + [(("", "new"), True)] * len(new), new=1)
        again, _ = self._run(later := Found())
        found.later_s = later.start_s
        found.broken += later.broken
        if len(again) != 1:
            found.broken.append("the next start delivers %d: %s" % (len(again), again[:2]))
        found.set_aside = _set_aside(self._place)
        known_damage = expected.damaged_lines
        damaged += _torn(self._place, self._oracle)
        exact = exact and not isinstance(state.get(names.DAMAGED), spools.Odd)
        if exact and damaged != known_damage and damaged < 1000:
            found.broken.append("status() knows %d damaged lines of %d" % (damaged, known_damage))
        return found

    def _is_right(self, key: Key, fields: dict[str, Any], expected: Expected) -> bool:
        meant = self._arrives.get(key)
        if meant is None or key not in expected.counts:
            return fields == meant
        ours, theirs = dict(meant), dict(fields)
        if theirs.pop("count") not in expected.counts[key]:
            return False
        if theirs.pop("meta").get("window_end") not in expected.ends[key]:
            return False
        return {**theirs, "count": 0, "meta": 0} == {**ours, "count": 0, "meta": 0}


# --- the peers ------------------------------------------------------------------------------------


def _peer_files(work: Path, name: str, records: int) -> tuple[dict[str, bytes], dict[str, str]]:
    """The files of a store as a process leaves them that is killed, and its records by id."""
    store = peer(name, work)
    if isinstance(store, SqliteStore):
        store._db.execute("pragma synchronous=off")  # no power cut here, and the same bytes
    texts = {"id-%05d" % n: "scene %05d %s" % (n, "x" * (100 + n % 200)) for n in range(records)}
    with patch.object(os, "fsync"):
        for id, text in texts.items():
            store.record(id, text)
    files = {path.name: path.read_bytes() for path in sorted(work.iterdir())}
    store.close()
    # Made anew from the log by whoever opens it first.
    return {name: data for name, data in files.items() if not name.endswith("-shm")}, texts


def _peer_damage(
    files: dict[str, bytes], group: str, rng: random.Random, n: int
) -> dict[str, bytes]:
    """The same treatment, as far as there is something to treat: these stores are one file, or two."""
    treat = GROUPS[group][0]
    if treat is not spools.whole:
        return {k: v for k, v in treat(files, rng, n).items() if isinstance(v, bytes)}
    one, other = rng.choice(sorted(files)), rng.choice(sorted(files))
    data = files[one]
    return (
        lambda: {**files, one: b""},
        lambda: {name: data for name, data in files.items() if name != one},
        lambda: {**files, one: files[other], other: files[one]},
        lambda: {**files, one: data + data},
        lambda: {**files, one: data.replace(b"\n", b"\r\n")},
        lambda: {**files, one: b"\xef\xbb\xbf" + data},
        lambda: {**files, one: data + b"garbage"},
        lambda: {**files, one: data + bytes(4096)},
    )[n % 8]()


def _peer_row(
    name: str,
    group: str,
    rounds: int,
    seed: int,
    made: tuple[dict[str, bytes], dict[str, str]],
    work: Path,
) -> report.Row:
    files, texts = made
    row = report.Row(group, name, causes={})
    refused = 0
    for n in range(rounds):
        damaged = _peer_damage(files, group, random.Random("%d %s %d" % (seed, group, n)), n)
        place = work / "spoiled"
        spools.clear(place)
        place.mkdir(parents=True)
        for file, data in damaged.items():
            (place / file).write_bytes(data)
        intact = b"".join(damaged.values())
        undamaged = {i for i, text in texts.items() if (i + text).encode() in intact}
        if name == "JSON lines":
            here = set(intact.split(b"\n"))
            lines = zip(texts, files["queue.jsonl"].split(b"\n"))
            undamaged = {i for i, line in lines if line in here}
        found: list[tuple[str, str]] = []
        store = None
        try:
            store = peer(name, place)
            found = store.pending()
        except Exception:
            refused += 1
        finally:
            if store is not None:
                store.close()
        times = Counter(id for id, _ in found)
        row.rounds += 1
        row.recorded += len(texts)
        row.delivered += len(times.keys() & texts.keys())
        row.lost += len(undamaged - times.keys())
        row.duplicated += sum(times.values()) - len(times)
        row.wrong += sum(texts.get(id) != text for id, text in found)
    row.note = "an exception instead of records in %d rounds" % refused
    return row


# --- all of it ------------------------------------------------------------------------------------


@dataclass
class Task:
    """Some rounds of one group, for one process."""

    group: str
    numbers: list[int]
    seed: int
    whole: bool = False

    def states(self, oracle: Oracle) -> Iterator[tuple[int, State, bool]]:
        for n in self.numbers:
            rng = random.Random("%d %s %d" % (self.seed, self.group, n))
            treat = GROUPS[self.group][0]
            yield n, treat(oracle.files, rng, n), treat is not spools.huge


def _do(task: Task, oracle: Oracle, work: Path) -> tuple[Task, Found]:
    """Run one task in this process, in a directory of its own."""
    mine = work / ("process-%d" % os.getpid())
    mine.mkdir(exist_ok=True)
    place = mine / "state"
    total = Found()
    if task.whole:
        with desk(place, algorithm="ed25519") as at:
            through = Whole(place, oracle, at)
            _each(task, oracle, total, through.round)
    else:
        _each(task, oracle, total, lambda state, exact: _round(place, oracle, state, exact))
    spools.clear(mine)
    return task, total


def _each(task: Task, oracle: Oracle, total: Found, one: Callable[[State, bool], Found]) -> None:
    hang_s = HUGE_HANG_S if GROUPS[task.group][0] is spools.huge else HANG_S
    for n, state, exact in task.states(oracle):
        began_at = time.process_time()
        try:
            found = one(state, exact)
        except Exception as error:  # a start that fails is what this campaign looks for
            where = traceback.extract_tb(error.__traceback__)[-1]
            found = Found(rounds=1)
            found.broken.append("%r at %s:%s" % (error, where.filename, where.lineno))
        if time.process_time() - began_at > hang_s:
            found.broken.append("took %.0f s" % (time.process_time() - began_at))
        found.broken = ["round %d: %s" % (n, what) for what in found.broken]
        total.add(found)


def _tasks(rounds: int, seed: int) -> list[Task]:
    tasks = []
    for group, (treat, share) in GROUPS.items():
        count = max(1, round(rounds * share))
        # Few of the cuts are spread over the 4 KB, all of them are one for each byte.
        numbers = [n * spools.BLOCK // count for n in range(count)]
        if treat is not spools.cut_end:  # of few rounds, other kinds with another seed
            numbers = [seed + n for n in range(count)]
        size = 2 if treat is spools.huge else 100
        tasks += [Task(group, numbers[n : n + size], seed) for n in range(0, count, size)]
    rng = random.Random(seed)
    chosen: dict[str, list[int]] = {}
    for _ in range(max(2, round(rounds * THROUGH_AGENT))):
        group = rng.choice(list(GROUPS)[:-1])
        chosen.setdefault(group, []).append(rng.randrange(10**6))
    if rounds >= 1000:
        chosen[list(GROUPS)[-1]] = [0, 1, 2]
    for group, numbers in chosen.items():
        size = 25 if rounds >= 1000 else len(numbers)
        tasks += [
            Task(group, numbers[n : n + size], seed, whole=True)
            for n in range(0, len(numbers), size)
        ]
    return tasks


_worker: dict[str, Any] = {}


def _begin(oracle: Oracle, work: Path) -> None:
    gc.freeze()
    _worker.update(oracle=oracle, work=work)


def _work(task: Task) -> tuple[Task, Found]:
    return _do(task, _worker["oracle"], _worker["work"])


def run(*, rounds: int, seed: int, progress: report.Progress, work: Path) -> list[report.Row]:
    records = RECORDS if rounds >= 1000 else SHORT_RECORDS
    oracle = Oracle(spools.build(work / "made" / "state", records))
    progress.say(
        "%d records wait in %d files of %d bytes"
        % (len(oracle.before.must), len(oracle.files), sum(map(len, oracle.files.values())))
    )
    tasks = _tasks(rounds, seed)
    total = sum(len(task.numbers) for task in tasks)
    through = "some of each through agent and collector"
    found = {name: Found() for name in [*GROUPS, through]}
    done = 0

    def note(task: Task, one: Found) -> None:
        nonlocal done
        found[through if task.whole else task.group].add(one)
        done += len(task.numbers)
        for what in one.broken:
            progress.say("%s: %s" % (task.group, what))
        progress.step(task.group, done, total)

    processes = min(4, os.cpu_count() or 1)
    if rounds < 1000 or processes < 2 or not hasattr(os, "fork"):
        for task in tasks:
            note(*_do(task, oracle, work))
    else:
        fork = multiprocessing.get_context("fork")
        with fork.Pool(processes, _begin, (oracle, work)) as pool:
            for task, one in pool.imap_unordered(_work, tasks):
                note(task, one)
    rows = [one.row(name) for name, one in found.items()]
    for name in PEERS:
        made = _peer_files(work / name.replace(" ", "-"), name, records)
        for group in PEER_GROUPS:
            count = max(5, round(rounds * GROUPS[group][1] / 10))
            rows.append(_peer_row(name, group, count, seed, made, work / "peers"))
            progress.step(name, len(rows), len(found) + len(PEERS) * len(PEER_GROUPS))
    return rows
