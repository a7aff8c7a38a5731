"""The two values that travel inside the collector: what a protocol made of a request, and bytes to send.

``Received`` is a protocol's honest judgement, before any fault bends the answer; ``Answer`` is HTTP, ready for the
socket. Neither knows how it is signed or sent.
"""

from __future__ import annotations

import email.utils
from http.client import responses
from typing import Any, Dict, NamedTuple, Tuple

from .signing import compact


class Received(NamedTuple):
    """A judged request: what to remember of it and what to say."""

    fields: Dict[str, Any]
    flags: Dict[str, bool]
    code: int  # "answer" of the stored record
    status: int  # of HTTP
    body: Dict[str, Any]
    signed: bool = False  # the body goes into a signed envelope


class Answer(NamedTuple):
    """One HTTP answer; ``headers`` without Content-Length and Date."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Tuple[Tuple[str, str], ...] = ()

    def head(self, *, now: float, length_bytes: int, close: bool) -> bytes:
        """Status line and headers, announcing ``length_bytes`` of body."""
        lines = ["HTTP/1.1 %d %s" % (self.status, responses.get(self.status, ""))]
        fields = (
            ("Date", email.utils.formatdate(now, usegmt=True)),
            ("Content-Type", self.content_type),
            ("Content-Length", str(length_bytes)),
        )
        lines += ["%s: %s" % field for field in fields + self.headers]
        lines += ["Connection: close"] if close else []
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def json_answer(status: int, body: Any, *headers: Tuple[str, str]) -> Answer:
    """An answer with ``body`` as compact JSON."""
    return Answer(status, compact(body), headers=headers)
