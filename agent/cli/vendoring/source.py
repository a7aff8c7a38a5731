"""What a copy is made of: path below the copy → content, the same bytes for the same sources on every machine.

Line ends are those of Unix whatever the checkout has, or each system would find every file edited. A copy is the core
and the parts that were asked for. The collector (a test server with published keys), the demo that it stars in and this
command always stay behind.
"""

from __future__ import annotations

import importlib.metadata
import os
from typing import TYPE_CHECKING, NamedTuple

from ... import __version__
from ...errors import AgentError
from . import bill, libraries
from .rewriting import rewritten

if TYPE_CHECKING:
    from collections.abc import Collection

DISTRIBUTION = "callhome-agent"
LICENCE = "LICENSE"
BILL = "sbom.cdx.json"
PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CLI, DEPS = "cli", "deps"
# Modules of ``extras`` by their own names, the command line, the libraries that are pure Python.
PARTS = ("keyring", "detached", "transfer", "domain", CLI, DEPS)
_EXTRAS = "extras"
_STAYS = ("collector/", "cli/demo/", "cli/vendoring/", "cli/collecting.py")


class Content(NamedTuple):
    """A copy as it should be."""

    version: str
    parts: list[str]
    libraries: dict[str, str]  # name → version, of those that are copied along
    pythons: dict[str, str]  # name → what it asks of Python
    files: dict[str, bytes]


def content(parts: Collection[str]) -> Content:
    """A copy made of this package; raises ``AgentError`` where a part of it is not to be had."""
    files = _own(parts)
    brought = []
    if DEPS in parts:
        brought = [libraries.installed(one) for one in libraries.LIBRARIES if one.pure]
        for path in [path for path in files if path.endswith(".py")]:
            base = "." * (path.count("/") + 1) + libraries.FOLDER
            files[path] = rewritten(files[path], path, libraries.PURE, base)
        files.update(libraries.folder(brought))
    files[LICENCE] = _licence()
    versions = {one.name: one.version for one in brought}
    files[BILL] = bill.of_materials(DISTRIBUTION, __version__, files, versions)
    pythons = {one.name: one.python for one in brought}
    chosen = [part for part in PARTS if part in parts]
    return Content(__version__, chosen, versions, pythons, dict(sorted(files.items())))


def _own(parts: Collection[str]) -> dict[str, bytes]:
    if not os.path.isdir(PACKAGE):
        raise AgentError(
            "%s is no directory: run this from a checkout or an installation" % PACKAGE
        )
    found = {}
    recorded = _recorded()
    for directory, below, names in os.walk(PACKAGE):
        inside = os.path.relpath(directory, PACKAGE).replace(os.sep, "/")
        below[:] = [name for name in below if name != "__pycache__"]
        for name in names:
            path = name if inside == os.curdir else "%s/%s" % (inside, name)
            if (name.endswith(".py") or name == "py.typed") and _belongs(path, parts):
                found[path] = _read(os.path.join(directory, name))
                if recorded and recorded.get(path) != found[path]:
                    message = "%s is not what was installed: install this package anew"
                    raise AgentError(message % os.path.join(directory, name))
    return found


def _recorded() -> dict[str, bytes]:
    """What was installed here, by its RECORD; nothing for a checkout, which nothing can be held against."""
    found, package = {}, os.path.basename(PACKAGE)
    try:
        for path in importlib.metadata.distribution(DISTRIBUTION).files or ():
            if path.parts[0] == package and path.suffix in (".py", ".typed"):
                found["/".join(path.parts[1:])] = path
    except importlib.metadata.PackageNotFoundError:
        pass
    door = found.get("__init__.py")
    # A checkout in which something was built has a list without hashes.
    if (
        door is None
        or door.hash is None
        or os.path.realpath(str(door.locate()))
        != os.path.join(os.path.realpath(PACKAGE), "__init__.py")
    ):
        return {}
    return {
        place: libraries.as_recorded(path).replace(b"\r\n", b"\n") for place, path in found.items()
    }


def _belongs(path: str, parts: Collection[str]) -> bool:
    """Whether a file of this package goes into a copy with these parts."""
    if path.startswith(_STAYS):
        return False
    room, _, name = path.partition("/")
    if room in (CLI, "__main__.py"):
        return CLI in parts
    if room == _EXTRAS:
        part = name.partition(".")[0]
        return part in parts or (part == "__init__" and bool({*parts} - {CLI, DEPS}))
    return True


def _licence() -> bytes:
    """The text beside a checkout, else the one that was installed with this package."""
    above = os.path.dirname(PACKAGE)
    beside = os.path.join(above, LICENCE)
    if os.path.isfile(os.path.join(above, "setup.cfg")) and os.path.isfile(beside):
        return _read(beside)
    try:
        found = importlib.metadata.distribution(DISTRIBUTION)
        for path in found.files or ():
            if path.name == LICENCE and path.parts[0].endswith(".dist-info"):
                return _read(str(path.locate()))
    except importlib.metadata.PackageNotFoundError:
        pass
    raise AgentError(
        "the file %s is neither beside %s nor in its installation: run this from a checkout, or "
        "from where pip installed it" % (LICENCE, PACKAGE)
    )


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read().replace(b"\r\n", b"\n")
