"""Where the published answers and test vectors lie: ``$AGENT_SHARED``, else ``shared`` beside the project.

They are not part of a source release. A test that needs one is skipped where it is missing, or fails if
``AGENT_REQUIRE_SHARED=1`` says that it must not be.
"""

import os
from pathlib import Path

import pytest

PROJECT_ROOT = Path(__file__).resolve().parents[2]


def shared_path(*parts: str) -> Path:
    """The path of a shared file that exists; skips or fails the calling test where it does not."""
    root = os.environ.get("AGENT_SHARED") or str(PROJECT_ROOT.parent / "shared")
    path = Path(root).joinpath(*parts)
    if path.exists():
        return path
    reason = "%s is not in %s (set AGENT_SHARED to where it lies)" % ("/".join(parts), root)
    if os.environ.get("AGENT_REQUIRE_SHARED") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
