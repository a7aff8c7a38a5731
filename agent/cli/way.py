"""What doctor makes of the way to one endpoint: proxy, connection, TLS, answer, signature.

It reads one entry of ``diagnostics(network=True)``. The stage at which a request ended is the finding that fails;
those before it are well, those behind it were never reached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import remedies
from .findings import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

_STAGES = {"proxy": "proxy", "name resolution": "name", "connection": "connection", "TLS": "TLS"}


def findings(found: dict[str, Any]) -> Iterator[Check]:
    """One ``Check`` for each step that was reached."""
    suffix = " " + found["name"]
    failed = "" if found["reached"] else _STAGES.get(found["stage"], "answer")
    for step, told in (
        ("proxy", _proxy(found)),
        ("name", ""),
        ("connection", ("the proxy's " if found["proxy"]["address"] else "") + found["peer"]),
        ("TLS", _tls(found)),
    ):
        if step == failed:
            detail = "; ".join(filter(None, [_reason(found), told]))
            yield Check(step + suffix, False, detail, remedies.for_network(found["reason"]))
            return
        if told and (step != "connection" or found["peer"]):
            yield Check(step + suffix, True, told)
    yield from _answer(found)


def _reason(found: dict[str, Any]) -> str:
    """Without the stage, which is the finding's name."""
    stage, _, reason = found["reason"].partition(": ")
    return reason if reason and stage == found["stage"] else str(found["reason"])


def _proxy(found: dict[str, Any]) -> str:
    address, source = found["proxy"]["address"], found["proxy"]["from"]
    return "%s (%s)" % (address, source) if source else "none"


def _tls(found: dict[str, Any]) -> str:
    tls = found["tls"]
    if tls is None:
        return ""
    parts = [tls["version"], tls["cipher"], tls["store"] and "authorities: " + tls["store"]]
    return ", ".join(filter(None, parts))


def _answer(found: dict[str, Any]) -> Iterator[Check]:
    name, dry_run = found["name"], found["dry_run"]
    if not found["reached"]:
        advice = remedies.for_network(found["reason"])
        yield Check("answer " + name, False, _reason(found), advice)
        return
    fine, said, advice = remedies.for_dry_run(dry_run)
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
