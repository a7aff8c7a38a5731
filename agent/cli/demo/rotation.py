"""The rehearsal of a rotation: old key, document, new key, old answers refused, with no product update.

The vendor's part is played by what ``keys new`` and ``keys sign`` do, the server's by the collector, which has two
keys. The product is one and the same throughout: it embeds the old key and the public halves of two roots.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from ...signatures.keys import ED25519
from .. import keyfiles
from .stage import Stage, expect

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...client import Agent

_OLD, _NEW = 0, 1
_ROOTS = ("root-1", "root-2")
_FLUSH_S = 3.0


def _path(stage: Stage, name: str) -> str:
    return os.path.join(stage.root, name)


def _begins(stage: Stage) -> str:
    pems = []
    for name in _ROOTS:
        keyfiles.create(_path(stage, name), algorithm=ED25519, bits=0)
        pems.append(keyfiles.read(_path(stage, name + keyfiles.PUBLIC_SUFFIX)).decode("ascii"))
    stage.keyring = {
        "keys": [_embedded(stage)],
        "roots": [{"name": name, "pem": pem} for name, pem in zip(_ROOTS, pems)],
        "threshold": len(_ROOTS),
        "document": _path(stage, "keyring.json"),
    }
    stage.server(None)
    stage.collector.use_key(_OLD)
    with stage.product() as product:
        verdict, reason = _call_home(product)
        expect(verdict == "delivered", "it was %s: %s" % (verdict, reason))
    return "the product embeds the key %r and two roots, both of which must sign a document" % (
        stage.collector.keys[_OLD]["name"]
    )


def _embedded(stage: Stage) -> dict[str, Any]:
    key = stage.collector.keys[_OLD]
    return {"name": key["name"], "pem": key["public_key"]}


def _call_home(product: Agent) -> tuple[str, str]:
    product.call_home()
    product.flush(_FLUSH_S)
    found = product.status()["endpoints"][0]
    if not found["pending"]:
        return "delivered", ""
    verdict, _, reason = str(found["reason"]).partition(": ")
    return verdict, reason


def _changes(stage: Stage) -> str:
    stage.server(None)
    stage.collector.use_key(_NEW)
    with stage.product() as product:
        verdict, reason = _call_home(product)
        waiting = product.status()["endpoints"][0]["pending"]
    expect((verdict, waiting) == ("untrusted", 1), "it was %s, %d wait" % (verdict, waiting))
    return "%s: %s; the record waits" % (verdict, reason)


def _half_signed(stage: Stage) -> str:
    path = _path(stage, "keyring.json")
    key = stage.collector.keys[_NEW]
    entry = keyfiles.entry(key["public_key"].encode("ascii"), key["name"])
    text = keyfiles.draft([entry], version=1, issued=int(time.time()), expires=None, threshold=1)
    root = keyfiles.load_private(_path(stage, _ROOTS[0]))
    keyfiles.write_public(path, keyfiles.signed(text, (), [root]), what="a document")
    stage.server(None)
    with stage.product(deliver="manual") as product:
        product.flush(_FLUSH_S)
        found, last = product.status()["endpoints"][0], product.history(1)[-1]["verdict"]
    trouble = str(found["keyring"]["trouble"])
    expect(found["pending"] == 1 and "1 of the 2" in trouble, "it says: %r" % trouble)
    expect(last == "untrusted" and "untrusted" in found["reason"], "it was " + found["reason"])
    return "refused: " + trouble.rpartition(": ")[2]


def _installed(stage: Stage) -> str:
    path = _path(stage, "keyring.json")
    text, pairs = keyfiles.documents().split(keyfiles.read(path))
    root = keyfiles.load_private(_path(stage, _ROOTS[1]))
    keyfiles.write_public(path, keyfiles.signed(text, pairs, [root]))
    stage.server(None)
    with stage.product() as product:
        report = product.flush(_FLUSH_S)
        keyring = product.status()["endpoints"][0]["keyring"]
    expect(report.delivered == 1 and report.drained, "%d wait" % report.pending)
    expect(keyring["version"] == 1 and not keyring["trouble"], "it says: %r" % keyring["trouble"])
    return "version 1 is in force, with the key %s; the record that waited is delivered" % (
        ", ".join(keyring["keys"])
    )


def _old_is_over(stage: Stage) -> str:
    stage.server(None)
    stage.collector.use_key(_OLD)
    with stage.product() as product:
        verdict, reason = _call_home(product)
        expect(verdict == "untrusted", "an answer under the old key was %s" % verdict)
        stage.collector.use_key(_NEW)
        report = product.flush(_FLUSH_S)
    expect(report.delivered == 1 and report.drained, "%d wait" % report.pending)
    return "%s: %s; under the new key the same record was delivered" % (verdict, reason)


def _rolled_back(stage: Stage) -> str:
    path = _path(stage, "keyring.json")
    first = keyfiles.read(path)
    text = keyfiles.documents().split(first)[0].replace(b'"version":1', b'"version":2')
    roots = [keyfiles.load_private(_path(stage, name)) for name in _ROOTS]
    keyfiles.write_public(path, keyfiles.signed(text, (), roots))
    stage.server(None)
    with stage.product() as product:
        verdict, reason = _call_home(product)
        expect(verdict == "delivered", "with version 2 it was %s: %s" % (verdict, reason))
    keyfiles.write_public(path, first)
    with stage.product() as product:
        trouble = str(product.status()["endpoints"][0]["keyring"]["trouble"])
    expect("older than 2" in trouble, "it says: %r" % trouble)
    return "refused, and told by status(): " + trouble.rpartition(": ")[2]


INJECTED = dict.fromkeys(range(1, 7), "refuse")

STEPS: tuple[tuple[str, Callable[[Stage], str]], ...] = (
    ("A product is shipped; the answer is signed by the key that it embeds", _begins),
    ("The server changes its key: shipped copies believe it no longer", _changes),
    ("A document with the new key, signed by one root of two, changes nothing", _half_signed),
    ("The second root signs, the updater installs it: nothing was lost", _installed),
    ("The old key is worth nothing any more", _old_is_over),
    ("An older document put in its place is refused", _rolled_back),
)
