"""Functions of the public interface that are no part of an agent's life: erase, the command line, an origin."""

from __future__ import annotations

from .errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Optional

    from .config import Config


def erase(config: Config) -> list[str]:
    """Remove everything that this configuration's agents keep on disk; the paths that remain.

    Removes files by known name only, follows no link, creates nothing.
    """
    from . import flushing
    from .config import Config

    if not isinstance(config, Config):
        raise ConfigError("config: got %s, allowed is a Config" % type(config).__name__, "config")
    return flushing.erase(config)


def main(argv: Optional[Sequence[str]] = None, config: Optional[Config] = None) -> int:
    """The whole command line, for a product that is frozen or brings its configuration; the exit status."""
    try:
        from .cli import main as run  # type: ignore[import-not-found, unused-ignore]
    except ImportError:  # not only if missing: a folder that was emptied is a package to Python
        raise ConfigError("this copy has no command line: its folder cli was left out") from None
    status: int = run(argv, config=config)
    return status


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
