"""Findings on a screen: marks, headings, and long lines that are broken so that they still read well.

Colour repeats what the words say and is for terminals only; without one a finding is one line, however long.
``wrapped`` and ``is_coloured`` are pure.
"""

from __future__ import annotations

import re
import shutil
import sys
import unicodedata
from typing import TYPE_CHECKING, NamedTuple, Optional

from .output import is_terminal, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

# Prose is read badly in longer lines.
_WIDEST = 120
# From here on what was found stands in a column of its own; below, behind its name.
_COLUMNS_FROM = 64
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"
_COLOURS = {"ok": "\x1b[32m", "warn": "\x1b[33m", "FAIL": "\x1b[1;31m"}
# Where an address or a path may be broken.
_PARTS = re.compile(r"[^/\\.,;:=&?_-]*[/\\.,;:=&?_-]|[^/\\.,;:=&?_-]+")
# Blanks, and a word behind them; a number stays with its unit.
_WORDS = re.compile(r"( *)([\d.]+ (?:ms|s|min|h|d|bytes?|[kMGT]B)\b[^ ]*|[^ ]+)")
_VIRTUAL_TERMINAL = 4  # ENABLE_VIRTUAL_TERMINAL_PROCESSING


class Screen(NamedTuple):
    """Makes lines for ``width`` columns, None for lines of any length."""

    width: Optional[int]
    colour: bool

    def heading(self, text: str) -> list[str]:
        """A line above findings."""
        return [self._painted(_BOLD, line) for line in wrapped(printable(text), self.width, 4)]

    def finding(self, mark: str, name: str, detail: str, advice: str, name_width: int) -> list[str]:
        """What was found, and below it what to do."""
        if self.width is not None and self.width < _COLUMNS_FROM:
            name, indent = name + ":", 8
        else:
            name, indent = name.ljust(name_width) + " ", 10 + name_width
        lines = wrapped("%s %s" % (name, printable(detail)), self.width, indent, " " * 8)
        lines[0] = "  %s%s%s" % (
            self._painted(_COLOURS[mark], mark),
            " " * (6 - len(mark)),
            lines[0][8:],
        )
        if advice:
            lines += wrapped("-> " + printable(advice), self.width, indent + 3, " " * indent)
        return lines

    def text(self, text: str, *, indent: int = 0, more: int = 2) -> list[str]:
        """Any other line, indented, its rest by ``more`` again."""
        return wrapped(printable(text), self.width, indent + more, " " * indent)

    def _painted(self, colour: str, text: str) -> str:
        return colour + text + _PLAIN if self.colour else text


def wrapped(text: str, width: Optional[int], indent: int, first: str = "") -> list[str]:
    """``text`` behind ``first``, broken between words, from the second line on behind ``indent`` blanks.

    A word that fills more than a line is broken behind a punctuation mark, as in addresses and paths.
    """
    if width is None:
        return [(first + text).rstrip()]
    room = max(8, width - indent)  # of any line but the first
    lines, line = [], first
    for blank, word in _WORDS.findall(text):
        if _columns(line + blank + word) <= width:
            line += blank + word
            continue
        if _columns(word) <= room and line.strip():
            lines.append(line)
            line = " " * indent + word
            continue
        line += blank
        for part in _pieces(word, room):
            if _columns(line + part) > width and line.strip():
                lines.append(line.rstrip())
                line = " " * indent
            line += part
    return [*lines, line.rstrip()]


def _pieces(word: str, room: int) -> list[str]:
    """Parts of a long word, none wider than ``room``."""
    found = []
    for part in _PARTS.findall(word):
        while _columns(part) > room:
            cut = next(n for n in range(len(part), 0, -1) if n == 1 or _columns(part[:n]) <= room)
            found.append(part[:cut])
            part = part[cut:]
        found.append(part)
    return found


def _columns(text: str) -> int:
    """How wide a terminal shows it."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def of_stdout(environ: Mapping[str, str], *, as_json: bool) -> Screen:
    """The screen that stdout is."""
    terminal = is_terminal(sys.stdout)
    width = min(_WIDEST, shutil.get_terminal_size().columns) if terminal else None
    obeyed = sys.platform != "win32" or _obeyed_on_windows()
    coloured = is_coloured(environ, terminal=terminal, platform=sys.platform, obeyed=obeyed)
    return Screen(width, coloured and not as_json)


def is_coloured(environ: Mapping[str, str], *, terminal: bool, platform: str, obeyed: bool) -> bool:
    """Whether to colour: NO_COLOR, then FORCE_COLOR and CLICOLOR_FORCE, then what the terminal can do.

    ``obeyed``: the console acts on escape sequences (of Windows only).
    """
    if environ.get("NO_COLOR"):  # no-color.org: whatever it says, unless it is empty
        return False
    if any(environ.get(name, "") not in ("", "0") for name in ("FORCE_COLOR", "CLICOLOR_FORCE")):
        return True
    if not terminal or environ.get("TERM") == "dumb":
        return False
    knows = any(environ.get(name) for name in ("WT_SESSION", "ANSICON"))
    return platform != "win32" or obeyed or knows


def _obeyed_on_windows() -> bool:  # pragma: no cover
    import ctypes

    try:
        kernel, mode = ctypes.windll.kernel32, ctypes.c_ulong()  # type: ignore[attr-defined]
        found = kernel.GetConsoleMode(kernel.GetStdHandle(-11), ctypes.byref(mode))
        return bool(found and mode.value & _VIRTUAL_TERMINAL)
    except (AttributeError, OSError):
        return False
