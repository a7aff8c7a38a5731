"""The machine and the OS user as this package sees them, in one value that a test can make up.

Nothing is asked before it is needed: a start with a stored identity reads the user and nothing else.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Optional

    from .machine import Reading, Sources


class System:
    """The running system, but for what is given.

    ``platform`` as in ``sys.platform``; ``root``: where a Linux file system begins; ``user``: real uid or SID, as text;
    ``sources``: where to look for a machine id.
    """

    def __init__(
        self,
        *,
        platform: str = sys.platform,
        root: str = "/",
        user: Optional[str] = None,
        environ: Optional[Mapping[str, str]] = None,
        sources: Optional[Sources] = None,
    ) -> None:
        self.platform = platform
        self.root = root
        self.user = user
        self.environ = os.environ if environ is None else environ
        self.sources = sources

    def os_user(self) -> str:
        """Who runs this process: the real uid, or the SID on Windows; "" where that cannot be had."""
        if self.user is not None:
            return self.user
        if self.platform == "win32":
            from . import windows

            return windows.user()
        return str(os.getuid()) if hasattr(os, "getuid") else ""

    def read(self) -> Reading:
        """Look for the machine id; never raises."""
        from . import machine

        sources = machine.sources(self.platform, self.root)
        return machine.read(sources if self.sources is None else self.sources)

    def in_container(self) -> bool:
        """Whether the machine id may belong to an image that many people run."""
        from . import machine

        other = self.platform in ("win32", "darwin")
        return not other and machine.in_container(self.root, self.environ)
