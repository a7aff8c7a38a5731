"""Segments: the files that hold records. Their names, one that is written, one that is read, and how one ends.

A writer holds its segment's lock for life: an unlocked one is complete. A truncated file is gone, whether or not its
name is: who truncates has forgotten it first, who reads one that became shorter begins anew, and a writer whose file
has no name, or not the length that it knows, writes the line elsewhere.
"""

from __future__ import annotations

import errno
import os

from .. import TYPE_CHECKING, files, lines
from .record import CONSENT, DAMAGED, NEWER, Record, parse

if TYPE_CHECKING:
    from typing import Callable, Collection, Optional

    from ..clock import Clock
    from .record import Key

    Lease = Callable[[int, bool], None]

LICENCE, USAGE, COUNTERS = CLASSES = ("l", "u", "c")
SUFFIX, TEMPORARY = ".seg", ".tmp"
BOOK, LOCK, ROOM = "agent.book", "agent.lock", "agent.room"
# What every line that this version writes begins with, behind its checksum; told without parsing.
OPENING = b' {"v":1,"k":"'
# How many segments of ended processes are tried before a new one is begun.
ADOPTIONS = 4
# Read at once; longer than any line of ours.
CHUNK_BYTES = 4 << 20
# Larger than any of ours: 20 GB that a damaged disk made of one were read for 100 s.
MOST_BYTES = 64 << 20
# Where locks do not work (some network homes) a segment left alone for so long has no writer.
LOCKLESS_AGE_S = 7 * 86400.0


class QuotaFull(OSError):
    """No room, and nothing that may be evicted."""


# -- names ----


def is_hex(text: str, length: int) -> bool:
    """Whether ``text`` is so many lower-case hexadecimal digits."""
    return len(text) == length and not text.strip("0123456789abcdef")


def is_segment(name: str) -> bool:
    """Whether a name is a segment's: ``<class>-<ms, 12 hex>-<random, 16 hex>.seg``."""
    known = len(name) == 35 and name[0] in CLASSES and name[1] == name[14] == "-"
    return known and name.endswith(SUFFIX) and is_hex(name[2:14] + name[15:31], 28)


def is_ours(name: str) -> bool:
    """Whether a name is one of ours. No other is ever read, counted or removed."""
    if name.endswith(TEMPORARY):
        name = name[: -len(TEMPORARY)].rpartition(".")[0]
    kind, _, rest = name.partition("-")
    if kind == "identity":
        return is_hex(rest[:-5] if rest.endswith(".lock") else rest, 16)
    return name in (BOOK, LOCK, ROOM, CONSENT) or is_segment(name)


def paths(directory: str) -> list[str]:
    """All files of ours in a directory; raises ``OSError``."""
    return [os.path.join(directory, n) for n in os.listdir(directory) if is_ours(n)]


def clear_way(directory: str) -> None:
    """Rename what stands in the place of a file of ours and is none: a directory, a link, a pipe.

    So is a lock that others could open, and hold for ever. Where modes do not work it stays.
    """
    for name in (BOOK, LOCK, ROOM, CONSENT):
        path = os.path.join(directory, name)
        try:
            found = os.lstat(path)
            own = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
            odd = found.st_mode & 0o170000 != 0o100000 or found.st_nlink > 1 or not own
            if not odd and name in (LOCK, ROOM) and found.st_mode & 0o077:
                os.chmod(path, 0o600)
                odd = not os.lstat(path).st_mode & 0o077
            if odd:
                os.rename(path, "%s.%s%s" % (path, os.urandom(8).hex(), TEMPORARY))
        except OSError:
            pass  # there is none, or it stays


def created_ms(name: str) -> int:
    """When a segment was begun, Unix milliseconds by its writer's clock."""
    return int(name[2:14], 16)


def order(name: str) -> str:
    """A sort key: the oldest segment first."""
    return name[2:14] + name


def listing(directory: str) -> list[str]:
    """The segments of a directory, oldest first; raises ``OSError`` but for a missing one."""
    try:
        return sorted(filter(is_segment, os.listdir(directory)), key=order)
    except FileNotFoundError:
        return []


# -- writing ----


class Segment:
    """One that this process appends to; ``size`` is what must be in it."""

    def __init__(self, file: files.File, size: int = 0, count: int = 0) -> None:
        self.name, self._file = os.path.basename(file.path), file
        self.size, self.count = size, count
        # A write or a sync failed, or was broken off: the next sync proves nothing.
        self.failed = False
        self._synced = -1  # so far; below 0 its name is not yet either, new or adopted

    def append(self, data: bytes, *, sync: bool) -> None:
        """Put whole lines into it; raise ``OSError`` where they may not survive."""
        try:
            self._file.write(data)
            self.size += len(data)
            self.count += data.count(b"\n")
            if sync:
                self.sync()
            found = self._file.stat()
            # Purged, evicted or erased, and what was written with it.
            if found.st_size != self.size or (found.st_nlink == 0 and not files.WINDOWS):
                raise FileNotFoundError(errno.ENOENT, "the segment was removed", self.name)
        except BaseException:
            self.failed = True
            raise

    def sync(self) -> None:
        """Make what was appended survive a power cut."""
        size = self.size  # of now: a signal handler may append during the sync
        if self._synced < size:
            self._file.sync()
            if self._synced < 0:
                files.sync_directory(os.path.dirname(self._file.path))
            self._synced = size

    def close(self, *, sync: bool) -> None:
        """Let go of it, synced if wished: nobody can do that later. An empty one goes."""
        try:
            if self.size == 0:
                destroy(self._file)
            elif sync:
                self.sync()
        except OSError:
            pass
        finally:
            self._file.close()


class Writer:
    """The open segments of one process, one of each class; ``lease(size, anew)`` makes sure that there is room."""

    def __init__(self, directory: str, clock: Clock, power: bool, most: tuple[int, int]) -> None:
        self._directory, self._clock, self._power = directory, clock, power
        self._most_bytes, self._most_lines = most  # of one segment
        self._open: dict[str, Segment] = {}
        self._last_ms: dict[str, int] = {}
        # Until a failure: the next sync of a file may succeed without the pages that were lost.
        self._adopting = True

    def write(
        self, class_: str, data: bytes, sync: bool, lease: Optional[Lease], opening: bytes = b""
    ) -> None:
        """Lines into the open segment of a class, or behind ``opening`` into a new one; once more where that fails.

        Counters' last one is let go only after its successor holds them: a window between two was taken for closed, and
        sent with 5 of 40. A signal handler that interrupts us finds no open segment, and begins its own. Raises
        ``OSError``.
        """
        for again in (False, True):
            known = self._open.get(class_)
            fits = known is not None and not (
                known.failed
                or known.size + len(data) > self._most_bytes
                or known.count >= self._most_lines
            )
            if not fits and class_ != COUNTERS:
                self.seal((class_,))  # it may be evicted
            if lease is not None:
                lease(len(data) + len(opening) * (not fits), not fits)
            old, target = self._open.pop(class_, None), None
            kept = old if class_ == COUNTERS else None
            try:
                # A report of what was evicted may have begun one.
                target = old if fits or class_ != COUNTERS else None
                text = data if target is not None else opening + data
                target = target or self._new(class_)
                target.append(text, sync=sync and self._power)
                kept = target
                return
            except OSError:
                self._adopting = False
                if again:
                    raise
            finally:
                theirs = self._open.get(class_)  # of who interrupted us
                if kept is not None and (theirs is None or theirs.name < kept.name):
                    self._open[class_] = kept
                for one in (old, target, theirs):
                    if one is not None and one is not self._open.get(class_):
                        one.close(sync=self._power)

    def _new(self, class_: str) -> Segment:
        last_ms, adopting = self._last_ms.get(class_, -1), self._adopting and class_ != COUNTERS
        found = self._adopt(class_, last_ms) if adopting else None
        found = found or self._begin(class_, max(int(self._clock.time() * 1000), last_ms + 1))
        # Within a run the order of names is the order of records, whatever the clock does.
        self._last_ms[class_] = created_ms(found.name)
        return found

    def _begin(self, class_: str, ms: int) -> Segment:
        for _ in range(8):
            name = "%s-%012x-%s%s" % (class_, ms & 0xFFFFFFFFFFFF, os.urandom(8).hex(), SUFFIX)
            file = files.create(os.path.join(self._directory, name))
            if file.hold() is not False:
                return Segment(file)
            file.close()  # somebody took it for an abandoned one, and removes it
        raise OSError(errno.EAGAIN, "no segment could be claimed", self._directory)

    def _adopt(self, class_: str, after_ms: int) -> Optional[Segment]:
        """Go on with a segment that an ended process left unfilled, if one of the newest is free.

        Else each start would leave a file. None that is empty (somebody may have truncated it), damaged, or of a newer
        format is taken.
        """
        names = [n for n in listing(self._directory) if n[0] == class_ and created_ms(n) > after_ms]
        most = self._most_bytes // 2
        for name in names[: -ADOPTIONS - 1 : -1]:
            file = seize(os.path.join(self._directory, name))
            if file is None:
                continue
            try:
                data = file.read(0, most) if file.held else b""
                texts = [line for line in data.split(b"\n") if line]
                whole = all(line[8:].startswith(OPENING) for line in texts)
                if whole and 0 < len(data) < most and 0 < len(texts) < self._most_lines:
                    file.write(b"\n")  # a power cut may have left a line without its end
                    return Segment(file, len(data) + 1, len(texts))
            except OSError:
                pass
            file.close()
        return None

    def sync(self) -> Optional[OSError]:
        """Make everything appended so far survive a power cut; what went wrong."""
        failure = None
        for target in list(self._open.values()) if self._power else ():
            try:
                target.sync()
            except OSError as error:
                failure, target.failed, self._adopting = error, True, False
        return failure

    def seal(self, which: Collection[str]) -> None:
        """End the open segments of these classes, or names."""
        for class_, target in list(self._open.items()):
            if class_ in which or target.name in which:
                target.close(sync=self._power)
                self._open.pop(class_, None)


# -- reading ----


class Reading:
    """What is known of one segment's content, as far as it is whole; ``records`` are stubs."""

    __slots__ = ("name", "path", "cursor", "records", "damaged", "newer")

    def __init__(self, path: str) -> None:
        self.name, self.path = os.path.basename(path), path
        self.forget()

    def forget(self) -> None:
        """Begin anew at the next refresh."""
        self.cursor = self.damaged = self.newer = 0
        self.records: dict[Key, Record] = {}

    def refresh(self) -> None:
        """Read what was appended since. Raises ``OSError``."""
        # Over a network a size may be seconds old: a counter's sum without its end.
        if self.name[0] == COUNTERS or os.lstat(self.path).st_size != self.cursor:
            with files.open_read(self.path) as file:
                self.read(file)

    def read(self, file: files.File) -> None:
        """The same, of an open file; an unterminated tail was never acknowledged."""
        if file.stat().st_size < self.cursor:
            self.forget()
        while self.cursor < MOST_BYTES:
            data = file.read(self.cursor, CHUNK_BYTES)
            end = data.rfind(b"\n") + 1
            if not end and len(data) < CHUNK_BYTES:
                return
            self._take(data[: end or len(data)])

    def _take(self, data: bytes) -> None:
        for line in data.split(b"\n"):
            found = parse(lines.decode(line))
            if isinstance(found, Record):
                stub = found.stub((self.name, self.cursor, len(line)))
                known = self.records.get(stub.key)
                if known is None or known.total <= stub.total:
                    self.records[stub.key] = stub
            elif line.rstrip():
                self.newer += found is NEWER
                self.damaged += found is DAMAGED
            self.cursor += len(line) + 1
        self.cursor -= 1  # behind the last one there is no newline


# -- the end ----


def seize(path: str) -> Optional[files.File]:
    """Hold a segment that nobody writes; None where somebody does, or may, or it cannot be opened."""
    try:
        file = files.open_append(path, missing_ok=False)
    except OSError:
        return None
    held: Optional[bool] = False
    try:
        held = file.hold()
        if held is None:
            import time  # the file system's clock, so the system's and no other

            held = time.time() - file.stat().st_mtime > LOCKLESS_AGE_S
    except OSError:
        held = False
    finally:
        if not held:
            file.close()
    return file if held else None


def destroy(file: files.File) -> bool:
    """End a segment that was opened for this, and let go of it; False where it stays as it is.

    Truncated first, for the unlink may fail. Closed first: Windows unlinks no open file.
    """
    try:
        file.cut()
        file.close()
        files.remove(file.path)
        return True
    except OSError:
        return False
    finally:
        file.close()


def end(path: str) -> bool:
    """``destroy`` a file, whoever writes it; False where something may be left in it."""
    try:
        return destroy(files.open_append(path, missing_ok=False))
    except FileNotFoundError:
        return True
    except OSError:
        return False
