"""Target ``book``: any book is read without an error, and what is known then is the same read at once or in two.

What it says of records and lanes goes on being said after it was rewritten, and a lane takes any of it.
"""

import json
import zlib
from types import SimpleNamespace
from typing import Any

from support.endpoints import config, reo

from agent import lines
from agent.lanes import Lane
from agent.spool.book import UNTRIED, Book

from .line import GOLDEN, Lined, unmarked
from .target import promise

KEYS = [("server", "a"), ("reo", "b")]
SEED = [json.loads(line) for line in (GOLDEN / "book-lines.jsonl").read_text("ascii").splitlines()]


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
