"""What the transport's tests share: a transport, an authority, and a request that carries a secret."""

from collections.abc import Iterator

import pytest
from support.sockets import Authority, full_queue

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
    """A port at which connecting ends in nothing."""
    with full_queue() as port:
        yield port
