"""Fork: what the parent recorded is sent once, by the parent; a child starts afresh, whatever was going on."""

import os
import sys
from pathlib import Path
from typing import IO, Any

import pytest
from support.agent import Desk, run_python
from support.collector import wait_until
from support.product import FORKS, arrived, quiet, started

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")

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
# Never because of a worker that has nothing to send.
STRICT = ("-W", "error::DeprecationWarning")


def forks(at: Desk, code: str, *, options: tuple[str, ...] = FORKS, **settings: Any) -> None:
    quiet(at, FORK + code, options=options, **settings)


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
    forks(at, code, options=STRICT, start_delay_s=0)
    arrived(at, "parent before", "child", "parent after", sums={"RENDER": 7})


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
    forks(at, code, start_delay_s=60)
    arrived(at, *"01234")


# -- locks ---------------------------------------------------------------------------------------


# (what is taken, by a thread, while the main thread forks)
LOCKS = [
    "t._spool._lock",
    "t._spool.book._lock",
    "t._spool.backlog._lock",
    "t._counters._writing",
]


def test_while_each_lock_is_held(at: Desk) -> None:
    """By a thread that the child has no copy of: there it is never given back."""
    code = """
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
    forks(at, code, start_delay_s=0)
    arrived(at, "CALL HOME", *("child-%d" % n for n in range(len(LOCKS))))


# -- what a child holds --------------------------------------------------------------------------


def test_no_file_that_is_being_opened_reaches_a_child(tmp_path: Path) -> None:
    """Opening lets other threads run, and one of them forks: of 300 forks 150 left a descriptor in the child."""
    code = """
import os, sys, threading
from agent import clock, files
place = sys.argv[1]
class Forked:
    def before_fork(self): pass
    after_fork_in_parent = before_fork
    def after_fork_in_child(self):
        files.close_inherited([entry.path for entry in os.scandir(place)])
forked, going = Forked(), [1]
clock.watch_forks(forked)
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
    found = run_python(code, str(tmp_path), options=FORKS)
    assert (found.returncode, found.stdout, found.stderr) == (0, "0\n", "")


def line(stream: "IO[str] | None") -> str:
    assert stream is not None
    return stream.readline().strip()


def locked(at: Desk) -> list[str]:
    """The files that somebody holds the lock of, seen from outside."""
    import fcntl

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
    with started(at, DAEMON, options=FORKS, start_delay_s=0) as parent:
        assert line(parent.stdout) == "ready" and parent.stdin is not None
        wait_until(lambda: at.seen() > 0)
        parent.stdin.write("go\n")
        parent.stdin.flush()
        daemon = int(line(parent.stdout))
        assert len([name for name in locked(at) if name.endswith(".seg")]) >= 3
        assert "agent.lock" in locked(at)
        parent.kill()
        parent.wait(30)
        at.collector.fault(None)
        assert locked(at) == []
        if sys.platform == "linux":
            names = [os.readlink(entry.path) for entry in os.scandir("/proc/%d/fd" % daemon)]
            assert not [n for n in names if n.startswith((str(at.state_dir), "socket:"))]
        arrived(at, "parent")
        parent.stdin.close()
        assert parent.stdout is not None and parent.stdout.read() == ""  # the daemon's end
    arrived(at, "parent", "daemon")


# -- while another thread loads a module -------------------------------------------------------------

# A thread that calls ``use`` loads the module that is wanted, which takes a while; then ``fork``.
SLOWLY = """
wanted = %r
t.track("EXPORT")
use = t.status if wanted == "agent.looking" else lambda: t.flush(5)
loading, loaded = threading.Event(), []
class Slow:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == wanted and not loading.is_set():
            loading.set()
            time.sleep(0.3)
            loaded.append(name)
sys.meta_path.insert(0, Slow)
thread = threading.Thread(target=use)
thread.start()
assert loading.wait(10)
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    use()
    os._exit(0 if loaded else 3)
_, status = os.waitpid(pid, 0)
thread.join()
assert status == 0, status
"""


@pytest.mark.parametrize("module", ["agent.looking", "agent.transport"])
def test_a_child_does_not_wait_for_a_thread_that_is_not_there(at: Desk, module: str) -> None:
    quiet(at, SLOWLY % module, options=FORKS, deliver="manual")


# A program may run for hours inside the import of its main module, and use us there.
INSIDE = """
import sys, threading
import agent
from agent import clock
class Main:
    def find_spec(name, path=None, target=None):
        if name == "main_program":
            thread = threading.Thread(target=lambda: print(clock._is_importing()))
            thread.start()
            thread.join()
sys.meta_path.insert(0, Main)
try:
    import main_program
except ImportError:
    pass
"""


def test_a_fork_does_not_wait_for_what_the_host_loads() -> None:
    found = run_python(INSIDE)
    assert (found.returncode, found.stdout, found.stderr) == (0, "False\n", "")


CLOSED = """
t.call_home()
t.close()
held, over = threading.Event(), threading.Event()
def looks():
    with t._spool.backlog._lock:
        held.set()
        over.wait(20)
threading.Thread(target=looks, daemon=True).start()
assert held.wait(10)
pid = os.fork()
if pid == 0:
    signal.alarm(20)
    t.%s
    os._exit(0)
_, status = os.waitpid(pid, 0)
over.set()
assert status == 0, status
"""


@pytest.mark.parametrize(
    "call", ["flush(1)", "status()", "preview()", "history()", "diagnostics()"]
)
def test_a_child_forked_after_close_beside_a_thread_that_looks_is_not_stuck(
    at: Desk, call: str
) -> None:
    quiet(at, CLOSED % call, options=FORKS, deliver="manual")
