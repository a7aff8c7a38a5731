"""``explain``: an identity, where it comes from and what to do about it, ready for JSON.

It may be pasted into a ticket but for ``path``, which may hold the user's name. It never holds a machine id.
"""

from __future__ import annotations

from . import derivation, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    from .machine import Reading
    from .store import Identity

_MOVED = "It was derived on another machine, or this one got a new id. It is kept; a reset derives this machine's own."
_NEWER = "A newer version of this product wrote the file: it is left as it is; reset it with that version."
_UNSTORED = "It could not be stored: make the state directory writable for this user."
_LASTING = "A machine id can be read now: a reset derives a lasting identifier from it."
_RANDOM = "There is no usable machine id, so it lasts as long as its file. On Linux systemd-machine-id-setup makes one."
_IMAGE = "In a container the id may be the image's: mount the host's /etc/machine-id, or a state volume for each user."


def explain(
    identity: Identity, reading: Reading, *, context: bytes, in_container: bool
) -> dict[str, Any]:
    """``identity`` against what the machine says now."""
    # None where it cannot be known: nothing stored, a random identity, no machine id now.
    moved: Optional[bool] = None
    if identity.stored and identity.tag is not None and reading.machine_id is not None:
        moved = identity.tag != derivation.tag(reading.machine_id, context)
    sources = [{"source": source, "problem": problem} for source, problem in reading.problems]
    if reading.machine_id is not None:
        sources.append({"source": reading.source, "problem": ""})
    newer, random = identity.note == store.NEWER, identity.quality == "random"
    advice = (
        (moved, _MOVED),
        (newer, _NEWER),
        (not newer and not identity.stored and identity.path is not None, _UNSTORED),
        (random and reading.machine_id is not None, _LASTING),
        (random and reading.machine_id is None, _RANDOM),
        (in_container, _IMAGE),
    )
    return {
        "user_identifier": identity.value,
        "source": identity.source,
        "quality": identity.quality,
        "stored": identity.stored,
        "path": identity.path,
        "note": identity.note,
        "moved_or_cloned": moved,
        "in_container": in_container,
        "sources": sources,
        "advice": [text for applies, text in advice if applies],
    }
