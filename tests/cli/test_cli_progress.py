"""Progress of a replay: it tells the truth while a server is silent, fits its terminal, and spoils no output."""

import contextlib
import io
import json
import sys
from typing import Any

import pytest
from support.cli import LICENSE_KEY, Site, on_terminal

from agent import Agent, cli
from agent.cli import progress
from agent.cli.config_file import load


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("STALLED_S", 0.3), ("TERMINAL_S", 0.02), ("LINE_S", 0.01)):
        monkeypatch.setattr(progress, name, seconds)


def record(site: Site, n: int, **changes: Any) -> None:
    licence, _ = site.document()["endpoints"]
    site.write(endpoints=[licence], **changes)
    with Agent(load(site.file).replace(deliver="manual"), (LICENSE_KEY, "desk-1")) as product:
        for number in range(n):
            product.record_value(number, data_group="g")


def replay(site: Site, stderr: Any, *more: str) -> str:
    """Run it with this for stderr; what it printed on stdout."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(stderr):
        cli.main(["spool", "replay", "--config", site.file, *more])
    return out.getvalue()


needs_pty = pytest.mark.skipif(sys.platform != "linux", reason="pseudo-terminals as Linux has them")


@needs_pty
@pytest.mark.parametrize(
    "columns, told",
    [(120, "no answer from getkeymanager for "), (40, "stalled for "), (9, "0 of 2, ")],
)
@pytest.mark.usefixtures("hasty")
def test_a_silent_server_is_waited_for_in_view(site: Site, columns: int, told: str) -> None:
    record(site, 2, request_timeout_s=0.8)
    site.server.fault("blackhole")
    _, shown = on_terminal(columns, lambda stream: replay(site, stream, "--json"))
    moving, _, rest = shown.partition("\n")
    frames = [frame.rstrip("\r") for frame in moving.split("\r") if frame]
    assert max(map(len, frames)) < columns, "it would wrap"
    assert len(set(frames)) >= (1 if columns == 9 else 2)
    assert told.strip() in moving and " left" not in moving


@pytest.mark.usefixtures("hasty")
def test_a_pipe_gets_plain_lines_and_stdout_only_the_answer(site: Site) -> None:
    record(site, 100)
    err = io.StringIO()
    assert json.loads(replay(site, err, "--json"))["delivered"] == 100
    assert "\r" not in err.getvalue() and len(err.getvalue().splitlines()) > 2
    assert err.getvalue().splitlines()[-1].startswith("100 of 100, ")
    err = io.StringIO()
    replay(site, err)
    assert err.getvalue() == ""  # nothing waits
