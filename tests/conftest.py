"""What holds for every test: nothing of the person who runs it gets in, nothing of the test gets out.

The package under test is the tree beside this directory (``pythonpath`` in ``setup.cfg``), never an installed copy.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# The same examples in every run and on every machine; a failing one is printed in full.
hypothesis.settings.register_profile(
    "same-every-time", derandomize=True, deadline=None, database=None, print_blob=True
)
hypothesis.settings.load_profile("same-every-time")

# What would change where state lies, which proxy or CA is used, or whether usage is recorded.
FOREIGN = "_PROXY DO_NOT_TRACK SSL_CERT_FILE SSL_CERT_DIR XDG_STATE_HOME XDG_DATA_HOME".split()


@pytest.fixture(scope="session", autouse=True)
def nobodys_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty home and no inherited switches, here and in every process that a test starts."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper().endswith(tuple(FOREIGN)):
                patch.delenv(name)
        for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"):
            patch.setenv(name, str(home))
        patch.setenv("LANGUAGE", "C")  # elsewhere argparse looks for each word on the disk
        yield home


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Any]:
    """A collector, a state directory, and a clock that stands still for both sides: a ``Desk``."""
    from support.agent import desk  # not every test has the package to test

    with desk(tmp_path / "state") as found:
        yield found
