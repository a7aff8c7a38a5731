"""Target ``line``: any segment is read, line for line as an independent reader has it, and what is read can be sent.

A record has its checksum, the types it promises and one JSON text; read in two steps a segment gives the same as at
once. In an input that begins with ``\\0`` every line gets its checksum first.
"""

from __future__ import annotations

import atexit
import os
import random
import re
import shutil
import tempfile
import zlib
from pathlib import Path
from typing import Any

from support.endpoints import API_KEY, config
from support.shared import PROJECT_ROOT

from agent import endpoints, jsonline
from agent.config import GetKeyManager, Reo
from agent.spool import records
from agent.spool.records import Record
from agent.spool.view import SegmentView

from . import mutate, sealing, strict
from .target import Target, promise

NAME = "l-0199c82cc000-0000000000000001.seg"
GOLDEN = PROJECT_ROOT / "tests" / "golden"
_LINE = re.compile(rb"([0-9a-f]{8}) ([\x00-\x7f]+)", re.DOTALL)


class Line(Target):
    name = "line"

    def __init__(self, *, shared: bool = True) -> None:
        super().__init__(shared=shared)
        memory = "/dev/shm"
        where = memory if os.access(memory, os.W_OK) else None
        self._directory = tempfile.mkdtemp(prefix="fuzz-", dir=where)
        atexit.register(shutil.rmtree, self._directory, ignore_errors=True)
        self._path = os.path.join(self._directory, NAME)
        licence: Any = GetKeyManager(
            base_url="https://keys.acme.example", api_key=API_KEY, allow_unsigned=True
        )
        usage: Any = Reo(api_key=API_KEY, domain="acme.example")
        self._licence, self._usage = (
            endpoints.adapter(one, config(one)) for one in (licence, usage)
        )

    def seeds(self) -> list[bytes]:
        found = []
        for path in sorted(GOLDEN.glob("spool_*/*.seg")):
            data = path.read_bytes()
            found += [data, b"\0" + b"\n".join(line[9:] for line in data.split(b"\n"))]
        return [*found, b"", b"\n\r\n", b"\0{}\n[]\n1"]

    def run(self, data: bytes) -> str:
        if data[:1] == b"\0":
            data = b"\n".join(_checked(text) for text in data[1:].split(b"\n"))
        Path(self._path).write_bytes(data)
        view = SegmentView(self._directory, NAME)
        view.refresh()
        promise(not view.trouble, view.trouble)
        kinds = self._judge_lines(data, view)
        for record in view.records.values():
            self._judge_record(record)
        self._judge_in_two(data, view)
        return "%s: %d records" % (" ".join(sorted(kinds)) or "nothing", min(len(view.records), 3))

    def _judge_lines(self, data: bytes, view: SegmentView) -> set[str]:
        """Compare each line's value, and the view with all of them; what was seen."""
        *lines, rest = data.split(b"\n")
        lines = [
            line.rstrip(b"\r") for line in (*lines, *([rest] if _whole(rest) is not None else []))
        ]
        kinds, damaged, newer, keys = set(), [], 0, set()
        for line in filter(None, lines):
            value, expected = jsonline.decode(line), _whole(line)
            promise(repr(value) == repr(expected), "%r is not %r" % (value, expected))
            entry = records.parse(value, NAME)
            if isinstance(entry, (Record, dict)):
                promise(value.get("v") == records.FORMAT_VERSION, "of another version")
            if isinstance(entry, Record):
                keys.add(entry.key)
                kinds.add(entry.kind)
            elif isinstance(entry, dict):
                kinds.add("total")
            else:
                promise(entry in (records.NEWER, records.DAMAGED), "parse: %r" % entry)
                kinds.add(entry)
                newer += entry == records.NEWER
                damaged += [line[:1024]] if entry == records.DAMAGED else []
        promise(view.damaged == damaged, "damaged: %r" % view.damaged)
        promise(view.newer == newer, "newer: %d" % view.newer)
        promise(set(view.records) == keys, "records: %r" % list(view.records))
        return kinds

    def _judge_record(self, record: Record) -> None:
        promise(record.kind in records.KINDS and abs(record.at) < 1e12, "%r" % vars(record))
        promise(type(record.weight) is int and record.weight >= 0, "weight %r" % record.weight)
        promise(record.stub().weight == record.weight, "a stub of another weight")
        line = jsonline.encode(record.to_json())
        promise(line.endswith(b"\n") and line.count(b"\n") == 1, "not one line: %r" % line)
        promise(_whole(line[:-1]) is not None, "no valid checksum: %r" % line)
        again = records.parse(jsonline.decode(line[:-1]), NAME)
        promise(isinstance(again, Record), "not read back: %r" % line)
        promise(repr(_facts(again)) == repr(_facts(record)), "read back otherwise: %r" % line)
        adapter: Any = self._usage if record.usage else self._licence
        for mask in (False, True):
            request = adapter.request(
                record.kind, record.body, event_id=record.id, now=sealing.NOW, mask=mask
            )
            promise(type(request.body) is bytes and request.body.isascii(), "a body to send")
        promise(API_KEY.encode() not in request.body, "the API key in a preview")

    def _judge_in_two(self, data: bytes, whole: SegmentView) -> None:
        """Read a part, then the rest."""
        cut = zlib.crc32(data) % (len(data) + 1)
        rest = data[:cut].rpartition(b"\n")[2]
        if _whole(rest) is not None and data[cut : cut + 1] != b"\n":
            return  # a line that its writer finished but for the newline, and then went on
        Path(self._path).write_bytes(data[:cut])
        view = SegmentView(self._directory, NAME)
        view.refresh()
        with open(self._path, "ab") as file:
            file.write(data[cut:])
        view.refresh()
        promise(repr(_all(view)) == repr(_all(whole)), "read in two, cut at %d, it differs" % cut)

    def mutate(self, data: bytes, rnd: random.Random) -> bytes:
        mark = data[:1] if data[:1] == b"\0" else b""
        lines = data[len(mark) :].split(b"\n")
        at, to = rnd.randrange(len(lines)), rnd.randrange(len(lines))
        change = rnd.randrange(10)
        if change < 5:
            text = lines[at] if mark else lines[at][9:]
            text = mutate.of_json(text, rnd)
            lines[at] = text if mark else _checked(text)
        elif change == 5:
            lines.insert(to, lines[at])
        elif change == 6:
            lines[at], lines[to] = lines[to], lines[at]
        elif change == 7:
            del lines[at]
        elif change == 8:
            lines[at] += rnd.choice((b"\r", b"\0", b" ", b"\r\r"))
        else:
            return mutate.of_bytes(data, rnd)
        return mark + b"\n".join(lines)


def _checked(text: bytes) -> bytes:
    return b"%08x %b" % (zlib.crc32(text), text) if text else b""


def _whole(line: bytes) -> Any:
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


def _facts(record: Record) -> list[tuple[str, Any]]:
    names = ("kind", "endpoint", "id", "at", "body", "run", "epoch", "ended_at", "why", "revived")
    return [(name, getattr(record, name)) for name in names]


def _all(view: SegmentView) -> Any:
    return [*map(_facts, view.records.values())], view.damaged, view.newer


TARGET = Line
