"""The directory that holds a copy: what lies there, what differs, and how it is brought up to date.

``VENDORED.json`` lists every file of a copy with its hash. A change begins by writing the new list beside it and ends
by putting it in the old one's place: while both are there the change is unfinished, and the same command finishes it.
Nothing is written or removed outside the directory, through a link, or that neither list names.
"""

from __future__ import annotations

import json
import os
from hashlib import sha256
from typing import Any, NamedTuple, Optional

from ...errors import AgentError, ConfigError
from .bill import timed_like
from .source import BILL, DISTRIBUTION, Content

MANIFEST = "VENDORED.json"
PENDING = MANIFEST + ".new"
_SCRATCH = MANIFEST + ".tmp"
_OURS = (MANIFEST, PENDING, _SCRATCH)
_FORMAT = 1
ABSENT, STRANGE = "", "not a file"  # in place of a hash


class Manifest(NamedTuple):
    """What was copied: ``files`` is path → SHA-256."""

    version: str
    parts: list[str]
    libraries: dict[str, str]
    files: dict[str, str]

    @classmethod
    def of(cls, content: Content) -> Manifest:
        """The list of a copy as it should be."""
        hashes = {path: sha256(data).hexdigest() for path, data in content.files.items()}
        return cls(content.version, content.parts, content.libraries, hashes)

    @classmethod
    def load(cls, path: str) -> Optional[Manifest]:
        """The list in a file, None where there is none; raises ``ConfigError`` where it is not as we write it."""
        try:
            with open(path, "rb") as file:
                read = json.load(file)
        except FileNotFoundError:
            return None
        except ValueError:
            raise ConfigError("%s: no JSON" % path) from None
        try:
            if read["format"] != _FORMAT:
                raise ConfigError("%s: of format %r, known is %d" % (path, read["format"], _FORMAT))
            found = cls(read["version"], read["parts"], read["libraries"], read["files"])
            texts = [found.version, *found.parts, *found.libraries.values()]
            texts += found.files.values()
            right = all(isinstance(text, str) for text in texts) and all(map(_inside, found.files))
        except (KeyError, TypeError, AttributeError):
            right = False
        if not right:
            raise ConfigError("%s: damaged; take it from your version control" % path)
        return found

    def dump(self) -> bytes:
        """As it lies in the directory."""
        return (
            json.dumps(
                {"format": _FORMAT, "name": DISTRIBUTION, **self._asdict()}, indent=1
            ).encode("ascii")
            + b"\n"
        )


class Difference(NamedTuple):
    """Between a copy and what is wanted; paths below the directory."""

    edited: list[str]
    missing: list[str]
    foreign: list[str]  # in the directory, on no list
    in_the_way: list[str]  # on no list, and where a file of ours has to go
    changed: list[str]
    new: list[str]
    gone: list[str]

    @property
    def local(self) -> list[str]:
        """What an upgrade would overwrite or bring back."""
        return sorted({*self.edited, *self.missing, *self.in_the_way})

    @property
    def behind(self) -> bool:
        """Whether an upgrade would bring anything."""
        return bool(self.changed or self.new or self.gone)


class Place:
    """One directory; raises ``OSError`` where it cannot be read or written."""

    def __init__(self, directory: str) -> None:
        self.root = os.path.realpath(directory)
        self.installed = Manifest.load(os.path.join(self.root, MANIFEST))
        self.pending = Manifest.load(os.path.join(self.root, PENDING))

    @property
    def empty(self) -> bool:
        """Whether nothing is there yet, but for what a first attempt may have left."""
        return not os.path.lexists(self.root) or not {*os.listdir(self.root)} - {_SCRATCH}

    def difference(self, content: Content) -> Difference:
        """How the copy differs from what was copied and from ``content``."""
        wanted = Manifest.of(content).files
        before = self.installed.files if self.installed else {}
        coming = self.pending.files if self.pending else {}
        known = {**coming, **before}
        executable = {path for path in known if self._is_executable(path)}
        # Some file systems know no such bit, and say that all files have it.
        edited = [] if len(executable) == len(known) else sorted(executable)
        missing: list[str] = []
        in_the_way: list[str] = []
        for path in sorted({*known, *wanted}):
            found = self._hash(path)
            if found == ABSENT:
                # Of an unfinished change either may be missing: the old that went, the new that has not come.
                if path in before and not self.pending:
                    missing.append(path)
            elif path in edited:
                pass
            elif found not in (before.get(path), coming.get(path), wanted.get(path)):
                (edited if path in known else in_the_way).append(path)
        if before.get(BILL) == self._hash(BILL) == self._bill(content):
            wanted[BILL] = before[BILL]  # made at another time, and nothing else
        return Difference(
            sorted(edited),
            missing,
            [path for path in self._listed() if path not in known and path not in in_the_way],
            in_the_way,
            [path for path in wanted if path in before and before[path] != wanted[path]],
            [path for path in wanted if path not in before],
            sorted(set(before) - set(wanted)),
        )

    def update(self, content: Content) -> list[str]:
        """Make the copy ``content``; the folders that are left with files of others in them.

        Raises ``AgentError`` where a directory or a link stands in the way. Interrupted, it can be done again.
        """
        wanted = Manifest.of(content)
        before = {**(self.pending.files if self.pending else {})}
        before.update(self.installed.files if self.installed else {})
        for path in {*wanted.files, *before}:
            self._check_way(path)
        os.makedirs(self.root, exist_ok=True)
        self._write(PENDING, wanted.dump())
        for path, data in content.files.items():
            if self._hash(path) != wanted.files[path] or self._is_executable(path):
                self._write(path, data)
        left: set[str] = set()
        for path in sorted(set(before) - set(wanted.files)):
            self._remove(path, left)
        os.replace(self._at(PENDING), self._at(MANIFEST))
        return sorted(left)

    def _at(self, path: str) -> str:
        return os.path.join(self.root, *path.split("/"))

    def _check_way(self, path: str) -> None:
        """Raise where ``path`` is a directory, or where the way to it leaves the directory."""
        there, *above = (self._at(path), *_parents(path))
        if os.path.isdir(there) and not os.path.islink(there):
            raise AgentError("%s is a directory: a file has to be there" % there)
        for parent in above:
            at = self._at(parent)
            if os.path.lexists(at) and not _is_real_directory(at):
                raise AgentError("%s is a link or a file: nothing is written through it" % at)

    def _hash(self, path: str) -> str:
        """Of the file there; ``ABSENT``, or ``STRANGE`` for what is no file of its own."""
        at = self._at(path)
        for parent in _parents(path):
            if os.path.lexists(self._at(parent)) and not _is_real_directory(self._at(parent)):
                return STRANGE
        if not os.path.lexists(at):
            return ABSENT
        if os.path.islink(at) or not os.path.isfile(at):
            return STRANGE
        with open(at, "rb") as file:
            # A version control may have given the files the line ends of this system.
            return sha256(file.read().replace(b"\r\n", b"\n")).hexdigest()

    def _is_executable(self, path: str) -> bool:
        try:
            return os.name != "nt" and bool(os.lstat(self._at(path)).st_mode & 0o111)
        except OSError:
            return False

    def _bill(self, content: Content) -> str:
        """The hash of the wanted bill, had it been made when the one that is there says."""
        try:
            with open(self._at(BILL), "rb") as file:
                return sha256(timed_like(content.files[BILL], file.read())).hexdigest()
        except (OSError, ValueError, LookupError, TypeError):
            return ABSENT

    def _listed(self) -> list[str]:
        """Every file in the directory but our lists. Bytecode too: Python loads it instead of what was compared."""
        found = []
        for directory, below, names in os.walk(self.root, onerror=_raise):
            links = [name for name in below if os.path.islink(os.path.join(directory, name))]
            for name in [*names, *links]:
                path = os.path.relpath(os.path.join(directory, name), self.root)
                found.append(path.replace(os.sep, "/"))
        return sorted(path for path in found if path not in _OURS)

    def _write(self, path: str, data: bytes) -> None:
        """Whole or not at all, in place of a link and never through it."""
        at, scratch = self._at(path), self._at(_SCRATCH)
        os.makedirs(os.path.dirname(at), exist_ok=True)
        if os.path.lexists(scratch):
            os.unlink(scratch)
        with open(scratch, "xb") as file:
            file.write(data)
        os.replace(scratch, at)

    def _remove(self, path: str, left: set[str]) -> None:
        """Remove a file of a list and the folders that it leaves empty; ``left`` gets those that it does not."""
        if os.path.lexists(self._at(path)):
            os.unlink(self._at(path))
        for parent in _parents(path):
            try:
                os.rmdir(self._at(parent))
                left.discard(parent)
            except OSError:
                if os.path.isdir(self._at(parent)):
                    left.add(parent)
                return


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _parents(path: str) -> list[str]:
    """The folders above ``path`` and below the copy, innermost first."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[:n]) for n in range(len(parts), 0, -1)]


def _is_real_directory(at: str) -> bool:
    # A junction of Windows is no link for ``islink``; resolving it leads elsewhere all the same.
    real = os.path.join(os.path.realpath(os.path.dirname(at)), os.path.basename(at))
    return os.path.isdir(at) and os.path.normcase(os.path.realpath(at)) == os.path.normcase(real)


def _inside(path: Any) -> bool:
    """Whether a listed path is one that we may have written: relative, downwards, plain."""
    if not isinstance(path, str) or path in _OURS or set(path) & set('\\:*?"<>|\0'):
        return False
    return all(part not in ("", ".", "..") for part in path.split("/"))
