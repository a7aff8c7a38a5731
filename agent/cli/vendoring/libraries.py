"""The three libraries: what is asked of them, and the pure-Python ones as they are installed beside this Python.

Nothing is fetched: what is copied is what the running interpreter has, with its licence, so that a release manager
decides by ``pip install`` which versions ship. The record of the installed distribution says which files are its own.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import re
from typing import NamedTuple

from ...errors import AgentError
from .rewriting import rewritten

# Where they lie in a copy, as pip and the tool `vendoring` have it.
FOLDER = "_vendor"
PINS = FOLDER + "/vendor.txt"
_INIT = '"""Libraries that this copy brings along; vendor.txt has their versions."""\n'
_LICENCE = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)", re.I)
_BINARY = (".so", ".pyd", ".dll", ".dylib")


class Library(NamedTuple):
    """A library that the core imports where it is first needed."""

    name: str
    at_least: str
    licence: str
    pure: bool
    needed: bool
    purpose: str


LIBRARIES = (
    Library("urllib3", "1.26", "MIT", True, True, "sending; without it records are kept"),
    Library(
        "platformdirs", "2.5", "MIT", True, False, "the state directory elsewhere than on Linux"
    ),
    Library(
        "pynacl", "1.5", "Apache-2.0", False, False, "Ed25519 signatures and keyring documents"
    ),
)
PURE = tuple(library.name for library in LIBRARIES if library.pure)
WHY_NOT = (
    "pynacl is left out: it is compiled, one build for each platform; ship its wheel where answers are signed with "
    "Ed25519 or a keyring document is used"
)


class Installed(NamedTuple):
    """One library as it was found: ``files`` are those below its package, licences among them."""

    name: str
    version: str
    python: str
    files: dict[str, bytes]


def installed(library: Library) -> Installed:
    """What is installed of ``library``; raises ``AgentError`` where that cannot be copied."""
    name = library.name
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise AgentError(
            "%s is not installed beside this Python: pip install %s" % (name, name)
        ) from None
    if _numbers(found.version) < _numbers(library.at_least):
        raise AgentError(
            "%s %s is installed, needed is %s or newer" % (name, found.version, library.at_least)
        )
    files: dict[str, bytes] = {}
    licensed = False
    for path in found.files or ():
        inside = path.parts[0] == name and ".." not in path.parts
        licence = path.parts[0].endswith(".dist-info") and _LICENCE.match(path.name)
        if inside and path.suffix in _BINARY:
            raise AgentError("%s %s has a compiled part: %s" % (name, found.version, path))
        if licence or (inside and path.suffix != ".pyc"):
            place = "%s/%s" % (name, path.name) if licence else path.as_posix()
            files[place] = as_recorded(path).replace(b"\r\n", b"\n")
            licensed |= bool(licence)
    if "%s/__init__.py" % name not in files or not licensed:
        raise AgentError(
            "%s %s has no record of its files or no licence among them: install it from a wheel"
            % (name, found.version)
        )
    asked = found.metadata["Requires-Python"] if "Requires-Python" in found.metadata else ""
    return Installed(name, found.version, asked, files)


def as_recorded(path: importlib.metadata.PackagePath) -> bytes:
    """An installed file's content; raises ``AgentError`` where its RECORD has no hash for it, or another one."""
    try:
        data = path.read_binary()
    except OSError as error:
        raise AgentError("%s cannot be read: %s" % (path.locate(), error.strerror)) from None
    known = path.hash
    digest = hashlib.new(known.mode, data).digest() if known is not None else b""
    if known is None or base64.urlsafe_b64encode(digest).decode().rstrip("=") != known.value:
        raise AgentError("%s was edited since it was installed: install it anew" % path.locate())
    return data


def folder(found: list[Installed]) -> dict[str, bytes]:
    """The folder of a copy that holds them: path below the copy → content."""
    names = [one.name for one in found]
    files = {FOLDER + "/__init__.py": _INIT.encode("ascii")}
    pins = "".join("%s==%s\n" % (one.name, one.version) for one in found)
    files[PINS] = pins.encode("ascii")
    for one in found:
        for path, content in one.files.items():
            if path.endswith(".py"):
                content = rewritten(content, path, names, "." * (path.count("/") + 1))
            files["%s/%s" % (FOLDER, path)] = content
    return files


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)[:2]))
