"""Other processes of a campaign: a module run beside this one, spoken to in lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from support.agent import ROOT


class Child:
    """``python -m campaign.MODULE ROLE SETTINGS``: says "ready", hears "go", does its work, answers in lines."""

    def __init__(self, module: str, role: str, **settings: Any) -> None:
        path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
        foreign = ("_PROXY", "DO_NOT_TRACK", "SSL_CERT_FILE", "SSL_CERT_DIR")
        environ = {k: v for k, v in os.environ.items() if not k.upper().endswith(foreign)}
        options = ["-B", "-W", "ignore::DeprecationWarning", "-m", "campaign." + module]
        self.process = subprocess.Popen(
            [sys.executable, *options, role, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**environ, "PYTHONPATH": path},
            start_new_session=True,
        )

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(word + "\n")

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def expect(self, word: str) -> None:
        heard = self.hear()
        assert heard == word, (heard, self.process.poll())

    def ask(self, word: str) -> Any:
        """What it answers, in JSON."""
        self.tell(word)
        return json.loads(self.hear())

    def said(self, *, killed: bool = False) -> str:
        """Everything that it says until its end, which must be a good one unless it was ``killed``."""
        out, _ = self.process.communicate(timeout=600)
        assert self.process.returncode == (-9 if killed else 0), self.process.returncode
        return out

    def hang_up(self) -> None:
        """Close its standard input: who listens ends."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # killed

    def end(self) -> None:
        assert self.process.stdout is not None
        self.hang_up()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


@contextmanager
def together(*children: Callable[[], Child]) -> Iterator[list[Child]]:
    """All of them, told to begin at once; they have ended, well or killed, when the block is over."""
    with ExitStack() as ending:
        found = []
        for start in children:
            found.append(start())
            ending.callback(found[-1].end)
        for one in found:
            one.expect("ready")
        for one in found:
            one.tell("go")
        yield found
        for one in found:
            one.hang_up()  # all at once: closing takes its time


def said(children: list[Child]) -> list[str]:
    """What they printed, read from all at once: who prints into a full pipe waits."""
    with ThreadPoolExecutor(len(children)) as pool:
        return list(pool.map(Child.said, children))


def until(happened: Callable[[], bool], timeout_s: float = 60) -> bool:
    ends_at = time.monotonic() + timeout_s
    while not happened():
        if time.monotonic() > ends_at:
            return False
        time.sleep(0.005)
    return True


# -- in the process itself -----------------------------------------------------------------------


def say(word: object) -> None:
    text = (str(word) + "\n").encode("ascii")
    while text:
        text = text[os.write(1, text) :]


def hear() -> str:
    """The next line of standard input; "" at its end. Unbuffered: forked children share it."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return ""
        line += byte
    return line.decode("ascii").strip()


def begin() -> None:
    """Ready, and go."""
    say("ready")
    hear()


def main(*roles: Callable[[dict[str, Any]], None]) -> None:
    """Play the role that the command line names."""
    by_name = {role.__name__: role for role in roles}
    by_name[sys.argv[1]](json.loads(sys.argv[2]))
