"""A person in front of a frozen Studio: starts it without a network, has it killed, starts it again, quits.

The display is an Xvfb of its own, the server the bundled collector, and what came of it is read from the collector and
from the state directory, never from the product.
"""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from support import agent as support

import agent
from agent.collector import Collector

PATIENCE_S = 30


class Failed(Exception):
    """Something was not seen in time."""


@contextlib.contextmanager
def display() -> Iterator[str]:
    """A screen of its own; its name."""
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1200x700x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL) as server:
        os.close(write)
        try:
            with open(read) as told:
                yield ":" + told.readline().strip()
        finally:
            server.kill()


class Desk:
    """One user's home, one server, one program."""

    def __init__(self, program: Path, home: Path, screen: str, collector: Collector) -> None:
        self.program, self.home, self.collector = program, home, collector
        home.mkdir(parents=True)
        clean = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.environ = {
            **clean,
            "DISPLAY": screen,
            "TMPDIR": str(home),  # where a one-file program unpacks itself
            "STUDIO_HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
        }
        self.state_dir = home / "state" / "Acme" / "Studio" / "telemetry"
        (home / "settings.json").write_text(
            json.dumps({"licence": ["demo-license-key", "12135644"], "usage": True})
        )
        self.server()

    def server(self, **more: str) -> None:
        """What the product is told of its server."""
        told = {"url": self.collector.url, "keys": self.collector.keys, **more}
        (self.home / "server.json").write_text(json.dumps(told))

    @contextlib.contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """The product with its window open."""
        product = subprocess.Popen([self.program], env=self.environ, start_new_session=True)
        try:
            until("no window", lambda: self._xdotool("search", "--name", "^Acme Studio$"))
            yield product
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(product.pid, signal.SIGKILL)
            product.wait()

    def draw(self) -> None:
        """A stroke on the canvas."""
        words = "mousemove 100 100 mousedown 1 mousemove 300 200 mouseup 1"
        self._xdotool(*words.split())

    def quit(self, product: subprocess.Popen[bytes]) -> int:
        """Ctrl+Q; the exit status."""
        self._xdotool("mousemove", "200", "200", "key", "ctrl+q")
        return product.wait(PATIENCE_S)

    def _xdotool(self, *words: str) -> str:
        done = subprocess.run(
            ["xdotool", *words], env=self.environ, stdout=subprocess.PIPE, text=True, timeout=20
        )
        return done.stdout

    def call_homes(self) -> int:
        """How many the licence server has taken in."""
        found = [one["fields"] for one in self.collector.records() if "flags" in one]
        return sum(fields.get("text_data") == "CALL HOME" for fields in found)

    def on_disk(self) -> bool:
        """Whether a licence record waits."""
        return any(path.stat().st_size for path in self.state_dir.glob("l-*.seg"))

    def delivering(self) -> bool:
        """Whether a process runs that the product started in order to deliver."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if words[0] == os.fsencode(self.program) and b"--deliver" in words:
                    return True
        return False

    def look(self) -> tuple[list[str], int]:
        """What the licence server's answers counted for, the oldest first, and how many records wait.

        As our own agent on the product's state sees it: it sends nothing.
        """
        at = self.collector.url, self.collector.public_keys, self.state_dir
        with agent.Agent(support.config(*at, only="licence")) as looking:
            found = [one for one in looking.history() if one["endpoint"] == "getkeymanager"]
            return [one["verdict"] for one in found], int(looking.status()["pending"])


def until(otherwise: str, happened: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Wait for something that another process does."""
    expect(support.until(happened, patience_s), otherwise)


def killed_and_started_again(desk: Desk) -> None:
    """Offline, SIGKILL, online: both call homes arrive, the answers are proven, nothing is left over."""
    desk.collector.fault("refuse")
    with desk.running():
        until("nothing on disk", desk.on_disk)
    expect(desk.call_homes() == 0, "the server was to be off")
    desk.collector.fault(None)
    with desk.running() as product:
        desk.draw()
        until("the records of before and after the kill", lambda: desk.call_homes() == 2)
        until("the answers on disk", lambda: desk.look()[0].count("delivered") == 2)
        expect(desk.quit(product) == 0, "status after Ctrl+Q")
    expect(desk.look()[1] == 0, "something still waits")


def not_believed_with_a_wrong_key(desk: Desk) -> None:
    """The same where somebody else signs."""
    desk.collector.fault("wrong-key")
    not_believed(desk)


def not_believed(desk: Desk) -> None:
    """A server that answers and cannot be believed: the record stays."""
    with desk.running() as product:
        until("an answer", lambda: "untrusted" in desk.look()[0])
        expect(desk.quit(product) == 0, "status after Ctrl+Q")
    expect(desk.look()[1] > 0, "the record is gone")


def delivered_after_the_end(desk: Desk) -> None:
    """``deliver="detached"``: the product starts itself with ``--deliver``, and that outlives it.

    The collector of ``desk`` is slow to answer, so that there is something to outlive.
    """
    desk.server(deliver="detached")
    with desk.running() as product:
        expect(desk.quit(product) == 0, "status after Ctrl+Q")
        until("no process that delivers", desk.delivering)
        until("the answer on disk", lambda: desk.look()[0] == ["delivered"])
    until("a process that stays", lambda: not desk.delivering())


def expect(claim: bool, otherwise: str) -> None:
    """Check one claim."""
    if not claim:
        raise Failed(otherwise)


def self_check(desk: Desk) -> dict[str, Any]:
    """What the program says of itself, with the quickest import of five."""
    said = []
    for _ in range(5):
        done = subprocess.run(
            [desk.program, "--self-check"], env=desk.environ, stdout=subprocess.PIPE, check=True
        )
        said.append(json.loads(done.stdout))
    best: dict[str, Any] = min(said, key=lambda one: float(one["import_ms"]))
    return best
