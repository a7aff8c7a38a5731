"""Requests that carry a secret, and what may be seen of it when they fail."""

import pickle
import socket

import pytest

from agent.transport import HttpTransport
from agent.values import Request, Unreachable

CANARY = "s3cr3t-canary"


def post(
    port: int, body: bytes = b"a=1", path: str = "/x", scheme: str = "http", host: str = "127.0.0.1"
) -> Request:
    """A request to ``port`` of this machine, or of ``host``."""
    headers = {"User-Agent": "product/1", "X-API-KEY": CANARY}
    return Request("POST", "%s://%s:%d%s" % (scheme, host, port, path), headers, body)


def refused(
    transport: HttpTransport, request: Request, timeout_s: float = 10, secrets: tuple[str, ...] = ()
) -> Unreachable:
    """Why no answer came; the error shows no secret."""
    with pytest.raises(Unreachable) as caught:
        transport.send(request, timeout_s=timeout_s)
    error = caught.value
    assert error.__cause__ is None and error.__context__ is None
    shown = "%s %r %r %r" % (error, error, error.args, pickle.dumps(error))
    assert not [secret for secret in (CANARY, *secrets) if secret in shown]
    again = pickle.loads(pickle.dumps(error))  # as between processes
    assert (again.reason, again.stage) == (error.reason, error.stage)
    assert error.stage == "" or error.reason.startswith(error.stage + ": ")
    return error


def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
