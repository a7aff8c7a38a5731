"""What came of a recording command, in words: recorded or why not, delivered or what it waits for.

Consent that is missing stops usage only, so for a call home it is a note and no failure. What could only be kept in
memory ends with the command: it is well if it was delivered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from ..lanes import CONSENT
from .directory import problem
from .output import counted, printable

if TYPE_CHECKING:
    from ..values import DeliveryReport, Outcome

NO_CONSENT, IN_MEMORY = "no consent", "kept in memory only"


class Result(NamedTuple):
    """What one command did, and the status after it."""

    status: dict[str, Any]
    event_id: Optional[str]
    ended: list[Outcome]
    report: Optional[DeliveryReport]
    is_count: bool
    is_call_home: bool

    @property
    def disabled(self) -> bool:
        """Whether there is nobody to report to."""
        return not self.status["enabled"]

    @property
    def in_memory(self) -> bool:
        """Whether there is a record and none of it on disk."""
        if self.disabled or self.event_id is not None:
            return False
        return IN_MEMORY in self.lost or bool(self.status["in_memory"])

    @property
    def lost(self) -> dict[str, int]:
        """What was not recorded as it should, by reason."""
        found: dict[str, int] = self.status["not_recorded"]
        return found

    @property
    def rejected(self) -> list[Outcome]:
        """Records that a server refused for good."""
        return [outcome for outcome in self.ended if outcome.verdict == "rejected"]

    @property
    def drained(self) -> bool:
        """Whether something was sent and nothing waits."""
        return self.report is not None and self.report.drained

    @property
    def left_out(self) -> bool:
        """Whether a call home was recorded for others than the usage endpoints."""
        recorded = self.event_id is not None or self.in_memory
        return self.is_call_home and recorded and NO_CONSENT in self.lost

    def missing(self) -> list[str]:
        """The reasons that make it a failure."""
        if self.disabled:
            return ["disabled: no endpoint is configured"]
        fine = [NO_CONSENT] * self.left_out
        if self.in_memory or self.drained:
            fine.append(IN_MEMORY)
        found = sorted(reason for reason in self.lost if reason not in fine)
        return [
            "%s (%s)" % (reason, refusal(self.status)) if reason == NO_CONSENT else reason
            for reason in found
        ]

    @property
    def negative(self) -> bool:
        """Whether the exit status is 1."""
        if self.missing() or self.rejected:
            return True
        return not self.drained if self.report is not None else self.in_memory

    def to_json(self) -> dict[str, Any]:
        """The command's answer."""
        return {
            "event_id": self.event_id,
            "not_recorded": self.lost,
            "in_memory": self.in_memory,
            "reasons": self.missing(),
            "report": None if self.report is None else self.report.to_json(),
            "outcomes": [outcome.to_json() for outcome in self.ended],
        }

    def line(self) -> str:
        """The answer to a person."""
        said = []
        report = self.report
        if report is not None and not self.disabled:
            said += ["delivered %d" % report.delivered, "pending %d" % report.pending]
            said += ["flagged %d" % report.flagged] if report.flagged else []
            said += ["rejected %d" % len(self.rejected)] if self.rejected else []
        return printable("; ".join(filter(None, [self._recorded(), ", ".join(said)])))

    def _recorded(self) -> str:
        """Whether there is, or was, a record."""
        missing = self.missing()
        if self.in_memory:
            kept = "recorded in memory only (%s)" % _why_not_on_disk(self.status)
        elif self.event_id is not None:
            kept = "recorded %s" % self.event_id
        elif self.is_count and not missing:
            return "counted"
        else:
            return "not recorded: " + ", ".join(missing or [IN_MEMORY])
        return "%s, but: %s" % (kept, ", ".join(missing)) if missing else kept

    def notes(self) -> list[str]:
        """What a person should know beyond the numbers."""
        lines = []
        if self.left_out:
            lines.append("note: usage endpoints were left out: %s" % refusal(self.status))
        for outcome in self.ended:
            place = "%s: %s %s" % (outcome.endpoint, outcome.verdict, outcome.event_id)
            for field, messages in outcome.errors.items():
                lines.append("%s: %s: %s" % (place, field, " ".join(messages)))
            if outcome.verdict == "rejected":
                lines.append("%s: %s" % (place, outcome.reason))
        if self.report is not None:
            lines += waiting(self.status)
        if self.in_memory and not self.drained:
            lines.append("what was kept in memory only is lost now; the command doctor says more")
        return [printable(line) for line in lines]


def refusal(status: dict[str, Any]) -> str:
    """Why usage may not be captured or sent."""
    consent = status["usage_consent"]
    found = ["DO_NOT_TRACK is set"] if status["do_not_track"] else []
    if consent is None:
        found.append("usage_consent is null: not asked yet")
    elif consent is False:
        found.append("usage_consent is false")
    elif consent == "callable" and not found:
        found.append("the product says that there is none now")
    return ", ".join(found) or "its mark in the state directory cannot be read or made"


def _why_not_on_disk(status: dict[str, Any]) -> str:
    directory = status["state_dir"]
    found = None if directory is None else problem(directory)
    return found[0] if found else str(status["trouble"].get("spool", "the disk refuses it"))


def waiting(status: dict[str, Any]) -> list[str]:
    """One line for each endpoint that records wait for, with the reason as far as it is known."""
    lines = []
    for endpoint in status["endpoints"]:
        if not endpoint["pending"]:
            continue
        reason = endpoint["reason"]
        if endpoint["waits_for"] == CONSENT:
            reason = "for consent: " + refusal(status)
        elif not reason and endpoint["waits_for"]:
            reason = "for " + endpoint["waits_for"]
        elif not reason:
            reason = "nothing was answered yet; see the command doctor"
        if endpoint["waiting"] == "held":
            reason += "; spool replay --held asks again"
        records = counted(endpoint["pending"], "record")
        lines.append(printable("%s: %s waiting: %s" % (endpoint["name"], records, reason)))
    return lines


def unknown(status: dict[str, Any]) -> str:
    """How many records are for endpoints that the configuration does not name; "" for none."""
    found = status["unknown_endpoints"]
    if not found:
        return ""
    places = ", ".join("%s: %d" % item for item in sorted(found.items()))
    what = "unknown endpoint%s" % ("" if len(found) == 1 else "s")
    return printable("%s of %s (%s)" % (counted(sum(found.values()), "record"), what, places))
