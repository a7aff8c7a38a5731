"""``PublicKey``: one trusted key, checked when it is made, that says yes by returning and no by raising.

The algorithm belongs to the key and is never taken from an answer, so no answer can choose it. A key has one accepted
form: what is read loosely is written again and compared; so are signed blocks (RFC 8017, 8.2.2), and there is nothing
to be lenient about. Timing is no concern, for all of this is public. Errors never quote a PEM text: it may be private.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64

from ..errors import ConfigError, SignatureInvalid, Unverifiable
from ..lines import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

RSA, ED25519 = "rsa-pkcs1v15-sha256", "ed25519"
MAX_NAME_CHARS = 64
# An 8192-bit key is 1.5 KB of PEM.
MAX_PEM_BYTES = 16 * 1024
MIN_BITS, MAX_BITS = 2048, 8192
# NIST SP 800-56B allows up to 256 bits; real ones are 3, 17 and 65537, and a longer one only costs time.
MAX_EXPONENT_BITS = 33

_INTEGER, _BIT_STRING, _SEQUENCE = 0x02, 0x03, 0x30
# AlgorithmIdentifier of RSA: OID 1.2.840.113549.1.1.1 and the NULL that RFC 3279, 2.3.1, requires.
_RSA_ALGORITHM = bytes.fromhex("300d06092a864886f70d0101010500")
# DigestInfo of SHA-256 up to the digest (RFC 8017, 9.2, note 1).
_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
# SubjectPublicKeyInfo of Ed25519 but for its 32 bytes (RFC 8410).
_ED25519_HEAD = bytes.fromhex("302a300506032b6570032100")
# RFC 8032, 7.1, test 2: a key, and its signature of the letter "r".
_KNOWN_KEY = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
_KNOWN_SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


class Frozen:
    """Slots that are written once, compared by value and shown."""

    __slots__: tuple[str, ...] = ()

    def __init__(self, **facts: Any) -> None:
        for name in self.__slots__:
            setattr(self, name, facts[name])

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

    def __repr__(self) -> str:
        facts = ["%s=%r" % item for item in zip(self.__slots__, self.facts())]
        return "%s(%s)" % (type(self).__name__, ", ".join(facts))


class PublicKey(Frozen):
    """A named RSA or Ed25519 public key; immutable, hashable, picklable.

        key = PublicKey.from_pem(PEM, name="global")     # or ConfigError
        key.verify(message, signature)                   # or SignatureInvalid, Unverifiable

    ``algorithm`` is "rsa-pkcs1v15-sha256" or "ed25519"; ``fingerprint`` is the SHA-256 of the SubjectPublicKeyInfo in
    hex, as ``openssl pkey -pubin -outform DER | sha256sum`` prints it. ``valid_from`` and ``valid_until`` (Unix
    seconds, None for no bound) say of which answers it may be the key, by their signed timestamps.
    """

    __slots__ = tuple("name algorithm fingerprint valid_from valid_until _material".split())

    def __init__(
        self, spki: bytes, name: str, valid_from: Optional[int], valid_until: Optional[int]
    ) -> None:
        self.name = name
        self.valid_from, self.valid_until = valid_from, valid_until
        self.fingerprint: str = sha256(spki).hexdigest()
        self._material: Any  # 32 bytes, or (modulus, exponent)
        if spki[:-32] == _ED25519_HEAD:
            self.algorithm, self._material = ED25519, spki[-32:]
        else:
            self.algorithm, self._material = RSA, _read_rsa(spki)

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
        times = [time for time in (valid_from, valid_until) if time is not None]
        text = name if isinstance(name, str) and name.isprintable() else ""
        if not 0 < len(text) <= MAX_NAME_CHARS:
            reason = "a name is a text of 1 to %d printable characters" % MAX_NAME_CHARS
        elif not isinstance(pem, (str, bytes)):
            reason = "a PEM text (str or bytes) is needed, not " + type(pem).__name__
        elif not all(type(time) is int and 0 <= time < 1 << 53 for time in times):
            reason = "%s: valid_from and valid_until are Unix seconds (int) or None" % name
        elif times != sorted(times):
            reason = "%s: valid_until is before valid_from" % name
        else:
            try:
                return cls(_spki(pem), name, valid_from, valid_until)
            except ValueError as error:
                reason = "%s: %s" % (name, error)
        raise ConfigError("keys: " + reason, "keys")

    @property
    def pem(self) -> str:
        """The key as ``from_pem`` takes it."""
        is_rsa = self.algorithm == RSA
        spki = _write_rsa(*self._material) if is_rsa else _ED25519_HEAD + self._material
        text = b2a_base64(spki, newline=False).decode("ascii")
        return "-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----\n" % text

    def verify(self, message: bytes, signature: bytes) -> None:
        """Return if this key signed ``message``; raise ``SignatureInvalid`` or ``Unverifiable`` if not."""
        check = _check_rsa if self.algorithm == RSA else _check_ed25519
        check(self._material, as_bytes("message", message), as_bytes("signature", signature))

    def covers(self, timestamp: int) -> bool:
        """Whether an answer of that signed ``timestamp`` may be under this key."""
        begun = self.valid_from is None or timestamp >= self.valid_from
        return begun and (self.valid_until is None or timestamp <= self.valid_until)

    def __repr__(self) -> str:
        facts = (self.name, self.algorithm, self.fingerprint[:16])
        return "PublicKey(name=%r, algorithm=%r, fingerprint='%s...')" % facts


def as_bytes(argument: str, value: object) -> bytes:
    """``value`` as bytes; raises ``TypeError`` naming ``argument`` where it is text or anything else."""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("%s: bytes are needed, not %s" % (argument, type(value).__name__))
    return bytes(value)


def decode_base64(text: bytes) -> bytes:
    """The bytes that ``text`` stands for (RFC 4648, 3.5); raises ``ValueError`` for any other spelling."""
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
    for label, to_spki in ((b"PUBLIC KEY", bytes), (b"RSA PUBLIC KEY", _rsa_spki)):
        if lines[:1] + lines[-1:] == [b"-----BEGIN %b-----" % label, b"-----END %b-----" % label]:
            return to_spki(decode_base64(b"".join(lines[1:-1])))
    raise ValueError("not exactly one PEM block of a public key (its text, not a file's name)")


# -- RSASSA-PKCS1-v1_5 with SHA-256, in plain Python ---------------------------------------------


def _rsa_spki(pkcs1: bytes) -> bytes:
    """The SubjectPublicKeyInfo around an ``RSAPublicKey`` (RFC 8017, A.1.1)."""
    return _long(_SEQUENCE, _RSA_ALGORITHM + _long(_BIT_STRING, b"\0" + pkcs1))


def _long(tag: int, content: bytes) -> bytes:
    """One DER element of 256 bytes to 64 KB, as all are that hold a modulus of 2048 bits or more."""
    return bytes((tag, 0x82)) + len(content).to_bytes(2, "big") + content


def _write_rsa(modulus: int, exponent: int) -> bytes:
    first, second = (n.to_bytes(n.bit_length() // 8 + 1, "big") for n in (modulus, exponent))
    integers = _long(_INTEGER, first) + bytes((_INTEGER, len(second))) + second
    return _rsa_spki(_long(_SEQUENCE, integers))


def _read_rsa(spki: bytes) -> tuple[int, int]:
    """Modulus and exponent of a SubjectPublicKeyInfo in its one DER form; raises ``ValueError``.

    Behind 32 bytes of heads is the modulus, behind two more the exponent: they are taken from there, whatever is there.
    """
    end = 32 + int.from_bytes(spki[30:32], "big")
    modulus, exponent = (int.from_bytes(part, "big") for part in (spki[32:end], spki[end + 2 :]))
    if (
        MIN_BITS <= modulus.bit_length() <= MAX_BITS
        and 3 <= exponent < 1 << MAX_EXPONENT_BITS
        and modulus % 2 == exponent % 2 == 1
    ):
        if _write_rsa(modulus, exponent) == spki:
            return modulus, exponent
    what = "not Ed25519, nor RSA of %d to %d bits with an odd exponent from 3 to 2^%d, in DER"
    raise ValueError(what % (MIN_BITS, MAX_BITS, MAX_EXPONENT_BITS))


def _check_rsa(key: tuple[int, int], message: bytes, signature: bytes) -> None:
    modulus, exponent = key
    size = (modulus.bit_length() + 7) // 8
    if len(signature) != size:
        raise SignatureInvalid("the signature has %d bytes, not %d" % (len(signature), size))
    tail = _DIGEST_INFO + sha256(message).digest()
    expected = b"\0\1" + b"\xff" * (size - 3 - len(tail)) + b"\0" + tail
    number = int.from_bytes(signature, "big")
    if number >= modulus or pow(number, exponent, modulus).to_bytes(size, "big") != expected:
        raise SignatureInvalid("the signature does not fit")


# -- Ed25519 (RFC 8032), through PyNaCl ----------------------------------------------------------

_proven: Any = None  # the function that gave the known answers


def _check_ed25519(key: bytes, message: bytes, signature: bytes) -> None:
    """Loads PyNaCl; where that is missing, fails or gives a wrong answer to a known question, ``Unverifiable``.

    Missing cryptography is never a valid signature, and not a forged one either. Small-order keys and unreduced scalars
    are refused by libsodium.
    """
    global _proven
    if len(signature) != 64:
        raise SignatureInvalid("the signature has %d bytes, not 64" % len(signature))
    try:
        from nacl.bindings import crypto_sign_open

        if _proven is not crypto_sign_open:
            good = _opens(crypto_sign_open, _KNOWN_KEY, b"r", _KNOWN_SIGNATURE)
            if not good or _opens(crypto_sign_open, _KNOWN_KEY, b"s", _KNOWN_SIGNATURE):
                raise ValueError("a wrong answer")
            _proven = crypto_sign_open
        fits = _opens(crypto_sign_open, key, message, signature)
    except Exception as error:  # a bundle without its C library, a subinterpreter, a broken file
        kind = type(error).__name__
        raise Unverifiable("PyNaCl fails (%s): Ed25519 cannot be checked here" % kind) from None
    if not fits:
        raise SignatureInvalid("the signature does not fit")


def _opens(open_signed: Any, key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        opened = open_signed(signature + message, key)
    except Exception as error:
        if type(error).__name__ == "BadSignatureError":
            return False
        raise
    if opened != message:  # not PyNaCl, whatever it is
        raise ValueError("something else was opened")
    return True
