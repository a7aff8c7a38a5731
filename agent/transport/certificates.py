"""What a peer's certificates say: names and times for people, the digest of the key for pins.

Read from DER (X.690, RFC 5280, 4.1) without a library, for the standard one shows no certificate that it refused.
Only a pin decides anything, and only on a certificate that TLS has verified before.
"""

from __future__ import annotations

from binascii import b2a_base64

from ..digest import sha256
from ..plain import clean
from .values import Certificate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Element = tuple[int, bytes, bytes]  # tag, content, the whole

_NAME_MAX_CHARS = 100
_CHAIN_MAX = 10
_TLS13 = 0x0304
# Object identifiers 2.5.4.3 and 2.5.4.10.
_COMMON_NAME, _ORGANISATION = b"\x55\x04\x03", b"\x55\x04\x0a"
# Of old strings; all others are UTF-8.
_CHARSETS = {20: "latin-1", 28: "utf-32-be", 30: "utf-16-be"}
_UTC_TIME, _EXPLICIT_VERSION = 23, 0xA0


def in_message(message: bytes, version: int) -> list[Certificate]:
    """What a TLS Certificate message holds (RFC 8446, 4.4.2; RFC 5246, 7.4.2), as far as it can be read."""
    newer = version >= _TLS13
    found: list[Certificate] = []
    try:
        at = 4 + (1 + message[4] if newer else 0) + 3
        while at < len(message) and len(found) < _CHAIN_MAX:
            end = at + 3 + int.from_bytes(message[at : at + 3], "big")
            found.append(read(message[at + 3 : end]))
            at = end + (2 + int.from_bytes(message[end : end + 2], "big") if newer else 0)
    except (ValueError, IndexError):
        pass
    return found


def read(certificate: bytes) -> Certificate:
    """One certificate in DER; raises ``ValueError`` for anything else."""
    _, whole, _ = next(_elements(certificate), (0, b"", b""))
    _, body, _ = next(_elements(whole), (0, b"", b""))
    fields = list(_elements(body))
    if fields and fields[0][0] == _EXPLICIT_VERSION:
        del fields[0]
    if len(fields) < 6:
        raise ValueError("not a certificate")
    _, _, issuer, validity, subject, key = fields[:6]
    begins_at, ends_at = [_time(*element[:2]) for element in _elements(validity[1])]
    digest = b2a_base64(sha256(key[2]).digest(), newline=False).decode("ascii")
    return Certificate(_name(subject[1]), _name(issuer[1]), begins_at, ends_at, "sha256/" + digest)


def pin(certificate: bytes) -> str:
    """What pins name of a certificate; "" where that cannot be read."""
    try:
        return read(certificate).pin
    except ValueError:
        return ""


def _elements(data: bytes) -> Iterator[Element]:
    at = 0
    while at < len(data):
        start = at + 2
        size = int.from_bytes(data[at + 1 : start], "big")
        if size >= 0x80:
            start += size - 0x80
            size = int.from_bytes(data[at + 2 : start], "big")
            # OpenSSL reads BER too: a length of its own kind would let it and us see different keys.
            if size < 0x80:
                raise ValueError("not DER")
        end = start + size
        if end > len(data):
            raise ValueError("cut off")
        yield data[at], data[start:end], data[at:end]
        at = end


def _time(tag: int, content: bytes) -> float:
    """RFC 5280, 4.1.2.5: years in two digits are those from 1950 on."""
    from calendar import timegm

    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if text >= "5" else "20") + text
    parts = [int(text[:4]), *(int(text[at : at + 2]) for at in range(4, 14, 2))]
    return float(timegm((*parts, 0, 0, 0)))


def _name(content: bytes) -> str:
    """The common name, with the organisation behind it in brackets; anybody may have written them."""
    found = {}
    for _, entries, _ in _elements(content):
        for _, entry, _ in _elements(entries):
            (_, kind, _), (tag, value, _) = _elements(entry)
            text = value.decode(_CHARSETS.get(tag, "utf-8"), "replace")
            text = "".join(char if char.isprintable() else "?" for char in text)
            found[kind] = clean(text, _NAME_MAX_CHARS)
    names = [found[kind] for kind in (_COMMON_NAME, _ORGANISATION) if kind in found]
    return "%s (%s)" % (names[0], names[1]) if len(names) > 1 else "".join(names) or "no name"
