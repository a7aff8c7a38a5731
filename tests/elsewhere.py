"""The whole test suite against a copy under another name: ``python -m tests.elsewhere [arguments of pytest]``.

The package is put to ``product/_vendor/telemetry_agent`` of a temporary tree, the tests beside it, and in them, code
for child processes included, that name takes the place of ours. No package ``agent`` can be found there. Left out are
the tests of this tree itself: its documents, its shape, and the command that makes copies.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "product._vendor.telemetry_agent"
PLACE = NAME.split(".")
LEFT_OUT = (
    "docs/test_docs.py",
    "test_structure.py",
    "vendoring/test_vendoring.py",
    "docs/test_bench.py",
    "vendoring/test_copies_elsewhere.py",
    "contract/test_consumer_types.py",
)
_PARTS = "|".join(
    sorted(path.stem for path in (ROOT / "agent").iterdir() if not path.name.startswith("__"))
)
_RULES = [
    (r"(?<![\w.])import agent\.([\w.]+)", r"import %s.\1; import %s as agent" % (NAME, NAME)),
    (r"(?:(?<![\w.])|(?<=\\n))import agent(?= *(?:$|[;\\\"']))", "import %s as agent" % NAME),
    (r"(?<![\w.])from agent(?=\.\w| import\b)", "from %s" % NAME),
    (r"(?<=[\"'])agent\.(?=(?:%s)\b)" % _PARTS, NAME + "."),
    (r"ROOT / \"agent\"", " / ".join(["ROOT", *('"%s"' % part for part in PLACE)])),
    # The name as such, where a test asks for it.
    (
        r"(-m\", |package: str = |\"name\": |== |startswith\(|include=\[)\"agent(?=\.?\"|\.c)",
        r'\1"' + NAME,
    ),
    (r"\"agent (?=%s\\n\" % VERSION)", '"%s ' % NAME),
]


def renamed(text: str) -> str:
    """A test file that knows the package by its other name."""
    for pattern, new in _RULES:
        text = re.sub(pattern, new, text, flags=re.MULTILINE)
    return text


def build(top: Path) -> None:
    """The tree: the copy, the tests, and what they read."""
    ignored = shutil.ignore_patterns("__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT / "agent", top.joinpath(*PLACE), ignore=ignored)
    for name in ("tests", "vendor_notes"):
        shutil.copytree(ROOT / name, top / name, ignore=ignored)
    for name in ("setup.cfg", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"):
        shutil.copy(ROOT / name, top / name)
    shutil.copy(ROOT / "LICENSE", top.joinpath(*PLACE, "LICENSE"))
    for path in (top / "tests").rglob("*.py"):
        path.write_text(renamed(path.read_text("utf-8")), "utf-8")


def main(arguments: list[str]) -> int:
    """Build the tree, run pytest in it, remove it; pytest's exit status."""
    top = Path(tempfile.mkdtemp(prefix="elsewhere-"))
    try:
        build(top)
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        ignored = ["--ignore=tests/" + name for name in LEFT_OUT]
        command = [sys.executable, "-m", "pytest", *ignored, *arguments]
        return subprocess.call(command, cwd=top, env=env)
    finally:
        shutil.rmtree(top, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
