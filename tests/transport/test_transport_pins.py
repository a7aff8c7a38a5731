"""Pinned keys: a certificate that every authority vouches for is not enough where the vendor named the server's key."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.sockets import Authority, Server, answers, ok
from test_transport_proxies import connect_proxy, connect_proxy_over_tls

import agent
from agent.transport import HttpTransport, Request, Unreachable, certificates

RESERVE = "sha256/" + "A" * 43 + "="


def loaded(path: Path) -> x509.Certificate:
    """The certificate in a PEM file that holds a key too."""
    return x509.load_pem_x509_certificate(
        b"".join(path.read_bytes().partition(b"-----BEGIN CERT")[1:])
    )


def pin_of(path: Path) -> str:
    """As a vendor computes it: base64 of SHA-256 of the SubjectPublicKeyInfo."""
    import base64
    import hashlib

    spki = (
        loaded(path)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return "sha256/" + base64.b64encode(hashlib.sha256(spki).digest()).decode()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def server_of(authority: Authority, path: Path) -> Server:
    context = authority.context(path)

    def behaviour(connection: Any, server: Server) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            answers(ok(b"yes"))(secure, server)

    return Server(behaviour)


def fetch(authority: Authority, port: int, *pins: str, **options: Any) -> bytes:
    transport = HttpTransport(
        ca_bundle=str(authority.path),
        environ={},
        pins={("127.0.0.1", port): pins} if pins else None,
        **options,
    )
    try:
        request = Request("POST", "https://127.0.0.1:%d/" % port, {}, b"secret")
        return transport.send(request, timeout_s=10).body
    finally:
        transport.close()


def test_the_pinned_key_is_let_through_in_either_place(authority: Authority) -> None:
    path = authority.issue("127.0.0.1")
    with server_of(authority, path) as server:
        assert fetch(authority, server.port, pin_of(path), RESERVE) == b"yes"
        assert fetch(authority, server.port, RESERVE, pin_of(path)) == b"yes"


def test_a_gateway_whose_authority_is_trusted_does_not_get_the_request(
    authority: Authority,
) -> None:
    genuine = pin_of(authority.issue("127.0.0.1"))
    with server_of(authority, authority.issue("127.0.0.1")) as gateway:
        with pytest.raises(Unreachable) as caught:
            fetch(authority, gateway.port, genuine, RESERVE)
        assert gateway.requests == []
    assert caught.value.stage == "TLS"
    assert caught.value.reason == (
        'TLS: the server\'s key is none of the pins (issued by "A private CA")'
    )


def test_a_pin_does_not_stand_in_for_the_authority(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "Stranger")
    path = stranger.issue("127.0.0.1")
    with server_of(stranger, path) as server:
        with pytest.raises(Unreachable, match="certificate refused"):
            fetch(authority, server.port, pin_of(path), RESERVE)
        assert server.requests == []


@pytest.mark.parametrize("over_tls", [False, True])
def test_behind_a_proxy_the_key_of_the_server_counts_and_not_the_proxys(
    authority: Authority, over_tls: bool
) -> None:
    path = authority.issue("127.0.0.1")
    with server_of(authority, path) as server:
        behaviour, scheme = connect_proxy(server.port), "http"
        if over_tls:
            scheme = "https"
            behaviour = authority.over_tls(connect_proxy_over_tls(server.port), "127.0.0.1")
        with Server(behaviour) as proxy:
            url = "%s://127.0.0.1:%d" % (scheme, proxy.port)
            assert fetch(authority, server.port, pin_of(path), RESERVE, proxy=url) == b"yes"
            with pytest.raises(Unreachable, match="none of the pins"):
                fetch(authority, server.port, RESERVE, RESERVE[:-2] + "E=", proxy=url)


def der(tag: int, content: bytes) -> bytes:
    """One element, its length in two bytes where it needs them."""
    size = len(content)
    return bytes((tag, size) if size < 128 else (tag, 0x82, size >> 8, size & 255)) + content


def with_two_keys(authority: Authority, path: Path, genuine: Path) -> Path:
    """A certificate of BER in which OpenSSL finds the key of ``path``, and who takes BER for DER that of ``genuine``.

    The length of one element, "until it ends", reads as 128 bytes; those behind them are a parameter to the one and
    the next elements to the other.
    """
    keys, _, _ = path.read_bytes().partition(b"-----BEGIN CERT")
    mine, theirs = (
        [
            element
            for _, _, element in certificates._elements(
                next(certificates._elements(found.tbs_certificate_bytes))[1]
            )
        ]
        for found in (loaded(path), loaded(genuine))
    )
    version, serial, algorithm, *behind = mine
    oid = algorithm[2:]
    tail = b"".join(behind)
    hidden = b"P" * (128 - len(oid) - 4) + b"".join(theirs[3:7])
    hidden += b"\x04\x82" + (2 + len(tail)).to_bytes(2, "big")
    algorithm = b"\x30\x80" + oid + der(4, hidden) + b"\0\0"
    body = der(0x30, version + serial + algorithm + tail)
    signature = authority._key.sign(body, ec.ECDSA(hashes.SHA256()))
    made = der(0x30, body + algorithm + der(3, b"\0" + signature))
    forged = path.with_suffix(".ber")
    forged.write_bytes(keys + ssl.DER_cert_to_PEM_cert(made).encode())
    return forged


def test_a_trusted_gateway_cannot_hide_the_pinned_key_in_its_certificate(
    authority: Authority,
) -> None:
    genuine = authority.issue("127.0.0.1")
    forged = with_two_keys(authority, authority.issue("127.0.0.1"), genuine)
    with server_of(authority, forged) as gateway:
        assert fetch(authority, gateway.port) == b"yes"  # OpenSSL takes it
        gateway.requests.clear()
        with pytest.raises(Unreachable, match="none of the pins"):
            fetch(authority, gateway.port, pin_of(genuine), RESERVE)
        assert gateway.requests == []


def test_two_endpoints_on_one_server_share_its_pins() -> None:
    config = agent.Config(
        vendor="v",
        product_name="p",
        product_id="1",
        product_version="1",
        usage_consent=True,
        endpoints=[
            agent.Reo(api_key="k", base_url="https://Both.example", pins=(RESERVE, PIN), name="a"),
            agent.Reo(api_key="k", base_url="https://both.example:443/x", name="b"),
            agent.Reo(api_key="k", base_url="https://other.example:8443", pins=[PIN, RESERVE]),
        ],
    )
    assert HttpTransport.of(config, {})._pins == {
        ("both.example", 443): {RESERVE, PIN},
        ("other.example", 8443): {RESERVE, PIN},
    }


PIN = "sha256/" + "B" * 42 + "A="


@pytest.mark.parametrize(
    "pins",
    [
        (PIN,),
        (PIN, PIN),
        PIN,
        None,
        ([PIN], RESERVE),
        (PIN, "sha1/" + "A" * 27 + "="),
        (PIN, "sha256/" + "A" * 43),
        (PIN, "sha256/" + "A" * 42 + "B="),
        (PIN, PIN[7:]),
    ],
)
def test_pins_that_are_none(pins: Any) -> None:
    with pytest.raises(agent.ConfigError, match="^pins: "):
        agent.Reo(api_key="k", pins=pins)


def test_pins_of_an_address_that_shows_no_key() -> None:
    with pytest.raises(agent.ConfigError, match="^pins: base_url is no https address"):
        agent.Reo(api_key="k", base_url="http://127.0.0.1:1", pins=(PIN, RESERVE))


# --- what is read of a certificate --------------------------------------------------------------


# Some roots are older than today's rules.
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_every_certificate_of_this_system_is_read_as_openssl_reads_it() -> None:
    context = ssl.create_default_context()
    found = context.get_ca_certs(binary_form=True)
    if not found:
        pytest.skip("this system has no CA certificates")
    for der in found:
        told = certificates.read(der)
        real = x509.load_der_x509_certificate(der)
        attributes = {a.oid.dotted_string: str(a.value) for a in real.subject}
        name = attributes.get("2.5.4.3") or attributes.get("2.5.4.10", "no name")
        assert told.subject.startswith(name[:99])
        before = getattr(real, "not_valid_before_utc", None)
        if before is not None:
            assert told.begins_at == before.timestamp()
            assert told.ends_at == real.not_valid_after_utc.timestamp()


@pytest.mark.parametrize("length", range(0, 400, 7))
def test_a_certificate_that_is_cut_or_garbled_is_none(authority: Authority, length: int) -> None:
    der = authority.certificate.public_bytes(serialization.Encoding.DER)
    with pytest.raises(ValueError):
        certificates.read(der[: min(length, len(der) - 1)])
    garbled = bytearray(der)
    garbled[length % len(der)] ^= 0x55
    try:
        certificates.read(bytes(garbled))
    except ValueError:
        pass
    message = b"\x0b\0\0\0\0\0\0\0" + len(der).to_bytes(3, "big") + der + b"\0\0"
    assert len(certificates.in_message(message, 0x0304)) == 1
    assert certificates.in_message(message[: min(length, len(der))], 0x0304) == []
