"""Carrying records out of a machine that will never be online, and into another one that is.

An export is one file of checksummed lines: a header that says how many records follow and where they come from, then
the records as they are. An import checks the file to its end before it takes the first record, in constant memory,
and leaves a mark, so that the same file is taken once; repeated after a crash it adds the same events again, which are
known by their ids. Usage that was refused after its export stays refused at home.
"""

from __future__ import annotations

import errno
import os

from .. import TYPE_CHECKING, files, lines
from ..errors import EventError
from ..looking import claimed
from ..spool import record as records
from ..spool.book import UNTRIED
from ..spool.store import DISK
from ..verdicts import SETTLED

if TYPE_CHECKING:
    from typing import Any, Callable, Iterator

    from ..client import Agent
    from ..spool.record import Record

# Longer than the longest line of ours: a text of 32,768 characters, each of which JSON writes as twelve bytes.
LINE_MAX_BYTES = 1 << 20
# So much of the quota stays free for what is recorded here.
SPARE = 16


def export(agent: Agent, path: Any, *, move: bool) -> int:
    """See ``Agent.export_spool``."""
    target = _path(path)
    agent._counters.keep(end=True)
    spool = agent._spool
    with claimed(agent):
        found = list(spool.waiting(()))
        home = spool.book.fact("home", "").get("id") or os.urandom(8).hex()
        spool.book.note("home", "", id=home)
        header = {"v": 1, "k": "export", "id": os.urandom(8).hex(), "at": agent._clock.time()}
        values = [{**header, "records": len(found), "from": home}]
        values += [record.to_json() for record in found]
        files.write_new(target, b"".join(map(lines.encode, values)))
        files.sync_directory(os.path.dirname(os.path.abspath(target)))
        if move:
            spool.lost("exported", spool.drop(found, why="export"))
    return len(found)


def import_(agent: Agent, path: Any) -> int:
    """See ``Agent.import_spool``."""
    source, spool = _path(path), agent._spool
    if spool.directory is None:
        raise OSError("there is no state directory to import into")
    most, size = agent._config.max_bytes, os.stat(source).st_size
    if size > most:
        raise EventError("path: %d bytes, and the quota is %d" % (size, most), "path")
    header = _check(source)
    with claimed(agent):
        if spool.book.fact("import", header["id"]):
            return 0
        found, fits = header["records"], _takes(
            agent, ours=header.get("from") == spool.book.fact("home", "").get("id")
        )
        sizes = [len(lines.encode(one.to_json())) for one in _records(source, found) if fits(one)]
        _check_room(agent, sum(sizes), len(sizes))
        epoch = spool.consent.ensure() if sizes else 0
        for record in filter(fits, _records(source, found)):
            record.epoch = epoch if record.usage else 0
            record.run = record.run or spool.run
            state = spool.book.states.get(record.key, UNTRIED)
            if state.settled:  # it was moved out, and comes home
                spool.book.change(record.key, outcome="", revived=state.revived + 1)
            if spool.record(record, sync=False) != DISK:
                raise OSError("the spool took only a part: %s" % spool.trouble)
        if not spool.sync():
            raise OSError("the spool could not be synced: %s" % spool.trouble)
        spool.book.note("import", header["id"])
    agent._worker.wake(recorded=True)
    if agent._worker.closed:
        spool.seal()  # nothing of ours stays open
    return len(sizes)


def _takes(agent: Agent, *, ours: bool) -> Callable[[Record], bool]:
    """Which records are taken: no usage without consent, nor any that was exported here before a refusal.

    ``DO_NOT_TRACK`` says nothing of that: it stops usage in its own process.
    """
    consent: Any = agent._consent
    try:
        refused = consent() is not True if callable(consent) else consent is False
    except (Exception, SystemExit):
        refused = True
    epoch, states = agent._spool.consent.current(), agent._spool.book.states
    return lambda one: not (
        states.get(one.key, UNTRIED).outcome in SETTLED  # here, before or since
        or (one.usage and (refused or (ours and one.epoch != epoch)))
    )


def _check_room(agent: Agent, size: int, count: int) -> None:
    """Raise ``EventError`` where the quota has no room: records of this machine would be evicted for an import."""
    config, found = agent._config, agent._spool.census()
    stored = sum(found["pending"].values()) + found["dead"]
    room = config.max_bytes - config.max_bytes // SPARE - found["bytes"]
    places = config.max_records - config.max_records // SPARE - stored
    if size > room or count > places:
        text = "path: %d bytes in %d records; the quota has room for %d bytes, %d records"
        raise EventError(text % (size, count, max(0, room), max(0, places)), "path")


# -- the file ----


def _path(path: Any) -> str:
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


def _values(path: str) -> Iterator[Any]:
    """The value of each line, None for a damaged one; raises ``OSError``.

    The user's own file, so links are followed; but nothing that could block or never end.
    """
    wait_not = getattr(os, "O_NONBLOCK", 0)
    stat = os.stat(path)
    if stat.st_mode & 0o170000 != 0o100000:
        raise OSError(errno.EINVAL, "is not a regular file", path)
    left = stat.st_size
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | wait_not)) as file:
        while left > 0 and (line := file.readline(LINE_MAX_BYTES)):
            left -= len(line)
            yield lines.decode(line[:-1]) if line.endswith(b"\n") else None


def _records(path: str, most: int) -> Iterator[Record]:
    """So many records behind the header, to the first line that is none: since it was checked it may have grown."""
    values = _values(path)
    next(values, None)
    for value, _ in zip(values, range(most)):
        found = records.parse(value)
        if not isinstance(found, records.Record):
            return
        yield found


def _check(path: str) -> dict[str, Any]:
    """The header of an export that is whole; reads no further than to the first line that should not be there."""
    values = _values(path)
    header = next(values, None)
    if not isinstance(header, dict) or header.get("k") != "export" or header.get("v") != 1:
        raise EventError("path: %r is not an exported spool" % path, "path")
    promised, whole, broken = header.get("records"), 0, not _is_name(header.get("id"))
    if type(promised) is not int or not 0 <= promised < 1 << 53:
        promised = "no"  # what else is written there is nothing for an error's text
    for value in values:
        broken |= whole == promised or not isinstance(records.parse(value), records.Record)
        if broken:
            break
        whole += 1
    if broken or whole != promised:
        text = "path: %r is damaged: %s records promised, %d whole"
        raise EventError(text % (path, promised, whole), "path")
    return header


def _is_name(id: object) -> bool:
    return isinstance(id, str) and len(id) == 16 and not id.strip("0123456789abcdef")
