"""What the logs of the kill campaign prove: what was recorded, what arrived, and why anything arrived twice."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from .kill_child import content

LOST, SPOILT, LATE = "answer lost", "answer unusable", "answer late"
KILLED, ENDED = "sender killed", "sender ended"
UNEXPLAINED = "unexplained"
# Answers that no client can use; of these the collector took the record in.
_SPOILT = ("truncated", "not-json", "drip-body", "drip-headers")

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


class Found:
    """One round: what is new of an account, and what was wrong in it."""

    def __init__(self) -> None:
        self.recorded = self.killed = self.collectors = 0
        self.delivered = self.unacknowledged = self.lost = self.wrong = 0
        self.revived = self.damaged = 0
        self.arrived: list[tuple[str, int, Arrival]] = []
        self.raised: list[str] = []
        self.failed: list[str] = []
        self.drained: Optional[list[Any]] = None
        self.causes: Counter[str] = Counter()


class Account:
    """What all processes on one state directory wrote into their logs, over all of its rounds."""

    def __init__(self) -> None:
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

    def read(self, logs: Path, statuses: list[list[int]]) -> Found:
        """Take in a round's logs: what is new, and what was wrong in them."""
        found, by_pid = Found(), {pid: status for pid, status in statuses}
        for path in sorted(logs.iterdir()):
            number = len(self.ends)
            self.ends[number] = by_pid.get(int(path.name.partition("-")[0]), 0)
            lines = path.read_bytes().split(b"\n")
            self._read_one(number, [json.loads(line) for line in lines if line], found)
        kills = sum(1 for _, status in statuses if status == -signal.SIGKILL)
        found.killed = kills - found.collectors
        for pid, status in statuses:
            if status not in (0, -signal.SIGKILL):
                found.failed.append("process %d ended with status %d" % (pid, status))
        return found

    def _read_one(self, number: int, entries: list[list[Any]], found: Found) -> None:
        activities: set[str] = set()
        for what, *more in entries:
            if what == "process":
                found.collectors += more[1] == "collect"
            elif what == "try":
                self.tried[more[0]] = more[1]
            elif what == "recorded":
                found.recorded += self._note_recorded(*more)
            elif what == "counting":
                activities.add(more[0])
                self.counted[more[0]] += more[1]
            elif what == "kept":
                self.kept[more[0]] = self.counted[more[0]]
            elif what == "complete":
                self.complete |= activities if self.ends[number] == 0 else set()
            elif what in ("raised", "refused"):
                found.raised.append("%s %s" % (what, more))
            elif what == "drained":
                found.drained = more
            elif what == "accepted":
                found.arrived.append((more[1], more[3], Arrival(more[0], more[2], more[4])))
            else:
                self._read_exchange(number, what, *more)

    def _read_exchange(self, number: int, what: str, name: str, *more: Any) -> None:
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

    # -- judging ---------------------------------------------------------------------------------

    def add(self, arrived: list[tuple[str, int, Arrival]]) -> list[str]:
        """Take in what arrived; what of it is not what anybody recorded, in words."""
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
        return wrong

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

    def lost(self) -> list[Key]:
        """What was acknowledged and has not arrived."""
        return sorted(self.recorded.keys() - self.arrivals.keys())

    def miscounted(self) -> list[str]:
        """Activities of which the sums that arrived cannot be."""
        arrived: Counter[str] = Counter()
        wrong = []
        for (endpoint, id), arrivals in self.arrivals.items():
            if endpoint == "reo-aggregate":
                sums = {(a.fields["activity_type"], a.fields["count"]) for a in arrivals}
                activity, count = sums.pop()
                arrived[activity] += count
                if sums:
                    wrong.append("%s: arrived with different sums" % id)
        for activity in sorted(arrived.keys() | self.counted.keys()):
            total, most = arrived[activity], self.counted[activity]
            least = most if activity in self.complete else self.kept[activity]
            if not least <= total <= most and activity not in self.judged:
                self.judged.add(activity)
                what = (activity, total, least, most)
                wrong.append("%s: %d arrived, counted were %d to %d" % what)
        return wrong

    def duplicates(self) -> Iterator[tuple[Key, str, str]]:
        """(key, request, cause) of each delivery that had to be repeated, once."""
        for key, arrivals in self.arrivals.items():
            numbers = sorted({a.request: a for a in arrivals}.items(), key=self._sent_at)
            for number, arrival in numbers[:-1]:
                if number not in self.judged:
                    self.judged.add(number)
                    yield key, number, self._cause(arrival)

    def _sent_at(self, numbered: tuple[str, Arrival]) -> float:
        request = self.requests.get(numbered[0])
        return request.at if request is not None else 0.0

    def _cause(self, arrival: Arrival) -> str:
        """Why the sender of this delivery did not settle the record."""
        request = self.requests.get(arrival.request)
        if request is None:
            return UNEXPLAINED
        ended = KILLED if self.ends[request.sender] == -signal.SIGKILL else ENDED
        if request.status is not None:  # there was an answer
            if arrival.fault in _SPOILT:
                return SPOILT
            return UNEXPLAINED if request.over else ended
        if not request.trouble:
            return UNEXPLAINED if request.over else ended
        if request.trouble in CUT_SHORT:
            return ENDED
        if arrival.fault is not None or arrival.request not in self.given:
            return LOST
        return LATE if request.late else UNEXPLAINED


# What the transport says of a request that its own process broke off.
CUT_SHORT = ("interrupted", "the transport is closed")


def id_of(fields: dict[str, Any]) -> str:
    return str(fields.get("event_id") or fields.get("activation_identifier", ""))
