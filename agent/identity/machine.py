"""The machine id: where Linux, macOS and Windows keep it, and which ids tell one machine from all others.

A machine id that leaves here is 32 lower-case hex digits and none of those known to sit on many machines. It stays in
this process: nothing prints it, and a problem is described without quoting what was found. Reading neither raises nor
blocks; Linux paths lie below ``root``, so that a directory tree can stand for a machine.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Optional

    # (name of a source, what gives its text or raises), the best first
    Sources = Iterable[tuple[str, Callable[[], str]]]

# Placeholders of firmware makers (osquery pull request 4374, oshi issue 2417, systemd pull request 11137), the SMBIOS
# placeholder in both byte orders, and the MD5 of nothing, which scripts write that hash an absent serial number.
_SHARED = frozenset(
    (
        "03000200040005000006000700080009",
        "00020003000400050006000700080009",
        "030201000504070608090a0b0c0d0e0f",
        "000102030405060708090a0b0c0d0e0f",
        "0102030405060708090a0b0c0d0e0f10",
        "10000000000080000040000000000000",
        "12345678123456781234567812345678",
        "0123456789abcdef0123456789abcdef",
        "d41d8cd98f00b204e9800998ecf8427e",
    )
)
# Docker, Podman, and the file in which systemd notes its own container (readable by all, unlike /proc/1/environ).
_MARKS = (".dockerenv", "run/.containerenv", "run/systemd/container")
_CGROUPS = ("docker", "kubepods", "containerd", "libpod", "/lxc", "crio-")


class Reading:
    """What one look at the machine gave: an id or None, its source, and (source, problem) of those tried before."""

    __slots__ = ("machine_id", "source", "problems")

    def __init__(
        self, machine_id: Optional[str], source: str, problems: list[tuple[str, str]]
    ) -> None:
        self.machine_id = machine_id
        self.source = source
        self.problems = problems


def read(sources: Sources) -> Reading:
    """The first usable machine id."""
    problems: list[tuple[str, str]] = []
    for source, ask in sources:
        try:
            machine_id, problem = judge(ask())
        except Exception as error:  # only the kind is told: a message might quote the id
            machine_id, problem = "", getattr(error, "strerror", None) or type(error).__name__
        if not problem:
            return Reading(machine_id, source, problems)
        problems.append((source, problem))
    return Reading(None, "", problems)


def judge(text: str) -> tuple[str, str]:
    """(machine id, what is wrong with it or ""), for what a source says: a file (machine-id(5)), a UUID."""
    text = text.strip().strip("{}").replace("-", "").lower()
    if not text or text == "uninitialized":
        return text, text or "empty"
    if len(text) != 32 or text.strip("0123456789abcdef"):
        return text, "not 32 hexadecimal digits"
    if text == "0" * 32:
        return text, "all zero"
    # All f, fefe..., deadbeef...: one made at random repeats itself once in 2**64.
    if text in _SHARED or text[:16] == text[16:]:
        return text, "known to be shared by many machines"
    return text, ""


def sources(platform: str, root: str) -> Sources:
    """Where this platform keeps its machine id, the best place first."""
    if platform == "win32":
        from . import windows

        return [("MachineGuid", windows.machine_guid)]
    if platform == "darwin":
        return [("IOPlatformUUID", _host_uuid)]
    return [
        ("machine-id", lambda: _content(root, "etc/machine-id")),
        ("dbus-machine-id", lambda: _content(root, "var/lib/dbus/machine-id")),
    ]


def in_container(root: str, environ: Mapping[str, str]) -> bool:
    """Whether the machine id may be the image's, and so shared by everyone who runs that image."""
    # Flatpak sets the variable too, but shows the host's machine id (flatpak-run.c binds /etc/machine-id).
    if environ.get("container", "") not in ("", "flatpak"):
        return True
    if any(os.path.exists(os.path.join(root, mark)) for mark in _MARKS):
        return True
    try:
        cgroups = _content(root, "proc/1/cgroup")
    except OSError:
        return False
    return any(name in cgroups for name in _CGROUPS)


def _content(root: str, path: str) -> str:
    # Often a link to the other file, and root's: not for the functions that read our own files. A FIFO must not block.
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
    fd = os.open(os.path.join(root, path), flags)
    try:
        return os.read(fd, 65536).decode("ascii", "replace")
    finally:
        os.close(fd)


def _host_uuid() -> str:
    """IOPlatformUUID, asked of the kernel (gethostuuid(2): no subprocess, no IOKit); raises ``OSError``."""
    import ctypes

    library = ctypes.CDLL("/usr/lib/libSystem.dylib", use_errno=True)
    # A timespec of 1 s; 0 would mean to wait for ever.
    buffer, wait = ctypes.create_string_buffer(16), (ctypes.c_long * 2)(1, 0)
    if library.gethostuuid(buffer, ctypes.byref(wait)) != 0:
        raise OSError(ctypes.get_errno(), "gethostuuid failed")
    return buffer.raw.hex()
