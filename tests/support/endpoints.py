"""Configured endpoints and answers signed on demand, for the tests of the wire protocols."""

from typing import Any, Optional

from support.signatures import RSA_2048, RSA_3072, RSA_4096, envelope

from agent.config import Config, GetKeyManager, Reo
from agent.endpoints.getkeymanager import GetKeyManagerAdapter
from agent.endpoints.reo import ReoAdapter
from agent.signatures.keys import PublicKey
from agent.values import Capture

NOW = 1_708_999_200.5
API_KEY = "canary-api-key-7f3a"
LICENSE_KEY = "9cc2cc83-4c74-49f9-98f5-f0e1c1eb1541"
SOURCE = Capture("0f8fad5bd9cb469fa16570867728950e", NOW - 60, "a" * 32, LICENSE_KEY, "12135644")


SIGNERS = {"global": RSA_2048, "next": RSA_3072, "stranger": RSA_4096}
ACME: dict[str, Any] = {
    "vendor": "Acme",
    "product_name": "Studio",
    "product_id": "42",
    "product_version": "5.2.5",
}


def public_key(name: str = "global") -> PublicKey:
    return PublicKey.from_pem(SIGNERS[name].pem, name=name)


def config(*targets: Any, **changes: Any) -> Config:
    return Config(**{**ACME, "endpoints": targets, "usage_consent": True, **changes})


def licence_server(**changes: Any) -> GetKeyManager:
    """The settings of a licence server."""
    fields: dict[str, Any] = {
        "base_url": "https://keys.acme.example",
        "api_key": API_KEY,
        "keys": (public_key(),),
    }
    return GetKeyManager(**{**fields, **changes})


def getkeymanager(**changes: Any) -> GetKeyManagerAdapter:
    target = licence_server(**changes)
    return GetKeyManagerAdapter(target, config(target))


def unsigned(**changes: Any) -> GetKeyManagerAdapter:
    return getkeymanager(keys=(), allow_unsigned=True, **changes)


def reo(**changes: Any) -> ReoAdapter:
    target = Reo(**{"api_key": API_KEY, **changes})
    return ReoAdapter(target, config(target))


def signed_body(content: Any, *, by: str = "global", outer: Any = None) -> bytes:
    """An envelope around ``content``, as the licence server makes it."""
    return envelope(content, SIGNERS[by], response=content if outer is None else outer)


def receipt(code: int, *, errors: Any = (), timestamp: Optional[int] = None) -> dict[str, Any]:
    return {
        "code": code,
        "message": "message of the server",
        "errors": errors or [],
        "timestamp": int(NOW) if timestamp is None else timestamp,
    }
