"""How the sample product is built: a copy of the agent, a virtual environment, one packager's command.

The recipes are the option files in ``vendor_notes/packagers``, as a vendor would use them.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ROOT / "vendor_notes" / "sample_product"
RECIPES = ROOT / "vendor_notes" / "packagers"
TELEMETRY = Path("studio", "_vendor", "telemetry")

Command = Callable[[Path, list[str]], list[str]]


class Packager(NamedTuple):
    """What is installed, what is run in the product's directory, and where the program is then."""

    requirements: tuple[str, ...]
    command: Command
    program: str
    recipe: str


def _pyinstaller(how: str) -> Command:
    def command(out: Path, recipe: list[str]) -> list[str]:
        where = ["--distpath", str(out), "--workpath", str(out / "work"), "--specpath", str(out)]
        words = ["-m", "PyInstaller", how, "--windowed", "--name=studio", "--log-level=WARN"]
        return [*words, *where, *recipe, "launch.py"]

    return command


def _cx_freeze(out: Path, recipe: list[str]) -> list[str]:
    words = ["-m", "cx_Freeze", "--script=launch.py", "--target-name=studio", "build_exe"]
    return [*words, "--silent", "--build-exe=%s" % (out / "studio"), *recipe]


def _nuitka(how: str) -> Command:
    def command(out: Path, recipe: list[str]) -> list[str]:
        words = ["-m", "nuitka", how, "--enable-plugin=tk-inter", "--output-filename=studio"]
        words += ["--lto=no", "--jobs=2", "--quiet", "--output-dir=%s" % out]
        return [*words, *recipe, "launch.py"]

    return command


_ROWS = (
    # name, what is installed, the command, the program, the recipe
    ("pyinstaller-onedir", "pyinstaller", _pyinstaller("--onedir"), "studio/studio", "pyinstaller"),
    ("pyinstaller-onefile", "pyinstaller", _pyinstaller("--onefile"), "studio", "pyinstaller"),
    ("cx_freeze", "cx_Freeze", _cx_freeze, "studio/studio", "cx_freeze"),
    ("nuitka-standalone", "nuitka", _nuitka("--standalone"), "launch.dist/studio", "nuitka"),
    ("nuitka-onefile", "nuitka[onefile]", _nuitka("--onefile"), "studio", "nuitka"),
)
PACKAGERS = {
    name: Packager((needs,), command, program, recipe + ".txt")
    for name, needs, command, program, recipe in _ROWS
}


def options(recipe: str, *, pynacl: bool) -> list[str]:
    """The words of an option file; without PyNaCl not what names a part of it."""
    words = (RECIPES / recipe).read_text("utf-8").split()
    return [word for word in words if pynacl or not word.endswith(("_cffi_backend", "nacl"))]


def find_python(wanted: str) -> str:
    """The interpreter that is meant by a path, a version like 3.12, or nothing."""
    if not wanted:
        return sys.executable
    found = shutil.which(wanted) or shutil.which("python" + wanted)
    if found is None:
        raise SystemExit("no Python %s here" % wanted)
    return found


def product(top: Path, parts: str) -> Path:
    """A fresh tree of the product, with these parts of the agent in its copy."""
    tree = top / "product"
    if not tree.exists():
        shutil.copytree(PRODUCT, tree, ignore=shutil.ignore_patterns("telemetry", "__pycache__"))
        vendor = [sys.executable, "-m", "agent", "vendor", "--with", parts]
        _run(*vendor, str(tree / TELEMETRY), cwd=ROOT)
    return tree


def environment(top: Path, python: str, packager: Packager, libraries: tuple[str, ...]) -> Path:
    """The interpreter of a virtual environment with the packager and what the agent finds there."""
    name = "-".join(["venv", *packager.requirements, *libraries])
    place = top / name.replace("[", "-").replace("]", "")
    interpreter = place / "bin" / "python"
    if not interpreter.exists():
        _run(python, "-m", "venv", str(place))
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run(*pip, *packager.requirements, *libraries)
    return interpreter


def build(packager: Packager, interpreter: Path, tree: Path, out: Path, recipe: list[str]) -> Path:
    """Build; the program."""
    out.mkdir(parents=True)
    _run(str(interpreter), *packager.command(out, recipe), cwd=tree)
    return out / packager.program


def _run(*command: str, cwd: Path = ROOT) -> None:
    subprocess.run(command, cwd=cwd, stdout=sys.stderr, check=True)
