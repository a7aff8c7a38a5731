"""The collector without its sockets: takes a request in, judges it, keeps it, and says what to answer.

Everything that a protocol, a fault or the control API needs is held here; a request goes through ``answer`` alone.
How requests are read and answers are written is ``handler``'s.
"""

from __future__ import annotations

from typing import Callable, Mapping, Optional

from . import bending, getkeymanager, reo
from .answers import Answer, Received
from .book import Book
from .faults import Fault, Faults
from .signing import Keys

Now = Callable[[], float]
ENDPOINT_OF_PATH = {getkeymanager.PATH: "getkeymanager", **reo.PATHS}
ELSEWHERE = (
    "/elsewhere"  # where "redirect" leads by default; a client that follows shows up in requests()
)


class Desk:
    """State shared by all connections; every method may be called from any thread."""

    def __init__(
        self,
        *,
        keys: Keys,
        known: getkeymanager.Catalogue,
        now: Now,
        answer_delay_s: float,
        drip_interval_s: float,
        reo_failure_status: int,
        redirect_to: Optional[str],
        log: Optional[Callable[[str], None]],
    ) -> None:
        self.keys, self.known, self.now = keys, known, now
        self.answer_delay_s, self.drip_interval_s = answer_delay_s, drip_interval_s
        self.reo_failure_status, self.redirect_to = reo_failure_status, redirect_to
        self.log = log
        self.book = Book(now)
        self.faults = Faults()
        self.started_at = now()
        self.port = 0
        # Wakes clients that wait under a fault.
        self.release_held: Callable[[], None] = lambda: None

    def arm(self, fault: Fault) -> None:
        """Switch a fault on, in place of the one before."""
        self.faults.arm(fault)
        self.release_held()

    def clear(self, endpoint: Optional[str] = None) -> None:
        """Switch faults off: one endpoint's, or all."""
        self.faults.clear(endpoint)
        self.release_held()

    def answer(
        self, endpoint: str, headers: Mapping[str, str], body: bytes, fault: Optional[Fault]
    ) -> Answer:
        """Judge and record one request, then answer it as ``fault`` demands."""
        now = self.now()
        if fault is not None and not fault.accepting:
            # Another name of this host is another origin.
            elsewhere = self.redirect_to or "http://localhost:%d%s" % (self.port, ELSEWHERE)
            return bending.refuse(
                fault, endpoint=endpoint, keys=self.keys, now=now, elsewhere=elsewhere
            )
        received = self._receive(endpoint, headers, body, now)
        self.book.note_record(endpoint, received, fault.name if fault else None)
        if fault is None:
            return bending.honest(received, self.keys)
        return bending.spoil(fault, received, keys=self.keys, now=now, started_at=self.started_at)

    def _receive(
        self, endpoint: str, headers: Mapping[str, str], body: bytes, now: float
    ) -> Received:
        if endpoint == "getkeymanager":
            return getkeymanager.receive(headers, body, self.known, now)
        return reo.receive(
            endpoint,
            body,
            authorized=self.known.api_keys.get(headers.get("x-api-key", ""), 100) is None,
            content_type=headers.get("content-type", ""),
            failure_status=self.reo_failure_status,
        )
