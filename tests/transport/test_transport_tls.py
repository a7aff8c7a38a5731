"""Whom we believe to be the server: how an authority is found, and what must not pass.

Certificates that are over, early, weak, revoked or of nobody: ``tests/networks``.
"""

import datetime
import ssl
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import pytest
from support.agent import run_python
from support.requests import post, refused as no_answer
from support.sockets import Authority, Server, answers, drips, names, ok, tls
from support.systems import no_wine

from agent import transport as module
from agent.transport import HttpTransport, client_context
from agent.values import Response

NAME = "keys.example"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"), "Another CA")


def https(certificate: Path, configure: Any = lambda context: None) -> Server:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    configure(context)
    return Server(tls(context, answers(ok(b"yes"))))


@contextmanager
def transport(
    ca_bundle: Optional[Path] = None, environ: Optional[Mapping[str, str]] = None
) -> Iterator[HttpTransport]:
    bundle = None if ca_bundle is None else str(ca_bundle)
    made = HttpTransport(proxy="direct", environ=environ or {}, ca_bundle=bundle)
    yield made
    made.close()


def get(server: Server, *, host: str = NAME, **how: Any) -> Response:
    """One request to ``server`` under the name ``host``."""
    with names("127.0.0.1:%d" % server.port), transport(**how) as made:
        return made.send(post(server.port, scheme="https", host=host), timeout_s=10)


def refused(server: Server, *, host: str = NAME, **how: Any) -> str:
    with names("127.0.0.1:%d" % server.port), transport(**how) as made:
        error = no_answer(made, post(server.port, scheme="https", host=host))
    assert error.stage == "TLS"
    assert server.requests == []
    return error.reason


# --- by which route an authority is found -------------------------------------------------------


def test_the_configuration_beats_the_environment_and_that_the_system(
    authority: Authority, other: Authority
) -> None:
    environ = {"SSL_CERT_FILE": str(authority.path)}
    with https(authority.issue(NAME)) as server:
        refused(server, ca_bundle=other.path, environ=environ)
        assert get(server, environ=environ).body == b"yes"
    context, store = client_context(None, environ)
    assert (context.cert_store_stats()["x509"], store) == (1, "SSL_CERT_FILE")


def test_an_authority_that_was_replaced_on_disk_is_read_after_a_rest(
    authority: Authority, other: Authority, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(other.path.read_bytes())
    with https(authority.issue("127.0.0.1")) as server, transport(bundle) as made:
        no_answer(made, post(server.port, scheme="https"))
        bundle.write_bytes(authority.path.read_bytes())
        made.rest()
        assert made.send(post(server.port, scheme="https"), timeout_s=10).body == b"yes"


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_bundle_that_cannot_be_used_is_named(
    authority: Authority, tmp_path: Path, content: Optional[str]
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with https(authority.issue(NAME)) as server:
        assert refused(server, ca_bundle=path).startswith("TLS: ca_bundle cannot be read: ")
        if content is not None:
            reason = refused(server, environ={"SSL_CERT_FILE": str(path)})
            assert reason.startswith("TLS: SSL_CERT_FILE cannot be read: ")


EMPTY_SYSTEM = """
import sys
sys.modules["certifi"] = {certifi}
from agent import transport
transport._BUNDLES = {bundles!r}
try:
    context, store = transport.client_context(None, {{}})
    print(context.cert_store_stats()["x509"], store)
except ImportError as error:
    print("without", error.name)
"""


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="these have a store of their own")
def test_a_program_frozen_on_another_system_finds_this_ones_authorities_or_certifi_or_says_so(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its OpenSSL looks for authorities where there are none."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/cert.pem")
    monkeypatch.setenv("SSL_CERT_DIR", "/nowhere/certs")
    path = str(authority.path)
    certifi = "type('certifi', (), {'where': lambda: %r})" % path
    for bundles, package, said in (
        ("nowhere/ca.pem ..%s" % path, "None", "1 /etc/..%s" % path),
        ("nowhere/ca.pem", certifi, "1 " + path),
        ("nowhere/ca.pem", "None", "without certifi"),
    ):
        done = run_python(EMPTY_SYSTEM.format(bundles=bundles, certifi=package))
        assert (done.stdout.strip(), done.stderr) == (said, "")


@no_wine  # whose verifier takes any authority
@pytest.mark.skipif(sys.version_info < (3, 10), reason="truststore needs 3.10")
def test_the_systems_own_verifier_is_used_where_there_is_one(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    truststore = pytest.importorskip("truststore")
    monkeypatch.setattr(module, "sys", SimpleNamespace(platform="win32"))
    before = ssl.SSLContext
    context, store = client_context(None, {})
    assert isinstance(context, truststore.SSLContext) and "truststore" in store
    assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert ssl.SSLContext is before and not isinstance(before, truststore.SSLContext)
    # What is named goes before, and that is OpenSSL's business.
    named, store = client_context(str(authority.path), {})
    assert type(named) is ssl.SSLContext and store == "ca_bundle"
    with https(authority.issue(NAME)) as server:
        assert "certificate refused" in refused(server)
        # Its own way to a private authority in the system's store: OpenSSL's default paths.
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
        assert get(server).body == b"yes"


# --- who must not pass --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hosts, asked", [(("keys.example.evil.example",), NAME), ((), NAME), ((NAME,), "127.0.0.1")]
)
def test_another_hosts_certificate(
    authority: Authority, hosts: tuple[str, ...], asked: str
) -> None:
    # Without alternative names the common name is right, and no host name all the same.
    with https(authority.issue(*hosts, name=NAME)) as server:
        assert "mismatch" in refused(server, host=asked, ca_bundle=authority.path)


def test_a_server_of_tls_1_2(authority: Authority) -> None:
    def pin(context: ssl.SSLContext) -> None:
        context.maximum_version = ssl.TLSVersion.TLSv1_2

    with https(authority.issue(NAME), pin) as server:
        # A dot at the end of a name changes nothing.
        assert get(server, host=NAME + ".", ca_bundle=authority.path).body == b"yes"


def test_a_server_that_speaks_no_tls(authority: Authority) -> None:
    with Server(drips(ok(b"yes"))) as server:
        assert "TLS: " in refused(server, ca_bundle=authority.path)


def test_a_clock_before_the_library_prints_nothing(
    authority: Authority, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import urllib3.connection

    # urllib3 warns on stderr when the calendar is before its release, as with an empty battery.
    monkeypatch.setattr(urllib3.connection, "RECENT_DATE", datetime.date(9999, 1, 1))
    with https(authority.issue(NAME)) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert get(server, ca_bundle=authority.path).body == b"yes"
    assert capfd.readouterr() == ("", "")
