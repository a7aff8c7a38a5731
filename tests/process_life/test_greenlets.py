"""Hosts under gevent and eventlet: threads that are none, and locks that stop all of them where they are real ones.

Skipped where those libraries are missing: no product needs them for this package. ``.ci/run`` installs them once.
"""

import importlib.util
import json
from typing import Any

import pytest
from support.agent import Desk
from support.product import PRODUCT, arrived, run

PATCH = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    # Of its own end, which it announces at each import.
    "eventlet": "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch()",
}
# Where the patch comes.
PRODUCTS = {
    "before the import": "{patch}\n{product}",
    "after the import": "import agent.client; import agent.signatures.envelope\n{patch}\n{product}",
    "after the start": "{product}\n{patch}\n",
    "in the first pass": "{product}t.call_home()\nwhile not t._delivery._inside: pass\n{patch}\n",
}
WORK = """
import json, posix, threading, time
gaps, reports, over = [0.0], [], []
def tick():
    last = time.monotonic()
    while not over:
        time.sleep(0.005)
        now = time.monotonic()
        gaps.append(now - last)
        last = now
def work(n):
    for i in range(flushes):
        t.record_text("%d-%d" % (n, i), data_group="g"); t.track("EXPORT"); t.count("RENDER")
        reports.append(t.flush(flush_s).pending)
ticking = threading.Thread(target=tick)
threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
for thread in [ticking, *threads]:
    thread.start()
for thread in threads:
    thread.join()
over.append(True)
ticking.join()
said = json.dumps([len(reports), t.status()["pending"], max(gaps)])
class Last:
    def __del__(self, write=posix.write, now=time.monotonic, began=time.monotonic()):
        write(1, b"[%s, %.3f]" % (said.encode(), now() - began))
last = Last()
"""


def ran(
    at: Desk, library: str, when: str, *, deliver: str, flushes: int = 3, flush_s: float = 20
) -> tuple[str, int, int, float, float]:
    """(what it printed as an error, flushes, pending after the last, longest standstill, exit seconds)."""
    if importlib.util.find_spec(library) is None:
        pytest.skip("%s is not installed" % library)
    product = PRODUCTS[when].format(product=PRODUCT, patch=PATCH[library])
    code = "flushes, flush_s = %r\n" % ((flushes, flush_s),) + WORK
    given: Any = {"deliver": deliver, "start_delay_s": 0, "request_timeout_s": 2}
    out, err, _ = run(at, code, product=product, **given)
    (done, pending, standstill_s), exit_s = json.loads(out)
    return err, done, pending, standstill_s, exit_s


@pytest.mark.parametrize("deliver", ["thread", "manual"])
@pytest.mark.parametrize("when", ["before the import", "after the import", "after the start"])
@pytest.mark.parametrize("library", sorted(PATCH))
def test_flushes_from_many_greenlets_beside_the_worker(
    at: Desk, library: str, when: str, deliver: str
) -> None:
    assert ran(at, library, when, deliver=deliver)[:3] == ("", 9, 0)
    assert len(at.texts()) == len(set(at.texts())) == 9


@pytest.mark.parametrize("when", ["before the import", "after the start"])
@pytest.mark.parametrize("library", sorted(PATCH))
def test_a_silent_server_stops_no_greenlet_and_no_exit(at: Desk, library: str, when: str) -> None:
    at.collector.fault("blackhole")
    err, flushes, pending, standstill_s, exit_s = ran(
        at, library, when, deliver="thread", flushes=1, flush_s=1
    )
    assert (err, flushes) == ("", 3)
    # Each flush waits 1 s; 0.25 s is the exit's promise, the rest a busy machine's.
    assert pending > 0 and standstill_s < 0.9 and exit_s < 0.25 + 1.0
    arrived(at, "0-0", "1-0", "2-0")


def test_gevent_that_comes_in_the_middle_of_a_pass_does_not_end_delivery(at: Desk) -> None:
    """The thread's name for itself changes under it, and a request may be a greenlet that nobody lets run: it is late.

    What gevent prints about that is the host's affair.
    """
    at.collector.answer_delay_s = 0.2
    ran(at, "gevent", "in the first pass", deliver="thread", flushes=1, flush_s=10)
    assert {"0-0", "1-0", "2-0"} <= set(at.texts())
