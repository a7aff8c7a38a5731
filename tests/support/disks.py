"""Small file systems of the test's own: mounted where that is allowed, a reason to skip elsewhere."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TMPFS, EXT4, EXT4_1K = "tmpfs", "ext4", "ext4 with 1 KB blocks"
KINDS = (TMPFS, EXT4, EXT4_1K)


class NotHere(Exception):
    """Why there can be no such file system here."""


def _done(*command: str) -> None:
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise NotHere("%s: %s" % (" ".join(command[:2]), found.stderr.strip()))


@contextmanager
def mounted(
    place: Path, kind: str = TMPFS, *, size_kb: int = 2048, inodes: int = 0
) -> Iterator[Path]:
    """``place`` as a file system of this size; raises ``NotHere``. ``inodes`` limits how many files it takes."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("mount"):
        raise NotHere("only root can mount a small file system")
    place.mkdir()
    image = place.with_name(place.name + ".img")
    if kind == TMPFS:
        limit = ",nr_inodes=%d" % inodes if inodes else ""
        _done("mount", "-t", "tmpfs", "-o", "size=%dk%s" % (size_kb, limit), "tmpfs", str(place))
    else:
        mkfs = shutil.which("mkfs.ext4", path=os.environ.get("PATH", "") + ":/sbin:/usr/sbin")
        if mkfs is None:
            raise NotHere("there is no mkfs.ext4 (e2fsprogs)")
        with open(image, "wb") as file:
            file.truncate(size_kb << 10)
        options = ["-q", "-F", "-m", "0"]  # nothing is kept back for root
        options += ["-b", "1024" if kind == EXT4_1K else "4096"]
        options += ["-N", str(inodes)] if inodes else []
        _done(mkfs, *options, str(image))
        _done("mount", "-o", "loop", str(image), str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        image.unlink(missing_ok=True)


def remount(place: Path, options: str) -> None:
    _done("mount", "-o", "remount," + options, str(place))


def fill(place: Path) -> Path:
    """Take every byte that is left below ``place``; remove the file to give them back."""
    path = place / "filler"
    with open(path, "wb", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                if file.write(b"x" * size) < size:
                    size //= 2
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
        os.fsync(file.fileno())
    return path


def fill_names(place: Path) -> list[Path]:
    """Take every inode that is left."""
    made: list[Path] = []
    while True:
        path = place / ("file-%d" % len(made))
        try:
            path.touch()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return made
        made.append(path)
