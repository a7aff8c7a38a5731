"""Private files: how every file of ours is opened, read, written whole, locked and made durable; where state lies.

Nothing here follows a link, is readable by another user, or is inherited by a child program; what a forked child
inherits it can close. Callers get ``OSError`` and decide; what to do on a bad disk lives on the floors above.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found, unused-ignore]  # ``signal`` loads enum
import errno
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Collection, Mapping

WINDOWS = os.name == "nt"
if WINDOWS:  # pragma: no cover
    import msvcrt
else:
    import fcntl
# Windows: O_BINARY, or "\n" would become "\r\n" and break checksums; O_NOINHERIT is the default since 3.4.
# O_NONBLOCK: a FIFO planted in place of a file must not block its opener.
_SAFE = 0
for _name in ("O_CLOEXEC", "O_BINARY", "O_NOFOLLOW", "O_NONBLOCK"):
    _SAFE |= getattr(os, _name, 0)
# Windows locks a byte range and forbids others to read it: one byte far behind any content.
_LOCK_OFFSET = 0x7FFFFFFE
# Some file systems cannot sync a directory, or anything; that is no failure of the disk.
_CANNOT_SYNC = (errno.EINVAL, getattr(errno, "ENOTSUP", errno.EINVAL))
# On POSIX only "try again" means that somebody has the lock; EACCES is what some network homes say that have none.
_HELD = (errno.EACCES, errno.EDEADLK) if WINDOWS else (errno.EAGAIN, errno.EWOULDBLOCK)
# It ends a process that makes a file too large. Python ignores it, unless its host did not let it.
_SIGXFSZ = getattr(_signal, "SIGXFSZ", 0)
# Of a closed file: no descriptor has this number, and every call on it gives an ``OSError``.
_CLOSED = 0x7FFFFFFF


class File:
    """One open file of ours; a context manager that closes it.

        with files.create(path) as file:          # or open_append, open_read
            if file.hold() is not False:          # locked, and the name is still this file's
                file.write(line)                  # all of it or OSError
                file.sync()

    Before it writes, cuts or closes it looks whether the descriptor is still this file's: a host that closes
    descriptors it does not know lets its own next file have the number, and that one is not ours to write into.
    """

    __slots__ = ("path", "_fd", "_identity", "held")

    def __init__(self, path: str, flags: int) -> None:
        self.path = path
        self.held: bool | None = None  # its lock: what ``lock`` or ``hold`` said last
        try:
            fd = os.open(path, flags | _SAFE, 0o600)
            self._fd = fd if fd > 2 else above_stdio(fd)
        except OSError:
            raise
        except Exception as error:  # a hook of the host's
            raise OSError(errno.EPERM, type(error).__name__, path) from error
        try:
            found = os.fstat(self._fd)
        except OSError:
            os.close(self._fd)
            raise
        self._identity = (found.st_dev, found.st_ino)
        # By another name it may be anything of this user's.
        own = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
        if found.st_mode & 0o170000 != 0o100000 or not own or found.st_nlink > 1:
            self.close()
            raise PermissionError(errno.EPERM, "is no file of this user alone", path)
        if found.st_mode & 0o777 != 0o600 and flags & os.O_RDWR and not WINDOWS:
            try:  # the umask of the host may take even our own rights away
                os.fchmod(self._fd, 0o600)
            except OSError:
                pass  # FAT knows no modes

    def __enter__(self) -> File:
        return self

    def stat(self) -> os.stat_result:
        """What the system says about it; raises ``OSError`` where the descriptor is no longer this file's."""
        found = os.fstat(self._fd)
        if (found.st_dev, found.st_ino) != self._identity:
            raise OSError(errno.EBADF, "the descriptor is no longer ours", self.path)
        return found

    def read(self, offset: int, limit_bytes: int) -> bytes:
        """At most ``limit_bytes`` from ``offset`` on."""
        chunks = []
        while chunk := _read(self._fd, min(max(limit_bytes, 0), 1 << 20), offset):
            chunks.append(chunk)
            limit_bytes -= len(chunk)
            offset += len(chunk)
        return b"".join(chunks)

    def write(self, data: bytes) -> None:
        """Append ``data`` in one call or raise: a full disk writes short, and half a line is no line."""
        size = self.stat().st_size + len(data)
        if _SIGXFSZ and _signal.getsignal(_SIGXFSZ) != _signal.SIG_IGN and size > _most_bytes():
            raise OSError(errno.EFBIG, "beyond the size that this process may write", self.path)
        if os.write(self._fd, data) != len(data):
            raise OSError(errno.ENOSPC, "short write", self.path)

    def cut(self) -> None:
        """Leave nothing of its content."""
        self.stat()
        os.ftruncate(self._fd, 0)

    def sync(self) -> None:
        """Make what was written survive a power cut, as far as the platform can."""
        _sync(self._fd)

    def lock(self) -> bool | None:
        """Take its lock without waiting: True, False (held), None (no locks here).

        ``flock``, never ``lockf``: a POSIX lock vanishes when *any* descriptor of the process on that file closes.
        """
        try:
            if WINDOWS:  # pragma: no cover
                os.lseek(self._fd, _LOCK_OFFSET, os.SEEK_SET)
                msvcrt.locking(self._fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            else:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.held = True
        except Exception as error:  # or a hook of the host's
            self.held = False if getattr(error, "errno", None) in _HELD else None
        return self.held

    def hold(self) -> bool | None:
        """``lock`` it and check that it still has its name, else False.

        Whoever removes files may take a new one for an abandoned one between its creation and its lock: without
        this check 33 of 5,767 new files were lost to one.
        """
        self.lock()
        self.held = self.held if self.is_named() else False
        return self.held

    def is_named(self) -> bool:
        """Whether its path leads to it."""
        try:
            found = os.lstat(self.path)
            same: bool = (found.st_dev, found.st_ino) == self._identity
            if WINDOWS and not same:  # a name's numbers may be shorter there than an open file's
                with open_read(self.path) as named:
                    same = named._identity == self._identity
            return same
        except OSError:
            return False

    def close(self, *unused: object) -> None:
        """Close, whatever the disk says about it; its lock is freed even where a forked child still has the file."""
        ours = True
        try:
            found = os.fstat(self._fd)
            ours = (found.st_dev, found.st_ino) == self._identity
            if ours and self.held is not None and not WINDOWS:  # nothing is inherited there
                fcntl.flock(self._fd, fcntl.LOCK_UN)
        except Exception as error:  # a bad disk may not tell of it, or not unlock it
            ours &= getattr(error, "errno", None) != errno.EBADF
        try:
            if ours:
                os.close(self._fd)
        except OSError:
            pass
        self._fd = _CLOSED  # not before: whatever interrupts us, it can be closed again

    __exit__ = close


def identity(look: Callable[[Any], os.stat_result], what: Any) -> tuple[int, int] | None:
    """What tells a path's file, or a descriptor's, from all others; None where that cannot be had."""
    try:
        found = look(what)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _seek_and_read(fd: int, size: int, offset: int) -> bytes:  # pragma: no cover
    os.lseek(fd, offset, os.SEEK_SET)
    return os.read(fd, size)


# Of a descriptor that a host gave to another file it moves nothing.
_read = getattr(os, "pread", _seek_and_read)


def above_stdio(fd: int) -> int:
    """``fd``, or another one of the same file: 0 to 2, which a host may have closed, are written to by everybody."""
    if fd > 2 or WINDOWS:
        return fd
    try:
        return int(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))
    finally:
        os.close(fd)


def _most_bytes() -> float:
    """How large this process may make a file."""
    from resource import RLIM_INFINITY, RLIMIT_FSIZE, getrlimit

    most = getrlimit(RLIMIT_FSIZE)[0]
    return float("inf") if most == RLIM_INFINITY else most


def create(path: str) -> File:
    """A file that did not exist, for appending; raises ``FileExistsError``."""
    return File(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND)


def open_append(path: str, *, missing_ok: bool = True) -> File:
    """A file for reading and appending; creates a missing one, in a directory of ours, unless told not to."""
    if missing_ok:
        check_directory(os.path.dirname(path))
    return File(path, os.O_RDWR | os.O_APPEND | (os.O_CREAT if missing_ok else 0))


def open_read(path: str) -> File:
    """A regular file that exists, for reading."""
    return File(path, os.O_RDONLY)


def read(path: str, limit_bytes: int, offset: int = 0) -> bytes:
    """At most ``limit_bytes`` of a file; b"" where there is none."""
    try:
        with open_read(path) as file:
            return file.read(offset, limit_bytes)
    except FileNotFoundError:
        return b""


def locked(path: str, *, missing_ok: bool = True) -> File:
    """``open_append`` once the file's lock is free, or after 0.2 s: then ``held`` is False."""
    import time

    for left in range(20, -1, -1):
        file = open_append(path, missing_ok=missing_ok)
        if file.hold() is not False or not left:
            break
        file.close()
        time.sleep(0.01)
    return file


def write_new(path: str, data: bytes) -> None:
    """A new file, durable, or none; raises ``FileExistsError`` where there is one."""
    with create(path) as file:
        try:
            file.write(data)
            file.sync()
        except BaseException:
            file.close()
            remove(path)
            raise


def beside(path: str, data: bytes) -> str:
    """The same under another name, to be moved to ``path`` in one step; that name."""
    temporary = "%s.%s.tmp" % (path, os.urandom(8).hex())
    write_new(temporary, data)
    return temporary


def replace(path: str, data: bytes) -> None:
    """Give ``path`` new content in one step."""
    temporary = beside(path, data)
    try:
        os.replace(temporary, path)
    finally:
        remove(temporary)


def remove(path: str) -> bool:
    """Unlink a file; False where that failed. A missing file counts as removed."""
    try:
        if WINDOWS:  # there nobody unlinks what is marked read-only
            os.chmod(path, 0o600)
        os.unlink(path)
    except FileNotFoundError:
        pass
    except Exception:  # or a hook of the host's
        return False
    return True


def _sync(fd: int) -> None:
    try:
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS: fsync stops at the drive's own cache
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    except (NameError, OSError):
        pass  # Windows; or not on this file system
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
            _sync(fd)
        finally:
            os.close(fd)


# -- directories ----


def _is_ours(found: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or found.st_uid == os.geteuid()


def ensure_directory(path: str) -> None:
    """Make ``path`` a directory of ours, 0700 as each level that is missing; raise ``OSError`` where it is not safe.

    Refused: a link or another user's directory in that place, and a home that belongs to somebody else
    (``sudo`` keeps ``HOME``): files of root in a user's home would lock that user out.
    """
    missing, above = [], os.path.abspath(path)
    while not os.path.lexists(above) and os.path.dirname(above) != above:
        missing.append(above)
        above = os.path.dirname(above)
    base = os.stat(above)
    if missing and not _is_ours(base) and base.st_uid != 0:
        raise PermissionError(errno.EPERM, "belongs to another user", above)
    for level in reversed(missing):
        try:
            os.mkdir(level, 0o700)
            os.chmod(level, 0o700)  # whatever the umask of the host took away
        except OSError:  # another process won, or modes are not known here; checked all the same
            if not os.path.isdir(level):
                raise
    check_directory(path)
    for level in missing:  # durable records in a directory that is not would be lost with it
        try:
            sync_directory(os.path.dirname(level))
        except OSError:
            pass  # a parent that we may enter and not read


def check_directory(path: str) -> None:
    """Raise ``OSError`` where ``path`` is no directory of ours alone; mend its rights where they are odd."""
    found = os.lstat(path)
    if found.st_mode & 0o170000 != 0o040000:
        raise NotADirectoryError(errno.ENOTDIR, "is not a directory", path)
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "belongs to another user", path)
    # Of one that a kill left half made we may have no right at all.
    if found.st_mode & 0o722 != 0o700 and not WINDOWS:
        if is_shared(path):  # root's /tmp, say: others would be locked out of what they use
            raise PermissionError(errno.EPERM, "is shared with other users", path)
        os.chmod(path, 0o700)


def is_shared(path: str) -> bool:
    """Whether others may write into a directory and are meant to (sticky), or have done so."""
    mode = os.stat(path).st_mode
    if not mode & 0o022 or mode & 0o1000:
        return bool(mode & 0o022)
    return not all(_is_ours(os.lstat(os.path.join(path, name))) for name in os.listdir(path))


# The product keeps state of its own in its directory, and our names are common ones: `history`, `lock`.
LEAF = "telemetry"
_NAMED = {"linux": "XDG_STATE_HOME", "win32": "LOCALAPPDATA"}  # variables with where it lies
_UNSAFE = frozenset('<>:"/\\|?*') | frozenset(map(chr, [*range(32), *range(0xD800, 0xE000)]))
# File systems end a name at 255 bytes; a checksum and the platform's own additions have room beside this.
_PART_BYTES = 64
# Device names of Windows, whatever follows them behind a dot.
_DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"}
_DEVICES |= {port + digit for port in ("COM", "LPT") for digit in "123456789\xb9\xb2\xb3"}


def state_directory(config: Any, environ: Mapping[str, str]) -> tuple[str | None, str]:
    """(the directory of this product's state, None where nothing may be kept in one; why not).

    Per user, vendor and product, as each platform wants it, in a leaf of our own. Nothing is written through a link
    or into another user's directory.
    """
    directory = config.state_dir
    if directory is None:
        base = _base(environ)
        if not os.path.isabs(base):
            return None, "there is no home directory to keep state in"
        directory = os.path.join(base, _part(config.vendor), _part(config.product_name), LEAF)
    try:
        found = os.lstat(directory)
    except OSError:
        # Missing, or unusable in a way that every attempt to write will find out.
        return directory, ""
    except ValueError:
        return None, "the path of the state directory cannot be encoded"
    if found.st_mode & 0o170000 == 0o120000:
        return None, "%s is a link" % directory
    if not _is_ours(found):
        return None, "%s belongs to another user" % directory
    return directory, ""


def _base(environ: Mapping[str, str]) -> str:
    """Where this platform keeps a user's state; "" for nowhere.

    Linux paths are known without a library (the XDG base directory specification: relative ones are invalid), and
    Windows names its own; ``platformdirs`` costs 20 to 100 ms and is asked for what is left. A test holds all to it.
    """
    home = environ.get("HOME", "")
    named = environ.get(_NAMED.get(sys.platform, ""), "")
    if os.path.isabs(named):
        return named
    if sys.platform.startswith("linux"):
        # Flatpak before 1.13 says nothing, and has ``~/.local`` in memory (flatpak#4477).
        if home and environ.get("FLATPAK_ID"):
            home = os.path.join(home, ".var", "app", environ["FLATPAK_ID"])
        return os.path.join(home, ".local", "state") * os.path.isabs(home)
    try:
        import platformdirs

        return platformdirs.user_state_dir(roaming=False)
    except ImportError:
        # Left out of a frozen product: what it would say where nothing is redirected.
        return os.path.join(home, "Library", "Application Support") if home and not WINDOWS else ""


def _part(name: str) -> str:
    """A name as one part of a path, valid on every platform; changed names stay distinct."""
    safe = "".join("_" if char in _UNSAFE else char for char in name).strip(" .")
    safe = safe.encode("utf-8")[:_PART_BYTES].decode("utf-8", "ignore")
    device = safe.upper().partition(".")[0].rstrip() in _DEVICES
    if safe == name and not device:
        return safe
    from binascii import crc32

    mark = crc32(name.encode("utf-8", "surrogatepass"))
    return "%s%s-%08x" % ("_" * device, safe or "_", mark)


# -- forks ----


def close_inherited(paths: Collection[str]) -> None:
    """In a forked child: close what any thread of the parent has open of these, and free none of its locks.

    Looked for and not kept in a list: another thread may fork between the opening of a file and the telling of it.
    Raises ``OSError``.
    """
    ours = {identity(os.lstat, path) for path in paths} - {None}
    for fd in map(int, os.listdir("/dev/fd")):
        if identity(os.fstat, fd) in ours:
            os.close(fd)
