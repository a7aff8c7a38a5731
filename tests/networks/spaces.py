"""Network and mount namespaces that end with this process, however it ends.

A space is held open by a program that waits for the end of a pipe, so none has a name and nothing is left behind.
"""

import ctypes
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Optional, TypeVar

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000


class Space:
    """A network of its own, with loopback up, and a view of the file system of its own."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._holder.stdout
        if not self._holder.stdout.readline():
            self.close()
            raise OSError("no namespaces here")
        self.ip("link set lo up")

    def close(self) -> None:
        """Give it back; who is inside keeps it until it leaves."""
        assert self._holder.stdin and self._holder.stdout
        self._holder.stdin.close()
        self._holder.wait()
        self._holder.stdout.close()

    def command(self, *words: str) -> tuple[str, ...]:
        """What runs ``words`` inside."""
        return ("nsenter", "-t", str(self._holder.pid), "-n", "-m", "--", *words)

    def run(self, *words: str, input: Optional[str] = None) -> str:
        """Run a program inside; its output."""
        done = subprocess.run(
            self.command(*words), input=input, capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stderr
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Commands of iproute2."""
        self.run("ip", "-batch", "-", input="\n".join(lines) + "\n")

    def show(self, path: str, content: str, directory: Path) -> None:
        """Let the file at ``path`` have another content inside."""
        file = directory / Path(path).name
        file.write_text(content)
        self.run("mount", "--bind", str(file), path)

    def within(self, work: Callable[[], T]) -> T:
        """What ``work`` gives when it runs inside: a socket opened there stays there."""
        with ThreadPoolExecutor(1, initializer=self._enter) as inside:
            return inside.submit(work).result()

    def _enter(self) -> None:
        with open("/proc/%d/ns/net" % self._holder.pid) as space:
            if ctypes.CDLL(None, use_errno=True).setns(space.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")


def missing() -> str:
    """Why there can be no namespaces, "" where there can."""
    from .situations import program

    lacking = [name for name in ("unshare", "nsenter", "mount", "ip") if not program(name)]
    if lacking or not os.path.exists("/dev/net/tun"):
        return "needs " + ", ".join(lacking or ["/dev/net/tun"])
    try:
        Space().close()
    except (OSError, AssertionError):
        return "needs root, to make network namespaces"
    return ""
