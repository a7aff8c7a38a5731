"""Debug lines: who is told, and what they cost: handlers that raise, block or record, a stderr that is gone."""

import contextlib
import logging
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from support.agent import ROOT, Desk
from support.collector import wait_until
from support.product import PRODUCT, arrived, quiet, run

import agent

WATCHED = "import os; os.environ['AGENT_DEBUG'] = '1'\n"
# As AGENT_DEBUG prints it.
LINE = re.compile(r"\d\d:\d\d:\d\d (\S+)\[(\d+)\] (.*)")
DELIVERED = (r"getkeymanager: \w{32} .*delivered.*", r"pass over: .*")


class Handler(logging.Handler):
    """Keeps the lines, and does what a host's handler does in ``act``."""

    def __init__(self, act: Any = None) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.threads: set[int] = set()
        self.act = act

    def emit(self, record: logging.LogRecord) -> None:
        assert record.levelno == logging.DEBUG
        self.lines.append(record.getMessage())
        self.threads.add(threading.get_ident())
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


# -- who is told ---------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", ["", "os.environ['AGENT_DEBUG'] = '0'\n"])
def test_by_default_nobody_is_told_and_nothing_is_loaded_for_it(at: Desk, setting: str) -> None:
    code = setting + "t.call_home()\nassert 'logging' not in sys.modules\nt.flush(10)"
    quiet(at, code, start_delay_s=60)


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
@pytest.mark.parametrize("asked", ["", "1"])
def test_a_host_that_logs_at_debug_gets_it_and_stderr_does_not(
    at: Desk,
    level: int,
    asked: str,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENT_DEBUG", asked)
    with logged(level=level) as handler, at.agent() as product:
        product.call_home()
        product.flush()
    lines = printed(capfd.readouterr().err)
    told(handler.lines, *(DELIVERED if level == logging.DEBUG else ()))
    told(lines, *(DELIVERED if asked and level != logging.DEBUG else ()))
    assert bool(handler.lines) == (level == logging.DEBUG)
    assert bool(lines) == (bool(asked) and not handler.lines)


def test_the_variable_has_it_printed_without_logging_under_the_copy_s_own_name(
    at: Desk, tmp_path: Path
) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "cli", "collector")
    shutil.copytree(ROOT / "agent", tmp_path / "acme" / "telemetry", ignore=ignored)
    (tmp_path / "acme" / "__init__.py").write_text("")
    place = "import sys; sys.path.insert(0, %r)\n" % str(tmp_path)
    product = re.sub("import .*agent\n", "from acme import telemetry as agent\n", PRODUCT)
    code = "t.call_home()\nassert 'logging' not in sys.modules\nt.flush(10)"
    out, err, _ = run(at, code, product=WATCHED + place + product, start_delay_s=60)
    assert out == ""
    told(printed(err, "acme.telemetry"), *DELIVERED)


# -- what it costs the host ----------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError, SystemExit, RecursionError])
def test_a_handler_that_raises_costs_its_lines_and_no_record(at: Desk, error: Any) -> None:
    def act() -> None:
        raise error("no")

    with logged(act) as handler:
        with at.agent(deliver="thread") as product:
            product.call_home()
            assert product.flush(20).drained
            assert product.status()["trouble"] == {}
    assert handler.lines and at.seen() == 2
    assert threading.get_ident() not in handler.threads  # the delivering thread alone


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
        wait_until(lambda: not product._worker.running)
    arrived(at, "CALL HOME", "CALL HOME")


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
        handler.act = None
        product.flush()
        assert product.status()["pending"] == 0
    assert at.texts().count("from the handler") == len(made)


STDERRS = [
    "sys.stderr = None",
    "sys.stderr.close()",
    "os.close(2)",
    "sys.stderr = 5",
    "sys.stderr = type('Broken', (), {'write': lambda self, text: 1 / 0})()",
    "sys.stderr = type('Exit', (), {'write': lambda self, text: sys.exit(3)})()",
]


@pytest.mark.parametrize("how", STDERRS)
def test_a_stderr_that_is_gone(at: Desk, how: str) -> None:
    code = how + """
t.call_home()
assert t.flush(20).drained
assert t.status()["trouble"] == {}, t.status()
t.close()
sys.stderr = sys.__stderr__  # else the interpreter itself fails to flush it
"""
    quiet(at, code, product=WATCHED + PRODUCT, start_delay_s=0)
