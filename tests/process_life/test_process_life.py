"""The process around an agent: its start, its threads, its exit, and what is left after ``close``."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agent import ROOT, Desk, FakeClock, child_environ, desk
from support.collector import wait_until

import agent
from agent.clock import Clock

# argv: address, public key, state directory, settings as JSON ("off" disables); the rest is the product.
PRODUCT = """
import json, os, signal, sys, threading, time
import agent
url, pem, state_dir, settings = sys.argv[1:5]
settings = json.loads(settings)
endpoints = () if settings.pop("off", False) else (
    agent.GetKeyManager(base_url=url, api_key="demo-api-key", keys=(agent.PublicKey.from_pem(pem),)),
    agent.Reo(base_url=url, api_key="demo-api-key", domain="acme.example"))
config = agent.Config(
    vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5", usage_consent=True,
    state_dir=state_dir, endpoints=endpoints, **settings)
t = agent.Agent(config, ("demo-license-key", "a"))
"""


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    with desk(
        tmp_path / "state", FakeClock(time.time())
    ) as found:  # children have the system's clock
        yield found


def run(
    at: Desk,
    code: str,
    *,
    url: str = "",
    options: tuple[str, ...] = (),
    product: str = PRODUCT,
    **settings: Any,
) -> tuple[subprocess.CompletedProcess[str], float]:
    """A product of its own: (how it ended, seconds that it took)."""
    arguments = [
        url or at.collector.url,
        at.collector.keys[0]["public_key"],
        str(at.state_dir),
        json.dumps(settings),
    ]
    began = time.monotonic()
    found = subprocess.run(
        [sys.executable, *options, "-c", product + code, *arguments],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
        env=child_environ(),
    )
    return found, time.monotonic() - began


def quiet(found: subprocess.CompletedProcess[str], status: int = 0) -> None:
    assert (found.returncode, found.stdout, found.stderr) == (status, "", "")


RECORDING = """
t.call_home(); t.track("EXPORT"); t.count("RENDER")
"""
# Until the worker has a request under way, so that the end meets it there.
UNDER_WAY = """
deadline = time.monotonic() + 10
while not t._delivery.in_flight:
    assert time.monotonic() < deadline
    time.sleep(0.005)
"""

# How long the end took is said by the very last that a process runs.
SAYS_HOW_LONG = """
class Last:
    def __del__(self, write=os.write, now=time.monotonic, began=time.monotonic()):
        write(1, b"%.3f" % (now() - began))
last = Last()
"""


# -- exit ----------------------------------------------------------------------------------------


@pytest.fixture
def never_accepts() -> Iterator[str]:
    """A socket that listens, with a full queue: connecting ends in nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        waiting = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            waiting.append(client)
        yield "http://127.0.0.1:%d" % port
        for client in waiting:
            client.close()


@pytest.mark.parametrize("server", ["up", "refuse", "blackhole", "drip-headers", "500", "backlog"])
def test_exit_is_silent_in_time_and_unchanged(at: Desk, never_accepts: str, server: str) -> None:
    url = never_accepts if server == "backlog" else ""
    if server not in ("up", "backlog"):
        at.collector.fault(server)
    waits = UNDER_WAY if server in ("blackhole", "drip-headers", "backlog") else ""
    for status, exit_timeout_s in ((0, 0.25), (3, 0)):
        code = RECORDING + waits + SAYS_HOW_LONG + "sys.exit(%d)" % status
        found, _ = run(at, code, url=url, start_delay_s=0, exit_timeout_s=exit_timeout_s)
        assert (found.returncode, found.stderr) == (status, "")
        # The promise; the rest is the interpreter's own end on a busy machine.
        assert float(found.stdout) < exit_timeout_s + 1.0
    with at.agent() as product:
        assert product.status()["pending"] <= 8 and product.status()["damaged"] == 0


def test_a_resolver_that_never_answers_keeps_no_exit(at: Desk) -> None:
    code = """
import socket
from agent.transport import HttpTransport
asked = threading.Event()
def hang(*given, **more):
    asked.set()
    time.sleep(1000)  # as getaddrinfo, in one call that nothing ends
socket.getaddrinfo = hang
silent = HttpTransport(environ={}, proxy="http://proxy.example:8080")
t = agent.Agent(config, "key", transport=silent)
t.call_home()
assert asked.wait(10)
"""
    found, took_s = run(at, code, start_delay_s=0, request_timeout_s=60)
    quiet(found)
    assert took_s < 15


def test_an_exit_in_the_middle_of_a_request_speaks_against_nobody(at: Desk) -> None:
    at.collector.fault("blackhole")
    for n in range(4):
        # After the third one the endpoint is left alone for a while.
        waits = UNDER_WAY if n < 3 else ""
        found, _ = run(at, RECORDING + waits, start_delay_s=0, exit_timeout_s=0.1)
        quiet(found)
    at.collector.fault(None)
    with at.agent() as product:
        assert product.flush().pending == 0 and product.status()["dead"] == 0
    assert at.texts() == ["CALL HOME"] * 4


# How it ends -> the status that the host has then, and what it recorded.
ENDS: dict[str, tuple[str, int, list[str]]] = {
    "os._exit": ("os._exit(5)", 5, []),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)", -15, []),
    "SIGTERM that exits": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(4)); os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)",
        4,
        [],
    ),
    "a record before the threads are joined": (
        "threading._register_atexit(lambda: t.record_text('joining', data_group='g'))",
        0,
        ["joining"],
    ),
    "a thread that goes on": (
        "threading.Timer(0.3, lambda: t.record_text('timer', data_group='g')).start()",
        0,
        ["timer"],
    ),
}


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
@pytest.mark.parametrize("end, status, texts", ENDS.values(), ids=ENDS.keys())
def test_an_end_in_the_middle_of_a_delivery_is_silent_and_loses_nothing(
    at: Desk, end: str, status: int, texts: list[str]
) -> None:
    at.collector.fault("blackhole")
    code = "t.call_home()\n" + UNDER_WAY + end
    found, took_s = run(at, code, start_delay_s=0, request_timeout_s=60)
    quiet(found, status)
    assert took_s < 15
    at.collector.fault(None)
    with at.agent() as product:
        assert product.flush().pending == 0
    assert sorted(at.texts()) == ["CALL HOME", *texts]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
@pytest.mark.parametrize("what", ["raise KeyboardInterrupt", "sys.exit(7)"])
def test_a_signal_while_the_exit_waits_ends_the_wait_and_prints_nothing(
    at: Desk, what: str
) -> None:
    """The second Ctrl-C of an impatient user, or a service manager's SIGTERM."""
    at.collector.fault("blackhole")
    code = """
def handler(number, frame):
    %s
signal.signal(signal.SIGALRM, handler)
t.count("RENDER")
t.call_home()
""" % what
    ends = "signal.setitimer(signal.ITIMER_REAL, 0.4); sys.exit(3)"
    found, took_s = run(at, code + UNDER_WAY + ends, start_delay_s=0, exit_timeout_s=20)
    quiet(found, 3)
    assert took_s < 15
    at.collector.fault(None)
    with at.agent() as product:
        assert product.flush().pending == 0
    assert at.texts() == ["CALL HOME"]
    assert at.sums() == {"RENDER": 1}


def test_records_made_while_the_interpreter_ends(at: Desk) -> None:
    """In an exit handler before ours and one after it, in a destructor at shutdown: all of them are kept."""
    code = """
import atexit
atexit.register(lambda: (t.record_text("handler after ours", data_group="g"), t.count("AFTER")))
t.call_home()
atexit.register(lambda: (t.record_text("handler before ours", data_group="g"), t.count("BEFORE")))
class Last:
    def __del__(self):
        t.record_text("destructor", data_group="g")
        t.track("DESTRUCTOR")
        t.count("DESTRUCTOR-COUNT")
last = Last()
last.itself = last
sys.last = last
"""
    found, _ = run(at, code, start_delay_s=60)
    quiet(found)
    with at.agent() as product:
        product.flush()
    assert {"handler after ours", "handler before ours"} <= set(at.texts())
    usage = [
        r["fields"]["activity_type"]
        for r in at.collector.records()
        if "data_group" not in r["fields"]
    ]
    assert {"AFTER", "BEFORE"} <= set(usage)


def test_the_first_record_of_all_in_an_exit_handler(at: Desk) -> None:
    code = """
import atexit
atexit.register(lambda: (t.record_text("last words", data_group="g"), t.count("RENDER", 2), t.count("RENDER", 3)))
"""
    quiet(run(at, code, start_delay_s=60)[0])
    with at.agent() as product:
        product.flush()
    assert at.texts() == ["last words"]
    assert at.sums() == {"RENDER": 5}


@pytest.mark.parametrize("first", ["t.call_home()", "t.track('A')", "t.count('A')", "t.flush(0)"])
def test_a_destructor_at_shutdown_raises_and_prints_nothing(at: Desk, first: str) -> None:
    """Modules are being taken apart: whatever is missing, the host hears nothing of it."""
    code = """
class Last:
    def __init__(self):
        self.agent, self.itself = t, self
    def __del__(self):
        t = self.agent
        %s
        t.record_value(1, data_group="g")
        t.close()
sys.last = Last()
del t
""" % first
    quiet(run(at, code, start_delay_s=60)[0])


def test_a_daemon_thread_that_records_until_the_end(at: Desk) -> None:
    code = """
def record():
    while True:
        t.record_value(1, data_group="g")
        t.count("RENDER")
for _ in range(3):
    threading.Thread(target=record, daemon=True).start()
time.sleep(0.1)
"""
    found, _ = run(at, code, start_delay_s=0)
    quiet(found)
    with at.agent() as product:
        assert product.flush(timeout=30).pending == 0


def test_flush_in_an_exit_handler_after_ours_returns_at_once(at: Desk) -> None:
    code = """
import atexit
def late():
    began = time.monotonic()
    report = t.flush(20)
    os.write(1, b"%.2f" % (time.monotonic() - began))
atexit.register(late)
t.call_home()
"""
    at.collector.fault("blackhole")
    found, _ = run(at, code, start_delay_s=60)
    assert (found.returncode, found.stderr) == (0, "")
    assert float(found.stdout) < 2


def test_copies_share_one_exit_time(at: Desk) -> None:
    """Four agents behind a black hole, half a second each: half a second in all."""
    at.collector.fault("blackhole")
    code = """
agents = [t] + [agent.Agent(config.replace(state_dir=state_dir + str(n))) for n in range(3)]
for t in agents:
    t.call_home()
for t in agents:
    %s
""" % UNDER_WAY.strip().replace("\n", "\n    ") + SAYS_HOW_LONG
    found, _ = run(at, code, start_delay_s=0, exit_timeout_s=0.5)
    assert (found.returncode, found.stderr) == (0, "")
    assert float(found.stdout) < 0.5 + 1.0


# -- start ---------------------------------------------------------------------------------------

HEAVY = (
    """dataclasses typing enum inspect uuid sqlite3 ssl json re hashlib urllib3 platformdirs nacl
threading logging socket subprocess secrets urllib pathlib base64 tempfile http email""".split()
)


@pytest.mark.parametrize("deliver", ["manual", "thread"])
def test_nothing_heavy_is_loaded_before_a_record_is_durable(at: Desk, deliver: str) -> None:
    code = """
import sys
before = set(sys.modules)
import agent
key_loaded = set(sys.modules) - before
class Key:  # stands for the vendor's key, which is made before
    name, algorithm, fingerprint = "global", "ed25519", "00"
    def verify(self, message, signature): raise AssertionError
config = agent.Config(
    vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5", usage_consent=True,
    state_dir=sys.argv[1], deliver=sys.argv[2], start_delay_s=60, endpoints=(
        agent.GetKeyManager(base_url="https://keys.acme.example", api_key="k", allow_unsigned=True),
        agent.Reo(api_key="k", domain="acme.example")))
t = agent.Agent(config, "key")
assert t.call_home() and t.track("EXPORT") and t.record_value(1.5, data_group="g")
print(*sorted(set(sys.modules) - before))
import os
os._exit(0)
"""
    place = "import sys; sys.path.insert(0, %r)\n" % str(ROOT)
    found = subprocess.run(
        [sys.executable, "-I", "-S", "-c", place + code, str(at.state_dir), deliver],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (found.returncode, found.stderr) == (0, "")
    loaded = {name.partition(".")[0] for name in found.stdout.split()}
    assert not loaded & set(HEAVY)


def test_old_records_do_not_wait_for_the_hosts_start(at: Desk) -> None:
    with at.agent(only="licence") as product:
        product.record_text("old", data_group="g")
    clock = FakeClock(at.clock.at)
    for days, waits in ((0.5, True), (1.5, False)):
        clock.at = at.clock.at + days * 86400
        with at.agent(only="licence", clock=clock, start_delay_s=30) as product:
            delay_s = product._worker._delay_s()
            assert (delay_s == 30) if waits else (delay_s <= 0)


# -- close ---------------------------------------------------------------------------------------


def descriptors() -> set[str]:
    return {
        os.readlink("/proc/self/fd/" + name)
        for name in os.listdir("/proc/self/fd")
        if os.path.exists("/proc/self/fd/" + name)
    }


@pytest.mark.parametrize("fault", [None, "500", "refuse", "blackhole", "drip-body"])
def test_nothing_is_left_after_close(at: Desk, fault: Any) -> None:
    told: list[agent.Outcome] = []
    at.collector.fault(fault, keep_port=True) if fault else None
    with at.agent(
        clock=Clock(), deliver="thread", on_outcome=told.append, exit_timeout_s=0.5
    ) as product:
        product.call_home()
        product.count("RENDER")
        product.track("EXPORT")
        if fault in ("blackhole", "drip-body"):
            wait_until(at.seen)
        elif fault is None:
            product.flush()
    count = len(told)
    # On a busy machine its last instruction may come after the time.
    wait_until(lambda: not product._worker.running)
    if os.path.isdir("/proc/self/fd"):
        mine = str(at.state_dir)
        assert not [path for path in descriptors() if path.startswith(mine)]
    at.collector.fault(None)
    assert len(told) == count
    with at.agent() as product:
        assert product.flush().pending == 0


def test_close_in_a_process_of_its_own_leaves_it_as_it_was(at: Desk) -> None:
    code = """
import _thread, atexit, gc
threads = _thread._count  # those that ``threading`` does not know, too
def held():
    return sorted(os.readlink("/proc/self/fd/" + n) for n in os.listdir("/proc/self/fd")
                  if os.path.exists("/proc/self/fd/" + n))
before = held()
calls = []
real = atexit.register, atexit.unregister
atexit.register = lambda f, *a: (calls.append(f), real[0](f, *a))
atexit.unregister = lambda f: (calls.remove(f) if f in calls else None, real[1](f))
t = agent.Agent(config, on_outcome=lambda outcome: None)
t.call_home(); t.count("A"); t.track("B")
assert calls
report = t.flush(20)
assert report.pending == 0, report
t.close()
assert threads() == 0
assert held() == before, held()
assert not [f for f in calls if getattr(f, "__module__", "").startswith("agent")], calls
import weakref
alive = weakref.ref(t)
del t
gc.collect()
assert alive() is None  # fork hooks hold nothing
"""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    found, _ = run(at, code, start_delay_s=0)
    quiet(found)


def test_close_while_others_record(at: Desk) -> None:
    """A record made across the close is durable or None, and no file stays open."""
    returned: list[Any] = []
    with at.agent(clock=Clock(), deliver="thread", start_delay_s=60, only="licence") as product:
        going = threading.Event()

        def record() -> None:
            while True:
                event_id = product.record_value(len(returned), data_group="g")
                if event_id is None:
                    return
                returned.append(event_id)
                going.set()

        threads = [threading.Thread(target=record) for _ in range(4)]
        for thread in threads:
            thread.start()
        going.wait(10)
        product.close()
        for thread in threads:
            thread.join(10)
    gc.collect()
    if os.path.isdir("/proc/self/fd"):
        assert not [path for path in descriptors() if path.startswith(str(at.state_dir))]
    with at.agent() as product:
        assert product.status()["pending"] == len(returned)


def test_no_outcome_begins_after_close(at: Desk) -> None:
    told: list[float] = []
    at.collector.answer_delay_s = 0.02
    product = agent.Agent(
        at.config(deliver="thread"), on_outcome=lambda outcome: told.append(time.monotonic())
    )
    for number in range(50):
        product.record_value(number, data_group="g")
    wait_until(lambda: told)
    product.close()
    closed_at, count = time.monotonic(), len(told)
    assert count < 50
    wait_until(lambda: time.monotonic() > closed_at + 0.2)
    assert len(told) == count


def test_close_inside_an_outcome(at: Desk) -> None:
    told: list[str] = []

    def on_outcome(outcome: agent.Outcome) -> None:
        product.flush()  # inside a pass: returns at once
        product.status()
        product.close()
        told.append(outcome.event_id)

    product = agent.Agent(at.config(deliver="thread", only="licence"), on_outcome=on_outcome)
    for number in range(5):
        product.record_value(number, data_group="g")
    wait_until(lambda: told and not product._worker.running)
    assert len(told) == 1
    with at.agent() as later:
        assert later.flush().drained


@pytest.mark.parametrize("what", [RuntimeError("x"), SystemExit(3), asyncio.CancelledError()])
def test_an_outcome_that_raises_stops_nothing(at: Desk, what: BaseException) -> None:
    def on_outcome(outcome: agent.Outcome) -> None:
        told.append(outcome)
        raise what

    told: list[agent.Outcome] = []
    for deliver in ("manual", "thread"):
        with at.agent(
            deliver=deliver, on_outcome=on_outcome, only="licence", start_delay_s=60
        ) as product:
            product.call_home()
            product.call_home()
            assert product.flush().delivered == 2
    assert len(told) == 4


# -- threads and signals -------------------------------------------------------------------------


def test_flush_from_many_threads(at: Desk) -> None:
    with at.agent(clock=Clock(), deliver="thread", start_delay_s=60) as product:
        reports: list[agent.DeliveryReport] = []

        def work(number: int) -> None:
            for n in range(5):
                product.record_text("%d-%d" % (number, n), data_group="g")
                reports.append(product.flush(timeout=20))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(reports) == 30
        assert product.flush().pending == 0
    assert len(at.texts()) == len(set(at.texts())) == 30


def test_many_processes_on_one_state_directory(at: Desk) -> None:
    code = """
for n in range(25):
    t.record_text("%d-%d" % (os.getpid(), n), data_group="g"); t.count("RENDER")
t.flush(20)
"""
    arguments = [at.collector.url, at.collector.keys[0]["public_key"], str(at.state_dir), "{}"]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PRODUCT + code, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=child_environ(),
        )
        for _ in range(6)
    ]
    for child in children:
        said, _ = child.communicate(timeout=40)
        assert (child.returncode, said) == (0, b"")
    with at.agent() as product:
        assert product.flush(timeout=20).pending == 0
    assert len(at.texts()) == len(set(at.texts())) == 150
    assert at.sums() == {"RENDER": 150}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs setitimer")
@pytest.mark.parametrize("deliver", ["manual", "thread"])
def test_a_signal_handler_that_records_inside_a_record(at: Desk, deliver: str) -> None:
    code = """
made = []
def handler(number, frame):
    made.append(t.record_text("handler", data_group="g"))
    made.append(t.track("HANDLER"))
    t.count("HANDLER-COUNT")
    handler.calls += 1
    # Each at another place, and never so often that nothing else is done.
    signal.setitimer(signal.ITIMER_REAL, 0.0002 + (handler.calls * 37 % 23) * 0.0001)
handler.calls = 0
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001)
counted = 0
ends_at = time.monotonic() + 20
while handler.calls < 150 and time.monotonic() < ends_at:
    made.append(t.record_value(1, data_group="g"))
    made.append(t.track("MAIN"))
    t.count("MAIN-COUNT")
    counted += 1
signal.signal(signal.SIGALRM, signal.SIG_IGN)
assert handler.calls >= 150 and None not in made, (handler.calls, made.count(None), t.status())
t.close()
print(json.dumps([len(made), counted, handler.calls]))
"""
    found, _ = run(at, code, deliver=deliver, start_delay_s=60)
    assert (found.returncode, found.stderr) == (0, ""), found.stderr
    made, counted, calls = json.loads(found.stdout)
    with at.agent() as product:
        report = product.flush(timeout=30)
        assert (report.pending, report.dead) == (0, 0)
        assert product.status()["damaged"] == 0
    assert len([r for r in at.collector.records() if "count" not in r["fields"]]) == made
    assert at.sums() == {"MAIN-COUNT": counted, "HANDLER-COUNT": calls}


COPIES = """
import importlib, shutil, sys, json, os
sys.path.insert(0, sys.argv[5])
other = importlib.import_module("acme_telemetry")
assert other.__file__ != agent.__file__
twin = other.Agent(other.Config(
    vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5", usage_consent=True,
    state_dir=state_dir, deliver="manual", endpoints=(
        other.GetKeyManager(base_url=url, api_key="demo-api-key", keys=(other.PublicKey.from_pem(pem),)),
        other.Reo(base_url=url, api_key="demo-api-key", domain="acme.example"))), ("demo-license-key", "a"))
assert twin.user_identifier == t.user_identifier
for n in range(5):
    t.record_text("a%d" % n, data_group="g"); twin.record_text("b%d" % n, data_group="g")
    t.count("RENDER"); twin.count("RENDER")
assert twin.flush(20).delivered > 0
assert t.flush(20).pending == 0
assert not [name for name in sys.modules if name.startswith("agent.") and "acme" in name]
"""


def test_two_copies_under_two_names_share_a_state_directory(at: Desk, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "agent", tmp_path / "copies" / "acme_telemetry")
    arguments = [at.collector.url, at.collector.keys[0]["public_key"], str(at.state_dir)]
    arguments += [json.dumps({"deliver": "manual"}), str(tmp_path / "copies")]
    found = subprocess.run(
        [sys.executable, "-c", PRODUCT + COPIES, *arguments],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
        env=child_environ(),
    )
    quiet(found)
    with at.agent() as product:
        assert product.flush().pending == 0
    assert sorted(at.texts()) == sorted("%s%d" % (x, n) for x in "ab" for n in range(5))
    assert at.sums() == {"RENDER": 10}
