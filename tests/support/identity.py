"""Machines made of a directory: a root with the files that a machine id is read from, and nothing of this one."""

from pathlib import Path
from typing import Any, Optional

from agent.identity import System, context, derive

MACHINE = "4b1d0c6e9f2a47d38e5560b7a1c3f290"
OTHER_MACHINE = "77e0a9c41b8d4f6292d3b5c6e8f01a2b"
NAMES: dict[str, Any] = {"vendor": "Acme", "product_name": "Studio"}
USER = "1000"
CONTEXT = context(USER, **NAMES)
DERIVED = derive(MACHINE, CONTEXT)


class Machine(System):
    """A Linux machine below ``root``, with one user."""

    platform = "linux"

    def __init__(
        self, root: Any, user: str = USER, environ: Optional[dict[str, str]] = None
    ) -> None:
        super().__init__(environ or {})
        self.root, self._user = str(root), user

    def user(self) -> str:
        return self._user


def machine(
    root: Path,
    content: Optional[str] = MACHINE + "\n",
    *,
    dbus: Optional[str] = None,
    container: bool = False,
    user: str = USER,
) -> Machine:
    """``content`` is what its /etc/machine-id says, None: there is none."""
    for path, text in (("etc/machine-id", content), ("var/lib/dbus/machine-id", dbus)):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_bytes(text.encode())
    return Machine(root, user, {"container": "podman"} if container else {})


def bare(user: str = USER) -> Machine:
    """A machine without a machine id."""
    return Machine("/nonexistent", user)
