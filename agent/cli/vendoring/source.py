"""What a copy is made of: path below the copy → content, the same bytes for the same sources on every machine.

Line ends are those of Unix whatever the checkout has, or each system would find every file edited. The collector (a
test server with published keys) and this command stay behind; so does the command line unless it is asked for.
"""

from __future__ import annotations

import importlib.metadata
import os
from typing import NamedTuple

from ...errors import AgentError
from ...version import VERSION
from . import bill, libraries
from .rewriting import rewritten

DISTRIBUTION = "callhome-agent"
LICENCE = "LICENSE"
BILL = "sbom.cdx.json"
PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_COMMAND_LINE = ("cli", "__main__.py")
_STAYS = (("collector",), ("cli", os.path.basename(os.path.dirname(os.path.abspath(__file__)))))


class Content(NamedTuple):
    """A copy as it should be."""

    version: str
    with_cli: bool
    libraries: dict[str, str]  # name → version, of those that are copied along
    pythons: dict[str, str]  # name → what it asks of Python
    files: dict[str, bytes]


def content(*, with_cli: bool, with_deps: bool) -> Content:
    """A copy made of this package; raises ``AgentError`` where a part of it is not to be had."""
    files = _own(with_cli)
    brought = []
    if with_deps:
        brought = [libraries.installed(one) for one in libraries.LIBRARIES if one.pure]
        for path in [path for path in files if path.endswith(".py")]:
            base = "." * (path.count("/") + 1) + libraries.FOLDER
            files[path] = rewritten(files[path], path, libraries.PURE, base)
        files.update(libraries.folder(brought))
    files[LICENCE] = _licence()
    versions = {one.name: one.version for one in brought}
    files[BILL] = bill.of_materials(DISTRIBUTION, VERSION, files, versions)
    pythons = {one.name: one.python for one in brought}
    return Content(VERSION, with_cli, versions, pythons, dict(sorted(files.items())))


def _own(with_cli: bool) -> dict[str, bytes]:
    if not os.path.isdir(PACKAGE):
        raise AgentError(
            "%s is no directory: run this from a checkout or an installation" % PACKAGE
        )
    found = {}
    for directory, below, names in os.walk(PACKAGE):
        inside = os.path.relpath(directory, PACKAGE)
        parts = () if inside == os.curdir else tuple(inside.split(os.sep))
        below[:] = [
            name for name in below if name != "__pycache__" and (*parts, name) not in _STAYS
        ]
        for name in names:
            whole = (*parts, name)
            if not name.endswith(".py") and name != "py.typed":
                continue
            if with_cli or whole[0] not in _COMMAND_LINE:
                found["/".join(whole)] = _read(os.path.join(directory, name))
    return found


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
