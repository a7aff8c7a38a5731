"""The zygote of the kill campaign: forks everybody, kills some, waits for all; one plan, one result at a time.

It may have loaded everything, and has made nothing of it, as a server that forks its workers. What its children do
is in ``kill_child``. Nobody that it started, children of children included, outlives a round.
"""

import contextlib
import faulthandler
import gc
import importlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Optional

from .kill_child import PATIENCE_S, act
from .processes import hear, main, say


class Finished(BaseException):
    """A forked process has done its work, and ends as a program does."""


class Zygote:
    """Forks everybody, kills some, waits for all; one round at a time."""

    def __init__(self) -> None:
        # The port stays ours while no collector lives, and nobody can connect to himself by chance.
        self._port = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port.bind(("127.0.0.1", 0))
        self.port = self._port.getsockname()[1]
        if sys.platform == "linux":  # become the parent of those whose parent was killed
            import ctypes

            assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0

    def round(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Play one plan: what happened to whom."""
        self._plan = plan
        shared = ("state", "logs", "settings", "keys", "algorithm")
        where = {"url": "http://127.0.0.1:%d" % self.port, "port": self.port}
        self._common = {**{name: plan[name] for name in shared}, **where}
        self._children: dict[int, dict[str, Any]] = {}
        self._collector = 0
        self.statuses: list[tuple[int, int]] = []
        self.hung: list[int] = []
        with self._collecting(plan["collector"]["seeds"].pop()):
            self._chaos()
        shutil.copytree(plan["state"], plan["before"])
        with self._collecting(None):
            self._children[self._start({**self._common, "role": "drain"})] = {}
            self._wait(PATIENCE_S + 10)
        return {"statuses": self.statuses, "hung": self.hung}

    @contextlib.contextmanager
    def _collecting(self, seed: Optional[int]) -> Iterator[None]:
        """With a collector; everybody has ended at the end."""
        self._collect(seed)
        yield
        self._end_collector()
        ends_at = time.monotonic() + PATIENCE_S
        while self._reap() and time.monotonic() < ends_at:
            time.sleep(0.002)
        while self._reap():
            self._end_hung(self._living_forks())
            time.sleep(0.1)

    def _chaos(self) -> None:
        plan = self._plan
        todo: list[tuple[float, int, Callable[[], None]]] = []

        def at(at_s: float, what: Callable[[], None]) -> None:
            todo.append((at_s, len(todo), what))

        for spec in plan["processes"]:
            at(spec["at_s"], partial(self._spawn, spec))
        for at_s, chance, sending in plan["kills"]:
            at(at_s, partial(self._kill_one, chance, sending))
        for at_s, down_s in plan["collector"]["deaths"]:
            at(at_s, self._end_collector)
            at(at_s + down_s, lambda: self._collect(plan["collector"]["seeds"].pop()))
        for at_s, for_s in plan["collector"]["stops"]:
            at(at_s, partial(self._signal_collector, signal.SIGSTOP))
            at(at_s + for_s, partial(self._signal_collector, signal.SIGCONT))
        at(plan["ends_s"], self._kill_lingering)
        began_at = time.monotonic()
        for at_s, _, what in sorted(todo, key=lambda one: one[:2]):
            while time.monotonic() - began_at < at_s:
                self._reap()
                time.sleep(min(0.01, max(0.0, at_s - (time.monotonic() - began_at))))
            what()
        self._wait(PATIENCE_S)

    def _wait(self, timeout_s: float) -> None:
        ends_at = time.monotonic() + timeout_s
        while self._children and time.monotonic() < ends_at:
            self._reap()
            time.sleep(0.004)
        self._end_hung(list(self._children))

    def _end_hung(self, pids: list[int]) -> None:
        for pid in pids:
            self.hung.append(pid)
            os.kill(pid, signal.SIGUSR2)  # have it write down where it hangs
            time.sleep(0.5)
            os.kill(pid, signal.SIGKILL)

    def _reap(self) -> bool:
        """Take note of those that ended; False where nobody is left at all."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            if pid == self._collector:
                self._collector = 0
            else:
                self._children.pop(pid, None)
            ended = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            self.statuses.append((pid, ended))

    def _living_forks(self) -> list[int]:
        """Processes with a log of which no end is known: forked by those that we forked."""
        ended = {pid for pid, _ in self.statuses}
        known = {int(name.partition("-")[0]) for name in os.listdir(self._plan["logs"])}
        return sorted(known - ended - {self._collector})

    def _spawn(self, spec: dict[str, Any]) -> None:
        self._children[self._start({**self._common, **spec})] = spec

    def _start(self, spec: dict[str, Any]) -> int:
        pid = os.fork()
        if pid:
            return pid
        _leave_the_zygote(self._plan["stderr"])
        act(spec)
        raise Finished

    def _collect(self, seed: Optional[int]) -> None:
        if not self._collector:
            self._collector = self._start({**self._common, "role": "collect", "seed": seed})

    def _signal_collector(self, number: int) -> None:
        if self._collector:
            os.kill(self._collector, number)

    def _end_collector(self) -> None:
        self._signal_collector(signal.SIGKILL)
        while self._collector:
            self._reap()
            time.sleep(0.001)

    def _kill_one(self, chance: float, sending: bool) -> None:
        """Kill any process, or one that is ``sending``, if there is one."""
        alive = sorted({*self._children, *self._living_forks()})
        if sending:
            alive = [pid for pid in alive if self._is_sending(pid)] or alive
        if alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(alive[int(chance * len(alive))], signal.SIGKILL)

    def _is_sending(self, pid: int) -> bool:
        """Whether a request is sent and not over, by the process's log."""
        for path in Path(self._plan["logs"]).glob("%d-*" % pid):
            log = path.read_bytes()
            return log.rfind(b'["sent"') > log.rfind(b'["over"')
        return False

    def _kill_lingering(self) -> None:
        for pid, spec in self._children.items():
            if spec.get("end") == "linger":
                os.kill(pid, signal.SIGKILL)


def _leave_the_zygote(errors: str) -> None:
    """Give up its pipes; what is printed is kept."""
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)


def load() -> None:
    """What a product that forks has loaded: everything, and nothing made of it."""
    ours = "cli.spooling client delivery looking transport signatures.envelope endpoints.reo"
    names = ["agent." + name for name in ours.split()]
    for name in (*names, "nacl.signing", "urllib3.connection"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def serve(settings: dict[str, Any]) -> None:
    """Answer each line of standard input, a plan, with a line, its result.

    Not ``loaded``, it leaves it to its children to load what they need, when they do.
    """
    if settings["loaded"]:
        load()
    faulthandler.register(signal.SIGUSR2, file=2, all_threads=True)
    gc.collect()
    gc.freeze()
    ours = Zygote()
    with contextlib.suppress(Finished, BrokenPipeError):
        while plan := hear():
            say(json.dumps(ours.round(json.loads(plan))))


if __name__ == "__main__":
    main(serve)
