"""Carrying records out of a machine that will never be online, and into another one that is.

An export is one file of checksummed lines: a header that names it and where it comes from, then the records as they
are. An import adds all of them and leaves a mark, so that the same file is taken once; repeated after a crash it adds
the same events again, which are known by their ids. Usage that was refused after its export stays refused at home.
"""

from __future__ import annotations

import errno
import os

from .. import files, jsonline
from ..errors import EventError
from . import names, records
from .facts import Facts
from .lines import CHUNK_BYTES, decoded
from .records import Record
from .store import DISK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterable, Iterator

    from .store import Spool


def path_of(path: Any) -> str:
    """A caller's path as text; raises ``EventError`` where it is none."""
    try:
        text = os.fsdecode(path)
        os.fsencode(text)
    except TypeError:
        given = type(path).__name__
        raise EventError("path: a path is text or path-like, not %s" % given, "path") from None
    except ValueError:  # what no file can be called
        text = "\0"
    if "\0" in text:
        raise EventError("path: no file can have this name", "path")
    return text


def write_export(
    path: Any, waiting: Iterable[Record], *, at: float, origin: str = ""
) -> list[Record]:
    """Write all ``waiting`` to a new file, durably; the records written. ``origin`` is ``Facts.origin`` of here.

    Raises ``OSError``: whoever asks for an export must learn that there is none. Never overwrites.
    """
    target, written = path_of(path), list(waiting)
    header = {"v": 1, "k": "export", "id": os.urandom(8).hex(), "at": at, "records": len(written)}
    if origin:
        header["from"] = origin
    values = [header, *(record.to_json() for record in written)]
    files.write_new(target, b"".join(map(jsonline.encode, values)))
    files.sync_directory(os.path.dirname(os.path.abspath(target)))
    return written


class Export:
    """A file that was found whole; its records are read from it each time, for it may be larger than memory."""

    __slots__ = ("id", "origin", "path")

    def __init__(self, id: str, origin: str, path: str) -> None:
        self.id, self.origin, self.path = id, origin, path

    def records(self) -> Iterator[Record]:
        """Each record of the file."""
        found = (records.parse(value, "") for value in _values(self.path))
        return (record for record in found if isinstance(record, Record))


def read_export(path: Any) -> Export:
    """Check a file that is closed to nobody; raises ``OSError``, and ``EventError`` where it is none or damaged."""
    path = path_of(path)
    values = _values(path)
    header = next(values, None)
    if not isinstance(header, dict) or header.get("k") != "export" or header.get("v") != 1:
        raise EventError("path: %r is not an exported spool" % path, "path")
    found = [isinstance(records.parse(value, ""), Record) for value in values]
    id, promised, whole = str(header.get("id")), header.get("records"), sum(found)
    if not names.is_hex(id, 16) or promised != whole or whole < len(found):
        text = "path: %r is damaged: %s records promised, %d whole"
        raise EventError(text % (path, promised, whole), "path")
    return Export(id, str(header.get("from") or ""), path)


def _values(path: str) -> Iterator[Any]:
    """The value of each line of the user's own file, so links are followed; nothing that could block or never end."""
    wait_not = getattr(os, "O_NONBLOCK", 0)
    if os.stat(path).st_mode & 0o170000 != 0o100000:
        raise OSError(errno.EINVAL, "is not a regular file", path)
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | wait_not)) as file:
        for _, value in decoded(iter(lambda: file.readline(CHUNK_BYTES), b"")):
            yield value


def put_import(spool: Spool, export: Export, *, refused: bool = False) -> int:
    """Add an export's records to a spool on disk; how many, 0 where that was done before.

    Usage takes on the consent epoch of this directory, but is left out while consent is ``refused``, and where it
    was exported here before a refusal. Raises ``OSError``, and ``EventError`` where the quota has no room for all.
    """
    if spool.directory is None:
        raise OSError("there is no state directory to import into")
    mark = os.path.join(spool.directory, "%s-%s" % (names.IMPORTED, export.id))
    try:
        os.lstat(mark)  # raises where nobody can tell whether the file was taken
        return 0
    except FileNotFoundError:
        pass
    epoch = spool.consent.current(anchor=True)
    ours = export.origin != "" and export.origin == Facts(spool.directory).origin()

    def taken() -> Iterator[Record]:
        for record in export.records():
            if not record.usage or not (refused or (ours and record.epoch < epoch)):
                record.epoch = epoch if record.usage else 0
                record.run = record.run or spool.run
                yield record

    sizes = [len(jsonline.encode(record.to_json())) for record in taken()]
    needed, room = (sum(sizes), len(sizes)), spool.room()
    if needed[0] > room[0] or needed[1] > room[1]:
        text = "path: %d bytes in %d records; the quota has room for %d bytes, %d records"
        raise EventError(text % (*needed, *room), "path")
    for record in taken():
        if spool.put(record, sync=False) != DISK:
            raise OSError("the spool took only a part: " + spool.trouble)
    if not spool.sync():
        raise OSError("the spool could not be synced: " + spool.trouble)
    files.close(files.open_append(mark))
    return len(sizes)
