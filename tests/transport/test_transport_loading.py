"""A first send loads libraries, and the host may have no descriptor left just then: silent, and no harm that stays."""

import os

import pytest
from support.agent import run_python
from support.sockets import Server, answers, ok

LOADING = """
import os, resource, sys
from agent.transport import HttpTransport
from agent.values import Request, Unreachable

limits = resource.getrlimit(resource.RLIMIT_NOFILE)

def send():
    try:
        return HttpTransport(environ={}).send(Request("POST", sys.argv[1], {}, b""), timeout_s=5).status
    except Unreachable as error:
        return error.reason

class Wanting:
    # Asked before any other finder: from here on not one file can be opened.
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[2]:
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))

sys.meta_path.insert(0, Wanting())
first = send()
del sys.meta_path[0]
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
print(first != 200, send(), sys.modules["urllib3.connection"].ssl is not None)
import logging
print(logging.root.handlers)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs the limits of POSIX")
@pytest.mark.parametrize("name", ["_socket", "_ssl", "_hashlib", "_blake2"])
def test_no_descriptor_is_left_at_any_library_that_a_first_send_loads(name: str) -> None:
    with Server(answers(ok(b""))) as server:
        found = run_python(LOADING, "http://127.0.0.1:%d/" % server.port, name)
    assert (found.returncode, found.stderr, found.stdout) == (0, "", "True 200 True\n[]\n")
