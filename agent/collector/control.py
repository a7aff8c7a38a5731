"""The control API below ``/_collector/``: ask what arrived, switch faults. No fault ever affects it.

Pure but for the desk that it reads and sets. Everything is JSON; a mistake is answered with 400 and the names that are
known. A web page that somebody has open is no caller: its browser says whose request it is, and under a name that was
made to lead here (DNS rebinding) nothing is answered.
"""

from __future__ import annotations

import json
from email.message import Message
from typing import Any, Dict, Optional

from ..errors import ConfigError
from .answers import Answer, json_answer
from .desk import Desk
from .faults import ENDPOINTS, FAULTS, Fault

PREFIX = "/_collector/"
_FAULT_FIELDS = frozenset(
    ("fault", "endpoint", "count", "retry_after", "status", "redirect_to", "age_s")
)


def hosts(desk: Desk) -> list[str]:
    """How a caller on this machine may name the collector."""
    return ["%s:%d" % (name, desk.port) for name in ("127.0.0.1", "localhost")]


def foreign(desk: Desk) -> Answer:
    """What is told to whom this is not for."""
    return json_answer(403, {"error": "this is for programs of this machine, at " + hosts(desk)[0]})


def is_of_a_page(desk: Desk, headers: Message) -> bool:
    """Whether a web page of somebody else asks."""
    ours = ["http://" + host for host in hosts(desk)]
    sites = headers.get_all("Sec-Fetch-Site", [])
    return not (
        all(origin in ours for origin in headers.get_all("Origin", []))
        and all(site in ("same-origin", "none") for site in sites)
    )


def refusal(desk: Desk, method: str, headers: Message) -> Optional[Answer]:
    """What a caller that knows us by another name is told, or sends what any page may; None for all others."""
    names = [name.lower() for name in headers.get_all("Host", [])]
    if names not in [[host] for host in hosts(desk)]:
        return foreign(desk)
    if method == "POST" and headers.get_content_type() != "application/json":
        return json_answer(415, {"error": "send it with Content-Type: application/json"})
    return None


def answer(desk: Desk, method: str, path: str, body: bytes) -> Answer:
    """The answer to one control request."""
    wanted = (method, path[len(PREFIX) :])
    if wanted == ("GET", "records"):
        return json_answer(200, desk.book.records())
    if wanted == ("DELETE", "records"):
        desk.book.forget(records=True)
        return json_answer(200, [])
    if wanted == ("GET", "requests"):
        return json_answer(200, desk.book.requests())
    if wanted == ("DELETE", "requests"):
        desk.book.forget(requests=True)
        return json_answer(200, [])
    if wanted == ("POST", "fault"):
        return _set_fault(desk, body)
    return json_answer(404, {"error": "GET or DELETE records, GET or DELETE requests, POST fault"})


def _set_fault(desk: Desk, body: bytes) -> Answer:
    try:
        asked = _parse(body)
        name, endpoint = asked.pop("fault"), asked.get("endpoint")
        if name is None:
            desk.clear(endpoint)
        else:
            desk.arm(Fault(name, **asked))
    except ConfigError as error:
        known = {"faults": FAULTS, "endpoints": ENDPOINTS}
        return json_answer(400, {"error": str(error), **known})
    return json_answer(200, {"fault": name, "endpoint": endpoint, "count": asked.get("count")})


def _parse(body: bytes) -> Dict[str, Any]:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict) or "fault" not in asked:
        raise ConfigError('send a JSON object like {"fault": "500"} or {"fault": null}', "fault")
    for field in asked:
        if field not in _FAULT_FIELDS:
            known = ", ".join(sorted(_FAULT_FIELDS))
            raise ConfigError("unknown field %r; known: %s" % (field, known), field)
    return asked
