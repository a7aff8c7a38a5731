"""A disk that can lose its power: what was synced, under which names, and what of the rest comes back.

``RecordingOs`` stands in for ``os`` in the modules under test. Each call that matters is told to a ``Machine`` first,
which may fail it, end its caller, or let somebody else go first; then it happens, and the ``Disk`` takes note.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Optional, Protocol


class Machine(Protocol):
    """Who hears of each call."""

    random: Random
    disk: Disk

    def tick(self, call: str = "") -> None:
        """A call begins."""

    def fault(self, kind: str) -> Optional[float]:
        """How much of it is done before it fails; None where it does not."""

    def descriptors(self) -> list[str]:
        """What the caller has open."""


class RecordingOs:
    """The ``os`` of the modules under test."""

    def __init__(self, world: Machine) -> None:
        self._world, self._disk = world, world.disk

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def urandom(self, n: int) -> bytes:
        return bytes(self._world.random.randrange(256) for _ in range(n))

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        self._world.tick()
        fd = os.open(path, flags, mode)
        self._disk.opened(fd, path)
        return fd

    def close(self, fd: int) -> None:
        self._disk.fds.pop(fd, None)
        os.close(fd)

    def write(self, fd: int, data: bytes) -> int:
        self._world.tick("write")
        part = self._world.fault("write")
        if part is not None:
            os.write(fd, data[: int(len(data) * part)])
            raise OSError(errno.ENOSPC, "planned")
        return os.write(fd, data)

    def ftruncate(self, fd: int, size: int) -> None:
        self._world.tick()
        self._disk.truncating(fd)
        os.ftruncate(fd, size)
        self._disk.truncated(fd, size)

    def unlink(self, path: str) -> None:
        self._world.tick("unlink")
        self._disk.unlinking(path)
        os.unlink(path)
        self._disk.unlinked(path)

    def rename(self, old: str, new: str) -> None:
        self._world.tick()
        self._disk.unlinking(new)
        os.rename(old, new)
        self._disk.renamed(old, new)

    replace = rename

    def link(self, old: str, new: str) -> None:
        self._world.tick()
        os.link(old, new)
        self._disk.linked(old, new)

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        self._world.tick()
        os.mkdir(path, mode)
        self._disk.made.add(path)

    def listdir(self, path: str) -> list[str]:
        if path == "/dev/fd":
            return self._world.descriptors()
        self._world.tick()
        return sorted(os.listdir(path))


class Disk:
    """What a power cut would leave of a directory: per file what was synced, and which names."""

    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)
        self.fds: dict[int, Any] = {}  # a file's number, or a directory's path
        self.made: set[str] = set()  # directories whose name was never synced
        self._next = 0
        self._names: dict[str, int] = {}
        self._kept: dict[str, int] = {}  # names as last synced
        self._since: list[tuple[str, ...]] = []  # and what became of them
        self._synced: dict[int, int] = {}
        self._gone: dict[int, bytes] = {}  # contents without a name
        self._before: dict[int, bytes] = {}  # contents before they were cut, unsynced

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def opened(self, fd: int, path: str) -> None:
        if os.path.isdir(path):
            self.fds[fd] = path
        elif os.path.dirname(path) == self.directory:
            name = os.path.basename(path)
            if name not in self._names:
                self._names[name] = self._next = self._next + 1
                self._since.append(("link", name, str(self._next)))
            self.fds[fd] = self._names[name]

    def adopt(self, name: str) -> None:
        """A file that somebody else wrote and synced."""
        if name not in self._names:
            self._names[name] = self._next = self._next + 1
        number = self._names[name]
        self._kept, self._since = dict(self._names), []
        self._synced[number] = os.path.getsize(self._path(name))
        self._before.pop(number, None)

    def synced(self, fd: int) -> None:
        found = self.fds.get(fd)
        if isinstance(found, str):
            self.made = {path for path in self.made if os.path.dirname(path) != found}
            if found == self.directory:
                self._kept, self._since = dict(self._names), []
        elif found is not None:
            self._synced[found] = os.fstat(fd).st_size
            self._before.pop(found, None)

    def truncating(self, fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        self._before.setdefault(self.fds[fd], os.read(fd, 1 << 24))

    def truncated(self, fd: int, size: int) -> None:
        number = self.fds[fd]
        self._synced[number] = min(self._synced.get(number, 0), size)

    def unlinking(self, path: str) -> None:
        number = self._names.get(os.path.basename(path))
        if number is not None and os.path.exists(path):
            with open(path, "rb") as file:
                self._gone[number] = file.read()

    def unlinked(self, path: str) -> None:
        name = os.path.basename(path)
        self._names.pop(name, None)
        self._since.append(("unlink", name))

    def linked(self, old: str, new: str) -> None:
        after = os.path.basename(new)
        self._names[after] = number = self._names[os.path.basename(old)]
        self._since.append(("link", after, str(number)))

    def renamed(self, old: str, new: str) -> None:
        before, after = os.path.basename(old), os.path.basename(new)
        self._names[after] = number = self._names.pop(before)
        self._since.append(("rename", before, after, str(number)))

    def cut(self, random: Random, how: str) -> None:
        """Power is gone and back. ``how`` much of what was never synced is there: "none", "all" or "some"."""

        def lucky() -> bool:
            return how == "all" or (how == "some" and random.random() < 0.5)

        lost = not all(lucky() for _ in self.made)
        left = {} if lost else self._names_left(random, how, lucky)
        contents = {
            name: self._content_left(number, random, how, lucky) for name, number in left.items()
        }
        for path in sorted(self.made if lost else (), key=len):
            shutil.rmtree(path, ignore_errors=True)
        if os.path.isdir(self.directory):
            for name in os.listdir(self.directory):
                os.unlink(self._path(name))
        for name, content in contents.items():
            fd = os.open(self._path(name), os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(fd, content)
            os.close(fd)
        self._names, self._kept, self._since, self.made = left, dict(left), [], set()
        self._synced = {left[name]: len(content) for name, content in contents.items()}
        self._gone, self._before = {}, {}

    def _names_left(self, random: Random, how: str, lucky: Callable[[], bool]) -> dict[str, int]:
        since = self._since
        if lucky():  # a journal: a prefix of what happened
            since = since[: len(since) if how == "all" else random.randint(0, len(since))]
        else:
            since = [step for step in since if lucky()]
        left = dict(self._kept)
        for kind, name, *rest in since:
            if kind == "link":
                left[name] = int(rest[0])
                continue
            left.pop(name, None)
            if kind == "rename":
                left[rest[0]] = int(rest[1])
        return left

    def _content_left(
        self, number: int, random: Random, how: str, lucky: Callable[[], bool]
    ) -> bytes:
        whole = self._gone.get(number, b"")
        for name, known in self._names.items():
            if known == number:
                with open(self._path(name), "rb") as file:
                    whole = file.read()
        if number in self._before and lucky():
            whole = self._before[number]
        least = min(self._synced.get(number, 0), len(whole))
        end = {"none": least, "all": len(whole)}.get(how, random.randint(least, len(whole)))
        if how == "some" and random.random() < 0.25:  # the length came, the content did not
            return whole[:end] + b"\0" * (len(whole) - end)
        return whole[:end]
