"""From (machine id, names, OS user) to digests: pure functions, nothing is read and nothing is kept.

``user_identifier`` is HMAC-SHA-256, keyed with the machine id, over "v1", the names and the OS user, each with its
length before it. Golden vectors pin it: changing one byte here changes the identity of every user.
"""

from __future__ import annotations

from ..digest import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

_BLOCK_BYTES = 64  # of SHA-256 (FIPS 180-4), as HMAC needs it (RFC 2104)
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """The 32 bytes of RFC 2104; ``hmac`` loads OpenSSL, 4 ms of a cold start."""
    key = (sha256(key).digest() if len(key) > _BLOCK_BYTES else key).ljust(_BLOCK_BYTES, b"\0")
    inner = sha256(key.translate(_INNER) + message).digest()
    return bytes(sha256(key.translate(_OUTER) + inner).digest())


def context(
    vendor: str, product_name: str, identity_name: Optional[str] = None, *, user: str
) -> bytes:
    """What an identity belongs to, beside the machine. With ``identity_name``, vendor and product do not enter."""
    names = (vendor, product_name) if identity_name is None else (identity_name,)
    return b"".join(_sized(part) for part in (*names, user))


def derive(machine_id: str, context: bytes) -> str:
    """The user identifier: 32 lower-case hex digits."""
    return hmac_sha256(_bytes(machine_id), _sized("v1") + context)[:16].hex()


def tag(machine_id: str, context: bytes) -> str:
    """16 hex digits that tell a machine id from another one and give nothing of it away."""
    return hmac_sha256(_bytes(machine_id), _sized("tag-v1") + context)[:8].hex()


def _sized(text: str) -> bytes:
    part = _bytes(text)
    return len(part).to_bytes(4, "big") + part


def _bytes(text: str) -> bytes:
    # Never an encoding error: its message would carry the text, which may be a machine id.
    return text.encode("utf-8", "surrogatepass")
