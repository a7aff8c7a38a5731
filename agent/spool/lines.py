"""Reading line files that others are appending to, and appending to those that several processes write.

A ``Tail`` gives each whole line once. An unterminated tail stays unread until its newline comes, for its writer
may be in the middle of it, unless it checks: then only the newline is missing. A file that shrank or changed its
identity is read afresh.
"""

from __future__ import annotations

import errno
import os

from .. import files, jsonline
from . import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Iterator

# Larger than any file of ours under the largest sensible quota: nothing is read behind it.
MAX_FILE_BYTES = 64 << 20
# Read at once, and longer than any line.
CHUNK_BYTES = 8 << 20


class Tail:
    """The whole lines of one file, from where the last reading ended."""

    __slots__ = ("path", "offset", "rest", "_inode", "_limit_bytes")

    def __init__(self, path: str, limit_bytes: int = MAX_FILE_BYTES) -> None:
        self.path, self._limit_bytes = path, limit_bytes
        self.offset = self._inode = 0
        self.rest = b""  # unterminated

    def lines(self) -> Iterator[bytes]:
        """The new whole lines without newline; raises ``OSError``. A missing file is an empty one.

        A line is read once the next one is asked for: whatever interrupts its reader, it comes again. What has no
        newline for a whole chunk is given in pieces, and so is what the limit cuts.
        """
        while True:
            data, more = self._chunk()
            *lines, rest = data.split(b"\n")
            self.rest = b"" if more and lines else rest
            for line in lines:
                yield line
                self.offset += len(line) + 1
            cut = self.offset + len(rest) >= self._limit_bytes
            whole = rest and not more and (cut or jsonline.decode(rest) is not None)
            if (more and not lines) or whole:
                yield rest
                self.offset += len(rest)
                self.rest = b""
            if not more:
                return

    def _chunk(self) -> tuple[bytes, bool]:
        """What comes next, and whether there is more behind it."""
        try:
            fd = files.open_read(self.path)
        except FileNotFoundError:
            self.offset = 0
            return b"", False
        try:
            found = os.fstat(fd)
            if found.st_ino != self._inode or found.st_size < self.offset:
                self.offset = 0
            self._inode = found.st_ino
            left = min(found.st_size, self._limit_bytes) - self.offset
            data = files.read_from(fd, self.offset, min(left, CHUNK_BYTES))
            return data, CHUNK_BYTES == len(data) < left
        finally:
            files.close(fd)


def decoded(lines: Iterable[bytes]) -> Iterator[tuple[bytes, Any]]:
    """Each non-empty line with its value, None where it is damaged.

    What an editor or a transfer of texts made of line ends is no damage.
    """
    for line in lines:
        line = line.rstrip(b"\r\n")
        if line:
            yield line, jsonline.decode(line)


def append(path: str, *values: Any) -> int:
    """Put each value on a line of its own, whatever the last writer left; the file's new size.

    Raises ``OSError``, also where the file is somebody else's.
    """
    if is_foreign(path):
        raise FileExistsError(errno.EEXIST, "is somebody else's file", path)
    fd = files.open_append(path)
    try:
        files.write_whole(fd, b"\n" + b"".join(map(jsonline.encode, values)))
        return os.fstat(fd).st_size
    finally:
        files.close(fd)


def edit(path: str, change: Callable[[Any], Any]) -> None:
    """Give each value what ``change`` makes of it, None to drop it; damage goes too. Raises ``OSError``."""
    data = files.read(path, MAX_FILE_BYTES)
    found = [(line, old, change(old)) for line, old in decoded(data.split(b"\n"))]
    if not is_foreign(path) and any(new is None or new is not old for _, old, new in found):
        kept = [(line, old, new) for line, old, new in found if new is not None]
        lines = (line + b"\n" if new is old else jsonline.encode(new) for line, old, new in kept)
        files.replace(path, b"".join(lines))


def is_foreign(path: str) -> bool:
    """Whether a file that bears a common word as its name has content, and nothing in it looks like a line of ours.

    What a power cut made of a file of ours is all zeros, a full disk cuts its first line short, a bit may flip.
    """
    if os.path.basename(path) not in names.COMMON:
        return False
    try:
        data = files.read(path, CHUNK_BYTES).strip(b"\0\r\n")
    except OSError:
        return False  # no file at all
    empty = os.path.basename(path) == names.LOCK  # as ours always is
    return bool(data) and (empty or not any(map(_is_like_ours, data.split(b"\n"))))


def _is_like_ours(line: bytes) -> bool:
    checksum = sum(byte in b"0123456789abcdef" for byte in line[:8])
    whole = line[8:9] == b" " and line[9:10] in (b"{", b"[")
    return checksum >= min(6, len(line)) > 0 and (whole or len(line) < 10)


def rewrite(path: str, is_known: Callable[[Any], bool], known: Iterable[Any]) -> None:
    """Replace a file by its lines that are not ``is_known``, as they are, and these values; raises ``OSError``."""
    found = decoded(files.read(path, MAX_FILE_BYTES).split(b"\n"))
    kept = [line + b"\n" for line, value in found if value is not None and not is_known(value)]
    files.replace(path, b"".join([*kept, *map(jsonline.encode, known)]))
