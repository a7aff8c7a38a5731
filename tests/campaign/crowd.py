"""Crowd: many processes and threads on one spool, deliverers that are killed, locks that fail, forks, a racing reaper.

Each treatment has a state directory and a collector of its own. The processes are ``crowd_member``; what they
acknowledged lies in a file, what arrived is what the collector says. One round is the short form, with fewer processes
and records; every other number of rounds has the full one: 16 processes with 250 records each, 32 threads.
"""

from __future__ import annotations

import errno
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Optional

from support import spool as spools
from support.agent import ROOT

from agent.collector import Collector
from agent.spool import names

from . import report, stores
from .crowd_member import HEADER, text_of

ROUNDS, SHORT_ROUNDS = 10, 1
TAKEOVER_S = 1.0  # how soon another process must go on; in the short form, beside other tests, ten times that
PEER_ROUNDS = 1  # the three need up to five minutes
WEEK_S = 7 * 86400.0


class Size(NamedTuple):
    """How large one round is."""

    processes: int
    records: int
    kills: int
    threads: int
    per_thread: int
    lockless: int  # processes where locks fail: each delivers all
    children: int
    pooled: int  # processes of multiprocessing, and of its pool
    writers: int
    segments: int  # by each writer


FULL = Size(16, 250, 5, 32, 20, 4, 40, 4, 6, 150)
SHORT = Size(5, 20, 2, 32, 3, 3, 4, 1, 4, 40)


class Scene:
    """A state directory, a collector, and what processes note beside them."""

    def __init__(self, work: Path, collector: Collector) -> None:
        work.mkdir()
        self.collector = collector
        self.state_dir = work / "state"
        self.acknowledged, self.passes = work / "acknowledged", work / "passes"
        self.arrived = 0  # requests so far

    def note(self, _line: str) -> None:
        self.arrived += 1

    @contextmanager
    def member(self, role: str, name: str, **settings: Any) -> Iterator[subprocess.Popen[str]]:
        """A process of the crowd that is ready; it has ended, well or killed, when the block is over."""
        given = {
            "name": name,
            "url": self.collector.url,
            "pem": self.collector.keys[0]["public_key"],
            "state_dir": str(self.state_dir),
            "acknowledged": str(self.acknowledged),
            "passes": str(self.passes),
            **settings,
        }
        path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m"]
        process = subprocess.Popen(
            [*command, "campaign.crowd_member", role, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        try:
            yield process
        finally:
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.close()
            except BrokenPipeError:
                pass  # killed
            try:
                process.wait(60)
            finally:
                process.kill()
                process.wait()
                process.stdout.close()


def tell(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def expect(process: subprocess.Popen[str], word: str) -> None:
    heard = hear(process)
    assert heard == word, (heard, process.poll())


def drained(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Have a process deliver until nothing is pending; its ``status()`` then."""
    tell(process, "flush")
    found: dict[str, Any] = json.loads(hear(process))
    return found


@contextmanager
def scene(work: Path) -> Iterator[Scene]:
    made: list[Scene] = []
    with Collector(log=lambda line: made[0].note(line)) as collector:
        made.append(Scene(work, collector))
        yield made[0]


# -- what arrived --------------------------------------------------------------------------------


def delivered(found: Scene) -> Counter[str]:
    """How often each key arrived; a text that nobody recorded is a key of its own."""
    keys: Counter[str] = Counter()
    for record in found.collector.records():
        fields = record["fields"]
        if "count" not in fields:
            text = fields.get("text_data") or fields.get("meta", {}).get("text", "")
            key = text.partition(" ")[0]
            keys[key if text_of(key) == text else "wrong: " + text] += 1
    return keys


def counts(found: Scene) -> Counter[str]:
    """The sums of what was counted, by activity."""
    sums: Counter[str] = Counter()
    for record in found.collector.records():
        fields = record["fields"]
        if "count" in fields:
            sums[fields["activity_type"]] += fields["count"]
    return sums


def judge(row: report.Row, found: Scene, *, cause: str = "", causes_max: int = 0) -> None:
    """Add what became of one round; at most ``causes_max`` duplicates have the ``cause``."""
    recorded = set(found.acknowledged.read_text().split())
    keys = delivered(found)
    row.rounds += 1
    row.recorded += len(recorded)
    row.delivered += sum(1 for key in keys if not key.startswith("wrong"))
    row.lost += len(recorded - keys.keys())
    row.wrong += sum(1 for key in keys if key.startswith("wrong"))
    duplicated = sum(keys.values()) - len(keys)
    row.duplicated += duplicated
    if cause and duplicated:
        row.causes[cause] = row.causes.get(cause, 0) + min(duplicated, causes_max)
    ids = [r["fields"]["event_id"] for r in found.collector.records() if "event_id" in r["fields"]]
    usage = sum(1 for r in found.collector.records() if "event_id" in r["fields"])
    defects = found.passes.with_name(found.passes.name + ".defects")
    if defects.exists():
        row.broken.append("a worker raised: " + defects.read_text())
    if not cause and len(set(ids)) != usage:
        row.broken.append("event ids are not distinct")


def one_at_a_time(found: Scene, killed: set[str]) -> list[str]:
    """What contradicts that there was one deliverer at a time: in the order of the passes, and of the requests."""
    broken, holder = [], ""
    for line in found.passes.read_text().splitlines():
        what, pid = line.split()
        if what == "begin":
            if holder and holder not in killed:
                broken.append("%s began a pass within one of %s" % (pid, holder))
            holder = pid
        elif holder == pid:
            holder = ""
        else:
            broken.append("%s ended a pass within one of %s" % (pid, holder))
    over, now, last = set(), "", {}
    requests = [r["headers"].get(HEADER.lower(), "") for r in found.collector.requests()]
    for n, pass_ in enumerate(requests):
        last[pass_.partition("-")[0]] = n
    for n, pass_ in enumerate(requests):
        pid = pass_.partition("-")[0]
        # What a killed process sent last may be read after the next one's first.
        if pass_ != now and not (pid in killed and last[pid] == n):
            over.add(now)
            if pass_ in over:
                broken.append("requests of pass %s among those of another" % pass_)
            now = pass_
    return broken


def settled(found: Scene, row: report.Row, process: subprocess.Popen[str]) -> None:
    """Nothing may be left: neither pending nor a segment."""
    status = drained(process)
    if not status["drained"] or status["pending"] or status["dead"]:
        row.broken.append("%d pending, %d dead" % (status["pending"], status["dead"]))


def reaped(found: Scene, row: report.Row) -> None:
    """Once all have ended and one more came and went, no segment is left."""
    with found.member("one", "last", records=0) as last:
        expect(last, "ready")
        tell(last, "go")
        expect(last, "recorded")
        settled(found, row, last)
    left = names.listing(str(found.state_dir))[0]
    if left:
        row.broken.append("%d segments were left" % len(left))


@contextmanager
def crowd(found: Scene, number: int, **settings: Any) -> Iterator[list[subprocess.Popen[str]]]:
    """So many members, all told to begin at once."""
    members = [found.member("one", "p%d" % n, **settings) for n in range(number)]
    entered: list[subprocess.Popen[str]] = []
    try:
        for member in members:
            entered.append(member.__enter__())
        for process in entered:
            expect(process, "ready")
        for process in entered:
            tell(process, "go")
        yield entered
    finally:
        for process in entered:
            assert process.stdin is not None
            try:
                process.stdin.close()  # all at once: closing takes its time
            except BrokenPipeError:
                pass
        for member in members[: len(entered)]:
            member.__exit__(None, None, None)


def until(happened: Callable[[], bool], timeout_s: float = 60) -> bool:
    ends_at = time.monotonic() + timeout_s
    while not happened():
        if time.monotonic() > ends_at:
            return False
        time.sleep(0.005)
    return True


# -- treatments: processes -----------------------------------------------------------------------


def _together(work: Path, row: report.Row, size: Size, _rng: random.Random) -> None:
    total = size.processes * size.records
    with scene(work) as found:
        with crowd(found, size.processes, records=size.records) as members:
            for process in members:
                expect(process, "recorded")
            # Nobody flushes: the workers deliver.
            if not until(lambda: found.arrived >= total):
                row.broken.append("%d of %d arrived within a minute" % (found.arrived, total))
        reaped(found, row)
        judge(row, found)
        row.broken += one_at_a_time(found, set())
        deliverers = {r["headers"].get(HEADER.lower(), "") for r in found.collector.requests()}
        _note(row, "passes", len(deliverers))


def _killed(work: Path, row: report.Row, size: Size, rng: random.Random) -> None:
    total = size.processes * size.records
    with scene(work) as found:
        found.collector.answer_delay_s = 0.004
        killed: dict[str, float] = {}
        with crowd(found, size.processes, records=size.records) as members:
            for process in members:
                expect(process, "recorded")
            by_pid = {str(process.pid): process for process in members}
            for n in range(size.kills):
                # Within four fifths of the whole: later there may be nobody who has anything to deliver.
                within = int(total * 0.8 / size.kills)
                aim = n * within + rng.randrange(within // 2, within)
                if not until(lambda aim=aim: found.arrived >= aim):  # type: ignore[misc]
                    break
                time.sleep(rng.random() * 0.005)
                begun = [
                    line.split()[1]
                    for line in found.passes.read_text().splitlines()
                    if line.startswith("begin")
                ]
                if begun[-1] not in killed:
                    by_pid[begun[-1]].kill()
                    killed[begun[-1]] = time.time()
            found.collector.answer_delay_s = 0
            survivor = next(p for pid, p in by_pid.items() if pid not in killed)
            settled(found, row, survivor)
        reaped(found, row)
        judge(row, found, cause="sender killed before it settled", causes_max=len(killed))
        row.broken += one_at_a_time(found, set(killed))
        _note(row, "kills", len(killed))
        for pid, at in killed.items():
            _note_takeover(row, found, pid, at, TAKEOVER_S * (10 if size is SHORT else 1))


def _note_takeover(row: report.Row, found: Scene, pid: str, at: float, limit_s: float) -> None:
    """How long after the kill the next request of another process came."""
    for request in found.collector.requests():
        other = request["headers"].get(HEADER.lower(), "").partition("-")[0]
        if other != pid and request["received_at"] >= at:
            _note(row, "takeovers", request["received_at"] - at)
            if request["received_at"] - at > limit_s:
                row.broken.append("nobody went on for %.2f s" % (request["received_at"] - at))
            return
    row.broken.append("nobody went on after a kill")


def _lockless(number: int) -> Callable[[Path, report.Row, Size, random.Random], None]:
    def treat(work: Path, row: report.Row, size: Size, _rng: random.Random) -> None:
        more = {"records": size.records, "lock_error": number}
        with scene(work) as found:
            with crowd(found, size.lockless, **more) as members:
                for process in members:
                    expect(process, "recorded")
                for process in members:
                    tell(process, "flush")
                for process in members:
                    status = json.loads(hear(process))
                    if status["locks_work"]:
                        row.broken.append("status() does not say that locks fail")
                    if not status["drained"]:
                        row.broken.append("not drained")
            segments = names.listing(str(found.state_dir))[0]
            if len(segments) < size.lockless:
                row.broken.append("reaped before its time")
            old = segments[: len(segments) // 2]
            for name in old:
                aged = time.time() - WEEK_S - 60
                os.utime(found.state_dir / name, (aged, aged))
            with found.member("one", "last", records=0, lock_error=number) as last:
                expect(last, "ready")
                tell(last, "go")
                expect(last, "recorded")
                settled(found, row, last)
            left = names.listing(str(found.state_dir))[0]
            if set(left) != set(segments) - set(old):
                row.broken.append("of %d segments %d are left" % (len(segments), len(left)))
            duplicates_max = (size.lockless - 1) * size.lockless * size.records
            judge(row, found, cause="no locks: several deliver", causes_max=duplicates_max)

    return treat


def _alone(
    role: str, expected: Callable[[Size], dict[str, int]], **settings: Any
) -> Callable[[Path, report.Row, Size, random.Random], None]:
    """A treatment by one process and its threads or children; ``expected`` are the exact counts."""

    def treat(work: Path, row: report.Row, size: Size, _rng: random.Random) -> None:
        records = size.per_thread if role == "threads" else max(4, size.records // 10)
        given = {"records": records, "threads": size.threads, "children": size.children}
        given["pooled"] = size.pooled
        with scene(work) as found:
            with found.member(role, role[0], **{**given, **settings}) as process:
                expect(process, "ready")
                tell(process, "go")
                expect(process, "recorded")
                status = drained(process)
                if not status["drained"] or status.get("failures"):
                    row.broken.append("not drained, or a failure: %r" % status.get("failures"))
            reaped(found, row)
            judge(row, found)
            row.broken += one_at_a_time(found, set())
            sums = counts(found)
            for activity, n in expected(size).items():
                if sums[activity] != n:
                    row.broken.append("%s: %d counted, not %d" % (activity, sums[activity], n))

    return treat


def _threads_expected(size: Size) -> dict[str, int]:
    rendered = sum(n % 7 + 1 for n in range(size.per_thread)) * size.threads
    each = {"THREAD-%d" % n: size.per_thread for n in range(size.threads)}
    return {"RENDER": rendered, **each}


# -- treatments: a reaper ------------------------------------------------------------------------


WRITER = """
import random
from agent import files
rng = random.Random(int(sys.argv[4]))
real = files.hold
def hold(fd, path):
    if rng.random() < 0.3:
        time.sleep(rng.random() * 0.003)  # a busy machine takes the processor away between creation and lock
    return real(fd, path)
files.hold = hold
target = spool(directory, power=False, max_bytes=50_000_000, max_records=50_000)
for n in range(int(sys.argv[3])):
    for m in range(rng.randrange(1, 4)):
        id = "%s-%d.%d" % (sys.argv[2], n, m)
        assert target.record(licence(id), sync=False) == DISK
        print(id, target.segment_of("l"))
    target.seal()
    if rng.random() < 0.3:
        target._writers.clear()  # as a process that has just started: it may take over what another left
"""
REAPER = """
target = spool(directory, power=False)
print("ready", flush=True)
while os.path.exists(directory + ".go"):
    for id in deliver(target):
        print(id)
for id in deliver(target):
    print(id)
"""
# Whoever makes room looks at what nobody holds, whenever it likes: here at each new file, as soon as it has a name.
VULTURE = """
from agent.spool.view import SegmentView
seen, taken = set(), 0
print("ready", flush=True)
while os.path.exists(directory + ".go"):
    for name in names.listing(directory)[0]:
        if name not in seen:
            seen.add(name)
            view = SegmentView(directory, name)
            if view.seize():
                if view.records:
                    view.let_go()
                else:
                    taken += view.remove()
print(taken)
"""


def _reaper(work: Path, row: report.Row, size: Size, rng: random.Random) -> None:
    work.mkdir()
    place, go = work / "state", work / "state.go"
    go.touch()
    reaper = spools.child(REAPER, directory=place)
    vultures = [spools.child(VULTURE, directory=place) for _ in range(2)]
    for process in (reaper, *vultures):
        expect(process, "ready")
    writers = [
        spools.child(WRITER, n, size.segments, rng.randrange(10**9), directory=place)
        for n in range(size.writers)
    ]
    try:
        lines = [line.split() for said in _said(writers) for line in said.splitlines()]
    finally:
        go.unlink()  # the others end
    sent = Counter(_said([reaper])[0].split())
    recorded = {id for id, _ in lines}
    row.rounds += 1
    row.recorded += len(recorded)
    row.delivered += len(sent)
    row.lost += len(recorded - sent.keys())
    row.wrong += len(sent.keys() - recorded)
    row.duplicated += sum(sent.values()) - len(sent)
    _note(row, "segments", len({name for _, name in lines}))
    _note(row, "taken before their writer had them", sum(map(int, _said(vultures))))
    left = spools.segments(place)
    if left:
        row.broken.append("%d segments were left" % len(left))


def _said(processes: list[subprocess.Popen[str]]) -> list[str]:
    """What they printed, read from all at once: who prints into a full pipe waits."""
    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(lambda process: spools.done(process, timeout_s=600), processes))


# -- the peers -----------------------------------------------------------------------------------


PEER_WRITER = """
from pathlib import Path
from campaign import stores
failed = 0
queue = stores.peer(sys.argv[2], Path(directory))
sys.stdin.readline()
for n in range(int(sys.argv[4])):
    id = "%s-%d" % (sys.argv[3], n)
    try:
        queue.record(id, id * 5)
        print(id)
    except Exception:
        failed += 1
queue.close()
print("failed", failed)
"""
PEER_DELIVERER = """
from pathlib import Path
from campaign import stores
failed = 0
queue = stores.peer(sys.argv[2], Path(directory))
print("ready", flush=True)
waiting = True
while waiting or os.path.exists(directory + ".go"):
    waiting = ()
    try:
        waiting = queue.pending()
    except Exception:
        failed += 1
    for id, text in waiting:
        print(id if text == id * 5 else "wrong")
        try:
            queue.settle(id)
        except Exception:
            failed += 1
queue.close()
print("failed", failed)
"""


def _peer(work: Path, row: report.Row, size: Size, _rng: random.Random) -> None:
    """As many writers, and two who deliver at once: nothing of a store's own says who may."""
    work.mkdir()
    place, go = work / "state", work / "state.go"
    go.touch()
    stores.peer(row.store, place).close()
    deliverers = [spools.child(PEER_DELIVERER, row.store, directory=place) for _ in range(2)]
    for process in deliverers:
        expect(process, "ready")
    writers = [
        spools.child(PEER_WRITER, row.store, n, size.records, directory=place)
        for n in range(size.processes)
    ]
    try:
        sayings = _said(writers)
    finally:
        go.unlink()  # the deliverers end
    recorded = {word for said in sayings for word in said.split("failed")[0].split()}
    answers = _said(deliverers)
    sent = Counter(word for said in answers for word in said.split("failed")[0].split())
    wrong = sent.pop("wrong", 0)
    row.rounds += 1
    row.recorded += len(recorded)
    row.delivered += len(sent)
    row.lost += len(recorded - sent.keys())
    row.wrong += wrong
    row.duplicated += sum(sent.values()) - len(sent)
    _note(row, "errors", sum(int(said.rpartition(" ")[2]) for said in (*sayings, *answers)))


# -- the campaign --------------------------------------------------------------------------------


Treat = Callable[[Path, report.Row, Size, random.Random], None]

CROWDS: dict[str, Treat] = {
    "processes at once": _together,
    "deliverer killed": _killed,
    "locks fail: ENOLCK": _lockless(errno.ENOLCK),
    "locks fail: EOPNOTSUPP": _lockless(errno.EOPNOTSUPP),
    "threads of one process": _alone("threads", _threads_expected),
    "forks beside threads": _alone("forks", lambda size: {"CHILD": 3 * size.children}),
    "prefork server": _alone(
        "prefork", lambda size: {"SERVED": size.children * (size.children + 1) // 2}
    ),
    **{
        "multiprocessing: "
        + what: _alone(
            "multiprocess",
            lambda size: {"POOLED": 6 * size.pooled},
            method=what.partition(",")[0],
            own=own,
        )
        for what, own in {
            "fork, the parent's agent": False,
            "fork": True,
            "spawn": True,
            "forkserver": True,
        }.items()
    },
    "reaper beside writers": _reaper,
}
PEER = "two deliver at once"

_notes: dict[int, dict[str, list[float]]] = {}


def _note(row: report.Row, what: str, value: float) -> None:
    """Keep a figure of one round for the row's note."""
    _notes.setdefault(id(row), {}).setdefault(what, []).append(value)


def _told(row: report.Row) -> str:
    """The figures of all rounds in words."""
    parts = []
    for what, values in _notes.pop(id(row), {}).items():
        if what == "takeovers":
            middle, longest = statistics.median(values), max(values)
            parts.append("another went on after %.2f s, %.2f at most" % (middle, longest))
        else:
            parts.append("%d %s" % (sum(values), what))
    return "; ".join(parts)


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
    plan = [(what, report.AGENT, treat, rounds) for what, treat in CROWDS.items()]
    plan += [(PEER, store, _peer, min(rounds, PEER_ROUNDS)) for store in stores.PEERS]
    rows = []
    for n, (what, store, treat, times) in enumerate(plan):
        if only is not None and what not in only:
            continue
        row = report.Row(what, store)
        for round_ in range(times):
            rng = random.Random("%d %s %d" % (seed, what, round_))
            treat(work / ("%d-%d" % (n, round_)), row, size, rng)
            progress.step("%s, %s" % (what, store), round_ + 1, times)
        row.note = _told(row)
        rows.append(row)
    return rows
