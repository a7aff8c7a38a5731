"""The user identifier: derived from the machine, stored once, and from then on the same for ever.

A raw machine id never leaves this module. Nothing here raises into the host. Processes that start at once agree: the
file comes whole, under a lock. With an intact one no machine id is read. What becomes of what is stored: decision 0003.
"""

from __future__ import annotations

import os
import sys

from . import TYPE_CHECKING, files, lines

if TYPE_CHECKING:
    from typing import Any, Iterable, Mapping, Optional

VERSION, NEWER = 1, "written by a newer version"
_HEX, _FIELDS = "0123456789abcdef", ("id", "source", "quality", "tag")
# Our line has about 150; room for what a newer version may keep, which cut short would look damaged.
_LIMIT_BYTES = 65536
# Random identifiers by what they belong to: one process makes one, however often it has to ask.
_random: dict[bytes, str] = {}


class Identity:
    """Who the user is to the vendor.

    ``quality``: "strong" (one machine), "weak" (perhaps an image's), "random" (lives as long as its file). ``note``
    says why it is not ``stored``, or what is odd about the stored one; ``tag`` is the mark of its machine id, or "".
    """

    stored, note = False, ""

    def __init__(self, value: str, source: str, quality: str, tag: str) -> None:
        self.value, self.source, self.quality, self.tag = value, source, quality, tag


def resolve(
    system: System, state_dir: str | None, reset: bool = False, store: bool = True, **names: Any
) -> Identity:
    """The identity of this OS user on this machine; ``state_dir=None`` and ``store=False`` keep nothing.

    ``names``: vendor, product_name, identity_name. ``reset`` derives anew, unless the file is of a newer format.
    """
    about, note = context(system.user(), **names), "no state directory"
    if reset:
        _random.pop(about, None)
    try:
        if state_dir is not None:
            path = os.path.join(state_dir, file_name(about))
            kept = _load(path)
            if reset and kept is not None and kept.note != NEWER and files.remove(path):
                kept = None
            if kept or store:
                return kept or _keep(path, _fresh(about, system))
            note = "not stored yet"
    except Exception as error:  # a path that cannot even be asked for; a hook of the host's
        note = getattr(error, "strerror", None) or type(error).__name__
    found = _fresh(about, system)
    found.note = note
    return found


def _fresh(about: bytes, system: System) -> Identity:
    machine_id, looked = system.machine_id()
    if machine_id is None:
        return Identity(_random.setdefault(about, os.urandom(16).hex()), "random", "random", "")
    quality = "weak" if system.is_container() else "strong"
    return Identity(derive(machine_id, about), looked[-1][0], quality, tag(machine_id, about))


# -- derivation: golden vectors pin it, changing one byte changes the identity of every user -----


def context(user: str, vendor: str, product_name: str, identity_name: Any = None) -> bytes:
    """What an identity belongs to, beside the machine. With ``identity_name``, vendor and product do not enter."""
    names = (vendor, product_name) if identity_name is None else (identity_name,)
    return b"".join(map(_sized, (*names, user)))


def derive(machine_id: str, context: bytes) -> str:
    """The user identifier: 32 lower-case hex digits."""
    return hmac_sha256(machine_id.encode("ascii"), _sized("v1") + context)[:16].hex()


def tag(machine_id: str, context: bytes) -> str:
    """16 hex digits that tell a machine id from another one and give nothing of it away."""
    return hmac_sha256(machine_id.encode("ascii"), _sized("tag-v1") + context)[:8].hex()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """RFC 2104, for a key of at most 64 bytes; ``hmac`` loads OpenSSL, 4 ms of a cold start."""
    for mask in (0x36, 0x5C):
        padded = bytes(byte ^ mask for byte in key.ljust(64, b"\0"))
        message = lines.sha256(padded + message).digest()
    return message


def _sized(text: str) -> bytes:
    part = text.encode("utf-8", "surrogatepass")
    return len(part).to_bytes(4, "big") + part


# -- the store: one file per (names, OS user), one checksummed line, written once ----


def file_name(context: bytes) -> str:
    return "identity-" + str(lines.sha256(context).hexdigest())[:16]


def _record(facts: Iterable[str]) -> Any:
    return {"v": VERSION, **dict(zip(_FIELDS, facts))}


def _load(path: str) -> Optional[Identity]:
    """The identity that is kept here; None for none, or a damaged one.

    Raises ``OSError`` where that cannot be known, as of what a newer version keeps.
    """
    content = files.read(path, _LIMIT_BYTES)
    # A line exactly as we write it needs no JSON parser: ``json`` loads ``re``, 8 ms of a cold start.
    record = _record(content.decode("ascii", "replace").split('"')[5::4])
    if lines.encode(record) != content:
        record = lines.decode(content)
    version, *facts = map(record.get, ("v", *_FIELDS)) if isinstance(record, dict) else (0, "")
    usable = type(facts[0]) is str and len(facts[0]) == 32 and not facts[0].strip(_HEX)
    if type(version) is not int or version < VERSION or version == VERSION and not usable:
        return None
    if not usable:
        raise FileExistsError(17, NEWER, path)
    found = Identity(*facts)
    found.stored = True
    if version > VERSION:  # only the identifier is sure to mean what we think
        found.source, found.quality, found.tag, found.note = "unknown", "weak", "", NEWER
    return found


def _keep(path: str, new: Identity) -> Identity:
    """Store ``new``, or return the intact one that somebody stored first; raises ``OSError``."""
    files.ensure_directory(os.path.dirname(path))
    line = lines.encode(_record((new.value, new.source, new.quality, new.tag)))
    whole = files.beside(path, line)  # under the lock no disk is waited for
    try:
        with files.locked(path + ".lock") as lock:
            if _load(path) is None:
                if lock.held is False:
                    raise TimeoutError(110, "another process holds the lock")
                os.replace(whole, path)
            if lock.held:
                files.remove(lock.path)
    finally:
        files.remove(whole)
    new.stored = True
    # Somebody may have come after us: the next start will see what the disk says.
    return _load(path) or new


# -- the machine and the OS user ----


class System:
    """The running system; a directory ``root`` can stand for a Linux machine."""

    platform, root = sys.platform, ""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ

    def user(self) -> str:
        """Who runs this process: the real uid, or the SID on Windows; "" where that cannot be had."""
        try:
            if sys.platform == "win32":
                return _sid()
            return str(os.getuid())
        except Exception:  # ctypes raises what it likes, and a frozen product may have none
            return ""

    def machine_id(self) -> tuple[Optional[str], list[tuple[str, str]]]:
        """The first usable id (32 hex digits) or None, and (source, its problem or "") of those looked at."""
        ask, places = _READERS.get(self.platform, _FILES)
        looked: list[tuple[str, str]] = []
        for source, place in places.items():
            try:
                found, problem = judge(ask(self.root + place))
            except Exception as error:  # only the kind is told: a message might quote the id
                found, problem = "", getattr(error, "strerror", None) or type(error).__name__
            looked.append((source, problem))
            if not problem:
                return found, looked
        return None, looked

    def is_container(self) -> bool:
        """Whether the machine id may be an image's, and so shared."""
        # Flatpak sets the variable too, but shows the host's machine id (flatpak-run.c binds /etc/machine-id).
        named = self.environ.get("container", "").replace("flatpak", "")
        marked = any(os.path.exists(self.root + mark) for mark in _MARKS)
        try:  # containerd leaves no mark but what each of them mounts over the image's own
            marked |= " /etc/hostname " in _read(self.root + "/proc/self/mountinfo")
        except Exception:
            pass  # no Linux
        return bool(named or marked or self.environ.get("KUBERNETES_SERVICE_HOST"))


# Docker, Podman, systemd's note of its own container (readable by all), what Kubernetes mounts into every pod.
_MARKS = "/.dockerenv /run/.containerenv /run/systemd/container /run/secrets/kubernetes.io".split()
# What scripts write that hash an absent serial number.
_MD5_OF_NOTHING = "d41d8cd98f00b204e9800998ecf8427e"


def judge(text: str) -> tuple[str, str]:
    """(machine id, its problem or ""), for what a source says: a file (machine-id(5)), a UUID."""
    text = text.strip().strip("{}").replace("-", "").lower()
    if len(text) != 32 or text.strip(_HEX):  # "uninitialized", or nothing
        return text, "not 32 hexadecimal digits"
    # Placeholders of firmware makers (00020003-0004-..., osquery#4374, oshi#2417, systemd#11137), all zero, deadbeef;
    # of random ones one in 10**10 looks so.
    shared = text.count("0") >= 16 or text[:16] == text[16:] or text == _MD5_OF_NOTHING
    return text, "known to be shared by many machines" * shared


def _read(path: str) -> str:
    # Often a link, and root's, so not for ``files``. A FIFO must not block.
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(fd, "rb") as file:
        return (file.read(65536) or b"").decode("ascii", "replace")


def _host_uuid(library: str) -> str:
    """IOPlatformUUID, asked of the kernel (gethostuuid(2): no subprocess, no IOKit)."""
    import ctypes

    # A timespec of 1 s; 0 would mean to wait for ever.
    buffer, wait = ctypes.create_string_buffer(16), (ctypes.c_long * 2)(1, 0)
    ctypes.CDLL(library).gethostuuid(buffer, ctypes.byref(wait))  # where it fails, all zero remains
    return buffer.raw.hex()


_FILES = (_read, {"machine-id": "/etc/machine-id", "dbus-machine-id": "/var/lib/dbus/machine-id"})
_READERS: dict[str, Any] = {"darwin": (_host_uuid, {"IOPlatformUUID": "/usr/lib/libSystem.dylib"})}

if sys.platform == "win32":

    def _machine_guid(path: str) -> str:
        """From the 64-bit view, for a 32-bit Python. Raises ``OSError``."""
        import winreg

        access = winreg.KEY_READ | winreg.KEY_WOW64_64KEY
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, path, 0, access) as key:
            return str(winreg.QueryValueEx(key, "MachineGuid")[0])

    _READERS["win32"] = (_machine_guid, {"MachineGuid": r"SOFTWARE\Microsoft\Cryptography"})

    def _sid() -> str:
        """The SID of who runs this process, "S-1-5-...", or ""."""
        import ctypes

        # An instance of our own: ctypes.windll is the host's too. A pointer to the SID, and room for it behind that.
        advapi, text = ctypes.WinDLL("advapi32"), ctypes.c_wchar_p()
        found = (ctypes.c_void_p * 32)()
        # winnt.h: GetCurrentProcessToken() is the handle -4, which nobody closes; TokenUser is 1.
        token, size = ctypes.c_void_p(-4), ctypes.c_ulong(ctypes.sizeof(found))
        if advapi.GetTokenInformation(token, 1, found, size, ctypes.byref(size)):
            advapi.ConvertSidToStringSidW(ctypes.c_void_p(found[0]), ctypes.byref(text))
        return text.value or ""


# -- explained ----


def explain(
    system: System, state_dir: str | None, store: bool = True, **names: Any
) -> dict[str, Any]:
    """``resolve`` against what the machine says now, ready for JSON and, but for ``path``, for a ticket."""
    identity = resolve(system, state_dir, store=store, **names)
    (machine_id, looked), about = system.machine_id(), context(system.user(), **names)
    mark = identity.tag if identity.stored and machine_id else ""
    return {
        "user_identifier": identity.value,
        **{name: getattr(identity, name) for name in ("source", "quality", "stored", "note")},
        "path": state_dir and os.path.join(state_dir, file_name(about)),
        # None where it cannot be known: nothing stored, a random identity, no machine id now.
        "moved_or_cloned": mark != tag(machine_id or "", about) if mark else None,
        "in_container": system.is_container(),
        "sources": [{"source": source, "problem": problem} for source, problem in looked],
    }
