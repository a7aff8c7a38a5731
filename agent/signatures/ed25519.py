"""Ed25519 (RFC 8032) through PyNaCl, imported only when a signature of the right size is to be checked.

Where PyNaCl cannot be loaded or fails, the outcome is ``Unverifiable``, a reason of its own: missing
cryptography is never a valid signature, and not a forged one either. Small-order keys and unreduced scalars
are refused by libsodium.
"""

from __future__ import annotations

from ..errors import SignatureInvalid, Unverifiable

SIGNATURE_BYTES = 64


def check(key: bytes, message: bytes, signature: bytes) -> None:
    """Raise ``SignatureInvalid`` or ``Unverifiable`` unless ``signature`` is that of ``message``."""
    if len(signature) != SIGNATURE_BYTES:
        raise SignatureInvalid("the signature has %d bytes, not 64" % len(signature))
    try:
        from nacl.bindings import crypto_sign_open

        opened = crypto_sign_open(signature + message, key)
    except Exception as error:  # a bundle without its C library, a subinterpreter, a broken file
        kind = type(error).__name__
        if kind == "BadSignatureError":
            raise SignatureInvalid("the signature does not fit") from None
        raise Unverifiable("PyNaCl fails (%s): Ed25519 cannot be checked here" % kind) from None
    if opened != message:  # not PyNaCl, whatever it is
        raise Unverifiable("PyNaCl does not behave as it should: Ed25519 cannot be checked here")
