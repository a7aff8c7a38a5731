"""Signatures of the collector, judged by an independent library; its keys, their rotation and their limits."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from support.collector import post_licence, verified

from agent.collector import Collector


@pytest.mark.parametrize(
    ("algorithm", "kind"), [("rsa", "rsa-pkcs1v15-sha256"), ("ed25519", "ed25519")]
)
def test_keys_have_the_shape_of_the_contract(algorithm: str, kind: str) -> None:
    keys = Collector(algorithm=algorithm).keys
    assert [key["name"] for key in keys] == ["global", "global-next"]
    for key in keys:
        assert list(key) == ["name", "algorithm", "public_key"] and key["algorithm"] == kind
        public = load_pem_public_key(key["public_key"].encode())
        assert isinstance(public, (rsa.RSAPublicKey, ed25519.Ed25519PublicKey))
        # The same text that a well-kept encoder writes, to the last byte.
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        assert pem.decode() == key["public_key"]


@pytest.mark.parametrize("algorithm", ["rsa", "ed25519"])
@pytest.mark.parametrize("chosen", [1, "global-next"])
def test_a_rotation_signs_with_the_next_key(algorithm: str, chosen: int | str) -> None:
    with Collector(algorithm=algorithm) as collector:
        old, new = collector.keys
        collector.use_key(chosen)
        envelope = post_licence(collector).json
        assert verified(envelope, new)["code"] == 830
        with pytest.raises(InvalidSignature):
            verified(envelope, old)
        assert envelope["private_key_used"] == "global"
        collector.use_key("global")
        assert verified(post_licence(collector).json, old)["code"] == 830
