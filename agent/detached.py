"""Delivering by a process of its own, for programs that end before a server can answer.

The record is on disk already; what is started here only sends. It gets the configuration through a pipe, never by
argument, environment or file, for that holds API keys; it inherits no handle and no window, ends by itself within
``LIFE_S``, and gives way to any other process that delivers. A frozen product never starts itself: it names a
command, or the agent acts as "thread". Where a start fails the agent goes on as "thread" too.
"""

from __future__ import annotations

import os
import sys

from . import story
from .clock import Clock
from .origin import dns_domain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, Optional

    from .config import Config
    from .courier import Courier
    from .spool.store import Spool

# How long such a process lives at most, and how long after a start nobody starts another.
LIFE_S, REST_S = 30.0, 5.0
# How long it may take to read what it is told and to part from its starter: 0.05 s on a fast machine.
PARTING_S = 10.0
# How long it tries beside another process that delivers.
GIVE_WAY_S = 1.0
# What an interpreter runs: under the product's package names, but without the product's packages, for an ``__init__``
# of the product would start it again.
_BOOT = """\
import importlib, json, sys, types
told = json.load(sys.stdin.buffer)
sys.path[:] = told["path"]
for name, where in told["parents"]:
    sys.modules[name] = module = types.ModuleType(name)
    module.__path__ = where
importlib.import_module(told["doors"]).deliver_detached(told)
"""
# CREATE_NO_WINDOW, CREATE_NEW_PROCESS_GROUP: no console flashes up, no Ctrl-C of the product's console ends it.
# BELOW_NORMAL_PRIORITY_CLASS: what ``nice`` is elsewhere.
WINDOWS_FLAGS = 0x08000000 | 0x00000200 | 0x00004000


class Detached:
    """Starts such processes for one agent."""

    def __init__(
        self,
        config: Config,
        courier: Courier,
        spool: Spool,
        environ: Optional[Mapping[str, str]],
    ) -> None:
        self._config, self._courier, self._spool = config, courier, spool
        self._clock = Clock()
        self._environ = None if environ is None else dict(environ)
        self._command = list(config.detached_command) or interpreter()
        if os.path.dirname(self._command[0] if self._command else ""):
            found = _absolute(self._command[:1])  # it starts in a directory of its own
            self._command = found and [*found, *self._command[1:]]
        self._started_at: Optional[float] = None  # monotonic seconds
        self.works = True  # until something shows that it cannot
        if not self._command:
            self._give_up("this program is no Python interpreter, and no detached_command is given")
        for endpoint in config.endpoints:
            domain = getattr(endpoint, "domain", None)
            if callable(domain) and domain is not dns_domain:
                self._give_up("domain is a callable of the product, which no other process can ask")

    def _give_up(self, why: str) -> None:
        self.works = False
        self._spool.note("detached", why)

    def turn(self, consent: object) -> Optional[float]:
        """The worker's, instead of a pass: start a process where it is time; the seconds until the next look."""
        story.tell()
        now = self._clock.monotonic()
        rest_s = 0.0 if self._started_at is None else self._started_at + REST_S - now
        # What is on disk says how long a server wants to be left alone, whoever asks.
        wait_s = max(rest_s, self._paused_s())
        if wait_s > 0:
            return wait_s
        if not self._courier.take():
            return REST_S  # whoever delivers now may have looked before our record was there
        self._courier.give_back()
        self._started_at = now
        self._start(consent, PARTING_S)
        story.tell()
        return None if self.works else 0.0

    def last(self, consent: object) -> None:
        """At the end of an agent that lived too short for a turn."""
        if self.works and self._courier.hint and self._paused_s() <= 0:
            if self._courier.take():
                self._courier.give_back()
                self._start(consent, 0.0)

    def _paused_s(self) -> float:
        return min(lane.remaining_s(self._clock.time()) for lane in self._courier.lanes())

    def _start(self, consent: object, wait_s: float) -> None:
        try:
            self._run(_message(self._config, self._environ, consent), wait_s)
        except Exception as error:  # no memory, no descriptor, a policy against processes
            self._give_up("cannot start a process: %s" % (str(error) or type(error).__name__))
            self._courier.hint = True

    def _run(self, message: bytes, wait_s: float) -> None:
        import subprocess

        _reap()
        process = subprocess.Popen(  # noqa: S603
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=True,
            # Else PyInstaller takes a one-file program that starts itself for a part of itself, and shares its files.
            env={**os.environ, "PYINSTALLER_RESET_ENVIRONMENT": "1"},
            cwd=os.path.dirname(os.path.abspath(self._command[0])) or None,
            **options(os.name),
        )
        assert process.stdin is not None
        try:
            # Not before: an exit that waits no longer for this thread starts one itself. Not behind the message: what
            # is recorded from there on may come too late for the process.
            self._courier.hint = False
            with process.stdin:
                _tell(process.stdin.fileno(), message, wait_s or self._config.exit_timeout_s)
            if hasattr(os, "fork"):
                if not wait_s or one_file():
                    _unwaited.add(process.pid)
                elif process.wait(wait_s):  # it forks once it has read the message
                    raise OSError("it ended with status %d" % process.returncode)
            story.note("process %d started to deliver", process.pid)
            process.returncode = 0  # else a warning would say that it still runs: it shall
        except BaseException:
            process.kill()
            process.wait()
            raise


# Children that parted, or will, and that nobody waited for.
_unwaited: set[int] = set()


def _reap() -> None:
    """No zombies in a product that opens and closes one agent after another."""
    for pid in list(_unwaited):
        try:
            ended = os.waitpid(pid, os.WNOHANG)[0]
        except OSError:
            ended = pid  # by somebody else; or a fork lies between
        if ended:
            _unwaited.discard(pid)


def _tell(fd: int, message: bytes, timeout_s: float) -> None:
    """Write into a pipe; raises ``OSError`` where the message is longer than the pipe and nobody reads it."""
    from time import monotonic, sleep

    ends_at = monotonic() + timeout_s
    if hasattr(os, "fork"):
        os.set_blocking(fd, False)
    while message:
        try:
            message = message[os.write(fd, message) :]
        except BlockingIOError:
            if monotonic() > ends_at:
                raise TimeoutError("it does not read what it is told") from None
            sleep(0.005)


def interpreter() -> list[str]:
    """The command that runs ``_BOOT``; nothing where this program is not a Python interpreter beyond doubt."""
    name = os.path.basename(sys.executable or "").lower()
    frozen = getattr(sys, "frozen", False) or "__compiled__" in globals()
    if frozen or not name.startswith(("python", "pypy")) or not os.access(sys.executable, os.X_OK):
        return []
    return [sys.executable, "-I", "-c", _BOOT]


def one_file() -> bool:
    """Whether this program has unpacked itself, and takes its files away when the process that was started ends."""
    unpacked = os.path.basename(getattr(sys, "_MEIPASS", "")).startswith("_MEI")  # PyInstaller
    return unpacked or "NUITKA_ONEFILE_PARENT" in os.environ


def options(os_name: str) -> dict[str, Any]:
    """What keeps a process apart from the product's terminal: a session, or no console."""
    return {"creationflags": WINDOWS_FLAGS} if os_name == "nt" else {"start_new_session": True}


def _message(config: Config, environ: Optional[Mapping[str, str]], consent: object) -> bytes:
    """What ``deliver_detached`` is told: JSON, and in it the configuration as ``read_config`` takes it."""
    import json
    import pickle

    package = __name__.rpartition(".")[0]
    parts = package.split(".")[:-1]
    parents = [".".join(parts[: n + 1]) for n in range(len(parts))]
    places = [_absolute(getattr(sys.modules.get(name), "__path__", ())) for name in parents]
    # A callable is asked when usage is captured: what waits was allowed.
    allowed = True if callable(consent) or consent is True else None
    settings = config.replace(usage_consent=allowed, deliver="manual", start_delay_s=0)
    message = {
        "doors": package + ".doors",
        "parents": list(zip(parents, places)),
        "path": _absolute(sys.path),
        "environ": environ,
        "config": pickle.dumps(settings).decode("latin-1"),
    }
    return json.dumps(message).encode("ascii")


def _absolute(places: Iterable[object]) -> list[str]:
    """Paths for a process in another directory; without those that mean nothing, for ours was removed."""
    try:
        here = os.getcwd()
    except OSError:
        here = ""
    found = [os.path.join(here, place) for place in places if isinstance(place, str)]
    return [place for place in found if os.path.isabs(place)]


# -- in the process that was started ---------------------------------------------------------------


def read_config(text: str) -> Config:
    """The configuration in a message; raises where it holds anything but our own values.

    A pickle could run any code, and the program of a vendor that reads one would run it for anybody.
    """
    import io
    import pickle

    from . import config, signatures

    known = {
        (kind.__module__, kind.__qualname__): kind
        for kind in (
            *(config.Config, config.GetKeyManager, config.Reo, dns_domain),
            *(signatures.Keyring, signatures.PublicKey),
        )
    }

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return known[module, name]

    found = Reader(io.BytesIO(text.encode("latin-1"))).load()
    if type(found) is not config.Config:
        raise TypeError(type(found).__name__)
    return found.replace()  # checked: a pickle makes values without ``__init__``


def part() -> None:
    """Leave the starter, who waits for this but where the files would go with us; be the last to get a processor."""
    if hasattr(os, "fork"):
        if not one_file() and os.fork():
            os._exit(0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.nice(10)


def deliver(courier: Courier) -> None:
    """Pass after pass, until nothing waits, or what waits waits for longer than this process may live."""
    from threading import Timer
    from time import monotonic, sleep

    watchdog = Timer(LIFE_S, courier.break_off)
    watchdog.daemon = True
    watchdog.start()
    ends_at = monotonic() + LIFE_S
    sent, wait_s = 0, courier.turn()
    while True:
        # Who recorded while we were sending started nobody: look once more.
        if courier.totals is not None and courier.totals.sent > sent:
            sent, courier.hint, wait_s = courier.totals.sent, True, 0.0
        if wait_s is None or monotonic() + wait_s >= ends_at:
            break
        # Another process delivers, and what we came for with it, unless it is at its end.
        if courier.refused_at is not None:
            ends_at = min(ends_at, monotonic() + GIVE_WAY_S)
        sleep(wait_s)
        wait_s = courier.turn()
    watchdog.cancel()
