"""A first send loads libraries, and the host may have no descriptor left just then: silent, and no harm that stays."""

from __future__ import annotations

import json
import os

import pytest
from support.agent import run_python
from support.sockets import Server, answers, ok

LOADING = """
import json, os, resource, sys
from agent.transport import HttpTransport
from agent.values import Request, Unreachable

soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

def send():
    request = Request("POST", sys.argv[1], {}, b"")
    try:
        return HttpTransport(environ={}).send(request, timeout_s=5).status
    except Unreachable as error:
        return error.reason

class Wanting:
    # Asked before any other finder: from here on not one file can be opened.
    def __init__(self, name):
        self.name = name
    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))

def in_child(work):
    reads, writes = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writes, json.dumps(work()).encode())
        os._exit(0)
    os.close(writes)
    with open(reads) as answer:
        text = answer.read()
    assert os.waitpid(pid, 0)[1] == 0
    return json.loads(text)

def natives():
    before, status = set(sys.modules), send()
    assert status == 200, status
    files = {name: getattr(sys.modules[name], "__file__", None) or "" for name in set(sys.modules) - before}
    return sorted(name for name, file in files.items() if file.endswith((".so", ".pyd")))

def trial(name):
    def work():
        finder = Wanting(name)
        sys.meta_path.insert(0, finder)
        first = send()
        sys.meta_path.remove(finder)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        second = send()
        logging, connection = sys.modules.get("logging"), sys.modules.get("urllib3.connection")
        return [first, second, getattr(connection, "ssl", None) is not None, logging.root.handlers if logging else []]
    return in_child(work)

print(json.dumps({name: trial(name) for name in in_child(natives)}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and its limits")
def test_no_descriptor_is_left_at_any_library_that_a_first_send_loads() -> None:
    with Server(answers(ok(b""))) as server:
        found = run_python(LOADING, "http://127.0.0.1:%d/" % server.port)
    assert (found.returncode, found.stderr) == (0, "")
    trials = json.loads(found.stdout)
    assert {"_ssl", "_hashlib", "_blake2"} <= set(trials)
    for name, (first, *afterwards) in trials.items():
        assert first != 200 and afterwards == [200, True, []], (name, first, afterwards)
