"""HTTP on one connection: reads requests, asks the desk, and writes the answer in the manner that a fault demands.

Faults about *how* bytes leave (reset, silence, dripping, cut short, endless, not at all) live here; what the bytes say
comes from the desk. Requests to the control API pass by every fault and are not listed.
"""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from typing import Dict, Optional

from . import control
from .answers import Answer, json_answer
from .desk import ENDPOINT_OF_PATH, Desk
from .faults import Fault
from .listener import Connection

MAX_BODY_BYTES = 4_000_000
HUGE_BYTES = 10_000_000


class _Unreadable(Exception):
    """A request whose body is not read; ``status`` says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.answer = json_answer(status, {"message": message})


class Handler(BaseHTTPRequestHandler):
    """Serves one connection until either side ends it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a dripped byte leaves at once

    def __init__(self, client: Connection, desk: Desk) -> None:
        self.client, self.desk = client, desk
        super().__init__(client.socket, ("127.0.0.1", 0), None)  # type: ignore[arg-type]

    def handle_one_request(self) -> None:
        """Until its first line is there, a closing collector need not wait for it."""
        self.client.idle = True
        super().handle_one_request()

    def parse_request(self) -> bool:
        """The first line is there."""
        self.client.idle = False
        return super().parse_request()

    def do_POST(self) -> None:
        """Any request; the base class looks for one method per verb."""
        path = self.path.partition("?")[0]
        if control.is_of_a_page(self.desk, self.headers):
            self._reject(control.foreign(self.desk))
        elif path.startswith(control.PREFIX):
            self._control(path)
        else:
            self._protocol(path)

    do_GET = do_DELETE = do_PUT = do_POST

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""

    def _control(self, path: str) -> None:
        try:
            body = self._read_body()
        except _Unreadable as unreadable:
            return self._reject(unreadable.answer)
        refusal = control.refusal(self.desk, self.command, self.headers)
        self._send(refusal or control.answer(self.desk, self.command, path, body))

    def _protocol(self, path: str) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        endpoint = ENDPOINT_OF_PATH.get(path)
        posted = endpoint is not None and self.command == "POST"
        fault = self.desk.faults.take(endpoint) if endpoint and posted else None
        unreadable: Optional[_Unreadable] = None
        body = b""
        if not (fault and fault.name == "refuse"):
            try:
                body = self._read_body()
            except _Unreadable as reason:
                unreadable = reason
        self._note(endpoint, headers, body, fault)
        if fault is not None and fault.name in ("refuse", "blackhole"):
            self._log(endpoint, "-", fault)
            return self._stay_silent(fault)
        if unreadable is not None:
            return self._reject(unreadable.answer)
        if endpoint is None:
            return self._send(json_answer(404, {"message": "Not Found"}))
        if not posted:
            allow = ("Allow", "POST")
            return self._send(json_answer(405, {"message": "Method Not Allowed"}, allow))
        answer = self.desk.answer(endpoint, headers, body, fault)
        self._log(endpoint, answer.status, fault)
        delay_s = self.desk.answer_delay_s
        if not (delay_s and self.client.pause(delay_s)):
            self._send(answer, fault)

    def _note(
        self, endpoint: Optional[str], headers: Dict[str, str], body: bytes, fault: Optional[Fault]
    ) -> None:
        self.desk.book.note_request(
            method=self.command,
            endpoint=endpoint,
            path=self.path,
            headers=headers,
            body=body,
            fault=fault.name if fault else None,
        )

    def _log(self, endpoint: Optional[str], status: object, fault: Optional[Fault]) -> None:
        if self.desk.log is not None:
            self.desk.log("%s %s%s" % (endpoint, status, " " + fault.name if fault else ""))

    def _read_body(self) -> bytes:
        length = self.headers.get("Content-Length")
        if "Transfer-Encoding" in self.headers:
            raise _Unreadable(501, "Send the body whole, with a Content-Length")
        if length is None:
            if self.command in ("POST", "PUT"):
                raise _Unreadable(411, "Content-Length is required")
            return b""
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            raise _Unreadable(400, "Content-Length is not a number")
        if int(length) > MAX_BODY_BYTES:
            raise _Unreadable(413, "At most %d bytes" % MAX_BODY_BYTES)
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise ConnectionError("the client left in the middle of a request")
        return body

    def _reject(self, answer: Answer) -> None:
        self.close_connection = True
        self._send(answer)
        self.client.linger()

    def _stay_silent(self, fault: Fault) -> None:
        self.close_connection = True
        if fault.name == "refuse":
            self.client.reset()
        else:
            self.client.hold(fault)

    def _send(self, answer: Answer, fault: Optional[Fault] = None) -> None:
        manner = fault.name if fault else ""
        if manner in ("truncated", "drop-answer"):
            self.close_connection = True
        body = answer.body
        length_bytes = max(HUGE_BYTES, len(body)) if manner == "huge" else len(body)
        head = answer.head(
            now=self.desk.now(), length_bytes=length_bytes, close=self.close_connection
        )
        if manner == "drop-answer":
            return
        if manner == "truncated":
            self.wfile.write(head + body[: len(body) // 2])
        elif fault is not None and manner == "drip-headers":
            self._drip(head + body, fault)
        elif fault is not None and manner == "drip-body":
            self.wfile.write(head)
            self._drip(body, fault)
        else:
            self.wfile.write(head + body)
            self._pad(length_bytes - len(body))

    def _drip(self, data: bytes, fault: Fault) -> None:
        self.client.held_by = fault
        for position in range(len(data)):
            if fault.over.is_set() or self.client.pause(self.desk.drip_interval_s):
                self.close_connection = True
                return
            self.wfile.write(data[position : position + 1])
        self.client.held_by = None

    def _pad(self, count_bytes: int) -> None:
        # Blanks behind a document are JSON still: only its size is wrong with a huge answer.
        while count_bytes > 0:
            self.wfile.write(b" " * min(count_bytes, 65536))
            count_bytes -= 65536
