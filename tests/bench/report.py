"""What was measured, for people: a table on the terminal, blocks in a document."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .measure import Figure, number

WIDEST = 118


def cell(value: Any) -> str:
    """A figure as a text: its median, with its quartiles where there are several measurements."""
    if value is None:
        return ""
    if isinstance(value, dict):
        value = Figure(**value)
    return number(value) if isinstance(value, (int, float)) else str(value)


def rows(table: dict[str, Any]) -> list[list[str]]:
    return [[name, *map(cell, cells)] for name, cells in table["rows"].items()]


def aim(one: dict[str, Any]) -> str:
    bound = "at least" if one["at_least"] else "at most"
    unit = " " + one["unit"] if one["unit"] else ""
    verdict = "met" if one["met"] else "MISSED"
    facts = one["text"], number(one["value"]), unit, bound, number(one["limit"]), unit, verdict
    return "%s: %s%s, aim %s %s%s: %s" % facts


def terminal(result: dict[str, Any]) -> str:
    """Every table of one group, and its aims."""
    lines: list[str] = []
    for table in result["tables"]:
        found = [[table["title"], *table["columns"]], *rows(table)]
        widths = [max(len(row[at]) for row in found) for at in range(len(found[0]))]
        widths[0] = min(widths[0], max(len(row[0]) for row in found[1:]))
        lines += [table["title"]]
        for row in [["", *table["columns"]], *found[1:]]:
            cells = [row[0].ljust(widths[0])]
            cells += [text.rjust(width) for text, width in zip(row[1:], widths[1:])]
            lines.append("  " + "  ".join(cells))
        lines += ["  " + note for note in table["notes"]] + [""]
    lines += [aim(one) for one in result["aims"]]
    return "\n".join(lines)


def markdown(name: str, result: dict[str, Any], about: dict[str, Any]) -> str:
    """The same as a block of a document; no line is wider than the documents allow."""
    lines = ["`python -m tests.bench %s`: %s." % (name, _about(about)), ""]
    for table in result["tables"]:
        lines += ["**%s**" % table["title"], ""]
        lines.append("| | %s |" % " | ".join(table["columns"]))
        lines.append("|---|%s" % ("---|" * len(table["columns"])))
        lines += ["| %s |" % " | ".join(row) for row in rows(table)]
        lines += ["", *("%s\n" % note for note in table["notes"])]
    lines += ["- " + aim(one).replace("MISSED", "**missed**") for one in result["aims"]]
    return "\n".join(_folded(line) for line in "\n".join(lines).splitlines()).strip()


def _about(about: dict[str, Any]) -> str:
    return "Python %(python)s on %(platform)s, %(cpus)d CPUs, load %(load)s, %(date)s" % about


def _folded(line: str) -> str:
    import textwrap

    if line.startswith("|") or len(line) <= WIDEST:
        return line
    return textwrap.fill(line, WIDEST, subsequent_indent="  " * line.startswith("- "))


BLOCK = "<!-- bench %s -->\n"
END = "<!-- /bench -->\n"


def fill(path: Path, groups: dict[str, Any], about: dict[str, Any]) -> list[str]:
    """Replace the blocks of these groups in a document; the names of those that it has no block for."""
    text = path.read_text("utf-8")
    left = []
    for name, result in groups.items():
        begin = BLOCK % name
        block = re.compile(re.escape(begin) + ".*?" + re.escape(END), re.DOTALL)
        new = begin + markdown(name, result, about) + "\n" + END
        text, replaced = block.subn(new.replace("\\", r"\\"), text)
        if not replaced:
            left.append(name)
    path.write_text(text, "utf-8")
    return left


def summary(groups: dict[str, Any]) -> str:
    """How many aims were met, and which were not."""
    aims = [one for result in groups.values() for one in result["aims"]]
    missed = [one for one in aims if not one["met"]]
    lines = ["%d of %d aims met" % (len(aims) - len(missed), len(aims))]
    return "\n".join(lines + ["  " + aim(one) for one in missed])
