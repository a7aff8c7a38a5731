"""Tables of what was measured or tried, as a terminal shows them and a document has them between two comments."""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

WIDTH = 118


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: str = "---") -> list[str]:
    """Its lines; the first column is that of names."""
    line = "|---|" + (numbers + "|") * (len(columns) - 1)
    head, *others = ("| %s |" % " | ".join(row) for row in [columns, *rows])
    return [head, line, *others]


def folded(line: str) -> list[str]:
    """A line that is no row of a table, no wider than the documents allow."""
    return textwrap.wrap(line, WIDTH, subsequent_indent="  " * line.startswith("- ")) or [""]


def fill(path: Path, kind: str, name: str, text: str) -> bool:
    """Put it into its block of a document; whether there is one."""
    begin, end = "<!-- %s %s -->\n" % (kind, name), "<!-- /%s -->\n" % kind
    before, _, rest = path.read_text("utf-8").partition(begin)
    _, found, after = rest.partition(end)
    if found:
        path.write_text(before + begin + text + "\n" + end + after, "utf-8")
    return bool(found)
