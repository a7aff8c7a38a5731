"""Which misbehaviour is switched on, for which endpoint, and for how many more requests.

Only names and counts live here, behind one lock; how a fault looks on the wire is ``bending``'s and ``handler``'s.
Two kinds: those in ``ACCEPTING`` strike after the request was taken in and recorded; with all others the real server
never saw the request, so nothing is recorded.
"""

from __future__ import annotations

import threading
from typing import Dict, List, Optional, Tuple, Union

from ..errors import ConfigError

ENDPOINTS = ("getkeymanager", "reo-usage", "reo-aggregate")
FAULTS = (
    "refuse",
    "blackhole",
    "drip-headers",
    "drip-body",
    "500",
    "429",
    "429-retry-after",
    "401-100",
    "401-101",
    "401-102",
    "401-103",
    "403-150",
    "unsigned",
    "wrong-key",
    "stale",
    "replay",
    "forged-outer",
    "unknown-code",
    "redirect",
    "portal",
    "huge",
    "truncated",
    "not-json",
    "drop-answer",
    "unsigned-400",
    "unsigned-401",
)
ACCEPTING = frozenset(
    (
        "drip-headers",
        "drip-body",
        "unsigned",
        "wrong-key",
        "stale",
        "replay",
        "forged-outer",
        "unknown-code",
        "huge",
        "truncated",
        "not-json",
        "drop-answer",
    )
)

DAY_S = 86_400
# A replayed answer lies outside the day that clients grant a wrong clock: refused with and without a history.
_AGES_S = {"stale": 30 * DAY_S, "replay": 2 * DAY_S}


class Fault:
    """One switched-on fault; ``over`` is set once it is cleared or replaced, for those it keeps waiting."""

    def __init__(
        self,
        name: str,
        endpoint: Optional[str] = None,
        count: Optional[int] = None,
        *,
        retry_after: Union[int, str] = 20,
        status: int = 307,
        redirect_to: Optional[str] = None,
        age_s: Optional[int] = None,
    ) -> None:
        """``retry_after``: seconds or an HTTP date. ``status``, ``redirect_to`` (a URL): of "redirect".

        ``age_s``: how old the timestamp of "stale" and "replay" is. ``ConfigError`` names what cannot be.
        """
        _allow("fault", name, FAULTS)
        if endpoint is not None:
            _allow("endpoint", endpoint, ENDPOINTS)
        if count is not None and (not _is_integer(count) or count < 1):
            raise ConfigError("count must be an integer above 0, not %r" % (count,), "count")
        if not _is_integer(status) or not 300 <= status <= 399:
            raise ConfigError("status must be within 300 to 399, not %r" % (status,), "status")
        if not isinstance(retry_after, str) and not _is_integer(retry_after):
            raise ConfigError("retry_after must be seconds or a date", "retry_after")
        if age_s is not None and not _is_integer(age_s):
            raise ConfigError("age_s must be whole seconds, not %r" % (age_s,), "age_s")
        if redirect_to is not None and not isinstance(redirect_to, str):
            raise ConfigError("redirect_to must be a URL, not %r" % (redirect_to,), "redirect_to")
        self.name, self.endpoint, self.remaining = name, endpoint, count
        self.retry_after, self.status, self.redirect_to = retry_after, status, redirect_to
        self.age_s = _AGES_S.get(name, 0) if age_s is None else age_s
        self.over = threading.Event()

    @property
    def accepting(self) -> bool:
        """Whether the request counts as received, and only its answer is spoiled."""
        return self.name in ACCEPTING


class Faults:
    """What is switched on: at most one fault for each endpoint and one for all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: Dict[Optional[str], Fault] = {}
        # Those used up by their count included: they may still hold a client.
        self._issued: List[Fault] = []

    def arm(self, fault: Fault) -> None:
        """Switch on, in place of an earlier one for the same endpoint (or for all)."""
        with self._lock:
            self._end(fault.endpoint)
            self._armed[fault.endpoint] = fault
            self._issued.append(fault)

    def clear(self, endpoint: Optional[str] = None) -> None:
        """Switch off: that endpoint's fault, or with None every fault."""
        if endpoint is not None:
            _allow("endpoint", endpoint, ENDPOINTS)
        with self._lock:
            for name in (endpoint,) if endpoint else tuple({f.endpoint for f in self._issued}):
                self._end(name)

    def take(self, endpoint: str) -> Optional[Fault]:
        """The fault for one request to ``endpoint``, counted; its own comes before one for all."""
        with self._lock:
            fault = self._armed.get(endpoint) or self._armed.get(None)
            if fault is not None and fault.remaining is not None:
                fault.remaining -= 1
                if not fault.remaining:
                    del self._armed[fault.endpoint]
            return fault

    def _end(self, endpoint: Optional[str]) -> None:
        self._armed.pop(endpoint, None)
        for fault in self._issued:
            if fault.endpoint == endpoint:
                fault.over.set()
        self._issued = [fault for fault in self._issued if not fault.over.is_set()]


def _allow(field: str, value: object, allowed: Tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError("unknown %s %r; known: %s" % (field, value, ", ".join(allowed)), field)


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
