"""Target ``line``: any segment is read, line for line as an independent reader has it, and what is read can be sent.

A record has its checksum, the types it promises and one JSON text; read in two steps a segment gives the same as at
once. In an input that begins with ``\\0`` every line gets its checksum first.
"""

import atexit
import os
import random
import re
import shutil
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

from support.endpoints import API_KEY, reo, unsigned
from support.shared import PROJECT_ROOT

from agent import lines
from agent.spool import record as records
from agent.spool.record import Record
from agent.spool.segment import Reading

from . import mutate, sealing, strict
from .target import Target, promise

NAME = "l-0199c82cc000-0000000000000001.seg"
GOLDEN = PROJECT_ROOT / "tests" / "golden"
_LINE = re.compile(rb"([0-9a-f]{8}) ([\x00-\x7f]+)", re.DOTALL)


class Lined(Target):
    """A file of checksummed lines, in memory where that can be."""

    file = ""

    def __init__(self) -> None:
        memory = "/dev/shm" * (sys.platform == "linux")
        where = memory if os.access(memory, os.W_OK) else None
        self._directory = tempfile.mkdtemp(prefix="fuzz-", dir=where)
        atexit.register(shutil.rmtree, self._directory, ignore_errors=True)
        self._path = Path(self._directory, self.file)

    def _fresh(self) -> Any:
        """Who reads it, and has read nothing yet."""
        raise NotImplementedError

    def _read(self, *parts: bytes) -> Any:
        """What is read of it, a part at a time."""
        found = self._fresh()
        for number, part in enumerate(parts):
            self._put(part, "ab" if number else "wb")
            found.refresh()
        return found

    def _put(self, data: bytes, mode: str = "wb") -> None:
        with open(self._path, mode) as file:
            file.write(data)
        self._path.chmod(0o600)

    def mutate(self, data: bytes, rnd: random.Random) -> bytes:
        mark = data[:1] if data[:1] == b"\0" else b""
        found = data[len(mark) :].split(b"\n")
        at, to = rnd.randrange(len(found)), rnd.randrange(len(found))
        change = rnd.randrange(10)
        if change < 5:
            text = mutate.of_json(found[at] if mark else found[at][9:], rnd)
            found[at] = text if mark else checked(text)
        elif change == 5:
            found.insert(to, found[at])
        elif change == 6:
            found[at], found[to] = found[to], found[at]
        elif change == 7:
            del found[at]
        elif change == 8:
            found[at] += rnd.choice((b"\r", b"\0", b" ", b"\r\r"))
        else:
            return mutate.of_bytes(data, rnd)
        return mark + b"\n".join(found)


class Line(Lined):
    name, file = "line", NAME

    def __init__(self) -> None:
        super().__init__()
        self._licence, self._usage = unsigned(), reo(domain="acme.example")

    def seeds(self) -> list[bytes]:
        found = []
        for path in sorted(GOLDEN.glob("spool_*/*.seg")):
            data = path.read_bytes()
            found += [data, b"\0" + b"\n".join(line[9:] for line in data.split(b"\n"))]
        return [*found, b"", b"\n\r\n", b"\0{}\n[]\n1"]

    def run(self, data: bytes) -> str:
        data = unmarked(data)
        whole = self._read(data)
        kinds = self._judge_lines(data, whole)
        for stub in whole.records.values():
            self._judge_record(data, stub)
        cut = zlib.crc32(data) % (len(data) + 1)
        two = self._read(data[:cut], data[cut:])
        promise(repr(_all(two)) == repr(_all(whole)), "read in two, cut at %d, it differs" % cut)
        return "%s: %d records" % (" ".join(sorted(kinds)) or "nothing", min(len(whole.records), 3))

    def _fresh(self) -> Reading:
        return Reading(str(self._path))

    def _judge_lines(self, data: bytes, found: Reading) -> set[str]:
        """Compare each line's value, and the reading with all of them; what was seen."""
        kinds, counts, keys = set(), {records.DAMAGED: 0, records.NEWER: 0}, set()
        for line in data.split(b"\n")[:-1]:
            line = line.rstrip(b"\r")
            if not line.strip():
                continue
            value, expected = lines.decode(line), whole(line)
            promise(repr(value) == repr(expected), "%r is not %r" % (value, expected))
            entry = records.parse(value)
            if isinstance(entry, Record):
                promise(value.get("v") == records.FORMAT_VERSION, "of another version")
                keys.add(entry.key)
                kinds.add(entry.kind)
            else:
                kinds.add(entry)
                counts[entry] += 1
        seen = {records.DAMAGED: found.damaged, records.NEWER: found.newer}
        promise(seen == counts, "%r instead of %r" % (seen, counts))
        promise(set(found.records) == keys, "records: %r" % list(found.records))
        return kinds

    def _judge_record(self, data: bytes, stub: Record) -> None:
        _, at, length = stub.place
        record = records.parse(lines.decode(data[at : at + length].rstrip(b"\r")))
        promise(isinstance(record, Record) and record.key == stub.key, "not at its place")
        promise(record.kind in records.KINDS and abs(record.at) < 1e12, "%r" % record.to_json())
        promise(type(record.weight) is int and record.weight >= 0, "weight %r" % record.weight)
        promise((stub.weight, stub.total) == (record.weight, record.total), "a stub of another")
        line = lines.encode(record.to_json())
        promise(line.endswith(b"\n") and line.count(b"\n") == 1, "not one line: %r" % line)
        promise(whole(line[:-1]) is not None, "no valid checksum: %r" % line)
        again = records.parse(lines.decode(line[:-1]))
        promise(isinstance(again, Record), "not read back: %r" % line)
        promise(repr(again.to_json()) == repr(record.to_json()), "read back otherwise: %r" % line)
        adapter: Any = self._usage if record.usage else self._licence
        for mask in (False, True):
            request = adapter.request(record, now=sealing.NOW, mask=mask)
            promise(type(request.body) is bytes and request.body.isascii(), "a body to send")
        promise(API_KEY.encode() not in request.body, "the API key in a preview")


def unmarked(data: bytes) -> bytes:
    """Every line with its checksum, where a mark asks for it."""
    if data[:1] != b"\0":
        return data
    return b"\n".join(checked(text) for text in data[1:].split(b"\n"))


def checked(text: bytes) -> bytes:
    return b"%08x %b" % (zlib.crc32(text), text) if text else b""


def whole(line: bytes) -> Any:
    """The JSON value of a line that checks, else None; as ``SPOOL.md`` has it."""
    found = _LINE.fullmatch(line)
    if found is None or int(found[1], 16) != zlib.crc32(found[2]):
        return None
    try:
        value = strict.read(found[2], depth_max=200)
        return strict.as_dict(value, once=False) if _is_finite(value) else None
    except ValueError:
        return None


def _is_finite(value: Any) -> bool:
    if isinstance(value, strict.Pairs):
        return all(_is_finite(inner) for _, inner in value)
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or value - value == 0


def _all(found: Reading) -> Any:
    stubs = [(stub.to_json(), stub.place) for stub in found.records.values()]
    return stubs, found.damaged, found.newer


TARGET = Line
