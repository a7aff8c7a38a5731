"""The list: what a situation is, what it needs, and all of them by name."""

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from socket import has_dualstack_ipv6
from typing import NamedTuple

from .stage import Stage

GROUPS = "Proxies", "Certificates", "Hostile and half-broken networks", "Answers"
PROXIES, CERTIFICATES, HOSTILE, ANSWERS = GROUPS


class Situation(NamedTuple):
    """One row: ``play`` builds it, delivers and asserts; ``needs`` are programs, "namespaces", "ipv6", "PySocks"."""

    name: str
    group: str
    words: str
    needs: tuple[str, ...]
    cost: str  # "" for every Python, "once", "full"
    play: Callable[[Stage], object]


SITUATIONS: list[Situation] = []


Play = Callable[[Stage], object]


def situation(name: str, group: str, *needs: str, cost: str = "") -> Callable[[Play], Play]:
    """Put a function on the list; the first line of its docstring is the row's first cell."""

    def add(play: Play) -> Play:
        words = (play.__doc__ or "").split("\n")[0].rstrip(".")
        # What needs something from outside tries that, and not the Python.
        once = "once" if needs else ""
        SITUATIONS.append(Situation(name, group, words, needs, cost or once, play))
        return play

    return add


def missing(needs: tuple[str, ...]) -> str:
    """Why a situation cannot be had here, "" where it can."""
    return next((why for why in map(_missing, needs) if why), "")


def _missing(need: str) -> str:
    from . import spaces

    if need == "namespaces":
        return spaces.missing()
    if need == "ipv6":
        return "" if has_dualstack_ipv6() else "needs IPv6 on loopback"
    if need == "PySocks":
        return "" if find_spec("socks") else "needs PySocks"
    return "" if program(need) else "needs the program %s" % need


def program(name: str) -> str:
    """The path of a program, also of one that is not on everybody's PATH."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return shutil.which(name, path=path) or ""


def everything() -> list[Situation]:
    """All of them, in the order of the table."""
    from . import answers, certificates, distant, hostile, proxies

    assert all((proxies, certificates, hostile, distant, answers))
    return sorted(SITUATIONS, key=lambda one: GROUPS.index(one.group))
