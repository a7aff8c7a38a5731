"""A copy made by ``vendor``: what is in it, what an edit, an upgrade or a kill in the middle does to it."""

import configparser
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from support.agent import ROOT, child_environ, run_python, snapshot
from support.cli import Result, installed, run, vendored

from agent import __version__
from agent.cli.vendoring import libraries
from agent.cli.vendoring.rewriting import rewritten
from agent.errors import AgentError

pytestmark = pytest.mark.once
PACKAGE = ROOT / "agent"
PARTS = "keyring,detached,transfer,domain,cli,deps"


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "product" / "_vendor" / "telemetry_agent"


def vendor(*argv: Any) -> str:
    done = run("vendor", *map(str, argv))
    assert done.status == 0, done.err
    return done.out


def check(dest: Path) -> Any:
    done = run("vendor", "--check", "--json", str(dest))
    assert done.status == (0 if done.json["ok"] else 1)
    return done.json


def listed(dest: Path) -> Any:
    return json.loads((dest / "VENDORED.json").read_text())


# Several command lines of a copy, in a process of its own.
TYPED = """
import contextlib, io, json, sys
copy, found = __import__(sys.argv[1]), []
for words in json.loads(sys.argv[2]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found.append([copy.main(words), out.getvalue(), err.getvalue()])
sys.stdout.write(json.dumps(found))
"""


def typed(dest: Path, *forms: str) -> list[Result]:
    """What the command line of a copy says to each."""
    words = json.dumps([form.split() for form in forms])
    env = {**child_environ(), "PYTHONPATH": str(dest.parent)}
    done = run_python(TYPED, dest.name, words, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    return [Result(*one) for one in json.loads(done.stdout)]


def older(dest: Path, path: str = "clock.py") -> None:
    """Make the copy one of an earlier version, in which ``path`` was different."""
    text = b"# earlier\n"
    (dest / path).write_bytes(text)
    manifest = listed(dest)
    manifest["version"] = "0.0.9"
    manifest["files"][path] = sha256(text).hexdigest()
    (dest / "VENDORED.json").write_text(json.dumps(manifest))


# --- what a copy is -------------------------------------------------------------------------------


def test_a_copy_is_small_the_core_the_licence_and_two_lists(dest: Path) -> None:
    assert "copy of version %s" % __version__ in vendor(dest)
    left_out = ("cli/", "collector/", "extras/", "__main__.py")
    paths = (path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
    core = {path for path in paths if not path.startswith(left_out)}
    found = snapshot(dest)
    found = {path.replace(os.sep, "/"): data for path, data in found.items()}
    assert set(found) == {*core, "py.typed", "LICENSE", "VENDORED.json", "sbom.cdx.json"}
    assert all(found[path] == (PACKAGE / path).read_bytes() for path in core)
    assert found["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    hashes = {path: sha256(data).hexdigest() for path, data in found.items()}
    del hashes["VENDORED.json"]
    assert listed(dest)["files"] == hashes


def test_the_parts_are_named_as_a_whole_and_remembered(dest: Path) -> None:
    vendor("--with", "keyring,cli", dest)
    assert listed(dest)["parts"] == ["keyring", "cli"]
    for form in ("--check", "--upgrade"):
        assert run("vendor", form, str(dest)).status == 0
    assert (dest / "extras" / "keyring.py").exists() and (dest / "cli" / "doctor.py").exists()
    said = run("vendor", "--check", "--with", "keyring", str(dest))
    assert (said.status, said.err.count("\n")) == (1, 1) and "with these options" in said.err
    vendor("--upgrade", "--with", "domain", dest)
    assert [path.name for path in (dest / "extras").glob("[!_]*.py")] == ["domain.py"]
    assert not (dest / "cli").exists() and not (dest / "__main__.py").exists()
    vendor("--upgrade", "--with", "none", dest)
    assert listed(dest)["parts"] == [] and not (dest / "extras").exists()


@pytest.mark.parametrize("given", ["telepathy", "cli,", "", "keyring,none", "Cli", "cli keyring"])
def test_a_part_that_there_is_not_is_wrong_usage(dest: Path, given: str) -> None:
    done = run("vendor", "--with", given, str(dest))
    assert (done.status, done.out) == (2, "") and PARTS.replace(",", ", ") in done.err
    assert not dest.exists()


def test_the_command_line_of_a_copy_says_what_it_has_not(dest: Path) -> None:
    vendor("--with", "cli", dest)
    assert (dest / "__main__.py").exists() and (dest / "cli" / "doctor.py").exists()
    assert not list(dest.rglob("vendoring")) and not list(dest.rglob("demo"))
    assert not (dest / "collector").exists() and not (dest / "extras").exists()
    door = [sys.executable, "-m", dest.name, "--version"]
    assert __version__.encode() in subprocess.check_output(door, cwd=dest.parent)
    gone = ("demo --rotation", "collector --port 0", "vendor --with cli --upgrade x")
    shown, near, *found = typed(dest, "--help", "dem", *gone)
    assert shown.status == 0 and near.status == 2 and "did you mean demo" not in near.err
    for words, done in zip(gone, found):
        name = words.partition(" ")[0]
        assert "\n    %s " % name not in shown.out
        assert (done.status, done.out) == (2, "")
        assert "%s is not part of this copy" % name in done.err


def test_a_part_that_is_not_there_is_named(dest: Path, tmp_path: Path) -> None:
    vendor("--with", "cli", dest)
    base = {"vendor": "V", "product_name": "P", "product_id": "1", "product_version": "1"}
    reo = {"kind": "reo", "api_key": "k", "domain": "dns_domain"}
    keys: dict[str, Any] = {"keys": [], "roots": []}
    server = {"kind": "getkeymanager", "base_url": "https://a.test", "api_key": "k", "keys": keys}
    wanted = {"domain": ([reo], "preview"), "keyring": ([server], "preview")}
    wanted["transfer"] = [], "spool export x"
    forms = []
    for part, (endpoints, words) in wanted.items():
        file = tmp_path / part
        file.write_text(json.dumps({**base, "usage_consent": None, "endpoints": endpoints}))
        forms.append("%s --config %s" % (words, file))
    for part, done in zip(wanted, typed(dest, *forms)):
        assert (done.status, done.out) == (2, ""), done
        assert "--with %s" % part in done.err


def test_the_same_source_gives_the_same_bytes_under_any_name(
    dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = dest.parent / "acme_calls"
    vendor("--with", PARTS, dest)
    vendor("--with", PARTS, other)
    assert snapshot(dest) == snapshot(other)
    assert b"timestamp" not in (dest / "sbom.cdx.json").read_bytes()

    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    vendor("--upgrade", "--with", "none", dest)
    bill = json.loads((dest / "sbom.cdx.json").read_text())
    assert bill["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert check(dest)["ok"]  # a time alone is no difference
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert run("vendor", "--check", str(dest)).status == 2


def test_a_checkout_with_the_line_ends_of_windows_is_no_edit(dest: Path) -> None:
    vendor(dest)
    for path in dest.rglob("*.*"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert check(dest)["ok"]


# --- the bill of materials ------------------------------------------------------------------------


def test_the_bill_lists_every_file_and_asks_for_what_the_package_asks_for(dest: Path) -> None:
    vendor("--with", "deps", dest)
    bill = json.loads((dest / "sbom.cdx.json").read_text())
    parts = {part["name"]: part for part in bill["components"]}
    files = [bill["metadata"]["component"], parts["urllib3"], parts["platformdirs"]]
    hashes = {one["name"]: one["hashes"][0]["content"] for f in files for one in f["components"]}
    hashes["sbom.cdx.json"] = listed(dest)["files"]["sbom.cdx.json"]
    assert hashes == listed(dest)["files"]
    asked = {p["value"] for part in parts.values() for p in part.get("properties", ())}
    package = configparser.ConfigParser()
    package.read(ROOT / "setup.cfg", "utf-8")
    assert {*package["options"]["install_requires"].split()} == asked - {"yes", "no"}
    for name in libraries.PURE:
        assert parts[name]["version"] == importlib.metadata.version(name)
    assert "version" not in parts["pynacl"]
    refs = {part["bom-ref"] for part in parts.values()}
    assert refs >= {ref for one in bill["dependencies"] for ref in one["dependsOn"]}


def test_the_bill_is_what_cyclonedx_takes(dest: Path) -> None:
    pytest.importorskip("jsonschema", reason="cyclonedx-python-lib[json-validation] is not here")
    cyclonedx: Any = pytest.importorskip("cyclonedx.validation.json")
    schema: Any = pytest.importorskip("cyclonedx.schema")
    validator = cyclonedx.JsonStrictValidator(schema.SchemaVersion.V1_6)
    vendor(dest)
    least = (dest / "sbom.cdx.json").read_text()
    vendor("--upgrade", "--with", PARTS, dest)
    for text in (least, (dest / "sbom.cdx.json").read_text()):
        assert validator.validate_str(text) is None
    assert validator.validate_str(least.replace('"SHA-256"', '"SHA-257"', 1)) is not None


# --- the libraries --------------------------------------------------------------------------------


def test_libraries_that_come_along_are_named_and_go_again(dest: Path) -> None:
    done = run("vendor", "--with", "deps", str(dest))
    assert done.status == 0 and "pynacl is left out: it is compiled" in done.err
    assert {path.name for path in (dest / "_vendor").glob("*/LICENSE*")}
    pins = (dest / "_vendor" / "vendor.txt").read_text().split()
    assert pins == ["%s==%s" % (n, importlib.metadata.version(n)) for n in libraries.PURE]
    vendor("--upgrade", "--with", "none", dest)
    assert not (dest / "_vendor").exists() and check(dest)["ok"]
    assert (dest / "transport.py").read_bytes() == (PACKAGE / "transport.py").read_bytes()


REWRITTEN = {
    "import lib": "from ..v import lib",
    "import lib.a.b as c": "from ..v.lib.a import b as c",
    "import os, lib.a": "import os; from ..v import lib; from ..v.lib import a as _a",
    "from lib import a, b as c": "from ..v.lib import a, b as c",
    "if 1:  # ü\n    from  lib.x import (\n  a)": "if 1:  # ü\n    from ..v.lib.x import (\n  a)",
    "x = 'é'; import lib; y = lib": "x = 'é'; from ..v import lib; y = lib",
    "import library, libs.lib\nfrom . import lib": "import library, libs.lib\nfrom . import lib",
    "x = 'import lib'  # import lib": "x = 'import lib'  # import lib",
}


def test_an_import_that_is_rewritten() -> None:
    for before, after in REWRITTEN.items():
        assert rewritten(before.encode(), "x.py", {"lib"}, "..v").decode() == after


def test_an_import_that_is_not_understood_is_refused() -> None:
    with pytest.raises(AgentError, match="x.py:1"):
        rewritten(b"from \\\n lib import a", "x.py", {"lib"}, "..v")
    assert rewritten(b"from lib.\\\nx import a", "x.py", {"other"}, "..v")


def test_a_library_that_is_too_old_or_missing_is_refused(dest: Path, tmp_path: Path) -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); from agent.cli import main\n"
    code += "raise SystemExit(main(['vendor', '--with', 'deps', sys.argv[2]]))"
    info = tmp_path / "site" / "urllib3-1.25.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: urllib3\nVersion: 1.25.9\n")
    done = run_python(code, str(info.parent), str(dest))
    assert (done.returncode, done.stdout) == (1, "")
    assert "urllib3 1.25.9 is installed, needed is 1.26 or newer" in done.stderr
    done = run_python(code, str(tmp_path), str(dest), options=("-S",))
    assert done.returncode == 1 and "urllib3 is not installed beside this Python" in done.stderr
    assert not dest.exists()


# --- check and upgrade ----------------------------------------------------------------------------


def test_a_check_names_what_was_edited_taken_out_and_put_in(dest: Path) -> None:
    vendor(dest)
    assert check(dest)["ok"]
    (dest / "clock.py").write_text("mine")
    (dest / "lines.py").unlink()
    (dest / "extra.py").write_text("mine")
    before = snapshot(dest)
    found = check(dest)
    told = {"edited": ["clock.py"], "missing": ["lines.py"], "foreign": ["extra.py"]}
    assert {name: found[name] for name in told} == told
    said = run("vendor", "--check", str(dest))
    assert "edited      clock.py\n" in said.out and "was edited" in said.err
    assert snapshot(dest) == before


def test_an_upgrade_says_what_changed_and_refuses_to_lose_an_edit(dest: Path) -> None:
    vendor("--with", "cli", dest)
    older(dest)
    manifest = listed(dest)
    manifest["files"]["old/removed.py"] = sha256(b"old").hexdigest()
    (dest / "old").mkdir()
    (dest / "old" / "removed.py").write_bytes(b"old")
    (dest / "VENDORED.json").write_text(json.dumps(manifest))
    (dest / "errors.py").write_text("mine")
    found = check(dest)
    assert (found["changed"], found["gone"]) == (["clock.py"], ["old/removed.py"])
    assert (found["from"]["version"], found["to"]["version"]) == ("0.0.9", __version__)

    before = snapshot(dest)
    refused = run("vendor", "--upgrade", str(dest))
    assert (refused.status, refused.out) == (1, "") and "errors.py" in refused.err
    assert snapshot(dest) == before

    out = vendor("--upgrade", "--overwrite", dest)
    assert "edited      errors.py\nchanged     clock.py\ngone        old/removed.py\n" in out
    assert "was version 0.0.9 and is %s: " % __version__ in out and "the core, cli\n" in out
    assert not (dest / "old").exists() and check(dest)["ok"]
    assert "was already version" in vendor("--upgrade", dest)


def test_nothing_of_others_is_removed_or_overwritten(dest: Path) -> None:
    vendor("--with", "cli", dest)
    (dest / "cli" / "notes.txt").write_text("mine")
    done = run("vendor", "--upgrade", "--with", "none", str(dest))
    assert done.status == 0 and "cli is left" in done.err
    assert [path.name for path in (dest / "cli").iterdir()] == ["notes.txt"]
    # An emptied folder is a package to Python: the product must hear that there is no command line.
    code = "import sys; sys.path.insert(0, sys.argv[1]); import telemetry_agent as t\n"
    code += "try: t.main([])\nexcept t.ConfigError as error: print(error)"
    assert "needs the part 'cli'" in run_python(code, str(dest.parent)).stdout
    (dest / "cli" / "doctor.py").write_text("mine")
    refused = run("vendor", "--upgrade", "--with", "cli", str(dest))
    assert refused.status == 1 and "cli/doctor.py" in refused.err
    assert (dest / "cli" / "doctor.py").read_text() == "mine"


@pytest.mark.parametrize("what", ["not a name", "inside", "around", "a file", "filled"])
def test_a_place_that_cannot_be_meant_is_wrong_usage(dest: Path, what: str) -> None:
    dest.parent.mkdir(parents=True)
    places = {"not a name": dest.parent / what, "inside": PACKAGE / "_vendor", "around": PACKAGE}
    if what == "a file":
        dest.write_text("mine")
    elif what == "filled":
        dest.mkdir()
        (dest / "mine.py").write_text("mine")
    before = snapshot(dest.parent)
    done = run("vendor", str(places.get(what, dest)))
    assert (done.status, done.out) == (2, "") and done.err.startswith("error: ")
    assert snapshot(dest.parent) == before
    assert not (PACKAGE / "_vendor").exists()


def test_options_that_do_not_go_together(dest: Path) -> None:
    for form in ("--check --upgrade", "--overwrite", "--with-cli", "--upgrade", "--check"):
        assert run("vendor", *form.split(), str(dest)).status == 2
    assert not dest.exists()


# --- what could lead out of the directory ---------------------------------------------------------


@pytest.mark.parametrize("path", ["../outside.py", "/outside.py", "C:/x.py", "a\\..\\b"])
def test_a_list_that_names_files_elsewhere_is_refused(dest: Path, path: str) -> None:
    vendor(dest)
    outside = dest.parent / "outside.py"
    outside.write_text("mine")
    manifest = listed(dest)
    manifest["files"][path] = sha256(b"mine").hexdigest()
    (dest / "VENDORED.json").write_text(json.dumps(manifest))
    for form in ("--check", "--upgrade"):
        done = run("vendor", form, str(dest))
        assert done.status == 2 and "damaged" in done.err
    assert outside.read_text() == "mine"


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_a_link_is_an_edit_and_never_followed(dest: Path, tmp_path: Path) -> None:
    vendor(dest)
    outside = tmp_path / "outside"
    shutil.move(str(dest / "spool"), str(outside))
    (dest / "spool").symlink_to(outside)
    (outside / "store.py").write_text("mine")
    (tmp_path / "elsewhere.py").write_text("mine")
    (dest / "clock.py").unlink()
    (dest / "clock.py").symlink_to(tmp_path / "elsewhere.py")
    assert {"clock.py", "spool/store.py"} <= {*check(dest)["edited"]}
    before = snapshot(outside)
    done = run("vendor", "--upgrade", "--overwrite", str(dest))
    assert done.status == 1 and "link" in done.err
    (dest / "spool").unlink()
    vendor("--upgrade", "--overwrite", dest)
    assert check(dest)["ok"] and not (dest / "clock.py").is_symlink()
    assert snapshot(outside) == before
    assert (tmp_path / "elsewhere.py").read_text() == "mine"


# --- interrupted ----------------------------------------------------------------------------------

# Ends without notice at its n-th renaming: every file comes by one.
KILLED = """
import os, sys
left = [int(sys.argv[1])]
def hook(event, args):
    if event == "os.rename":
        left[0] -= 1
        if left[0] < 0:
            os._exit(9)
sys.addaudithook(hook)
from agent.cli import main
raise SystemExit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("at", [1, -1])
def test_a_copy_that_was_killed_is_finished_by_the_same_command(dest: Path, at: int) -> None:
    whole = dest.parent / "whole"
    vendor(whole)
    done = run_python(KILLED, str(at % (len(snapshot(whole)) + 1)), "vendor", str(dest))
    assert done.returncode == 9
    vendor(dest)
    assert check(dest)["ok"] and snapshot(dest) == snapshot(whole)


@pytest.mark.parametrize("at", [0, 2, 4])
def test_an_upgrade_that_was_killed_says_how_to_go_on(dest: Path, at: int) -> None:
    vendor("--with", "cli", dest)
    older(dest, "clock.py")
    older(dest, "lines.py")
    done = run_python(KILLED, str(at), "vendor", "--upgrade", "--with", "none", str(dest))
    assert done.returncode == 9
    shown = run("vendor", "--check", str(dest))
    assert shown.status == 1
    if at == 0:  # before the first change: the old copy, whole
        assert listed(dest)["version"] == "0.0.9" and (dest / "cli" / "doctor.py").exists()
        vendor("--upgrade", "--with", "none", dest)
    else:
        assert "repeat vendor --upgrade" in shown.err and check(dest)["edited"] == []
        vendor("--upgrade", dest)  # it knows what it was about to do
    assert check(dest)["ok"] and not (dest / "cli").exists()
    assert listed(dest)["version"] == __version__


# --- the licence ----------------------------------------------------------------------------------


def test_the_licence_is_found_where_pip_put_it(tmp_path: Path, dest: Path) -> None:
    site = tmp_path / "site"
    installed(site, "LICENSE")
    lost = vendored(site, str(dest))
    assert lost.returncode == 1 and "error: the file LICENSE is neither" in lost.stderr
    assert not dest.exists()
    shutil.rmtree(site)
    installed(site)
    assert vendored(site, str(dest)).returncode == 0
    assert (dest / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
