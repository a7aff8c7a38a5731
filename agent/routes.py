"""``Route``: one endpoint during the deliverer's life, and the names of what its records may wait for."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional, Union

    from .endpoints.getkeymanager import GetKeyManagerAdapter
    from .endpoints.reo import ReoAdapter
    from .spool.facts import Lane

    Adapter = Union[GetKeyManagerAdapter, ReoAdapter]

# What the gate says of a record: send, wait, never send.
OPEN, SHUT, REFUSED = "open", "shut", "refused"
CONSENT, ORIGIN, WINDOW = "consent", "a domain or ip_addr", "the end of a counting window"


class Route:
    """One endpoint during the deliverer's life: its adapter, its lane on disk, its freshness."""

    __slots__ = ("adapter", "lane", "freshness", "open", "waiting", "parked", "overdue", "origin")

    def __init__(self, adapter: Adapter, lane: Lane) -> None:
        from .signatures.freshness import Freshness

        self.adapter, self.lane = adapter, lane
        self.freshness = Freshness(lane.floor)
        self.open = False  # for this pass
        self.waiting = False  # records wait for the endpoint, or for the next pass
        self.parked = ""  # what of our own records wait for
        self.overdue = False  # over-aged records were seen in this pass
        # Of aggregated events, once asked in this pass.
        self.origin: Optional[dict[str, str]] = None

    def refresh(self) -> None:
        """Take over a floor that another process raised."""
        self.freshness.doubtful = self.lane.doubtful
        if self.lane.floor is not None:
            self.freshness.raise_floor(self.lane.floor)

    def keep(self) -> None:
        """Have the lane remember what was proven."""
        self.lane.floor, self.lane.doubtful = self.freshness.floor, self.freshness.doubtful
