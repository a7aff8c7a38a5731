"""What doctor makes of the way to one endpoint: proxy, name, connection, TLS, answer, signature.

It reads one entry of ``diagnostics(network=True)``. The stage at which a request ended is the finding that fails;
those before it are well, those behind it were never reached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import remedies
from .findings import Check
from .output import duration, moment

if TYPE_CHECKING:
    from collections.abc import Iterator

_STAGES = {"proxy": "proxy", "name resolution": "name", "connection": "connection", "TLS": "TLS"}
_EXPIRES_SOON_S = 14 * 86_400
_ADDRESSES_MAX = 4


def findings(found: dict[str, Any], now: float, *, usage: bool) -> Iterator[Check]:
    """One ``Check`` for each step that was reached."""
    suffix = " " + found["name"]
    whose = "the proxy's " if found["proxy"]["address"] and found["addresses"] else ""
    failed = "" if found["reached"] else _STAGES.get(found["stage"], "answer")
    for step, told in (
        ("proxy", _proxy(found)),
        ("name", whose + _some(found["addresses"])),
        ("connection", found["peer"] and whose + found["peer"]),
        ("TLS", _tls(found)),
    ):
        if step == failed:
            reason = _reason(found)
            if step == "TLS":
                told = _leaf(found, now)
                reason = reason.partition(' (issued by "')[0] if told else reason
                told += _wanted(found) if told else ""
            detail = "; ".join(filter(None, [reason, told]))
            yield Check(step + suffix, False, detail, remedies.for_network(found["reason"]))
            return
        if told:
            yield Check(step + suffix, True, told + _took(found, step))
    yield from _certificate(found, now)
    yield from _answer(found, usage)


def _reason(found: dict[str, Any]) -> str:
    """Without the stage, which is the finding's name."""
    stage, _, reason = found["reason"].partition(": ")
    return reason if reason and stage == found["stage"] else str(found["reason"])


def _some(addresses: list[str]) -> str:
    more = len(addresses) - _ADDRESSES_MAX
    told = ", ".join(addresses[:_ADDRESSES_MAX])
    return "%s and %d more" % (told, more) if more > 0 else told


def _proxy(found: dict[str, Any]) -> str:
    address, source = found["proxy"]["address"], found["proxy"]["from"]
    return "%s (%s)" % (address or "none", source) if source else str(address)


def _took(found: dict[str, Any], step: str) -> str:
    took_s = {_STAGES.get(stage): took_s for stage, took_s in found["took_s"].items()}.get(step)
    return ", %.0f ms" % (1000 * took_s) if took_s and took_s >= 0.001 else ""


def _tls(found: dict[str, Any]) -> str:
    tls = found["tls"]
    if tls is None:
        return ""
    parts = [tls["version"], tls["cipher"], tls["store"] and "authorities: " + tls["store"]]
    return ", ".join(filter(None, parts))


def _leaf(found: dict[str, Any], now: float) -> str:
    """Whose certificate it is, who issued it, how long it lasts; a gateway that inspects TLS shows here."""
    chain = found["tls"]["chain"] if found["tls"] else []
    if not chain:
        return ""
    leaf = chain[0]
    lasts = "%s left" % duration(leaf["ends_at"] - now)
    if leaf["ends_at"] < now:
        lasts = "expired on " + moment(leaf["ends_at"])[:10]
    elif leaf["begins_at"] > now:
        lasts = "begins on " + moment(leaf["begins_at"])[:10]
    return "%s, issued by %s, %s" % (leaf["subject"], leaf["issuer"], lasts)


def _wanted(found: dict[str, Any]) -> str:
    """What a certificate that was refused was held against."""
    if "pins" in found["reason"]:
        return "; its key is " + str(found["tls"]["chain"][0]["pin"])
    return "; authorities: " + str(found["tls"]["store"])


def _certificate(found: dict[str, Any], now: float) -> Iterator[Check]:
    detail = _leaf(found, now)
    if detail:
        ends_at = found["tls"]["chain"][0]["ends_at"]
        soon = ends_at - now < _EXPIRES_SOON_S
        advice = "whoever runs the server has to renew it by " + moment(ends_at)[:10]
        detail += ", key pinned" * found["pinned"]
        yield Check("certificate " + found["name"], True, detail, advice * soon)


def _answer(found: dict[str, Any], usage: bool) -> Iterator[Check]:
    name, dry_run = found["name"], found["dry_run"]
    if not found["reached"]:
        advice = remedies.for_network(found["reason"])
        yield Check("answer " + name, False, _reason(found), advice)
        return
    fine, said, advice = remedies.for_dry_run(dry_run, usage=usage)
    if not said.startswith("HTTP"):
        said = "HTTP %d: %s" % (found["http_status"], said)
    yield Check("answer " + name, fine, said, advice)
    if dry_run["signed_by"] is not None:
        yield Check("signature " + name, True, 'by the key "%s"' % dry_run["signed_by"])
    trouble = found["keyring_trouble"]
    if trouble:
        # What a vendor publishes before the first change is no newer than what the product ships.
        old = trouble.endswith("is not newer than the product's own keys")
        advice = "the keys in force work on; put the document right, or make its address reachable"
        yield Check("keyring " + name, True, trouble, advice * (not old))
