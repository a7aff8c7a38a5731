"""A machine of its own for a test's process: its name, its ``/etc/hosts``, its resolver, no network but loopback.

For root on Linux, by namespaces of util-linux; nothing of it is seen outside of the process and its children.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

from networks.names import NameServer
from support.agent import ROOT, child_environ

_SPACES = ("unshare", "--uts", "--mount", "--net", "--")


def why_not() -> str:
    """Why no such machine can be had here; "" where it can."""
    if sys.platform != "linux":
        return "no namespaces here"
    if os.geteuid() or shutil.which("unshare") is None:
        return "needs root and unshare"
    done = subprocess.run([*_SPACES, "true"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "namespaces are not allowed here"


def run(code: str, place: Path, timeout_s: float = 40) -> subprocess.CompletedProcess[str]:
    """A program on a machine of its own, ``machine = Machine(place)`` at hand."""
    start = "import sys\nsys.path.insert(0, %r)\n" % str(ROOT / "tests")
    start += "from support.machine import Machine\nmachine = Machine(%r)\n" % str(place)
    return subprocess.run(
        [*_SPACES, sys.executable, "-W", "error", "-c", start + code],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env=child_environ(),
    )


class Machine:
    """What the process it is made in takes for its machine; ``asked`` holds (name, type) of each DNS question."""

    def __init__(self, place: str) -> None:
        self._place = Path(place)
        for name in ("hosts", "resolv.conf", "nsswitch.conf"):
            (self._place / name).write_text("")
            if not os.path.exists("/etc/" + name):
                raise SystemExit("no /etc/%s to cover" % name)
            subprocess.run(["mount", "--bind", self._place / name, "/etc/" + name], check=True)
        (self._place / "nsswitch.conf").write_text("hosts: files dns\n")
        (self._place / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:20\n")
        with socket.socket() as sock:
            import fcntl

            flags = struct.pack("16sh14x", b"lo", 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
            fcntl.ioctl(sock, 0x8914, flags)  # SIOCSIFFLAGS
        resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        resolver.bind(("127.0.0.1", 53))
        server = NameServer(resolver, {}).__enter__()
        self.names, self.asked = server.hosts, server.asked

    def is_called(self, host: str, hosts: str = "", search: str = "") -> None:
        """Take another name, another ``/etc/hosts``, another search list."""
        socket.sethostname(host)
        (self._place / "hosts").write_text("127.0.0.1 localhost\n" + hosts)
        text = "nameserver 127.0.0.1\noptions timeout:20\n" + "search %s\n" % search * bool(search)
        (self._place / "resolv.conf").write_text(text)
