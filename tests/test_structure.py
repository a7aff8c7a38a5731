"""What keeps ``agent`` small, cheap to import and fit to be copied into somebody else's product.

Which floor may import which is not checked here but by ``lint-imports`` (contracts in ``setup.cfg``).
Run as a program, this file prints the sizes that it judges.
"""

import ast
import configparser
import importlib.util
import io
import os
import re
import shutil
import statistics
import subprocess
import sys
import tokenize
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.once
ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "agent"
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"cli", "collector"}  # for those who develop and look after a product
VENDORED = [path for path in MODULES if path.relative_to(PACKAGE).parts[0] not in HEAVY]
EXTRAS = [path for path in VENDORED if path.relative_to(PACKAGE).parts[0] == "extras"]
# What every copy has. __main__ is the door to cli, and an empty __init__ holds nothing.
CORE = [
    path
    for path in VENDORED
    if path not in EXTRAS and path != PACKAGE / "__main__.py" and path.stat().st_size
]

# The limits of the small core (decision 0015), as they are reached: they only fall. What the design aims at, and what
# stands between, is told there: 3,600 lines of code, 240,000 bytes, 22,000 lines of tests.
CORE_MODULES, CORE_FLOORS = 27, 8
CORE_CODE_LINES, LONGEST_CODE_LINES, MEDIAN_CODE_LINES = 4_316, 320, 125
EXTRAS_CODE_LINES = 600
COPY_FILES, COPY_BYTES = 32, 290_200
TESTS_CODE_LINES = 22_589

# Built into the interpreter, or loaded by it before most programs run.
CHEAP = {
    *"__future__ _functools _json _sha2 _sha256 _signal _thread atexit".split(),
    *"fcntl msvcrt binascii errno io math os sys time".split(),
}
# 3 to 20 ms each, or a burden on the host (measured before the first line was written): never, not even inside a call.
NEVER = {"dataclasses", "enum", "inspect", "logging", "sqlite3", "typing", "uuid"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=relative)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def for_types_only(node: ast.AST) -> bool:
    """Is this ``if TYPE_CHECKING:``, which no interpreter enters?"""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def running(node: ast.AST, *, at_import: bool) -> Iterator[ast.AST]:
    """Every node below that can run; with ``at_import`` only those that run when the module loads."""
    for child in ast.iter_child_nodes(node):
        if at_import and isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if for_types_only(child):
            assert isinstance(child, ast.If)
            for statement in child.orelse:
                yield statement
                yield from running(statement, at_import=at_import)
            continue
        yield child
        yield from running(child, at_import=at_import)


def absolute_imports(nodes: Iterator[ast.AST]) -> Iterator[tuple[str, int]]:
    """(top-level name, line) of every import that does not start with a dot."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).split(".")[0], node.lineno


def docstrings(tree: ast.Module) -> list[ast.Constant]:
    """The bare strings of a module, those below a constant included."""
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]


def lines_of_code(path: Path) -> int:
    """Lines that hold something else than a comment, a docstring or nothing."""
    prose = {(node.lineno, node.col_offset) for node in docstrings(parse(path))}
    layout = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    for token in tokenize.tokenize(io.BytesIO(path.read_bytes()).readline):
        if token.type not in layout and token.start not in prose:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines)


def code(paths: list[Path]) -> int:
    return sum(map(lines_of_code, paths))


# --- size ---------------------------------------------------------------------------------------


def test_nothing_is_larger_than_it_was() -> None:
    assert not [row for row in sizes() if row[0] > row[1]]


def test_every_module_of_the_core_stands_on_a_floor() -> None:
    named = {name for floor in floors() for name in re.findall(r"[\w.]+", floor)}
    assert {path.relative_to(PACKAGE).parts[0].partition(".")[0] for path in CORE} <= {
        *("__init__",),
        *named,
    }


def floors() -> list[str]:
    """The floors of the core, the package's own door first, as the contract for ``lint-imports`` names them."""
    layers = setup_cfg()["importlinter:contract:floors"]["layers"].split("\n")
    return ["__init__", *(line for line in layers if line and "(" not in line)]


@each(MODULES)
def test_no_code_is_squeezed(path: Path) -> None:
    text = path.read_text("utf-8")
    assert "fmt: " not in text and "black: " not in text
    tokens = list(tokenize.tokenize(io.BytesIO(path.read_bytes()).readline))
    assert not [
        token.start for token in tokens if token.string == ";" and token.type == tokenize.OP
    ]


def test_prose_is_not_counted_as_code(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(
        '"""Two\nlines."""\n\n# no\nX = """a\nb"""  # two\n"""Of X."""\n\n\ndef f():\n    """No."""\n'
    )
    assert lines_of_code(path) == 3


# --- shape --------------------------------------------------------------------------------------


@each(MODULES)
def test_a_module_opens_with_its_purpose(path: Path) -> None:
    assert len(ast.get_docstring(parse(path)) or "") > 20 or not path.stat().st_size


@each(MODULES)
def test_annotations_are_never_evaluated(path: Path) -> None:
    tree = parse(path)
    future = ast.parse("from __future__ import annotations").body[0]
    found = len(tree.body) > 1 and ast.dump(tree.body[1]) == ast.dump(future)
    if path == PACKAGE / "__init__.py":
        assert not found, "importing the package would load __future__"
    else:
        annotated = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.AnnAssign)
        assert found or not any(isinstance(node, annotated) for node in ast.walk(tree))


# --- imports ------------------------------------------------------------------------------------


@each(MODULES)
def test_our_own_modules_are_imported_relatively(path: Path) -> None:
    wrong = [found for found in absolute_imports(ast.walk(parse(path))) if found[0] == PACKAGE.name]
    assert not wrong, "breaks under any other package name"


@each(MODULES)
def test_a_relative_import_stays_inside(path: Path) -> None:
    depth = len(path.relative_to(PACKAGE).parts)
    wrong = [
        node.lineno
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ImportFrom) and node.level > depth
    ]
    assert not wrong, "leaves the package, into whatever holds the copy"


@each(MODULES)
def test_no_string_holds_our_own_dotted_name(path: Path) -> None:
    tree = parse(path)
    prose = {id(node) for node in docstrings(tree)}
    # Files of the state directory bear the name whatever the copy is called.
    name = re.compile(r"(?<![\w.-])agent\.(?!book|consent|lock|room)[A-Za-z_]|-m agent\b")
    wrong = [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in prose
        and name.search(node.value)
    ]
    assert not wrong, "untrue under any other package name"


# It comes with the first request, on a thread of ours, and with it urllib3.
LATE = [PACKAGE / "transport.py"]


@each([path for path in CORE if path not in LATE])
def test_loading_a_core_module_loads_only_what_is_cheap(path: Path) -> None:
    found = absolute_imports(running(parse(path), at_import=True))
    assert not [(name, line) for name, line in found if name not in CHEAP]


@each(CORE)
def test_the_core_never_loads_what_burdens_the_host(path: Path) -> None:
    found = absolute_imports(running(parse(path), at_import=False))
    assert not [(name, line) for name, line in found if name in NEVER]


PROBE = """
import _thread, sys
sys.path.insert(0, sys.argv[1])
import empty_probe  # whatever this way of importing costs by itself
for name in sys.argv[3:]:
    __import__(name)
events = []
for name in ("start_new_thread", "start_joinable_thread"):  # audited since 3.12 only
    setattr(_thread, name, lambda *_, **__: events.append(("thread", "")) or 0)
before = set(sys.modules)
sys.addaudithook(lambda event, args: events.append((event, str(args[0]) if args else "")))
__import__(sys.argv[2])
seen, after = list(events), set(sys.modules)
print("MODULES", *sorted(after - before))
for event, argument in seen:
    if event.startswith(("thread", "socket.", "subprocess.", "ctypes.", "winreg.", "os.", "open")):
        print("DID", event, argument)
"""


def load(
    where: Path, name: str, *loaded: str, flags: tuple[str, ...] = ("-I", "-S")
) -> tuple[set[str], set[str]]:
    """Import ``name`` from ``where`` in a fresh interpreter -> (modules added, what else it did).

    Loading files from ``where`` does not count, nor how the import system looks into a directory.
    """
    command = [sys.executable, *flags, "-B", "-W", "error", "-c", PROBE, str(where), name, *loaded]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and not done.stderr, done.stderr
    first, *others = done.stdout.splitlines()
    assert first.startswith("MODULES")
    harmless = ("DID os.listdir ", "DID open %s" % where)
    return set(first.split()[1:]), {line for line in others if not line.startswith(harmless)}


def foreign(modules: set[str], ours: str) -> set[str]:
    return {name for name in modules if name != ours and not name.startswith(ours + ".")}


def copy_package(to: Path) -> Path:
    shutil.copytree(PACKAGE, to, ignore=shutil.ignore_patterns("__pycache__", *HEAVY))
    return to


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "empty_probe.py").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    "flags",
    [("-I", "-S"), ("-I",), ("-I", "-S", "-OO"), ("-I", "-X", "dev")],
    ids="".join,
)
def test_importing_the_package_loads_nothing_else(place: Path, flags: tuple[str, ...]) -> None:
    copy_package(place / "agent")
    modules, did = load(place, "agent", flags=flags)
    assert "agent" in modules
    assert not foreign(modules, "agent") and not did


@pytest.mark.parametrize("name", ["callhome_of_acme", "acme._vendor.agent"])
def test_a_copy_elsewhere_loads_nothing_else(place: Path, name: str) -> None:
    *parents, last = name.split(".")
    directory = place
    for parent in parents:
        directory = directory / parent
        directory.mkdir()
        (directory / "__init__.py").write_text("")
    copy_package(directory / last)
    holders = [".".join(parents)] if parents else []
    modules, did = load(place, name, *holders)
    assert not foreign(modules, name) and not did


def test_a_copy_in_a_zip_loads_nothing_else(place: Path) -> None:
    copy = copy_package(place / "agent")
    archive = place / "product.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("empty_probe.py", "")
        for path in sorted(copy.rglob("*.py")):
            target.write(path, path.relative_to(place).as_posix())
    modules, did = load(archive, "agent")
    assert not foreign(modules, "agent") and not did


def test_loading_the_whole_core_loads_only_what_is_cheap(place: Path) -> None:
    copy = copy_package(place / "agent")
    late = {copy / path.relative_to(PACKAGE) for path in LATE}
    paths = set(copy.rglob("*.py")) - late
    dotted = [path.relative_to(place).with_suffix("").parts for path in paths]
    names = sorted(".".join(parts[:-1] if parts[-1] == "__init__" else parts) for parts in dotted)
    names = [name for name in names if name != "agent.__main__"]
    (place / "everything.py").write_text("".join("import %s\n" % name for name in names))
    known = [name for name in sorted(CHEAP) if importlib.util.find_spec(name)]  # _sha2 since 3.12
    modules, did = load(place, "everything", *known)
    assert set(names) <= modules
    assert not foreign(modules, "agent") - {"everything"} and not did


# --- what does not belong -----------------------------------------------------------------------

TEXTS = sorted(
    path
    for top in "agent tests vendor_notes .ci README.md CHANGELOG.md setup.cfg pyproject.toml".split()
    for path in ([ROOT / top] if (ROOT / top).is_file() else (ROOT / top).rglob("*"))
    if path.is_file() and path.suffix not in {".pyc", ".zip"}
)


def test_no_file_names_a_directory_of_the_person_who_wrote_it() -> None:
    somebodys = re.compile(
        r"(?<![\w.}$])(?:/home/\w+/|/Users/\w+/|/roo[t]/|[A-Za-z]:\\+Users\\+\w+)"
    )
    here = {os.path.expanduser("~") + os.sep, str(ROOT) + os.sep}
    wrong = []
    for path in TEXTS:
        for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
            if somebodys.search(line) or any(place in line for place in here if len(place) > 3):
                wrong.append("%s:%d: %s" % (relative(path), number, line.strip()))
    assert not wrong


@each(VENDORED)
def test_no_fixed_name_in_the_shared_temporary_directory(path: Path) -> None:
    strings = [node for node in ast.walk(parse(path)) if isinstance(node, ast.Constant)]
    assert not [
        node.lineno for node in strings if isinstance(node.value, str) and "/tmp" in node.value
    ]


# --- packaging ----------------------------------------------------------------------------------


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string((ROOT / "setup.cfg").read_text("utf-8"))
    return parser


def test_the_product_needs_three_libraries_and_no_more() -> None:
    needed = setup_cfg()["options"]["install_requires"].split()
    assert {re.split("[<>=!~]", one)[0] for one in needed} == {"urllib3", "platformdirs", "pynacl"}


def test_the_oldest_libraries_that_are_tried_are_the_oldest_that_are_allowed() -> None:
    allowed = setup_cfg()["options"]["install_requires"].split()
    lines = (ROOT / "tests" / "oldest.txt").read_text("utf-8").splitlines()
    tried = [tuple(line.split("==")) for line in lines if not line.startswith("#")]
    assert [name for name, _ in tried] == [line.partition(">=")[0] for line in allowed]
    for (_, version), line in zip(tried, allowed):
        assert (version + ".").startswith(line.partition(">=")[2] + ".")


def test_nothing_is_installed_but_the_package() -> None:
    parser = setup_cfg()
    assert "options.entry_points" not in parser and "scripts" not in parser["options"]
    assert parser["options.packages.find"]["include"].split() == ["agent", "agent.*"]
    assert (PACKAGE / "py.typed").is_file()


def test_the_build_file_holds_only_the_build_system() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert re.findall(r"^\s*\[(.+)\]\s*$", text, re.MULTILINE) == ["build-system"]


def test_the_version_can_be_read_without_running_anything() -> None:
    assert setup_cfg()["metadata"]["version"] == "attr: agent.__version__"
    text = (PACKAGE / "__init__.py").read_text("utf-8")
    assert re.search(r'^__version__ = "\d+\.\d+\.\d+\w*"$', text, re.MULTILINE)


def sizes() -> list[tuple[int, int, str]]:
    """What is limited, as it is, and its limit."""
    longest = max(CORE, key=lines_of_code)
    copied = [path for path in VENDORED if path not in EXTRAS]
    tests = sorted((ROOT / "tests").rglob("*.py"))
    return [
        (code(CORE), CORE_CODE_LINES, "lines of code in the core"),
        (len(CORE), CORE_MODULES, "modules"),
        (len(floors()), CORE_FLOORS, "floors"),
        (lines_of_code(longest), LONGEST_CODE_LINES, "in the longest, " + relative(longest)),
        (int(statistics.median(map(lines_of_code, CORE))), MEDIAN_CODE_LINES, "in the median"),
        (code(EXTRAS), EXTRAS_CODE_LINES, "lines of code in the extras"),
        (len(copied), COPY_FILES, "files in a copy"),
        (sum(path.stat().st_size for path in copied), COPY_BYTES, "bytes in a copy"),
        (code(tests), TESTS_CODE_LINES, "lines of code in the tests"),
    ]


if __name__ == "__main__":
    for row in sizes():
        print("%7d of at most %7d  %s" % row)
    for path in [*CORE, *EXTRAS]:
        print("%7d  %s" % (lines_of_code(path), relative(path)))
