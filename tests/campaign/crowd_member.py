"""One process of the crowd: records what it is told, says on disk what was acknowledged and when it delivered.

It says "ready", hears "go", records, says "recorded", hears "flush" or nothing, says its ``status()`` and ends when its
standard input does.
"""

import json
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Optional

from support import spool as spools

from agent import files
from agent.spool import segment

from .kill_child import Writer
from .processes import Log, begin, hear, main, say


class Member(Writer):
    """The agent of this process, and what it records."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.name = settings, settings["name"]
        if settings.get("lock_error"):
            _break_locks(settings["lock_error"])
        super().__init__(settings, Log(settings["logs"], "member"))
        assert self.log.token  # begun before there are threads

    def record_all(self) -> None:
        for n in range(self.settings["records"]):
            self.record("%s-%d" % (self.name, n), ("text", "track")[n % 2])

    def drain(self, timeout_s: float = 60) -> bool:
        """Deliver until nothing is pending."""
        ends_at = time.monotonic() + timeout_s
        while not (drained := self.product.flush(5).drained) and time.monotonic() < ends_at:
            time.sleep(0.01)
        return drained

    def rest(self) -> None:
        """All is recorded: answer until nobody asks any more."""
        say("recorded")
        while hear() == "flush":
            say(json.dumps({"drained": self.drain(), **self.product.status()}))
        self.end()

    def end(self) -> None:
        self.product.close(30)
        self.log("complete")


def _break_locks(number: int) -> None:
    """Every lock call of this process fails."""
    import fcntl

    def flock(fd: Any, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    fcntl.flock = flock


# -- roles ---------------------------------------------------------------------------------------


def one(settings: dict[str, Any]) -> None:
    """A product like any other: records while its worker tries to deliver."""
    member = Member(settings)
    begin()
    member.record_all()
    member.rest()


def threads(settings: dict[str, Any]) -> None:
    """Many threads that record, track, count, flush and look, all at once."""
    member = Member(settings)
    product, starting = member.product, threading.Barrier(settings["threads"])

    def work(number: int) -> None:
        starting.wait(30)
        for n in range(settings["records"]):
            member.record("%s.%d-%d" % (member.name, number, n), ("text", "track")[n % 2])
            member.count("RENDER", n % 7 + 1)
            member.count("THREAD-%d" % number, 1)
            if n % 8 == number % 8:
                member.call(product.flush, 0.05 * (number % 3))
            elif n % 8 == (number + 3) % 8:
                member.call(product.status)
            elif n % 8 == (number + 5) % 8 and number % 4 == 0:
                member.call(product.preview, samples=True)

    begin()
    with ThreadPoolExecutor(
        settings["threads"]
    ) as pool:  # what one of them raises ends the process
        list(pool.map(work, range(settings["threads"])))
    member.rest()


# -- the reaper --------------------------------------------------------------------


def writer(settings: dict[str, Any]) -> None:
    """Begins many segments, each held a moment too late by a busy machine; says what it acknowledged."""
    rng = random.Random(settings["seed"])
    hold = files.File.hold

    def late(file: Any) -> Optional[bool]:
        if rng.random() < 0.3:
            time.sleep(rng.random() * 0.003)
        return hold(file)

    files.File.hold = late  # type: ignore[method-assign,assignment]
    begin()
    for n in range(settings["segments"]):
        # As short processes, one after the other; some take over what another left.
        segment.ADOPTIONS = 4 if rng.random() < 0.3 else 0
        target = spools.spool(settings["state"], power=False, max_bytes=50_000_000)
        for m in range(rng.randrange(1, 4)):
            id = "%s-%d.%d" % (settings["name"], n, m)
            if target.record(spools.licence(id), sync=False) == spools.DISK:
                say(id)
        target.seal()


def reaper(settings: dict[str, Any]) -> None:
    """Delivers all the time; says what. Half of what it unlinks keeps its name, as on Windows while others read it."""
    target, unlink, unlinked = spools.spool(settings["state"], power=False), os.unlink, [0]

    def in_use(path: str) -> None:
        unlinked[0] += 1
        if unlinked[0] % 2:
            raise PermissionError(13, "in use")
        unlink(path)

    os.unlink = in_use  # type: ignore[assignment]
    begin()
    going = True
    while going:
        going = os.path.exists(settings["go"])
        for id in spools.deliver(target):
            say(id)
    os.unlink = unlink
    assert not spools.deliver(target), "what was truncated is gone"


def vulture(settings: dict[str, Any]) -> None:
    """Whoever makes room looks at what nobody holds, whenever it likes: here at each new file, once it has a name."""
    import fcntl

    seen: set[str] = set()
    taken = 0
    os.makedirs(settings["state"], 0o700, exist_ok=True)
    begin()
    while os.path.exists(settings["go"]):
        new = set(os.listdir(settings["state"])) - seen
        seen |= new
        for name in new:
            path = os.path.join(settings["state"], name)
            try:
                with open(path, "r+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    if name.endswith(".seg") and not file.read():
                        file.truncate(0)
                        os.unlink(path)
                        taken += 1
            except OSError:
                pass  # held, or gone
    say(taken)


if __name__ == "__main__":
    main(one, threads, writer, reaper, vulture)
