"""Delivering by a process of its own, for programs that end before a server can answer.

The record is on disk already; what is started here only sends. It gets the configuration through a pipe, never by
argument, environment or file, for that holds API keys: plain JSON, which the other side checks field by field. It
inherits no handle and no window, ends by itself within ``LIFE_S``, and waits while another process delivers.
A frozen product never starts itself: it names a command, or the agent acts as "thread", as it does where a start
fails. This file is also what an interpreter is told to run, so whatever is of this package is imported inside.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Mapping, Optional

    from ..client import Agent
    from ..config import Config

# How long such a process lives at most, and how long after a start nobody starts another.
LIFE_S, REST_S = 30.0, 5.0
# How often it is looked whether such a process, where it is a child again, has ended.
REAP_S = 1.0
# How long it may take to read what it is told and to part from its starter: 0.05 s on a fast machine.
PARTING_S = 10.0
# CREATE_NO_WINDOW, CREATE_NEW_PROCESS_GROUP: no console flashes up, no Ctrl-C of the product's console ends it.
# BELOW_NORMAL_PRIORITY_CLASS: what ``nice`` is elsewhere.
WINDOWS_FLAGS = 0x08000000 | 0x00000200 | 0x00004000
# What a key is made of; of all other kinds it is their slots or attributes.
KEY_FIELDS = ("pem", "name")


class Detached:
    """Starts such processes for one agent: ``turn`` instead of a pass, ``last`` at the end."""

    def __init__(self, agent: Agent, environ: Optional[Mapping[str, str]]) -> None:
        self._agent, self._config = agent, agent._config
        self._spool, self._delivery = agent._spool, agent._delivery
        self._environ = None if environ is None else dict(environ)
        self._rests_until = 0.0  # monotonic seconds
        self._able = True
        self._command = list(self._config.detached_command) or interpreter()
        if not self._command:
            self._give_up("this program is no Python interpreter, and no detached_command is given")
        try:
            # It starts in a directory of its own.
            if self._command and os.path.dirname(self._command[0]):
                self._command[0] = os.path.abspath(self._command[0])
            message(self._config, None, None)
        except (TypeError, OSError) as error:
            self._give_up("no other process can be told %s" % error)

    def _give_up(self, why: str) -> None:
        self._able = False
        self._spool.note("detached", why)

    @property
    def works(self) -> bool:
        """Until something shows that it cannot; what only this process's memory holds it has to send itself."""
        return self._able and self._spool.directory is not None and not self._spool.memory

    def turn(self, due_s: Optional[float]) -> Optional[float]:
        """The worker's, instead of a pass: start a process where it is time; the seconds until the next look."""
        from ..clock import monotonic

        if due_s == 0:
            due_s = self._rests_until - monotonic()
            if due_s <= 0:
                self._rests_until = monotonic() + REST_S
                due_s = self._start(PARTING_S)
        reap()
        return min(REAP_S, REAP_S if due_s is None else due_s) if unwaited else due_s

    def last(self) -> None:
        """At the end of an agent that lived too short for a turn."""
        if self.works and self._delivery.due_in_s() == 0:
            self._start(0.0)

    def _start(self, wait_s: float) -> Optional[float]:
        try:
            if not os.path.isdir(self._spool.directory or ""):
                return None  # nothing was recorded
            if self._others_deliver():
                return REST_S  # they may have looked before our record was there
            self._run(message(self._config, self._environ, self._agent._consent), wait_s)
            return None
        except Exception as error:  # no memory, no descriptor, a policy against processes
            self._give_up("cannot start a process: %s" % (str(error) or type(error).__name__))
            self._spool.news = object()
            return 0.0

    def _others_deliver(self) -> bool:
        from .. import files
        from ..spool.segment import LOCK, clear_way

        directory = self._spool.directory or ""
        clear_way(directory)
        lock = files.open_append(os.path.join(directory, LOCK))
        held = lock.lock()
        lock.close()
        return held is False

    def _run(self, told: bytes, wait_s: float) -> None:
        import subprocess

        reap()
        process = subprocess.Popen(  # noqa: S603 - the vendor's own command, or this interpreter
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=True,
            # Else PyInstaller takes a one-file program that starts itself for a part of itself, and shares its files.
            env={**os.environ, "PYINSTALLER_RESET_ENVIRONMENT": "1"},
            # Never the host's: what lies beside a document is nothing to find there.
            cwd=os.path.dirname(self._command[0]) or self._spool.directory,
            **options(os.name),
        )
        assert process.stdin is not None
        try:
            # Not before: an exit that waits no longer for this thread starts one itself. Not behind the message: what
            # is recorded from there on may come too late for the process.
            self._delivery.hand_over()
            with process.stdin:
                tell(process.stdin.fileno(), told, wait_s or self._config.exit_timeout_s)
            if hasattr(os, "fork"):
                # It forks once it has read that.
                if wait_s and not is_one_file() and process.wait(wait_s):
                    raise OSError("it ended with status %d" % process.returncode)
                unwaited.add(process.pid)
            process.returncode = 0  # else a warning would say that it still runs: it shall
        except BaseException:
            process.kill()
            process.wait()
            raise


# Process groups, one for each start, of which nobody knows that they have ended.
unwaited: set[int] = set()


def reap() -> None:
    """No zombies: what parted comes back as a child of ours where this is PID 1 or a sub-reaper (prctl(2))."""
    for group in list(unwaited):
        try:
            while os.waitpid(-group, os.WNOHANG)[0]:
                pass
        except OSError:  # none of it is our child
            unwaited.discard(group)


def tell(fd: int, told: bytes, timeout_s: float) -> None:
    """Write into a pipe; raises ``OSError`` where the message is longer than the pipe and nobody reads it.

    No SIGPIPE comes of it, which ends a host that does not ignore it.
    """
    import signal
    from time import sleep

    from ..clock import monotonic

    ends_at, pipe, before = monotonic() + timeout_s, set(), set()
    if hasattr(os, "fork"):
        os.set_blocking(fd, False)
        pipe = {signal.SIGPIPE}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, pipe)
    try:
        while told:
            try:
                told = told[os.write(fd, told) :]
            except BlockingIOError:
                if monotonic() > ends_at:
                    raise TimeoutError("it does not read what it is told") from None
                sleep(0.005)
    finally:
        if pipe:
            if pipe <= signal.sigpending() and not pipe <= before:
                signal.sigwait(pipe)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def interpreter() -> list[str]:
    """The command that runs this file; nothing where it is none, or this program no interpreter beyond doubt."""
    name = os.path.basename(sys.executable or "").lower()
    frozen = getattr(sys, "frozen", False) or "__compiled__" in globals()
    stem = name.removesuffix(".exe").rstrip("0123456789.wtd_")  # and no product called so
    known = stem in ("python", "pypy") and os.access(sys.executable, os.X_OK)
    if frozen or not known or not os.path.isfile(__file__):
        return []
    return [sys.executable, "-I", os.path.abspath(__file__)]


def options(os_name: str) -> dict[str, Any]:
    """What keeps a process apart from the product's terminal: a session, or no console."""
    return {"creationflags": WINDOWS_FLAGS} if os_name == "nt" else {"start_new_session": True}


def is_one_file() -> bool:
    """Whether this program has unpacked itself, and takes its files away when the process that was started ends."""
    unpacked = os.path.basename(getattr(sys, "_MEIPASS", "")).startswith("_MEI")  # PyInstaller
    return unpacked or "NUITKA_ONEFILE_PARENT" in os.environ


# -- the message ----


def message(config: Config, environ: Optional[Mapping[str, str]], consent: object) -> bytes:
    """What ``deliver_detached`` is told, as JSON; raises ``TypeError`` where the configuration holds a callable."""
    import json

    above = __name__.split(".")[:-3]  # the packages that this one lies in
    parents = [".".join(above[: n + 1]) for n in range(len(above))]
    # Where this one lies, however that was found.
    home = [] if above else [os.path.dirname(os.path.dirname(os.path.dirname(__file__)))]
    # A callable is asked when usage is captured: what waits was allowed.
    allowed = True if callable(consent) or consent is True else None
    changed = config.replace(usage_consent=allowed, deliver="manual", start_delay_s=0)
    told = {
        "module": __name__,
        "parents": [[n, absolute(getattr(sys.modules.get(n), "__path__", ()))] for n in parents],
        "path": absolute([*sys.path, *home]),
        "environ": environ,
        "config": plain(changed),
    }
    return json.dumps(told).encode("ascii")


def absolute(places: Iterable[object]) -> list[str]:
    """Paths for another process: those that mean the same everywhere, and not the directory of the moment."""
    return [place for place in places if isinstance(place, str) and os.path.isabs(place)]


def kinds() -> dict[str, Callable[..., Any]]:
    """What a message may hold beside JSON's own values, and what makes it of its fields, each of which it checks."""
    from .. import config
    from ..errors import part
    from ..signatures.keys import PublicKey

    return {
        "Config": config.Config,
        "GetKeyManager": config.GetKeyManager,
        "Reo": config.Reo,
        "Keyring": lambda **given: part("keyring", "keys").Keyring(**given),
        "PublicKey": PublicKey.from_pem,
        "bytes": lambda text: text.encode("latin-1"),
        "dns_domain": lambda: part("domain", "domain").dns_domain,
    }


def plain(value: Any) -> Any:
    """A configuration as JSON values: an object of ours is ``{kind: fields}``; raises ``TypeError`` for others."""
    kind = type(value).__name__
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is tuple:
        return [plain(one) for one in value]
    if type(value) is bytes:
        return {kind: {"text": value.decode("latin-1")}}
    if getattr(value, "__module__", "") == __name__.rpartition(".")[0] + ".domain":
        return {"dns_domain": {}}
    if kind not in kinds():
        raise TypeError("what a callable of the product knows")
    names = KEY_FIELDS if kind == "PublicKey" else getattr(value, "__slots__", None) or vars(value)
    return {kind: {name: plain(getattr(value, name)) for name in names}}


def made(value: Any) -> Any:
    """The opposite of ``plain``; raises where anything is not as we would write it."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return tuple(made(one) for one in value)
    ((kind, fields),) = value.items()
    return kinds()[kind](**{name: made(one) for name, one in fields.items()})


# -- in the process that was started ----


def deliver_detached(told: Optional[dict[str, Any]] = None) -> int:
    """What a ``detached_command`` calls first of all: deliver for the product that started it; the exit status.

    Reads the configuration from the standard input, parts from its starter, and ends within about half a minute.
    ``told``: what was read already.
    """
    from ..client import Agent
    from ..config import Config

    try:
        told = read() if told is None else told
        config, environ = made(told["config"]), told["environ"]
        texts = [text for item in (environ or {}).items() for text in item]
        if type(config) is not Config or not all(type(text) is str for text in texts):
            return 2
    except Exception:
        return 2
    part_from_starter()
    with Agent(config, environ=environ) as agent:
        deliver(agent)
    return 0


def read() -> Any:
    """The message on the standard input; a program without a console has no sys.stdin."""
    import json

    with open(0, "rb", closefd=False) as pipe:
        return json.load(pipe)


def part_from_starter() -> None:
    """Leave the starter, who waits for this but where the files would go with us; be the last to get a processor."""
    if hasattr(os, "fork"):
        from signal import SIG_SETMASK, pthread_sigmask

        # The thread that started us takes none; the end of the user's session shall end us.
        pthread_sigmask(SIG_SETMASK, ())
        if not is_one_file() and os.fork():
            os._exit(0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.nice(10)


def deliver(agent: Agent) -> None:
    """Deliver until nothing more can be sent: who recorded while we were sending started nobody, so look once more."""
    from ..clock import monotonic

    ends_at, sent = monotonic() + LIFE_S, -1
    while sent != agent._delivery.sent:
        sent = agent._delivery.sent
        agent._worker.flush(ends_at - monotonic())  # no wait is skipped


def begin() -> int:
    """Under the product's package names, but without the product's packages: those would start the product again."""
    import importlib
    import types

    told = read()
    sys.path[:] = told["path"]
    for name, places in told["parents"]:
        sys.modules[name] = module = types.ModuleType(name)
        module.__path__ = places
    status: int = importlib.import_module(told["module"]).deliver_detached(told)
    return status


if __name__ == "__main__":  # by ``interpreter``
    sys.exit(begin())
