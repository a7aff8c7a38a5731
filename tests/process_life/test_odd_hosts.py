"""Hosts that do odd things to their own process: nothing raises into them, is printed into them, or ends them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.agent import ROOT

from agent.collector import Collector

PRODUCT = """
import os, signal, sys, time
{before}
import agent
assert os.path.samefile(os.path.dirname(os.path.dirname(agent.__file__)), {at!r})
server = agent.GetKeyManager(base_url={url!r}, api_key="demo-api-key", allow_unsigned=True)
config = agent.Config(vendor={vendor!a}, product_name="Studio", product_id="42", product_version="5.2.5",
                      endpoints=(server,), start_delay_s=0, deliver={deliver!r})
telemetry = agent.Agent(config)
recorded = telemetry.call_home()
{after}
"""
DELIVERS = "assert recorded and telemetry.flush(10.0).drained"
# What the host does before it imports us, and after the first record; how many records then arrive.
HOSTS = {
    "a fork that C code makes": (
        "import ctypes",
        """
child = ctypes.PyDLL(None).fork()
if child == 0:
    assert telemetry.call_home() and telemetry.flush(10.0).drained
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
""" + DELIVERS,
        2,
    ),
    "an updater that takes our files away": (
        "",
        """
import shutil
shutil.rmtree(os.path.dirname(agent.__file__))  # a copy, as was made sure of above
assert recorded and telemetry.status()["trouble"]
assert telemetry.flush(10.0).pending == 1
""",
        0,
    ),
    "an audit hook that forbids sockets": (
        """
def hook(event, args):
    if event == "socket.connect": raise RuntimeError("no sockets here")
sys.addaudithook(hook)
""",
        "assert recorded and telemetry.flush(10.0).pending == 1",
        0,
    ),
    "an os without geteuid": ("del os.geteuid, os.getuid", DELIVERS, 1),
    "a frozen clock": (
        "time.time = time.monotonic = time.perf_counter = lambda: 1760000000.0",
        DELIVERS,
        1,
    ),
}
posix = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")


def run(server: Collector, at: Path, before: str, after: str, **given: str) -> None:
    """A product in a process of its own, with a copy of the package that it may do anything to."""
    given = {"vendor": "Acme", "deliver": "manual", **given}
    shutil.copytree(ROOT / "agent", at / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    code = PRODUCT.format(at=str(at), url=server.url, before=before, after=after, **given)
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    home = {"HOME": str(at), "XDG_STATE_HOME": str(at / "state"), "PYTHONPATH": str(at)}
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        env={**os.environ, **locale, **home},
        cwd=at,  # Python looks there first: not a test may find, or take away, the package itself
        capture_output=True,
        timeout=40,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@posix
@pytest.mark.parametrize("host", HOSTS)
def test_an_odd_host_goes_on_and_so_do_we(tmp_path: Path, host: str) -> None:
    before, after, arrive = HOSTS[host]
    with Collector() as server:
        run(server, tmp_path, before, after)
        assert len(server.records()) == arrive


@posix
def test_a_signal_that_the_host_waits_for_reaches_no_thread_of_ours(tmp_path: Path) -> None:
    with Collector(fault="blackhole") as server:
        wait = """
time.sleep(0.3)  # a request is under way, on a thread of its own
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
os.kill(os.getpid(), signal.SIGUSR1)
assert signal.sigwait({signal.SIGUSR1}) == signal.SIGUSR1
"""
        run(server, tmp_path, "", wait, deliver="thread")


@posix
@pytest.mark.parametrize("vendor", ["Äcme", "\U0001f3a8" * 64, "a" * 300, "../..", "CON"])
def test_a_vendor_of_any_name_in_the_c_locale_is_served(tmp_path: Path, vendor: str) -> None:
    with Collector() as server:
        run(server, tmp_path, "", "assert telemetry.flush(10.0).drained", vendor=vendor)
        assert len(server.records()) == 1
    for book in (tmp_path / "state").rglob(
        "agent.book"
    ):  # none where the name cannot be encoded: memory
        parts = book.relative_to(tmp_path / "state").parts
        # eCryptfs takes names of 143 bytes.
        assert len(parts) == 4 and all(len(os.fsencode(part)) <= 143 for part in parts)
