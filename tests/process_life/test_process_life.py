"""The process around an agent: its start, its threads, its exit, and what is left after ``close``."""

import asyncio
import gc
import json
import multiprocessing
import os
import random
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.agent import ROOT, Desk, FakeClock, desk, endpoint, run_python
from support.collector import wait_until
from support.faults import descriptors
from support.product import (
    FORKS,
    PRODUCT,
    SAYS_HOW_LONG,
    UNDER_WAY,
    arguments,
    arrived,
    quiet,
    run,
    says,
    started,
)
from support.sockets import full_queue
from support.systems import procfs

import agent
from agent.clock import Clock

# -- exit ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["up", "refuse", "blackhole", "drip-headers", "500", "backlog"])
def test_exit_is_silent_in_time_and_unchanged(at: Desk, server: str) -> None:
    if server not in ("up", "backlog"):
        at.collector.fault(server)
    waits = UNDER_WAY if server in ("blackhole", "drip-headers", "backlog") else ""
    code = "t.call_home(); t.track('EXPORT'); t.count('RENDER')\n" + waits + SAYS_HOW_LONG
    with full_queue() as port:
        url = "http://127.0.0.1:%d" % port if server == "backlog" else ""
        for status, limit_s in ((0, 0.25), (3, 0)):
            ends = code + "sys.exit(%d)" % status
            given: Any = {"status": status, "url": url, "start_delay_s": 0}
            # The promise; the rest is the interpreter's own end on a busy machine.
            assert says(at, ends, exit_timeout_s=limit_s, **given) < limit_s + 1.0
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
    assert quiet(at, code, start_delay_s=0, request_timeout_s=60) < 15


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
    assert quiet(at, code, status=status, start_delay_s=0, request_timeout_s=60) < 15
    arrived(at, "CALL HOME", *texts)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
@pytest.mark.parametrize("what", ["raise KeyboardInterrupt", "sys.exit(7)"])
def test_a_signal_while_the_exit_waits_ends_the_wait_and_prints_nothing(
    at: Desk, tmp_path: Path, what: str
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
    # From the moment in which the exit handlers run, ours last.
    ends = "import atexit; atexit.register(signal.setitimer, signal.ITIMER_REAL, 0.4); sys.exit(3)"
    assert quiet(at, code + UNDER_WAY + ends, status=3, start_delay_s=0, exit_timeout_s=20) < 15
    arrived(at, "CALL HOME", sums={"RENDER": 1})


@pytest.mark.parametrize("deliver", ["thread", "manual"])
def test_ctrl_c_ends_a_flush_beside_a_silent_server(at: Desk, deliver: str) -> None:
    """On Windows it interrupts no lock that is waited for."""
    at.collector.fault("blackhole")
    code = """
def ctrl_c():
    sys.stdin.readline()
    os.kill(os.getpid(), signal.SIGINT) if os.name == "posix" else signal.raise_signal(signal.SIGINT)
threading.Thread(target=ctrl_c, daemon=True).start()
t.call_home()
try:
    t.flush(30)
except KeyboardInterrupt:
    os._exit(5)
"""
    given: Any = {"deliver": deliver, "start_delay_s": 0, "request_timeout_s": 30}
    with started(at, code, **given) as child:
        wait_until(lambda: at.seen() > 0)
        child.communicate("\n", timeout=10)
        assert child.returncode == 5


def test_records_made_while_the_interpreter_ends(at: Desk) -> None:
    """In an exit handler before ours and one after it, in a destructor at shutdown: all of them are kept."""
    code = """
import atexit
def late():
    t.record_text("handler after ours", data_group="g"), t.count("AFTER")
    began = time.monotonic()
    t.flush(20)  # returns at once
    print(time.monotonic() - began)
atexit.register(late)
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
    at.collector.fault("blackhole")
    assert says(at, code, start_delay_s=60) < 2
    at.collector.fault(None)
    with at.agent() as product:
        product.flush()
    assert {"handler after ours", "handler before ours"} <= set(at.texts())
    assert {"AFTER", "BEFORE"} <= set(at.activities())


def test_the_first_record_of_all_in_an_exit_handler(at: Desk) -> None:
    code = """
import atexit
atexit.register(lambda: (t.record_text("last words", data_group="g"), t.count("RENDER", 2), t.count("RENDER", 3)))
"""
    quiet(at, code, start_delay_s=60)
    arrived(at, "last words", sums={"RENDER": 5})


DESTRUCTOR = """
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
"""
DAEMONS = """
def record():
    while True:
        t.record_value(1, data_group="g")
        t.count("RENDER")
for _ in range(3):
    threading.Thread(target=record, daemon=True).start()
time.sleep(0.1)
"""
CALLS = ("t.call_home()", "t.track('A')", "t.count('A')", "t.flush(0)")


@pytest.mark.parametrize("code", [DAEMONS, *(DESTRUCTOR % call for call in CALLS)])
def test_whoever_records_while_modules_are_taken_apart_raises_and_prints_nothing(
    at: Desk, code: str
) -> None:
    quiet(at, code, start_delay_s=0 if code is DAEMONS else 60)
    with at.agent() as product:
        assert product.flush(timeout=30).pending == 0


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
    assert says(at, code, start_delay_s=0, exit_timeout_s=0.5) < 0.5 + 1.0


# -- start ---------------------------------------------------------------------------------------

HEAVY = (
    """dataclasses typing enum inspect uuid sqlite3 ssl json re hashlib urllib3 platformdirs nacl
threading logging socket subprocess secrets urllib pathlib base64 tempfile http email""".split()
)


@pytest.mark.parametrize("deliver", ["manual", "thread"])
def test_nothing_heavy_is_loaded_before_a_record_is_durable(at: Desk, deliver: str) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[3])
before = set(sys.modules)
import agent
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
    found = run_python(code, str(at.state_dir), deliver, str(ROOT), options=("-I", "-S"))
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
            product._delivery.due_in_s()  # reads what there is, as before each turn
            delay_s = product._worker._delay_s()
            assert (delay_s == 30) if waits else (delay_s <= 0)


MULTIPROCESSING = """
t.call_home()  # the product's start-up code, which each child of some kinds runs again
def work():
    assert t.call_home() is None and t.record_text("child", data_group="g")
    t.count("CHILD", 2)
    print(t.status()["not_recorded"])
if __name__ == "__main__":
    import multiprocessing
    t.count("PARENT", 3)
    process = multiprocessing.get_context("%s").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_child_of_multiprocessing_calls_no_home_and_keeps_its_counts(
    at: Desk, tmp_path: Path, method: str
) -> None:
    """One start of the product is one call home; such a child ends by ``os._exit``, whatever was registered."""
    program = tmp_path / "program.py"
    program.write_text(PRODUCT + MULTIPROCESSING % method)
    found = run_python(program, *arguments(at, start_delay_s=60), options=FORKS)
    calls = 1 if method == "fork" else 2
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == "{'child process': %d}\n" % calls
    arrived(at, "CALL HOME", "child", sums={"CHILD": 2, "PARENT": 3})


# -- close ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [None, "500", "refuse", "blackhole", "drip-body"])
def test_nothing_is_left_after_close(at: Desk, fault: Any) -> None:
    told: list[agent.Outcome] = []
    at.collector.fault(fault, keep_port=True) if fault else None
    given: Any = {"clock": Clock(), "on_outcome": told.append, "exit_timeout_s": 0.5}
    with at.agent(deliver="thread", **given) as product:
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
    assert descriptors(at.state_dir) == []
    at.collector.fault(None)
    assert len(told) == count
    with at.agent() as product:
        assert product.flush().pending == 0


@procfs
def test_close_in_a_process_of_its_own_leaves_it_as_it_was(at: Desk) -> None:
    code = """
import _thread, atexit, gc, multiprocessing.util, weakref
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
assert t.flush(20).pending == 0
t.close()
assert threads() == 0
assert held() == before, held()
assert not [f for f in calls if getattr(f, "__module__", "").startswith("agent")], calls
assert not multiprocessing.util._finalizer_registry
alive = weakref.ref(t)
del t
gc.collect()
assert alive() is None  # fork hooks hold nothing
"""
    quiet(at, code, start_delay_s=0)


def test_close_while_others_record(at: Desk) -> None:
    """A record made across the close is durable or None, and no file stays open."""
    returned: list[Any] = []
    going = threading.Event()
    with at.agent(clock=Clock(), deliver="thread", start_delay_s=60, only="licence") as product:

        def record() -> None:
            while event_id := product.record_value(len(returned), data_group="g"):
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
    assert descriptors(at.state_dir) == []
    with at.agent() as product:
        assert product.status()["pending"] == len(returned)


def test_no_outcome_begins_after_close(at: Desk) -> None:
    told: list[agent.Outcome] = []
    ends = threading.Event()

    def on_outcome(outcome: agent.Outcome) -> None:
        """The first one takes until the agent is closed."""
        told.append(outcome)
        ends.wait(20)

    product = agent.Agent(at.config(deliver="thread"), on_outcome=on_outcome)
    for number in range(50):
        product.record_value(number, data_group="g")
    wait_until(lambda: told)
    product.close()
    closed_at, count = time.monotonic(), len(told)
    ends.set()
    assert count == 1
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


@pytest.mark.parametrize("deliver", ["manual", "thread"])
@pytest.mark.parametrize("what", [RuntimeError("x"), SystemExit(3), asyncio.CancelledError()])
def test_an_outcome_that_raises_stops_nothing(at: Desk, what: BaseException, deliver: str) -> None:
    def on_outcome(outcome: agent.Outcome) -> None:
        told.append(outcome)
        raise what

    told: list[agent.Outcome] = []
    given: Any = {"on_outcome": on_outcome, "only": "licence", "start_delay_s": 60}
    with at.agent(deliver=deliver, **given) as product:
        product.call_home()
        product.call_home()
        assert product.flush().delivered == 2
    assert len(told) == 2


# -- signals -------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
@pytest.mark.parametrize("deliver", ["manual", "thread"])
def test_a_signal_handler_that_records_inside_a_record(at: Desk, deliver: str) -> None:
    code = """
made, handled = [], []
def record(name):
    made.append(t.record_text(name, data_group="g"))
    made.append(t.track(name))
    t.count(name)
def handler(number, frame):
    record("HANDLER")
    handled.append(1)
    # Each at another place, and never so often that nothing else is done.
    signal.setitimer(signal.ITIMER_REAL, 0.0002 + (len(handled) * 37 % 23) * 0.0001)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001)
counted = 0
ends_at = time.monotonic() + 20
while len(handled) < 60 and time.monotonic() < ends_at:
    record("MAIN")
    counted += 1
signal.signal(signal.SIGALRM, signal.SIG_IGN)
assert len(handled) >= 60 and None not in made, (len(handled), made.count(None), t.status())
t.close()
print(json.dumps([counted, len(handled)]))
"""
    counted, handled = says(at, code, deliver=deliver, start_delay_s=60)
    arrived_texts = ["MAIN"] * counted + ["HANDLER"] * handled
    arrived(at, *arrived_texts, sums={"MAIN": counted, "HANDLER": handled})
    assert len(at.collector.records()) == 2 * len(arrived_texts) + 2


# -- event loops -------------------------------------------------------------------------------------


def test_recording_on_a_loop_costs_it_one_sync_and_no_network(at: Desk) -> None:
    """Beside a delivery that is under way all the time."""
    code = """
import asyncio
me, fsync, synced = threading.get_ident(), os.fsync, []
def counting(fd):
    if threading.get_ident() == me:
        synced.append(fd)
    fsync(fd)
os.fsync = counting
recording = []
sys.addaudithook(lambda event, args: event.startswith(("socket.", "subprocess.")) and recording
                 and threading.get_ident() == me and os._exit(9))
costs = {}
def cost(name, call, *arguments, **more):
    synced.clear()
    recording.append(True)
    call(*arguments, **more)
    recording.clear()
    costs[name] = max(costs.get(name, 0), len(synced))
async def main():
    t.call_home()
    flush = asyncio.ensure_future(asyncio.to_thread(t.flush, 20))
    for _ in range(10):
        cost("value", t.record_value, 1, data_group="g")
        cost("home", t.call_home)
        cost("track", t.track, "EXPORT")
        cost("count", t.count, "RENDER")
        await asyncio.sleep(0)
    await flush
    assert (await asyncio.to_thread(t.flush, 20)).drained
    await asyncio.to_thread(t.close)
asyncio.run(main(), debug=False)
print(json.dumps(costs))
"""
    costs = says(at, code, start_delay_s=0)
    assert (costs["track"], costs["count"]) == (0, 0)
    assert costs["value"] <= 1 and costs["home"] <= 1


@pytest.mark.parametrize("deliver", ["thread", "manual"])
def test_a_cancelled_flush_keeps_neither_the_loop_nor_a_record(at: Desk, deliver: str) -> None:
    """The thread cannot be cancelled; closing ends its wait, or the loop would wait a minute for it."""
    at.collector.fault("blackhole")
    code = """
import asyncio
async def main():
    t.record_text("before", data_group="g")
    flush = asyncio.ensure_future(asyncio.to_thread(t.flush, 60))
    while not t._delivery.in_flight:
        await asyncio.sleep(0.005)
    flush.cancel()
    try:
        await flush
    except asyncio.CancelledError:
        pass
    t.record_text("after", data_group="g")
    await asyncio.to_thread(t.close)
asyncio.run(main())
"""
    assert quiet(at, code, start_delay_s=0, deliver=deliver, request_timeout_s=60) < 20
    arrived(at, "after", "before")


# -- SIGKILL: what a call returned for arrives with the next run -------------------------------------


def killed(at: Desk, code: str, **settings: Any) -> Any:
    """What a child printed before it killed itself."""
    end = "\nos.kill(os.getpid(), 9)"  # Windows ends it, with this as its status
    return json.loads(run(at, code + end, status=9 if os.name == "nt" else -9, **settings).out)


@pytest.mark.parametrize("deliver", ["thread", "manual"])
def test_hundreds_of_records_and_a_kill_right_after(at: Desk, deliver: str) -> None:
    at.collector.fault("refuse")
    code = """
ids = [t.record_value(n, data_group="g") for n in range(200)]
ids += [t.track("EXPORT", meta={"n": n}) for n in range(200)]
print(json.dumps(ids), flush=True)
"""
    ids = killed(at, code, deliver=deliver, start_delay_s=0)
    assert len(set(ids)) == 400 and None not in ids
    at.collector.fault(None)
    with at.agent() as product:
        assert product.status()["pending"] == 400
        report = product.flush(timeout=30)
        assert (report.delivered, report.pending, report.dead) == (400, 0, 0)
    fields = [record["fields"] for record in at.collector.records()]
    usage = [one for one in fields if "event_id" in one]
    assert {one["event_id"] for one in usage} == set(ids[200:]) and len(usage) == 200
    values = [int(one["numeric_data_single_value"]) for one in fields if "event_id" not in one]
    # In order, but for what was a probe, or under way when the process died.
    for numbers in (values, [one["meta"]["n"] for one in usage]):
        assert sorted(numbers) == list(range(200))
        assert [n for n in numbers if n > 1] == list(range(2, 200))


RECORDS = """
while True:
    text = os.urandom(8).hex()
    print(text * bool(t.record_text(text, data_group="g")), t.track("EXPORT"), flush=True)
    time.sleep(0.05 if os.name == "nt" else 0.005)
"""


@pytest.mark.parametrize(
    "count", [12, pytest.param(1000, marks=[pytest.mark.full, pytest.mark.timeout(3000)])]
)
def test_processes_killed_while_they_record_and_deliver_lose_nothing(
    tmp_path: Path, count: int
) -> None:
    said: list[str] = []
    chance = random.Random(1)
    given: dict[str, Any] = {"start_delay_s": 0, "max_records": 10**6, "max_bytes": 10**9}
    now: Any = Clock()  # of the others too: an answer that is minutes old is none
    with desk(tmp_path / "state", now) as at:
        for _ in range(count // 4):
            with ExitStack() as stack:
                children: list[Any] = [started(at, RECORDS, **given) for _ in range(4)]
                for child in map(stack.enter_context, children):
                    said += child.stdout.readline().split()
                time.sleep(chance.random() / 2)
                for child in children:
                    child.kill()
                    said += child.stdout.read().rpartition("\n")[0].split()  # it was killed behind
        with at.agent(**given) as product:
            report = product.flush(900)
            assert (report.pending, report.dead, product.status()["damaged"]) == (0, 0, 0)
        found = {one["fields"].get("event_id", "") for one in at.collector.records()}
        print(len(said), "acknowledged of", count, "processes")
        missing = set(said) - found - set(at.texts())
        assert len(said) > 4 * count and not missing, (len(missing), list(missing)[:9])


def test_a_record_that_kills_its_sender_goes_last(at: Desk) -> None:
    """Three times a process died while this record was under way: the others are sent before it."""
    with at.agent(only="licence") as product:
        product.record_text("killer", data_group="g")
    at.collector.fault("blackhole")
    for _ in range(3):
        before = at.seen()
        with started(at, "t.flush(30)", deliver="manual") as child:
            wait_until(lambda: at.seen() > before)  # noqa: B023
            child.kill()
    at.collector.fault(None)
    at.collector.clear()
    with at.agent(only="licence") as product:
        product.record_text("a", data_group="g")
        product.record_text("b", data_group="g")
        report = product.flush()
        assert (report.pending, report.dead) == (0, 0)
    assert at.texts() == ["a", "b", "killer"]


def test_state_of_a_killed_process_belongs_to_an_earlier_run(at: Desk) -> None:
    killed(at, "print(json.dumps(t.call_home()), flush=True)", deliver="manual")
    told: list[agent.Outcome] = []
    with at.agent(on_outcome=told.append) as product:
        product.call_home()
        product.flush()
        assert endpoint(product)["pending"] == 0
    assert sorted(outcome.from_earlier_run for outcome in told) == [False, False, True, True]
