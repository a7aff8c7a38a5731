"""What callers are told: one ``Outcome`` per settled record, one ``DeliveryReport`` per flush."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Facts:
    """A value whose slots print themselves."""

    __slots__: tuple[str, ...] = ()

    def __init__(self, **facts: Any) -> None:
        for name in self.__slots__:
            setattr(self, name, facts[name])

    def to_json(self) -> dict[str, Any]:
        """The facts by name."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __repr__(self) -> str:
        facts = ", ".join("%s=%r" % item for item in self.to_json().items())
        return "%s(%s)" % (type(self).__name__, facts)


class Outcome(_Facts):
    """How one record ended. ``verdict`` is ``delivered``, ``flagged`` or ``rejected``.

    ``flagged`` (the server saved it with red flags) is a hint, never a reason to lock a product.
    ``errors`` maps field names to messages; ``recorded_at`` is in Unix seconds; ``had_license_key`` says
    whether the record carried one, ``from_earlier_run`` whether another run recorded it.
    """

    __slots__ = ("event_id", "endpoint", "verdict", "reason", "errors", "recorded_at",
                 "had_license_key", "from_earlier_run")  # fmt: skip

    event_id: str
    endpoint: str
    verdict: str
    reason: str
    errors: dict[str, list[str]]
    recorded_at: float
    had_license_key: bool
    from_earlier_run: bool


class DeliveryReport(_Facts):
    """What a flush came to.

    ``delivered``, ``flagged`` and ``untrusted`` (answers that proved nothing) count since the call began;
    ``pending`` waits on disk or in memory now, ``held`` of it because the server refuses us; ``dead``
    letters lie on disk. ``drained``: nothing that this configuration could send waits any more.
    """

    __slots__ = ("delivered", "flagged", "pending", "held", "dead", "untrusted", "drained")

    delivered: int
    flagged: int
    pending: int
    held: int
    dead: int
    untrusted: int
    drained: bool
