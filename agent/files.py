"""Private files: how every file of ours is opened, read, written whole, locked and made durable.

Nothing here follows a link, is readable by another user, or is inherited by a child program; what a forked child
inherits it can close. Callers get ``OSError`` and decide; policy (what to do on a bad disk) lives on the floors above.
"""

from __future__ import annotations

import errno
import os
from _thread import RLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

WINDOWS = os.name == "nt"
# Windows: O_BINARY, or "\n" would become "\r\n" and break checksums; O_NOINHERIT is the default since 3.4.
# O_NONBLOCK: a FIFO planted in place of a file must not block its opener.
_SAFE = 0
for _name in ("O_CLOEXEC", "O_BINARY", "O_NOFOLLOW", "O_NONBLOCK"):
    _SAFE |= getattr(os, _name, 0)
# Windows locks a byte range and forbids others to read it: one byte far behind any content.
_LOCK_OFFSET = 0x7FFFFFFE
# Some file systems cannot sync a directory, or anything; that is no failure of the disk.
_CANNOT_SYNC = (errno.EINVAL, getattr(errno, "ENOTSUP", errno.EINVAL))
# Descriptors that are open now: what a forked child has to close.
_open_now: set[int] = set()
# Held while one comes or goes, and during a fork. A system call lets other threads run: of 300 forks beside two threads
# that opened files, 150 left a descriptor in the child that nobody knew of, and with it a lock for the child's life.
_still = RLock()
# Nobody waits longer for it: the fork hooks of the host may wait for a thread of the host that waits here.
STILL_S = 0.2


def ensure_directory(path: str) -> None:
    """Make ``path`` a directory of ours, 0700; raise ``OSError`` where it is not safe to use.

    Refused: a link or another user's directory in that place, and a home that belongs to somebody else
    (``sudo`` keeps ``HOME``): files of root in a user's home would lock that user out.
    """
    if not hasattr(os, "geteuid"):
        os.makedirs(path, exist_ok=True)
        return
    try:
        check_directory(path)
    except FileNotFoundError:
        parent = os.path.dirname(os.path.abspath(path))
        ancestor = parent
        while not os.path.isdir(ancestor) and os.path.dirname(ancestor) != ancestor:
            ancestor = os.path.dirname(ancestor)
        if os.stat(ancestor).st_uid not in (os.geteuid(), 0):
            raise PermissionError(errno.EPERM, "belongs to another user", ancestor) from None
        os.makedirs(parent, 0o700, exist_ok=True)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass  # another process won; checked all the same
        check_directory(path)
        while path != ancestor:  # durable records in a directory that is not would be lost with it
            path = os.path.dirname(os.path.abspath(path))
            try:
                sync_directory(path)
            except OSError:
                pass  # a parent that we may enter and not read


def check_directory(path: str) -> None:
    """Raise ``OSError`` where ``path`` is no directory of ours alone; close it to others where it was open."""
    found = os.lstat(path)
    if found.st_mode & 0o170000 != 0o040000:
        raise NotADirectoryError(errno.ENOTDIR, "is not a directory", path)
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "belongs to another user", path)
    if found.st_mode & 0o022 and not WINDOWS:
        if is_shared(path):  # root's /tmp, say: others would be locked out of what they use
            raise PermissionError(errno.EPERM, "is shared with other users", path)
        os.chmod(path, 0o700)


def is_shared(path: str) -> bool:
    """Whether others may write into a directory and are meant to (sticky), or have done so."""
    mode, user = os.stat(path).st_mode, os.geteuid()
    if not mode & 0o022 or mode & 0o1000:
        return bool(mode & 0o022)
    return any(os.lstat(os.path.join(path, n)).st_uid != user for n in os.listdir(path))


def _open(path: str, flags: int) -> int:
    try:
        hold_still()
        fd = os.open(path, flags | _SAFE, 0o600)
        _open_now.add(fd)
    finally:
        go_on()
    try:
        found = os.fstat(fd)
        regular = found.st_mode & 0o170000 == 0o100000
        ours = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
        if not (regular and ours):
            reason = "belongs to another user" if regular else "is not a regular file"
            raise PermissionError(errno.EPERM, reason, path)
        if found.st_mode & 0o077 and flags & os.O_RDWR and not WINDOWS:
            try:
                os.fchmod(fd, 0o600)
            except OSError:
                pass  # FAT knows no modes
    except OSError:
        close(fd)
        raise
    return fd


def create(path: str) -> int:
    """A descriptor for appending to a file that did not exist; raises ``FileExistsError``."""
    return _open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND)


def open_append(path: str, *, missing_ok: bool = True) -> int:
    """A descriptor for reading and appending; creates a missing file, in a directory of ours, unless told not to."""
    if missing_ok:
        check_directory(os.path.dirname(path))
    return _open(path, os.O_RDWR | os.O_APPEND | (os.O_CREAT if missing_ok else 0))


def open_read(path: str) -> int:
    """A descriptor for reading a regular file that exists."""
    return _open(path, os.O_RDONLY)


def close(fd: int) -> None:
    """Close, whatever the disk says about it."""
    try:
        hold_still()
        _open_now.discard(fd)
        os.close(fd)
    except OSError:
        pass
    finally:
        go_on()


def hold_still() -> None:
    """Before a fork: from here to ``go_on`` no other thread opens or closes a file of ours."""
    global _still
    if not _still.acquire(True, STILL_S):
        # Held by a fork that waits for this thread, or by nobody any more: a Ctrl-C may come between the two calls.
        # In the old one's place, so that this is waited for once and not at each file for the life of the process.
        fresh = RLock()
        fresh.acquire()  # before others see it: nobody may come to wait for it without end
        _still = fresh


def go_on() -> None:
    """The opposite of ``hold_still``, also for who waited in vain."""
    try:
        _still.release()
    except RuntimeError:
        pass


def close_inherited() -> None:
    """In a forked child: close what the parent had open, and so never hold a lock of the parent's.

    Never unlocks: the lock belongs to the open file, which is the parent's too.
    """
    global _still
    _still = RLock()
    for fd in list(_open_now):
        close(fd)


def read(path: str, limit_bytes: int) -> bytes:
    """The first ``limit_bytes`` of a file; b"" where there is none."""
    try:
        fd = open_read(path)
    except FileNotFoundError:
        return b""
    try:
        return read_from(fd, 0, limit_bytes)
    finally:
        close(fd)


def read_from(fd: int, offset: int, limit_bytes: int) -> bytes:
    """At most ``limit_bytes`` from ``offset`` on."""
    os.lseek(fd, offset, os.SEEK_SET)
    chunks = []
    while limit_bytes > 0:
        chunk = os.read(fd, min(limit_bytes, 1 << 20))
        if not chunk:
            break
        chunks.append(chunk)
        limit_bytes -= len(chunk)
    return b"".join(chunks)


def write_whole(fd: int, data: bytes) -> None:
    """Write ``data`` in one call or raise: a full disk writes short, and half a line is no line."""
    if os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, "short write")


def write_new(path: str, data: bytes) -> None:
    """A new file, durable, or none; raises ``FileExistsError`` where there is one."""
    fd = create(path)
    try:
        write_whole(fd, data)
        sync(fd)
    except OSError:
        remove_held(fd, path)
        raise
    close(fd)


def replace(path: str, data: bytes) -> None:
    """Give ``path`` new content in one step."""
    temporary = "%s.%s.tmp" % (path, os.urandom(8).hex())
    write_new(temporary, data)
    try:
        os.replace(temporary, path)
    except OSError:
        remove(temporary)
        raise


def remove(path: str) -> bool:
    """Unlink a file; False where that failed. A missing file counts as removed."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


def remove_held(fd: int, path: str) -> bool:
    """Unlink an open file and let go of it; False where it stays.

    Windows unlinks no open file: there ours is closed first, and a file that somebody else holds stays.
    """
    if WINDOWS:
        release(fd)
        return remove(path)
    try:
        return remove(path)
    finally:
        release(fd)


def sync(fd: int) -> None:
    """Make what was written survive a power cut, as far as the platform can."""
    try:
        import fcntl

        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync stops at the drive's own cache
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    except (ImportError, OSError):
        pass  # not there, or not on this file system
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


def sync_directory(path: str) -> None:
    """Make names created in ``path`` survive a power cut, where the platform can."""
    if not WINDOWS:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            sync(fd)
        finally:
            os.close(fd)


def lock(fd: int) -> Optional[bool]:
    """Take the lock of an open file without waiting: True, False (held), None (no locks here).

    ``flock``, never ``lockf``: a POSIX lock vanishes when *any* descriptor of the process on that file closes.
    Some network homes have no locks, or refuse with one error or another: all of them mean None. So does a module
    that cannot be loaded now, for want of a descriptor.
    """
    try:
        if WINDOWS:  # pragma: no cover
            import msvcrt

            os.lseek(fd, _LOCK_OFFSET, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except ImportError:
        return None
    except OSError as error:
        held = error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
        return False if held else None


def hold(fd: int, path: str) -> Optional[bool]:
    """``lock`` an open file and check that it still has its name, else False.

    Whoever removes files may take a new one for an abandoned one between its creation and its lock: without
    this check 33 of 5,767 new files were lost to one.
    """
    held = lock(fd)
    try:
        named, ours = os.stat(path), os.fstat(fd)
    except OSError:
        return False
    same = (named.st_ino, named.st_dev) == (ours.st_ino, ours.st_dev)
    return held if same else False


def unlock(fd: int) -> None:
    """Free the lock of an open file even where a child that was forked meanwhile still has the file open.

    For the process that took the lock, never for a child.
    """
    try:
        if not WINDOWS:  # nothing is inherited there, and closing frees
            import fcntl

            fcntl.flock(fd, fcntl.LOCK_UN)
    except (ImportError, OSError):
        pass


def release(fd: int) -> None:
    """Unlock and close."""
    unlock(fd)
    close(fd)
