"""What a client gets to read: the honest answer, or what a fault makes of it.

Refusing faults answer in the server's place; the others spoil an answer that was honestly made. Reo answers carry no
signature, so a fault about signatures leaves them as they are. Pure: how the bytes leave (dripped, cut short,
not at all) is ``handler``'s.
"""

from __future__ import annotations

from typing import Any, Dict, Optional

from .answers import Answer, Received, json_answer
from .faults import Fault
from .getkeymanager import REFUSALS, SAVED_WITH_ERRORS, refusal, saved
from .reo import AUTHENTICATION_FAILURE, failure
from .signing import Keys, seal

_PORTAL = b"""<!DOCTYPE html>
<html><head><title>Welcome to Hotel WiFi</title></head>
<body><h1>Please sign in</h1><form action="/login"><input name="room"></form></body></html>
"""


def honest(received: Received, keys: Keys) -> Answer:
    """The answer of a server that works."""
    body = seal(received.body, keys.active) if received.signed else received.body
    return json_answer(received.status, body)


def refuse(fault: Fault, *, endpoint: str, keys: Keys, now: float, elsewhere: str) -> Answer:
    """The answer under a fault that never lets the server see the request.

    ``elsewhere`` is the URL that "redirect" points to where the fault has none of its own.
    """
    licence = endpoint == "getkeymanager"
    name = fault.name
    if name[:4] in ("401-", "403-"):
        code = int(name[4:])
        status = REFUSALS[code][0]
        if not licence:
            return json_answer(status, AUTHENTICATION_FAILURE)
        return json_answer(status, seal(refusal(code, now), keys.active))
    if name == "429":
        return json_answer(429, {"message": "Too Many Attempts."})
    if name == "429-retry-after":
        body = {"message": "Too Many Attempts.", "retry_after": fault.retry_after}
        return json_answer(429, body, ("Retry-After", str(fault.retry_after)))
    if name == "redirect":
        location = ("Location", fault.redirect_to or elsewhere)
        return Answer(fault.status, b"", "text/html", (location,))
    if name == "portal":
        return Answer(200, _PORTAL, "text/html; charset=utf-8")
    if name == "unsigned-400":
        return json_answer(400, {"message": "Bad Request"} if licence else failure("Bad Request"))
    if name == "unsigned-401":
        body = {"message": "Unauthenticated."} if licence else AUTHENTICATION_FAILURE
        return json_answer(401, body)
    return json_answer(500, {"message": "Server Error"})


def spoil(fault: Fault, received: Received, *, keys: Keys, now: float, started_at: float) -> Answer:
    """The answer under a fault that strikes after the request was taken in."""
    if fault.name == "not-json":
        return Answer(received.status, b"this is not JSON")
    if received.signed:
        body = _spoil_signed(fault, received.body, keys, now, started_at)
        return honest(received, keys) if body is None else json_answer(received.status, body)
    if fault.name == "unknown-code":
        return json_answer(200, {"response_code": "299", "response": "Noted", "status": "noted"})
    return honest(received, keys)


def _spoil_signed(
    fault: Fault, response: Dict[str, Any], keys: Keys, now: float, started_at: float
) -> Optional[Dict[str, Any]]:
    name = fault.name
    if name == "unsigned":
        return {"response": response}
    if name == "wrong-key":
        return seal(response, keys.stranger)
    if name == "stale":
        return seal({**response, "timestamp": int(now) - fault.age_s}, keys.active)
    if name == "replay":  # the same bytes every time: both signature schemes are deterministic
        return seal(saved({}, started_at - fault.age_s), keys.active)
    if name == "forged-outer":
        return {**seal(response, keys.active), "response": _forged(response)}
    if name == "unknown-code":
        known = {"code": 200, "message": "Valid license key", "timestamp": int(now)}
        return seal(known, keys.active)
    return None


def _forged(response: Dict[str, Any]) -> Dict[str, Any]:
    if response["code"] == 830:
        lie = {"license_key": ["The selected license key is invalid."]}
        return {**response, "code": 831, "message": SAVED_WITH_ERRORS, "errors": lie}
    return saved({}, response["timestamp"])
