"""Whose usage it is: what a vendor may pass as ``Reo(domain=...)``.

The machine's name for itself decides, and what does not look like a company's own public domain is None: a false domain
would count one company's usage as another's, while None only makes aggregated records wait. Which company that is
nobody knows here: a provider's domain that bears none of the usual words passes. Nobody is asked but this machine and
its own resolver, never for the name of an address. Where that hangs so does the call: delivery makes it on a thread
that it can leave behind.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional


def dns_domain() -> Optional[str]:
    """The machine's DNS domain, for ``Reo(domain=...)``; None unless it is a public one.

    Asks anew at each call, waits as long as the local resolver does, never raises.
    """
    try:
        import socket

        host = socket.gethostname()
        return public_domain(host if "." in host else _whole_name(host))
    except Exception:  # the interpreter's end, a product without ctypes, which raises what it likes
        return None


def _whole_name(host: str) -> str:
    """A bare host name with its domain, as /etc/hosts or else the resolver knows it.

    Windows tells what it was joined to, and no network's suffix, which may be a provider's.
    """
    if sys.platform == "win32":
        import ctypes

        # sysinfoapi.h: 2 is ComputerNameDnsDomain. An instance of our own: ctypes.windll is the host's too.
        name, size = ctypes.create_unicode_buffer(256), ctypes.c_ulong(256)
        ctypes.WinDLL("kernel32").GetComputerNameExW(2, name, ctypes.byref(size))
        return host + "." + name.value
    import socket

    kind = socket.SOCK_STREAM
    return socket.getaddrinfo(host.encode(), None, type=kind, flags=socket.AI_CANONNAME)[0][3]


def public_domain(host_name: str) -> Optional[str]:
    """What follows the first label of a host name, in lower case; None unless it is somebody's own public domain."""
    import re

    name = host_name.lower()[: -1 if host_name.endswith(".") else None]
    host, *labels = name.split(".")
    if len(name) > 253 or not (host_name.isascii() and re.fullmatch(_NAME, name)):
        return None
    if labels[-1] in _PRIVATE or re.search(_ADDRESS, name):
        return None
    second, country = labels[-2:]
    shared = len(country) == 2 and (second in _SHARED or (len(second) == 2 and country in _STATES))
    if len(labels) == 2 and shared:
        return None
    # A machine may be called "static", but "static-7" was named by a provider.
    words = ".".join([host * any(map(str.isdigit, host)), *labels[:-1]])
    return None if _PROVIDERS.intersection(re.findall("[a-z]+", words)) else ".".join(labels)


# RFC 1123, 2.1, with at least two labels behind the first, the last of which is no number (RFC 3696, 2).
_NAME = r"(?:(?!-)[a-z0-9-]{1,63}(?<!-)\.){2,}(?:[a-z]{2,63}|xn--[a-z0-9-]{1,59}(?<!-))"
# An address of a customer: four octets, the same run together with leading zeros, in hexadecimal, or IPv6.
_OCTET = r"(?:25[0-5]|2[0-4]\d|[01]?\d?\d)"
_ADDRESS = (
    r"(?<!\d){0}(?:[-.x]{0}){{3}}(?!\d)|(?<!\d)(?:25[0-5]|2[0-4]\d|[01]\d\d){{4}}(?!\d)"
    r"|(?<![a-z0-9])[a-z]{{0,2}}?(?=[0-9a-f]*[a-f])(?=[a-f]*\d)[0-9a-f]{{8}}(?![a-z0-9])"
    r"|[0-9a-f]{{16}}|(?<![a-z0-9])(?:[0-9a-f]{{1,4}}-){{5}}"
).format(_OCTET)
# RFC 6761, 6762, 7686, 8375, 9476, ICANN's ".internal", and what routers and administrators make up.
_PRIVATE = frozenset(
    "alt arpa belkin box corp dhcp dlink domain example gateway home homestation internal intern intra intranet"
    " invalid ip lan local localdomain localhost localnet lokal mail modem mynet onion private priv router"
    " server station test workgroup".split()
)
# Second levels of countries, under which companies have their names.
_SHARED = frozenset(
    "ac ad art asn asso biz co com ed edu firm gen geek go gob gop gouv gov govt gr gub gv id ind info int iwi k12 lg"
    " ltd me mil muni name ne net nhs nic nom nsn or org plc police press priv pro res sch school tm tv web"
    " act adv cc coop eng idv jus leg lib med mus nsw nt qld sa tas vic wa".split()
)
# Where two letters are a state, a province or a region.
_STATES = frozenset("au br ca cn in it us".split())
# What providers call those whom they connect, host or name.
_PROVIDERS = frozenset(
    "abo adsl bb broadband cable cablemodem catv cgn client clients compute cpe cust customer customers dhcp dial"
    " dialin dialup dip docsis dsl dslam dyn dynamic dynamicip fibre fios ftth fttb gprs hfc hsd ipconnect lte mobile"
    " nat pool pools ppp pppoe ptr res residential rev reverse sdsl static subs subscriber subscribers umts"
    " unassigned vdsl wimax xdsl amazonaws cloudapp duckdns dyndns myfritz".split()
)
