"""What is told of an answer: a line of the history, and the vendor's ``on_outcome``; no secret goes into either."""

from __future__ import annotations

from .endpoints.verdicts import masked
from .outcomes import Outcome
from .routes import REFUSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Optional

    from .clock import Clock
    from .endpoints import Verdict
    from .spool.records import Record
    from .spool.store import Spool


# One line at a time a file is opened, looked at and closed for each answer: a tenth of what a record costs.
BATCH, BATCH_S = 32, 0.1


class Teller:
    """Tells of one deliverer's answers, on its thread, until it is ``silent``."""

    def __init__(
        self,
        spool: Spool,
        clock: Clock,
        *,
        gate: Callable[[Record], str],
        on_outcome: Optional[Callable[[Outcome], None]],
        manual: bool,
    ) -> None:
        self._spool, self._clock, self._gate = spool, clock, gate
        self._on_outcome, self._manual = on_outcome, manual
        self.silent = False
        self._answers: list[tuple[Record, dict[str, object]]] = []  # not written yet
        self._written_at = 0.0

    def answered(self, record: Record, verdict: Verdict) -> None:
        """An answer came, whatever it means."""
        if self._gate(record) == REFUSED:
            return  # refused while it was under way: nothing of it is kept
        key = str(record.body.get("license_key") or "")

        errors = (verdict.errors or {}).items()
        verdict.reason = masked(verdict.reason, key)
        verdict.errors = {
            masked(field, key): [masked(text, key) for text in texts] for field, texts in errors
        }
        answer = {
            "at": self._clock.time(),
            "endpoint": record.endpoint,
            "kind": record.kind,
            "event_id": record.id,
            "verdict": verdict.outcome,
            "code": verdict.code,
            "reason": verdict.reason,
            "errors": verdict.errors,
        }
        self._answers.append((record, answer))
        if len(self._answers) >= BATCH or self._clock.monotonic() - self._written_at > BATCH_S:
            self.write()

    def write(self) -> None:
        """Have the history hold every answer; but none about usage that was refused meanwhile. On any thread."""
        told = []
        try:
            while self._answers:
                told.append(self._answers.pop(0))
        except IndexError:
            pass  # another thread took the last
        self._written_at = self._clock.monotonic()
        kept = [(record, answer) for record, answer in told if self._gate(record) != REFUSED]
        if kept:
            self._spool.history.add(*[answer for _, answer in kept])
        # Refused between the look and the writing: whoever refused may have cleared the history before.
        if any(self._gate(record) == REFUSED for record, _ in kept):
            self._spool.history.forget_usage()

    def settled(self, record: Record, verdict: Verdict) -> None:
        """A record ended; said once."""
        if self._on_outcome is None or self.silent:
            return
        outcome = Outcome(
            event_id=record.id,
            endpoint=record.endpoint,
            verdict=verdict.outcome,
            reason=verdict.reason,
            errors=verdict.errors or {},
            recorded_at=record.at,
            had_license_key=bool(record.body.get("license_key")),
            from_earlier_run=record.run != self._spool.run,
        )
        self.write()  # before the vendor's code runs: it may look into the history, or never return
        try:
            self._on_outcome(outcome)
        # Whatever it is: a vendor's mistake is no reason to stop delivering, or to print.
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and self._manual:
                raise  # the user's, on the caller's thread
