"""Certificates that must pass and certificates that must not."""

from __future__ import annotations

import datetime
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from support.sockets import Authority, Server, names

from .proxies import six
from .situations import CERTIFICATES, program, situation
from .stage import Stage, relay

REFUSED = "offline: TLS: certificate refused: %s"


def refused(stage: Stage, why: str, certificate: Path, **how: Any) -> None:
    """This certificate is refused, and a good one at the same address is not."""
    server = stage.serve(stage.behind_tls(certificate=certificate, **how))
    url = "https://localhost:%d" % server.port
    product = stage.product(url)
    stage.fails(product, REFUSED % why)
    server.behaviour = stage.behind_tls("localhost")
    stage.delivers(product)


def made(
    stage: Stage,
    *,
    key: Any = None,
    digest: Optional[Any] = None,
    begins: int = -30,
    ends: int = 30,
) -> Path:
    """A certificate for localhost by the stage's authority, weak or early as asked; days from now."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a server")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(stage.authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=begins))
        .not_valid_after(now + datetime.timedelta(days=ends))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(stage.authority._key, digest or hashes.SHA256())
    )
    path = stage.directory / ("%x.pem" % certificate.serial_number)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


def lenient(context: ssl.SSLContext) -> None:
    """A server that shows weak certificates."""
    context.set_ciphers("ALL:@SECLEVEL=0")


@situation("private-ca", CERTIFICATES)
def private_ca(stage: Stage) -> None:
    """A private CA in `ca_bundle`, several records on one connection"""
    stage.delivers(stage.product(stage.https(), usage=True), 5)


@situation("certificate-expired", CERTIFICATES)
def expired(stage: Stage) -> None:
    """A certificate that is over"""
    refused(stage, "certificate has expired", stage.authority.issue("localhost", days=-1))


@situation("certificate-early", CERTIFICATES)
def early(stage: Stage) -> None:
    """A certificate that is not valid yet, or a clock that is behind"""
    refused(stage, "certificate is not yet valid", made(stage, begins=5))


@situation("certificate-host", CERTIFICATES)
def host(stage: Stage) -> None:
    """A certificate for another host"""
    refused(stage, ".*[Hh]ostname mismatch.*", stage.authority.issue("portal.example"))


@situation("certificate-self-signed", CERTIFICATES)
def self_signed(stage: Stage) -> None:
    """A certificate that signed itself"""
    refused(stage, "self.signed certificate.*", other(stage).issue_self("localhost"))


@situation("certificate-foreign", CERTIFICATES)
def foreign(stage: Stage) -> None:
    """A certificate of an unknown CA"""
    refused(stage, "unable to get local issuer certificate", other(stage).issue("localhost"))


def other(stage: Stage) -> Authority:
    """An authority that nobody trusts."""
    place = stage.directory / "other"
    place.mkdir()
    return Authority(place, "Another CA")


@situation("certificate-weak-key", CERTIFICATES)
def weak_key(stage: Stage) -> None:
    """A certificate with an RSA key of 1024 bits"""
    key = rsa.generate_private_key(65537, 1024)
    refused(stage, "EE certificate key too weak", made(stage, key=key), configure=lenient)


@situation("certificate-sha1", CERTIFICATES, "openssl")
def sha1(stage: Stage) -> None:
    """A certificate signed with SHA-1"""
    good = made(stage)
    ca = stage.directory / "ca-with-key.pem"
    ca.write_bytes(
        stage.authority._write(stage.authority._key, stage.authority.certificate).read_bytes()
    )
    extensions = stage.directory / "names.cnf"
    extensions.write_text("subjectAltName=DNS:localhost\n")
    request = [program("openssl"), "req", "-new", "-key", str(good), "-subj", "/CN=a server"]
    sign = [
        program("openssl"),
        "x509",
        "-req",
        "-sha1",
        "-days",
        "9",
        "-CA",
        str(ca),
        "-CAkey",
        str(ca),
    ]
    sign += ["-set_serial", "7", "-extfile", str(extensions)]
    asked = subprocess.run(request, capture_output=True, check=True).stdout
    found = subprocess.run(sign, input=asked, capture_output=True, check=True).stdout
    path = stage.directory / "sha1.pem"
    path.write_bytes(good.read_bytes().partition(b"-----BEGIN CERT")[0] + found)
    refused(stage, "CA signature digest algorithm too weak", path, configure=lenient)


@situation("tls-1.1", CERTIFICATES)
def old_tls(stage: Stage) -> None:
    """A server that speaks TLS 1.0 and 1.1 only"""

    def old(context: ssl.SSLContext) -> None:
        lenient(context)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1

    server = stage.serve(stage.behind_tls("localhost", configure=old))
    product = stage.product("https://localhost:%d" % server.port)
    stage.fails(product, "offline: TLS: .*protocol.*")
    server.behaviour = stage.behind_tls("localhost")
    stage.delivers(product)


@situation("certificate-revoked", CERTIFICATES, "openssl")
def revoked(stage: Stage) -> None:
    """A revoked certificate, the answer of OCSP stapled: not asked for. Signed answers are what protects"""
    path, staple = made(stage), stage.directory / "ocsp.der"
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    ca, key = stage.authority.certificate, stage.authority._key
    answer = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=certificate,
            issuer=ca,
            algorithm=hashes.SHA1(),
            cert_status=ocsp.OCSPCertStatus.REVOKED,
            this_update=now - datetime.timedelta(days=1),
            next_update=now + datetime.timedelta(days=1),
            revocation_time=now - datetime.timedelta(days=2),
            revocation_reason=x509.ReasonFlags.key_compromise,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, ca)
        .sign(key, hashes.SHA256())
    )
    staple.write_bytes(answer.public_bytes(serialization.Encoding.DER))
    url = stapled(stage, path, staple)
    stage.delivers(stage.product(url))


@situation("certificate-crl", CERTIFICATES)
def revoked_by_list(stage: Stage) -> None:
    """A revoked certificate, and `ca_bundle` holds the list of revoked ones"""
    path = made(stage)
    ca, key = stage.authority.certificate, stage.authority._key
    now = datetime.datetime.now(datetime.timezone.utc)
    number = x509.load_pem_x509_certificate(path.read_bytes()).serial_number
    one = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now).build()
    listed = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.subject)
        .last_update(now - datetime.timedelta(days=1))
        .next_update(now + datetime.timedelta(days=1))
        .add_revoked_certificate(one)
        .sign(key, hashes.SHA256())
    )
    bundle = stage.directory / "bundle.pem"
    pem = serialization.Encoding.PEM
    bundle.write_bytes(ca.public_bytes(pem) + listed.public_bytes(pem))
    server = stage.serve(stage.behind_tls(certificate=path))
    product = stage.product("https://localhost:%d" % server.port, ca=bundle)
    stage.fails(product, REFUSED % "certificate revoked")
    server.behaviour = stage.behind_tls("localhost")
    stage.delivers(product)


def stapled(stage: Stage, certificate: Path, staple: Path) -> str:
    """The collector behind ``openssl s_server``, which can staple; for one connection."""
    place = (
        Path(stage.open.enter_context(tempfile.TemporaryDirectory())) / "s"
    )  # its path has 107 bytes
    command = [program("openssl"), "s_server", "-quiet", "-unix", str(place), "-naccept", "1"]
    command += ["-cert", str(certificate), "-key", str(certificate), "-status_file", str(staple)]
    inner, outer = socket.socketpair()
    with stage.programs.open("ab") as log:
        process = subprocess.Popen(command, stdin=inner.fileno(), stdout=inner.fileno(), stderr=log)
    inner.close()

    def both(connection: socket.socket, server: Server) -> None:
        def behind() -> None:
            with suppress(OSError):  # the end may close it first
                stage.to_collector(outer, server)

        threading.Thread(target=behind, daemon=True).start()
        with socket.socket(socket.AF_UNIX) as secure:
            secure.connect(str(place))
            relay(connection, secure)

    def end() -> None:
        process.kill()
        process.wait()
        outer.close()

    stage.open.callback(end)
    while not place.exists():
        assert process.poll() is None, stage.programs.read_text()
        time.sleep(0.01)
    return "https://localhost:%d" % stage.serve(both).port


@situation("sni", CERTIFICATES)
def sni(stage: Stage) -> None:
    """Two names at one address, each with a certificate of its own (SNI)"""
    contexts = {}
    for name in ("one.acme.example", "two.acme.example"):
        contexts[name] = stage.authority.context(stage.authority.issue(name))

    def by_name(context: ssl.SSLContext) -> None:
        def choose(sock: Any, name: Any, _: ssl.SSLContext) -> None:
            sock.context = contexts[name]

        context.sni_callback = choose

    url = stage.https("nobody.example", configure=by_name)
    stage.open.enter_context(names("127.0.0.1:" + url.rpartition(":")[2]))
    for name in contexts:
        stage.delivers(stage.product(url.replace("nobody.example", name)))


@situation("ipv6-literal", CERTIFICATES, "ipv6")
def ipv6_literal(stage: Stage) -> None:
    """A server known by its IPv6 address, https://[::1]"""
    stage.delivers(stage.product(six(stage)), 2)
