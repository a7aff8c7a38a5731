"""Hosts and gateways that keep no promise: exceptions at the worst place, connections cut, clocks that jump."""

from __future__ import annotations

import atexit
import gc
import inspect
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import Mock

import pytest
from support.agent import Desk

import agent
from agent import clock
from agent.clock import Clock
from agent.values import Unreachable


@pytest.mark.parametrize("what", [RuntimeError, SystemExit])
@pytest.mark.parametrize("verb", ["send", "rest", "interrupt", "close"])
def test_a_vendors_transport_that_raises_costs_no_record(
    at: Desk, verb: str, what: type[BaseException]
) -> None:
    rude = Mock(**{"send.side_effect": Unreachable("off")})
    getattr(rude, verb).side_effect = what("rude")
    with at.agent(only="licence", transport=rude) as product:
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

    def unregister(hook: Any) -> None:
        hooks[:] = [other for other in hooks if other != hook]

    monkeypatch.setattr(atexit, "unregister", unregister)
    product: list[agent.Agent] = []

    def read() -> str:
        product[0].close()
        return "key"

    with at.agent(license_key=read) as found:
        product.append(found)
        assert found.call_home()
    assert hooks == [] and found._worker not in clock._workers


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


# Between the making of a socket and the first line that could close it an interrupt leaves it to the collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("what", ["count", "keep", "track", "record_text", "call_home", "flush"])
def test_ctrl_c_at_any_call_leaves_no_lock_taken(at: Desk, what: str) -> None:
    with at.agent(clock=Clock(), durability="process") as product:
        counters = product._counters
        add: Any = product.count
        calls: dict[str, Callable[[], object]] = {
            "count": lambda: (add("RENDER"), counters.open_windows()),
            "keep": lambda: (add("RENDER"), counters.keep()),
            "track": lambda: product.track("EXPORT"),
            "record_text": lambda: product.record_text("x", data_group="g"),
            "call_home": product.call_home,
            "flush": lambda: (product.record_text("x", data_group="g"), product.flush()),
        }
        locks = [counters._writing, product._spool._lock]
        taken: list[Any] = []

        def take_each() -> None:
            for lock in locks:
                taken.append(lock.acquire(False))
                lock.release()

        calls[what]()
        every = 7 if what == "flush" else 1
        for count in range(0, 60 * every, every):  # more calls where another segment begins
            if not interrupted(calls[what], count):
                break
            other = threading.Thread(target=take_each)
            other.start()
            other.join()
            assert taken == [True] * 2, count
            taken.clear()
        assert count > 5
        product.flush()  # one that was broken off is no suspect for long
        assert product.flush().drained
    gc.collect()
