"""Crowd: many processes and threads on one spool, deliverers that are killed, locks that fail, a racing reaper.

Each treatment has a state directory and a collector of its own. The processes are ``crowd_member``; what they
acknowledged lies in a file, what arrived is what the collector says. One round is the short form, with fewer processes
and records; every other number of rounds has the full one: 16 processes with 250 records each, 32 threads.
"""

import errno
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Optional

from support.agent import until

from agent.collector import Collector

from . import report
from .kill_account import Account
from .kill_child import Witness
from .processes import Child, Log, said, together

ROUNDS, SHORT_ROUNDS = 10, 1
TAKEOVER_S = 1.0  # how soon another process must go on; in the short form, beside other tests, ten times that
WEEK_S = 7 * 86400.0


class Size(NamedTuple):
    """How large one round is."""

    processes: int
    records: int
    kills: int
    threads: int
    per_thread: int
    lockless: int  # processes where locks fail: each delivers all
    writers: int
    segments: int  # by each writer


FULL = Size(16, 250, 5, 32, 20, 4, 6, 150)
SHORT = Size(5, 20, 2, 32, 3, 3, 4, 40)


class Scene:
    """A state directory, a collector, what processes note beside them, and the row that all of it is for."""

    def __init__(self, work: Path, row: report.Row, size: Size, rng: random.Random) -> None:
        work.mkdir()
        self.row, self.size, self.rng = row, size, rng
        self.state_dir = work / "state"
        self.logs = work / "logs"
        self.logs.mkdir()
        self.arrived = 0  # requests so far

    def note(self, _line: str) -> None:
        self.arrived += 1

    @contextmanager
    def collecting(self) -> Iterator[Collector]:
        with Witness(Log(str(self.logs), "witness"), log=self.note) as self.collector:
            yield self.collector

    def starter(self, role: str, name: str, **settings: Any) -> Callable[[], Child]:
        """How to start a member of the crowd."""
        given = {"state": str(self.state_dir), "logs": str(self.logs), "name": name}
        how = {"deliver": "thread", "exit_timeout_s": 2}
        where = {"url": self.collector.url, "keys": self.collector.keys, "settings": how}
        return partial(Child, "crowd_member", role, **{**given, **where, **settings})

    def crowd(self, number: int, **settings: Any) -> Any:
        """So many members, all told to begin at once."""
        return together(*(self.starter("one", "p%d" % n, **settings) for n in range(number)))

    def segments(self) -> set[str]:
        return {path.name for path in self.state_dir.glob("*.seg")}

    def noted(self, *kinds: str) -> list[tuple[float, str, str]]:
        """What deliverers wrote down of these kinds, in order: when, who, what."""
        found = []
        for path in self.logs.iterdir():
            for line in path.read_bytes().split(b"\n")[:-1]:
                what, *more = json.loads(line)
                found += [(more[-1], path.name.partition("-")[0], what)] if what in kinds else []
        return sorted(found)

    # -- what arrived ----------------------------------------------------------------------------

    def judge(self, killed: Any = (), otherwise: str = "") -> None:
        """Add what the logs say of one round; ``otherwise`` is the cause of duplicates that have no other."""
        account = Account(otherwise)
        self.row.add(account.round(self.logs, [[int(pid), -signal.SIGKILL] for pid in killed]))
        holder = ""
        for _, pid, what in self.noted("sent", "rest") if not otherwise else ():
            beside = holder not in ("", pid, *killed)
            self.row.breaks(beside, "%s: %s within a pass of %s" % (pid, what, holder))
            holder = pid if what == "sent" else ""

    def settled(self, process: Child) -> dict[str, Any]:
        """Have a process deliver until nothing is pending; its ``status()`` then."""
        status: dict[str, Any] = process.ask("flush")
        left = "%d pending, %d dead" % (status["pending"], status["dead"])
        self.row.breaks(not status["drained"] or status["pending"] or status["dead"], left)
        self.row.breaks(status["trouble"], "trouble: %s" % status["trouble"])
        return status

    def reaped(self, **settings: Any) -> None:
        """Once all have ended and one more came and went, no segment is left."""
        with together(self.starter("one", "last", records=0, **settings)) as (last,):
            last.expect("recorded")
            self.settled(last)
        if not settings:
            self.row.breaks(self.segments(), "%d segments were left" % len(self.segments()))


# -- treatments ----------------------------------------------------------------------------------


def _together(at: Scene) -> None:
    size = at.size
    total = size.processes * size.records
    with at.crowd(size.processes, records=size.records) as members:
        for process in members:
            process.expect("recorded")
        # Nobody flushes: the workers deliver.
        late = not until(lambda: at.arrived >= total)
        at.row.breaks(late, "%d of %d arrived within a minute" % (at.arrived, total))
    at.reaped()
    at.judge()
    at.row.figure("passes", len(at.noted("rest")))


def _killed(at: Scene) -> None:
    size, rng = at.size, at.rng
    total = size.processes * size.records
    at.collector.answer_delay_s = 0.004
    killed: dict[str, float] = {}
    with at.crowd(size.processes, records=size.records) as members:
        for process in members:
            process.expect("recorded")
        by_pid = {str(one.process.pid): one for one in members}
        for n in range(size.kills):
            # Within four fifths of the whole: later there may be nobody who has anything to deliver.
            within = int(total * 0.8 / size.kills)
            aim = n * within + rng.randrange(within // 2, within)
            if not until(lambda aim=aim: at.arrived >= aim):  # type: ignore[misc]
                break
            time.sleep(rng.random() * 0.005)
            pid = at.noted("sent")[-1][1]
            if pid not in killed:
                by_pid[pid].process.kill()
                killed[pid] = time.monotonic()
        at.collector.answer_delay_s = 0
        at.settled(next(one for pid, one in by_pid.items() if pid not in killed))
    at.reaped()
    at.judge(killed)
    for pid, killed_at in killed.items():
        _note_takeover(at, pid, killed_at)


def _note_takeover(at: Scene, pid: str, killed_at: float) -> None:
    """How long after the kill the next request of another process came."""
    limit_s = TAKEOVER_S * (10 if at.size is SHORT else 1)
    for sent_at, by, _ in at.noted("sent"):
        if by != pid and sent_at >= killed_at:
            took_s = sent_at - killed_at
            at.row.figure("s until another went on", took_s)
            return at.row.breaks(took_s > limit_s, "nobody went on for %.2f s" % took_s)
    at.row.broken.append("nobody went on after a kill")


def _lockless(at: Scene) -> None:
    size, number = at.size, errno.ENOLCK
    with at.crowd(size.lockless, records=size.records, lock_error=number) as members:
        for process in members:
            process.expect("recorded")
        for process in members:
            process.tell("flush")
        for process in members:
            status = json.loads(process.hear())
            at.row.breaks(status["locks_work"], "status() does not say that locks fail")
            at.row.breaks(not status["drained"], "not drained")
    before = sorted(at.segments())
    at.row.breaks(len(before) < size.lockless, "reaped before its time")
    old = before[: len(before) // 2]
    for name in old:
        aged = time.time() - WEEK_S - 60
        os.utime(at.state_dir / name, (aged, aged))
    at.reaped(lock_error=number)
    left = at.segments()
    at.row.breaks(left != set(before) - set(old), "%d of %d are left" % (len(left), len(before)))
    at.judge(otherwise="no locks: several deliver")


def _threads(at: Scene) -> None:
    """By one process and its threads."""
    start = at.starter("threads", "t", records=at.size.per_thread, threads=at.size.threads)
    with together(start) as (process,):
        process.expect("recorded")
        at.settled(process)
    at.reaped()
    at.judge()


def _reaper(at: Scene) -> None:
    size, go = at.size, Path(str(at.state_dir) + ".go")
    go.touch()
    roles = ("reaper", "vulture", "vulture")
    others = [at.starter(role, role, go=str(go)) for role in roles]
    writers = [
        at.starter("writer", str(n), segments=size.segments, seed=at.rng.randrange(10**9))
        for n in range(size.writers)
    ]
    with together(*others) as racing:  # until the writers have ended
        try:
            with together(*writers) as writing:
                lines = said(writing)
        finally:
            go.unlink()
        sent, *taken = said(racing)
    recorded = {id for line in lines for id in line.split()}
    at.row.deliver(recorded, Counter(sent.split()))
    at.row.wrong += len(set(sent.split()) - recorded)
    at.row.figure("segments", size.segments * size.writers)
    at.row.figure("taken before their writer had them", sum(map(int, taken)))
    at.row.breaks(at.segments(), "%d segments were left" % len(at.segments()))


# -- the campaign --------------------------------------------------------------------------------

Treat = Callable[[Scene], None]

CROWDS: dict[str, Treat] = {
    "processes at once": _together,
    "deliverer killed": _killed,
    "locks fail: ENOLCK": _lockless,
    "threads of one process": _threads,
    "reaper beside writers": _reaper,
}


def run(
    *,
    rounds: int,
    seed: int,
    progress: report.Progress,
    work: Path,
    only: Optional[tuple[str, ...]] = None,
) -> list[report.Row]:
    """The campaign; ``only`` names treatments, None is all."""
    size = SHORT if rounds == SHORT_ROUNDS else FULL
    rows = []
    for n, (what, treat) in enumerate(CROWDS.items()):
        if only is not None and what not in only:
            continue
        row = report.Row(what)
        for round_ in range(rounds):
            rng = random.Random("%d %s %d" % (seed, what, round_))
            at = Scene(work / ("%d-%d" % (n, round_)), row, size, rng)
            with at.collecting():
                treat(at)
            progress.step(what, round_ + 1, rounds)
        rows.append(row)
    return rows
