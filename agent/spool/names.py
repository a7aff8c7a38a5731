"""The names of every file of ours in a state directory, and what each name says.

A segment is ``<class>-<created, ms, 12 hex>-<random, 16 hex>.seg``, its sidecar the same with ``.ack``. Names
carry no process id: those are reused. Nothing outside these names is ever read, counted or removed.
"""

from __future__ import annotations

import os

LICENCE, USAGE, COUNTERS, DEAD_LICENCE, DEAD_USAGE = "l", "u", "c", "x", "y"
# Dead letters go first, licence records last.
EVICTION = DEAD_USAGE + DEAD_LICENCE + COUNTERS + USAGE + LICENCE
DEAD_CLASSES = DEAD_USAGE + DEAD_LICENCE
USAGE_CLASSES = USAGE + COUNTERS + DEAD_USAGE

SEGMENT, SIDECAR, TEMPORARY = ".seg", ".ack", ".tmp"
FACTS, LOCK, HISTORY, DAMAGED, COUNTS = "facts", "lock", "history", "damaged", "counts"
# What anybody may call a file. `damaged` is not in it: no line in that is whole.
COMMON = (FACTS, LOCK, HISTORY, COUNTS)
CONSENT, IMPORTED, _IDENTITY = "consent", "imported", "identity"
# Milliseconds have 13.
EPOCH_DIGITS = 15


def segment(class_: str, created_ms: int) -> str:
    """A new segment's file name."""
    return "%s-%012x-%s%s" % (class_, created_ms, os.urandom(8).hex(), SEGMENT)


def sidecar(name: str) -> str:
    """The sidecar that belongs to a segment's name."""
    return name[: -len(SEGMENT)] + SIDECAR


def segment_of(name: str) -> str:
    """The segment that a sidecar's name belongs to."""
    return name[: -len(SIDECAR)] + SEGMENT


def created_ms(name: str) -> int:
    """When a segment was begun, Unix milliseconds by its writer's clock."""
    return int(name[2:14], 16)


def order(name: str) -> str:
    """A sort key: the oldest segment first."""
    return name[2:14] + name


def is_hex(text: str, length: int) -> bool:
    """Whether ``text`` is so many lower-case hexadecimal digits."""
    return len(text) == length and not text.strip("0123456789abcdef")


def is_segment(name: str) -> bool:
    """Whether a name is a segment's."""
    known = len(name) == 35 and name[0] in EVICTION and name.endswith(SEGMENT)
    known = known and name[1] == name[14] == "-"
    return known and is_hex(name[2:14], 12) and is_hex(name[15:31], 16)


def is_sidecar(name: str) -> bool:
    """Whether a name is a sidecar's."""
    return name.endswith(SIDECAR) and is_segment(segment_of(name))


def is_ours(name: str) -> bool:
    """Whether a directory entry is one of ours."""
    if name.endswith(TEMPORARY):
        name = name[: -len(TEMPORARY)].rpartition(".")[0]
    if name in (FACTS, LOCK, HISTORY, DAMAGED, COUNTS) or is_segment(name) or is_sidecar(name):
        return True
    kind, _, rest = name.partition("-")
    if kind == CONSENT:
        # A longer number is nobody's, nor one that we would write otherwise.
        short = len(rest) <= EPOCH_DIGITS and (rest == "0" or not rest.startswith("0"))
        return short and rest.isascii() and rest.isdigit()
    if kind == _IDENTITY and rest.endswith(".lock"):
        rest = rest[: -len(".lock")]
    return kind in (IMPORTED, _IDENTITY) and is_hex(rest, 16)


def is_renewed(name: str) -> bool:
    """Whether a file of ours, neither a mark nor a temporary one, may be made anew where it is none."""
    return name.endswith((SEGMENT, SIDECAR)) or not ("-" in name or name.endswith(TEMPORARY))


def listing(directory: str) -> tuple[list[str], list[str]]:
    """(segments, oldest first; sidecars) of a directory; raises ``OSError`` but for a missing one."""
    try:
        entries = os.listdir(directory)
    except FileNotFoundError:
        return [], []
    segments = sorted(filter(is_segment, entries), key=order)
    return segments, list(filter(is_sidecar, entries))
