"""The control API below ``/_collector/``: ask what arrived, switch faults. No fault ever affects it.

Pure but for the desk that it reads and sets. Everything is JSON; a mistake is answered with 400 and the names that are
known.
"""

from __future__ import annotations

import json
from typing import Any, Dict

from ..errors import ConfigError
from .answers import Answer, json_answer
from .desk import Desk
from .faults import ENDPOINTS, FAULTS, Fault

PREFIX = "/_collector/"
_FAULT_FIELDS = frozenset(
    ("fault", "endpoint", "count", "retry_after", "status", "redirect_to", "age_s")
)


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
