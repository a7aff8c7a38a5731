"""Reo.Dev's product usage API as its documents describe it: a payload in, a JSON answer out, nothing signed.

Every rule of the tables is checked, so that a client learns here and not from missing figures that a field is
wrong. Repeated event ids are kept: deduplication is not documented. Pure; storing and faults are decided above.
"""

from __future__ import annotations

import ipaddress
import json
from typing import Any, Callable, Dict, List, Mapping, Tuple

from .answers import Received

PATHS = {
    "/api/product/usage": "reo-usage",
    "/api/product/aggregateusage": "reo-aggregate",
}
SUCCESS = {"response_code": "200", "response": "Data Uploaded", "status": "success"}
USER_ID_TYPES = ("EMAIL", "SOCIAL", "LINKEDIN", "GITHUB", "USERNAME")
# The source of shipped software: Reo has a page of its own for its single events.
_SHIPPED = "TELEMETRY"
# Seconds of the year 5138; a client that sends milliseconds is far beyond it.
_MAX_EVENT_AT_S = 100_000_000_000

_Check = Callable[[Any], str]  # -> what the value has to be, or ""


def failure(response: str) -> Dict[str, Any]:
    """The documented body of a failure; its code is an integer, unlike that of a success."""
    return {"response_code": 400, "response": response, "status": "failure"}


AUTHENTICATION_FAILURE = failure("Authentication Failure")


def receive(
    endpoint: str, body: bytes, *, authorized: bool, content_type: str, failure_status: int
) -> Received:
    """Judge one request to ``endpoint``; ``failure_status`` is the undocumented HTTP status of a wrong API key."""
    payload, problems = _payload(body)
    if not authorized:
        return Received(payload, {}, 401, failure_status, AUTHENTICATION_FAILURE)
    if content_type.partition(";")[0].strip().lower() != "application/json":
        problems = ["Content-Type must be application/json"] + problems
    problems = problems or check(endpoint, payload)
    if problems:
        return Received(payload, {}, 400, 400, failure("; ".join(problems)))
    return Received(payload, {}, 200, 200, SUCCESS)


def _payload(body: bytes) -> Tuple[Dict[str, Any], List[str]]:
    try:
        document = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return {}, ["the body is not JSON"]
    payload = document.get("payload") if isinstance(document, dict) else None
    if not isinstance(payload, dict):
        return {}, ["payload must be an object"]
    return payload, []


def _refuse_constant(name: str) -> None:
    raise ValueError("%s is not JSON" % name)


def check(endpoint: str, payload: Mapping[str, Any]) -> List[str]:
    """What is wrong with ``payload``, in words; empty when every rule of the table holds."""
    shipped = endpoint == "reo-usage" and payload.get("source") == _SHIPPED
    required, optional = _SHIPPED_TABLES if shipped else _TABLES[endpoint]
    problems = []
    for field, rule in required.items():
        if payload.get(field) in (None, ""):
            problems.append("%s is required" % field)
        elif rule(payload[field]):
            problems.append("%s must be %s" % (field, rule(payload[field])))
    for field, rule in optional.items():
        if field in payload and rule(payload[field]):
            problems.append("%s must be %s" % (field, rule(payload[field])))
    if endpoint == "reo-aggregate" and not (payload.get("domain") or payload.get("ip_addr")):
        problems.append("domain or ip_addr is required")
    return problems


def _text(value: Any) -> str:
    return "" if isinstance(value, str) else "a string"


def _integer(value: Any) -> str:
    return "" if isinstance(value, int) and not isinstance(value, bool) else "an integer"


def _unix_seconds(value: Any) -> str:
    right = not _integer(value) and 0 < value < _MAX_EVENT_AT_S
    return "" if right else "an integer, Unix seconds"


def _event_id(value: Any) -> str:
    # The table says string, the vendor's own samples send a bare integer.
    return "" if not _text(value) or not _integer(value) else "a string"


def _object(value: Any) -> str:
    return "" if isinstance(value, dict) else "an object"


def _address(value: Any) -> str:
    if value == "":  # how the vendor's sample of aggregated events writes what is unknown
        return ""
    try:
        ipaddress.ip_address(str(value) if isinstance(value, str) else "")
    except ValueError:
        return "an IP address"
    return ""


def _one_of(*allowed: str) -> _Check:
    return lambda value: "" if value in allowed else " or ".join(allowed)


_SHARED: Dict[str, _Check] = {
    "activity_type": _text,
    "product_id": _text,
    "event_at": _unix_seconds,
}
_OPTIONAL: Dict[str, _Check] = {
    "environment": _text,
    "ip_addr": _address,
    "event_id": _event_id,
    "user_agent": _text,
    "meta": _object,
}
_USER: Dict[str, _Check] = {"user_id_type": _one_of("", *USER_ID_TYPES), "user_id": _text}
_SHIPPED_TABLES = ({"source": _text, **_SHARED}, {"domain": _text, **_USER, **_OPTIONAL})
_TABLES: Dict[str, Tuple[Dict[str, _Check], Dict[str, _Check]]] = {
    "reo-usage": (
        {
            "source": _one_of("PRODUCT_CLOUD", _SHIPPED),
            "user_id_type": _one_of(*USER_ID_TYPES),
            "user_id": _text,
            **_SHARED,
        },
        _OPTIONAL,
    ),
    "reo-aggregate": (
        {
            "mode": _one_of("DOMAIN"),
            "source": _one_of(_SHIPPED),
            "count": _integer,
            **_SHARED,
        },
        {"domain": _text, **_OPTIONAL},
    ),
}
