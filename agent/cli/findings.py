"""What doctor makes of this machine: configuration, state directory, identity, clock, keys and spool.

Each finding is one ``Check``. One that is not ok keeps a record from being delivered; one that is ok and has an advice
is a warning. Nothing here opens a socket or changes anything.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple, Optional
from urllib.parse import urlsplit

from ..errors import SignatureInvalid, Unverifiable
from ..lanes import BACKOFF, CONSENT, ORIGIN
from ..spool.segment import is_ours
from . import remedies
from .directory import problem
from .output import amount, counted, duration, plain
from .result import refusal, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..config import Config
    from ..lanes import Lane

# 2024: a clock before that was never set.
_CLOCK_MIN_S = 1_704_067_200
# What a server's clock and a slow answer may differ by without a word; and what delivery itself puts up with.
_CLOCK_NEAR_S, _CLOCK_FAR_S = 600, 86_400
# Less holds neither a record of the longest kind nor what is noted beside it.
_FREE_MIN_BYTES = 1_000_000
_NEARLY_FULL = 0.8
_PURGE = "spool purge --yes --unknown"
# Of the keys that the reference collector signs with. A copy has no collector, so they stand here.
PUBLISHED = """
05b296ba0e5e73ced34ef0da965fe102ecb7583f9e25980f14d0bf403c61ebde
ff45b1e3b92e200b6b1d5747abee44b8bd9284fe2d2c3fd3538c1a81ac84a99b
650cc3720d2fdf1bea7dd975ea8c7496f36fb368eaf68328a0655aa77cad3b92
6b76724bf2fc807970e039af09cd2b091c6019494cf175b77e59410c7d7103bf
8f43ecd927db47d5891a70cb562d91d6ca83f0bc5473d864e6be2678e2e1dbc9
8ee33ec3e0c68bbc8a850db034924b5c5e2c973a56a2a2a1a0538be700ba9667
""".split()
_HERE = re.compile(r"localhost|::1|127\.[\d.]+")


class Check(NamedTuple):
    """One finding; ``advice`` says what to do where it is not ok."""

    name: str
    ok: bool
    detail: str
    advice: str = ""

    @property
    def mark(self) -> str:
        """The word in front of it."""
        return "FAIL" if not self.ok else "warn" if self.advice else "ok"


def configuration(config: Config, status: dict[str, Any], found: dict[str, Any]) -> Iterator[Check]:
    """Who reports to whom."""
    names = [endpoint.name for endpoint in config.endpoints]
    what = "%s %s %s" % (config.vendor, config.product_name, config.product_version)
    frozen = ", frozen" if found["frozen"] else ""
    runtime = (found["version"], found["implementation"], found["python"], found["platform"])
    yield Check("product", True, what + " (agent %s, %s %s on %s" % runtime + frozen + ")")
    if not names:
        yield Check("configuration", True, "no endpoint: the agent is switched off")
        return
    yield Check("configuration", True, "endpoints " + ", ".join(names))
    if any(endpoint["kind"] == "usage" for endpoint in status["endpoints"]):
        given = status["usage_consent"]
        refused = given is False or given is None or status["do_not_track"]
        said = "the product decides at each event" if given == "callable" else "given"
        yield Check("consent", True, "usage: " + (refusal(status) if refused else said))


def licence(
    license_key: str, activation_identifier: str, history: list[dict[str, Any]]
) -> Iterator[Check]:
    """Whether licence records carry what their server asks for; it saves those that do not, with a red flag."""
    saved = [answer for answer in history if answer.get("code") in (830, 831)]
    flags = (saved[-1].get("errors") or {}) if saved else {}
    if license_key and not activation_identifier:
        detail = "the licence key comes without its identifier"
    elif _ACTIVATION in flags and "license_key" not in flags:
        detail = "the last licence record that was saved lacked its identifier"
    else:
        return
    yield Check("activation", True, detail, _NO_ACTIVATION)


_ACTIVATION = "activation_identifier"
_NO_ACTIVATION = (
    "the server flags every such record: give the identifier of the activation beside the key "
    "(activation_identifier, or a pair as license_key)"
)


def state(
    directory: Optional[str], why: str, config: Config, status: dict[str, Any]
) -> Iterator[Check]:
    """Whether records can be kept: rights, owners, the quota, the disk."""
    wrong = problem(directory, why)
    if wrong is not None:
        yield Check("state directory", False, *wrong)
    if directory is None:
        return
    there = os.path.isdir(directory)
    if wrong is None:
        yield Check("state directory", True, directory + (_mode(directory) if there else _NOT_MADE))
    if there and wrong is None:
        yield from _others(directory)
    yield _quota(config, status)
    yield from _disk(directory, config.max_bytes - status["bytes"])


_NOT_MADE = " (not made yet)"


def _mode(directory: str) -> str:
    return " (%04o)" % (os.stat(directory).st_mode & 0o7777) if hasattr(os, "geteuid") else ""


def _others(directory: str) -> Iterator[Check]:
    """Files of ours that this user may not use: delivery goes on without them, but not without records."""
    user = os.geteuid() if hasattr(os, "geteuid") else None
    theirs, shut = [], []
    for name in sorted(filter(is_ours, os.listdir(directory))):
        path = os.path.join(directory, name)
        try:
            foreign = user is not None and os.lstat(path).st_uid != user
        except FileNotFoundError:
            continue
        usable = os.access(path, os.R_OK | os.W_OK)
        theirs += [name] if foreign or not usable else []
        shut += [name] if name.endswith(".seg") and not usable else []
    if theirs:
        more = " and %d more" % (len(theirs) - 1) if len(theirs) > 1 else ""
        what = ", with records in it," if shut else ""
        detail = "%s%s%s: not this user's alone to read and write" % (
            (shut or theirs)[0],
            what,
            more,
        )
        yield Check("files", not shut, detail, _THEIRS)


_THEIRS = "give all files of the state directory to this user (chown, chmod u+rw)"


def _quota(config: Config, status: dict[str, Any]) -> Check:
    records = status["pending"] + status["dead"] + sum(status["unknown_endpoints"].values())
    sizes = (amount(status["bytes"]), amount(config.max_bytes), records, config.max_records)
    full = max(status["bytes"] / config.max_bytes, records / config.max_records) > _NEARLY_FULL
    advice = "the oldest records, usage first, are dropped next: deliver, or raise the quota"
    return Check("quota", True, "%s of %s, %d of %d records" % sizes, advice * full)


def _disk(directory: str, wanted_bytes: int) -> Iterator[Check]:
    place = directory
    while not os.path.isdir(place) and os.path.dirname(place) != place:
        place = os.path.dirname(place)
    try:
        free_bytes = shutil.disk_usage(place).free
        nodes = os.statvfs(place) if hasattr(os, "statvfs") else None
    except OSError:
        return  # the state directory's own check says why
    detail = "%s on the disk of the state directory" % amount(free_bytes)
    if free_bytes < _FREE_MIN_BYTES:
        advice = "free space on this disk, or set state_dir: records may be kept in memory only"
        yield Check("free space", False, detail, advice)
    elif nodes is not None and nodes.f_files and not nodes.f_favail:
        advice = "remove files on this disk, or set state_dir: no new file can be made"
        yield Check("free space", False, detail + ", but no inode is left", advice)
    else:
        short = free_bytes < wanted_bytes
        advice = "the disk is full before the quota is: free space, or lower max_bytes"
        yield Check("free space", True, detail, advice * short)


def identity(explained: dict[str, Any]) -> Check:
    """The user identifier, how good it is, and where it comes from."""
    detail = "%s, from %s" % (explained["quality"], explained["source"])
    new = not explained["stored"] and explained["path"] is None  # whoever looks stores nothing
    advice = "; ".join(remedies.for_identity(explained))
    return Check("identity", True, detail + " (not stored yet)" * new, advice)


def clock(
    status: dict[str, Any], lanes: list[Lane], network: list[dict[str, Any]], now: float
) -> Check:
    """The clock against all that speaks for or against it."""
    drifts = [(p["signed_drift_s"], True, "the time that %s signed" % p["name"]) for p in network]
    drifts += [(p["date_drift_s"], False, "the TLS date of %s" % p["name"]) for p in network]
    known = [(drift, signed, what) for drift, signed, what in drifts if drift is not None]
    asked = {p["name"] for p in network if p["signed_drift_s"] is not None}
    skewed = [e["name"] for e in status["endpoints"] if e["reason"].startswith("skewed")]
    skewed = [name for name in skewed if name not in asked]
    behind_s = max(
        (lane.freshness.floor - now for lane in lanes if lane.freshness.floor is not None),
        default=0.0,
    )
    far = any(signed and abs(drift) > _CLOCK_FAR_S for drift, signed, _ in known)
    wrong = far or any(abs(drift) > _CLOCK_NEAR_S for drift, _, _ in known)
    if now < _CLOCK_MIN_S:
        far, said = True, ["says %d s since 1970: it was never set" % now]
    elif skewed:
        far, said = True, ["disagrees with the signed answers of " + skewed[0]]
    elif any(lane.freshness.doubtful for lane in lanes):
        far, said = True, ["went back by more than a day since a signed answer was noted"]
    elif behind_s > _CLOCK_NEAR_S and not known:
        wrong, said = True, ["%s behind the newest signed answer" % duration(behind_s)]
    else:
        agreed = [what for drift, _, what in known if abs(drift) < 2]
        said = ["agrees with " + ", ".join(agreed)] if agreed else []
        said += [
            "%s %s %s" % (duration(abs(drift)), "behind" if drift > 0 else "ahead of", what)
            for drift, _, what in known
            if abs(drift) >= 2
        ]
    detail = "; ".join(said) or "nothing speaks against it"
    return Check("clock", not far, detail, remedies.CLOCK * (far or wrong))


def keys(endpoint: Any, keyring: Optional[dict[str, Any]]) -> Iterator[Check]:
    """What answers are proven with, and whether this copy can do the arithmetic."""
    trusted = getattr(endpoint, "keys", None)
    if trusted is None:
        return
    name = "keys " + endpoint.name
    if not trusted:
        advice = "configure keys, drop allow_unsigned"
        yield Check(name, True, "none: any answer is believed", advice)
    told, here = [], _HERE.fullmatch(urlsplit(endpoint.base_url).hostname or "")
    every = [*getattr(trusted, "keys", trusted), *getattr(trusted, "roots", ())]
    if not here and any(key.fingerprint in PUBLISHED for key in every):
        detail = "a test key of the collector is trusted: anybody can sign with it"
        yield Check("test key " + endpoint.name, False, detail, "take it out of the product's keys")
    for key in getattr(trusted, "keys", trusted):
        try:
            key.verify(b"", b"\0" * 64)
        except Unverifiable as error:
            advice = "ship PyNaCl with the product, or use RSA keys"
            yield Check(name, False, "%s: %s" % (key.name, error), advice)
        except SignatureInvalid:
            told.append("%s (%s)" % (key.name, key.algorithm))
    if keyring is not None:
        told = ["version %d: %s" % (keyring["version"], ", ".join(keyring["keys"]))]
        told.append(keyring["source"])
        over = "the keyring document has expired and works on: publish a newer one"
        yield Check(name, True, ", ".join(told), over * keyring["expired"])
    elif told:
        yield Check(name, True, ", ".join(told))


def spool(status: dict[str, Any], network: list[dict[str, Any]], now: float) -> Iterator[Check]:
    """What waits, and what stands in its way."""
    trouble, oldest_at = dict(status["trouble"]), status["oldest_at"]
    detail = "%s waiting" % counted(status["pending"], "record")
    if status["pending"] and oldest_at is not None:
        detail += ", the oldest for %s" % duration(max(0.0, now - oldest_at))
    advice = "free or repair the disk; until then records are kept in memory only"
    licence = trouble.pop("licence", "")
    yield Check("spool", not trouble, plain(trouble) if trouble else detail, advice * bool(trouble))
    if licence:
        yield Check("licence", True, licence, "records go out without a licence key meanwhile")
    if status["dead"]:
        advice = "see spool list; spool replay --dead tries them again"
        yield Check("dead letters", False, counted(status["dead"], "record"), advice)
    if status["damaged"]:
        advice = "their neighbours are sent; check the disk if this grows"
        yield Check("damage", True, counted(status["damaged"], "damaged line"), advice)
    if not status["locks_work"]:
        advice = "put state_dir on a local disk; here duplicates are possible"
        yield Check("locks", True, "this file system has none", advice)
    left = unknown(status)
    if left:
        advice = "give those endpoints their old name again, or remove the records: " + _PURGE
        yield Check("unknown endpoints", True, left, advice)
    for endpoint in status["endpoints"]:
        well = any(p["name"] == endpoint["name"] and p["dry_run"]["expected"] for p in network)
        yield from _waits(endpoint, status, well)


# What a usage server said may repeat what was recorded.
_NOT_KEPT = "(its reason is not kept on disk)"


def _waits(endpoint: dict[str, Any], status: dict[str, Any], well: bool) -> Iterator[Check]:
    name = "waits " + endpoint["name"]
    reason, waiting = endpoint["reason"] or _NOT_KEPT, endpoint["waiting"]
    advice = remedies.for_wait(waiting, endpoint["reason"])
    if waiting == BACKOFF and well:  # as it was, and is no more
        detail = "for %s more: %s" % (duration(endpoint["retry_in_s"]), reason)
        yield Check(
            name, True, detail, "it answers as it should by now: spool replay sends at once"
        )
    elif waiting:
        detail = "%s, again in %s: %s" % (waiting, duration(endpoint["retry_in_s"]), reason)
        yield Check(name, False, detail, advice)
    elif endpoint["reason"] and endpoint["pending"]:
        detail = "until the next delivery: %s" % reason
        yield Check(name, well or "asked to wait" in reason, detail, advice)
    elif endpoint["pending"] and endpoint["waits_for"]:
        detail = "%s, for %s" % (counted(endpoint["pending"], "record"), endpoint["waits_for"])
        known = {CONSENT: refusal(status), ORIGIN: remedies.ORIGIN}
        advice = known.get(endpoint["waits_for"], "")
        # Consent is the user's, a window ends by itself; for an origin it may wait until it is too old.
        yield Check(name, endpoint["waits_for"] != ORIGIN, detail, advice)
