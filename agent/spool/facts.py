"""Shared facts: what all processes must know about an endpoint, so that a restart loop is no request loop.

One ``Lane`` per endpoint configuration, appended as whole lines, the last one wins; rewritten only under the
deliverer's lock, unknown kinds kept. A lane is found by a keyed hash of the endpoint's configuration: a new key
or address starts afresh and voids an old pause. And the last answers received, which nobody needs for delivery.
"""

from __future__ import annotations

import os

from .. import files, jsonline
from . import names
from .lines import Tail, append, decoded, edit, is_foreign, rewrite

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Collection, Optional

    from ..clock import Clock

COMPACT_BYTES = 32 << 10
# Lanes of configurations long gone are dropped.
LANES = 64
# About 300 answers; halved when full.
HISTORY_BYTES = 64 << 10
# "Full jitter" between the base and an exponentially growing bound (AWS Architecture Blog, 2015).
BACKOFF_BASE_S, BACKOFF_MAX_S = 30.0, 6 * 3600.0
HELD_BASE_S, HELD_MAX_S = 3600.0, 24 * 3600.0
BACKOFF, PAUSE, HELD = "backoff", "pause", "held"
# As far from the local clock as an answer may be that becomes a floor.
FLOOR_AHEAD_S = 24 * 3600.0


class Lane:
    """The state of one endpoint, as kept on disk."""

    failures = 0  # in a row
    wait = ""  # "", BACKOFF (ours), PAUSE (asked for by the server), HELD (refused)
    set_at = 0.0  # Unix seconds
    delay_s = 0.0
    reason = ""
    proven = False  # the last answer was
    proofs = 0  # answers that settled a record, ever
    doubtful = False  # a floor was so far ahead that our clock, or the floor, is wrong
    floor: Optional[int] = None  # newest timestamp accepted in agreement with our clock
    holds = 0  # refusals in a row
    broken_off = 0  # requests in a row that the end of their process broke off
    expired_at: Optional[float] = None  # when over-aged records were first seen
    expired_run = ""

    def __init__(self, tag: str) -> None:
        self.tag = tag

    def remaining_s(self, now: float) -> float:
        """Seconds still to wait, at most a day. A wait set in the future of ``now`` is void: the clock was wrong."""
        if not self.wait or now < self.set_at:
            return 0.0
        return max(0.0, self.set_at + min(self.delay_s, HELD_MAX_S) - now)

    def back_off(self, now: float, chance: float, reason: str) -> None:
        """Wait longer after each failure; ``chance`` in [0, 1) is the jitter."""
        self.failures += 1
        bound_s = min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2.0 ** min(self.failures, 20))
        delay_s = BACKOFF_BASE_S + chance * (bound_s - BACKOFF_BASE_S)
        self._wait(BACKOFF, now, delay_s, reason)

    def forgive(self) -> None:
        """What the failures came of is over: try again at once."""
        self.failures, self.wait, self.reason = 0, "", ""

    def hold(self, now: float, reason: str) -> None:
        """The server proved that it refuses us: 1 h, doubled each time, at most 24 h."""
        delay_s = min(HELD_MAX_S, HELD_BASE_S * 2.0 ** min(self.holds, 10))
        self.holds += 1
        self._wait(HELD, now, delay_s, reason)

    def pause(self, now: float, delay_s: float, reason: str) -> None:
        """The server asked for it."""
        self._wait(PAUSE, now, delay_s, reason)

    def _wait(self, wait: str, now: float, delay_s: float, reason: str) -> None:
        self.wait, self.set_at, self.delay_s, self.reason = wait, now, delay_s, reason
        self.proven = False

    def prove(self) -> None:
        """A record was settled: nothing stands between us and the next one."""
        self.failures = self.holds = self.broken_off = 0
        self.wait, self.reason = "", ""
        self.proven = True
        self.proofs += 1

    def to_json(self) -> dict[str, Any]:
        """The line's value."""
        return {"v": 1, "k": "lane", "tag": self.tag, **{n: getattr(self, n) for n in _FIELDS}}

    def take(self, value: dict[str, Any], now: Optional[float] = None) -> None:
        """Adopt a line's value, field by field where type and bounds fit; ``now`` is the local clock.

        A floor was accepted in agreement with the clock of its time, so one that lies more than a day ahead of
        ``now`` is of a clock that was wrong, or planted, or this clock went back: believed, it would refuse every
        answer until its day. Until an answer ticks nothing is believed only because it agrees with our clock.
        """
        for name, (fitting, least, most) in _FIELDS.items():
            given = value.get(name)
            if name not in value or type(given) not in fitting:
                continue
            measured = len(given) if isinstance(given, str) else given
            if measured is not None and not least <= measured <= most:
                continue
            if name == "wait" and given not in ("", BACKOFF, PAUSE, HELD):
                continue
            if name == "floor" and given is not None and now is not None:
                if given > now + FLOOR_AHEAD_S:
                    self.doubtful = True
                    continue
            setattr(self, name, given)


_NUMBER = (int, float)
_TIME = -1e12, 1e12  # as in records: beyond it no arithmetic with times is safe
# Name, types, least and most (of a text: its length).
_FIELDS: dict[str, tuple[Any, float, float]] = {
    "failures": ((int,), 0, 1e9),
    "wait": ((str,), 0, 16),
    "set_at": (_NUMBER, *_TIME),
    "delay_s": (_NUMBER, 0, 1e12),
    "reason": ((str,), 0, 4096),
    "proven": ((bool,), 0, 1),
    "proofs": ((int,), 0, 1e15),
    "doubtful": ((bool,), 0, 1),
    "floor": ((int, type(None)), *_TIME),
    "holds": ((int,), 0, 1e9),
    "broken_off": ((int,), 0, 1e9),
    "expired_at": ((*_NUMBER, type(None)), *_TIME),
    "expired_run": ((str,), 0, 64),
}


class Facts:
    """The ``facts`` file of a state directory, or only memory where ``directory`` is None."""

    def __init__(self, directory: Optional[str], clock: Optional[Clock] = None) -> None:
        self._directory, self._clock = directory, clock
        self._tail = Tail(os.path.join(directory or "", names.FACTS))
        self._lanes: dict[str, Lane] = {}
        self._noted: dict[str, dict[str, Any]] = {}
        self._origin = ""  # the first one counts
        self._versions: dict[str, int] = {}  # of keyring documents, the highest seen
        self.trouble = ""

    def refresh(self) -> None:
        """Read what other processes noted."""
        if self._directory is None:
            return
        now = self._clock.time() if self._clock is not None else None
        try:
            for _, value in decoded(self._tail.lines()):
                if _is_lane(value):
                    lane = self.lane(value["tag"])
                    lane.take(value, now)
                    self._note(lane)
                elif _is_origin(value) and not self._origin:
                    self._origin = value["id"]
                elif _is_version(value):
                    tag, version = value["tag"], value["version"]
                    self._versions[tag] = max(version, self._versions.get(tag, 0))
            if all(self._noted.get(t) == lane.to_json() for t, lane in self._lanes.items()):
                self.trouble = ""
        except OSError as error:
            self.trouble = str(error)

    def lane(self, tag: str) -> Lane:
        """The lane of an endpoint; always the same object."""
        return self._lanes.setdefault(tag, Lane(tag))

    def _note(self, lane: Lane) -> None:
        self._noted.pop(lane.tag, None)  # the newest last
        self._noted[lane.tag] = lane.to_json()

    def save(self, lane: Lane) -> None:
        """Note a lane for everybody; where the disk refuses it is remembered here."""
        value = lane.to_json()
        if self._directory is None or self._noted.get(lane.tag) == value:
            return
        try:
            append(self._tail.path, value)
            self._note(lane)
            self.trouble = ""
        except OSError as error:
            self.trouble = str(error)

    def origin(self, *, create: bool = False) -> str:
        """What exports of this directory carry: a random id, drawn when one is first needed; "" without any."""
        self.refresh()
        if create and not self._origin and self._directory is not None:
            drawn = os.urandom(8).hex()
            try:
                append(self._tail.path, {"v": 1, "k": "origin", "id": drawn})
            except OSError as error:
                self.trouble = str(error)
            self.refresh()
        return self._origin

    def keyring_version(self, tag: str) -> int:
        """The highest version of a keyring document that any process saw, 0 for none."""
        return self._versions.get(tag, 0)

    def save_keyring_version(self, tag: str, version: int) -> None:
        """Note a version for everybody; where the disk refuses it is remembered here."""
        self._versions[tag] = version
        try:
            if self._directory is not None:
                value = {"v": 1, "k": "keyring", "tag": tag, "version": version}
                append(self._tail.path, value)
        except OSError as error:
            self.trouble = str(error)

    def forget_reasons(self, licence_lanes: Collection[str]) -> None:
        """Blank the reasons of all other lanes: they may repeat what was recorded. Raises ``OSError``."""
        for lane in list(self._lanes.values()):
            if lane.tag not in licence_lanes:
                lane.reason = self._noted.get(lane.tag, {})["reason"] = ""

        def blank(value: Any) -> Any:
            told = _is_lane(value) and value["tag"] not in licence_lanes and value.get("reason")
            return {**value, "reason": ""} if told else value

        if self._directory is not None:
            edit(self._tail.path, blank)

    def compact(self) -> None:
        """Keep the last line of each lane and every line of an unknown kind."""
        if self._directory is None or self._tail.offset < COMPACT_BYTES:
            return
        if is_foreign(self._tail.path):
            return
        try:
            newest = list(self._noted.values())[-LANES:]
            rewrite(self._tail.path, _is_lane, newest)
        except OSError as error:
            self.trouble = str(error)


def _is_lane(value: Any) -> bool:
    mine = isinstance(value, dict) and value.get("k") == "lane" and value.get("v") == 1
    return mine and isinstance(value.get("tag"), str)


def _is_origin(value: Any) -> bool:
    mine = isinstance(value, dict) and value.get("k") == "origin" and value.get("v") == 1
    return mine and isinstance(value.get("id"), str) and names.is_hex(value["id"], 16)


def _is_version(value: Any) -> bool:
    mine = isinstance(value, dict) and value.get("k") == "keyring" and value.get("v") == 1
    version = value.get("version") if mine else None
    return type(version) is int and 0 < version <= 1 << 53 and isinstance(value.get("tag"), str)


def _is_licence(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.get("kind") == "licence"


class History:
    """The ``history`` file, or a list in memory where ``directory`` is None."""

    def __init__(self, directory: Optional[str], max_bytes: int = HISTORY_BYTES) -> None:
        self._path = os.path.join(directory, names.HISTORY) if directory is not None else None
        self._max_bytes = max_bytes
        self._memory: list[dict[str, Any]] = []

    def add(self, *answers: dict[str, Any]) -> None:
        """Append answers; where the disk refuses, or the file is somebody else's, they stay in memory."""
        try:
            if self._path is None:
                raise FileNotFoundError
            size = append(self._path, *answers)
            if size > self._max_bytes:
                whole = size <= 2 * HISTORY_BYTES  # longer is none of ours, and not read to its end
                known = [line for line, value in decoded(self._lines()) if value is not None]
                kept = known[len(known) // 2 :] if whole else [jsonline.encode(answers[-1])[:-1]]
                files.replace(self._path, b"".join(line + b"\n" for line in kept))
        except (OSError, ValueError):
            self._memory = [*self._memory, *answers][-100:]

    def forget_usage(self) -> None:
        """Keep the answers about licence records alone: the others may repeat what was recorded."""
        self._memory = list(filter(_is_licence, self._memory))
        if self._path is None:
            return
        try:
            edit(self._path, lambda answer: answer if _is_licence(answer) else None)
        except (OSError, ValueError):
            files.remove(self._path)  # no room to rewrite it

    def _lines(self) -> list[bytes]:
        assert self._path is not None
        return files.read(self._path, 2 * HISTORY_BYTES).split(b"\n")

    def last(self, limit: int) -> list[dict[str, Any]]:
        """At most ``limit`` answers, oldest first."""
        answers: list[dict[str, Any]] = []
        try:
            found = self._lines() if self._path is not None else []
            answers = [value for _, value in decoded(found) if isinstance(value, dict)]
        except OSError:
            pass
        return (answers or self._memory)[-limit:] if limit > 0 else []
