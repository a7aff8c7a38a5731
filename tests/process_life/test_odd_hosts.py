"""Hosts that do odd things to their own process: nothing raises into them, is printed into them, or ends them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support.agent import ROOT, Desk
from support.product import PRODUCT, quiet

import agent

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")

DELIVERS = "assert t.flush(10.0).drained"
# What the host does before it imports us, and after the first record; how many records then arrive.
HOSTS = {
    "a fork that C code makes": (
        "import ctypes\n",
        """
child = ctypes.PyDLL(None).fork()
if child == 0:
    assert t.call_home() and t.flush(10.0).drained
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
""" + DELIVERS,
        2,
    ),
    "an updater that takes our files away": (
        "import sys; sys.path.insert(0, %r)\n",
        """
import shutil
assert agent.__file__.startswith(sys.path[0])
shutil.rmtree(os.path.dirname(agent.__file__))  # a copy
assert t.status()["trouble"]
assert t.flush(10.0).pending == 2
""",
        0,
    ),
    "an audit hook that forbids sockets": (
        """
import sys
def hook(event, args):
    if event == "socket.connect": raise RuntimeError("no sockets here")
sys.addaudithook(hook)
""",
        "assert t.flush(10.0).pending == 2",
        0,
    ),
    "an os without geteuid": ("import os; del os.geteuid, os.getuid\n", DELIVERS, 1),
    "a frozen clock": (
        "import time; time.time = time.monotonic = time.perf_counter = lambda: %r\n",
        DELIVERS,
        1,
    ),
}


@pytest.mark.parametrize("host", HOSTS)
def test_an_odd_host_goes_on_and_so_do_we(at: Desk, tmp_path: Path, host: str) -> None:
    before, after, arrive = HOSTS[host]
    if "updater" in host:
        top = agent.__name__.partition(".")[0]
        shutil.copytree(ROOT / top, tmp_path / top, ignore=shutil.ignore_patterns("__pycache__"))
        before %= str(tmp_path)
    elif "clock" in host:
        before %= at.clock.at
    code = "assert t.call_home()\n" + after
    quiet(at, code, product=before + PRODUCT, start_delay_s=0, deliver="manual")
    assert at.texts() == ["CALL HOME"] * arrive


def test_a_signal_that_the_host_waits_for_reaches_no_thread_of_ours(at: Desk) -> None:
    at.collector.fault("blackhole")
    code = """
t.call_home()
time.sleep(0.3)  # a request is under way, on a thread of its own
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
os.kill(os.getpid(), signal.SIGUSR1)
assert signal.sigwait({signal.SIGUSR1}) == signal.SIGUSR1
"""
    quiet(at, code, start_delay_s=0)


@pytest.mark.parametrize("vendor", ["Äcme", "\U0001f3a8" * 64, "a" * 300, "../..", "CON"])
def test_a_vendor_of_any_name_in_the_c_locale_is_served(
    at: Desk, tmp_path: Path, vendor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "states"
    told = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for name, value in {**told, "HOME": str(tmp_path), "XDG_STATE_HOME": str(place)}.items():
        monkeypatch.setenv(name, value)
    code = "t = agent.Agent(config.replace(vendor=%a, state_dir=None))\nt.call_home()\n" % vendor
    quiet(at, code + DELIVERS, start_delay_s=0, deliver="manual")
    assert at.texts() == ["CALL HOME"]
    for book in place.rglob("agent.book"):  # none where the name cannot be encoded: memory
        parts = book.relative_to(place).parts
        # eCryptfs takes names of 143 bytes.
        assert len(parts) == 4 and all(len(os.fsencode(part)) <= 143 for part in parts)
