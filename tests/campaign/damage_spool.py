"""The spool that the damage campaign spoils, what may be done to its files, and what must survive it.

The spool is written by the product itself: several processes, counters, dead letters, settled and attempted records, a
torn line. What is undamaged is judged without the product's reader: a record is, as long as its line, byte for byte,
stands between two line ends in a file that is named as a segment; what the book says of it, as long as that line does.
"""

import json
import random
import re
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from support.agent import FakeClock, config, snapshot
from support.scripted import Network
from support.spool import spool

import agent
from agent.values import Verdict

SEGMENT = re.compile(r"([luc])-([0-9a-f]{12})-([0-9a-f]{16})\.seg")
BOOK, CONSENT = "agent.book", "agent.consent"
BLOCK = 4096

Key = tuple[str, str]
State = dict[str, bytes]


# --- the spool ------------------------------------------------------------------------------------


def _record(writer: agent.Agent, n: int) -> None:
    kind = n % 7
    if kind < 2:
        writer.record_value(n + 0.5, data_group="export-seconds")
    elif kind == 2:
        writer.record_point(n, -n, data_group="canvas")
    elif kind == 3:
        writer.record_text("scène %d \u2713 %s" % (n, "x" * (n % 300)), data_group="scene")
    elif kind == 4 and n % 5 == 0:
        writer.call_home()
    else:
        writer.track("EXPORT", meta={"n": n, "who": "José"})
    if n % 3 == 0:
        writer.count("RENDER", n % 11 + 1)
        writer.count("SAVE %d" % (n % 4))


def _deliver(place: Path, *outcomes: str) -> None:
    """A deliverer that ends after so many records, "" for those that it only tried."""
    target = spool(place, power=False)
    assert target.claim()
    for outcome, record in zip(outcomes, target.waiting(())):
        if record.kind == "aggregate":
            record.body["domain"] = "acme.example"
        target.try_(record, sync=record.kind == "aggregate")
        if outcome:
            target.answer(record, Verdict(outcome, reason="as planned"), 1.0)
        else:
            target.answer(record, Verdict("offline"), 1.0, failed=True)
    target.release()


def build(place: Path, records: int) -> dict[str, bytes]:
    """The files of a spool of ``records`` records, more or less, in ``place``."""
    clock = FakeClock()

    def product() -> agent.Agent:
        most = max(1000, 10 * records)
        settings = config("http://127.0.0.1:9", (), place, durability="process", max_records=most)
        given = ("demo-license-key", "a-1")
        return agent.Agent(settings, given, clock=clock, transport=Network(up=False))

    def fill(writers: list[agent.Agent], start: int, end: int) -> None:
        for n in range(start, end):
            clock.advance(0.25)
            _record(writers[n % len(writers)], n)

    first = product()
    first.track("BEFORE")
    first.set_usage_consent(False)  # leaves the mark of a refusal
    first.set_usage_consent(True)
    fill([first], 0, records // 20)
    first.close()
    for path in place.glob("l-*.seg"):  # killed in the middle of a line
        path.write_bytes(path.read_bytes() + b"0a1b2c3d {")
    with product() as early:  # older than all others, and so the first that are tried
        for n in range(4):
            early.count("OPEN %d" % n, n + 1)
    with ExitStack() as running:
        writers = [running.enter_context(product()) for _ in range(4)]
        fill(writers, records // 20, records // 3)
        # In the order of segments, each settled as far as it is written: those stay, their writers live.
        tried = ["rejected"] * 3 + ["delivered"] * (records // 20) + [""] * 5
        _deliver(place, *tried)
        fill(writers, records // 3, records)
        clock.advance(4000)  # the windows end, others begin
        fill(writers, records, records + records // 8)
    _deliver(place, "", "rejected", *[""] * (records // 10))
    found = snapshot(place)
    newest = max(name for name in found if name.startswith("l-"))
    found[newest] += found[newest][:77]  # its writer was killed in the middle of a line
    return found


# --- what must survive ----------------------------------------------------------------------------


@dataclass
class Known:
    """One record of the spool as it was written: each of its lines, and what the book says of it."""

    values: dict[bytes, dict[str, Any]] = field(default_factory=dict)  # by line
    settled: set[bytes] = field(default_factory=set)
    dead: set[bytes] = field(default_factory=set)


@dataclass
class Expected:
    """What a damaged spool must and may give."""

    must: set[Key] = field(default_factory=set)
    again: set[Key] = field(default_factory=set)  # settled, and the line that says so is damaged
    dead: set[Key] = field(default_factory=set)
    values: dict[Key, list[dict[str, Any]]] = field(default_factory=dict)  # as it may be sent
    damaged_lines: int = 0
    usage: bool = True  # whether consent still stands


def _lines(data: bytes) -> list[bytes]:
    """What stands between two line ends."""
    found = [line.rstrip(b"\r") for line in data.split(b"\n")[:-1]]
    return [line for line in found if line]


class Oracle:
    """Knows the lines of an undamaged spool, by their bytes."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.known: dict[Key, Known] = {}
        self._lines: dict[bytes, Key] = {}
        for name in of(files, SEGMENT):
            for line in _lines(files[name]):
                try:
                    value = json.loads(line[9:])
                except ValueError:
                    continue  # torn when it was made
                key = self._lines[line] = (value["e"], value["id"])
                self.known.setdefault(key, Known()).values[line] = value
        for line in _lines(files[BOOK]):
            value = json.loads(line[9:])
            if value["k"] == "record" and value.get("outcome"):
                known = self.known.get((value["e"], value["id"]), Known())
                (known.dead if value["outcome"] == "rejected" else known.settled).add(line)
        self.before = self.expect(dict(files))

    def expect(self, state: State) -> Expected:
        """What may be asked of the product with these files."""
        found = Expected()
        told = set(_lines(state.get(BOOK, b"")))
        found.usage = len(state.get(CONSENT, b"")) == len(self.files[CONSENT])
        alive: dict[Key, dict[bytes, Any]] = {}
        for name in of(state, SEGMENT):
            for line in _lines(state[name]):
                if line in self._lines:
                    key = self._lines[line]
                    alive.setdefault(key, {})[line] = self.known[key].values[line]
                else:
                    found.damaged_lines += 1
        for key, lines in alive.items():
            known, values = self.known[key], list(lines.values())
            usage = values[0]["k"] != "licence"
            if known.settled & told or (usage and not found.usage):
                continue
            if known.dead & told:
                found.dead.add(key)
                continue
            greatest = max(_total(value) for value in values)
            found.values[key] = [value for value in values if _total(value) == greatest]
            (found.again if known.settled else found.must).add(key)
        return found

    def is_right(self, key: Key, value: dict[str, Any], expected: Expected) -> bool:
        """Whether a delivered record (its line's value) is what was recorded."""
        known = self.known.get(key)
        wanted = expected.values.get(key) or list(known.values.values() if known else ())
        return any(_bare(value) == _bare(one) for one in wanted)


def _total(value: dict[str, Any]) -> int:
    return int(value["b"].get("count", 0)) if value["k"] == "aggregate" else 0


def _bare(value: dict[str, Any]) -> dict[str, Any]:
    """Without what is given when it is sent."""
    body = {name: inner for name, inner in value["b"].items() if name != "domain"}
    return {**value, "b": body}


# --- putting it on a disk -------------------------------------------------------------------------


def lay(place: Path, state: State) -> None:
    """Make ``place`` hold these files and nothing else."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(mode=0o700, parents=True)
    for name, data in state.items():
        path = place / name
        path.write_bytes(data)
        path.chmod(0o600)


# --- treatments -----------------------------------------------------------------------------------

Treatment = Callable[[dict[str, bytes], random.Random, int], State]


def somewhere(files: dict[str, bytes], rng: random.Random) -> tuple[str, int]:
    """A file and an offset, every byte of the spool as likely as any other."""
    at = rng.randrange(sum(map(len, files.values())))
    for name in sorted(files):
        if at < len(files[name]):
            return name, at
        at -= len(files[name])
    raise AssertionError


def of(files: Any, pattern: re.Pattern[str]) -> list[str]:
    return [name for name in sorted(files) if pattern.fullmatch(name)]


def any_file(files: dict[str, bytes], rng: random.Random) -> str:
    """A segment three times out of five, the book once."""
    return rng.choice([*[rng.choice(of(files, SEGMENT))] * 3, BOOK, rng.choice(sorted(files))])


def cut_end(files: dict[str, bytes], rng: random.Random, n: int) -> State:
    """The last 4 KB of the newest segment, one byte more in each round."""
    name = max(name for name in of(files, SEGMENT) if name.startswith("l"))
    return {**files, name: files[name][: max(0, len(files[name]) - 1 - n % BLOCK)]}


def cut_anywhere(files: dict[str, bytes], rng: random.Random, n: int) -> State:
    name, at = somewhere(files, rng)
    return {**files, name: files[name][:at]}


def flip(files: dict[str, bytes], rng: random.Random, n: int) -> State:
    name, at = somewhere(files, rng)
    data = bytearray(files[name])
    data[at] ^= 1 << rng.randrange(8)
    return {**files, name: bytes(data)}


def block(files: dict[str, bytes], rng: random.Random, n: int) -> State:
    """One block of a file, or as much of it as there is: noise, NULs, text, a block of another place."""
    name, at = somewhere(files, rng)
    at -= at % BLOCK if rng.random() < 0.8 else 0
    data = files[name]
    other, there = somewhere(files, rng)
    there -= there % BLOCK
    new = (
        rng.getrandbits(8 * BLOCK).to_bytes(BLOCK, "big"),
        bytes(BLOCK),
        b"\xff" * BLOCK,
        (b"Call me Ishmael. Some years ago -\r\n" * 120)[:BLOCK],
        files[other][there : there + BLOCK],
    )[n % 5]
    end = min(at + BLOCK, len(data))
    return {**files, name: data[:at] + new[: end - at] + data[end:]}


def _other_name(name: str, rng: random.Random, class_: str) -> str:
    created = rng.choice((0, 1, rng.getrandbits(40), 0xFFFFFFFFFFFF, int(name[2:14], 16)))
    return "%s-%012x-%016x.seg" % (class_, created, rng.getrandbits(64))


def whole(files: dict[str, bytes], rng: random.Random, n: int) -> State:
    """One file, or two, emptied, deleted, doubled, swapped, renamed, joined; or many of them."""
    state: State = dict(files)
    shuffled = rng.sample(of(files, SEGMENT), len(of(files, SEGMENT)))
    one, other = shuffled[:2]
    what = n % 12
    if what == 0:
        state[any_file(files, rng)] = b""
    elif what == 1:
        del state[any_file(files, rng)]
    elif what == 2:
        state[_other_name(one, rng, one[0])] = files[one]
    elif what == 3:
        state[one], state[other] = files[other], files[one]
    elif what in (4, 5):
        state[_other_name(one, rng, one[0] if what == 4 else rng.choice("luc"))] = state.pop(one)
    elif what == 6:
        state[one] = files[one] + files[other]
        if rng.random() < 0.5:
            del state[other]
    elif what == 7:  # of any two kinds: what is in no segment any more is not read
        one, other = rng.sample(sorted(files), 2)
        state[one], state[other] = files[other], files[one]
    else:
        _many(files, rng, what, shuffled, state)
    return state


def _many(
    files: dict[str, bytes], rng: random.Random, what: int, shuffled: list[str], state: State
) -> None:
    segments = sorted(shuffled)
    if what == 8:  # another order
        for name, place in zip(segments, shuffled):
            state[name[:2] + place[2:14] + name[14:]] = state.pop(name)
    elif what == 9:  # their contents at random
        state.update({name: files[content] for name, content in zip(segments, shuffled)})
    elif what == 10:
        state[segments[0]] = b"".join(files[name] for name in segments)
        for name in segments[1:]:
            if rng.random() < 0.9:
                del state[name]
    else:  # the book, with what it said of some
        state[BOOK] = b"".join(rng.sample(files[BOOK].splitlines(True), rng.randrange(9)))


def lines(files: dict[str, bytes], rng: random.Random, n: int) -> State:
    """Lines of one file doubled, in another order, left out, moved to another file."""
    name = any_file({name: data for name, data in files.items() if b"\n" in data}, rng)
    found = files[name].splitlines(keepends=True)
    what = n % 6
    if what == 0:
        found += rng.choices(found, k=rng.randrange(1, 20))
    elif what == 1:
        rng.shuffle(found)
    elif what == 2:
        found.reverse()
    elif what == 3:
        found *= 2
    elif what == 4:
        del found[rng.randrange(len(found))]
    else:
        rest, moved = b"".join(found[1::2]), b"".join(found[::2])
        others = [one for one in of(files, SEGMENT) if one != name]
        other = rng.choice(others) if SEGMENT.fullmatch(name) else name
        if other == name:
            return {**files, name: moved + rest}
        return {**files, name: rest, other: moved + files[other]}
    return {**files, name: b"".join(found)}


def tools(files: dict[str, bytes], rng: random.Random, n: int) -> State:
    """What editors, transfers and power cuts add."""
    name = any_file(files, rng)
    data = files[name]
    noise = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 300)))
    changed = (
        data.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + data,
        data + noise.replace(b"\n", b""),
        data + bytes(BLOCK),
        data.decode("ascii", "replace").encode("utf-16"),
        data.rstrip(b"\n"),
    )[n % 6]
    if n % 12 == 0:
        return {name: data.replace(b"\n", b"\r\n") for name, data in files.items()}
    return {**files, name: changed}
