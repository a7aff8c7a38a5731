"""``PublicKey``: one trusted key, checked when it is made, that says yes by returning and no by raising.

The algorithm belongs to the key, so no answer can choose it. What is read loosely, a key or a signed block (RFC 8017,
8.2.2), is written again and compared. Errors never quote a PEM text: it may be private.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64

from ..errors import TYPE_CHECKING, ConfigError, SignatureInvalid, Unverifiable, mistake
from ..lines import sha256

if TYPE_CHECKING:
    from typing import Any, Union

    Pem = Union[str, bytes]

RSA, ED25519 = "rsa-pkcs1v15-sha256", "ed25519"
# An 8192-bit key is 1.5 KB of PEM.
MAX_PEM_CHARS, MAX_NAME_CHARS = 16 * 1024, 64
# Real exponents are 3, 17 and 65537, and a longer one only costs time.
MIN_BITS, MAX_BITS, MAX_EXPONENT_BITS = 2048, 8192, 33

# AlgorithmIdentifier of RSA: OID 1.2.840.113549.1.1.1 and the NULL that RFC 3279, 2.3.1, requires.
_RSA_ALGORITHM = bytes.fromhex("300d06092a864886f70d0101010500")
# DigestInfo of SHA-256 up to the digest (RFC 8017, 9.2, note 1).
_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
# SubjectPublicKeyInfo of Ed25519 but for its 32 bytes (RFC 8410).
_ED25519_HEAD = bytes.fromhex("302a300506032b6570032100")
# RFC 8032, 7.1, test 2: a key, and its signature of the letter "r".
_KNOWN = bytes.fromhex(
    "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


class Frozen:
    """Slots that are written once, compared by value and shown."""

    __slots__: tuple[str, ...] = ()

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(self, name):
            raise AttributeError(type(self).__name__ + " is immutable")
        object.__setattr__(self, name, value)

    def facts(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.facts() == other.facts()

    def __hash__(self) -> int:
        return hash(self.facts())

    def __repr__(self) -> str:
        names = [name for name in self.__slots__ if name[0] != "_"]
        facts = ", ".join("%s=%.40r" % (name, getattr(self, name)) for name in names)
        return "%s(%s)" % (type(self).__name__, facts)


class PublicKey(Frozen):
    """A named RSA or Ed25519 public key; immutable, hashable, picklable.

        key = PublicKey.from_pem(PEM, name="global")     # or ConfigError
        key.verify(message, signature)                   # or SignatureInvalid, Unverifiable

    ``algorithm`` is "rsa-pkcs1v15-sha256" or "ed25519"; ``fingerprint`` is what ``openssl pkey -pubin -outform DER |
    sha256sum`` prints.
    """

    __slots__ = tuple("name algorithm fingerprint pem _material".split())

    def __init__(self, text: str, name: str) -> None:
        # Whatever is there is taken for a key, and written again.
        spki = a2b_base64(text.partition("KEY-----")[2].partition("-----END")[0][:MAX_PEM_CHARS])
        self.name, self.algorithm = name, ED25519 if spki[:-32] == _ED25519_HEAD else RSA
        self._material: Any = _read_rsa(spki) if self.algorithm == RSA else spki[-32:]
        self.fingerprint: str = sha256(spki).hexdigest()
        body = b2a_base64(spki).decode("ascii")
        self.pem = "-----BEGIN PUBLIC KEY-----\n%s-----END PUBLIC KEY-----\n" % body
        if "".join(text.split()) != "".join(self.pem.split()):
            raise ValueError("another spelling")

    @classmethod
    def from_pem(cls, pem: Pem, *, name: str = "global") -> PublicKey:
        """Make a key of one PEM block, ``PUBLIC KEY``; raises ``ConfigError``.

        White space does not matter, for keys are pasted into source code.
        """
        text = pem.decode("ascii", "replace") if isinstance(pem, bytes) else str(pem)
        if not (isinstance(name, str) and name.isprintable() and 0 < len(name) <= MAX_NAME_CHARS):
            raise mistake("keys", name, "a name of 1 to %d printable characters" % MAX_NAME_CHARS)
        reason = "not the PEM text of a public key: Ed25519, or RSA of 2048 to 8192 bits, in DER"
        try:
            if "PRIVATE KEY" not in text.upper():
                return cls(text, name)
            reason = "a private key: give the public one, and keep this one out of the product"
        except ValueError:
            pass
        raise ConfigError("keys: %s: %s" % (name, reason), "keys")

    def verify(self, message: bytes, signature: bytes) -> None:
        """Return if this key signed ``message``; raise ``SignatureInvalid`` or ``Unverifiable`` if not."""
        fits = _fits_rsa if self.algorithm == RSA else _fits_ed25519
        if not fits(self._material, bytes(memoryview(message)), bytes(memoryview(signature))):
            raise SignatureInvalid("the signature does not fit")


def decode_base64(text: bytes) -> bytes:
    """The bytes that ``text`` stands for (RFC 4648, 3.5); raises ``ValueError`` for any other spelling."""
    data = a2b_base64(text)
    if b2a_base64(data, newline=False) != text:
        raise ValueError("not canonical base64")
    return data


# -- RSASSA-PKCS1-v1_5 with SHA-256, in plain Python ----


def _long(tag: int, content: bytes) -> bytes:
    """One DER element of 256 bytes to 64 KB."""
    return bytes((tag, 0x82)) + len(content).to_bytes(2, "big") + content


def _read_rsa(spki: bytes) -> tuple[int, int]:
    """Modulus and exponent of a SubjectPublicKeyInfo in its one DER form; raises ``ValueError``.

    Whatever is behind 32 bytes of heads is taken for the modulus, behind two more for the exponent.
    """
    end = 32 + int.from_bytes(spki[30:32], "big")
    n, e = int.from_bytes(spki[32:end], "big"), int.from_bytes(spki[end + 2 :], "big")
    modulus, exponent = (one.to_bytes(one.bit_length() // 8 + 1, "big") for one in (n, e))
    written = _long(0x30, _long(0x02, modulus) + bytes((0x02, len(exponent))) + exponent)
    written = _long(0x30, _RSA_ALGORITHM + _long(0x03, b"\0" + written))
    sizes = MIN_BITS <= n.bit_length() <= MAX_BITS and 3 <= e < 1 << MAX_EXPONENT_BITS
    if not (sizes and n % 2 and e % 2 and written == spki):
        raise ValueError("no such key")
    return n, e


def _fits_rsa(key: tuple[int, int], message: bytes, signature: bytes) -> bool:
    modulus, exponent = key
    size, number = (modulus.bit_length() + 7) // 8, int.from_bytes(signature, "big")
    if len(signature) != size or number >= modulus:
        return False
    tail = b"\0" + _DIGEST_INFO + sha256(message).digest()
    expected = b"\0\1" + b"\xff" * (size - 2 - len(tail)) + tail
    return pow(number, exponent, modulus) == int.from_bytes(expected, "big")


# -- Ed25519 (RFC 8032), through PyNaCl ----


def _fits_ed25519(key: bytes, message: bytes, signature: bytes) -> bool:
    """Loads PyNaCl; where that is missing, fails or gives a wrong answer to a known question, ``Unverifiable``.

    Small-order keys and unreduced scalars are refused by libsodium.
    """
    if len(signature) != 64:
        return False
    known, signed = _KNOWN[:32], _KNOWN[32:]
    try:
        if not _opens(known, signed + b"r") or _opens(known, signed + b"s"):
            raise ValueError("a wrong answer")
        return _opens(key, signature + message)
    except Exception as error:  # a bundle without its C library, a subinterpreter, a broken file
        kind = type(error).__name__
        raise Unverifiable("PyNaCl fails (%s): Ed25519 cannot be checked here" % kind) from None


def _opens(key: bytes, signed: bytes) -> bool:
    from nacl.bindings import crypto_sign_open
    from nacl.exceptions import BadSignatureError

    try:
        return bool(crypto_sign_open(signed, key) == signed[64:])
    except BadSignatureError:
        return False
