"""Where the state directory is: per user, per vendor and product, as each platform wants it, in a leaf of our own.

Linux paths are known without a library (the XDG base directory specification); ``platformdirs`` costs 20 ms and is
asked only on the other platforms. A test holds both to the same answer.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Optional

    from .config import Config

# The product keeps state of its own in its directory, and our names are common ones: `history`, `lock`.
LEAF = "telemetry"
_UNSAFE = frozenset('<>:"/\\|?*') | frozenset(map(chr, range(32)))


def state_directory(config: Config, environ: Mapping[str, str]) -> Optional[str]:
    """The directory of this product's state; None where there is no home to keep it in."""
    if config.state_dir is not None:
        return config.state_dir
    if sys.platform.startswith("linux"):
        base = environ.get("XDG_STATE_HOME", "")
        if not os.path.isabs(base):  # the specification: relative paths are invalid
            home = environ.get("HOME", "")
            if not os.path.isabs(home):
                return None
            base = os.path.join(home, ".local", "state")
    else:
        base = _user_state_dir(environ)
        if not base:
            return None
    return os.path.join(base, _segment(config.vendor), _segment(config.product_name), LEAF)


def _user_state_dir(environ: Mapping[str, str]) -> str:
    try:
        import platformdirs

        return platformdirs.user_state_dir(roaming=False)
    except ImportError:
        # Left out of a frozen product: what it would say where nothing is redirected.
        if sys.platform == "darwin":
            home = environ.get("HOME", "")
            return os.path.join(home, "Library", "Application Support") if home else ""
        return environ.get("LOCALAPPDATA", "")


def safe_directory(config: Config, environ: Mapping[str, str]) -> tuple[Optional[str], str]:
    """(the directory, None where nothing may be kept in it; why not).

    Nothing is written through a link or into another user's directory: a file of root's (``sudo`` keeps ``HOME``)
    would lock that user out.
    """
    directory = state_directory(config, environ)
    if directory is None:
        return None, "there is no home directory to keep state in"
    try:
        found = os.lstat(directory)
    except (OSError, ValueError):
        # Missing, or unusable in a way that every attempt to write will find out.
        return directory, ""
    if found.st_mode & 0o170000 == 0o120000:
        return None, "%s is a link" % directory
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        return None, "%s belongs to another user" % directory
    return directory, ""


def _segment(name: str) -> str:
    """A name as one path segment, valid on every platform; changed names stay distinct."""
    safe = "".join("_" if char in _UNSAFE else char for char in name).strip(" .")[:64]
    if safe == name and safe.upper().partition(".")[0] not in _RESERVED:
        return safe
    from binascii import crc32

    return "%s-%08x" % (safe or "_", crc32(name.encode("utf-8", "surrogatepass")))


# Device names of Windows.
_RESERVED = frozenset(
    ["CON", "PRN", "AUX", "NUL"] + ["%s%d" % (n, i) for n in ("COM", "LPT") for i in range(1, 10)]
)
