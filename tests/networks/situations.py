"""The list: what a situation is, what it needs, and all of them by name."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .stage import Stage

PROXIES, CERTIFICATES, HOSTILE = "Proxies", "Certificates", "Hostile and half-broken networks"

# A virtual environment with programs and packages that the suite itself does not need.
TOOLS = Path(os.environ.get("AGENT_NETWORKS_TOOLS", ""))


class Situation(NamedTuple):
    """One row: ``play`` builds it, delivers and asserts; ``needs`` are programs, "namespaces", packages ("py:")."""

    name: str
    group: str
    words: str
    needs: tuple[str, ...]
    cost: str  # "" for every Python, "once", "full"
    play: Callable[[Stage], object]
    clock: Callable[[], object]


SITUATIONS: list[Situation] = []


def situation(
    name: str,
    group: str,
    *needs: str,
    cost: str = "",
    clock: Callable[[], object] = lambda: None,
) -> Callable[[Callable[[Stage], object]], Callable[[Stage], object]]:
    """Put a function on the list; the first line of its docstring is the row's first cell."""

    def add(play: Callable[[Stage], object]) -> Callable[[Stage], object]:
        words = (play.__doc__ or "").split("\n")[0].rstrip(".")
        assert all(name != other.name for other in SITUATIONS), name
        # What needs something from outside tries that, and not the Python.
        once = "once" if needs else ""
        SITUATIONS.append(Situation(name, group, words, needs, cost or once, play, clock))
        return play

    return add


def missing(needs: tuple[str, ...]) -> str:
    """Why a situation cannot be had here, "" where it can."""
    return next((why for why in map(_missing, needs) if why), "")


def _missing(need: str) -> str:
    if need == "namespaces":
        from . import spaces

        return spaces.missing()
    if need == "ipv6":
        return _without_ipv6()
    if need.startswith("py:"):
        return "" if package(need[3:]) else "needs the package %s (AGENT_NETWORKS_TOOLS)" % need[3:]
    return "" if program(need) else "needs the program %s" % need


def _without_ipv6() -> str:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return "needs IPv6 on loopback"
    return ""


def program(name: str) -> str:
    """The path of a program, also of one that is not on everybody's PATH."""
    path = os.pathsep.join([os.environ.get("PATH", ""), str(TOOLS / "bin"), "/usr/sbin", "/sbin"])
    return shutil.which(name, path=path) or ""


def package(name: str) -> str:
    """The directory of a package among the tools or here; looked up, not loaded."""
    places = [Path(place) for place in sys.path]
    places += sorted(TOOLS.glob("lib/python3*/site-packages"))
    if name.endswith(".py"):
        return next((str(place / name) for place in places if (place / name).is_file()), "")
    return next((str(p / name) for p in places if (p / name / "__init__.py").is_file()), "")


def everything() -> list[Situation]:
    """All of them, in the order of the table."""
    from . import certificates, distant, hostile, proxies

    assert all((proxies, certificates, hostile, distant))
    order = (PROXIES, CERTIFICATES, HOSTILE)
    return sorted(SITUATIONS, key=lambda one: order.index(one.group))
