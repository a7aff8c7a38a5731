"""One record: what is captured, kept, sent. What a line of a segment says, and what it may say.

The fields are written down in ``vendor_notes/SPOOL.md``. Reading is strict: a line that has the right checksum but not
the right shape is damaged, and a line of a newer format is nobody's to judge.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

    Key = tuple[str, str]
    Place = tuple[str, int, int]

FORMAT_VERSION = 1
LICENCE, USAGE, AGGREGATE = KINDS = ("licence", "usage", "aggregate")
NEWER, DAMAGED = "newer", "damaged"
# A report of dropped records: "dropped-<16 hex digits>-<how many>".
DROPPED = "dropped-"
# What is known of a record without its body's text: how far a counter came, and whose usage it is.
_KNOWN = ("count", "domain", "ip_addr")
_NUMBER = (int, float)


class Record:
    """One record of one endpoint, for whom alone it is; on disk at ``place`` (segment, offset, length), or in memory."""

    __slots__ = ("kind", "endpoint", "id", "at", "body", "run", "epoch", "ended_at", "place")

    def __init__(
        self,
        kind: str,
        endpoint: str,
        id: str,
        at: float,
        body: dict[str, Any],
        *,
        run: str = "",
        epoch: int = 0,
        ended_at: Optional[float] = None,
        place: Optional[Place] = None,
    ) -> None:
        self.kind, self.endpoint, self.id, self.at, self.body = kind, endpoint, id, at, body
        self.run = run  # of the process that recorded it
        self.epoch = epoch  # of consent, for usage
        self.ended_at = ended_at  # of a counter's window; None while it is open
        self.place = place

    @property
    def key(self) -> Key:
        """What a record is known by: one event may go to several endpoints."""
        return (self.endpoint, self.id)

    @property
    def usage(self) -> bool:
        """Whether consent governs this record."""
        return self.kind != LICENCE

    @property
    def total(self) -> int:
        """How far a counter came: of several lines of one record the greatest counts."""
        count = self.body.get("count")
        return count if self.kind == AGGREGATE and type(count) is int else 0

    @property
    def weight(self) -> int:
        """How many records go with this one: a report of drops stands for those that it reports."""
        count = self.id.rpartition("-")[2]
        reported = self.id.startswith(DROPPED) and count.isdecimal() and len(count) < 12
        return int(count) if reported else 1

    def stub(self, place: Place) -> Record:
        """A copy to keep in memory by thousands: where it stands, and of the body only what decides something."""
        body = {name: self.body[name] for name in _KNOWN if self.body.get(name)}
        more = {"run": self.run, "epoch": self.epoch, "ended_at": self.ended_at}
        return Record(self.kind, self.endpoint, self.id, self.at, body, place=place, **more)

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
    version = value.get("v") if isinstance(value, dict) else None
    if type(version) is int and version > FORMAT_VERSION:
        return NEWER
    if type(version) is not int or version != FORMAT_VERSION or value.get("k") not in KINDS:
        return DAMAGED
    texts = [value.get("e"), value.get("id"), value.get("r", "")]
    epoch, ended_at = value.get("c", 0), value.get("end")
    fit = all(type(text) is str for text in texts) and type(value.get("b")) is dict
    fit = fit and type(epoch) is int and _is_time(value.get("at"))
    if not fit or not (ended_at is None or _is_time(ended_at)):
        return DAMAGED
    return Record(
        value["k"],
        value["e"],
        value["id"],
        value["at"],
        value["b"],
        run=texts[2],
        epoch=epoch,
        ended_at=ended_at,
    )


def _is_time(value: Any) -> bool:
    """Beyond these bounds no arithmetic with times is safe."""
    return type(value) in _NUMBER and -1e12 < value < 1e12
