"""One record: what is captured, kept, sent, and the consent that usage was captured under.

The fields: ``vendor_notes/SPOOL.md``. Reading is strict: a line with the right checksum and not the right shape is
damaged; one of a newer format is nobody's to judge.
"""

from __future__ import annotations

import os

from .. import TYPE_CHECKING, files

if TYPE_CHECKING:
    from typing import Any, Optional

    Key = tuple[str, str]

FORMAT_VERSION = 1
KINDS = ("licence", "usage", "aggregate")
NEWER, DAMAGED = "newer", "damaged"
CONSENT = "agent.consent"
# A report of dropped records is called "dropped-<16 hex digits>-<how many>".
DROPPED = "dropped-"
# What a stub keeps of a body: how far a counter came, and whose usage it is.
_KNOWN = ("count", "domain", "ip_addr")


class Record:
    """One record of one endpoint, to which alone it goes; on disk at ``place``, or in memory."""

    run = ""  # of the process that recorded it
    epoch = 0  # of consent, for usage
    ended_at: Optional[float] = None  # of a counter's window; None while it is open
    place: tuple[str, int, int] = ("", 0, 0)  # segment, offset, length; no segment: in memory

    def __init__(
        self, kind: str, endpoint: str, id: str, at: float, body: dict[str, Any], **more: Any
    ) -> None:
        self.kind, self.endpoint, self.id, self.at, self.body = kind, endpoint, id, at, body
        self.key: Key = (endpoint, id)  # what it is known by: one event may go to several endpoints
        self.usage = kind != "licence"  # whether consent governs it
        vars(self).update(more)

    @property
    def total(self) -> int:
        """How far a counter came: of several lines of one record the greatest counts."""
        count = self.body.get("count")
        return count if self.kind == "aggregate" and type(count) is int else 0

    @property
    def weight(self) -> int:
        """How many records go with this one: a report of drops stands for those that it reports."""
        count = self.id.rpartition("-")[2]
        reported = self.id.startswith(DROPPED) and count.isdecimal() and len(count) < 12
        return int(count) if reported else 1

    @property
    def stray(self) -> bool:
        """Whether it does not say whose usage it is: an aggregate of which only an endpoint may know."""
        return self.kind == "aggregate" and not (
            self.body.get("domain") or self.body.get("ip_addr")
        )

    def stub(self, place: tuple[str, int, int]) -> Record:
        """A copy to keep by thousands: where it stands, and of the body only what decides something."""
        body = {name: self.body[name] for name in _KNOWN if self.body.get(name)}
        return Record(**{**vars(self), "body": body, "place": place})

    def to_json(self) -> dict[str, Any]:
        """The line's value."""
        value: dict[str, Any] = {"v": FORMAT_VERSION, "k": self.kind, "e": self.endpoint}
        value.update({"id": self.id, "at": self.at, "b": self.body, "r": self.run})
        if self.usage:
            value["c"] = self.epoch
        if self.ended_at is not None:
            value["end"] = self.ended_at
        return value


def parse(value: Any) -> Any:
    """A ``Record``, ``NEWER`` or ``DAMAGED``."""
    version = value.get("v") if type(value) is dict else None
    if type(version) is int and version > FORMAT_VERSION:
        return NEWER
    if type(version) is not int or version < FORMAT_VERSION or value.get("k") not in KINDS:
        return DAMAGED
    fields = [value.get(name) for name in ("k", "e", "id", "at", "b")]
    more = {"run": value.get("r", ""), "epoch": value.get("c", 0), "ended_at": value.get("end")}
    given = [*fields[1:3], fields[4], more["run"], more["epoch"]]
    fit = list(map(type, given)) == [str, str, dict, str, int] and _is_time(fields[3])
    fit = fit and (more["ended_at"] is None or _is_time(more["ended_at"]))
    return Record(*fields, **more) if fit else DAMAGED


def _is_time(value: Any) -> bool:
    """Beyond these bounds no arithmetic with times is safe."""
    return type(value) in (int, float) and -1e12 < value < 1e12


class Consent:
    """The epoch of consent: the size of a file of dots; 0 is none. In memory where ``directory`` is None.

    Usage is recorded under the epoch of its time and sent only while that is the size. Whoever refuses adds a dot.
    Asked by ``fstat``: over a network a name's attributes may be old.
    """

    def __init__(self, directory: Optional[str]) -> None:
        self._path = os.path.join(directory, CONSENT) if directory is not None else None
        self._epoch = 1  # without a directory
        # Whether a refusal could not be written down: then nothing is captured or sent here.
        self.blocked = False
        self._dots = b"." * (os.urandom(1)[0] or 1)

    def current(self) -> int:
        """The epoch now; 0 where there is none, or it cannot be read, or a refusal could not be written."""
        return self.look() or 0

    def look(self) -> Optional[int]:
        """The same, but None where it cannot be read: then nobody knows what is refused."""
        if self._path is None or self.blocked:
            return 0 if self.blocked else self._epoch
        try:
            with files.open_read(self._path) as file:
                return file.stat().st_size
        except FileNotFoundError:
            return 0
        except OSError:
            return None

    def ensure(self) -> int:
        """The epoch, begun if there is none; 0 where that fails. One made anew equals an old one but by chance."""
        if self.blocked:
            self.refuse()
        dots = self._dots
        if self._path is not None and self.look() == 0 and not self.blocked:
            try:
                files.ensure_directory(os.path.dirname(self._path))
                with files.locked(self._path) as file:
                    if file.stat().st_size == 0:  # new, or what a power cut left
                        # At its start and not at its end: a signal handler may have come here, and written the same.
                        with files.File(self._path, os.O_RDWR) as begun:
                            begun.write(dots)
                            begun.sync()
                files.sync_directory(os.path.dirname(self._path))
            except Exception:
                pass  # somebody else's, perhaps
            self._dots = b"." * (os.urandom(1)[0] or 1)
        return self.current()

    def refuse(self) -> None:
        """Begin the next epoch, where there is one; ``blocked`` says that this failed."""
        self._epoch += 1
        try:
            # Appends are not atomic everywhere: on Windows 6,000 dots without the lock gave 5,383.
            with files.locked(self._path or "", missing_ok=False) as file:
                file.write(b".")
                file.sync()
            self.blocked = False
        except (FileNotFoundError, NotADirectoryError):
            self.blocked = False  # nothing was captured that could be sent
        except OSError:
            self.blocked = True
