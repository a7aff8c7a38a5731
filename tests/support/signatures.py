"""Keys and envelopes for the signature tests: made here, published here, good for nothing else.

The keys are fixed, so that every run signs the same bytes; signing is a few lines of their
own, independent of the code under test. Odd key sizes are products of more than two of the primes below.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterable
from math import gcd, prod
from typing import Any

from agent.errors import ConfigError
from agent.signatures.keys import PublicKey

# Primes of three published RSA test keys, in hex.
PRIMES = {
    2048: (
        int(
            "e0e581d9c668e32e3309eb7b089aea39f7fbf0f35de221ba8edd041b8c2e26731f24a466495a2864ac79594a"
            "c33d68b8d31d3f6d0c6345fe30fb0c9e1bdb61d2db5c213568dfe46e36a2c28470542ae59c72ef3d0bc3b7cd"
            "21ff2781024add05e055631f77e7ce06d0b83cc8ab4d1d2aa21f5b168fa562c07e19a91a2d32a601",
            16,
        ),
        int(
            "d1ef60896b47e2054f0135d02017452a48f690ff82ff0df2dc22b44d232172d963e9dcb8df96dad85f407b95"
            "a2bb9fa92d3f5500903c26a01076cfdd92f847426468d25d8275fa96aea52feaa7e2e4f2f871c7166dc87eab"
            "44ddb47242249e48625013eb0c2c471fd83c6cd24a749f88084848d73a62193cc722fb377827d82f",
            16,
        ),
    ),
    3072: (
        int(
            "e976a6d21880dc8734eebcaff0d67f8e779d9c0c60a7adeeeaa29de99a4a1f00a75e487096f54cb8fd50ac08"
            "d342abeb073bc549bcc54529cf5987dac95cbc51fa4599d7ce5c8daec77df2c9b655f9a5e78829c8debd3585"
            "c626f6c9bba818885dc559854327375b17d21299502dce4c8766fe35c19a01b01beba4217debff4c03c1a452"
            "59fedcecba3c4ce34c3098aaf6914c0b332cb16e60b3fbf52a0173c3d3ed3e2871f890c2354784d2a7cd02b1"
            "fa0ac0484915ac03c89f7b0a1162262f",
            16,
        ),
        int(
            "c8f423ae80c31744bfa4655d15c8f9b7cdfcf88d3e7d448081d484130068ea316681f8ac0674659b2b6b5565"
            "40041b7ae589ec889dc72e78ebe64b9d006bf02924175d848b1cbd7be7276de612ae5383981432b9e83f237d"
            "c9dadd00fa302a705fac0c95a49179125cc6d04712002ffce9c98d918835aecb773f51a1883d55ed7274fe22"
            "7ca355a036eadabab45e63b72640ad855edc6473d5a9e4c11ade4d60bb087a3575d2e23f5a042f7c12b9dcdb"
            "6a042e4ea910f374a1b562d278061739",
            16,
        ),
    ),
    4096: (
        int(
            "f9021a4eab27a4ee0728de69b533d6b7a33109d626d963cfff5cf43dd7d56c3c53c0eb99c26785128b44f7f3"
            "8522e628023ef69a5e2735bb2d93196f5358295db1266dfe4f77da23f84df260de6a55d44630f1d51bb1f476"
            "1a326514f34308f0a8e72f8fa485488dcd18b87a1574810ec88eb1d81f4cf2fd6dd8bcb7b32ca31ec5bebf68"
            "e71c992e9470bc8b1374dfce513c670c066e8dbd9b05ffca65446947a06b62f6ad0e281b9cdb4989b274a490"
            "8098d7b591e25616a05a21004ade6530b9842d8702851899bceb891fcf6b0dc2d46a1da4c09b5b5a0af954f3"
            "d24f27798533bcaf02071456923487dfcef52dda19b3d9fce9f2b01fa6b751d315e84a93",
            16,
        ),
        int(
            "b5b86f7bb2c28d5f57bf2d744d1adff36169ca7add7541d2571d7e13d7260dc900103b25a0a081ee8410fb29"
            "fae43c1cc68c2ae2993c95467dc27888951faf4bfbf46289b0b803d5a1753d3fbb4ece85202b64ce2156c973"
            "5f1c08364cb1c16ef7f09493d0e33322aea1ca7b27fd76be3804909bc5e9c9fc0fc2f6d5c71d546f85992119"
            "a162eef1072f35d4b321418977eeb32072464ec1f858c95a10479f4b86c29dfc63ccfe61aad9fe2e264c7139"
            "64022fde78fa44d58c3fa6cf188663b820a12f284fcdd4c3b5a1f08bebccc8466d2c6d4a02f69c4f3cfd2996"
            "eb9df256b92bcf35af73534db1cbe435f222802a0344537f337649fadc2684d4b2f44fb9",
            16,
        ),
    ),
}
NOW = 1_790_000_000
DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def integer(value: int) -> bytes:
    return der(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def sequence(*parts: bytes) -> bytes:
    return der(0x30, b"".join(parts))


RSA_ALGORITHM = sequence(bytes.fromhex("06092a864886f70d010101"), b"\5\0")
ED25519_ALGORITHM = sequence(bytes.fromhex("06032b6570"))


def spki(key: bytes, algorithm: bytes = RSA_ALGORITHM) -> bytes:
    return sequence(algorithm, der(3, b"\0" + key))


def pem(content: bytes, label: str = "PUBLIC KEY") -> str:
    text = base64.b64encode(content).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "-----BEGIN %s-----\n%s\n-----END %s-----\n" % (label, "\n".join(lines), label)


def lcm_of(numbers: Iterable[int]) -> int:
    found = 1
    for number in numbers:
        found = found * number // gcd(found, number)
    return found


class RsaSigner:
    """A private RSA key of any number of primes."""

    def __init__(self, *primes: int, e: int = 65537, name: str = "global") -> None:
        self.e, self.n = e, prod(primes)
        self.d = pow(e, -1, lcm_of(prime - 1 for prime in primes))
        # Chinese remainders: four times as fast as one pow() with two primes.
        self._parts = [
            (prime, self.d % (prime - 1), self.n // prime * pow(self.n // prime, -1, prime))
            for prime in primes
        ]
        self.size = (self.n.bit_length() + 7) // 8
        self.pkcs1 = sequence(integer(self.n), integer(e))
        self.pem = pem(spki(self.pkcs1))
        self.name = name

    @property
    def key(self) -> PublicKey:
        return PublicKey.from_pem(self.pem, name=self.name)

    def encode(self, message: bytes) -> bytes:
        tail = b"\0" + DIGEST_INFO + hashlib.sha256(message).digest()
        return b"\0\1" + b"\xff" * (self.size - 2 - len(tail)) + tail

    def raw(self, encoded: bytes) -> bytes:
        number = int.from_bytes(encoded, "big")
        signed = sum(pow(number, d, prime) * weight for prime, d, weight in self._parts) % self.n
        return signed.to_bytes(self.size, "big")

    def sign(self, message: bytes) -> bytes:
        return self.raw(self.encode(message))


class Ed25519Signer:
    """A private Ed25519 key from a fixed seed."""

    def __init__(self, seed: bytes = b"\1" * 32, name: str = "global") -> None:
        from nacl.signing import SigningKey

        self._key = SigningKey(seed)
        self.public = bytes(self._key.verify_key)
        self.pem = pem(spki(self.public, ED25519_ALGORITHM))
        self.name = name

    @property
    def key(self) -> PublicKey:
        return PublicKey.from_pem(self.pem, name=self.name)

    def sign(self, message: bytes) -> bytes:
        return bytes(self._key.sign(message).signature)


RSA_2048 = RsaSigner(*PRIMES[2048])
RSA_3072 = RsaSigner(*PRIMES[3072])
RSA_4096 = RsaSigner(*PRIMES[4096])


def refusal(text: Any, **given: Any) -> str:
    """What is said of a key that is refused: soon, by its field, and without quoting it."""
    import pytest  # not what measures and fuzzes need

    started = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        PublicKey.from_pem(text, **given)
    assert time.monotonic() - started < 5, "a quadratic reader would take minutes"
    message = str(caught.value)
    assert caught.value.field == "keys" and message.startswith("keys: ") and len(message) < 200
    return message


def content(**changes: Any) -> dict[str, Any]:
    """What an 830 signs, with changes; a value of ``...`` leaves the name out."""
    found = {"code": 830, "message": "Correct format data saved", "errors": [], "timestamp": NOW}
    found.update(changes)
    return {name: value for name, value in found.items() if value is not ...}


def text64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def sealed(signed: bytes, signer: Any = RSA_2048) -> dict[str, Any]:
    """The envelope around ``signed``, as a dict."""
    text = text64(signed)
    return {
        "response": {"code": 830},
        "response_base64": text,
        "private_key_used": "global",
        "signature": text64(signer.sign(text.encode("ascii"))),
    }


def envelope(signed: Any = None, signer: Any = RSA_2048, **outer: Any) -> bytes:
    """The bytes of an answer; ``signed`` is bytes or a JSON value, ``outer`` changes the envelope."""
    if not isinstance(signed, bytes):
        signed = json.dumps(content() if signed is None else signed).encode()
    found = dict(sealed(signed, signer), **outer)
    return json.dumps({name: value for name, value in found.items() if value is not ...}).encode()
