"""Hosts and gateways that keep no promise: exceptions at the worst place, connections cut, clocks that jump."""

from __future__ import annotations

import atexit
import gc
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Optional

import pytest
from support.agent import Desk

import agent
from agent import clock
from agent.clock import Clock
from agent.values import Response, Unreachable


class Rude:
    """A vendor's transport that raises ``what`` out of the ``verb`` that is called."""

    def __init__(self, verb: str, what: type[BaseException]) -> None:
        self._verb, self._what = verb, what

    def __getattr__(self, name: str) -> Any:
        def call(*_: Any, **__: Any) -> Optional[Response]:
            if name == self._verb or name == "send":
                raise self._what("rude") if name == self._verb else Unreachable("off")
            return None

        return call


@pytest.mark.parametrize("what", [RuntimeError, SystemExit])
@pytest.mark.parametrize("verb", ["send", "rest", "interrupt", "close"])
def test_a_vendors_transport_that_raises_costs_no_record(
    at: Desk, verb: str, what: type[BaseException]
) -> None:
    with at.agent(only="licence", transport=Rude(verb, what)) as product:
        product.record_text("kept", data_group="g")
        assert product.flush().pending == 1
        product._delivery.quietly("interrupt")
    with at.agent(only="licence") as product:
        assert product.flush().drained
    assert at.texts() == ["kept"]


def test_a_licence_callable_that_closes_the_agent_leaves_no_hook(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks: list[Any] = []
    monkeypatch.setattr(atexit, "register", hooks.append)
    monkeypatch.setattr(atexit, "unregister", lambda hook: hook in hooks and hooks.remove(hook))
    product: list[agent.Agent] = []

    def read() -> str:
        product[0].close()
        return "key"

    with at.agent(license_key=read) as found:
        product.append(found)
        assert found.call_home()
    assert hooks == [] and id(found._worker) not in clock._forkables


def test_an_import_after_close_leaves_nothing_open(at: Desk, tmp_path: Path) -> None:
    path = tmp_path / "records.export"
    with at.agent() as product:
        product.record_text("carried", data_group="g")
        product.export_spool(path, move=True)
    hooks = atexit._ncallbacks()
    with at.agent() as product:
        product.close()
        assert product.import_spool(path) == 1
        assert atexit._ncallbacks() == hooks
        # Whoever comes next may deliver and remove it: nobody holds it.
        with at.agent() as other:
            assert other.flush().drained
    assert not [name for name in os.listdir(at.state_dir) if name.endswith(".seg")]


def interrupted(call: Callable[[], object], at: int) -> bool:
    """``call()`` with a KeyboardInterrupt where its ``at``-th function of ours begins; False where there are fewer.

    There, and behind each call of a C function, is where an interpreter looks for signals.
    """
    left = at

    def trace(frame: FrameType, event: str, arg: object) -> None:
        nonlocal left
        ours = (str(frame.f_globals["__name__"]) + ".").startswith(agent.__name__ + ".")
        if ours and not frame.f_code.co_flags & inspect.CO_GENERATOR:  # they are closed noisily
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt

    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    return left < 0


@pytest.mark.parametrize("what", ["count", "keep", "track", "record_text", "call_home"])
def test_ctrl_c_at_any_call_leaves_no_lock_taken(at: Desk, what: str) -> None:
    with at.agent(clock=Clock(), durability="process") as product:
        counters = product._counters
        calls: dict[str, Callable[[], object]] = {
            "count": lambda: (product.count("RENDER"), counters.open_windows()),
            "keep": lambda: (product.count("RENDER"), counters.keep()),
            "track": lambda: product.track("EXPORT"),
            "record_text": lambda: product.record_text("x", data_group="g"),
            "call_home": product.call_home,
        }
        locks = [counters._writing, product._spool._lock]
        taken: list[Any] = []

        def take_each() -> None:
            for lock in locks:
                taken.append(lock.acquire(False))
                lock.release()

        calls[what]()
        for count in range(60):  # each may begin another segment, and more calls the next time
            if not interrupted(calls[what], count):
                break
            other = threading.Thread(target=take_each)
            other.start()
            other.join()
            assert taken == [True] * 2, count
            taken.clear()
        assert count > 5
        assert product.flush().drained


# Between the making of a socket and the first line that could close it an interrupt leaves it to the collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_ctrl_c_in_a_flush_stops_no_later_flush(at: Desk) -> None:
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        with at.agent(only="licence", clock=Clock(), durability="process") as product:
            for n in range(25):
                product.record_text("r%d" % n, data_group="g")
                wait_s = 1e-5 + n * 1e-4
                ctrl_c = threading.Timer(wait_s, os.kill, (os.getpid(), signal.SIGUSR1))
                try:
                    ctrl_c.start()
                    product.flush()
                    ctrl_c.join()
                    time.sleep(0)  # where a signal that came now is seen
                except KeyboardInterrupt:
                    ctrl_c.join()
            for _ in range(3):
                report = product.flush()
            assert report.drained
        assert set(at.texts()) == {"r%d" % n for n in range(25)}
    finally:
        signal.signal(signal.SIGUSR1, before)
        gc.collect()
