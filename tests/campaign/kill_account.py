"""What the logs of the kill campaign prove: what was recorded, what arrived, and why anything arrived twice."""

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any, Optional

from .kill_child import content
from .report import Row

LOST, SPOILT, LATE = "answer lost", "answer unusable", "answer late"
KILLED, ENDED = "sender killed", "sender ended"
# Answers that no client can use; of these the collector took the record in.
_SPOILT = ("truncated", "not-json", "drip-body", "drip-headers")
# What the transport says of a request that its own process broke off.
CUT_SHORT = ("interrupted", "the transport is closed")

Key = tuple[str, str]  # endpoint, and marker or event id


class Request:
    """One request as its sender saw it."""

    def __init__(self, sender: int, at: float) -> None:
        self.sender, self.at = sender, at
        self.status: Optional[int] = None
        self.over = self.late = False
        self.trouble = ""  # why there was no answer


class Arrival:
    """One record as the collector took it in."""

    def __init__(self, request: str, fault: Optional[str], fields: dict[str, Any]) -> None:
        self.request, self.fault, self.fields = request, fault, fields


class Account:
    """What all processes on one state directory wrote into their logs, over all of its rounds."""

    def __init__(self, otherwise: str = "") -> None:
        self._otherwise = (
            otherwise  # why records are delivered again that no other cause is found for
        )
        self.tried: dict[str, str] = {}  # marker -> kind
        self.recorded: dict[Key, str] = {}  # -> marker
        self.arrivals: dict[Key, list[Arrival]] = {}
        self.strangers: set[str] = set()  # event ids that no call gave back
        self.requests: dict[str, Request] = {}
        self.given: set[str] = set()  # requests whose answer left the collector
        self.ends: dict[int, int] = {}  # of processes, by their log's number
        self.counted: Counter[str] = Counter()  # by activity
        self.kept: Counter[str] = Counter()  # of it, what was on disk when a call returned
        self.complete: set[str] = set()  # activities whose process ended in order
        self.judged: set[str] = set()  # requests and activities that were told of

    def round(self, logs: Path, statuses: list[list[int]]) -> Row:
        """Take in a round's logs: what is new of them, and what was wrong in it."""
        row, by_pid = Row("SIGKILL", rounds=1), {pid: status for pid, status in statuses}
        arrived: list[tuple[str, int, Arrival]] = []
        for path in sorted(logs.iterdir()):
            number = len(self.ends)
            self.ends[number] = by_pid.get(int(path.name.partition("-")[0]), 0)
            lines = path.read_bytes().split(b"\n")
            self._read(number, [json.loads(line) for line in lines if line], row, arrived)
        killed = sum(status == -signal.SIGKILL for _, status in statuses)
        row.figure("processes killed", killed - row.total("collectors killed"))
        for pid, status in statuses:
            fine = status in (0, -signal.SIGKILL)
            row.breaks(not fine, "process %d ended with status %d" % (pid, status))
        earlier = set(self.arrivals)
        self._take(arrived, row)
        new = self.arrivals.keys() - earlier
        row.delivered = len(new & self.recorded.keys())
        unknown = [key for key in new - self.recorded.keys() if key[0] != "reo-aggregate"]
        row.figure("delivered beside these, their call was killed", len(unknown))
        self._judge(row)
        self._sum_up(row)
        return row

    def _read(self, number: int, entries: list[list[Any]], row: Row, arrived: list[Any]) -> None:
        activities: set[str] = set()
        for what, *more in entries:
            if what == "process":
                row.figure("collectors killed", int(more[1] == "collect"))
            elif what == "try":
                self.tried[more[0]] = more[1]
            elif what == "recorded":
                row.recorded += self._note_recorded(*more)
            elif what == "counting":
                activities.add(more[0])
                self.counted[more[0]] += more[1]
            elif what == "kept":
                self.kept[more[0]] = self.counted[more[0]]
            elif what == "complete":
                self.complete |= activities if self.ends[number] == 0 else set()
            elif what in ("raised", "refused"):
                row.broken.append("%s %s" % (what, more))
            elif what == "drained":
                self._note_drained(row, *more)
            elif what == "accepted":
                arrived.append((more[1], more[3], Arrival(more[0], more[2], more[4])))
            else:
                self._note_exchange(number, what, *more)

    def _note_exchange(self, number: int, what: str, name: str, *more: Any) -> None:
        if what == "sent":
            self.requests[name] = Request(number, more[0])
        elif what == "answered":
            self.requests[name].status = more[0]
        elif what == "unreachable":
            self.requests[name].late, self.requests[name].trouble = more
        elif what == "over":
            self.requests[name].over = True
        elif what == "gave":
            self.given.add(name)

    def _note_recorded(self, marker: str, kind: str, id: str) -> int:
        keys = [("getkeymanager", marker)] * (kind != "track")
        keys += [("reo-usage", id)] * (kind in ("track", "call_home"))
        self.recorded.update((key, marker) for key in keys)
        return len(keys)

    def _note_drained(
        self, row: Row, pending: int, revived: int, damaged: int, left: list[str], trouble: Any
    ) -> None:
        row.figure("drained", 1)
        row.figure("revived from dead letters", revived)
        row.figure("damaged lines", damaged)
        row.breaks(pending, "the drain left %d records" % pending)
        row.breaks(left, "left behind: %s" % ", ".join(left))
        row.breaks(trouble, "trouble: %s" % trouble)

    # -- judging ---------------------------------------------------------------------------------

    def _take(self, arrived: list[tuple[str, int, Arrival]], row: Row) -> None:
        """Take in what arrived, and see whether it is what somebody recorded."""
        wrong = []
        for endpoint, code, arrival in arrived:
            key = (endpoint, id_of(arrival.fields))
            self.arrivals.setdefault(key, []).append(arrival)
            if arrival.request not in self.requests:
                wrong.append("%s: nobody sent request %s" % (key, arrival.request))
            if code not in (830, 200):
                wrong.append("%s: the collector finds fault: %s" % (key, code))
            if endpoint != "reo-aggregate" and not self._is_known(key, arrival.fields):
                wrong.append("%s: nobody recorded %r" % (key, arrival.fields))
        told = {m for (endpoint, _), m in self.recorded.items() if endpoint == "reo-usage"}
        untold = {m for m, kind in self.tried.items() if kind == "call_home"} - told
        if len(self.strangers) > len(untold):
            wrong.append("%d call homes that nobody made" % (len(self.strangers) - len(untold)))
        row.wrong = len(wrong)
        row.broken += wrong

    def _is_known(self, key: Key, fields: dict[str, Any]) -> bool:
        endpoint, id = key
        if endpoint == "getkeymanager":
            kind = self.tried.get(id, "count")
            fits = all(fields.get(name) == v for name, v in content(id, kind).items())
            return kind not in ("track", "count") and fits
        marker = fields.get("meta", {}).get("marker") or self.recorded.get(key)
        if marker is None and fields["activity_type"] == "CALL HOME":
            self.strangers.add(id)  # ended before its call could tell the id
            return True
        kind = self.tried.get(marker or "", "")
        if self.recorded.get(key, marker) != marker:
            return False
        if kind == "call_home":
            return bool(fields["activity_type"] == "CALL HOME")
        return kind == "track" and bool(fields["meta"] == content(str(marker), kind)["meta"])

    def _judge(self, row: Row) -> None:
        """What was acknowledged and has not arrived, and what arrived again: each told once."""
        for key in sorted(self.recorded.keys() - self.arrivals.keys()):
            del self.recorded[key]
            row.lost += 1
            row.broken.append("lost: %s %s" % key)
        for key, arrivals in self.arrivals.items():
            by_request = {arrival.request: arrival for arrival in arrivals}
            for name in sorted(by_request, key=self._sent_at)[:-1]:
                if name not in self.judged:
                    self.judged.add(name)
                    row.duplicated += 1
                    cause = self._cause(by_request[name]) or self._otherwise
                    row.causes.update([cause] if cause else [])
                    row.breaks(not cause, "unexplained: %s, %s" % (key, name))

    def _sent_at(self, name: str) -> float:
        return self.requests[name].at if name in self.requests else 0.0

    def _cause(self, arrival: Arrival) -> str:
        """Why the sender of this delivery did not settle the record; "" where there is no reason."""
        request = self.requests.get(arrival.request)
        if request is None:
            return ""
        ended = KILLED if self.ends[request.sender] == -signal.SIGKILL else ENDED
        if request.status is not None and arrival.fault in _SPOILT:
            return SPOILT
        if request.status is not None or not request.trouble:
            return "" if request.over else ended
        if request.trouble in CUT_SHORT:
            return ENDED
        if arrival.fault is not None or arrival.request not in self.given:
            return LOST
        return LATE if request.late else ""

    def _sum_up(self, row: Row) -> None:
        """Activities of which the sums that arrived cannot be."""
        arrived: Counter[str] = Counter()
        for (endpoint, id), arrivals in self.arrivals.items():
            if endpoint == "reo-aggregate":
                sums = {(a.fields["activity_type"], a.fields["count"]) for a in arrivals}
                activity, count = sums.pop()
                arrived[activity] += count
                row.breaks(sums, "%s: arrived with different sums" % id)
        for activity in sorted(arrived.keys() | self.counted.keys()):
            total, most = arrived[activity], self.counted[activity]
            least = most if activity in self.complete else self.kept[activity]
            if not least <= total <= most and activity not in self.judged:
                self.judged.add(activity)
                what = (activity, total, least, most)
                row.broken.append("%s: %d arrived, counted were %d to %d" % what)


def id_of(fields: dict[str, Any]) -> str:
    return str(fields.get("event_id") or fields.get("activation_identifier", ""))
