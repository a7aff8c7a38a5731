"""What a host breaks off, takes away or forks in an unlucky moment costs that moment, and nothing for ever."""

from __future__ import annotations

import _thread
import os
import threading
from typing import Any

import pytest
from support.agent import Desk
from support.product import FORKS, quiet
from support.requests import post
from support.sockets import Server, silent

from agent import clock
from agent.transport import HttpTransport
from agent.values import Unreachable, inside

posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")

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


def test_after_close_multiprocessing_keeps_nothing_of_an_agent(at: Desk) -> None:
    code = """
import gc, multiprocessing.util, weakref
t.call_home()
t.close()
known = weakref.ref(t)
del t
gc.collect()
assert known() is None
assert not multiprocessing.util._finalizer_registry
"""
    quiet(at, code, deliver="manual")


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
