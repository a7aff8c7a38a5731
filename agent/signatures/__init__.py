"""Deciding whether an answer is to be believed: envelope and keys in, a ``Receipt`` or an exception out.

Nothing here does I/O, reads a clock or returns a bool: a check succeeds or raises one class per reason, and
what cannot be checked is never accepted. Which reason pauses, delays or settles a record is the business of
the floors above. A product that only names its keys at start-up loads what keys need and nothing else.
"""

from __future__ import annotations

from .keys import PublicKey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .envelope import Receipt, verify
    from .freshness import Freshness
    from .keyring import Keyring

__all__ = ["Freshness", "Keyring", "PublicKey", "Receipt", "verify"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError("module %r has no attribute %r" % (__name__, name))
    home = {"Freshness": "freshness", "Keyring": "keyring"}.get(name, "envelope")
    return getattr(__import__(home, globals(), None, (name,), 1), name)
