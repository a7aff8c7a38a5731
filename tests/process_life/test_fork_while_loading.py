"""Fork while another thread loads a module for us: its lock is held in the child for ever, unless the fork waits."""

from __future__ import annotations

import sys

import pytest
from support.agent import Desk, run_python
from support.product import FORKS, quiet

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")

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
