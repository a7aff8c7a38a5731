"""Draws what was measured: ``python plots.py RESULTS.json DIRECTORY``, with any Python that has matplotlib.

Only ``python -m tests.bench --plots`` calls it, with the matplotlib that the bench installed for itself.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

OURS, FLOOR, OTHER = "#0b6e4f", "#8a8a8a", "#c8553d"
# group, number of its table, number of the column, file, label of the axis, logarithmic
CHARTS = (
    ("import", 0, 0, "import-ms", "import, ms over a bare interpreter", False),
    ("import", 0, 3, "import-mb", "import, resident MB over a bare interpreter", False),
    ("cold", 0, 0, "cold", "start to a durable record, ms over a bare interpreter", False),
    ("startup", 0, 0, "startup", "start to a durable record, ms over a bare interpreter", False),
    ("warm", 0, 0, "warm", "one recording call on a quiet disk, p50, µs", True),
    ("exit", 0, 0, "exit", "exit, ms", False),
    ("exit", 1, 0, "exit-peers", "record and exit behind a black hole, s", False),
    ("interference", 1, 1, "gui", "GUI tick, p99 lateness, ms", False),
    ("replay", 0, 0, "replay", "replay, records per second", True),
)


def value(cell: Any) -> tuple[float, float, float]:
    """(median, down to the lower quartile, up to the upper)."""
    if isinstance(cell, dict):
        middle = cell["median"]
        return middle, max(0.0, middle - cell["low"]), max(0.0, cell["high"] - middle)
    if isinstance(cell, str):  # "over 20", "3.21"
        digits = cell.replace("over ", "")
        return (float(digits), 0.0, 0.0) if digits.replace(".", "").isdigit() else (0.0, 0.0, 0.0)
    return float(cell), 0.0, 0.0


def colour(name: str) -> str:
    if "agent" in name or name.startswith(("record_", "track", "count")):
        return OURS
    return FLOOR if name.startswith(("floor", "raw", "bare", "without")) else OTHER


def draw(table: dict[str, Any], column: int, label: str, logarithmic: bool, path: Path) -> None:
    import matplotlib  # type: ignore[import-not-found]

    matplotlib.use("svg")
    # The same figures give the same file, with its words as text.
    matplotlib.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none"})
    import matplotlib.pyplot as plt  # type: ignore[import-not-found]

    names = list(table["rows"])
    values = [value(table["rows"][name][column]) for name in names]
    figure, axes = plt.subplots(figsize=(7.2, 0.8 + 0.3 * len(names)))
    all_ours = not any("agent" in name or name.startswith(("record", "count")) for name in names)
    axes.barh(
        names,
        [middle for middle, _, _ in values],
        xerr=[[low for _, low, _ in values], [high for _, _, high in values]],
        color=[OURS if all_ours and colour(name) == OTHER else colour(name) for name in names],
        error_kw={"elinewidth": 0.8, "ecolor": "#333333", "capsize": 2},
    )
    for at, name in enumerate(names):
        if str(table["rows"][name][column]).startswith("over "):  # ended then, not finished
            axes.text(values[at][0], at, " " + table["rows"][name][column], va="center", fontsize=8)
    if logarithmic:
        axes.set_xscale("log")
    axes.invert_yaxis()
    axes.set_xlabel(label, fontsize=9)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main(results: str, directory: str) -> None:
    groups = json.loads(Path(results).read_text("utf-8"))["groups"]
    for group, number, column, name, label, logarithmic in CHARTS:
        tables = groups.get(group, {}).get("tables", [])
        if number < len(tables) and tables[number]["rows"]:
            path = Path(directory) / (name + ".svg")
            draw(tables[number], column, label, logarithmic, path)


if __name__ == "__main__":
    main(*sys.argv[1:])
