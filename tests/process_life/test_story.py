"""Debug lines that cost the host more than themselves: handlers that raise, block or record, a stderr that is gone."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from support.agent import ROOT, Desk, FakeClock, desk, pass_
from support.attacks import http_answer
from support.collector import wait_until
from support.keyring import ROOTS
from support.sockets import Server, answers
from test_process_life import PRODUCT, quiet, run
from test_process_life_fork import FORK

import agent
from agent import story

pytestmark = pytest.mark.ends

WATCHED = "import os; os.environ['AGENT_DEBUG'] = '1'\n"
# As AGENT_DEBUG prints it.
LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{3} (\S+)\[(\d+)\] (.*)")


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path / "state", FakeClock(time.time())) as found:
        story._shares.clear()  # what another test told is no reason to leave lines out
        yield found


class Handler(logging.Handler):
    """Keeps the lines, and does what a host's handler does in ``act``."""

    def __init__(self, act: Any = None) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.threads: set[str] = set()
        self.act = act

    def emit(self, record: logging.LogRecord) -> None:
        assert record.levelno == logging.DEBUG
        self.lines.append(record.getMessage())
        self.threads.add(threading.current_thread().name)
        if self.act is not None:
            self.act()


@contextlib.contextmanager
def logged(act: Any = None, level: int = logging.DEBUG) -> Iterator[Handler]:
    """A host that logs what our package tells."""
    logger, handler = logging.getLogger(agent.__name__), Handler(act)
    logger.setLevel(level)
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def printed(stderr: str, name: str = agent.__name__) -> list[str]:
    """The texts of what was printed, which is nothing else."""
    found = [LINE.fullmatch(line) for line in stderr.splitlines()]
    assert all(found), stderr
    assert {match[1] for match in found if match} <= {name}
    return [match[3] for match in found if match]


def told(lines: list[str], *expected: str) -> None:
    """Each of ``expected`` describes one line, in this order; there may be others between them."""
    left = iter(lines)
    for pattern in expected:
        assert any(re.fullmatch(pattern, line) for line in left), (pattern, lines)


DELIVERED = (
    r"recorded licence \w{32} for getkeymanager: disk",
    r"recorded usage \w{32} for reo: disk",
    r"pass begins, waiting: getkeymanager 1, reo 1",
    r"connected to 127\.0\.0\.1:\d+ in \d+ ms: no proxy is set",
    r"getkeymanager: licence \w{32} delivered in \d+ ms",
    r"reo: usage \w{32} delivered in \d+ ms",
    r"pass over in \d+ ms, \d+/s: getkeymanager 1 delivered, reo 1 delivered",
    r"closed",
)


# -- who is told ---------------------------------------------------------------------------------


def test_by_default_nobody_is_told_and_nothing_is_loaded_for_it(at: Desk) -> None:
    for setting in ("", "os.environ['AGENT_DEBUG'] = ''\n", "os.environ['AGENT_DEBUG'] = '0'\n"):
        code = (
            setting
            + "t = agent.Agent(config)\nt.call_home()\nassert 'logging' not in sys.modules\nt.flush(10)"
        )
        quiet(run(at, code, start_delay_s=60)[0])


def test_the_variable_has_it_printed_without_logging(at: Desk) -> None:
    code = "t.call_home()\nassert 'logging' not in sys.modules\nt.flush(10)"
    found, _ = run(at, code, product=WATCHED + PRODUCT, start_delay_s=60)
    assert (found.returncode, found.stdout) == (0, "")
    lines = printed(found.stderr)
    told(lines, *DELIVERED)
    assert lines.count("worker started") == 1 and len(lines) <= 12


def test_a_host_that_logs_at_debug_gets_it_and_stderr_does_not(
    at: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    with logged() as handler, at.agent(environ={"AGENT_DEBUG": "1"}) as product:
        product.call_home()
        product.flush()
    told(handler.lines, *DELIVERED)
    assert capfd.readouterr() == ("", "")


def test_a_host_that_logs_less_gets_nothing_and_stderr_only_where_it_was_asked_for(
    at: Desk, capfd: pytest.CaptureFixture[str]
) -> None:
    for asked in ({}, {"AGENT_DEBUG": "1"}):
        with logged(level=logging.INFO) as handler, at.agent(environ=asked) as product:
            product.call_home()
            product.flush()
        assert handler.lines == []
        lines = printed(capfd.readouterr().err)
        told(lines, *(DELIVERED if asked else ()))
        assert bool(lines) == bool(asked)


def test_a_copy_under_another_name_has_a_logger_of_its_own(at: Desk, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "cli", "collector")
    shutil.copytree(ROOT / "agent", tmp_path / "acme" / "telemetry", ignore=ignored)
    (tmp_path / "acme" / "__init__.py").write_text("")
    product = re.sub("import .*agent\n", "from acme import telemetry as agent\n", PRODUCT)
    code = "t.call_home(); t.flush(10)"
    place = "import sys; sys.path.insert(0, %r)\n" % str(tmp_path)
    found, _ = run(at, code, product=WATCHED + place + product)
    told(printed(found.stderr, "acme.telemetry"), *DELIVERED)
    setup = """
import logging
logging.basicConfig(level=10, format="%(name)s|%(message)s")
for name in ("urllib3", "OURS"):
    logging.getLogger(name).setLevel(30)
""".replace("OURS", agent.__name__)
    found, _ = run(at, code, product=setup + place + product)
    names, texts = zip(*(line.split("|", 1) for line in found.stderr.splitlines()))
    assert set(names) == {"acme.telemetry"}
    told(list(texts), *DELIVERED)


# -- what is told --------------------------------------------------------------------------------


def test_a_server_that_fails_and_what_the_endpoint_waits_for(at: Desk) -> None:
    at.collector.fault("500")
    with logged() as handler, at.agent(only="licence") as product:
        product.call_home()
        product.flush()
        pass_(product)
    told(
        handler.lines,
        r"getkeymanager: licence \w{32} retry in \d+ ms: HTTP 500; the endpoint waits \d+ s",
        r"pass over in \d+ ms, \d+/s: getkeymanager 1 retry",
        r"getkeymanager waits \d+ s: retry: HTTP 500",
    )


def test_a_server_that_is_not_there(at: Desk) -> None:
    at.collector.fault("refuse")
    with logged() as handler, at.agent(only="licence") as product:
        product.call_home()
        product.flush()
    told(handler.lines, r"getkeymanager: licence \w{32} offline in \d+ ms: connection: .*refused.*")
    assert not any(line.startswith("connected") for line in handler.lines)


def test_what_waits_for_something_of_our_own(at: Desk) -> None:
    with logged() as handler, at.agent(only="usage", usage_consent=None) as product:
        product.set_usage_consent(True)
        product.track("EXPORT")
        product.set_usage_consent(None)
        product.flush()
    told(handler.lines, r"pass begins, waiting: reo 1", r"pass over .*: reo waits for consent")


def test_a_keyring_document_taken_or_refused(at: Desk, tmp_path: Path) -> None:
    keys = at.collector.public_keys
    roots = tuple(root.key for root in ROOTS)
    ring = agent.Keyring(keys=keys, version=1, roots=roots, threshold=1, document=b"{}")
    with logged() as handler, at.agent(keys=ring, only="licence") as product:
        product.call_home()
        product.flush()
    told(handler.lines, r"keyring document refused: given document: .+", r"pass begins.*")


def test_a_disk_in_trouble_and_well_again(at: Desk) -> None:
    at.state_dir.write_bytes(b"a file where the directory should be")
    with logged() as handler, at.agent(only="licence") as product:
        product.call_home()
        at.state_dir.unlink()
        product.flush()
    told(
        handler.lines,
        r"trouble with write: .*",
        r"recorded licence \w{32} for getkeymanager: memory",
        r"write: no longer in trouble",
    )


def test_a_server_that_writes_into_the_log(at: Desk) -> None:
    """Its text is one line of bounded length."""
    text = "x\\n2026-01-01 admin logged in\\u001b[2J" + "y" * 5000
    body = b'{"status": "failure", "response_code": 400, "response": "%s"}' % text.encode()
    with Server(answers(http_answer(body))) as server, logged() as handler:
        url = "http://127.0.0.1:%d" % server.port
        reo = agent.Reo(base_url=url, api_key="demo-api-key", domain="acme.example")
        with at.agent(endpoints=(reo,)) as product:
            product.track("EXPORT")
            product.flush()
    told(handler.lines, r"reo: usage \w{32} rejected in \d+ ms: x .*y…")
    assert all(line.isprintable() and len(line) < 600 for line in handler.lines)


def test_many_records_make_a_few_lines(at: Desk) -> None:
    with logged() as handler, at.agent(only="licence", durability="process") as product:
        for n in range(300):
            product.record_value(n, data_group="g")
        product.flush(30)
    assert len(handler.lines) < 40
    told(handler.lines, r"pass begins, waiting: getkeymanager 300")
    told(handler.lines, r"pass over in \d+ ms, \d+/s: getkeymanager 300 delivered")


def test_lines_that_are_left_out_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    story._shares.clear()
    story.watch({"AGENT_DEBUG": "1"})
    try:
        began = time.monotonic()
        for n in range(500):
            story.tell("again %d", n)
        story.tell("another")  # has a share of its own
        wait_until(lambda: time.monotonic() > began + 0.6)  # another one has its share
        story.tell("again %d", 500)
    finally:
        story.watch({})
    lines = printed(capsys.readouterr().err)
    again = [line for line in lines if re.match(r"again \d", line)]
    assert story.BURST <= len(again) <= story.BURST + 2 + story.PER_S * (time.monotonic() - began)
    assert "another" in lines
    left_out = sum(int(n) for n in re.findall(r"again \d+ \((\d+) more like it", "\n".join(again)))
    assert left_out + len(again) == 501


# -- what it costs the host ----------------------------------------------------------------------


class Odd(BaseException):
    """What no ``except Exception`` stops."""


@pytest.mark.parametrize("error", [OSError, SystemExit, RecursionError, Odd])
def test_a_handler_that_raises_costs_its_lines_and_no_record(at: Desk, error: Any) -> None:
    def act() -> None:
        raise error("no")

    with logged(act) as handler:
        with at.agent(deliver="thread") as product:
            product.call_home()
            assert product.flush(20).drained
            assert product.status()["trouble"] == {}
    assert handler.lines and at.seen() == 2


def test_ctrl_c_in_a_handler_is_the_users(at: Desk) -> None:
    def act() -> None:
        raise KeyboardInterrupt

    with at.agent(only="licence") as product:
        product.call_home()
        with logged(act), pytest.raises(KeyboardInterrupt):
            pass_(product)
        assert product.flush().delivered == 1


def test_handlers_run_on_the_delivering_thread_alone(at: Desk) -> None:
    with logged() as handler, at.agent(deliver="thread") as product:
        others = [threading.Thread(target=product.call_home, name="host's") for _ in range(3)]
        for thread in others:
            thread.start()
        for thread in others:
            thread.join()
        assert product.flush(20).drained
        assert handler.threads == {"telemetry"}
    assert "recorded licence" in " ".join(handler.lines)


def test_a_handler_that_blocks_holds_up_no_recording_and_no_exit(at: Desk) -> None:
    inside, done = threading.Event(), threading.Event()

    def act() -> None:
        inside.set()
        done.wait(30)

    try:
        with logged(act):
            product = agent.Agent(at.config(deliver="thread"), environ={})
            product.call_home()
            assert inside.wait(20)
            began = time.monotonic()
            assert product.call_home() and product.track("EXPORT")
            product.close(0.2)
            assert time.monotonic() - began < 10
    finally:
        done.set()
        wait_until(lambda: not product._engine.worker.running)
    with at.agent() as later:
        assert later.flush().pending == 0


def test_a_handler_that_records_and_delivers_comes_to_an_end(at: Desk) -> None:
    """An error reporter that calls home at each line of the log."""
    made: list[Optional[str]] = []

    def act() -> None:
        if len(made) < 200:
            made.append(product.record_text("from the handler", data_group="log"))
            product.flush(1)

    with logged(act) as handler, at.agent(only="licence") as product:
        product.call_home()
        product.flush()
        assert 0 < len(made) < 50 and all(made)
        assert len(handler.lines) == len(made)
        handler.act = None
        product.flush()
        assert product.status()["pending"] == 0
    assert at.texts().count("from the handler") == len(made)


def test_a_handler_with_an_agent_of_its_own_is_not_called_for_that(
    at: Desk, tmp_path: Path
) -> None:
    depth = [0]

    def act() -> None:
        depth.append(depth[-1] + 1)
        if depth[-1] < 5:
            with at.agent(only="licence", state_dir=tmp_path / "reports") as reporter:
                reporter.record_text("a report", data_group="log")
                reporter.flush()
        depth.append(depth[-1] - 1)

    with logged(act), at.agent(only="licence") as product:
        product.call_home()
        product.flush()
    assert max(depth) == 1 and len(depth) > 3
    assert at.texts().count("a report") == depth.count(1)


STDERRS = {
    "none": "sys.stderr = None",
    "closed": "sys.stderr.close()",
    "its descriptor closed": "os.close(2)",
    "another, broken": "sys.stderr = type('Broken', (), {'write': lambda self, text: 1 / 0})()",
    "no stream at all": "sys.stderr = 5",
    "another, which ends the program": (
        "sys.stderr = type('Exit', (), {'write': lambda self, text: sys.exit(3)})()"
    ),
}


@pytest.mark.parametrize("how", STDERRS)
def test_a_stderr_that_is_gone(at: Desk, how: str) -> None:
    code = STDERRS[how] + """
t.call_home()
assert t.flush(20).drained
assert t.status()["trouble"] == {}, t.status()
print("fine", file=sys.__stdout__)
t.close()
sys.stderr = sys.__stderr__  # else the interpreter itself fails to flush it
"""
    found, _ = run(at, code, product=WATCHED + PRODUCT, start_delay_s=0)
    assert (found.returncode, found.stdout, found.stderr) == (0, "fine\n", "")


def test_what_cannot_be_encoded_is_printed_all_the_same() -> None:
    story._shares.clear()
    story.watch({"AGENT_DEBUG": "1"})
    try:
        stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        with contextlib.redirect_stderr(stream):
            story.tell("the path %s", "/srv/é/\ud800")
        data = stream.buffer.getvalue()  # type: ignore[attr-defined]
    finally:
        story.watch({})
    assert b"the path /srv/\\xe9/ " in data


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_another_thread_is_in_a_handler(at: Desk) -> None:
    """The child has no copy of the thread that would give the handler's lock back."""
    code = """
import logging
inside, done = threading.Event(), threading.Event()
class Handler(logging.StreamHandler):
    def emit(self, record):
        super().emit(record)
        if record.getMessage() == "hold":
            inside.set()
            done.wait(20)
logging.getLogger(agent.__name__).setLevel(logging.DEBUG)
for name in (agent.__name__, "host"):
    logging.getLogger(name).addHandler(handler := globals().setdefault("h", Handler(sys.stdout)))
t.call_home()
assert t.flush(10).pending == 0
idle()
story_lines = "noted by the parent"
from agent import story
holder = threading.Thread(target=logging.getLogger("host").warning, args=("hold",))
holder.start()
inside.wait(10)
story.note(story_lines)
def work():
    print("in the child", flush=True)
    assert t.call_home()
    assert t.flush(10).pending == 0
    t.close(5)
    sys.stdout.flush()
sys.stdout.flush()
pid = fork(work)
join(pid)
done.set()
holder.join(10)
t.close()
"""
    found, _ = run(at, FORK + code, options=("-W", "ignore::DeprecationWarning"), start_delay_s=0)
    assert (found.returncode, found.stderr) == (0, "")
    lines = found.stdout.splitlines()
    child = lines[lines.index("in the child") + 1 :]
    told(child, *DELIVERED)
    assert lines.count("noted by the parent") == 1 and at.seen() == 4
    assert "noted by the parent" not in child[: child.index("closed")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_handler_that_forks(at: Desk) -> None:
    """The child is in the middle of a handler, and its own lines come out all the same."""
    code = """
import logging
class Handler(logging.Handler):
    def emit(self, record):
        if not children:
            children.append(0)
            children[0] = fork(lambda: None)
children = []
logging.getLogger(agent.__name__).setLevel(logging.DEBUG)
logging.getLogger(agent.__name__).addHandler(Handler())
t.call_home()
assert t.flush(10).pending == 0
join(children[0])
"""
    found, _ = run(at, FORK + code, options=("-W", "ignore::DeprecationWarning"), start_delay_s=60)
    quiet(found)
    assert at.seen() == 2
