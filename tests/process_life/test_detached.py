"""``deliver="detached"``: what programs that live for an instant leave to a process of their own."""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agent import ROOT, Desk, run_python
from support.collector import wait_until
from support.keyring import ring
from support.product import PRODUCT, quiet

import agent
from agent.clock import Clock
from agent.extras import detached
from agent.transport import HttpTransport

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="looks into /proc")
MARK = "AGENT_TEST_MARK"


@pytest.fixture(autouse=True)
def marked(at: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What these processes and their children have in the environment, and no other; none is left."""
    monkeypatch.setenv(MARK, str(tmp_path))
    yield
    wait_until(lambda: not living(tmp_path))


def living(mark: Path) -> list[Path]:
    """The processes of one test, by /proc; zombies have no environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if ("%s=%s" % (MARK, mark)).encode() in (place / "environ").read_bytes():
                found.append(place)
        except OSError:
            pass  # gone, or another user's
    return found


def is_zombie(processes: set[int]) -> bool:
    (process,) = processes
    return Path("/proc/%d/stat" % process).read_text().rpartition(")")[2].split()[0] == "Z"


def handles(process: Path) -> dict[str, str]:
    """Descriptor -> what it is."""
    found = {}
    try:
        for entry in (process / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                found[entry.name] = os.readlink(entry)
    except OSError:
        pass  # it ended
    return found


def ended(at: Desk, code: str, **settings: Any) -> None:
    """A product that ended well and quietly."""
    quiet(at, code, deliver="detached", **settings)


@pytest.mark.parametrize("ends", ["", "t.close()", "time.sleep(0.2)"])
def test_a_program_that_ends_before_a_server_can_answer(at: Desk, ends: str) -> None:
    ended(at, "t.call_home(); t.count('RENDER', 3);" + ends)
    wait_until(lambda: at.seen() == 3)
    with at.agent(clock=Clock()) as later:
        wait_until(lambda: later.status()["pending"] == 0)
        wait_until(lambda: len(later.history()) == 3)
        assert {one["verdict"] for one in later.history()} == {"delivered"}
    assert at.sums() == {"RENDER": 3}


def test_a_server_that_asks_for_rest_is_not_asked_by_a_process_for_each_run(at: Desk) -> None:
    at.collector.fault("500")
    ended(at, "t.call_home()")
    wait_until(lambda: at.seen() == 2)
    wait_until(lambda: not living(Path(os.environ[MARK])))
    for code in ("t.call_home()", "t.call_home(); time.sleep(0.1)", "t.call_home(); t.close()"):
        ended(at, code)
        assert not living(Path(os.environ[MARK])) and at.seen() == 2


def test_neither_key_is_in_an_argument_an_environment_or_a_file_and_no_handle_is_inherited(
    at: Desk, tmp_path: Path
) -> None:
    at.collector.fault("blackhole")
    planted = tmp_path / "handle"
    opens = "os.set_inheritable(os.open(%r, os.O_CREAT | os.O_RDWR), True)" % str(planted)
    began = time.monotonic()
    ended(at, "t.call_home(); " + opens)
    assert time.monotonic() - began < 5  # the pipes of this test are not held open either

    def delivers() -> bool:
        """One that has parted from its starter, and so holds the lock."""
        found = living(tmp_path)
        return len(found) == 1 and "socket:" in str(handles(found[0]))

    wait_until(delivers)
    (child,) = living(tmp_path)
    told = (child / "cmdline").read_bytes() + (child / "environ").read_bytes()
    assert b"demo-api-key" not in told and b"demo-license-key" not in told
    for path in at.state_dir.iterdir():
        assert b"demo-api-key" not in path.read_bytes()
    opened = handles(child)
    assert str(planted) not in opened.values()
    assert [opened[n] for n in "012"] == [os.devnull] * 3
    pid = int(child.name)
    assert os.getsid(pid) not in (pid, os.getsid(0)) and os.getpriority(os.PRIO_PROCESS, pid) >= 10
    # One at a time: who comes now finds it at work.
    ended(at, "t.call_home(); time.sleep(0.2)")
    ended(at, "t.call_home()")
    assert living(tmp_path) == [child]
    os.kill(pid, 9)
    at.collector.fault(None)
    ended(at, "t.call_home()")
    wait_until(lambda: at.seen() >= 8)


# A product whose name begins so.
PAD = (
    "sys.executable = os.environ[%r] + '/pythonpad'; os.symlink('/bin/true', sys.executable)" % MARK
)
FAILS = (sys.executable, "-c", "import sys; sys.exit(3)")
CALLABLE = """
asks = agent.Reo(base_url=url, api_key="demo-api-key", domain=lambda: "acme.example")
config = config.replace(endpoints=(config.endpoints[0], asks))"""


@pytest.mark.parametrize(
    "how, command, why",
    [
        ("sys.frozen = True", (), "no Python interpreter"),
        ("sys.executable = '/usr/bin/studio'", (), "no Python interpreter"),
        (PAD, (), "no Python interpreter"),
        ("", ("/nonexistent/helper",), "start a process"),
        ("", FAILS, "start a process"),
        (CALLABLE, (), "callable"),
    ],
)
def test_where_no_process_can_be_had_the_thread_delivers(
    at: Desk, tmp_path: Path, how: str, command: tuple[str, ...], why: str
) -> None:
    """A frozen product never starts itself, and nothing of the product's own code can be told to another process."""
    code = """
%s
t = agent.Agent(config, "demo-license-key")
t.call_home()
ends = time.monotonic() + 20
while t.status()["pending"] and time.monotonic() < ends:
    time.sleep(0.01)
assert %r in t.status()["trouble"]["spool"], t.status()["trouble"]
"""
    ended(at, code % (how, why), detached_command=command, start_delay_s=0)
    assert at.seen() == 2 and living(tmp_path) == []


def test_a_process_that_does_not_read_ends_no_host_that_leaves_sigpipe_at_its_default(
    at: Desk,
) -> None:
    code = """
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
sys.path.append("/" + "x" * 200_000)  # more than a pipe holds
assert t.call_home()
t.close()
"""
    ended(at, code, detached_command=("/bin/false",), exit_timeout_s=10)
    assert at.seen() == 0


def test_a_host_that_is_pid_1_or_a_subreaper_keeps_no_zombie(at: Desk) -> None:
    """Nor does a signal that ends the user's session go past what a thread without signals has started."""
    at.collector.fault("blackhole")
    code = """
import ctypes
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
children = lambda: open("/proc/self/task/%d/children" % os.getpid()).read().split()
t.call_home()
while not t._worker.detached._others_deliver():
    time.sleep(0.01)
for pid in children():
    os.kill(int(pid), signal.SIGTERM)
while children():
    time.sleep(0.01)
assert t.status()["trouble"] == {} and not t.status()["endpoints"][0]["failures"]
"""
    ended(at, code, start_delay_s=0)


def test_a_bare_command_does_not_begin_in_the_directory_of_a_document(
    at: Desk, tmp_path: Path
) -> None:
    words = ("sh", "-c", "cat > /dev/null; pwd -P > %s" % (tmp_path / "where"))
    ended(at, "os.chdir('/'); t.call_home()", detached_command=words, exit_timeout_s=10)
    wait_until(lambda: (tmp_path / "where").exists() and (tmp_path / "where").read_text())
    assert (tmp_path / "where").read_text().strip() == os.path.realpath(at.state_dir)


ONE_FILE = """\
test "$PYINSTALLER_RESET_ENVIRONMENT" = 1 || exit 3
cp -r "$1" "$2"
"$3" -c '
import sys
sys.path.insert(0, sys.argv[1]); sys._MEIPASS = sys.argv[1]; sys.dont_write_bytecode = True
import agent
sys.exit(agent.deliver_detached())' "$2"
rm -rf "$2"
"""


def test_a_program_in_one_file_that_takes_its_files_away_at_its_end(
    at: Desk, tmp_path: Path
) -> None:
    unpacked = tmp_path / "_MEI123456"
    unpacked.mkdir()
    package = ROOT / agent.__name__.split(".")[0]
    words = [ONE_FILE, "sh", str(package), str(unpacked), sys.executable]
    code = """
sys.frozen, sys._MEIPASS = True, "/nonexistent/_MEI000001"
t = agent.Agent(config, "demo-license-key")
t.call_home()
"""
    ended(at, code, detached_command=("/bin/sh", "-c", *words))
    wait_until(lambda: at.seen() == 2)
    wait_until(lambda: not unpacked.exists())


def test_a_product_under_packages_that_must_not_run_again(at: Desk, tmp_path: Path) -> None:
    vendored = tmp_path / "tree" / "studio" / "_vendor"
    vendored.mkdir(parents=True)
    (vendored / "__init__.py").write_text("")
    (vendored.parent / "__init__.py").write_text("open(%r, 'a').write('x')" % str(tmp_path / "ran"))
    (vendored / "telemetry").symlink_to(ROOT / "agent")
    code = """
sys.path.insert(0, %r)
from studio._vendor import telemetry
agent = telemetry
""" % str(tmp_path / "tree")
    code += PRODUCT.replace("import agent\n", "") + "t.call_home()"
    ended(at, code)
    wait_until(lambda: at.seen() == 2)
    assert (tmp_path / "ran").read_text() == "x"


SETTINGS = {"vendor": "A", "product_name": "B", "product_id": "1", "product_version": "1"}
STRANGE: list[tuple[Any, Any]] = [
    ({"Config": SETTINGS}, {"PATH": 7}),
    ({"Config": {**SETTINGS, "vendor": {"dns_domain": {}}}}, None),
    ({"system": {"command": "exit 3"}}, None),
]


@pytest.mark.parametrize("message", ["", *STRANGE])
def test_what_a_stranger_writes_into_the_pipe_runs_nothing(message: Any) -> None:
    """More of it: ``python -m tests.fuzz message``."""
    message = message and json.dumps(dict(zip(("config", "environ"), message)))
    code = "import sys; import agent; sys.exit(agent.deliver_detached())"
    found = run_python(code, input=message)
    assert (found.returncode, found.stdout, found.stderr) == (2, "", "")


def test_every_configuration_arrives_as_it_was(at: Desk, tmp_path: Path) -> None:
    ca_bundle = tmp_path / "\udce9 é"
    whole = at.config(
        keys=ring(at), domain=agent.dns_domain, proxy="http://u:p@127.0.0.1:1", ca_bundle=ca_bundle
    )
    for config in (whole, at.config(keys=()), at.config(only="usage", usage_consent=lambda: True)):
        told = json.loads(detached.message(config, {"A": "b"}, config.usage_consent))
        assert detached.made(told["config"]) == config.replace(
            usage_consent=True, deliver="manual", start_delay_s=0
        )
        assert told["path"] and all(os.path.isabs(place) for place in told["path"])


def test_windows_gives_it_no_console_and_a_low_priority() -> None:
    assert detached.options("nt") == {"creationflags": 0x08004200}
    assert detached.options("posix") == {"start_new_session": True}


def test_a_product_in_a_directory_that_is_gone(at: Desk) -> None:
    ended(at, "import tempfile; os.chdir(tempfile.mkdtemp()); os.rmdir(os.getcwd()); t.call_home()")
    wait_until(lambda: at.seen() == 2)


def test_a_command_that_reads_nothing_holds_up_no_exit() -> None:
    reading, writing = os.pipe()
    try:
        detached.tell(writing, b"short", 0.1)
        with pytest.raises(TimeoutError):
            detached.tell(writing, b"x" * (4 << 20), 0.1)
    finally:
        os.close(reading)
        os.close(writing)


def test_what_is_longer_than_a_pipe_arrives(at: Desk) -> None:
    code = "agent.Agent(config, 'k', environ={**os.environ, 'LONG': 'x' * 300000}).call_home()"
    ended(at, code, exit_timeout_s=10)  # it ends once the message is told, however busy the machine
    wait_until(lambda: at.seen() == 2)


def test_a_product_that_closes_one_agent_after_another_keeps_no_zombies(
    at: Desk, tmp_path: Path
) -> None:
    for _ in range(3):
        config = at.config(deliver="detached", start_delay_s=60)
        with agent.Agent(config, "demo-license-key") as product:
            product.call_home()
            starter = product._worker.detached
            assert starter is not None
            starter.last()  # as if no thread had come so far
            assert len(detached.unwaited) == 1  # the one before was reaped
            wait_until(lambda: is_zombie(detached.unwaited))
            wait_until(lambda: not living(tmp_path))  # else the next finds it delivering
    detached.reap()
    assert not detached.unwaited


@pytest.mark.parametrize("request_number", [1, 2])
def test_what_is_recorded_while_another_is_sent_is_sent_too(at: Desk, request_number: int) -> None:
    """Whoever recorded it found the lock held, started nobody, and may be gone."""

    class Wire(HttpTransport):
        sent = 0

        def send(self, request: Any, *, timeout_s: float) -> Any:
            self.sent += 1
            if self.sent == request_number:
                recording = threading.Thread(target=record)
                recording.start()
                recording.join()
            return super().send(request, timeout_s=timeout_s)

    def record() -> None:
        with at.agent() as other:
            assert other.call_home()

    with at.agent() as first:
        first.call_home()
        with at.agent(transport=Wire(environ={})) as sender:
            detached.deliver(sender)
        assert (first.status()["pending"], at.seen()) == (0, 4)
