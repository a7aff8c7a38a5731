"""Spools of any size, made at once; and a server that takes everything, without a socket."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from support.agent import START

from agent import jsonline
from agent.spool import names
from agent.spool.records import Record
from agent.transport import Response, Unreachable

RUN = "1a2b3c4d"
SERVER, USAGE = "getkeymanager", "reo"


def record(n: int, at: float, text: str = "CALL HOME") -> Record:
    """What ``call_home`` leaves for the licence server."""
    body = {
        "data_type": "text",
        "text_data": text,
        "data_group": "call-home",
        "user_identifier": "0123456789abcdef" * 2,
        "license_key": "demo-license-key",
        "activation_identifier": "activation-1",
        "product_id": "42",
        "product_version": "5.2.5",
    }
    return Record("licence", SERVER, "%032x" % n, at, body, run=RUN)


def fill(
    directory: Path,
    pending: int,
    *,
    segments: int,
    at: float = START,
    text: str = "CALL HOME",
    class_: str = "l",
) -> None:
    """Make a state directory in which ``pending`` records wait in about so many ``segments``."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    each = max(1, -(-pending // max(1, segments)))
    for number, first in enumerate(range(0, pending, each)):
        path = directory / names.segment(class_, int(at * 1000) + number)
        lines = []
        for n in range(first, min(first + each, pending)):
            one = record(n, at + n / 1000, text)
            if class_ in names.DEAD_CLASSES:
                one.why = "rejected: HTTP 400"
            if class_ in names.USAGE_CLASSES:
                one.kind, one.endpoint, one.body = "usage", USAGE, {"activity_type": text}
            lines.append(jsonline.encode(one.to_json()))
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(fd, "wb") as file:
            file.write(b"".join(lines))


class Network:
    """A transport: ``up`` it takes every record, unsigned; down it is no network at all."""

    def __init__(self, *, up: bool = True) -> None:
        self.up = up
        self.sent = 0
        self.requests: list[Any] = []
        self.keeping = False

    def send(self, request: Any, *, timeout_s: float) -> Response:
        self.sent += 1
        if self.keeping:
            self.requests.append(request)
        if not self.up:
            raise Unreachable("no network")
        answer: dict[str, Any] = {"status": "success", "response": {"code": 830}}
        return Response(200, {}, json.dumps(answer).encode("ascii"), True)

    def rest(self) -> None:
        pass

    def close(self) -> None:
        pass

    def interrupt(self) -> None:
        pass
