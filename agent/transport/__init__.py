"""One HTTP request, one answer, inside one wall-clock deadline.

``HttpTransport.send`` gives a ``Response`` or raises ``Unreachable``, never anything else, and never lets a server
decide how long it takes or how much memory it costs. Nothing is followed, resent or judged here: what an answer
means is for the floors above. Loading this package loads no HTTP, no TLS and no socket; the first send does.
"""

from __future__ import annotations

from .http import HttpTransport
from .values import MAX_ANSWER_BYTES, Request, Response, Unreachable

__all__ = ["MAX_ANSWER_BYTES", "HttpTransport", "Request", "Response", "Unreachable"]
