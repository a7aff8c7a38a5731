"""The user identifier: derived from the machine, stored once, and from then on the same for ever.

The stored one wins, through upgrades, new names of the machine and new machine ids; deleting it gives the same again.
Nothing here raises into the host, and a raw machine id never leaves this package, not even to the disk. Where the
machine id comes from is in ``machine``; what is done with it in ``derivation``.

    stored               | a machine id (strong or weak)             | no machine id
    ---------------------+-------------------------------------------+----------------------------------
    none                 | derive, store                             | make a random one, store
    intact, tag matches  | the stored one                            | the stored one
    intact, tag differs  | the stored one; "moved or cloned"         | the stored one; not known
    random               | the stored one; a reset would derive      | the stored one
    damaged              | derive, replace the file                  | make a random one, replace the file
    newer format         | its identifier; the file is not touched   | its identifier; the file is not touched
    newer, no identifier | derive, in memory; not touched            | random, in memory; not touched
    unreadable, no store | derive, in memory                         | random, in memory: one per process

With an intact file a start does not read the machine id at all: only ``explain`` and ``reset`` do.
"""

from __future__ import annotations

import os

from . import store
from .derivation import context, derive, tag
from .store import Identity
from .system import System

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

__all__ = ["Identity", "System", "context", "derive", "explain", "reset", "resolve"]

# Random identifiers by what they belong to: one process makes one, however often it has to ask.
_random: dict[bytes, str] = {}


def resolve(
    *, state_dir: Optional[str], system: Optional[System] = None, reset: bool = False, **names: Any
) -> Identity:
    """The identity of this OS user on this machine; ``state_dir=None`` keeps nothing.

    ``names``: vendor, product_name, identity_name.
    """
    system = system or System()
    about = context(**names, user=system.os_user())
    if reset:
        _random.pop(about, None)
    if state_dir is None:
        return _fresh(about, system).at(None, stored=False, note="no state directory")
    path = os.path.join(state_dir, store.file_name(about))
    try:
        stored = None if reset else store.load(path)
        return stored or store.keep(path, _fresh(about, system), reset=reset)
    except (OSError, ValueError) as error:  # ValueError: a path that cannot even be asked for
        note = getattr(error, "strerror", None) or type(error).__name__
        return _fresh(about, system).at(path, stored=False, note=note)


def explain(
    *, state_dir: Optional[str], system: Optional[System] = None, **names: Any
) -> dict[str, Any]:
    """``resolve`` (the same arguments), and what there is to know about the result, ready for JSON."""
    from . import report

    system = system or System()
    return report.explain(
        resolve(state_dir=state_dir, system=system, **names),
        system.read(),
        context=context(**names, user=system.os_user()),
        in_container=system.in_container(),
    )


def reset(*, state_dir: Optional[str], system: Optional[System] = None, **names: Any) -> Identity:
    """Forget what is stored, derive anew, store that; arguments as for ``resolve``.

    A file of a newer format version stays, and decides.
    """
    return resolve(state_dir=state_dir, system=system, reset=True, **names)


def _fresh(about: bytes, system: System) -> Identity:
    found = system.read()
    if found.machine_id is None:
        value = _random.setdefault(about, os.urandom(16).hex())
        return Identity(value, "random", "random", None)
    value, mark = derive(found.machine_id, about), tag(found.machine_id, about)
    return Identity(value, found.source, "weak" if system.in_container() else "strong", mark)
