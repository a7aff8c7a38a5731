"""The types that a product's checker sees: of a copy in its tree, and of the package where pip puts it."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from support.cli import ROOT, run

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mypy") is None, reason="mypy is not installed here"
)
SAMPLE = Path(__file__).with_name("consumer.py").read_text("utf-8")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What mypy knows of the standard library, for the next run."""
    return tmp_path_factory.mktemp("mypy")


def checked(place: Path, cache: Path, text: str, *options: str) -> tuple[int, str]:
    """What mypy says of a product's module in ``place``."""
    (place / "consumer.py").write_text(text, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", *options, "consumer.py"],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=55,
        env={**os.environ, "MYPY_CACHE_DIR": str(cache)},
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("parts", ["none", "cli,detached,domain,keyring"])
def test_a_copy_in_the_tree_of_a_product_keeps_its_types(
    parts: str, tmp_path: Path, cache: Path
) -> None:
    """Of parts that it lacks nothing is known, and that is no error in the product's checks."""
    place = tmp_path / "product" / "_vendor" / "telemetry_agent"
    done = run("vendor", str(place), "--with", parts)
    assert done.status == 0, done.err
    text = SAMPLE.replace(
        "import agent\n", "from product._vendor import telemetry_agent as agent\n"
    )
    options = ["--no-warn-return-any"] if parts == "none" else []
    status, said = checked(tmp_path, cache, text, *options)
    assert status == 0 and text != SAMPLE, said


def test_the_installed_package_keeps_its_types(tmp_path: Path, cache: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    scheme = {"base": str(environment), "platbase": str(environment)}
    site = Path(sysconfig.get_path("purelib", scheme="venv", vars=scheme))
    shutil.copytree(ROOT / "agent", site / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    found = [*environment.glob("bin/python"), *environment.glob("Scripts/python.exe")]
    status, said = checked(tmp_path, cache, SAMPLE, "--python-executable", str(found[0]))
    assert status == 0, said
    (site / "agent" / "py.typed").unlink()  # without it a checker knows nothing
    status, said = checked(tmp_path, cache, SAMPLE, "--python-executable", str(found[0]))
    assert status == 1 and "py.typed" in said
