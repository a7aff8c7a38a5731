"""Counting: what reached the disk is delivered, once and whole, whatever happens to the process in between."""

import os
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Union

import pytest
from hypothesis import given, settings, strategies as st
from support.agent import Desk, desk, endpoint, killed, pass_, work_until
from support.collector import wait_until
from support.spool import Calls, look

import agent
from agent.clock import Clock
from agent.spool import store

HOUR_S = 3600.0


def dirty(product: agent.Agent) -> bool:
    """Whether something is counted that is not on disk."""
    counters = product._counters
    return bool(counters._added) or any(w.total != w.written for w in counters._windows.values())


STEPS = st.lists(
    st.tuples(st.sampled_from("AB"), st.integers(1, 5))
    | st.sampled_from(["flush", "unanswered", "close", "kill", "wait", "hour", "record"]),
    max_size=25,
)


class Life:
    """A product that counts, over several processes, and what it owes to its collector."""

    def __init__(self, at: Desk) -> None:
        self.at = at
        self.expected: Counter[str] = Counter()  # on disk, by the promise
        self.loose: Counter[str] = Counter()  # counted, and not yet due on disk
        self.product = self.start()
        at.clock.advance(1)

    def start(self) -> agent.Agent:
        return agent.Agent(self.at.config(only="usage"), clock=self.at.clock)

    def count(self, activity: str, n: int) -> None:
        self.at.clock.advance(0.01)
        self.product.count(activity, n)
        self.loose[activity] += n
        # In "manual" mode: once half a second has passed, with this very call.
        if not dirty(self.product):
            self.kept()

    def kept(self) -> None:
        self.expected.update(self.loose)
        self.loose.clear()

    def do(self, step: str) -> None:
        if step in ("wait", "hour"):
            return self.at.clock.advance(1 if step == "wait" else HOUR_S + 1)
        if step == "kill":
            killed(self.product)
            self.loose.clear()
        elif step == "record":
            assert self.product.track("SINGLE")
        elif step == "close":
            self.product.close()
        else:
            self.at.collector.fault("drop-answer" if step == "unanswered" else None)
            self.product.flush()
        self.kept()
        if step in ("kill", "close"):
            self.product = self.start()


@settings(max_examples=50)
@given(steps=STEPS)
def test_delivered_is_what_reached_the_disk(steps: list[Union[str, tuple[str, int]]]) -> None:
    with tempfile.TemporaryDirectory() as directory, desk(Path(directory)) as at:
        life = Life(at)
        for step in steps:
            if isinstance(step, tuple):
                life.count(*step)
            else:
                life.do(step)
        life.do("close")
        at.collector.fault(None)
        with life.product as last:
            assert last.flush(timeout=20).pending == 0
        assert +at.sums() == +life.expected
        # Frozen before it was first sent: a retry differs in the time of the call and in nothing else.
        bodies: dict[str, set[str]] = {}
        for record in at.collector.records():
            fields = {n: str(v) for n, v in record["fields"].items() if n != "event_at"}
            bodies.setdefault(fields["event_id"], set()).add(str(sorted(fields.items())))
        assert all(len(variants) == 1 for variants in bodies.values())


def test_one_window_one_event(at: Desk) -> None:
    with at.agent(only="usage") as product:
        began_at = int(at.clock.at)
        for _ in range(100):
            product.count("RENDER", 2)
            at.clock.advance(30)
        work_until(product, at.clock, at.clock.at + 1)
        # Under an hour: the window is open, and not sent.
        assert not at.seen()
        at.clock.advance(HOUR_S - 2999)
        product.count("RENDER", 50)  # ends the window that is over
        pass_(product)
        assert product.status()["pending"] == 0
    (record,) = at.collector.records()
    fields = record["fields"]
    assert fields["count"] == 250 and fields["domain"] == "acme.example"
    assert fields["meta"]["window_start"] == began_at
    assert fields["event_at"] == int(at.clock.at)


def test_256_names_then_one_for_the_rest(at: Desk) -> None:
    with at.agent(only="usage") as product:
        for number in range(400):
            product.count("NAME-%03d" % number)
        assert product.flush(timeout=20).pending == 0
    found = at.sums()
    assert len(found) == 256 and found["_other"] == 400 - 255
    assert sum(found.values()) == 400


def test_without_an_origin_sums_wait_visibly_and_single_events_go(at: Desk) -> None:
    """A callable is asked when they are sent."""
    known: list[Any] = [None]

    def ask() -> Any:
        if known[0] == "raise":
            raise RuntimeError
        return known[0]

    with at.agent(only="usage", domain=ask) as product:
        product.count("RENDER", 4)
        product.track("EXPORT")
        for answer in (None, "raise", "", "not a domain!", 7):
            known[0] = answer
            report = product.flush()
            assert (report.pending, report.drained) == (1, False)
        assert at.activities() == ["EXPORT"] and product.preview() == []
        assert endpoint(product, "reo")["waits_for"] == "a domain or ip_addr"
        assert product._delivery.due_in_s() == HOUR_S  # no request, and no polling
        known[0] = "late.example"
        at.collector.fault("drop-answer")
        assert product.flush().pending == 1
        known[0] = "other.example"  # frozen: a retry is the same event
        at.collector.fault(None)
        assert product.flush().pending == 0
    sums = [r["fields"]["domain"] for r in at.collector.records() if "count" in r["fields"]]
    assert sums == ["late.example", "late.example"]


def test_a_clock_that_goes_back_ends_windows(at: Desk) -> None:
    with at.agent(only="usage") as product:
        product.count("RENDER", 1)
        product._counters.keep()
        at.clock.at -= 30 * 86400
        at.clock.since_boot += 1
        product.count("RENDER", 2)
        product._counters.keep()
        pass_(product)  # no flush, which ends every window
    assert at.sums() == {"RENDER": 3}


def test_counting_never_touches_the_disk_on_the_callers_thread(at: Desk) -> None:
    me, touched = threading.get_ident(), []
    watching = [True]

    def hook(event: str, arguments: Any) -> None:
        if watching[0] and event in ("open", "os.listdir", "os.scandir", "os.mkdir"):
            if threading.get_ident() == me:
                touched.append(arguments[0])

    with at.agent(clock=Clock(), only="usage", deliver="thread", start_delay_s=60) as product:
        product.track("FIRST")  # loads what there is to load
        sys.addaudithook(hook)  # for good: no hook can be removed, so it is switched off
        try:
            for _ in range(3000):
                product.count("RENDER")
        finally:
            watching[0] = False
    assert touched == []


def test_counting_does_not_wait_for_a_disk_that_hangs(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, answers, sync = threading.Event(), threading.Event(), os.fsync

    def fsync(fd: int) -> None:
        hangs.set()
        answers.wait(20)
        answers.set()
        sync(fd)

    given: Any = {"only": "usage", "deliver": "thread", "start_delay_s": 60, "durability": "power"}
    with at.agent(clock=Clock(), **given) as product:
        product.track("FIRST")  # loads what there is to load
        monkeypatch.setattr(os, "fsync", fsync)
        product.count("RENDER")
        assert hangs.wait(20)
        for _ in range(3000):
            product.count("RENDER")
        assert not answers.is_set()
        answers.set()
        assert product.flush().pending == 0
    assert at.sums()["RENDER"] == 3001


def test_counts_reach_a_full_disk_later(at: Desk) -> None:
    """A refused write is tried again, and not twice a second."""
    at.state_dir.write_text("a file in its place")
    with at.agent(only="usage") as product:
        product.count("RENDER", 3)
        rests: list[float] = []
        for _ in range(600):
            at.clock.advance(0.1)
            if product._counters.due_in_s() == 0:
                product._counters.keep()
            rests.append(product._counters.due_in_s() or 0)
        assert max(rests) > 20  # seconds, where 0.5 is what a working disk gets
        at.state_dir.unlink()
        assert product.flush().pending == 0
    assert at.sums() == {"RENDER": 3}


@pytest.mark.parametrize("over", [False, True])
def test_a_sum_that_the_disk_refused_is_written_once_it_can(
    at: Desk, monkeypatch: pytest.MonkeyPatch, over: bool
) -> None:
    """Also where its window is over meanwhile and memory takes no more."""
    monkeypatch.setattr(store, "MEMORY_RECORDS", 0)
    with at.agent(only="usage") as product:
        assert product.track("FIRST")
        product.count("RENDER", 3)
        assert product._counters.open_windows()
        at.clock.advance(2 * HOUR_S * over)
        with monkeypatch.context() as now:
            Calls(now).fail("write", 28)
            assert not product._counters.keep()
        at.clock.advance(60)
        assert product._counters.due_in_s() == 0 and product._counters.keep()
        killed(product)
    with at.agent(only="usage") as product:
        assert product.flush().pending == 0
    assert at.sums() == {"RENDER": 3}


def test_an_idle_agent_has_no_thread(at: Desk) -> None:
    with at.agent(clock=Clock(), only="usage", deliver="thread") as product:
        product.track("EXPORT")
        assert product.flush().pending == 0
        wait_until(lambda: not product._worker.running)
        product.count("RENDER")  # an open window has one, asleep
        wait_until(lambda: not dirty(product))
        assert product._worker.running and not at.seen() == 2
        assert product.flush().pending == 0
        wait_until(lambda: not product._worker.running)
    assert at.sums() == {"RENDER": 1}


# -- beside others who write, deliver and refuse -----------------------------------------------------


def test_threads_that_count_while_others_write_and_deliver(at: Desk) -> None:
    given: Any = {"clock": Clock(), "only": "usage", "deliver": "thread", "durability": "process"}
    with at.agent(**given) as product:
        ended = threading.Event()

        def count(name: str) -> None:
            for _ in range(5_000):
                product.count(name)

        def write() -> None:
            while not ended.is_set():
                product._counters.keep()
                product.flush(5)

        counting = [threading.Thread(target=count, args=(name,)) for name in "AABB"]
        writing = [threading.Thread(target=write) for _ in range(2)]
        for thread in counting + writing:
            thread.start()
        for thread in counting:
            thread.join()
        ended.set()
        for thread in writing:
            thread.join()
        assert product.flush(20).pending == 0
    assert at.sums() == {"A": 10_000, "B": 10_000}


def test_a_window_goes_on_across_many_segments_and_arrives_once(at: Desk) -> None:
    """Each second's total is a line: with so little room a segment is full after a few."""
    tight: Any = {"only": "usage", "max_bytes": 300_000, "max_records": 64}
    with at.agent(**tight) as product:
        names = set()
        for n in range(300):
            product.count("A", 2)
            product.count("B%d" % (n % 3))
            at.clock.advance(1)
            product._counters.keep()
            names |= {path.name for path in at.state_dir.glob("c-*.seg")}
        assert len(names) > 10, "many segments"
        killed(product)  # none of it was closed, and all of it is whole
    assert len(list(look(at.state_dir).records())) == 4
    with at.agent(**tight) as product:
        assert product.flush(20).pending == 0
    assert at.sums() == {"A": 600, "B0": 100, "B1": 100, "B2": 100}
    assert len(at.collector.records()) == 4


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_refusal_discards_what_is_counted(at: Desk, written: bool, elsewhere: bool) -> None:
    """Here or in another process, on disk or not; what is counted under a later consent is another sum."""
    with at.agent(only="usage") as product:
        product.count("EARLIER", 5)
        if written:
            product._counters.keep()
        if elsewhere:
            at.agent(only="usage", usage_consent=False).__enter__().close()
        else:
            product.set_usage_consent(False)
            product.count("REFUSED", 3)
            product.set_usage_consent(True)
        product.count("LATER", 2)
        assert product.flush(20).pending == 0
        product.count("LATER", 1)
        assert product.flush(20).pending == 0
    # Until this process has seen the other's refusal it cannot tell before from after.
    assert at.sums() in ([Counter(LATER=1), Counter(LATER=3)] if elsewhere else [Counter(LATER=3)])
