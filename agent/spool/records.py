"""What one line of a segment means: a record, a counter's later total, or something to leave alone.

The fields are written down in ``vendor_notes/SPOOL.md``. Reading is strict: a line that has the right checksum
but not the right shape is damaged, and a line of a newer format is nobody's to judge.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Optional

FORMAT_VERSION = 1
KINDS = ("licence", "usage", "aggregate")
NEWER, DAMAGED = "newer", "damaged"
# What every line that this version writes begins with, behind its checksum; told apart without parsing.
OPENING = b' {"v":1,"k":"'
# A report of dropped records has an id that begins so.
DROPPED = "dropped-"

_NUMBER = (int, float)
# Name in the line, attribute, type: what every record has, then what is left out where it is the default.
_FIELDS = (("k", "kind", str), ("e", "endpoint", str), ("id", "id", str), ("at", "at", _NUMBER),
           ("b", "body", dict))  # fmt: skip
_EXTRAS = (("r", "run", str, ""), ("c", "epoch", int, 0), ("end", "ended_at", _NUMBER, None),
           ("why", "why", str, ""), ("g", "revived", int, 0))  # fmt: skip


class Record:
    """One record as it stands on disk (or in memory, while there is no disk)."""

    run = ""  # of the process that recorded it
    epoch = 0  # of consent, for usage
    ended_at: Optional[float] = None  # of an aggregate's window, None while it is open
    why = ""  # of a dead letter
    revived = 0  # how often it came back from being one
    segment = ""  # file name; "" in memory

    def __init__(
        self, kind: str, endpoint: str, id: str, at: float, body: dict[str, Any], **more: Any
    ) -> None:
        self.kind = kind  # one of KINDS
        self.endpoint = endpoint  # the endpoint's name; the record goes there and nowhere else
        self.id = id
        self.at = at  # Unix seconds at capture
        self.body = body
        vars(self).update(more)

    @property
    def key(self) -> tuple[str, str]:
        """What the ledger knows a record by.

        One event id may go to several endpoints; a dead letter, and a record revived from one, is
        another than the record that was settled by dying.
        """
        life = "#%d" % self.revived if self.revived else ""
        return (self.endpoint, self.id + life + ("!" if self.why else ""))

    @property
    def usage(self) -> bool:
        """Whether consent governs this record."""
        return self.kind != "licence"

    @property
    def weight(self) -> int:
        """How many records go with this one: a report of drops stands for those that it reports."""
        reported = str(self.body.get("numeric_data_single_value", ""))
        if self.id.startswith(DROPPED) and reported.isdecimal() and len(reported) < 12:
            return int(reported)
        return 1

    def stub(self) -> Record:
        """A copy to settle by, with nothing of the body but what ``weight`` reads."""
        count = {n: self.body[n] for n in ("numeric_data_single_value",) if n in self.body}
        return Record(**{**vars(self), "body": count})

    def to_json(self) -> dict[str, Any]:
        """The line's value."""
        value: dict[str, Any] = {"v": FORMAT_VERSION}
        for short, name, _ in _FIELDS:
            value[short] = getattr(self, name)
        for short, name, _, default in _EXTRAS:
            if getattr(self, name) != default or (short == "c" and self.usage):
                value[short] = getattr(self, name)
        return value


def reborn(record: Record, *, why: str, revived: int) -> Record:
    """The same record in another life: a dead letter, or back from being one."""
    again: Record = parse({**record.to_json(), "why": why, "g": revived}, "")
    return again


def report(gone: Iterable[Record], id: str, dropped: Callable[..., None]) -> None:
    """Tell ``dropped`` how many records go: what a report among them told is told again, but is no new loss.

    Repeated after a crash it is the same report, unless more records go with it: those must not hide behind its id.
    """
    weights = [(record.weight, record.id.startswith(DROPPED)) for record in gone]
    count = sum(weight for weight, _ in weights)
    told = sum(weight for weight, is_report in weights if is_report)
    if count:
        dropped(count, "%s-%d" % (id, count), *([told] if told else []))


def count_line(endpoint: str, id: str, total: int, ended_at: Optional[float]) -> dict[str, Any]:
    """A counter's later total; with ``ended_at`` the last one of its window."""
    value = {"v": FORMAT_VERSION, "k": "count", "e": endpoint, "id": id, "n": total}
    if ended_at is not None:
        value["end"] = ended_at
    return value


def parse(value: Any, segment: str) -> Any:
    """A ``Record``, a dict (a counter's total), ``NEWER`` or ``DAMAGED``."""
    if not isinstance(value, dict):
        return DAMAGED
    version, kind = value.get("v"), value.get("k")
    if type(version) is int and version > FORMAT_VERSION:
        return NEWER
    extras: dict[str, Any] = {
        name: value.get(short, default) for short, name, _, default in _EXTRAS
    }
    fit = all(extras[n] == d or isinstance(extras[n], types) for _, n, types, d in _EXTRAS)
    # Beyond these bounds no arithmetic with times is safe; of a counter's total they become a record's.
    if not fit or type(version) is not int or not -1e12 < (extras["ended_at"] or 0) < 1e12:
        return DAMAGED
    if kind == "count":
        fit = all(isinstance(value.get(name), str) for name in ("e", "id"))
        return value if fit and version == 1 and type(value.get("n")) is int else DAMAGED
    fit = all(isinstance(value.get(short), types) for short, _, types in _FIELDS)
    if not fit or version != 1 or kind not in KINDS or not -1e12 < value["at"] < 1e12:
        return DAMAGED
    return Record(*(value[short] for short, _, _ in _FIELDS), segment=segment, **extras)
