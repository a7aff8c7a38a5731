"""RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 section 8.2.2), in plain Python: public keys only.

What must come is built and compared whole, keys and signed blocks alike; neither DER nor padding is parsed
strictly, so there is nothing to be lenient about. Timing is no concern: everything here is public.
"""

from __future__ import annotations

from ..digest import sha256
from ..errors import SignatureInvalid

MIN_BITS, MAX_BITS = 2048, 8192
# NIST SP 800-56B allows up to 256 bits; real ones are 3, 17 and 65537, and a longer one only costs time.
MAX_EXPONENT_BITS = 33

_INTEGER, _BIT_STRING, _SEQUENCE = 0x02, 0x03, 0x30
# AlgorithmIdentifier: OID 1.2.840.113549.1.1.1 and the NULL that RFC 3279 section 2.3.1 requires.
_ALGORITHM = bytes.fromhex("300d06092a864886f70d0101010500")
# DigestInfo of SHA-256 up to the digest (RFC 8017 section 9.2, note 1).
_DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


def spki(pkcs1: bytes) -> bytes:
    """The SubjectPublicKeyInfo around an ``RSAPublicKey`` (RFC 8017 appendix A.1.1)."""
    return wrap(_SEQUENCE, _ALGORITHM + wrap(_BIT_STRING, b"\0" + pkcs1))


def read(key: bytes) -> tuple[int, int]:
    """Modulus and exponent of a SubjectPublicKeyInfo in its one DER form; raises ``ValueError``."""
    _, bits = _unwrap(_unwrap(key)[0])
    integers, _ = _unwrap(_unwrap(bits)[0][1:])
    first, rest = _unwrap(integers)
    modulus, exponent = int.from_bytes(first, "big"), int.from_bytes(_unwrap(rest)[0], "big")
    if spki(wrap(_SEQUENCE, _integer(modulus) + _integer(exponent))) != key:
        raise ValueError("not an RSA or Ed25519 key in DER")
    bits_of_modulus = modulus.bit_length()
    if not MIN_BITS <= bits_of_modulus <= MAX_BITS or modulus % 2 == 0:
        raise ValueError("RSA moduli are odd and have %d to %d bits" % (MIN_BITS, MAX_BITS))
    if exponent < 3 or exponent % 2 == 0 or exponent.bit_length() > MAX_EXPONENT_BITS:
        raise ValueError("RSA exponents are odd, 3 or more, below 2^%d" % MAX_EXPONENT_BITS)
    return modulus, exponent


def check(key: tuple[int, int], message: bytes, signature: bytes) -> None:
    """Raise ``SignatureInvalid`` unless ``signature`` is that of ``message`` under (modulus, exponent)."""
    modulus, exponent = key
    size = (modulus.bit_length() + 7) // 8
    if len(signature) != size:
        raise SignatureInvalid("the signature has %d bytes, not %d" % (len(signature), size))
    number = int.from_bytes(signature, "big")
    if number >= modulus:
        raise SignatureInvalid("the signature is not below the modulus")
    tail = _DIGEST_INFO + sha256(message).digest()
    expected = b"\0\1" + b"\xff" * (size - 3 - len(tail)) + b"\0" + tail
    if pow(number, exponent, modulus).to_bytes(size, "big") != expected:
        raise SignatureInvalid("the signature does not fit")


def wrap(tag: int, content: bytes) -> bytes:
    """One DER element of fewer than 64 KiB."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes(2, "big").lstrip(b"\0")
    return bytes((tag, 0x80 | len(length))) + length + content


def _unwrap(data: bytes) -> tuple[bytes, bytes]:
    """The content of the first element and what follows it, read loosely: the caller encodes it again."""
    start = 2
    length = int.from_bytes(data[1:start], "big")
    if length > 0x80:
        start += length - 0x80
        length = int.from_bytes(data[2:start], "big")
    return data[start : start + length], data[start + length :]


def _integer(value: int) -> bytes:
    return wrap(_INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))
