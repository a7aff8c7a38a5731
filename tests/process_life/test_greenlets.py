"""Hosts under gevent and eventlet: threads that are none, and locks that stop all of them where they are real ones.

Skipped where those libraries are missing: no product needs them for this package. ``.ci/run`` installs them once.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agent import Desk, FakeClock, child_environ, desk

PATCH = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    # Of its own end, which it announces at each import.
    "eventlet": "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch()",
}
# argv: address, public key, state directory, mode, how to patch and when, flushes of each greenlet, seconds for each.
PRODUCT = """
import sys
url, pem, state_dir, deliver, patch, when, flushes, flush_s = sys.argv[1:9]
if when == "before the import":
    exec(patch)
import agent, agent.client, agent.signatures.envelope
if when == "after the import":
    exec(patch)
config = agent.Config(
    vendor="Acme", product_name="Studio", product_id="42", product_version="5.2.5", usage_consent=True,
    state_dir=state_dir, deliver=deliver, start_delay_s=0, request_timeout_s=2, endpoints=(
        agent.GetKeyManager(base_url=url, api_key="demo-api-key", keys=(agent.PublicKey.from_pem(pem),)),
        agent.Reo(base_url=url, api_key="demo-api-key", domain="acme.example")))
t = agent.Agent(config, ("demo-license-key", "a"))
if when == "in the first pass":
    t.call_home()
    while not t._delivery._inside:
        pass
if when in ("after the start", "in the first pass"):
    exec(patch)
import json, os, posix, threading, time
gaps, reports, over = [0.0], [], []
def tick():
    last = time.monotonic()
    while not over:
        time.sleep(0.005)
        now = time.monotonic()
        gaps.append(now - last)
        last = now
def work(n):
    for i in range(int(flushes)):
        t.record_text("%d-%d" % (n, i), data_group="g"); t.track("EXPORT"); t.count("RENDER")
        reports.append(t.flush(float(flush_s)).pending)
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


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path / "state", FakeClock(time.time())) as found:
        yield found


def run(
    at: Desk, library: str, when: str, *, deliver: str, flushes: int = 3, flush_s: float = 20
) -> tuple[subprocess.CompletedProcess[str], int, int, float, float]:
    """A product of its own: (how it ended, flushes, pending after the last, longest standstill, exit seconds)."""
    if importlib.util.find_spec(library) is None:
        pytest.skip("%s is not installed" % library)
    key = at.collector.keys[0]["public_key"]
    arguments = [at.collector.url, key, str(at.state_dir), deliver, PATCH[library], when]
    found = subprocess.run(
        [sys.executable, "-c", PRODUCT, *arguments, str(flushes), str(flush_s)],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
        env=child_environ(),
    )
    assert found.returncode == 0, found.stderr
    (done, pending, standstill_s), exit_s = json.loads(found.stdout)
    return found, done, pending, standstill_s, exit_s


@pytest.mark.parametrize("deliver", ["thread", "manual"])
@pytest.mark.parametrize("when", ["before the import", "after the import", "after the start"])
@pytest.mark.parametrize("library", sorted(PATCH))
def test_flushes_from_many_greenlets_beside_the_worker(
    at: Desk, library: str, when: str, deliver: str
) -> None:
    found, flushes, pending, _, _ = run(at, library, when, deliver=deliver)
    assert (found.stderr, flushes, pending) == ("", 9, 0)
    assert len(at.texts()) == len(set(at.texts())) == 9


@pytest.mark.parametrize("when", ["before the import", "after the start"])
@pytest.mark.parametrize("library", sorted(PATCH))
def test_a_silent_server_stops_no_greenlet_and_no_exit(at: Desk, library: str, when: str) -> None:
    at.collector.fault("blackhole")
    found, flushes, pending, standstill_s, exit_s = run(
        at, library, when, deliver="thread", flushes=1, flush_s=2
    )
    assert (found.stderr, flushes) == ("", 3)
    # Each flush waits 2 s; 0.25 s is the exit's promise, the rest a busy machine's.
    assert pending > 0 and standstill_s < 1.5 and exit_s < 0.25 + 1.0
    at.collector.fault(None)
    with at.agent() as product:
        assert product.flush().pending == 0
    assert len(at.texts()) == len(set(at.texts())) == 3


def test_gevent_that_comes_in_the_middle_of_a_pass_does_not_end_delivery(at: Desk) -> None:
    """The thread's name for itself changes under it, and a request may be a greenlet that nobody lets run: it is late.

    What gevent prints about that is the host's affair.
    """
    at.collector.answer_delay_s = 0.2
    run(at, "gevent", "in the first pass", deliver="thread", flushes=1, flush_s=10)
    assert {"0-0", "1-0", "2-0"} <= set(at.texts())
