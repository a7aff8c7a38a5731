"""The worker is rung once for many records: none may be left lying until the next one is made."""

import dis
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.agent import Desk
from support.collector import wait_until

import agent
from agent import worker
from agent.clock import Clock
from agent.spool.store import Spool
from agent.worker import Worker

# What a recording thread runs around the moment in which it decides whether to ring.
WATCHED = {f.__code__ for f in (agent.Agent._keep, Spool.record, Worker.wake, Worker.ring)}
LINES = sorted({line for code in WATCHED for _, line in dis.findlinestarts(code) if line})


def idle(product: agent.Agent) -> bool:
    return not (product.status()["pending"] or product._counters.unsynced)


class Recorder(threading.Thread):
    """Records once, and before one line of ours waits until it is let go, or gets a Ctrl-C."""

    def __init__(self, product: agent.Agent, line: int, *, interrupted: bool) -> None:
        super().__init__(daemon=True)
        self._product, self._line, self._interrupted = product, line, interrupted
        self.there, self.go_on = threading.Event(), threading.Event()

    def run(self) -> None:
        sys.settrace(self._trace)
        try:
            self._product.call_home()
        except KeyboardInterrupt:
            pass
        sys.settrace(None)
        self.there.set()  # a line that this way does not pass

    def _trace(self, frame: Any, event: str, argument: object) -> Any:
        if frame.f_code not in WATCHED:
            return None
        if event == "line" and frame.f_lineno == self._line and not self.there.is_set():
            self.there.set()
            assert self.go_on.wait(20)
            if self._interrupted:
                raise KeyboardInterrupt
        return self._trace


@pytest.mark.parametrize("interrupted", [False, True], ids=["waits", "interrupted"])
def test_a_record_beside_one_that_is_held_up_anywhere(at: Desk, interrupted: bool) -> None:
    """Beside it another is made, and the worker looks and falls asleep; then it goes on, and a third is made."""
    with at.agent(deliver="thread", clock=Clock(), durability="process", only="licence") as product:
        for line in LINES:
            held = Recorder(product, line, interrupted=interrupted)
            held.start()
            assert held.there.wait(20)
            product.call_home()
            ends_at = time.monotonic() + 0.3  # where it is the one that has to ring, nothing comes
            while product.status()["pending"] > 1 and time.monotonic() < ends_at:
                time.sleep(0.002)
            held.go_on.set()
            held.join()
            product.call_home()
            wait_until(lambda: idle(product))


def test_what_is_recorded_once_a_pass_has_read_the_disk_is_news(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with at.agent(only="licence") as product:
        product.record_text("a", data_group="g")
        claim = product._spool.claim

        def late() -> bool:
            claimed = claim()
            product.record_text("b", data_group="g")
            return claimed

        monkeypatch.setattr(product._spool, "claim", late)
        product._delivery.run()
        assert at.texts() == ["a"] and product._delivery.due_in_s() == 0


def test_a_backoff_that_ended_while_the_machine_slept(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "LOOK_AGAIN_S", 0.2)
    at.collector.fault("refuse")
    with at.agent(deliver="thread", only="licence", start_delay_s=0) as product:
        product.call_home()
        wait_until(lambda: product.status()["endpoints"][0]["failures"] == 1)
        at.collector.clear()
        # Its clock went on; the one that the thread waits by stood still.
        at.clock.at += 7 * 3600
        wait_until(lambda: not product.status()["pending"])
    assert len(at.collector.records()) == 1


def test_what_is_imported_wakes_a_worker_that_sleeps(at: Desk, tmp_path: Path) -> None:
    with at.agent(state_dir=tmp_path / "elsewhere") as other:
        other.call_home()
        assert other.export_spool(tmp_path / "carried") == 2
    with at.agent(deliver="thread", clock=Clock()) as product:
        product.call_home()
        wait_until(lambda: idle(product))
        assert product.import_spool(tmp_path / "carried") == 2
        wait_until(lambda: idle(product))
        assert at.seen() == 4
