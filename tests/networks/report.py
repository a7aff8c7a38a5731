"""What was seen, for people: a line on the terminal as it comes, a table in a document."""

from __future__ import annotations

import datetime
import os
import platform
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .situations import Situation
from .stage import Verdict

BEGIN, END = "<!-- networks -->\n", "<!-- /networks -->\n"
HEAD = "\n**%s**\n\n| situation | outcome | s | `-k` |\n|---|---|---|---|"


class Row(NamedTuple):
    """One situation and how it ended. ``why``: left out because of that; ``error``: it went otherwise."""

    situation: Situation
    verdicts: list[Verdict]
    copies: int
    why: str
    error: str


def line(row: Row) -> str:
    """The row in one line."""
    if row.why or row.error:
        return "%-24s %s" % (row.situation.name, row.why or "NOT AS EXPECTED: " + row.error)
    verdict = row.verdicts[0]
    return "%-24s %6.2f s  %s" % (row.situation.name, verdict.seconds, outcome(row))


def outcome(row: Row) -> str:
    """The first verdict, and how often the server got the record where that was not once."""
    more = "; arrived %d times" % row.copies if row.copies > 1 else ""
    return row.verdicts[0].outcome + more


def summary(rows: Sequence[Row]) -> str:
    """How many went as the list says."""
    wrong, left = sum(1 for row in rows if row.error), sum(1 for row in rows if row.why)
    return "%d as expected, %d not, %d left out" % (len(rows) - wrong - left, wrong, left)


def markdown(rows: Sequence[Row]) -> str:
    """The table, a part for each group."""
    lines = ["%s." % about(rows)]
    for group in dict.fromkeys(row.situation.group for row in rows):
        lines.append(HEAD % group)
        lines += [_cells(row) for row in rows if row.situation.group == group]
    return "\n".join(lines)


def _cells(row: Row) -> str:
    said = "**not as expected**" if row.error else "left out: " + row.why
    seconds = ""
    if row.verdicts:
        said, seconds = outcome(row), "%.2f" % max(row.verdicts[0].seconds, 0.01)
    words, said = (text.replace("|", "\\|") for text in (row.situation.words, said))
    return "| %s | %s | %s | `%s` |" % (words, said, seconds, row.situation.name)


def about(rows: Sequence[Row]) -> str:
    """What the figures depend on."""
    load = "%.1f" % os.getloadavg()[0] if hasattr(os, "getloadavg") else "unknown"
    seen = sum(1 for row in rows if row.verdicts)
    facts = platform.python_version(), ssl.OPENSSL_VERSION, platform.system(), os.cpu_count() or 0
    told = "%d situations, Python %s, %s, %s, %d CPUs, load %s, %s"
    return told % (seen, *facts, load, datetime.date.today().isoformat())


def fill(path: Path, rows: Sequence[Row]) -> bool:
    """Replace the table in a document; False where it has no place for one."""
    text = path.read_text("utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        return False
    path.write_text(head + begin + markdown(rows) + "\n" + end + tail, "utf-8")
    return True
