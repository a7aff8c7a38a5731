"""Targets ``consent``, ``head`` and ``message``: small things, each read by who did not write it.

``consent``: whatever lies in the place of that file is one epoch to all who look, and a refusal makes it another.
``head``: an import begins only where the head of its file promises exactly the whole records that follow.
``message``: what the delivering process is told makes a configuration that is told again in the same words, or nothing.
"""

import json
import random
from typing import Any

from support.agent import config
from support.keyring import KEYS, OLD
from support.spool import licence

from agent import Keyring, lines
from agent.config import Config
from agent.errors import EventError
from agent.extras import detached, transfer
from agent.spool.record import Consent, Record, parse
from agent.spool.segment import is_hex

from . import mutate
from .line import Lined, unmarked, whole
from .target import Target, promise, wording

HEAD = {"v": 1, "k": "export"}


class ConsentFile(Lined):
    name, file = "consent", "agent.consent"

    def seeds(self) -> list[bytes]:
        return [b"", b".", b"." * 255, b"\0" * 999, b"\n"]

    def run(self, data: bytes) -> str:
        self._put(data)
        ours, theirs = Consent(self._directory), Consent(self._directory)
        promise(ours.look() == theirs.current() == len(data), "not the size")
        ours.refuse()
        promise(theirs.look() == len(data) + 1 and not ours.blocked, "not refused")
        promise(theirs.ensure() == ours.current() == len(data) + 1, "begun again")
        return "%d: dots" % min(len(data), 40)

    def mutate(self, data: bytes, rnd: random.Random) -> bytes:
        return mutate.of_bytes(data, rnd)


class Head(Lined):
    name, file = "head", "exported"

    def seeds(self) -> list[bytes]:
        head = {**HEAD, "id": "0123456789abcdef", "at": 1.5, "from": "a" * 16}
        record = licence("a").to_json()
        files = [[{**head, "records": n}, *[record] * n] for n in (0, 1, 3)]
        files.append([{**head, "records": "\0" * 500}])
        return [b"\0" + b"\n".join(lines.dumps(v).encode() for v in f) + b"\n" for f in files]

    def run(self, data: bytes) -> str:
        data = unmarked(data)
        self._put(data)
        first, *rest = [whole(line.rstrip(b"\r")) for line in data.split(b"\n")[:-1]] or [None]
        good = data.endswith(b"\n") and all(isinstance(parse(one), Record) for one in rest)
        good = good and isinstance(first, dict) and repr(first.get("records")) == repr(len(rest))
        names = {name: first.get(name) for name in ("v", "k", "id")} if good else {}
        good = (
            good
            and names == {**HEAD, "id": names["id"]}
            and type(names["id"]) is str
            and is_hex(names["id"], 16)
        )
        try:
            head = transfer._check(str(self._path))
        except EventError as error:
            promise(not good, "refused: %s" % error)
            return "refused: " + wording(error).rpartition(" is ")[2]
        promise(good and head == first, "%r" % head)
        found = list(transfer._records(str(self._path), len(rest) + 1))
        promise(len(found) == len(rest), "others are taken")
        return "taken: %d" % len(rest)


class Message(Target):
    name = "message"

    def seeds(self) -> list[bytes]:
        ring = Keyring((OLD,), roots=KEYS, document=b"x", url="https://a.test/k")
        given = [
            config("https://a.test", keys, "/s", proxy="direct") for keys in ((OLD,), ring, ())
        ]
        return [lines.dumps(detached.plain(one)).encode() for one in given]

    def run(self, data: bytes) -> str:
        try:
            made = detached.made(json.loads(data))
        except Exception as error:  # the process ends with status 2
            return "nothing: " + type(error).__name__
        if type(made) is not Config:
            return "none: " + type(made).__name__
        told: Any = detached.plain(made)
        promise(detached.made(json.loads(json.dumps(told))) == made, "told otherwise")
        return "configuration: %d endpoints" % len(made.endpoints)

    def mutate(self, data: bytes, rnd: random.Random) -> bytes:
        return (mutate.of_json if rnd.random() < 0.9 else mutate.of_bytes)(data, rnd)


TARGETS = {"consent": ConsentFile, "head": Head, "message": Message}
