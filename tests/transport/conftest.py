"""What the transport's tests share: a transport, an authority, and a request that carries a secret."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from support.sockets import Authority

from agent.transport import HttpTransport


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One that the fixture ``transport`` trusts."""
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def transport(authority: Authority) -> Iterator[HttpTransport]:
    """Without a proxy."""
    made = HttpTransport(environ={}, ca_bundle=str(authority.path))
    yield made
    made.close()


@pytest.fixture
def full_port() -> Iterator[int]:
    """A port whose queue is full: the kernel drops what knocks, as a firewall does."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    knocking = []
    with suppress(OSError):
        while True:
            knocking.append(socket.socket())
            knocking[-1].settimeout(0.1)
            knocking[-1].connect(listener.getsockname())
    yield listener.getsockname()[1]
    for sock in [*knocking, listener]:
        sock.close()
