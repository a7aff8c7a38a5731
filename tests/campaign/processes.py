"""Other processes of a campaign: a module run beside this one, spoken to in lines."""

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


class Beside:
    """A process that is spoken to in lines."""

    def __init__(self, *command: str, **how: Any) -> None:
        how.update(stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", bufsize=1)
        self.process: Any = subprocess.Popen(command, **how)

    def tell(self, word: str) -> None:
        self.process.stdin.write(word + "\n")

    def hear(self) -> str:
        return str(self.process.stdout.readline()).strip()

    def expect(self, word: str) -> None:
        heard = self.hear()
        assert heard == word, (heard, self.process.poll())

    def ask(self, word: str) -> Any:
        """What it answers, in JSON."""
        self.tell(word)
        return json.loads(self.hear())

    def said(self) -> str:
        """Everything that it says until its end, which must be a good one."""
        out, _ = self.process.communicate(timeout=600)
        assert self.process.returncode == 0, self.process.returncode
        return str(out)

    def hang_up(self) -> None:
        """Close its standard input: who listens ends."""
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # killed

    def end(self) -> None:
        self.hang_up()
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


class Child(Beside):
    """``python -m campaign.MODULE ROLE SETTINGS``: says "ready", hears "go", does its work, answers in lines."""

    def __init__(self, module: str, role: str, **settings: Any) -> None:
        path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
        foreign = ("_PROXY", "DO_NOT_TRACK", "SSL_CERT_FILE", "SSL_CERT_DIR")
        environ = {k: v for k, v in os.environ.items() if not k.upper().endswith(foreign)}
        program = [sys.executable, "-B", "-W", "ignore::DeprecationWarning", "-m"]
        words = [*program, "campaign." + module, role, json.dumps(settings)]
        super().__init__(*words, env={**environ, "PYTHONPATH": path}, start_new_session=True)


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
