"""Real proxies as programs of their own, each on a free port of loopback, ended with the stage."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from .situations import package, program
from .stage import Stage


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Program:
    """A server program in the foreground, ready when its port answers."""

    def __init__(self, stage: Stage, *command: str, port: int, leaves: str = "") -> None:
        """``leaves``: how the names of its shared memory begin, which it leaves behind when it is killed."""
        self._stage, self._command, self.port, self._leaves = stage, command, port, leaves
        self._start()
        stage.open.callback(self.kill)

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


SQUID = """
http_port 127.0.0.1:%(port)d
%(auth)s
http_access allow %(who)s
http_access deny all
cache deny all
hosts_file %(place)s/hosts
pid_filename none
access_log stdio:%(place)s/access.log
cache_log %(place)s/cache.log
coredump_dir %(place)s
netdb_filename none
pinger_enable off
shutdown_lifetime 0 seconds
max_filedescriptors 256
"""
NAME = "keys.acme.example"


def squid(stage: Stage, auth: str = "basic") -> Program:
    """Squid, to which ``NAME`` is this machine. ``auth``: "", "basic" (user and password of the stage), "ntlm"."""
    place, port = _open_to_all(stage), free_port()
    (place / "hosts").write_text("127.0.0.1 %s\n" % NAME)
    helpers = "/usr/lib/squid/"
    known = "acl known proxy_auth REQUIRED\n"
    lines = ""
    if auth == "basic":
        password = stage.secrets.proxy_password.encode()
        made = subprocess.run(
            ["openssl", "passwd", "-apr1", "-stdin"], input=password, stdout=-1, check=True
        )
        line = stage.secrets.proxy_user.encode() + b":" + made.stdout
        (place / "passwords").write_bytes(line)
        lines = "auth_param basic program %sbasic_ncsa_auth %s/passwords\n" % (helpers, place)
        lines += "auth_param basic children 1 startup=1\n" + known
    if auth == "ntlm":
        for scheme in ("negotiate", "ntlm"):
            lines += "auth_param %s program %sntlm_fake_auth\n" % (scheme, helpers)
            lines += "auth_param %s children 1 startup=1\n" % scheme
        lines += known
    who = "known" if auth else "all"
    facts = {"port": port, "auth": lines, "who": who, "place": place}
    (place / "squid.conf").write_text(SQUID % facts)
    # Two of one service name, as in two runs of the tests, would share memory.
    service = "squid%dat%d" % (os.getpid(), port)
    command = program("squid"), "-N", "-n", service, "-f", str(place / "squid.conf")
    return Program(stage, *command, port=port, leaves=service + "-")


def _open_to_all(stage: Stage) -> Path:
    """A directory for one who gives up root: those of tests, and all below, are their owner's alone."""
    for top in map(Path, (tempfile.gettempdir(), "/dev/shm", "/var/tmp")):
        if all(path.exists() and path.stat().st_mode & 0o001 for path in (top, *top.parents)):
            break
    place = Path(stage.open.enter_context(tempfile.TemporaryDirectory(dir=top)))
    place.chmod(0o777)
    return place


def plain(text: str) -> str:
    """What is left of a secret in a configuration that allows letters and digits only."""
    return "".join(c for c in text if c.isascii() and c.isalnum())


def tinyproxy(stage: Stage) -> Program:
    """Tinyproxy that asks for a password, of letters and digits."""
    port, path = free_port(), stage.directory / "tinyproxy.conf"
    user, password = plain(stage.secrets.proxy_user), plain(stage.secrets.proxy_password)
    lines = ["Port %d" % port, "Listen 127.0.0.1", "Timeout 60", "MaxClients 20"]
    lines += ["BasicAuth %s %s" % (user, password)]
    path.write_text("\n".join(lines) + "\n")
    return Program(stage, program("tinyproxy"), "-d", "-c", str(path), port=port)


def microsocks(stage: Stage, *, auth: bool) -> Program:
    """Microsocks, with the stage's user and password or open to all."""
    port = free_port()
    command = [program("microsocks"), "-i", "127.0.0.1", "-p", str(port)]
    if auth:
        command += ["-u", stage.secrets.proxy_user, "-P", stage.secrets.proxy_password]
    return Program(stage, *command, port=port)


def proxy_py(stage: Stage, *, over_tls: bool) -> Program:
    """proxy.py with the stage's user and password; ``over_tls``: itself behind a certificate for localhost."""
    port = free_port()
    place = str(Path(package("proxy")).parent)
    code = "import sys; sys.path.insert(0, %r); import proxy; proxy.entry_point()" % place
    who = "%s:%s" % (stage.secrets.proxy_user, stage.secrets.proxy_password)
    command = [sys.executable, "-c", code, "--hostname", "127.0.0.1", "--port", str(port)]
    command += ["--num-workers", "1", "--num-acceptors", "1", "--basic-auth", who]
    command += ["--data-dir", str(stage.directory / "proxy.py"), "--log-level", "e"]
    if over_tls:
        certificate = str(stage.authority.issue("127.0.0.1"))
        command += ["--cert-file", certificate, "--key-file", certificate]
    return Program(stage, *command, port=port)


def mitmproxy(stage: Stage) -> tuple[Program, Path]:
    """Mitmproxy, which looks into TLS, and the certificate of its authority, which it makes itself."""
    port, place = free_port(), stage.directory / "mitmproxy"
    settings = ["confdir=%s" % place, "connection_strategy=lazy"]
    settings += ["ssl_verify_upstream_trusted_ca=%s" % stage.authority.path]
    settings += ["proxyauth=%s:%s" % (stage.secrets.proxy_user, stage.secrets.proxy_password)]
    command = [program("mitmdump"), "--listen-host", "127.0.0.1", "--listen-port", str(port)]
    for setting in settings:
        command += ["--set", setting]
    return Program(stage, *command, port=port), place / "mitmproxy-ca-cert.pem"
