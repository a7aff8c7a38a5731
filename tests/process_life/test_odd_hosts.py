"""Hosts that do odd things to their own process: nothing raises into them, is printed into them, or ends them."""

import os
import shutil
from pathlib import Path

import pytest
from support.agent import ROOT, Desk
from support.product import PRODUCT, quiet, says

import agent

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")

MADE = PRODUCT.rpartition("t = ")[0] + "Agent = agent.Agent\n"
# Everything that a product may call.
CALLS = """
t = Agent(config, ('key', 'a'))
t.call_home(), t.track("EXPORT"), t.count("RENDER"), t.record_value(1, data_group="g")
assert t.flush(10.0).dead == 0, t.history()
t.history(), t.user_identifier
t.status()["trouble"], t.preview(samples=True), t.diagnostics(), t.preview()
t.set_usage_consent(False), t.set_usage_consent(True), t.close()
"""
# What the host does, before it imports us and after.
HOSTS = {
    "a fork that C code makes": """
import ctypes
PRODUCT
child = ctypes.PyDLL(None).fork()
if child == 0:
    assert t.call_home() and t.flush(10.0).drained
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
""",
    "an os without geteuid": "import os; del os.geteuid, os.getuid\nPRODUCT",
    "a frozen clock": "import time; time.time = time.monotonic = time.perf_counter = lambda: NOW\nPRODUCT",
    "AppArmor without k": """
import fcntl
def flock(fd, how): raise PermissionError(13, "Permission denied")
fcntl.flock = flock
PRODUCT
assert all([t.record_text("x", data_group="g") for _ in range(29)])
assert len(os.listdir(state_dir)) < 9
""",
    "a limit of file sizes whose signal is at its default": """
PRODUCT
import resource
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
assert t.call_home() is None and "size" in t.status()["trouble"]["spool"]
""",
    "documents under our numbers": """
PRODUCT
t.count("RENDER")
os.closerange(3, 256)
theirs = [open(state_dir + str(n), "w+b", buffering=0) for n in range(16)]
assert t.call_home() and t.track("EXPORT") and t.flush(10.0).drained
t.close()
assert [f.write(b"!") + f.seek(0) + len(f.read()) for f in theirs] == [2] * 16
""",
    "no standard streams": """
import os, sys
os.closerange(0, 3)
low = set()
def hook(event, args):
    if event == "http.client.send": low.update(n for n in "012" if os.path.exists("/dev/fd/" + n))
sys.addaudithook(hook)
PRODUCT
assert t.flush(10.0).drained and not low
""",
}


@pytest.mark.parametrize("host", HOSTS)
def test_an_odd_host_goes_on_and_so_do_we(at: Desk, host: str) -> None:
    code = HOSTS[host].replace("PRODUCT", PRODUCT + "assert t.call_home()")
    code = code.replace("NOW", str(at.clock.at)) + "\nassert t.flush(10.0).drained"
    quiet(at, code, product="", start_delay_s=0, deliver="manual")
    assert at.texts().count("CALL HOME") == code.count("t.call_home()")


@pytest.mark.parametrize("event", "open os.listdir os.chmod os.link fcntl.flock import".split())
def test_whatever_a_hook_of_the_hosts_raises_is_weather(at: Desk, event: str) -> None:
    hook = """
def hook(event, args):
    if event == %r: raise RuntimeError("not here")
sys.addaudithook(hook)
"""
    at.state_dir.mkdir()
    at.state_dir.chmod(0o770)
    code = (
        hook % event + CALLS + "print(json.dumps(t.record_text('x', data_group='g') is not None))"
    )
    kept = says(at, code.replace(", t.close()", ""), product=MADE, deliver="manual")
    assert kept == (event not in ("open", "os.listdir", "os.chmod"))


@pytest.mark.parametrize("made", ["None", "text[:len(text) // 2] + '(('", "'import not_yet'", "''"])
def test_an_updater_that_changes_our_files_ends_nothing(
    at: Desk, tmp_path: Path, made: str
) -> None:
    """They are gone, half written, newer, empty; what is asked for and cannot be had is named in ``trouble``."""
    top = agent.__name__.partition(".")[0]
    shutil.copytree(ROOT / top, tmp_path / top, ignore=shutil.ignore_patterns("__pycache__"))
    update = """
for path in pathlib.Path(agent.__file__).parent.rglob("*.py"):
    text = path.read_text()
    found = %s
    path.write_text(found) if found is not None else path.unlink()
""" % made
    code = update + CALLS + """
t = Agent(config, ("demo-license-key", "a"))
assert t.call_home() and t.flush(10.0).pending == 4
assert t.status()["trouble"] and t.diagnostics()["trouble"] and t.preview() == []
for call in (t.export_spool, t.import_spool, lambda path: agent.erase(config)):
    with contextlib.suppress(agent.ConfigError):
        sys.exit("not told: %r" % call(state_dir + ".export"))
"""
    before = "import contextlib, pathlib, sys; sys.path.insert(0, %r)\n" % str(tmp_path)
    quiet(at, code, product=before + MADE, start_delay_s=0, deliver="manual")


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


@pytest.mark.parametrize("fault", ["blackhole", "drip-body"])
def test_a_document_under_the_number_of_our_connection_stays_the_hosts(
    at: Desk, fault: str
) -> None:
    """The request is under way; it ends by its time, by a refusal of consent and by the end of the agent."""
    at.collector.fault(fault)
    code = """
t.call_home()
while "answer" not in [one.stage for one in getattr(t._delivery.transport, "_lines", {}).values()]:
    time.sleep(0.001)
os.closerange(3, 256)
theirs = [open(state_dir + str(n), "w+b", buffering=0) for n in range(16)]
t.flush(1.0), t.close()
while len(os.listdir("/proc/self/task")) > 1:
    time.sleep(0.001)
assert [f.write(b"!") + f.seek(0) + len(f.read()) for f in theirs] == [2] * 16
"""
    quiet(at, code, start_delay_s=0, request_timeout_s=0.5)


@pytest.mark.parametrize("vendor", ["Äcme", "\U0001f3a8" * 64, "a" * 300, "../..", "CON"])
def test_a_vendor_of_any_name_in_the_c_locale_is_served(
    at: Desk, tmp_path: Path, vendor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "states"
    told = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for name, value in {**told, "HOME": str(tmp_path), "XDG_STATE_HOME": str(place)}.items():
        monkeypatch.setenv(name, value)
    code = """
t = agent.Agent(config.replace(vendor=%a, state_dir=None))
assert t.call_home() or "encoded" in t.status()["trouble"]["spool"]
assert t.flush(10.0).drained
""" % vendor
    quiet(at, code, start_delay_s=0, deliver="manual")
    assert at.texts() == ["CALL HOME"]
    for book in place.rglob("agent.book"):  # none where the name cannot be encoded: memory
        parts = book.relative_to(place).parts
        # eCryptfs takes names of 143 bytes.
        assert len(parts) == 4 and all(len(os.fsencode(part)) <= 143 for part in parts)
