"""Hosts and gateways that keep no promise: exceptions at the worst place, connections cut, clocks that jump."""

import _thread
import atexit
import gc
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from support.agent import Desk
from support.faults import interrupted_at
from support.product import FORKS, quiet
from support.requests import post
from support.sockets import Server, silent
from support.systems import posix

import agent
from agent import clock
from agent.clock import Clock
from agent.transport import HttpTransport
from agent.values import Unreachable, inside


@pytest.mark.parametrize("what", [RuntimeError, OSError, KeyError, SystemExit])
@pytest.mark.parametrize("verb", ["send", "rest", "interrupt", "close"])
def test_a_vendors_transport_that_raises_costs_no_record(
    at: Desk, verb: str, what: type[BaseException]
) -> None:
    rude = Mock(**{"send.side_effect": Unreachable("off")})
    getattr(rude, verb).side_effect = what("rude")
    with at.agent(only="licence", transport=rude) as product:
        product.record_text("kept", data_group="g")
        assert product.flush().pending == 1
        said = "transport: " + what.__name__ if verb == "send" else "off"
        assert product.status()["endpoints"][0]["reason"] == "offline: " + said
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
            with suppress(KeyboardInterrupt), interrupted_at(
                count + 1, KeyboardInterrupt, "call"
            ) as begun:
                calls[what]()
            if begun[0] <= count:
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


# -- what is broken off, taken away or forked in an unlucky moment -----------------------------------

C_FORK = """
import ctypes
from agent.spool import segment
t.count("RENDER", 5)
name, = [n for n in os.listdir(state_dir) if n[:1] == "c" and n.endswith(".seg")]
child = ctypes.PyDLL(None).fork()
if child == 0:
    %s
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
path = os.path.join(state_dir, name)
assert segment.seize(path) is None, "its lock is gone"
with open(path, "rb") as file:
    assert b'"end"' not in file.read(), "its window was ended"
"""


@posix
@pytest.mark.parametrize(
    "call",
    ["t.close()", "t.export_spool(state_dir + '.out')", "t.__exit__(None, None, None)"],
)
def test_a_child_that_c_code_forked_ends_no_window_of_its_parents(at: Desk, call: str) -> None:
    quiet(at, C_FORK % call, deliver="manual", options=FORKS)


@pytest.mark.parametrize("deliver", ["thread", "manual"])
def test_ctrl_c_before_a_thread_begins_stops_no_later_delivery(
    at: Desk, deliver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(*given: object) -> None:
        raise KeyboardInterrupt

    with at.agent(deliver=deliver) as product:
        with monkeypatch.context() as now, pytest.raises(KeyboardInterrupt):
            now.setattr(_thread, "start_new_thread", broken_off)
            product.call_home()
            product.flush(1)
        assert product.flush(10).drained
    assert at.texts() == ["CALL HOME"]


@posix
def test_ctrl_c_beside_a_threads_start_leaves_the_hosts_signals_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What came before the call that blocks them is raised by it."""
    import _signal  # type: ignore[import-not-found, unused-ignore]

    mask: Any = _signal.pthread_sigmask

    def broken_off(how: int, what: Any) -> Any:
        before = mask(how, what)
        if what and how == _signal.SIG_BLOCK:
            raise KeyboardInterrupt
        return before

    before = mask(_signal.SIG_BLOCK, ())
    try:
        with monkeypatch.context() as now, pytest.raises(KeyboardInterrupt):
            now.setattr(_signal, "pthread_sigmask", broken_off)
            clock.start_thread(lambda: None)
        assert mask(_signal.SIG_BLOCK, ()) == before
    finally:
        mask(_signal.SIG_SETMASK, before)


@posix
def test_a_host_that_closes_our_socket_is_told_nothing_and_the_server_is_asked_again(
    capfd: pytest.CaptureFixture[str],
) -> None:
    transport = HttpTransport(environ={})
    with Server(silent) as server:

        def close() -> None:
            assert server.seen.wait(20)
            line = next(iter(transport._lines.values()))
            for sock in (line.handle, line.connection.sock):
                os.close(sock.fileno())

        other = threading.Thread(target=close)
        other.start()
        with pytest.raises(Unreachable):
            transport.send(post(server.port), timeout_s=1)
        other.join()
        with pytest.raises(Unreachable) as again:
            transport.send(post(server.port), timeout_s=0.3)
        transport.close()
    assert "hangs" not in again.value.reason and not inside
    assert capfd.readouterr() == ("", "")


def test_a_clock_that_raises_at_the_end_is_not_printed(at: Desk) -> None:
    code = """
class Clock:
    monotonic = staticmethod(time.monotonic)
    def time(self):
        assert not broken
        return now()
broken, now = False, time.time
u = agent.Agent(config, clock=Clock())
u.call_home()
time.sleep(0.3)
broken = True
u.close(5)
"""
    quiet(at, code, url="http://127.0.0.1:9", start_delay_s=0)
