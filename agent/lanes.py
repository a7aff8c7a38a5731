"""``Lane``: one endpoint as delivery sees it: how long it is left alone, why, and what its answers proved.

What is kept on disk is found by keyed hashes: the *wait* by one of everything that could have caused it, so that a
corrected key, proxy or CA bundle voids it; the *floor* of signed times by one of address and signing keys alone, or
whoever changes the proxy could replay a day of captured answers. What is read back may be planted, and is bounded.
"""

from __future__ import annotations

import os

from . import TYPE_CHECKING, verdicts
from .lines import sha256
from .signatures.freshness import AGREE_S, Freshness

if TYPE_CHECKING:
    from typing import Any, Collection

    from .spool.book import Book
    from .values import Core, Verdict
    from .verdicts import Adapter

# "Full jitter" between the base and an exponentially growing bound (AWS Architecture Blog, 2015).
BACKOFF_BASE_S, BACKOFF_MAX_S = 30.0, 6 * 3600.0
HELD_BASE_S, HELD_MAX_S = 3600.0, 24 * 3600.0
# Anyone can obtain a signed refusal and relay it: a lane that was ever proven is asked again this soon.
HELD_PROVEN_MAX_S = 6 * 3600.0
BACKOFF, PAUSE, HELD = "backoff", "pause", "held"
# Statuses that say the server is busy, not that it choked on a record.
EXCUSED = frozenset((408, 429, 502, 503, 504))
# A refusal in the server's own words weighs so many other answers.
REFUSED_WEIGHT = 6
# So many requests in a row that ended with their process count as a failure of the endpoint.
BROKEN_AT, OPEN_MAX = 3, 64
# What a lane may be waiting for that is our own.
CONSENT, ORIGIN = "consent", "a domain or ip_addr"

_PROXIES = "https_proxy HTTPS_PROXY all_proxy ALL_PROXY no_proxy NO_PROXY".split()
# What is read back, as numbers from 0 on, and below what no arithmetic with times is safe beyond.
_FIELDS = ("failures", "holds", "broken", "set_at", "delay_s")


class Lane:
    """One endpoint; ``wait`` is "", BACKOFF (ours), PAUSE (asked for by the server) or HELD (it refuses us)."""

    def __init__(self, adapter: Adapter, core: Core) -> None:
        self.adapter, config, user = adapter, core.config, core.user_identifier()
        proxies = config.proxy, config.proxy_auth, *map(core.environ.get, _PROXIES)
        # Of what the environment names only the name: on a dead mount a look at it would hold up the host.
        bundle = core.environ.get("SSL_CERT_FILE"), _content(str(config.ca_bundle or ""))
        self.tag = _tag(user, adapter.name, (adapter.cause(), proxies, bundle))
        self.floor_tag = _tag(user, adapter.name, adapter.floor_cause())
        self.freshness = Freshness()
        # In a row; ``broken`` are requests that ended with their process, of runs that are known by now.
        self.failures = self.holds = self.broken = 0
        self.open: list[str] = []
        self.wait = self.reason = ""
        # When the wait began and how long it is; when an answer last settled a record.
        self.set_at = self.delay_s = self.proven_at = 0.0
        # Of this pass: it settled a record; it skips a wait; whose usage sums are, once asked.
        self.proved = self.early = False
        self.origin: dict[str, str] | None = None

    def remaining_s(self, now: float) -> float:
        """Seconds still to wait, at most a day. A wait set in the future of ``now`` is void: the clock was wrong."""
        if not self.wait or now < self.set_at:
            return 0.0
        return max(0.0, self.set_at + min(self.delay_s, HELD_MAX_S) - now)

    def begin(self, now: float, skip: Collection[str]) -> None:
        """A pass begins: a wait that is over, or of a kind to skip, is none."""
        self.proved, self.origin = False, None
        self.early = self.wait in skip and self.remaining_s(now) > 0
        if self.early or not self.remaining_s(now):
            self.wait = ""

    def prove(self, now: float) -> None:
        """A record was settled: nothing stands between us and the next one."""
        self.failures = self.holds = self.broken = 0
        self.wait = self.reason = ""
        self.proved, self.proven_at = True, now

    def evidence(self, verdict: Verdict) -> int:
        """How much an answer speaks against its record: nothing, unless this lane proved another one in this pass."""
        excused = verdict.outcome == verdicts.RETRY and verdict.status in EXCUSED
        if not self.proved or excused or verdict.outcome not in verdicts.SUSPICIOUS:
            return 0
        return REFUSED_WEIGHT if verdict.outcome == verdicts.REFUSED else 1

    def break_off(self, now: float, runs: list[str]) -> bool:
        """Whether one of ``runs``, which ended in the middle of a request, is new: after a few the next one waits."""
        new, self.open = [run for run in runs[:OPEN_MAX] if run not in self.open], runs[:OPEN_MAX]
        self.broken += bool(new)
        if new and self.broken >= BROKEN_AT:
            self.back_off(now, "the product ended %d times before an answer came" % self.broken)
        return bool(new)

    def wait_for(self, outcome: str, verdict: Verdict, now: float) -> None:
        """Wait as an answer that settled nothing says."""
        self.broken, self.set_at, self.reason = 0, now, verdict.reason
        if outcome == verdicts.HELD:
            most_s = HELD_PROVEN_MAX_S if self.proven_at else HELD_MAX_S
            self.wait, self.delay_s = HELD, min(most_s, HELD_BASE_S * 2.0 ** min(self.holds, 10))
            self.holds += not self.early
        elif outcome == verdicts.THROTTLED:
            self.wait, self.delay_s = PAUSE, min(HELD_MAX_S, verdict.retry_after_s)
        else:
            self.back_off(now, "%s: %s" % (outcome, verdict.reason))

    def back_off(self, now: float, reason: str) -> None:
        """Wait longer after each failure, but for one that somebody asked for before its time."""
        self.failures = max(1, self.failures + (not self.early))
        chance = int.from_bytes(os.urandom(6), "big") / 2.0**48  # in [0, 1)
        bound_s = min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2.0 ** min(self.failures, 20))
        self.wait, self.set_at, self.reason = BACKOFF, now, reason
        self.delay_s = BACKOFF_BASE_S + chance * (bound_s - BACKOFF_BASE_S)

    def forgive(self) -> None:
        """What the failures came of is over: try again at once."""
        self.failures, self.wait, self.reason = 0, "", ""

    # -- on disk ----

    def keep(self, book: Book) -> None:
        """Write down what every process must know. A usage server's own words may repeat a record: not kept."""
        kept = {name: getattr(self, name) for name in _FIELDS}
        ours = not self.adapter.usage or self.reason.startswith(verdicts.OFFLINE)
        kept.update(wait=self.wait, reason=self.reason if ours else "", open=self.open)
        book.note("lane", self.tag, **kept)
        floor = {name: getattr(self.freshness, name) for name in ("floor", "doubtful")}
        book.note("floor", self.floor_tag, **floor, proven_at=self.proven_at)

    def take(self, book: Book, now: float) -> None:
        """Adopt what any process wrote down, field by field where type and bounds fit."""
        kept, floor = book.fact("lane", self.tag), book.fact("floor", self.floor_tag)
        for name in _FIELDS:
            value: Any = kept.get(name)
            if type(value) in (int, float) and 0 <= value < 1e12:
                setattr(self, name, value)
        wait = kept.get("wait")
        if wait in ("", BACKOFF, PAUSE, HELD):
            if wait != self.wait or not self.adapter.usage:
                self.reason = str(kept.get("reason") or "")[:400]
            self.wait = wait
        opened: Any = kept.get("open")
        self.open = opened[:OPEN_MAX] if type(opened) is list else []
        proven_at = floor.get("proven_at")
        if isinstance(proven_at, (int, float)) and 0 <= proven_at <= now:
            self.proven_at = max(self.proven_at, proven_at)
        self._take_floor(floor.get("floor"), floor.get("doubtful") is True, now)

    def _take_floor(self, floor: Any, doubtful: bool, now: float) -> None:
        """A floor more than a day ahead is of a clock that was wrong, or planted, or this clock went back.

        Believed, it would refuse every answer until its day. Until an answer ticks nothing is believed only because it
        agrees with our clock.
        """
        fit = type(floor) is int and -1e12 <= floor <= 1e12
        if fit and floor <= now + AGREE_S:
            self.freshness.raise_floor(floor)
        elif fit:
            doubtful = True
        self.freshness.doubtful |= doubtful and not self.freshness.agreed


def _content(path: str) -> object:
    """What a file holds: a mended one keeps its path, and a program in one file unpacks it elsewhere at each start."""
    try:
        with open(path if os.path.isfile(path) else "", "rb") as file:  # a pipe would have no end
            return sha256(file.read(1 << 20)).digest()
    except Exception:  # of any kind, where the host audits what is opened
        return path


def _tag(user: str, name: str, cause: object) -> str:
    """A hash keyed by whose state this is: it tells nobody a key or an address."""
    text = repr((user, name, cause)).encode("utf-8", "backslashreplace")
    return str(sha256(text).hexdigest()[:16])
