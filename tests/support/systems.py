"""What only some systems have, as marks that say so."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest


def _shows_links() -> bool:
    with tempfile.TemporaryDirectory() as place:
        link = Path(place) / "link"
        try:
            link.symlink_to(place)
        except OSError:  # on Windows a privilege is needed
            return False
        return link.is_symlink()


links = pytest.mark.skipif(not _shows_links(), reason="needs links that can be made and seen")
posix = pytest.mark.skipif(os.name == "nt", reason="needs what POSIX promises and Windows does not")
windows = pytest.mark.skipif(os.name != "nt", reason="needs Windows")
no_wine = pytest.mark.skipif(
    "WINEPREFIX" in os.environ, reason="needs a Windows that is none of Wine's"
)
procfs = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def of_posix(*values: object) -> list[Any]:
    """Parameters for all systems but Windows."""
    return [pytest.param(value, marks=posix) for value in values]


KILLED = -9 if os.name == "posix" else 1  # the status of who was killed
