"""Which certificate authorities are trusted, and how TLS is spoken.

Certificates and host names are always checked, TLS is 1.2 or newer, and no setting turns that off. A context is
made for one transport; nothing process-wide in ``ssl`` is changed.
"""

from __future__ import annotations

import os
import sys

from .values import Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping, Sequence
    from typing import Optional

# Where systems keep their bundle: a frozen program's OpenSSL looks where its build machine kept it (pyinstaller#5450).
_SYSTEM_BUNDLES = (
    "/etc/ssl/cert.pem",  # Alpine, Arch, BSD, macOS
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",  # older Fedora, RHEL
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu
    "/etc/ssl/ca-bundle.pem",  # SUSE
)


def client_context(
    ca_bundle: Optional[str],
    environ: Mapping[str, str],
    *,
    system_bundles: Sequence[str] = _SYSTEM_BUNDLES,
    platform: str = sys.platform,
) -> tuple[ssl.SSLContext, str]:
    """A context that trusts the first of these that is there, and its name; raises ``Unreachable`` where none is.

    ``ca_bundle`` (a PEM file, or a directory as ``openssl rehash`` makes it; if it holds revocation lists, they are
    obeyed); SSL_CERT_FILE and SSL_CERT_DIR (what does not exist is ignored, as OpenSSL does); the system's store; the
    ``certifi`` package.
    """
    import ssl

    named = [("SSL_CERT_FILE", environ.get("SSL_CERT_FILE", ""))]
    named += [("SSL_CERT_DIR", part) for part in environ.get("SSL_CERT_DIR", "").split(os.pathsep)]
    named = [(setting, path) for setting, path in named if path and os.path.exists(path)]
    if ca_bundle:
        named = [("ca_bundle", ca_bundle)]
    # The system's own verifier knows more than the files that OpenSSL can read. Elsewhere there are only those files,
    # and truststore would read them again for every connection.
    if not named and platform in ("win32", "darwin"):
        try:
            import truststore  # type: ignore[import-not-found, unused-ignore]

            context = _strict(truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
            return context, "the system's store, through truststore"
        except ImportError:
            pass
    context = _strict(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    context.hostname_checks_common_name = False  # RFC 9525, 2: a common name is no host name
    store = " and ".join(dict(named)) or "the system's store"
    if not named:
        context.load_default_certs()
        if _default_store_is_empty(context):
            store, bundle = _first_bundle(system_bundles)
            named = [("the CA bundle of this system", bundle)]
    for setting, path in named:
        try:
            _load(context, setting, path)
        except OSError as error:  # ssl.SSLError is one
            reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
            raise Unreachable("%s cannot be read: %s" % (setting, reason)) from None
    if ca_bundle and (context.cert_store_stats()["crl"] or _has_lists(ca_bundle)):
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context, store


def _strict(context: ssl.SSLContext) -> ssl.SSLContext:
    import ssl

    context.check_hostname = True
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load(context: ssl.SSLContext, setting: str, path: str) -> None:
    if not os.path.isdir(path):
        context.load_verify_locations(cafile=path)
    elif os.listdir(path):  # OpenSSL reads a directory only when it verifies
        context.load_verify_locations(capath=path)
    else:
        raise Unreachable("%s is an empty directory" % setting)


def _has_lists(path: str) -> bool:
    """Whether a directory holds revocation lists, under names such as "5ed36f99.r0"."""
    return os.path.isdir(path) and any(name[8:10] == ".r" for name in os.listdir(path))


def _default_store_is_empty(context: ssl.SSLContext) -> bool:
    import ssl

    directory = ssl.get_default_verify_paths().capath
    # OpenSSL finds a certificate there by the hash in its name, "5ed36f99.0", when it verifies.
    found = directory and any(name[8:9] == "." for name in os.listdir(directory))
    return not found and not context.cert_store_stats()["x509"]


def _first_bundle(system_bundles: Sequence[str]) -> tuple[str, str]:
    for path in filter(os.path.isfile, system_bundles):
        return path, path
    try:
        import certifi  # type: ignore[import-not-found, unused-ignore]

        return "certifi", str(certifi.where())
    except ImportError:
        raise Unreachable("no CA certificates found (set ca_bundle or SSL_CERT_FILE)") from None
