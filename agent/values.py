"""What the floors hand to each other: requests and answers, verdicts and outcomes, what a transport must keep; and
by which proxy a request goes.

No ``repr`` here shows a header, a body or a query. Who passes a transport of their own: see ``Transport``.
"""

from __future__ import annotations

import _thread  # its functions are looked up when they are used: gevent and eventlet replace them
import os

from . import TYPE_CHECKING, __version__
from .errors import AgentError

if TYPE_CHECKING:
    from typing import Any, Callable, Mapping, Protocol

    from .clock import Clock
    from .config import Config
    from .spool.record import Record
    from .spool.store import Spool
    from .verdicts import Adapter

    class Transport(Protocol):
        """What ``Agent(transport=...)`` takes. Used by one thread at a time, but for ``interrupt`` and ``close``.

        A forked child goes on with the same object, and must not use the parent's connections.
        """

        def send(self, request: Request, *, timeout_s: float) -> Response:
            """The answer, within ``timeout_s`` seconds; raises ``Unreachable`` and nothing else.

            One that asks ``request.may_send()`` on the connected socket, before the first byte, and raises
            ``Withheld`` at a no, lets a refusal of consent stop a request that is still connecting.
            """

        def rest(self) -> None:
            """Close idle sockets; the next send opens new ones."""

        def close(self) -> None:
            """Break off what runs, close everything; later sends raise ``Unreachable``."""

        def interrupt(self) -> None:
            """Break off the request in flight, from another thread; nothing where none is."""


MAX_ANSWER_BYTES = 65_536  # an answer is under 2 KB; a portal's page may be of any size


# Where a request of ours runs: what an instrumented host records there of it is no event.
inside: set[tuple[int, int]] = set()


def here() -> tuple[int, int]:
    """This process, for a forked child has no other's threads; and this thread, or the greenlet in its place."""
    return os.getpid(), _thread.get_ident()


class Request:
    """``method`` and absolute ``url``, header names and values as text, the whole ``body`` as bytes."""

    def __init__(self, method: str, url: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.url, self.headers, self.body = method, url, headers, body
        self.may_send: Callable[[], bool] = lambda: True


def post(url: str, content_type: str, text: str, **headers: str) -> Request:
    """A POST of ASCII ``text`` that asks for JSON."""
    common = {"Accept": "application/json", "Content-Type": content_type}
    common["User-Agent"] = "callhome-agent/" + __version__
    return Request("POST", url, {**common, **headers}, text.encode("ascii"))


class Response:
    """``status``, ``headers`` with lower-case names, ``body`` without content coding, at most MAX_ANSWER_BYTES.

    ``complete`` is False where the body broke off or is longer than that; ``body`` is what came first.
    """

    def __init__(self, status: int, headers: dict[str, str], body: bytes, complete: bool = True):
        self.status, self.headers, self.body, self.complete = status, headers, body, complete


def unpacked(body: bytes, coding: str) -> tuple[bytes, bool]:
    """``body`` without gzip and deflate, which come unasked, at most MAX_ANSWER_BYTES; whether it is whole.

    As it is where it is not packed, whatever the header says: some take off the one and leave the other.
    """
    known = coding.strip().lower() in ("gzip", "x-gzip", "deflate")
    for bits in (47, -15) if known else ():  # with the head of gzip or zlib, or without any
        import zlib

        unpack = zlib.decompressobj(bits)
        try:
            found = unpack.decompress(body, MAX_ANSWER_BYTES)
        except zlib.error:
            continue
        # Plain text, too, may begin like a deflated one.
        if not unpack.unused_data:
            return found, unpack.eof
    return body[:MAX_ANSWER_BYTES], len(body) <= MAX_ANSWER_BYTES


class Unreachable(AgentError):
    """No answer came. ``reason`` says why in words without secrets; ``stage`` is where it ended:

    "name resolution", "connection", "proxy", "TLS", "answer", or "" (interrupted, closed).
    """

    def __init__(self, reason: str, stage: str = "") -> None:
        super().__init__(reason, stage)
        self.reason = "%s: %s" % (stage, reason) if stage else reason
        self.stage = stage


class Withheld(Unreachable):
    """``request.may_send()`` said no: nothing was sent, and nothing is wrong with the endpoint."""


def find_proxy(url: str, given: Any) -> tuple[str, str, str]:
    """Address ("" for none), user name with password, and where that is written. May look names up, on Windows.

    ``given`` has a ``proxy``, a ``proxy_auth``, an ``environ``.
    The given one wins. Else by the rules of ``urllib.request``: the environment's or, where that names none, the
    system's; ``all_proxy`` is for what no other names. What goes in clear text is for this machine, and asks none.
    """
    from urllib import request
    from urllib.parse import unquote, urlsplit

    rules: Any = request
    found, source, at, environ = given.proxy, "the setting proxy", urlsplit(url), given.environ
    if found is None and at.scheme == "https":
        source = "the environment or the system"
        names = [name for name in sorted(environ) if name[-6:].lower() == "_proxy"]
        proxies = {name[:-6].lower(): environ[name] for name in names}  # lower case comes last
        if not names and environ is os.environ:
            proxies = rules.getproxies()
        found = proxies.get("https") or proxies.get("all")
        place = at.netloc if at.port else at.netloc + ":443"
        by_environment = rules.proxy_bypass_environment(place, proxies)
        if found and (by_environment if names else rules.proxy_bypass(place)):
            found = ""
    if found in (None, "", "direct"):
        return "", "", ""
    try:  # brackets without an end raise, and a port that is none
        at = urlsplit(found if "://" in found else "http://" + found)
        fits = at.hostname and at.port != 0 and at.scheme[:5] in ("http", "https", "socks")
    except ValueError:
        fits = False
    # Behind the host it is that of a password with a bare "/", "?" or "#": the start would pass for a host.
    if not fits or "@" in at.path + at.query + at.fragment:
        raise Unreachable(source + " names no proxy")
    who, _, place = at.netloc.rpartition("@")
    # Desktops write "socks" and mean that the proxy looks names up.
    scheme = "socks5h" if at.scheme == "socks" else at.scheme
    return "%s://%s" % (scheme, place), unquote(who) or given.proxy_auth or "", source


class _Facts:
    """Facts by name, printed with them."""

    def __init__(self, **facts: Any) -> None:
        vars(self).update(facts)

    def to_json(self) -> dict[str, Any]:
        """The facts by name."""
        return dict(vars(self))

    def __repr__(self) -> str:
        facts = ", ".join("%s=%r" % item for item in vars(self).items())
        return "%s(%s)" % (type(self).__name__, facts)


class Verdict(_Facts):
    """What one answer means: ``outcome`` is one of the closed set in ``verdicts``.

    ``reason`` is short text without secrets; ``code`` and ``timestamp`` (Unix seconds) are the receipt's, of which
    only that of "skewed" is not fresh; ``errors`` are field -> messages, bounded; ``retry_after_s`` comes with
    "throttled"; ``status`` is HTTP's, 0 where no answer came.
    """

    outcome: str
    reason = ""
    code: int | None = None
    errors: dict[str, list[str]] | None = None
    retry_after_s = 0.0
    timestamp: int | None = None
    status = 0

    def __init__(self, outcome: str, **facts: Any) -> None:
        vars(self).update(facts, outcome=outcome)


class Outcome(_Facts):
    """How one record ended. ``verdict`` is ``delivered``, ``flagged`` or ``rejected``.

    ``flagged`` (the server saved it with red flags) is a hint, never a reason to lock a product.
    ``errors`` maps field names to messages; ``recorded_at`` is in Unix seconds; ``had_license_key`` says
    whether the record carried one, ``from_earlier_run`` whether another run recorded it.
    """

    event_id: str
    endpoint: str
    verdict: str
    reason: str
    errors: dict[str, list[str]]
    recorded_at: float
    had_license_key: bool
    from_earlier_run: bool


class DeliveryReport(_Facts):
    """What a flush came to.

    ``delivered``, ``flagged`` and ``untrusted`` (answers that proved nothing) count since the call began;
    ``pending`` waits on disk or in memory now, ``held`` of it because the server refuses us; ``dead``
    letters lie on disk. ``drained``: nothing that this configuration could send waits any more.
    """

    delivered: int
    flagged: int
    pending: int
    held: int
    dead: int
    untrusted: int
    drained: bool


class Capture:
    """What is known at the moment of recording; taken once, never changed. ``at`` is Unix seconds."""

    def __init__(self, event_id: str, at: float, user: str, key: str = "", activation: str = ""):
        self.event_id, self.at, self.user_identifier = event_id, at, user
        self.license_key, self.activation_identifier = key, activation


class Core(_Facts):
    """What the parts of one agent share."""

    config: Config
    clock: Clock
    environ: Mapping[str, str]
    spool: Spool
    report: Callable[[int, str], Record | None]  # what tells the licence server of drops
    adapters: list[Adapter]
    gate: Callable[[Record], bool]  # whether a record may be sent now
    user_identifier: Callable[[], str]
