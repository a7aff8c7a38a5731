"""The spool that the damage campaign spoils, what may be done to its files, and what must survive it.

The spool is written by the product itself: several processes, counters, dead letters, settled and frozen records, a
torn line. What is undamaged is judged without the product's reader: a record is, as long as its line, byte for byte,
stands between two line ends in a file that is named as a segment.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Optional, Union

from support.agent import FakeClock, config, snapshot

import agent
from agent.transport.values import Request, Response, Unreachable

SEGMENT = re.compile(r"([lucxy])-([0-9a-f]{12})-([0-9a-f]{16})\.seg")
SIDECAR = re.compile(r"([lucxy])-([0-9a-f]{12})-([0-9a-f]{16})\.ack")
BLOCK = 4096
HUGE = 300 << 20

Key = tuple[str, str]


@dataclass(frozen=True)
class Odd:
    """What stands in the place of a file: ``kind`` and, for some, the ``content`` that was there."""

    kind: str
    content: bytes = b""


State = dict[str, Union[bytes, Odd]]


# --- the spool ------------------------------------------------------------------------------------


class Plan:
    """A transport that answers as told: each endpoint one word for each request, the last one for ever."""

    def __init__(self, *words: str) -> None:
        self._words: dict[str, list[str]] = {}
        self._given = words

    def send(self, request: Request, *, timeout_s: float) -> Response:
        words = self._words.setdefault(request.url, list(self._given))
        word = words.pop(0) if len(words) > 1 else words[0]
        if word == "killed":
            raise KeyboardInterrupt
        if word == "down":
            raise Unreachable("nobody there")
        if word == "refused":
            return Response(400, {}, b"{}")
        return Response(200, {}, b'{"code": 830, "status": "success"}')

    def rest(self) -> None: ...

    close = interrupt = rest


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


def build(place: Path, records: int) -> dict[str, bytes]:
    """The files of a spool of ``records`` records, more or less, in ``place``."""
    clock = FakeClock()

    def product(*words: str) -> agent.Agent:
        settings = config("http://127.0.0.1:9", (), place, durability="process",
                          max_records=max(1000, 10 * records))  # fmt: skip
        return agent.Agent(
            settings, ("demo-license-key", "a-1"), clock=clock, transport=Plan(*words or ("down",))
        )

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
    for path in place.glob("l-*.seg"):  # killed in the middle of a line, to be set aside below
        path.write_bytes(path.read_bytes() + b"0a1b2c3d {")
    with ExitStack() as running:
        writers = [running.enter_context(product()) for _ in range(4)]
        fill(writers, records // 20, records // 4)
        with product("refused", "delivered") as deliverer:
            deliverer.flush()
        fill(writers, records // 4, records // 3)
        # In the order of segments, each settled as far as it is written: those stay, their writers live.
        with product("refused", "refused", *["delivered"] * (records // 20), "down") as deliverer:
            deliverer.flush()
        fill(writers, records // 3, records)
        clock.advance(4000)  # the windows end, others begin
        fill(writers, records, records + records // 8)
    clock.advance(
        -8000
    )  # older than all others, and so the first that are tried: frozen, and not delivered
    with product() as early:
        for n in range(4):
            early.count("OPEN %d" % n, n + 1)
    clock.advance(8000)
    for word in ("down", "down", "killed", "down"):
        with product(word) as deliverer:
            try:
                deliverer.flush()
            except KeyboardInterrupt:
                pass
    found = snapshot(place)
    newest = max(name for name in found if name.startswith("l-") and name.endswith(".seg"))
    found[newest] += found[newest][:77]  # its writer was killed in the middle of a line
    return found


# --- what must survive ----------------------------------------------------------------------------


@dataclass
class Known:
    """One record of the spool as it was written."""

    value: dict[str, Any]
    line: bytes
    dead: bool = False
    totals: list[tuple[bytes, int, Optional[float]]] = field(default_factory=list)
    settled_by: list[bytes] = field(default_factory=list)
    frozen: Optional[tuple[bytes, dict[str, Any]]] = None


@dataclass
class Expected:
    """What a damaged spool must and may give."""

    must: set[Key] = field(default_factory=set)
    again: set[Key] = field(
        default_factory=set
    )  # settled once, and the line that says so is damaged
    dead: set[Key] = field(default_factory=set)
    copied: set[Key] = field(default_factory=set)  # once more in a segment that dead letters keep
    counts: dict[Key, set[int]] = field(default_factory=dict)
    ends: dict[Key, set[int]] = field(default_factory=dict)
    damaged_lines: int = 0  # those set aside before included


def _lines(state: State, pattern: re.Pattern[str]) -> list[list[bytes]]:
    """The lines of each file with such a name.

    A file of 300 MB is one that was made longer. A segment that nobody may read waits until it is made readable; what
    a sidecar says comes too late then.
    """
    found = []
    for name, data in state.items():
        if isinstance(data, Odd) and data.kind in ("huge", "grown"):
            data = data.content
        if isinstance(data, Odd) and data.kind == "unreadable" and pattern is SEGMENT:
            data = data.content
        if pattern.fullmatch(name) and not isinstance(data, Odd):
            found.append([line for line in re.split(b"\r?\n", data) if line])
    return found


class Oracle:
    """Knows the lines of an undamaged spool, by their bytes."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.known: dict[Key, Known] = {}
        self._lines: set[bytes] = set()
        sidecars = []
        for name, data in sorted(files.items()):
            whole = [line for line in data.split(b"\n")[:-1] if line]
            if SIDECAR.fullmatch(name):
                sidecars += whole
            elif SEGMENT.fullmatch(name):
                for line in whole:
                    self._learn(line)
        for line in sidecars:
            what, endpoint, key, *rest = json.loads(line[9:])
            known = self.known.get((endpoint, key))
            if known is not None and what == "s" and rest[0]:
                known.settled_by.append(line)
            elif known is not None and what == "f":
                known.frozen = line, rest[0]
        self.before = self.expect(dict(files))

    def _learn(self, line: bytes) -> None:
        value = json.loads(line[9:])
        self._lines.add(line)
        if value["k"] == "count":
            total = (line, value["n"], value.get("end"))
            self.known[value["e"], value["id"]].totals.append(total)
        else:
            dead = "why" in value
            self.known[value["e"], value["id"] + "!" * dead] = Known(value, line, dead)

    def expect(self, state: State) -> Expected:
        """What may be asked of the product with these files."""
        found = Expected()
        segments = _lines(state, SEGMENT)
        told = {line for lines in _lines(state, SIDECAR) for line in lines}
        # Of a sidecar whose segment has another name now, or none, what it told is soon forgotten.
        own = {n: data for n, data in state.items() if n[:-4] + ".seg" in state}
        kept = {line for lines in _lines(own, SIDECAR) for line in lines}
        aside = state.get("damaged", b"")
        if not isinstance(aside, Odd):
            found.damaged_lines = aside.count(b"\n")
        alive: dict[bytes, list[set[bytes]]] = {}
        for lines in segments:
            here = set(lines)
            found.damaged_lines += sum(line not in self._lines for line in lines)
            for line in here & self._lines:
                alive.setdefault(line, []).append(here)
        graves = [known.line for known in self.known.values() if known.dead]
        for key, known in self.known.items():
            if known.line not in alive:
                continue
            places = alive[known.line]
            if len(places) > 1 and any(not here.isdisjoint(graves) for here in places):
                found.copied.add(key)
            if known.dead:
                found.dead.add(key)
            elif not known.settled_by:
                found.must.add(key)
            elif not kept.intersection(known.settled_by):
                found.again.add(key)
            if known.value["k"] == "aggregate":
                self._expect_sum(found, key, known, alive[known.line], told)
        return found

    def _expect_sum(
        self, found: Expected, key: Key, known: Known, places: list[set[bytes]], told: set[bytes]
    ) -> None:
        body = known.value["b"]
        found.counts[key], found.ends[key] = set(), set()
        for here in places:  # a copy may have lost some of the totals: each was recorded once
            intact = [total for total in known.totals if total[0] in here]
            found.counts[key].add(max([body["count"], *(n for _, n, _ in intact)]))
            ended = [int(end) for _, _, end in intact if end is not None]
            found.ends[key].add(ended[-1] if ended else body["meta"]["window_end"])
        if known.frozen is not None and known.frozen[0] in told:
            found.counts[key] = {known.frozen[1]["count"]}
            found.ends[key] = {known.frozen[1]["meta"]["window_end"]}

    def is_line(self, line: bytes) -> bool:
        """Whether this is a whole line of a segment."""
        return line in self._lines

    def is_right(self, key: Key, value: dict[str, Any], expected: Expected) -> bool:
        """Whether a delivered record (its line's value) is what was recorded."""
        known = self.known.get(key)
        if known is None:
            return False
        ours, theirs = dict(known.value), dict(value)
        if ours["k"] == "aggregate":
            body, sent = dict(ours.pop("b")), dict(theirs.pop("b"))
            meta, sent_meta = dict(body.pop("meta")), dict(sent.pop("meta"))
            if sent_meta.pop("window_end") not in expected.ends.get(key, ()):
                return False
            meta.pop("window_end")
            if sent.pop("count") not in expected.counts.get(key, ()) or meta != sent_meta:
                return False
            body.pop("count")
            sent.pop("domain", None)  # given when it is frozen
            ours.pop("end", None)
            theirs.pop("end", None)
            if body != sent:
                return False
        return ours == theirs


# --- putting it on a disk -------------------------------------------------------------------------


def lay(place: Path, state: State, aside: Path) -> None:
    """Make ``place`` hold these files and nothing else."""
    clear(place)
    clear(aside)
    place.mkdir(mode=0o700)
    aside.mkdir()
    for name, data in state.items():
        path = str(place / name)
        if not isinstance(data, Odd):
            _write(path, data)
        elif data.kind in ("directory", "full directory"):
            os.mkdir(path)
            if data.kind == "full directory":
                _write(os.path.join(path, "content"), b"somebody's")
        elif data.kind == "fifo":
            os.mkfifo(path)
        elif data.kind == "socket":
            _bind(path)
        elif data.kind == "unreadable":
            _write(path, data.content)
            os.chmod(path, 0)
        elif data.kind == "moved":
            _write(str(aside / name), data.content)
            os.symlink(str(aside / name), path)
        elif data.kind in ("huge", "grown"):
            _write(path, data.content)
            os.truncate(path, HUGE)
        else:
            os.symlink(data.kind, path)


def _bind(path: str) -> None:
    """Addresses are short: bound in the directory itself."""
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.open(".", os.O_RDONLY)
        try:
            os.chdir(os.path.dirname(path))
            bound.bind(os.path.basename(path))
        finally:
            os.fchdir(here)
            os.close(here)


def clear(place: Path) -> None:
    if place.exists():
        shutil.rmtree(place)


def _write(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


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


def of(files: dict[str, bytes], pattern: re.Pattern[str]) -> list[str]:
    return [name for name in sorted(files) if pattern.fullmatch(name)]


def any_file(files: dict[str, bytes], rng: random.Random) -> str:
    """Segments and sidecars four times out of five."""
    kinds = [of(files, SEGMENT), of(files, SIDECAR)] * 2 + [sorted(files)]
    return rng.choice(rng.choice(kinds))


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
        lambda: rng.getrandbits(8 * BLOCK).to_bytes(BLOCK, "big"),
        lambda: bytes(BLOCK),
        lambda: b"\xff" * BLOCK,
        lambda: (b"Call me Ishmael. Some years ago -\r\n" * 120)[:BLOCK],
        lambda: files[other][there : there + BLOCK],
    )[n % 5]()
    end = min(at + BLOCK, len(data))
    return {**files, name: data[:at] + new[: end - at] + data[end:]}


def _other_name(name: str, rng: random.Random, *, class_: str = "") -> str:
    created = rng.choice((0, 1, rng.getrandbits(40), 0xFFFFFFFFFFFF, int(name[2:14], 16)))
    ending = name[-4:]
    return "%s-%012x-%016x%s" % (class_ or name[0], created, rng.getrandbits(64), ending)


def whole(files: dict[str, bytes], rng: random.Random, n: int) -> State:
    """One file, or two, emptied, deleted, doubled, swapped, renamed, joined; or many of them."""
    state: State = dict(files)
    one, other = rng.sample(of(files, rng.choice((SEGMENT, SEGMENT, SIDECAR))), 2)
    what = n % 12
    if what == 0:
        state[any_file(files, rng)] = b""
    elif what == 1:
        del state[any_file(files, rng)]
    elif what == 2:
        state[_other_name(one, rng)] = files[one]
    elif what == 3:
        state[one], state[other] = files[other], files[one]
    elif what == 4:
        state[_other_name(one, rng)] = state.pop(one)
    elif what == 5:
        state[_other_name(one, rng, class_=rng.choice("lucxy"))] = state.pop(one)
    elif what == 6:
        state[one] = files[one] + files[other]
        if rng.random() < 0.5:
            del state[other]
    elif what == 7:  # of any two kinds: what is in no segment any more is not read
        one, other = rng.sample(sorted(files), 2)
        state[one], state[other] = files[other], files[one]
    else:
        return _many(files, rng, what)
    return state


def _many(files: dict[str, bytes], rng: random.Random, what: int) -> State:
    state: State = dict(files)
    segments, sidecars = of(files, SEGMENT), of(files, SIDECAR)
    shuffled = rng.sample(segments, len(segments))
    if what == 8:  # renamed together with their sidecars: another order
        for name, place in zip(segments, shuffled):
            new = name[:2] + place[2:14] + name[14:]
            state[new] = state.pop(name)
            if name[:-4] + ".ack" in files:
                state[new[:-4] + ".ack"] = state.pop(name[:-4] + ".ack")
    elif what == 9:  # their contents at random
        state.update({name: files[content] for name, content in zip(segments, shuffled)})
    elif what == 10:
        state[segments[0]] = b"".join(files[name] for name in segments)
        for name in segments[1:]:
            if rng.random() < 0.9:
                del state[name]
    else:
        for name in rng.sample(sidecars, rng.randrange(1, len(sidecars) + 1)):
            del state[name]
    return state


def lines(files: dict[str, bytes], rng: random.Random, n: int) -> State:
    """Lines of one file doubled, in another order, left out, moved to another file."""
    name = any_file({name: data for name, data in files.items() if data}, rng)
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
        other = rng.choice(of(files, SEGMENT if SEGMENT.fullmatch(name) else SIDECAR))
        moved = b"".join(found[::2])
        rest = b"".join(found[1::2])
        if other == name:
            return {**files, name: moved + rest}
        return {**files, name: rest, other: moved + files[other]}
    return {**files, name: b"".join(found)}


ODDITIES = [
    "directory",
    "full directory",
    "fifo",
    "socket",
    "moved",
    "/nowhere/at/all",
    "/dev/zero",
]
ODDITIES += ["facts"]  # a link to a neighbour, or to itself
if hasattr(os, "geteuid") and os.geteuid() != 0:
    ODDITIES += ["unreadable"]


def odd(files: dict[str, bytes], rng: random.Random, n: int) -> State:
    """Something else in the place of one file, or of several."""
    state: State = dict(files)
    for _ in range(rng.choice((1, 1, 1, 3))):
        name = any_file(files, rng)
        state[name] = Odd(ODDITIES[n % len(ODDITIES)], files[name])
    return state


def tools(files: dict[str, bytes], rng: random.Random, n: int) -> State:
    """What editors, transfers and power cuts add."""
    name = any_file(files, rng)
    data = files[name]
    noise = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 300)))
    changed = (
        lambda: data.replace(b"\n", b"\r\n"),
        lambda: b"\xef\xbb\xbf" + data,
        lambda: data + noise.replace(b"\n", b""),
        lambda: data + bytes(BLOCK),
        lambda: data.decode("ascii", "replace").encode("utf-16"),
        lambda: data.rstrip(b"\n"),
    )[n % 6]()
    if n % 12 == 0:
        return {name: data.replace(b"\n", b"\r\n") for name, data in files.items()}
    return {**files, name: changed}


def huge(files: dict[str, bytes], rng: random.Random, n: int) -> State:
    """A sparse file of 300 MB in the place of one, or one that was made so long."""
    kinds = [of(files, SEGMENT), of(files, SIDECAR), ["facts"], ["history"], ["damaged"], ["lock"]]
    name = rng.choice(kinds[n % len(kinds)])
    kept = files.get(name, b"") if n % 4 else b""
    return {**files, name: Odd("grown" if kept else "huge", kept)}
