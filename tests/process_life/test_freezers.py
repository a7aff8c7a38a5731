"""What a packager must be able to see, and whether the sample product and its recipes are what they were.

The builds themselves take minutes: ``python -m tests.frozen``.
"""

import ast
import json
import shutil
import subprocess
import sys
from modulefinder import ModuleFinder
from pathlib import Path

import pytest
from frozen.builds import PACKAGERS, PRODUCT, TELEMETRY, options
from support.agent import child_environ
from test_structure import CORE, PACKAGE

from agent.collector import Collector


def test_every_module_stands_in_an_import_statement_that_a_packager_sees() -> None:
    finder = ModuleFinder([str(PACKAGE.parent)])
    finder.import_hook(PACKAGE.name)
    seen = {getattr(module, "__file__", "") for module in finder.modules.values()}
    assert {str(path) for path in CORE} <= seen


@pytest.mark.parametrize("packager", PACKAGERS)
@pytest.mark.parametrize("pynacl", [True, False])
def test_a_recipe_takes_the_whole_copy_along(packager: str, pynacl: bool) -> None:
    words = options(PACKAGERS[packager].recipe, pynacl=pynacl)
    taken = {word.partition("=")[2] for word in words}
    assert ".".join(TELEMETRY.parts) in taken
    if not packager.startswith("nuitka"):  # which knows PyNaCl by itself
        assert ("_cffi_backend" in taken) == pynacl


def test_the_sample_product_says_what_it_is_made_of(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("telemetry", "__pycache__", "*.png")
    shutil.copytree(PRODUCT, tmp_path / "product", ignore=ignored)
    shutil.copytree(PACKAGE, tmp_path / "product" / TELEMETRY)
    collector = Collector()
    told = {"url": "http://127.0.0.1:9", "keys": collector.keys}
    (tmp_path / "server.json").write_text(json.dumps(told))
    (tmp_path / "settings.json").write_text(json.dumps({"licence": ["a", "b"], "usage": True}))
    env = {**child_environ(), "STUDIO_HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "launch.py", "--self-check"],
        cwd=tmp_path / "product",
        env={**env, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert 0 < said["import_ms"] and said["configuration"]["usage_consent"] is True
    assert [one["name"] for one in said["status"]["endpoints"]] == ["getkeymanager", "reo"]
    assert not (tmp_path / "Acme").exists(), "looking leaves a trace"


SOURCES = sorted([*PRODUCT.glob("*.py"), *PRODUCT.glob("studio/*.py")])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_sample_product_is_python_of_the_oldest_version(path: Path) -> None:
    ast.parse(path.read_text("utf-8"), feature_version=(3, 9))
