"""The spool against a model, step by step: whatever processes do and whenever they or the power end.

hypothesis draws what a few processes do on one directory: record, count, deliver (answers lost, refused, doubted), die
in the middle of any system call, fork, refuse usage, run into quotas, age, with clocks that jump; and power cuts
that leave an arbitrary part of what was not synced. ``support.model`` holds the world and the comparison.

The suite runs a few examples, the same every time. Longer: ``MODEL_EXAMPLES=500 pytest
tests/spool/test_spool_model.py``, or ``python -m tests.campaign model``, which says what it did.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import HealthCheck, Phase, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from support.model import Process, World
from support.spool import FakeClock, spool, usage, waiting

from agent import jsonline
from agent.spool.records import Record, report
from agent.spool.store import DISK

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs flock")

WHO = st.integers(0, 3)
TEXT = st.sampled_from(["a", "b" * 60, "c" * 300, "d" * 900])
OUTCOME = st.sampled_from(
    [
        "ok",
        "ok",
        "ok",
        "lost",
        "offline",
        "rejected",
        "retry",
        "untrusted",
        "held",
        "throttled",
        "die",
        "die before",
    ]
)
PLAN = st.lists(OUTCOME, max_size=5)
HOW = st.tuples(st.integers(0, 99), st.sampled_from(["none", "some", "all"]))
# What happens in the middle of a step, at which of its system calls.
DOINGS = st.sampled_from("""kill power record usage deliver refuse burst leave signal signal-usage
    deliver record kill record-leave""".split())
ANY_CALL = st.tuples(st.integers(1, 30), st.just(""), DOINGS)
ONE_CALL = st.tuples(
    st.integers(1, 4), st.sampled_from(["write", "sync", "lock", "unlink"]), DOINGS
)
DISTURBANCE = st.one_of(st.none(), st.none(), ANY_CALL, ONE_CALL)
FAULT = st.one_of(
    st.none(),
    st.none(),
    st.none(),
    st.tuples(
        st.sampled_from(["write", "sync"]), st.integers(1, 6), st.sampled_from([0.0, 0.5, 1.0])
    ),
)


class SpoolMachine(RuleBasedStateMachine):
    """Rules over one ``World``."""

    told: dict[str, int] = {}

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="model-"))
        self.world: Optional[World] = None

    @initialize(max_bytes=st.sampled_from([10_000_000, 40_000, 12_000]), seed=st.integers(0, 999))
    def begin(self, max_bytes: int, seed: int) -> None:
        self.world = World(self.place, max_bytes=max_bytes, seed=seed)
        self.start()

    def teardown(self) -> None:
        try:
            if self.world is not None:
                if not self.world.broken:
                    self.world.heal()
                for what, n in self.world.told.items():
                    self.told[what] = self.told.get(what, 0) + n
        finally:
            if self.world is not None:
                self.world.shut()
            shutil.rmtree(self.place, ignore_errors=True)

    @property
    def w(self) -> World:
        assert self.world is not None
        return self.world

    def who(self, number: int) -> Process:
        if not self.w.processes:
            self.start()
        return self.w.processes[number % len(self.w.processes)]

    def step(
        self,
        number: int,
        what: Callable[[Process], None],
        disturbance: Any = None,
        fault: Any = None,
        how: Any = (0, "some"),
    ) -> None:
        process = self.who(number)
        fuse = None
        if disturbance is not None:
            at, call, name = disturbance
            fuse = (at, call, lambda: self.disturb(name, process))
        self.w.do(process, what, fuse=fuse, fault=fault, cut=how)

    def disturb(self, name: str, process: Process) -> None:
        """In the middle of a call of ``process``."""
        w = self.w
        if name == "kill":
            w.kill(process)
        if name == "power":
            w.cut()
        w.tell("disturbed: " + name)
        if name == "signal":
            return w.licence(process, "signal", ordered=False)
        if name == "signal-usage":
            return w.usage(process, "signal", ordered=False)

        def record_and_leave(p: Process) -> None:
            w.licence(p, "meanwhile")
            w.leave(p)

        acts: dict[str, Callable[[Process], None]] = {
            "record": lambda p: w.licence(p, "meanwhile"),
            "usage": lambda p: w.usage(p, "meanwhile"),
            "deliver": lambda p: w.deliver(p, []),
            "refuse": w.refuse,
            "burst": lambda p: self.many(p, "d" * 900, 4),
            "leave": w.leave,
            "record-leave": record_and_leave,
        }
        for other in w.processes:
            if other is not process and not other.dead and not other.passing:
                return w.act(other, acts[name])

    def many(self, process: Process, text: str, n: int) -> None:
        for _ in range(n):
            self.w.licence(process, text)

    # -- rules -----------------------------------------------------------------------------------

    @precondition(lambda self: self.world is None or len(self.world.processes) < 4)
    @rule()
    def start(self) -> None:
        self.w.processes.append(Process(self.w))

    @rule(n=WHO, text=TEXT, disturbance=DISTURBANCE, fault=FAULT, how=HOW)
    def licence(self, n: int, text: str, **more: Any) -> None:
        self.step(n, lambda p: self.w.licence(p, text), **more)

    @rule(n=WHO, text=TEXT, disturbance=DISTURBANCE, fault=FAULT, how=HOW)
    def usage(self, n: int, text: str, **more: Any) -> None:
        self.step(n, lambda p: self.w.usage(p, text), **more)

    @rule(n=WHO, text=TEXT, many=st.integers(2, 12), disturbance=DISTURBANCE, how=HOW)
    def burst(self, n: int, text: str, many: int, **more: Any) -> None:
        def both(p: Process) -> None:
            for number in range(many):
                (self.w.usage if number % 3 == 2 else self.w.licence)(p, text)

        self.step(n, both, **more)

    @rule(n=WHO, activity=st.sampled_from("AB"), many=st.integers(1, 9))
    def count(self, n: int, activity: str, many: int) -> None:
        self.step(n, lambda p: self.w.count(p, activity, many))

    @rule(n=WHO, end=st.booleans(), disturbance=DISTURBANCE, fault=FAULT, how=HOW)
    def keep(self, n: int, end: bool, **more: Any) -> None:
        self.step(n, lambda p: self.w.keep(p, end=end), **more)

    @rule(n=WHO, plan=PLAN, disturbance=DISTURBANCE, fault=FAULT, how=HOW)
    def deliver(self, n: int, plan: list[str], **more: Any) -> None:
        self.step(n, lambda p: self.w.deliver(p, plan), **more)

    @rule(n=WHO)
    def deliver_well(self, n: int) -> None:
        self.step(n, lambda p: self.w.deliver(p, []))

    @rule(n=WHO, disturbance=DISTURBANCE, how=HOW)
    def revive(self, n: int, **more: Any) -> None:
        self.step(n, self.w.revive, **more)

    @rule(n=WHO, disturbance=DISTURBANCE, fault=FAULT, how=HOW)
    def refuse(self, n: int, **more: Any) -> None:
        self.step(n, self.w.refuse, **more)

    @rule(n=WHO)
    def seal(self, n: int) -> None:
        self.step(n, lambda p: p.spool.seal())

    @rule(n=WHO, disturbance=DISTURBANCE, how=HOW)
    def leave(self, n: int, **more: Any) -> None:
        self.step(n, self.w.leave, **more)

    @rule(n=WHO)
    def die(self, n: int) -> None:
        self.step(n, lambda p: self.w.kill(p))

    @rule(how=HOW)
    def power_cut(self, how: Any) -> None:
        self.step(0, lambda p: self.w.cut(), how=how)

    @precondition(lambda self: self.world is not None and 0 < len(self.world.processes) < 4)
    @rule(n=WHO, slow=st.booleans())
    def fork(self, n: int, slow: bool) -> None:
        parent = self.who(n)
        if parent.born:
            child = Process(self.w, parent)
            self.w.processes.append(child)
            self.w.tell("fork")
            if not slow:
                self.w.do(child, lambda p: None)

    @rule(seconds=st.sampled_from([1.0, 1800.0, 7200.0, 40 * 86400.0, 91 * 86400.0]))
    def wait(self, seconds: float) -> None:
        self.w.clock.advance(seconds)

    @rule(skew_s=st.sampled_from([0.0, 0.0, -50.0, 7200.0, -86400.0 * 3, 3650 * 86400.0]))
    def jump(self, skew_s: float) -> None:
        self.w.clock.skew_s = skew_s

    @precondition(lambda self: self.world is not None and len(self.world.planted) < 2)
    @rule(class_=st.sampled_from("lu"), n=st.integers(1, 3))
    def newer_version(self, class_: str, n: int) -> None:
        self.step(0, lambda p: self.w.plant(class_, ["later"] * (n + 1)))

    @rule(n=WHO)
    def unknown_lines(self, n: int) -> None:
        def plant(p: Process) -> None:
            place = self.w.disk.directory
            found = sorted(os.listdir(place)) if os.path.isdir(place) else []
            sidecars = [name for name in found if name.endswith(".ack")]
            self.w.plant_line("facts", {"v": 2, "k": "moon", "n": n})
            if sidecars:
                self.w.plant_line(sidecars[n % len(sidecars)], ["z", "server", "x", n])

        self.step(n, plant)


# So many histories, drawn anew each time and made small where one fails.
LONG = os.environ.get("MODEL_EXAMPLES")
SpoolMachine.TestCase.settings = settings(
    max_examples=int(LONG or 20),
    stateful_step_count=25,
    deadline=None,
    database=None,
    derandomize=not LONG,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink] if LONG else [Phase.generate],
)
TestSpool = SpoolMachine.TestCase


# --- what it found, on its own ------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    found = World(tmp_path)
    found.processes.append(Process(found))
    yield found
    found.shut()


def power_cut(world: World) -> None:
    """Nothing is left that was not synced."""
    world.do(world.processes[0], lambda p: world.cut(), cut=(0, "none"))


def test_the_first_record_outlives_a_power_cut_with_its_new_directories(world: World) -> None:
    """The directory, its parent and theirs were made a moment before: their names are synced too."""
    world.do(world.processes[0], lambda p: world.licence(p, "a"))
    power_cut(world)
    assert len(world.look()) == 1


def test_usage_in_a_segment_that_was_sealed_before_its_sync_outlives_a_power_cut(
    world: World,
) -> None:
    (process,) = world.processes
    world.do(process, lambda p: world.usage(p, "a"))
    world.do(process, lambda p: p.spool.seal())
    world.do(process, lambda p: world.usage(p, "b"))
    world.do(process, world.keep)
    power_cut(world)
    assert [record.body["activity_type"] for _, _, record in world.look()] == ["a", "b"]


def test_a_refusal_before_there_was_a_directory_leaves_its_mark_with_the_first_usage(
    world: World,
) -> None:
    """Else another process would begin anew at a lower epoch, and its refusals would not reach this one's records."""
    (process,) = world.processes
    world.do(process, world.refuse)
    world.do(process, lambda p: world.usage(p, "a"))
    other = Process(world)
    world.processes.append(other)
    assert other.spool.consent.current() == process.spool.consent.current() > 0


def test_a_sum_that_was_sent_is_the_same_after_a_power_cut(world: World) -> None:
    """The sidecar holds it, synced, under a name that is synced as well."""

    def written(p: Process) -> None:
        p.counting.fold()
        assert p.counting._write(*p.counting._books[0], False)

    (process,) = world.processes
    world.do(process, lambda p: world.count(p, "A", 3))
    world.do(process, world.keep)
    world.do(process, lambda p: world.count(p, "A", 4))
    # Written and, as in a process that was killed, not synced.
    world.do(process, written)
    world.do(process, lambda p: world.kill(p))
    world.processes.append(Process(world))
    world.do(world.processes[0], lambda p: world.deliver(p, ["lost"]))
    power_cut(world)
    world.processes.append(Process(world))
    world.do(world.processes[0], lambda p: world.deliver(p, []))


def test_usage_beside_a_write_that_failed_outlives_a_power_cut(world: World) -> None:
    """The file is given up: what was in it is synced then."""
    (process,) = world.processes
    world.do(process, lambda p: world.usage(p, "a"))
    world.do(process, lambda p: world.usage(p, "b"), fault=("write", 1, 0.5))
    world.do(process, world.keep)
    power_cut(world)
    assert [record.body["activity_type"] for _, _, record in world.look()] == ["a", "b"]


def test_what_is_too_old_in_a_full_spool_is_reported_once(tmp_path: Path) -> None:
    """The report needs room: what is evicted for that is reported, and not among those too old once more."""
    world = World(tmp_path, max_bytes=12_000)
    try:
        process = Process(world)
        world.processes.append(process)
        for _ in range(2):
            world.do(process, lambda p: world.licence(p, "a"))
        world.do(process, lambda p: world.deliver(p, ["ok", "lost"]))
        for _ in range(6):  # a segment each, until there is no room
            world.do(process, lambda p: world.usage(p, "d" * 1000))
            world.do(process, lambda p: world.licence(p, "d" * 1000))
        world.clock.advance(91 * 86400.0)
        world.do(process, lambda p: world.deliver(p, []))
        world.heal()
    finally:
        world.shut()


def test_a_segment_of_the_same_millisecond_is_taken_over_only_in_order(tmp_path: Path) -> None:
    """One that a signal handler began beside the open one may, by its name, lie before it."""
    clock = FakeClock()
    target = spool(tmp_path, clock=clock, max_bytes=64 * 600)
    body = {"activity_type": "x" * 300}
    assert target.record(Record("usage", "reo", "1", clock.time(), body), sync=True) == DISK
    mine = target.segment_of("u") or ""
    left = tmp_path / (mine[:15] + "0" * 16 + mine[31:])
    left.write_bytes(jsonline.encode(usage("other").to_json()))
    left.chmod(0o600)
    clock.advance(3700)
    assert target.record(Record("usage", "reo", "2", clock.time(), body), sync=True) == DISK
    assert waiting(tmp_path) == ["other", "1", "2"]
    assert target.segment_of("u") not in (mine, left.name)
    target.seal()


def test_a_report_that_grew_since_a_power_cut_hides_behind_no_earlier_one(world: World) -> None:
    """The same segment again, with one record more: an id of its own, or the smaller count would stand for both."""
    (process,) = world.processes
    world.do(process, lambda p: world.licence(p, "a"))
    name = process.spool.segment_of("l") or ""
    told: list[tuple[int, str]] = []
    for _ in range(2):
        found = [record for _, _, record in world.look() if record.segment == name]
        report(found, "dropped-" + name[15:31], lambda count, id: told.append((count, id)))
        world.do(process, lambda p: world.licence(p, "a"))
    assert [count for count, _ in told] == [1, 2] and len({id for _, id in told}) == 2
