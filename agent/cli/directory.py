"""Whether state can be kept in a directory, found out without making anything there."""

from __future__ import annotations

import os
from typing import Optional

from .. import files


def problem(directory: Optional[str], why: str = "") -> Optional[tuple[str, str]]:
    """(what is wrong, what to do about it); None where nothing is. ``why`` there is no directory, if there is none.

    A directory that does not exist yet is judged by the nearest one above it that does, in which it would be made.
    """
    if directory is None:
        return why, "set HOME, or state_dir in the configuration"
    place = directory
    while not os.path.lexists(place) and os.path.dirname(place) != place:
        place = os.path.dirname(place)
    missing = place != directory
    if not os.path.isdir(place) or (os.path.islink(place) and not missing):
        return "%s is not a directory" % place, "remove what is in its place, or set state_dir"
    try:
        refused = _refused(place, missing)
    except OSError as error:
        refused = "%s cannot be used: %s" % (place, error.strerror)
    if refused:
        return refused, "make it writable for this user, or set state_dir"
    return None


def _refused(place: str, missing: bool) -> str:
    found = os.stat(place)
    if hasattr(os, "geteuid"):
        # What is root's may be written where its mode allows it; a user's directory is that user's alone.
        ours = (os.geteuid(), 0) if missing else (os.geteuid(),)
        if found.st_uid not in ours:
            return "%s belongs to another user" % place
        if not missing and files.is_shared(place):
            return "%s is shared with other users" % place
    writable = os.access(place, os.W_OK | os.X_OK)
    if hasattr(os, "statvfs"):  # root is told that it may write anywhere
        system = os.statvfs(place)
        read_only = bool(system.f_flag & getattr(os, "ST_RDONLY", 0))
        # The kernel's own trees (/proc, /sys) have neither blocks nor sizes, and take no directory.
        writable &= not read_only and bool(system.f_blocks or found.st_size)
    return "" if writable else "%s cannot be written" % place
