"""Fork: what the parent recorded is sent once, by the parent; a child starts afresh, whatever was going on."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from support.agent import Desk, FakeClock, child_environ, desk
from support.collector import wait_until
from test_process_life import PRODUCT, UNDER_WAY, quiet, run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path / "state", FakeClock(time.time())) as found:
        yield found


# ``fork(work)`` runs ``work`` in a child, which is killed when it takes longer than 30 s; gives the child's pid.
FORK = """
def fork(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        try:
            work()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid
def join(pid):
    _, status = os.waitpid(pid, 0)
    assert status == 0, status
def idle():
    deadline = time.monotonic() + 30
    while t._worker.running:
        assert time.monotonic() < deadline
        time.sleep(0.005)
"""
# From 3.12 on a fork beside a thread warns, into the host: never because of a worker that has nothing to send.
STRICT = ("-W", "error::DeprecationWarning")
# Where threads are the point of the test.
LAX = ("-W", "ignore::DeprecationWarning")


def everything_arrived_once(at: Desk, texts: list[str]) -> None:
    with at.agent() as product:
        assert product.flush(timeout=20).pending == 0
    assert Counter(at.texts()) == Counter(texts)


def test_beside_an_idle_worker(at: Desk) -> None:
    code = """
t.record_text("parent before", data_group="g")
t.count("RENDER", 3)
assert t.flush(10).pending == 0
idle()
def work():
    assert t.record_text("child", data_group="g")
    t.count("RENDER", 4)
    while t.flush(10).pending:  # what the parent records meanwhile is none of ours
        pass
pid = fork(work)
t.record_text("parent after", data_group="g")
t.flush(10)
join(pid)
"""
    found, _ = run(at, FORK + code, options=STRICT, start_delay_s=0)
    quiet(found)
    everything_arrived_once(at, ["parent before", "child", "parent after"])
    assert at.sums() == {"RENDER": 7}


def test_a_child_that_lives_on_does_not_keep_the_parent_from_delivering(at: Desk) -> None:
    """Forked in the middle of a pass: the lock of the deliverer is open in the child too."""
    at.collector.answer_delay_s = 0.05
    code = """
for n in range(6):
    t.record_text(str(n), data_group="g")
deadline = time.monotonic() + 10
while not t._delivery.in_flight:
    assert time.monotonic() < deadline
    time.sleep(0.001)
told, told_w = os.pipe()
def work():
    t.record_text("child", data_group="g")
    os.read(told, 1)
pid = fork(work)
t.record_text("parent", data_group="g")
report = t.flush(10)
os.write(told_w, b"x")
join(pid)
assert (report.pending, report.drained) in ((0, True), (1, False)), report
"""
    found, _ = run(at, FORK + code, options=LAX, start_delay_s=0)
    quiet(found)
    at.collector.answer_delay_s = 0
    everything_arrived_once(at, [str(n) for n in range(6)] + ["child", "parent"])


def test_while_other_threads_hold_the_locks(at: Desk) -> None:
    code = """
going, made = [True], []
def record(number):
    n = 0
    while going[0]:
        text = "%d-%d" % (number, n)
        if t.record_text(text, data_group="g"):
            made.append(text)
        t.count("RENDER")
        t.track("EXPORT")
        n += 1
threads = [threading.Thread(target=record, args=(n,), daemon=True) for n in range(3)]
for thread in threads:
    thread.start()
for n in range(15):
    def work():
        assert t.record_text("child-%d" % n, data_group="g")
        t.count("CHILD")
        assert t.track("CHILD")
        t.close()
    pid = fork(work)
    made.append("child-%d" % n)
    join(pid)
going[0] = False
for thread in threads:
    thread.join(10)
t.close()
print(json.dumps(made))
"""
    found, _ = run(at, FORK + code, options=LAX, start_delay_s=60)
    assert (found.returncode, found.stderr) == (0, "")
    everything_arrived_once(at, json.loads(found.stdout))
    assert at.sums()["CHILD"] == 15


def test_an_outcome_that_forks(at: Desk) -> None:
    """In the child the pass is over: it sends nothing of the parent's."""
    code = """
def on_outcome(outcome):
    if not children:
        children.append(fork(lambda: None))
children = []
t = agent.Agent(config, ("demo-license-key", "a"), on_outcome=on_outcome)
for n in range(5):
    t.record_text(str(n), data_group="g")
assert t.flush(10).pending == 0
join(children[0])
"""
    found, _ = run(at, FORK + code, options=LAX, start_delay_s=60)
    quiet(found)
    everything_arrived_once(at, [str(n) for n in range(5)])


# -- locks ---------------------------------------------------------------------------------------


# (what is taken, by a thread, while the main thread forks)
LOCKS = [
    "t._spool._lock",
    "t._spool._book._lock",
    "t._spool._backlog._lock",
    "t._counters._writing",
    "files._still",
]


def test_while_each_lock_is_held(at: Desk) -> None:
    """By a thread that the child has no copy of: there it is never given back."""
    code = """
from agent import files
t.call_home(); t.count("RENDER")
assert t.flush(10).pending == 0
idle()
for n, name in enumerate(%r):
    taken, done = threading.Event(), threading.Event()
    def hold():
        with eval(name):
            taken.set()
            done.wait(10)
    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait(10)
    def work():
        assert t.record_text("child-%%d" %% n, data_group="g") and t.track("CHILD")
        t.count("CHILD")
        t.status(), t.preview(), t.set_usage_consent(True)
        t.flush(0.1)  # the parent may be delivering, and waiting for this very lock
        t.close(5)
    pid = fork(work)
    join(pid)
    done.set()
    holder.join(10)
""" % (LOCKS,)
    found, _ = run(at, FORK + code, options=LAX, start_delay_s=0)
    quiet(found)
    everything_arrived_once(at, ["CALL HOME", *("child-%d" % n for n in range(len(LOCKS)))])


# -- what a child holds --------------------------------------------------------------------------


def test_no_file_that_is_being_opened_reaches_a_child(tmp_path: Path) -> None:
    """Opening lets other threads run, and one of them forks before anybody knows of the descriptor."""
    code = """
import os, sys, threading
from agent import clock, files
place = sys.argv[1]
class Forked:
    def before_fork(self): pass
    after_fork_in_parent = after_fork_in_child = before_fork
forked, going = Forked(), [1]
clock.watch_forks(forked, files.hold_still, files.go_on, files.close_inherited)
def open_and_lock(number):
    n = 0
    while going:
        file = files.open_append("%s/%d-%d" % (place, number, n % 10))
        file.lock()
        file.close()
        n += 1
threads = [threading.Thread(target=open_and_lock, args=(n,)) for n in range(2)]
for thread in threads:
    thread.start()
found = 0
for _ in range(60):
    sum(range(20_000))  # for as long as others want to go on
    pid = os.fork()
    if not pid:
        known = {entry.stat().st_ino for entry in os.scandir(place)}
        held = 0
        for fd in range(3, 100):
            try:
                held += os.fstat(fd).st_ino in known
            except OSError:
                pass
        os._exit(held)
    found += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
going.clear()
for thread in threads:
    thread.join()
print(found)
"""
    found = subprocess.run(
        [sys.executable, *LAX, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        env=child_environ(),
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "0\n", "")


def start(at: Desk, code: str, **settings: object) -> subprocess.Popen[str]:
    """A product whose end somebody else decides."""
    pem = at.collector.keys[0]["public_key"]
    arguments = [at.collector.url, pem, str(at.state_dir), json.dumps(settings)]
    return subprocess.Popen(
        [sys.executable, *LAX, "-c", PRODUCT + FORK + code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=child_environ(),
    )


def line(stream: "IO[str] | None") -> str:
    assert stream is not None
    return stream.readline().strip()


def locked(at: Desk) -> list[str]:
    """The files that somebody holds the lock of, seen from outside."""
    found = []
    for path in sorted(at.state_dir.iterdir()):
        with open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                found.append(path.name)
    return found


DAEMON = """
t.record_text("parent", data_group="g"); t.track("EXPORT"); t.count("RENDER"); t.status()
t._counters.keep()
print("ready", flush=True)
sys.stdin.readline()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        sys.stdin.read()
        assert t.record_text("daemon", data_group="g")
        t.close()
        os._exit(0)
    os._exit(0)
os.wait()
time.sleep(30)
"""


def test_a_daemon_that_outlives_its_parent_holds_nothing_of_it(at: Desk) -> None:
    """Forked in the middle of a request, with segments, sidecar and the deliverer's lock open."""
    at.collector.fault("blackhole")
    with start(at, DAEMON, start_delay_s=0) as parent:
        assert line(parent.stdout) == "ready" and parent.stdin is not None
        wait_until(lambda: at.seen() > 0)
        parent.stdin.write("go\n")
        parent.stdin.flush()
        daemon = int(line(parent.stdout))
        assert len([name for name in locked(at) if name.endswith(".seg")]) >= 3
        assert "agent.lock" in locked(at)
        parent.send_signal(signal.SIGKILL)
        parent.wait(30)
        at.collector.fault(None)
        assert locked(at) == []
        if sys.platform == "linux":
            names = [os.readlink(entry.path) for entry in os.scandir("/proc/%d/fd" % daemon)]
            assert not [n for n in names if n.startswith((str(at.state_dir), "socket:"))]
        everything_arrived_once(at, ["parent"])
        parent.stdin.close()
        assert parent.stdout is not None and parent.stdout.read() == ""  # the daemon's end
    everything_arrived_once(at, ["parent", "daemon"])


def test_programs_that_are_started_inherit_no_descriptor(at: Desk) -> None:
    """Not even where somebody asked for all of them, in the middle of a request."""
    at.collector.fault("blackhole")
    code = """
import subprocess
t.record_text("parent", data_group="g"); t.track("EXPORT"); t.count("RENDER")
t._counters.keep()
%s
look = "import os; print([os.readlink('/proc/self/fd/' + fd) for fd in os.listdir('/proc/self/fd') if int(fd) > 2])"
command = [sys.executable, "-S", "-c", look.replace("os.readlink", "(lambda p: os.path.lexists(p) and os.readlink(p))")]
subprocess.run(command, close_fds=False, check=True)
pid = os.posix_spawn(sys.executable, command, os.environ)
os.waitpid(pid, 0)
t.close(0)
""" % UNDER_WAY
    found, _ = run(at, FORK + code, options=LAX, start_delay_s=0)
    assert (found.returncode, found.stderr) == (0, "")
    lines = found.stdout.splitlines()
    assert len(lines) == 2
    for text in lines:
        assert str(at.state_dir) not in text and "socket:" not in text


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_process_of_multiprocessing_keeps_its_counts(
    at: Desk, tmp_path: Path, method: str
) -> None:
    """Such a process ends by ``os._exit``, whatever was registered for its exit."""
    (tmp_path / "program.py").write_text(PRODUCT + """
def work():
    t.count("CHILD", 2)
if __name__ == "__main__":
    import multiprocessing
    t.count("PARENT", 3)
    process = multiprocessing.get_context(%r).Process(target=work)
    process.start()
    process.join()
""" % method)
    pem = at.collector.keys[0]["public_key"]
    arguments = [at.collector.url, pem, str(at.state_dir), json.dumps({"start_delay_s": 60})]
    command = [sys.executable, *LAX, str(tmp_path / "program.py"), *arguments]
    found = subprocess.run(command, capture_output=True, text=True, env=child_environ())
    quiet(found)
    with at.agent() as product:
        assert product.flush().pending == 0
    assert at.sums() == {"CHILD": 2, "PARENT": 3}
