"""The user identifier: derived from the machine, stored once, and from then on the same for ever.

A raw machine id never leaves this module, not even to the disk, and no problem quotes what was found. Nothing here
raises into the host. Processes that start at once agree on one identity: it takes its name by a hard link, which only
the first can make, or else under a lock. With an intact file a start does not read the machine id at all.

    stored               | a machine id (strong or weak)             | no machine id
    ---------------------+-------------------------------------------+----------------------------------
    none                 | derive, store                             | make a random one, store
    intact, tag matches  | the stored one                            | the stored one
    intact, tag differs  | the stored one; "moved or cloned"         | the stored one; not known
    random               | the stored one; a reset would derive      | the stored one
    damaged              | derive, replace the file                  | make a random one, replace the file
    newer format         | its identifier; the file is not touched   | its identifier; the file is not touched
    newer, no identifier | derive, in memory; not touched            | random, in memory; not touched
    unreadable, no store | derive, in memory                         | random, in memory: one per process
"""

from __future__ import annotations

import os
import sys

from . import files, lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Callable, Optional

VERSION, NEWER = 1, "written by a newer version"
_FIELDS = ("id", "source", "quality", "tag")
# Our line has about 150; room for what a newer version may keep, which cut short would look damaged.
_LIMIT_BYTES = 65536
# Nobody syncs under the lock: a holder needs a millisecond. After half a second it is stuck, and we go on in memory.
_TRIES, _PAUSE_S = 100, 0.005
# Random identifiers by what they belong to: one process makes one, however often it has to ask.
_random: dict[bytes, str] = {}


class Identity:
    """Who the user is to the vendor, and how far that can be relied on.

    ``quality``: "strong" (one machine), "weak" (perhaps an image's), "random" (lives as long as its file). ``note``
    says why it is not stored, or what is odd about the stored one; ``tag`` is the mark of its machine id.
    """

    __slots__ = ("value", "source", "quality", "tag", "stored", "path", "note")

    def __init__(self, value: str, source: str, quality: str, tag: Optional[str]) -> None:
        self.value, self.source, self.quality, self.tag = value, source, quality, tag
        self.at(None, stored=False)

    def at(self, path: Optional[str], *, stored: bool, note: str = "") -> Identity:
        """Say where this identity is kept; returns it."""
        self.path, self.stored, self.note = path, stored, note
        return self


def resolve(
    *, state_dir: Optional[str], system: Optional[System] = None, reset: bool = False, **names: Any
) -> Identity:
    """The identity of this OS user on this machine; ``state_dir=None`` keeps nothing.

    ``names``: vendor, product_name, identity_name. ``reset`` forgets what is stored, derives anew, stores that; a file
    of a newer format stays, and decides.
    """
    system = system or System(os.environ)
    about = context(**names, user=system.user())
    if reset:
        _random.pop(about, None)
    if state_dir is None:
        return _fresh(about, system).at(None, stored=False, note="no state directory")
    path = os.path.join(state_dir, file_name(about))
    try:
        stored = _load(path)
        if reset and stored is not None and stored.note != NEWER:
            stored = None if files.remove(path) else stored
        return stored or _keep(path, _fresh(about, system))
    except (OSError, ValueError) as error:  # ValueError: a path that cannot even be asked for
        note = getattr(error, "strerror", None) or type(error).__name__
        return _fresh(about, system).at(path, stored=False, note=note)


def _fresh(about: bytes, system: System) -> Identity:
    machine_id, source, _ = system.machine_id()
    if machine_id is None:
        value = _random.setdefault(about, os.urandom(16).hex())
        return Identity(value, "random", "random", None)
    quality = "weak" if system.is_container() else "strong"
    return Identity(derive(machine_id, about), source, quality, tag(machine_id, about))


# -- derivation: golden vectors pin it, changing one byte changes the identity of every user -----


def context(
    vendor: str, product_name: str, identity_name: Optional[str] = None, *, user: str
) -> bytes:
    """What an identity belongs to, beside the machine. With ``identity_name``, vendor and product do not enter."""
    names = (vendor, product_name) if identity_name is None else (identity_name,)
    return b"".join(_sized(part) for part in (*names, user))


def derive(machine_id: str, context: bytes) -> str:
    """The user identifier: 32 lower-case hex digits."""
    return hmac_sha256(_bytes(machine_id), _sized("v1") + context)[:16].hex()


def tag(machine_id: str, context: bytes) -> str:
    """16 hex digits that tell a machine id from another one and give nothing of it away."""
    return hmac_sha256(_bytes(machine_id), _sized("tag-v1") + context)[:8].hex()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """The 32 bytes of RFC 2104; ``hmac`` loads OpenSSL, 4 ms of a cold start."""
    key = (lines.sha256(key).digest() if len(key) > 64 else key).ljust(64, b"\0")
    inner = lines.sha256(bytes(byte ^ 0x36 for byte in key) + message).digest()
    return bytes(lines.sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest())


def _sized(text: str) -> bytes:
    part = _bytes(text)
    return len(part).to_bytes(4, "big") + part


def _bytes(text: str) -> bytes:
    # Never an encoding error: its message would carry the text, which may be a machine id.
    return text.encode("utf-8", "surrogatepass")


# -- the store: one file per (names, OS user), one checksummed line, written once ----------------


def file_name(context: bytes) -> str:
    return "identity-" + str(lines.sha256(context).hexdigest())[:16]


def _record(*facts: Any) -> Any:
    return {"v": VERSION, **dict(zip(_FIELDS, facts))}


def _load(path: str) -> Optional[Identity]:
    """The identity that is kept here; None where there is none, or a damaged one.

    Raises ``OSError`` where that cannot be known, and for what a newer version keeps without an identifier.
    """
    content = files.read(path, _LIMIT_BYTES)
    # A line exactly as we write it needs no JSON parser: ``json`` loads ``re``, 8 ms of a cold start.
    words = content.decode("ascii", "replace").split('"')
    record = _record(*words[5:14:4], words[17] if len(words) > 17 else None)
    if lines.encode(record) != content:
        record = lines.decode(content.rstrip(b"\n"))
    version = record.get("v") if isinstance(record, dict) else None
    if type(version) is not int or version < VERSION:
        return None
    value, *others = (record.get(name) for name in _FIELDS)
    if not isinstance(value, str) or len(value) != 32 or value.strip("0123456789abcdef"):
        if version > VERSION:
            raise FileExistsError(17, NEWER, path)
        return None
    if version > VERSION:  # only the identifier is sure to mean what we think
        return Identity(value, "unknown", "weak", None).at(path, stored=True, note=NEWER)
    return Identity(value, *others).at(path, stored=True)


def _keep(path: str, candidate: Identity) -> Identity:
    """Store ``candidate`` and return it, or return the intact one that somebody stored first; raises ``OSError``."""
    files.ensure_directory(os.path.dirname(path))
    facts = (candidate.value, candidate.source, candidate.quality, candidate.tag)
    line = lines.encode(_record(*facts))
    kept = _link(path, line) or _replace(path, line)
    # Without locks somebody may have come after us: what the disk says is what the next start will see.
    return kept or candidate.at(path, stored=True)


def _link(path: str, line: bytes) -> Optional[Identity]:
    """Whoever links first has won. None: what is there is damaged, or there are no hard links here."""
    temporary = "%s.%s.tmp" % (path, os.urandom(8).hex())
    files.write_new(temporary, line)
    try:
        os.link(temporary, path)
    except (OSError, AttributeError):
        pass
    finally:
        files.remove(temporary)
    return _load(path)


def _replace(path: str, line: bytes) -> Optional[Identity]:
    """Under a lock, whoever still finds no intact one puts his own in its place."""
    import time

    lock, tries = files.open_append(path + ".lock"), _TRIES
    try:
        while lock.lock() is False:  # None: no locks here
            tries -= 1
            if not tries:
                raise TimeoutError(110, "another process holds the lock")
            time.sleep(_PAUSE_S)
        if _load(path) is None:
            files.replace(path, line)
        return _load(path)
    finally:
        lock.close()


# -- the machine and the OS user -----------------------------------------------------------------

# Placeholders of firmware makers (osquery pull request 4374, oshi issue 2417, systemd pull request 11137), the SMBIOS
# placeholder in both byte orders, and the MD5 of nothing, which scripts write that hash an absent serial number.
_SHARED = frozenset(
    "03000200040005000006000700080009 00020003000400050006000700080009"
    " 030201000504070608090a0b0c0d0e0f 000102030405060708090a0b0c0d0e0f"
    " 0102030405060708090a0b0c0d0e0f10 10000000000080000040000000000000"
    " 12345678123456781234567812345678 0123456789abcdef0123456789abcdef"
    " d41d8cd98f00b204e9800998ecf8427e".split()
)
# Docker, Podman, the file in which systemd notes its own container (readable by all, unlike /proc/1/environ), and what
# Kubernetes mounts into every pod.
_MARKS = (
    ".dockerenv run/.containerenv run/systemd/container"
    " run/secrets/kubernetes.io var/run/secrets/kubernetes.io"
).split()
_CGROUPS = "docker kubepods containerd libpod /lxc crio-".split()
# Behind cgroup v2 a container's own group is "/": there it shows in what lies behind its root and its network files.
_MOUNTS = ("/", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
_BEHIND = "/docker/ /containerd/ /containers/storage/ /kubelet/pods/ /crio/".split()


class System:
    """The running system, asked for nothing before it is needed; a directory ``root`` can stand for a Linux machine."""

    platform, root = sys.platform, "/"

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ

    def user(self) -> str:
        """Who runs this process: the real uid, or the SID on Windows; "" where that cannot be had."""
        try:
            if self.platform != "win32" and hasattr(os, "getuid"):
                return str(os.getuid())
            return _sid()
        except (
            Exception
        ):  # ctypes raises what it likes, and a frozen product may have none: then it stays so
            return ""

    def machine_id(self) -> tuple[Optional[str], str, list[tuple[str, str]]]:
        """The first usable id (32 hex digits) or None, its source, and (source, problem) of those tried before."""
        sources: dict[str, Callable[[], str]] = {
            "machine-id": lambda: self._read("etc/machine-id"),
            "dbus-machine-id": lambda: self._read("var/lib/dbus/machine-id"),
        }
        if self.platform == "win32":
            sources = {"MachineGuid": _machine_guid}
        elif self.platform == "darwin":
            sources = {"IOPlatformUUID": _host_uuid}
        problems: list[tuple[str, str]] = []
        for source, ask in sources.items():
            try:
                found, problem = judge(ask())
            except Exception as error:  # only the kind is told: a message might quote the id
                problem = getattr(error, "strerror", None) or type(error).__name__
            if not problem:
                return found, source, problems
            problems.append((source, problem))
        return None, "", problems

    def is_container(self) -> bool:
        """Whether the machine id may be the image's, and so shared by everyone who runs that image."""
        if self.platform in ("win32", "darwin"):
            return False
        # Flatpak sets the variable too, but shows the host's machine id (flatpak-run.c binds /etc/machine-id).
        named = self.environ.get("container", "") not in ("", "flatpak")
        if named or self.environ.get("KUBERNETES_SERVICE_HOST"):
            return True
        if any(os.path.exists(os.path.join(self.root, mark)) for mark in _MARKS):
            return True
        # proc_pid_mountinfo(5): the fifth field is where it is mounted.
        mounts = self._lines("proc/self/mountinfo")
        behind = [line for line in mounts if "".join(line.split(" ")[4:5]) in _MOUNTS]
        told = [(line, _CGROUPS) for line in self._lines("proc/1/cgroup")]
        told += [(line, _BEHIND) for line in behind]
        return any(name in line for line, names in told for name in names)

    def _lines(self, path: str) -> list[str]:
        try:
            return self._read(path).splitlines()
        except OSError:
            return []

    def _read(self, path: str) -> str:
        # Often a link, and root's: not for the functions that read our own files. A FIFO must not block.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
        fd = os.open(os.path.join(self.root, path), flags)
        with open(fd, "rb") as file:
            return (file.read(65536) or b"").decode("ascii", "replace")


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


def _host_uuid() -> str:
    """IOPlatformUUID, asked of the kernel (gethostuuid(2): no subprocess, no IOKit); raises ``OSError``."""
    import ctypes

    library = ctypes.CDLL("/usr/lib/libSystem.dylib", use_errno=True)
    # A timespec of 1 s; 0 would mean to wait for ever.
    buffer, wait = ctypes.create_string_buffer(16), (ctypes.c_long * 2)(1, 0)
    if library.gethostuuid(buffer, ctypes.byref(wait)) != 0:
        raise OSError(ctypes.get_errno(), "gethostuuid failed")
    return buffer.raw.hex()


def _machine_guid() -> str:
    """MachineGuid, from the 64-bit view: a 32-bit Python would otherwise see no such value. Raises ``OSError``."""
    if sys.platform != "win32":
        raise OSError("no registry here")
    import winreg

    access = winreg.KEY_READ | winreg.KEY_WOW64_64KEY
    path = r"SOFTWARE\Microsoft\Cryptography"
    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path, 0, access) as key:
        return str(winreg.QueryValueEx(key, "MachineGuid")[0])


def _sid() -> str:
    """The SID of who runs this process, "S-1-5-...", or ""."""
    if sys.platform != "win32":
        return ""
    import ctypes
    from ctypes import wintypes

    # Instances of our own: ctypes.windll is the host's too. Handles are passed as such, or 64 bits would be cut.
    advapi, kernel, by = ctypes.WinDLL("advapi32"), ctypes.WinDLL("kernel32"), ctypes.byref
    process, token = wintypes.HANDLE(kernel.GetCurrentProcess()), wintypes.HANDLE()
    # A pointer to the SID, a DWORD, and the SID of at most 68 bytes (SECURITY_MAX_SID_SIZE).
    found, size, text = (ctypes.c_void_p * 32)(), wintypes.DWORD(), wintypes.LPWSTR()
    token_query, token_user = 0x0008, 1  # winnt.h
    if advapi.OpenProcessToken(process, token_query, by(token)):
        if advapi.GetTokenInformation(token, token_user, found, ctypes.sizeof(found), by(size)):
            advapi.ConvertSidToStringSidW(ctypes.c_void_p(found[0]), by(text))
        kernel.CloseHandle(token)
    sid = text.value or ""
    kernel.LocalFree(text)
    return sid


# -- explained -----------------------------------------------------------------------------------


def explain(
    *, state_dir: Optional[str], system: Optional[System] = None, **names: Any
) -> dict[str, Any]:
    """``resolve`` (the same arguments) against what the machine says now, ready for JSON.

    It may be pasted into a ticket but for ``path``, which may hold the user's name. It never holds a machine id.
    """
    system = system or System(os.environ)
    identity = resolve(state_dir=state_dir, system=system, **names)
    machine_id, source, problems = system.machine_id()
    # None where it cannot be known: nothing stored, a random identity, no machine id now.
    moved: Optional[bool] = None
    if identity.stored and identity.tag is not None and machine_id is not None:
        moved = identity.tag != tag(machine_id, context(**names, user=system.user()))
    if machine_id is not None:
        problems.append((source, ""))
    random, inside = identity.quality == "random", system.is_container()
    unstored = not identity.stored and identity.note != NEWER and state_dir is not None
    advice = {
        "It was derived on another machine, or this one got a new id: a reset derives its own.": moved,
        "It could not be stored: make the state directory writable for this user.": unstored,
        "It lasts as long as its file: see that the machine has an id, then reset it.": random,
        "It may be the image's: mount the host's /etc/machine-id, or a state volume for each user.": inside,
    }
    shown = {name: getattr(identity, name) for name in "source quality stored path note".split()}
    return {
        "user_identifier": identity.value,
        **shown,
        "moved_or_cloned": moved,
        "in_container": inside,
        "sources": [{"source": source, "problem": problem} for source, problem in problems],
        "advice": [text for text, applies in advice.items() if applies],
    }
