"""The spool against a model, step by step: whatever processes do and whenever they or the power end.

hypothesis draws what a few processes do on one directory: record, count, deliver (answers lost, refused, doubted), die
in the middle of any system call, fork, refuse usage, run into quotas, age, with clocks that jump; and power cuts
that leave an arbitrary part of what was not synced. ``support.model`` holds the world and the comparison.

The suite runs a few examples, the same every time. Longer: ``MODEL_EXAMPLES=500 pytest
tests/spool/test_spool_model.py``, or ``python -m tests.campaign model``, which says what it did.
"""

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
from support.spool import START, FakeClock, keep, spool, window

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs flock")

WHO = st.integers(0, 3)
SIZE = st.sampled_from([1, 60, 300, 900])
OUTCOMES = "ok ok ok lost offline rejected retry untrusted held throttled die".split()
PLAN = st.lists(st.sampled_from([*OUTCOMES, "die before"]), max_size=5)
HOW = st.tuples(st.integers(0, 99), st.sampled_from(["none", "some", "all"]))
# What happens in the middle of a step, at which of its system calls.
DOINGS = st.sampled_from("""kill power record usage deliver refuse burst leave signal signal-usage
    deliver record kill record-leave""".split())
ANY_CALL = st.tuples(st.integers(1, 30), st.just(""), DOINGS)
CALLS = st.sampled_from(["write", "sync", "lock", "unlink"])
DISTURBANCE = st.none() | st.none() | ANY_CALL | st.tuples(st.integers(1, 4), CALLS, DOINGS)
FAULTS = st.tuples(
    st.sampled_from(["write", "sync"]), st.integers(1, 6), st.sampled_from([0.0, 0.5, 1.0])
)
FAULT = st.none() | st.none() | st.none() | FAULTS
DAY_S = 86400.0


class SpoolMachine(RuleBasedStateMachine):
    """Rules over one ``World``."""

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
            if self.world is not None and not self.world.broken:
                self.world.heal()
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
        w.tell("disturbed: " + name)
        acts: dict[str, Callable[[Process], None]] = {
            "kill": w.kill,
            "power": lambda p: w.cut(),
            "signal": lambda p: w.licence(p, "signal", ordered=False),
            "signal-usage": lambda p: w.usage(p, "signal", ordered=False),
        }
        if name in acts:
            return acts[name](process)

        def burst(other: Process) -> None:
            for _ in range(4):
                w.licence(other, "d" * 900)

        def record_and_leave(other: Process) -> None:
            w.licence(other, "meanwhile")
            w.leave(other)

        acts = {
            "record": lambda p: w.licence(p, "meanwhile"),
            "usage": lambda p: w.usage(p, "meanwhile"),
            "deliver": lambda p: w.deliver(p, []),
            "refuse": w.refuse,
            "burst": burst,
            "leave": w.leave,
            "record-leave": record_and_leave,
        }
        for other in w.processes:
            if other is not process and not other.dead and not other.passing:
                return w.act(other, acts[name])

    # -- rules -----------------------------------------------------------------------------------

    @precondition(lambda self: self.world is None or len(self.world.processes) < 4)
    @rule()
    def start(self) -> None:
        self.w.processes.append(Process(self.w))

    @rule(n=WHO, size=SIZE, disturbance=DISTURBANCE, fault=FAULT, how=HOW)
    def licence(self, n: int, size: int, **more: Any) -> None:
        self.step(n, lambda p: self.w.licence(p, "x" * size), **more)

    @rule(n=WHO, size=SIZE, disturbance=DISTURBANCE, fault=FAULT, how=HOW)
    def usage(self, n: int, size: int, **more: Any) -> None:
        self.step(n, lambda p: self.w.usage(p, "x" * size), **more)

    @rule(n=WHO, size=SIZE, many=st.integers(2, 12), disturbance=DISTURBANCE, how=HOW)
    def burst(self, n: int, size: int, many: int, **more: Any) -> None:
        def both(p: Process) -> None:
            for number in range(many):
                (self.w.usage if number % 3 == 2 else self.w.licence)(p, "x" * size)

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

    @rule(seconds=st.sampled_from([1.0, 1800.0, 7200.0, 40 * DAY_S, 91 * DAY_S]))
    def wait(self, seconds: float) -> None:
        self.w.clock.advance(seconds)

    @rule(skew_s=st.sampled_from([0.0, 0.0, -50.0, 7200.0, -3 * DAY_S, 3650 * DAY_S]))
    def jump(self, skew_s: float) -> None:
        self.w.clock.skew_s = skew_s

    @precondition(lambda self: self.world is not None and len(self.world.planted) < 2)
    @rule(class_=st.sampled_from("lu"), n=st.integers(2, 4))
    def newer_version(self, class_: str, n: int) -> None:
        self.step(0, lambda p: self.w.plant(class_, n))

    @rule(n=WHO)
    def unknown_lines(self, n: int) -> None:
        for value in ({"v": 2, "k": "moon", "n": n}, ["z", "server", "x", n]):
            self.step(n, lambda p, value=value: self.w.plant_line(value))  # type: ignore[misc]


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


def power_cut(world: World) -> list[Any]:
    """Nothing is left that was not synced; what is."""
    world.do(world.processes[0], lambda p: world.cut(), cut=(0, "none"))
    return [next(iter(record.body.values())) for record, _ in world.look()]


def test_the_first_record_outlives_a_power_cut_with_its_new_directories(world: World) -> None:
    """The directory, its parent and theirs were made a moment before: their names are synced too."""
    world.do(world.processes[0], lambda p: world.licence(p, "a"))
    assert power_cut(world) == ["a"]


def test_usage_in_a_segment_that_was_sealed_before_its_sync_outlives_a_power_cut(
    world: World,
) -> None:
    (process,) = world.processes
    world.do(process, lambda p: world.usage(p, "a"))
    world.do(process, lambda p: p.spool.seal())
    world.do(process, lambda p: world.usage(p, "b"))
    world.do(process, world.keep)
    assert power_cut(world) == ["a", "b"]


def test_usage_beside_a_write_that_failed_outlives_a_power_cut(world: World) -> None:
    """The file is given up: what was in it is synced then."""
    (process,) = world.processes
    world.do(process, lambda p: world.usage(p, "a"))
    world.do(process, lambda p: world.usage(p, "b"), fault=("write", 1, 0.5))
    world.do(process, world.keep)
    assert power_cut(world) == ["a", "b"]


def test_a_sum_that_was_sent_is_the_same_after_a_power_cut(world: World) -> None:
    """Its line and its origin are synced before the first byte."""
    (process,) = world.processes
    world.do(process, lambda p: world.count(p, "A", 3))
    world.do(process, world.keep)
    world.do(process, lambda p: world.count(p, "A", 4))
    # Written, and killed before its sync.
    kill = (1, "sync", lambda: world.kill(process))
    world.do(process, world.keep, fuse=kill)
    world.processes.append(Process(world))
    world.do(world.processes[0], lambda p: world.deliver(p, ["lost"]))
    assert [rec.sent for rec in world.known.values()] == [7]
    power_cut(world)
    world.processes.append(Process(world))
    world.do(world.processes[0], lambda p: world.deliver(p, []))
    assert world.look() == []


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
        world.clock.advance(91 * DAY_S)
        world.do(process, lambda p: world.deliver(p, []))
        world.heal()
    finally:
        world.shut()


def test_windows_that_went_on_during_a_pass_are_sent_with_all_their_counts(tmp_path: Path) -> None:
    """By the next pass: nobody knows of a segment that was written at a pass's begin whether it was the last."""
    clock = FakeClock()
    writer, other = spool(tmp_path, clock=clock), spool(tmp_path)
    keep(writer, "first")
    clock.advance(1)  # the counters' segment is the later one
    epoch = writer.consent.ensure()
    begun = [window("a", 1, epoch), window("b", 1, epoch)]
    assert writer.keep_counters(begun, begun) and other.claim()
    waiting = other.waiting(())
    assert next(waiting).id == "first"
    assert writer.keep_counters([window("a", 2, epoch, START), window("b", 5, epoch, START)], [])
    assert list(waiting) == []
    other.release()
    assert other.claim()
    sent = [(record.id, record.body.get("count")) for record in other.waiting(())]
    assert sent == [("first", None), ("a", 2), ("b", 5)]
    other.release()


def test_a_report_is_called_after_a_segment_that_held_a_record() -> None:
    """A power cut left an evicted segment's name: its next eviction, with another one, bore the same report's id."""
    machine = SpoolMachine()
    machine.begin(seed=192, max_bytes=12000)
    machine.burst(disturbance=None, how=(77, "all"), many=12, n=0, size=900)
    machine.power_cut(how=(39, "none"))
    fault = ("sync", 6, 0.5)
    plan = ["die before", "offline", "ok", "ok", "untrusted"]
    machine.deliver(disturbance=None, fault=fault, how=(3, "all"), n=2, plan=plan)
    machine.power_cut(how=(44, "all"))
    machine.start()
    machine.leave(disturbance=None, how=(26, "all"), n=0)
    machine.burst(disturbance=None, how=(70, "none"), many=3, n=0, size=900)
    machine.teardown()
