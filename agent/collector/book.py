"""Remembers what arrived: every request, and a record for each one that the server took in.

Secrets are masked before anything is kept, so that a listing can be pasted into a ticket. Order is that of arrival;
``received_at`` never decreases against it unless the clock does.
"""

from __future__ import annotations

import copy
import re
import threading
from typing import Any, Callable, Dict, List, Mapping, Optional

from .answers import Received

_SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization", "x-api-key")
_SECRET_FIELDS = (
    re.compile(r"((?:^|[?&])api_key=)[^&\s]+"),
    re.compile(r'(name="?api_key"?[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n)[^\r\n]+'),
)


class Book:
    """Two lists behind one lock; ``now`` gives Unix seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._records: List[Dict[str, Any]] = []
        self._requests: List[Dict[str, Any]] = []

    def note_request(
        self,
        *,
        method: str,
        endpoint: Optional[str],
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        fault: Optional[str],
    ) -> None:
        """Keep one request as it was seen; ``headers`` have lower-case names."""
        masked = {
            name: "****" if name in _SECRET_HEADERS else value for name, value in headers.items()
        }
        entry = {
            "method": method,
            "endpoint": endpoint,
            "path": _mask(path),
            "headers": masked,
            "body": _mask(body.decode("utf-8", "replace")),
            "fault": fault,
        }
        with self._lock:
            self._requests.append({**entry, "received_at": self._now()})

    def note_record(self, endpoint: str, received: Received, fault: Optional[str]) -> None:
        """Keep one record; ``answer`` is the honest code, whatever a fault makes of it on the wire."""
        with self._lock:
            record = {
                "endpoint": endpoint,
                "received_at": self._now(),
                "fields": received.fields,
                "flags": received.flags,
                "answer": received.code,
            }
            self._records.append({**record, "fault": fault} if fault else record)

    def records(self) -> List[Dict[str, Any]]:
        """A copy of the records."""
        with self._lock:
            return copy.deepcopy(self._records)

    def requests(self) -> List[Dict[str, Any]]:
        """A copy of the requests."""
        with self._lock:
            return copy.deepcopy(self._requests)

    def forget(self, *, records: bool = False, requests: bool = False) -> None:
        """Empty one list or both."""
        with self._lock:
            if records:
                self._records.clear()
            if requests:
                self._requests.clear()


def _mask(text: str) -> str:
    for pattern in _SECRET_FIELDS:
        text = pattern.sub(r"\1****", text)
    return text
