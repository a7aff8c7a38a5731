"""The derivation: what it is a function of, to the byte, and what it must not be a function of.

The golden values were made by another program, for the machine id KEY:
    printf '\\0\\0\\0\\2v1\\0\\0\\0\\4Acme\\0\\0\\0\\6Studio\\0\\0\\0\\0041000' |
        openssl dgst -sha256 -mac hmac -macopt key:$KEY
and so on: each part behind its length in four bytes; the first 128 bits count. A change here gives every user
of every product another identity.
"""

import hmac
from typing import Any, Optional

import pytest
from hypothesis import example, given, strategies

from agent import identity
from agent.identity import context

KEY = "0123456789abcdef0123456789abcde0"
GOLDEN = [
    ("Acme", "Studio", None, "1000", "9d44892eebabac2e7dd1a088641fd6f3"),
    ("Acme", "Studio", "suite", "1000", "05f97f4278605bab651a127be4d0fecd"),
    ("Ümläut", "Studio", None, "S-1-5-7", "094218ef19eaf791224fb46c7a3f0be9"),
]


def derive(machine_id: str, *, user: str, **names: Any) -> str:
    return identity.derive(machine_id, context(user, **names))


BASE: dict[str, Any] = {"vendor": "Acme", "product_name": "Studio", "user": "1000"}


@pytest.mark.parametrize("vendor, product, name, user, value", GOLDEN)
def test_golden(vendor: str, product: str, name: Optional[str], user: str, value: str) -> None:
    assert value == derive(KEY, vendor=vendor, product_name=product, identity_name=name, user=user)


def test_golden_tag_and_file_name() -> None:
    joined = context(**BASE)
    assert joined == b"\0\0\0\4Acme\0\0\0\6Studio\0\0\0\x041000"
    # The tag: the same command with \0\0\0\6tag-v1 in front. The file name: openssl dgst -sha256 of the context.
    assert identity.tag(KEY, joined) == "04a4c62a7fb61046"
    assert identity.file_name(joined) == "identity-9c9ac36cdea04762"


@example(bytes(range(64)), b"a key of one block")
@given(strategies.binary(max_size=64), strategies.binary(max_size=200))
def test_hmac_is_the_hmac_of_everybody_else(key: bytes, message: bytes) -> None:
    assert identity.hmac_sha256(key, message) == hmac.new(key, message, "sha256").digest()


def test_another_name_user_or_machine_is_another_identity() -> None:
    changes: list[dict[str, Any]] = [{}, {"identity_name": "suite"}, {"identity_name": ""}]
    found = {derive(KEY, **{**BASE, **change}) for change in changes}
    assert len({*found, derive("0" + KEY[:0:-1], **BASE)}) == 4
    other = {"vendor": "Bolt", "product_name": "Viewer", "user": "1000"}
    # Products share an identity by its name, whoever the vendor is.
    assert derive(KEY, **other, identity_name="suite") in found


texts = strategies.text(alphabet="ab\0\x01\x04é\ud800", max_size=6)


@given(texts, texts, texts, texts, texts, texts)
def test_no_two_sets_of_names_run_together(
    vendor: str, product: str, user: str, vendor_2: str, product_2: str, user_2: str
) -> None:
    one = derive(KEY, vendor=vendor, product_name=product, user=user)
    two = derive(KEY, vendor=vendor_2, product_name=product_2, user=user_2)
    assert (one == two) == ((vendor, product, user) == (vendor_2, product_2, user_2))
    named = derive(KEY, vendor=vendor, product_name=product, identity_name=vendor_2, user=user_2)
    assert named not in (one, two)
