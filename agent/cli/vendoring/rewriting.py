"""Imports of a library made relative, so that a copy of it serves one package and nobody else.

A file keeps its lines and everything that is no import; what was rewritten is read again and must not ask for the
library by its own name any more. Strings are left alone: neither library looks anything up by a dotted name.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Union

from ...errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    Statement = Union[ast.Import, ast.ImportFrom]

_FROM = re.compile(rb"from\s+([\w.]+)\s+import\b")


def rewritten(source: bytes, path: str, libraries: Collection[str], base: str) -> bytes:
    """``source`` with every import of ``libraries`` taken from ``base``, a relative package such as ``.._vendor``.

    ``path`` is for messages. Raises ``AgentError`` where an import is written in a way that is not understood.
    """
    lines = source.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found = sorted(_absolute(source, path, libraries), key=lambda node: -node.lineno)
    for node in found:
        assert node.end_lineno is not None and node.end_col_offset is not None
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        old = source[begin:end]
        if isinstance(node, ast.Import):
            new = _plain(node, libraries, base).encode("ascii")
        else:
            name = _below(base, str(node.module)).encode("ascii")
            new, count = _FROM.subn(b"from " + name + b" import", old, count=1)
            if not count:
                raise AgentError("%s:%d: this import cannot be rewritten" % (path, node.lineno))
        source = source[:begin] + new + source[end:]
    if found and list(_absolute(source, path, libraries)):
        raise AgentError("%s: an import could not be rewritten" % path)
    return source


def _absolute(source: bytes, path: str, libraries: Collection[str]) -> Iterator[Statement]:
    # Most files have none, and parsing is what this costs.
    named = rb"(?:\bimport|\bfrom|,)[\s\\]+(?:%s)\b" % "|".join(libraries).encode("ascii")
    if not re.search(named, source):
        return
    try:
        tree = ast.parse(source, path)
    except SyntaxError as error:
        raise AgentError("%s:%s: this Python cannot read it" % (path, error.lineno)) from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [str(node.module)]
        else:
            continue
        if any(name.split(".")[0] in libraries for name in names):
            yield node


def _plain(node: ast.Import, libraries: Collection[str], base: str) -> str:
    """``import a.b`` binds ``a`` and loads ``a.b``; with ``as`` it binds ``a.b``."""
    made = []
    for alias in node.names:
        parent, _, last = alias.name.rpartition(".")
        top = alias.name.split(".")[0]
        as_name = " as " + alias.asname if alias.asname else ""
        if top not in libraries:
            made.append("import %s%s" % (alias.name, as_name))
        elif alias.asname or not parent:
            made.append("from %s import %s%s" % (_below(base, parent), last, as_name))
        else:
            made.append("from %s import %s" % (base, top))
            made.append("from %s import %s as _%s" % (_below(base, parent), last, last))
    return "; ".join(made)


def _below(base: str, name: str) -> str:
    return base + name if base.endswith(".") or not name else "%s.%s" % (base, name)
