"""Whose usage it is: what a vendor may pass as ``Reo(domain=...)``."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional


def dns_domain() -> Optional[str]:
    """The machine's DNS domain, for ``Reo(domain=...)``; None unless it looks like a public one.

    Runs on the delivering thread and asks only the local resolver.
    """
    import socket

    _, _, domain = socket.getfqdn().strip(".").lower().partition(".")
    labels = domain.split(".")
    private = labels[-1] in _PRIVATE_SUFFIXES or domain.endswith("home.arpa")
    if len(labels) < 2 or private or domain.endswith((".in-addr.arpa", ".ip6.arpa")):
        return None
    return domain


# RFC 6762, RFC 6761, RFC 8375 and what routers commonly hand out.
_PRIVATE_SUFFIXES = frozenset(
    "local localdomain lan internal intranet home corp private test invalid example arpa".split()
)
