"""Other processes of a campaign: a module run beside this one, spoken to in lines."""

from __future__ import annotations

import itertools
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

from agent.transport import HttpTransport
from agent.values import Request, Response, Unreachable

REQUEST = "X-Test-Request"


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


class Log:
    """One process's log; a forked child begins its own with its first line."""

    def __init__(self, directory: str, role: str) -> None:
        self._directory, self._role = directory, role
        self._pid = self._fd = -1
        self._token, self._numbers = "", itertools.count(1)

    @property
    def token(self) -> str:
        """The name of this process, unlike its number never used again."""
        if self._pid != os.getpid():
            parent, self._token, self._pid = self._token, os.urandom(6).hex(), os.getpid()
            path = os.path.join(self._directory, "%d-%s.log" % (self._pid, self._token))
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self("process", self._pid, self._role, parent)
        return self._token

    def number(self) -> str:
        """The number of a request, never given again."""
        return "%s-%d" % (self.token, next(self._numbers))

    def __call__(self, *entry: Any) -> None:
        assert self.token
        os.write(self._fd, json.dumps(entry).encode() + b"\n")


class Traced(HttpTransport):
    """The real transport; its requests are numbered, and what became of each is in the log.

    ``over`` says that the deliverer has gone on: whatever it wanted to write down about the answer is written; ``rest``
    that a pass has ended, and nobody else's began since its first ``sent``: it still holds the deliverer's lock.
    """

    def __init__(self, log: Log) -> None:
        super().__init__(proxy="direct")
        self._log, self._open, self._passing = log, "", False

    def after_fork(self) -> None:
        super().after_fork()
        self._open, self._passing = "", False

    def send(self, request: Request, *, timeout_s: float) -> Response:
        self._over()
        number = self._log.number()
        began_at = time.monotonic()
        self._log("sent", number, began_at)
        self._open, self._passing = number, True
        headers = {**request.headers, REQUEST: number}
        numbered = Request(request.method, request.url, headers, request.body)
        numbered.may_send = request.may_send
        try:
            response = super().send(numbered, timeout_s=timeout_s)
        except Unreachable as error:
            late = time.monotonic() - began_at >= timeout_s
            self._log("unreachable", number, late, error.reason)
            raise
        self._log("answered", number, response.status, response.complete)
        return response

    def _over(self) -> None:
        number, self._open = self._open, ""
        if number:
            self._log("over", number)

    def rest(self) -> None:
        self._over()
        super().rest()
        if self._passing:
            self._passing = False
            self._log("rest", time.monotonic())
