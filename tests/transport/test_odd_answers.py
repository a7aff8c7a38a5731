"""What is left of one answer is nobody's: two endpoints on one server, and a line that says more, less, or too late.

Answers in odd clothes, each alone: ``python -m tests.networks -k answer``.
"""

import json
import socket
from pathlib import Path

import pytest
from support.agent import config, pass_
from support.sockets import Server, ok
from support.spool import FakeClock

import agent

# What either endpoint would take for its own record's.
YES = ok(json.dumps({"status": "success", "response": {"code": 830}}).encode())
INTERIM = b"HTTP/1.1 102 Processing\r\n\r\n" + b"HTTP/1.1 103 Hints\r\nLink: </x>\r\n\r\n" * 2
# What comes in answer to a connection's first request, and to any further one; how many records are delivered.
LINES = {
    "as it should": (YES, YES, 2),
    "interim answers": (INTERIM + YES, INTERIM + YES, 2),
    "interim ones alone, the last too late": (INTERIM, YES, 0),
    "two answers": (YES + YES, b"", 2),
    "an answer, and another one's beginning": (YES + INTERIM, YES, 2),
    "more than its length": (ok(b"") + YES, b"", 0),
    "a body where none may be": (b"HTTP/1.1 204 No\r\n\r\n" + YES, b"", 0),
    "less than its length": (YES.replace(b"\r\n\r\n", b"\r\nX: y\r\n\r\n")[:-9], YES, 0),
}


@pytest.mark.parametrize("name", LINES)
def test_no_endpoint_takes_what_was_left_of_another_ones_answer(tmp_path: Path, name: str) -> None:
    first, further, delivered = LINES[name]

    def says(connection: socket.socket, server: Server) -> None:
        answer = first
        while server.read_request(connection):
            connection.sendall(answer)
            answer = further

    with Server(says) as server:
        url, limit_s = "http://127.0.0.1:%d" % server.port, 10 if delivered else 1
        of = config(url, (), tmp_path, request_timeout_s=limit_s, durability="process")
        with agent.Agent(of, clock=FakeClock(), environ={}) as product:
            product.call_home()
            report = product.flush()
            assert (report.delivered, report.pending) == (delivered, 2 - delivered)
            assert len(server.requests) == 2, "each was asked for itself"
            for _ in range(3):
                pass_(product)
            assert len(server.requests) == 2, "and not again before its time"
