"""Printing: results on stdout, as text or as one JSON value; messages and progress on stderr.

Text from disks and servers is made printable before it reaches a terminal, and a stream that cannot show a character
gets an escape, never an exception. No secret comes here: whoever shows a record has masked it.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Optional, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Unheard(Exception):
    """A stream refuses what is printed: a closed pipe, a full disk; ``error`` says why."""

    @property
    def error(self) -> OSError:
        """What the system said."""
        found: OSError = self.args[0]
        return found


class Output:
    """The two streams of one command."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def answer(self, value: Any, lines: Iterable[str]) -> None:
        """The command's result: ``value`` with ``--json``, else ``lines``."""
        if self.as_json:
            write(sys.stdout, json.dumps(value, indent=2))
        else:
            for line in lines:
                write(sys.stdout, line)

    def say(self, text: str) -> None:
        """A message to a person, never part of the result."""
        write(sys.stdout, "", end="")  # what came before is shown before
        write(sys.stderr, text)


def write(stream: Optional[TextIO], text: str, end: str = "\n") -> None:
    """Print to a stream that may be missing (a windowed program) or may not know a character.

    Raises ``Unheard`` where nobody takes it.
    """
    if stream is None:
        return
    try:
        try:
            stream.write(text + end)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + end)
        stream.flush()
    except OSError as error:
        raise Unheard(error) from None


def is_terminal(stream: Optional[TextIO]) -> bool:
    """Whether a person looks at the stream."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def printable(text: object) -> str:
    """One line without control characters, which a terminal would obey."""
    return "".join(char if char.isprintable() else "\ufffd" for char in str(text))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Left-aligned columns with a head line."""
    texts = [list(heads), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in texts]


def facts(value: dict[str, Any]) -> list[str]:
    """``name  value`` lines of a flat mapping."""
    width = max(map(len, value), default=0)
    return ["%s  %s" % (name.ljust(width), plain(found)) for name, found in value.items()]


def plain(value: Any) -> str:
    """A JSON value as a person writes it."""
    if value is None or value == "" or value == [] or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join("%s: %s" % (printable(name), plain(value[name])) for name in value)
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    return printable(value)


def duration(seconds: float) -> str:
    """A span in the unit that fits: 45 s, 12 min, 3 h, 8 d."""
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return "%s%d %s" % (sign, seconds // size, unit)
    return "%s%d %s" % (sign, seconds, "s")


def moment(at: float) -> str:
    """Unix seconds as an ISO time in UTC; as they are where no calendar reaches."""
    import datetime

    try:
        found = datetime.datetime.fromtimestamp(int(at), datetime.timezone.utc)
    except (ValueError, OverflowError, OSError):
        return "%s s" % at
    return found.strftime("%Y-%m-%d %H:%M:%SZ")


def counted(n: int, noun: str) -> str:
    """``1 record``, ``2 records``."""
    return "%d %s%s" % (n, noun, "" if n == 1 else "s")


def amount(size_bytes: float) -> str:
    """Bytes in the decimal unit that fits: 0 bytes, 12.3 kB, 10 MB."""
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        if size_bytes >= 0.9995 * 10**power:  # what %.3g makes of less has no exponent
            return "%.3g %s" % (size_bytes / 10**power, unit)
    return counted(int(size_bytes), "byte")
