"""``PublicKey``: one trusted key, checked when it is made, that says yes by returning and no by raising.

The algorithm belongs to the key and is never taken from an answer, so no answer can choose it. A key has one
accepted form: what is read loosely is written again and compared. Errors never quote a PEM text, for it may hold
a private key.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64

from ..digest import sha256
from ..errors import ConfigError
from . import rsa

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

RSA, ED25519 = "rsa-pkcs1v15-sha256", "ed25519"
MAX_NAME_CHARS = 64
# An 8192-bit key is 1.5 KB of PEM.
MAX_PEM_BYTES = 16 * 1024
# SubjectPublicKeyInfo of Ed25519 but for its 32 bytes (RFC 8410).
_ED25519_HEAD = bytes.fromhex("302a300506032b6570032100")


class Frozen:
    """Slots that are written once and compared by value."""

    __slots__: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self, name):
            raise AttributeError(type(self).__name__ + " is immutable")
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(type(self).__name__ + " is immutable")

    def facts(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.facts() == other.facts()

    def __hash__(self) -> int:
        return hash(self.facts())


class PublicKey(Frozen):
    """A named RSA or Ed25519 public key; immutable, hashable, picklable. Made by ``from_pem``.

    ``algorithm`` is "rsa-pkcs1v15-sha256" or "ed25519"; ``fingerprint`` is the SHA-256 of the
    SubjectPublicKeyInfo in hex, as ``openssl pkey -pubin -outform DER | sha256sum`` prints it.
    ``valid_from`` and ``valid_until`` (Unix seconds, None for no bound) say of which answers it may be the key, by
    their signed timestamps.
    """

    __slots__ = ("name", "algorithm", "fingerprint", "valid_from", "valid_until", "_material")

    def __init__(
        self,
        spki: bytes,
        name: str,
        valid_from: Optional[int] = None,
        valid_until: Optional[int] = None,
    ) -> None:
        self.name = name
        self.valid_from, self.valid_until = valid_from, valid_until
        self.fingerprint: str = sha256(spki).hexdigest()
        self._material: Any  # 32 bytes, or (modulus, exponent)
        if spki[:-32] == _ED25519_HEAD:
            self.algorithm, self._material = ED25519, spki[-32:]
        else:
            self.algorithm, self._material = RSA, rsa.read(spki)

    @classmethod
    def from_pem(
        cls,
        pem: str | bytes,
        *,
        name: str = "global",
        valid_from: Optional[int] = None,
        valid_until: Optional[int] = None,
    ) -> PublicKey:
        """Make a key of one PEM block, ``PUBLIC KEY`` or ``RSA PUBLIC KEY``; raises ``ConfigError``."""
        if (
            not isinstance(name, str)
            or not 0 < len(name) <= MAX_NAME_CHARS
            or not name.isprintable()
        ):
            reason = "a name is a text of 1 to %d printable characters" % MAX_NAME_CHARS
        elif not isinstance(pem, (str, bytes)):
            reason = "a PEM text (str or bytes) is needed, not " + type(pem).__name__
        elif not (_is_time(valid_from) and _is_time(valid_until)):
            reason = "%s: valid_from and valid_until are Unix seconds (int) or None" % name
        elif None not in (valid_from, valid_until) and valid_from > valid_until:  # type: ignore[operator]
            reason = "%s: valid_until is before valid_from" % name
        else:
            try:
                return cls(_spki(pem), name, valid_from, valid_until)
            except ValueError as error:
                reason = "%s: %s" % (name, error)
        raise ConfigError("keys: " + reason, "keys")

    def verify(self, message: bytes, signature: bytes) -> None:
        """Return if this key signed ``message``; raise ``SignatureInvalid`` or ``Unverifiable`` if not."""
        message = as_bytes("message", message)
        signature = as_bytes("signature", signature)
        if self.algorithm == RSA:
            return rsa.check(self._material, message, signature)
        from . import ed25519

        ed25519.check(self._material, message, signature)

    def covers(self, timestamp: int) -> bool:
        """Whether an answer of that signed ``timestamp`` may be under this key."""
        begun = self.valid_from is None or timestamp >= self.valid_from
        return begun and (self.valid_until is None or timestamp <= self.valid_until)

    def __repr__(self) -> str:
        facts = (self.name, self.algorithm, self.fingerprint[:16])
        return "PublicKey(name=%r, algorithm=%r, fingerprint='%s...')" % facts


def _is_time(value: object) -> bool:
    return value is None or (type(value) is int and 0 <= value < 1 << 53)


def as_bytes(argument: str, value: object) -> bytes:
    """``value`` as bytes; raises ``TypeError`` naming ``argument`` where it is text or anything else."""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("%s: bytes are needed, not %s" % (argument, type(value).__name__))
    return bytes(value)


def decode_base64(text: bytes) -> bytes:
    """The bytes that ``text`` stands for (RFC 4648 section 3.5); raises ``ValueError`` for any other spelling."""
    data = a2b_base64(text)
    if b2a_base64(data, newline=False) != text:
        raise ValueError("not canonical base64")
    return data


def _spki(pem: str | bytes) -> bytes:
    """The SubjectPublicKeyInfo of a PEM text (RFC 7468): one block, nothing around it but white space.

    Indented lines, empty ones and CRLF are fine, for keys are pasted into source code.
    """
    text = pem if isinstance(pem, bytes) else pem.encode("ascii", "replace")
    if len(text) > MAX_PEM_BYTES:
        raise ValueError("larger than %d bytes" % MAX_PEM_BYTES)
    if b"PRIVATE KEY" in text.upper():
        raise ValueError("a private key: give the public one, and keep this one out of the product")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for label, to_spki in ((b"PUBLIC KEY", bytes), (b"RSA PUBLIC KEY", rsa.spki)):
        if lines[:1] + lines[-1:] == [b"-----BEGIN %b-----" % label, b"-----END %b-----" % label]:
            return to_spki(decode_base64(b"".join(lines[1:-1])))
    raise ValueError("not exactly one PEM block of a public key (its text, not a file's name)")
