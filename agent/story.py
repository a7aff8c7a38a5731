"""The story of a delivery for somebody who watches: a line at a time to the host's logging, to stderr, or to nobody.

Nothing is configured or loaded for it. Lines go to the logger that is called like this package where the host has
loaded ``logging`` and that logger takes DEBUG, else to stderr where ``AGENT_DEBUG`` is set. Handlers are the host's
code: they run on a delivering thread only, under no lock of ours. Who tells something leaves secrets out; texts of
servers are cut and made printable here.
"""

from __future__ import annotations

import _thread  # its functions are looked up when they are used: gevent and eventlet replace them
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterable, Mapping, Optional

DEBUG = 10  # of ``logging``
# Of one kind: so many lines at once, then so many per second; a pass tells so many records one by one.
BURST, PER_S, RECORDS = 20, 2.0, 3
NOTES, TEXT_MAX_CHARS = 100, 400

_package = __name__.rpartition(".")[0]
_to_stderr = False
_logger: Any = None
_notes: list[tuple[int, str, tuple[object, ...]]] = []
_inside: set[tuple[int, int]] = set()  # processes and threads that are in a handler
_shares: dict[str, tuple[float, float, int]] = {}  # by kind: lines left as of when, lines left out


def watch(environ: Mapping[str, str]) -> None:
    """Have ``AGENT_DEBUG`` of the newest agent count."""
    global _to_stderr
    _to_stderr = environ.get("AGENT_DEBUG", "") not in ("", "0")


def _listener() -> Optional[Callable[..., object]]:
    global _logger
    logging: Any = sys.modules.get("logging")
    if hasattr(logging, "shutdown"):  # its last function but one: another thread may be loading it
        _logger = _logger or logging.getLogger(_package)
        if _logger.isEnabledFor(DEBUG):
            return _logger.debug  # type: ignore[no-any-return]
    return _print if _to_stderr else None


def note(text: str, *args: object) -> None:
    """On any thread, under any lock: what the next ``tell`` tells first."""
    if len(_notes) < NOTES:
        _notes.append((os.getpid(), text, args))


def tell(text: str = "", *args: object) -> None:
    """On a delivering thread, under no lock: one line, behind what was noted. ``text`` is one of a fixed set."""
    listener = _listener()
    if listener is None:
        _notes.clear()
        return
    me = os.getpid(), _thread.get_ident()
    if me not in _inside:  # a handler may make us deliver
        _inside.add(me)
        try:
            noted = list(_notes)
            del _notes[: len(noted)]  # in place: other threads append at any time
            for pid, kind, about in [*noted, (me[0], text, args)]:
                if pid == me[0] and kind:  # else a parent's
                    _say(listener, kind, about)
        except BaseException as error:  # noqa: B036 - the host's handler, or no stderr
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            _inside.discard(me)


def _say(listener: Callable[..., object], text: str, args: tuple[object, ...]) -> None:
    now = time.monotonic()
    left, at, left_out = _shares.get(text, (float(BURST), now, 0))
    left = min(BURST, left + (now - at) * PER_S) - 1
    _shares[text] = (left, now, 0) if left >= 0 else (left + 1, now, left_out + 1)
    if left >= 0:
        if left_out:
            text, args = text + " (%d more like it left out)", (*args, left_out)
        listener(text, *(printable(arg) if isinstance(arg, str) else arg for arg in args))


def _print(text: str, *args: object) -> None:
    stream: Any = sys.stderr  # None in a program without a console
    now = time.time()
    clock = time.strftime("%H:%M:%S", time.localtime(now))
    line = "%s.%03d %s[%d] %s\n" % (clock, now % 1 * 1000, _package, os.getpid(), text % args)
    data = line.encode("ascii", "backslashreplace")
    untouched = stream is sys.__stderr__
    if untouched:
        # Not through its buffer: an exit that finds a background thread holding the buffer's lock aborts.
        os.write(stream.fileno(), data)
    else:
        stream.write(data.decode("ascii"))
        stream.flush()


def printable(text: str) -> str:
    """One line of bounded length, whoever wrote it."""
    cut = text if len(text) <= TEXT_MAX_CHARS else text[: TEXT_MAX_CHARS - 1] + "…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else " " for c in cut)


def connected(seen: Any) -> None:
    """A new connection, as the transport saw it."""
    if _listener() is not None:
        how = seen.proxy_from
        if seen.proxy:
            how = "through %s, %s" % (seen.proxy, how)
        if seen.tls:
            issuer = seen.chain[0].issuer if seen.chain else "nobody"
            how += "; %s, issued by %s, trusted by %s" % (seen.tls, issuer, seen.store)
        took_ms = sum(seen.took_s.values()) * 1000
        tell("connected to %s in %d ms: %s", seen.peer, took_ms, how)


class Pass:
    """One pass over the records that wait: the first few of each kind one by one, then what came of all."""

    def __init__(self, waiting: Callable[[], Iterable[Any]]) -> None:
        self._began_at = time.monotonic()
        self._waiting: dict[str, int] = {}
        self._came: dict[tuple[str, str], int] = {}
        for record in waiting() if _listener() is not None else ():
            self._waiting[record.endpoint] = self._waiting.get(record.endpoint, 0) + 1
        if self._waiting:
            counts = ", ".join("%s %d" % count for count in self._waiting.items())
            tell("pass begins, waiting: %s", counts)

    def outcome(self, record: Any, verdict: Any, took_s: float, wait_s: float) -> None:
        """What came of a request; the verdict's reason holds no secret."""
        came = record.endpoint, verdict.outcome
        self._came[came] = self._came.get(came, 0) + 1
        if self._waiting and self._came[came] <= RECORDS:
            why = ": " + printable(verdict.reason) if verdict.reason else ""
            why += "; the endpoint waits %d s" % wait_s if wait_s else ""
            told = record.endpoint, record.kind, record.id, verdict.outcome, took_s * 1000, why
            tell("%s: %s %s %s in %d ms%s", *told)

    def over(self, parked: dict[str, str]) -> None:
        """The pass ended; ``parked`` says by endpoint what records wait for that is our own."""
        if self._waiting:
            took_s = max(time.monotonic() - self._began_at, 1e-3)
            sums = ["%s %d %s" % (name, n, what) for (name, what), n in self._came.items()]
            sums += ["%s waits for %s" % found for found in parked.items()]
            rate = sum(self._came.values()) / took_s
            tell(
                "pass over in %d ms, %d/s: %s",
                took_s * 1000,
                rate,
                ", ".join(sums) or "nothing was due",
            )
