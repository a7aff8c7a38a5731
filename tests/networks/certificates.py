"""Certificates that must pass and certificates that must not."""

import datetime
import ssl
import warnings
from pathlib import Path
from typing import Any, Optional

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from support.sockets import Authority, names, silent

from .hostile import then_well
from .proxies import six
from .situations import CERTIFICATES, situation
from .stage import Stage

REFUSED = "offline: TLS: certificate refused: %s"


def refused(stage: Stage, why: str, certificate: Optional[Path] = None, **how: Any) -> None:
    """What this server shows is refused, and what a good one at the same address shows is not."""
    ca = how.pop("ca", None)
    then_well(stage, stage.behind_tls(certificate=certificate, **how), why, ca=ca)


@situation("private-ca", CERTIFICATES)
def private_ca(stage: Stage) -> None:
    """A private CA in `ca_bundle`, several records on one connection"""
    server = stage.serve(stage.behind_tls())
    stage.delivers(stage.product("https://localhost:%d" % server.port), 5)
    assert server.accepted == 1


@situation("certificate-expired", CERTIFICATES)
def expired(stage: Stage) -> None:
    """A certificate that is over"""
    over = stage.authority.issue("localhost", days=-1)
    refused(stage, REFUSED % "certificate has expired", over)


@situation("certificate-early", CERTIFICATES)
def early(stage: Stage) -> None:
    """A certificate that is not valid yet, or a clock that is behind"""
    coming = stage.authority.issue("localhost", begins=5)
    refused(stage, REFUSED % "certificate is not yet valid", coming)


@situation("certificate-host", CERTIFICATES)
def host(stage: Stage) -> None:
    """A certificate for another host"""
    another = stage.authority.issue("portal.example")
    refused(stage, REFUSED % ".*[Hh]ostname mismatch.*", another)


@situation("certificate-self-signed", CERTIFICATES)
def self_signed(stage: Stage) -> None:
    """A certificate that signed itself"""
    own = Authority(stage.directory / "other").issue_self("localhost")
    refused(stage, REFUSED % "self.signed certificate.*", own)


@situation("certificate-foreign", CERTIFICATES)
def foreign(stage: Stage) -> None:
    """A certificate of an unknown CA"""
    unknown = Authority(stage.directory / "other", "Another CA").issue("localhost")
    refused(stage, REFUSED % "unable to get local issuer certificate", unknown)


def lenient(context: ssl.SSLContext) -> None:
    """A server that shows weak certificates."""
    context.set_ciphers("ALL:@SECLEVEL=0")


@situation("certificate-weak-key", CERTIFICATES)
def weak_key(stage: Stage) -> None:
    """A certificate with an RSA key of 1024 bits"""
    weak = stage.authority.issue("localhost", key=rsa.generate_private_key(65537, 1024))
    refused(stage, REFUSED % "EE certificate key too weak", weak, configure=lenient)


@situation("tls-1.1", CERTIFICATES)
def old_tls(stage: Stage) -> None:
    """A server that speaks TLS 1.0 and 1.1 only"""

    def old(context: ssl.SSLContext) -> None:
        lenient(context)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1

    refused(stage, "offline: TLS: .*protocol.*", configure=old)


@situation("certificate-revoked", CERTIFICATES)
def revoked(stage: Stage) -> None:
    """A revoked certificate that names an OCSP server: not asked. Signed answers are what protects"""
    ocsp = stage.serve(silent)
    place = x509.UniformResourceIdentifier("http://127.0.0.1:%d/" % ocsp.port)
    asks = x509.AccessDescription(x509.AuthorityInformationAccessOID.OCSP, place)
    more = (x509.AuthorityInformationAccess([asks]),)
    certificate = stage.authority.issue("localhost", more=more)
    stage.delivers(stage.product(stage.https(certificate=certificate)))
    assert not ocsp.accepted


@situation("certificate-crl", CERTIFICATES)
def revoked_by_list(stage: Stage) -> None:
    """A revoked certificate, and `ca_bundle` holds the list of revoked ones"""
    path, ca = stage.authority.issue("localhost"), stage.authority.certificate
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    day = datetime.timedelta(days=1)
    number = x509.load_pem_x509_certificate(path.read_bytes()).serial_number
    one = x509.RevokedCertificateBuilder(number, now).build()
    listed = (
        x509.CertificateRevocationListBuilder(ca.subject, now - day, now + day)
        .add_revoked_certificate(one)
        .sign(stage.authority.key, hashes.SHA256())
    )
    bundle = stage.directory / "bundle.pem"
    pem = serialization.Encoding.PEM
    bundle.write_bytes(ca.public_bytes(pem) + listed.public_bytes(pem))
    refused(stage, REFUSED % "certificate revoked", path, ca=bundle)


@situation("sni", CERTIFICATES)
def sni(stage: Stage) -> None:
    """Several names at one address (SNI): the server is told which is wanted"""
    asked: list[str] = []

    def listen(context: ssl.SSLContext) -> None:
        context.sni_callback = lambda sock, name, _: asked.append(name)

    url = stage.https("one.acme.example", configure=listen)
    stage.enter_context(names("127.0.0.1:" + url.rpartition(":")[2]))
    stage.delivers(stage.product(url))
    assert set(asked) == {"one.acme.example"}


@situation("ipv6-literal", CERTIFICATES, "ipv6")
def ipv6_literal(stage: Stage) -> None:
    """A server known by its IPv6 address, https://[::1]"""
    stage.delivers(stage.product(six(stage)), 2)
