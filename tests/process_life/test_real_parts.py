"""Real libraries, and another Python, that put something of their own into the place of what we use."""

import os
import shutil
import socket
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.agent import Desk, run_python
from support.product import PRODUCT, quiet, says
from support.sockets import Authority, Server, answers, ok, silent

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX")
OURS = (
    "host content-length content-type user-agent accept accept-encoding idempotency-key x-api-key"
)


def needs(library: str) -> None:
    """Skip where it is not installed; nothing of it is loaded here."""
    name, _, rest = library.partition(".")
    if find_spec(name) is None or (rest and find_spec(library) is None):
        pytest.skip("needs " + library)


# What adds headers and makes an event of each span; ``begin`` gives one a name that is nobody's business.
INSTRUMENTS = {
    "http.client": """
import contextlib, http.client
Connection, begin, tell = http.client.HTTPConnection, contextlib.nullcontext, int
def traced(self, *given, real=Connection.putrequest, **more):
    real(self, *given, **more)
    self.putheader("traceparent", "00-1-2-01")
    t.track("SPAN")
Connection.putrequest, Connection.debuglevel = traced, 1
""",
    "sentry_sdk": """
import sentry_sdk, sentry_sdk.transport
class Tells(sentry_sdk.transport.Transport):
    def capture_event(self, *given): t.track("SPAN")
    capture_envelope = capture_event
sentry_sdk.init("http://key@127.0.0.1:9/1", traces_sample_rate=1.0, transport=Tells)
begin = lambda: sentry_sdk.start_transaction(op="open", name="secret.odt")
tell = sentry_sdk.flush
""",
    "opentelemetry.instrumentation.urllib3": """
from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
class Tells:
    def export(self, spans): [t.track("SPAN") for span in spans]
    def shutdown(self): pass
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(Tells()))
URLLib3Instrumentor().instrument(tracer_provider=provider)
begin = lambda: provider.get_tracer("x").start_as_current_span("secret.odt")
tell = provider.force_flush
""",
}


@pytest.mark.parametrize("library", INSTRUMENTS)
def test_an_instrumented_host_adds_no_header_and_makes_no_event_of_ours(
    at: Desk, library: str
) -> None:
    needs(library)
    code = """
with begin():
    t.call_home(), t.track("EXPORT")
    for _ in range(4):  # each round would send what the last one was made an event of
        assert t.flush(10.0).drained
        tell()
"""
    quiet(at, code, product=INSTRUMENTS[library] + PRODUCT, start_delay_s=0, deliver="manual")
    assert at.activities() == ["CALL HOME", "EXPORT"] and at.texts() == ["CALL HOME"]
    for request in at.collector.requests():
        assert set(request["headers"]) <= set(OURS.split())


@pytest.mark.parametrize("deliver", ["thread", "manual"])
def test_a_clock_that_freezegun_stops_lengthens_no_flush(at: Desk, deliver: str) -> None:
    needs("freezegun")

    def slow(connection: socket.socket, server: Server) -> None:
        while server.read_request(connection) and not server.ended.wait(0.05):
            connection.sendall(ok(b'{"status":"success"}'))

    code = """
t = agent.Agent(config.replace(endpoints=config.endpoints[1:]))
for _ in range(200):
    t.track("EXPORT")
with freezegun.freeze_time("2012-01-14"):
    assert t.flush(0.5).pending > 100
    t.close()
"""
    before = "import freezegun\n" + PRODUCT
    with Server(slow) as server:
        url = "http://127.0.0.1:%d" % server.port
        quiet(at, code, url=url, product=before, start_delay_s=0, deliver=deliver)


def in_turn(connection: socket.socket, server: Server) -> None:
    """Answers, then closes, then says nothing."""
    no = answers(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
    [no, lambda *_: None, silent][server.accepted - 1](connection, server)


PATCHES = {
    "signal": "import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n",
    "truststore": "import truststore; truststore.inject_into_ssl()\n",
    "socks": "import socket, socks; socket.socket = socks.socksocket\n",
    "pypy3": "",
}


@pytest.mark.parametrize("what", PATCHES)
def test_tls_works_fails_and_ends_in_time(
    at: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    if what == "pypy3":
        monkeypatch.setattr(sys, "executable", shutil.which(what) or pytest.skip("needs " + what))
        if run_python("import urllib3").returncode:
            pytest.skip("needs urllib3 for " + what)
    else:
        needs(what)
    authority = Authority(tmp_path / "ca")
    code = """
config = config.replace(ca_bundle=%r, endpoints=(
    agent.GetKeyManager(base_url=url.replace("http:", "https:"), api_key="k", allow_unsigned=True),))
t, said = agent.Agent(config), []
for limit_s in (5.0, 5.0, 0.5):
    t.record_text("x" * 30000, data_group="g")  # more than one write, so that SIGPIPE comes
    t.flush(limit_s)
    said.append(t.status()["endpoints"][0]["reason"])
print(json.dumps(said))
"""
    with Server(authority.over_tls(in_turn, "localhost")) as server:
        given = {"url": "http://localhost:%d" % server.port, "product": PATCHES[what] + PRODUCT}
        said = says(at, code % str(authority.path), **given, deliver="manual")
    worked, closed, late = said
    assert worked == "retry: HTTP 500" and closed.startswith("offline: answer: ")
    assert late.startswith("offline: answer: no answer within ")
