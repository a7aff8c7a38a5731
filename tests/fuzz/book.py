"""Target ``book``: any book is read without an error, and what is known then is the same read at once or in two.

What it says of records and lanes goes on being said after it was rewritten, and a lane takes any of it.
"""

import zlib
from types import SimpleNamespace
from typing import Any

from support.endpoints import config, reo

from agent import lines
from agent.lanes import Lane
from agent.spool.book import UNTRIED, Book

from .line import Lined, unmarked
from .target import promise

KEYS = [("server", "a"), ("reo", "b")]
FIRST = {"v": 1, "k": "record", "e": "server", "id": "a", "failed": 2, "counted": 1}
SECOND = {"v": 1, "k": "record", "e": "reo", "id": "b", "origin": {"domain": "acme.example"}}
NO = {"code": 150, "reason": "no", "errors": {"field": ["wrong"]}, "kind": "licence"}
SEED = [
    {"v": 1, "k": "book", "tag": "0123456789abcdef", "size": 0},
    {**FIRST, "run": "1a2b3c4d"},
    {**FIRST, "run": "", "failed": 3},
    {**FIRST, "outcome": "rejected", "verdict": "rejected", "at": 9.5, **NO},
    {**FIRST, "failed": 0, "counted": 0, "outcome": "", "revived": 1},
    {**SECOND, "run": "1a2b3c4d"},
    {**SECOND, "verdict": "delivered", "at": 9.5, "code": 200, "kind": "aggregate", "epoch": 7},
    {**SECOND, "outcome": "dropped"},
    {
        "v": 1,
        "k": "lane",
        "tag": "t",
        "failures": 2,
        "wait": "backoff",
        "set_at": 1.0,
        "delay_s": 5,
    },
    {"v": 1, "k": "floor", "tag": "t", "floor": 5, "doubtful": False, "proven_at": 5.0},
    {"v": 2, "k": "moon"},
]


class Books(Lined):
    name, file = "book", "agent.book"

    def seeds(self) -> list[bytes]:
        whole = b"".join(map(lines.encode, SEED))
        bare = b"\0" + b"\n".join(lines.dumps(value).encode() for value in SEED) + b"\n"
        return [whole, bare, b"", whole[:-20], b"\0{}\n[]\n1\n"]

    def run(self, data: bytes) -> str:
        data = unmarked(data)
        whole = self._read(data)
        cut = zlib.crc32(data) % (len(data) + 1)
        promise(_said(self._read(data[:cut], data[cut:])) == _said(whole), "read in two it differs")
        states = [whole.states.get(key, UNTRIED) for key in KEYS]
        for state in states:
            promise(isinstance(state.failed + state.counted, int), "numbers")
            promise(not (state.settled and state.dead), "settled and dead")
        kept: list[Any] = list(whole.answers.values())
        book: Any = SimpleNamespace(fact=lambda kind, tag: whole.fact(kind, "t"))
        book.note = lambda kind, tag, **fields: kept.append(fields)
        core: Any = SimpleNamespace(config=config(), environ={}, user_identifier=lambda: "user")
        lane = Lane(reo(), core)
        lane.take(book, 100.0)
        promise(0 <= lane.remaining_s(100.0) <= 86400.0, "waits for %r s" % lane.remaining_s(100.0))
        lane.keep(book)
        lines.dumps(kept)
        seen = ("settled" * state.settled or "dead" * state.dead or "waits" for state in states)
        return "%s: %d answers" % (" ".join(seen), min(len(whole.answers), 3))

    def _fresh(self) -> Book:
        return Book(self._directory, "5e6f7a8b", 10_000_000)


def _said(book: Book) -> Any:
    states = [vars(book.states.get(key, UNTRIED)) for key in KEYS]
    facts = [book.fact(kind, "t") for kind in ("lane", "floor")]
    return repr((states, facts, list(book.answers.values())))


TARGET = Books
