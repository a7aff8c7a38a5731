"""Real proxies as programs of their own, each on a free port of loopback, ended with the stage."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from support.requests import closed_port

from . import TESTS
from .situations import program
from .stage import Stage


class Program:
    """A server program in the foreground, ready when its port answers."""

    def __init__(self, stage: Stage, *command: str, port: int, leaves: str = "") -> None:
        """``leaves``: how the names of its shared memory begin, which it leaves behind when it is killed."""
        self._stage, self._command, self.port, self._leaves = stage, command, port, leaves
        self._start()
        stage.callback(self.kill)

    def _start(self) -> None:
        with self._stage.programs.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            ended = self._process.poll() is not None or time.monotonic() > deadline
            assert not ended, self._stage.programs.read_text("utf-8", "replace")
            time.sleep(0.02)

    def kill(self) -> None:
        """As a power cut would; its connections end with it."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # another thread was faster
                os.killpg(self._process.pid, signal.SIGKILL)  # with the helpers that it has started
        self._process.wait()
        for path in Path("/dev/shm").glob(self._leaves + "*") if self._leaves else ():
            path.unlink(missing_ok=True)

    def again(self) -> None:
        """Start it once more, on the same port."""
        self.kill()
        self._start()


def address(scheme: str, port: int, user: str = "", password: str = "") -> str:
    """A proxy's address as it is written into a setting."""
    who = "%s:%s@" % (quote(user, safe=""), quote(password, safe="")) if user else ""
    return "%s://%s127.0.0.1:%d" % (scheme, who, port)


HELPER = "auth_param {0} program /usr/lib/squid/{1}\nauth_param {0} children 1 startup=1\n"
KNOWN = "acl known proxy_auth REQUIRED\n"
SQUID = (TESTS / "golden" / "squid.conf").read_text("ascii")
NAME = "keys.acme.example"


def squid(stage: Stage, auth: str = "basic") -> Program:
    """Squid, to which ``NAME`` is this machine. ``auth``: "", "basic" (user and password of the stage), "ntlm"."""
    place, port = _open_to_all(stage), closed_port()
    (place / "hosts").write_text("127.0.0.1 %s\n" % NAME)
    helpers = {"": {}, "ntlm": dict.fromkeys(("negotiate", "ntlm"), "ntlm_fake_auth")}
    helpers["basic"] = {"basic": "basic_ncsa_auth %s/passwords" % place}
    if auth == "basic":
        command = ["openssl", "passwd", "-apr1", "-stdin"]
        user, password = (text.encode() for text in stage.login)
        made = subprocess.run(command, input=password, stdout=-1, check=True)
        (place / "passwords").write_bytes(user + b":" + made.stdout)
    lines = "".join(HELPER.format(*item) for item in helpers[auth].items()) + KNOWN * bool(auth)
    facts = {"port": port, "auth": lines, "who": "known" if auth else "all", "place": place}
    (place / "squid.conf").write_text(SQUID % facts)
    # Two of one service name, as in two runs of the tests, would share memory.
    service = "squid%dat%d" % (os.getpid(), port)
    command = [program("squid"), "-N", "-n", service, "-f", str(place / "squid.conf")]
    return Program(stage, *command, port=port, leaves=service + "-")


def _open_to_all(stage: Stage) -> Path:
    """A directory for one who gives up root: those of tests, and all below, are their owner's alone."""
    for top in map(Path, (tempfile.gettempdir(), "/dev/shm", "/var/tmp")):
        if all(path.exists() and path.stat().st_mode & 0o001 for path in (top, *top.parents)):
            break
    place = Path(stage.enter_context(tempfile.TemporaryDirectory(dir=top)))
    place.chmod(0o777)
    return place


def plain(text: str) -> str:
    """What is left of a secret in a configuration that allows letters and digits only."""
    return "".join(c for c in text if c.isascii() and c.isalnum())


def tinyproxy(stage: Stage) -> Program:
    """Tinyproxy that asks for a password, of letters and digits."""
    port, path = closed_port(), stage.directory / "tinyproxy.conf"
    settings = "Port %d\nListen 127.0.0.1\nTimeout 60\nMaxClients 20\nBasicAuth %s %s\n"
    path.write_text(settings % (port, *map(plain, stage.login)))
    return Program(stage, program("tinyproxy"), "-d", "-c", str(path), port=port)


def microsocks(stage: Stage) -> Program:
    """Microsocks, with the stage's user and password."""
    port, (user, password) = closed_port(), stage.login
    at = "-i", "127.0.0.1", "-p", str(port)
    return Program(stage, program("microsocks"), *at, "-u", user, "-P", password, port=port)
