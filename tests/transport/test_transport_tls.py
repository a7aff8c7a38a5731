"""Whom we believe to be the server: private authorities by every route, and every certificate that must not pass."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from support.sockets import Authority, Server, answers, ok

from agent.transport import HttpTransport, Request, Response, Unreachable, tls
from agent.transport.tls import client_context

NAME = "keys.example"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("other"), "Another CA")


@contextmanager
def https(certificate: Path, configure: Any = None) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if configure is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the point is to be out of date
            configure(context)

    def behaviour(connection: socket.socket, server: Server) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            answers(ok(b"yes"))(secure, server)

    with Server(behaviour) as server:
        yield server


def get(
    server: Server,
    *,
    host: str = NAME,
    ca_bundle: Optional[Path] = None,
    environ: Optional[Mapping[str, str]] = None,
) -> Response:
    """One request to ``server`` under the name ``host``."""
    entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))
    transport = HttpTransport(
        proxy="direct",
        environ=environ or {},
        ca_bundle=None if ca_bundle is None else str(ca_bundle),
        resolve=lambda host, port: [entry],
    )
    request = Request("POST", "https://%s:%d/" % (host, server.port), {}, b"a=1")
    try:
        return transport.send(request, timeout_s=10)
    finally:
        transport.close()


def refused(server: Server, **how: Any) -> str:
    with pytest.raises(Unreachable) as caught:
        get(server, **how)
    assert caught.value.stage == "TLS"
    assert server.requests == []
    return caught.value.reason


# --- by which route an authority is found -------------------------------------------------------


def test_a_private_authority_by_configuration(authority: Authority) -> None:
    with https(authority.issue(NAME)) as server:
        assert get(server, ca_bundle=authority.path).body == b"yes"


def test_a_private_authority_by_environment(authority: Authority) -> None:
    with https(authority.issue(NAME)) as server:
        assert get(server, environ={"SSL_CERT_FILE": str(authority.path)}).body == b"yes"


def name_of(authority: Authority) -> str:
    """The name OpenSSL looks for: a hash of the subject, which only OpenSSL computes."""
    command = ["openssl", "x509", "-hash", "-noout", "-in", str(authority.path)]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except FileNotFoundError:
        pytest.skip("needs the openssl command")


@pytest.mark.parametrize("route", ["ca_bundle", "SSL_CERT_DIR"])
def test_a_directory_of_authorities(authority: Authority, tmp_path: Path, route: str) -> None:
    (tmp_path / (name_of(authority) + ".0")).write_bytes(authority.path.read_bytes())
    with https(authority.issue(NAME)) as server:
        if route == "ca_bundle":
            assert get(server, ca_bundle=tmp_path).body == b"yes"
        else:
            several = os.pathsep.join([str(tmp_path / "missing"), str(tmp_path)])
            assert get(server, environ={"SSL_CERT_DIR": several}).body == b"yes"


def test_revocation_lists_in_a_directory_are_obeyed(authority: Authority, tmp_path: Path) -> None:
    path, now = authority.issue(NAME), datetime.datetime.now(datetime.timezone.utc)
    pem = b"".join(path.read_bytes().partition(b"-----BEGIN CERT")[1:])
    number = x509.load_pem_x509_certificate(pem).serial_number
    one = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now).build()
    revoked = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now)
        .next_update(now + datetime.timedelta(days=1))
        .add_revoked_certificate(one)
        .sign(authority._key, hashes.SHA256())
    )
    name = name_of(authority)
    (tmp_path / (name + ".0")).write_bytes(authority.path.read_bytes())
    (tmp_path / (name + ".r0")).write_bytes(revoked.public_bytes(serialization.Encoding.PEM))
    with https(path) as server:
        assert "certificate refused: certificate revoked" in refused(server, ca_bundle=tmp_path)
    with https(authority.issue(NAME)) as server:
        assert get(server, ca_bundle=tmp_path).body == b"yes"


def test_the_configuration_beats_the_environment(authority: Authority, other: Authority) -> None:
    with https(authority.issue(NAME)) as server:
        environ = {"SSL_CERT_FILE": str(authority.path)}
        refused(server, ca_bundle=other.path, environ=environ)


def test_an_environment_that_names_an_authority_replaces_the_systems(other: Authority) -> None:
    context, store = client_context(None, {"SSL_CERT_FILE": str(other.path)})
    assert (context.cert_store_stats()["x509"], store) == (1, "SSL_CERT_FILE")


def test_an_authority_that_was_replaced_on_disk_is_read_after_a_rest(
    authority: Authority, other: Authority, tmp_path: Path
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(other.path.read_bytes())
    transport = HttpTransport(proxy="direct", ca_bundle=str(bundle), environ={})
    with https(authority.issue("127.0.0.1")) as server:
        request = Request("GET", "https://127.0.0.1:%d/" % server.port, {}, b"")
        with pytest.raises(Unreachable):
            transport.send(request, timeout_s=10)
        bundle.write_bytes(authority.path.read_bytes())
        transport.rest()
        assert transport.send(request, timeout_s=10).body == b"yes"
        transport.close()


@pytest.mark.parametrize("content", [None, "", "no certificate", "directory"])
def test_a_bundle_that_cannot_be_used_is_named(
    authority: Authority, tmp_path: Path, content: Optional[str]
) -> None:
    path = tmp_path / "ca.pem"
    if content == "directory":
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    with https(authority.issue(NAME)) as server:
        assert refused(server, ca_bundle=path).startswith("TLS: ca_bundle ")


def test_an_environment_that_names_garbage_is_named(authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("no certificate")
    with https(authority.issue(NAME)) as server:
        reason = refused(server, environ={"SSL_CERT_FILE": str(path)})
        assert reason.startswith("TLS: SSL_CERT_FILE cannot be read")


EMPTY_SYSTEM = """
import sys
sys.modules["certifi"] = {certifi}
from agent.transport.tls import client_context
from agent.transport.values import Unreachable
try:
    context, store = client_context(None, {{}}, system_bundles={bundles})
    print(context.cert_store_stats()["x509"], store)
except Unreachable as error:
    print(error)
"""


def on_an_empty_system(bundles: list[str], certifi: str = "None") -> str:
    """What a program says whose OpenSSL looks for authorities where there are none."""
    environ = {
        **os.environ,
        "SSL_CERT_FILE": "/nowhere/cert.pem",
        "SSL_CERT_DIR": "/nowhere/certs",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    source = EMPTY_SYSTEM.format(bundles=bundles, certifi=certifi)
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="these have a store of their own")
def test_a_program_frozen_on_another_system_finds_this_ones_authorities(
    authority: Authority,
) -> None:
    bundles = ["/nowhere/ca.pem", str(authority.path)]
    assert on_an_empty_system(bundles) == "1 %s" % authority.path


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="these have a store of their own")
def test_without_any_authority_the_last_resort_is_certifi_and_then_a_clear_word(
    authority: Authority,
) -> None:
    certifi = "type('certifi', (), {'where': lambda: %r})" % str(authority.path)
    assert on_an_empty_system([], certifi) == "1 certifi"
    assert on_an_empty_system([]).startswith("no CA certificates found")


@pytest.mark.skipif(sys.version_info < (3, 10), reason="truststore needs 3.10")
def test_the_systems_own_verifier_is_used_where_there_is_one(authority: Authority) -> None:
    truststore = pytest.importorskip("truststore")
    before = ssl.SSLContext
    context, store = client_context(None, {}, platform="win32")
    assert isinstance(context, truststore.SSLContext) and "truststore" in store
    assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert ssl.SSLContext is before and not isinstance(before, truststore.SSLContext)
    # What is named goes before, and that is OpenSSL's business.
    named, store = client_context(str(authority.path), {}, platform="win32")
    assert type(named) is ssl.SSLContext and store == "ca_bundle"


@pytest.mark.skipif(sys.version_info < (3, 10), reason="truststore needs 3.10")
def test_what_the_systems_own_verifier_refuses_is_refused_and_its_issuer_named(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("truststore")
    monkeypatch.setattr(
        tls.client_context,
        "__kwdefaults__",
        {**(tls.client_context.__kwdefaults__ or {}), "platform": "win32"},
    )
    with https(authority.issue(NAME)) as server:
        assert refused(server).endswith('(issued by "A private CA")')
        # Its own way to a private authority in the system's store: OpenSSL's default paths.
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
        assert get(server).body == b"yes"


# --- who must not pass --------------------------------------------------------------------------


def test_an_authority_nobody_knows(authority: Authority, other: Authority) -> None:
    with https(other.issue(NAME)) as server:
        reason = refused(server, ca_bundle=authority.path)
        assert reason.startswith("TLS: certificate refused: unable to get local issuer")
        assert reason.endswith(' (issued by "Another CA")')


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_issued_a_refused_certificate_is_named_in_one_short_printable_line(
    tmp_path: Path, authority: Authority, version: ssl.TLSVersion
) -> None:
    def pin(context: ssl.SSLContext) -> None:
        context.minimum_version = context.maximum_version = version

    evil = Authority(tmp_path, "\x1b[2J\r\n" + "x" * 57)
    with https(evil.issue(NAME), pin) as server:
        reason = refused(server, ca_bundle=authority.path)
    assert reason.endswith(' (issued by "?[2J??%s")' % ("x" * 57))


def test_the_systems_store_does_not_know_a_private_authority(authority: Authority) -> None:
    with https(authority.issue(NAME)) as server:
        refused(server)


def test_a_self_signed_certificate(authority: Authority, tmp_path: Path) -> None:
    own = Authority(tmp_path, NAME)
    with https(own.issue_self(NAME)) as server:
        assert "self" in refused(server, ca_bundle=authority.path)


@pytest.mark.parametrize("names", [("other.example",), ("keys.example.evil.example",), ()])
def test_another_hosts_certificate(authority: Authority, names: tuple[str, ...]) -> None:
    # Without alternative names the common name is right, and no host name all the same.
    with https(authority.issue(*names, common_name=NAME)) as server:
        reason = refused(server, ca_bundle=authority.path)
        assert reason.startswith("TLS: certificate refused: Hostname mismatch")


def test_an_address_needs_a_certificate_for_the_address(authority: Authority) -> None:
    with https(authority.issue(NAME)) as server:
        assert "IP address mismatch" in refused(server, host="127.0.0.1", ca_bundle=authority.path)
    with https(authority.issue("127.0.0.1")) as server:
        assert get(server, host="127.0.0.1", ca_bundle=authority.path).body == b"yes"


def test_a_dot_at_the_end_of_a_name_changes_nothing(authority: Authority) -> None:
    with https(authority.issue(NAME)) as server:
        assert get(server, host=NAME + ".", ca_bundle=authority.path).body == b"yes"


def test_a_certificate_that_is_over(authority: Authority) -> None:
    with https(authority.issue(NAME, days=-1)) as server:
        reason = refused(server, ca_bundle=authority.path)
        assert reason == (
            'TLS: certificate refused: certificate has expired (issued by "A private CA")'
        )


def test_a_server_of_the_last_century(authority: Authority) -> None:
    def old(context: ssl.SSLContext) -> None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1

    with https(authority.issue(NAME), old) as server:
        assert "protocol" in refused(server, ca_bundle=authority.path)
    assert client_context(None, {})[0].minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_of_today(authority: Authority, version: ssl.TLSVersion) -> None:
    def pin(context: ssl.SSLContext) -> None:
        context.minimum_version = context.maximum_version = version

    with https(authority.issue(NAME), pin) as server:
        assert get(server, ca_bundle=authority.path).body == b"yes"


def test_a_server_that_speaks_no_tls(authority: Authority) -> None:
    with Server(answers(ok(b"yes"))) as server:

        def plain(connection: socket.socket, server: Server) -> None:
            connection.recv(65536)
            connection.sendall(ok(b"yes"))

        server.behaviour = plain
        assert "TLS: " in refused(server, ca_bundle=authority.path)


def test_a_server_that_wants_a_certificate_of_ours(authority: Authority) -> None:
    def demanding(context: ssl.SSLContext) -> None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.path)

    with https(authority.issue(NAME), demanding) as server:
        with pytest.raises(Unreachable):
            get(server, ca_bundle=authority.path)
        assert server.requests == []


def test_a_connection_is_kept_and_closed(authority: Authority) -> None:
    with https(authority.issue("127.0.0.1")) as server:
        transport = HttpTransport(proxy="direct", ca_bundle=str(authority.path), environ={})
        request = Request("GET", "https://127.0.0.1:%d/" % server.port, {}, b"")
        for _ in range(10):
            assert transport.send(request, timeout_s=10).body == b"yes"
        assert server.accepted == 1
        transport.rest()
        assert server.gone.wait(5)
        transport.close()


def test_a_clock_before_the_library_prints_nothing(
    authority: Authority, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import urllib3.connection

    # urllib3 warns on stderr when the calendar is before its release, as with an empty battery.
    monkeypatch.setattr(urllib3.connection, "RECENT_DATE", __import__("datetime").date(9999, 1, 1))
    with https(authority.issue(NAME)) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert get(server, ca_bundle=authority.path).body == b"yes"
    assert capfd.readouterr() == ("", "")
