"""Servers out of a function: what a product's transport is told, without a socket, for tests of many passes."""

import json
from collections.abc import Callable
from typing import Any, Union
from urllib.parse import parse_qs

from agent.values import Response, Unreachable

Answer = Union[Response, Unreachable]


def response(status: int = 200, body: Any = b"", complete: bool = True, **headers: str) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, named, data, complete)


# In the servers' own words, where nothing is signed.
YES = {
    "licence": response(200, {"response": {"code": 830, "message": "", "errors": []}}),
    "usage": response(200, {"response_code": "200", "response": "", "status": "success"}),
}
EITHER = response(200, {"status": "success", "response": {"code": 830}})
REFUSAL = {"response_code": 400, "response": "Bad Request", "status": "failure"}
NO = {"licence": response(400, {"response": {"code": 400}}), "usage": response(400, REFUSAL)}
HTML = response(400, b"<html><h1>Bad Request</h1></html>", server="a gateway")
DOWN = Unreachable("no route")


class Scripted:
    """A transport: ``answer(name)`` says what comes; ``sent`` holds the names (texts, activities) of what was sent."""

    def __init__(self, answer: Callable[[str], Answer]) -> None:
        self.answer = answer
        self.sent: list[str] = []

    def send(self, request: Any, *, timeout_s: float) -> Response:
        name = name_of(request.body)
        self.sent.append(name)
        found = self.answer(name)
        if isinstance(found, Unreachable):
            raise found.with_traceback(None)  # which would hold all that it was raised in
        return found

    def rest(self) -> None: ...

    close = interrupt = rest


class Network(Scripted):
    """One that takes every record, unsigned, while it is ``up``, and is no network at all while it is not."""

    def __init__(self, *, up: bool = True) -> None:
        super().__init__(lambda name: EITHER if self.up else DOWN)
        self.up = up


def name_of(body: bytes) -> str:
    """The text of a licence record, the activity of usage."""
    if body.startswith(b"{"):
        return str(json.loads(body)["payload"]["activity_type"])
    return parse_qs(body.decode()).get("text_data", [""])[0]
