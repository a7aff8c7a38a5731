"""What goes into a transport and what comes out of it.

Requests carry keys and records: no ``repr`` here shows a header, a body or a query. The rules that every transport
must keep are written at ``Transport``, for those who pass their own.
"""

from __future__ import annotations

from ..errors import AgentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Transport(Protocol):
        """What ``Agent(transport=...)`` takes. Used by one thread at a time, but for ``interrupt`` and ``close``.

        A forked child goes on with the same object, and must not with the parent's connections: it would read the
        answers to the parent's requests.
        """

        def send(self, request: Request, *, timeout_s: float) -> Response:
            """The answer, within ``timeout_s`` seconds; raises ``Unreachable`` and nothing else."""

        def rest(self) -> None:
            """Close idle sockets; the next send opens new ones."""

        def close(self) -> None:
            """Break off what runs, close everything; later sends raise ``Unreachable``."""

        def interrupt(self) -> None:
            """Break off the request in flight, from another thread; nothing where none is."""


MAX_ANSWER_BYTES = 65_536  # an answer is under 2 KB; a portal's page may be of any size


class Request:
    """``method`` and absolute ``url``, header names and values as text, the whole ``body`` as bytes."""

    __slots__ = ("body", "headers", "method", "url")

    def __init__(self, method: str, url: str, headers: dict[str, str], body: bytes) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body


class Response:
    """``status``, ``headers`` with lower-case names, ``body`` as it came over the wire, never decoded.

    ``complete`` is False where the body broke off or is longer than MAX_ANSWER_BYTES; ``body`` is what came first.
    """

    __slots__ = ("body", "complete", "headers", "status")

    def __init__(
        self, status: int, headers: dict[str, str], body: bytes, complete: bool = True
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.complete = complete


class Certificate:
    """One certificate as a peer sent it; where the handshake failed, anybody may have written this.

    ``subject`` and ``issuer`` are one printable line each, ``begins_at`` and ``ends_at`` Unix seconds, ``pin`` is
    "sha256/" and the base64 of the digest of its public key (RFC 7469, 2.4).
    """

    __slots__ = ("begins_at", "ends_at", "issuer", "pin", "subject")

    def __init__(
        self, subject: str, issuer: str, begins_at: float, ends_at: float, pin: str
    ) -> None:
        self.subject = subject
        self.issuer = issuer
        self.begins_at = begins_at
        self.ends_at = ends_at
        self.pin = pin


class Seen:
    """What the last new connection came by, as far as it came: for people, never for a decision.

    ``proxy`` is its address without user name, "" for none; ``proxy_from`` says where that is written, or why there
    is none. ``addresses`` are what the name gave, ``peer`` the one that answered. ``store`` says whose authorities
    were trusted, ``chain`` is as the peer sent it, its own certificate first. ``took_s``: stage -> seconds.
    """

    __slots__ = (
        "addresses",
        "chain",
        "cipher",
        "peer",
        "proxy",
        "proxy_from",
        "store",
        "tls",
        "took_s",
    )

    def __init__(self) -> None:
        self.proxy = self.proxy_from = self.peer = self.tls = self.cipher = self.store = ""
        self.addresses: list[str] = []
        self.chain: list[Certificate] = []
        self.took_s: dict[str, float] = {}


class Unreachable(AgentError):
    """No answer came. ``reason`` says why in words without secrets; ``stage`` is where it ended:

    "name resolution", "connection", "proxy", "TLS", "answer", or "" (interrupted, closed).
    """

    def __init__(self, reason: str, stage: str = "") -> None:
        super().__init__(reason, stage)
        self.reason = reason
        self.stage = stage
