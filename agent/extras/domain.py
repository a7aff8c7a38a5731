"""Whose usage it is: what a vendor may pass as ``Reo(domain=...)``.

The machine's name for itself decides, and what does not look like a company's own public domain is None: a false domain
would count one company's usage as another's, while None only makes aggregated records wait. Which company that is
nobody knows here: a provider's domain that bears none of the usual words passes. Nobody is asked but this machine and
its own resolver, never for the name of an address, in a thread that is left behind when it is late.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable, Optional

WAIT_S = 1.0


def dns_domain() -> Optional[str]:
    """The machine's DNS domain, for ``Reo(domain=...)``; None unless it is a public one.

    Asks anew at each call, waits for the local resolver for at most ``WAIT_S``, never raises.
    """
    try:
        import socket

        host = socket.gethostname()
        if "." in host:
            return public_domain(host)
        if sys.platform == "win32":
            return public_domain("host." + joined_domain())
        return public_domain(look_up(host, WAIT_S))
    except Exception:  # the interpreter's end, a product without ctypes, which raises what it likes
        return None


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


def joined_domain() -> str:
    """The DNS domain that Windows belongs to, "" for none: no network's suffix, which may be a provider's."""
    if sys.platform != "win32":
        raise OSError("no Windows here")
    import ctypes

    name, size = ctypes.create_unicode_buffer(256), ctypes.c_ulong(256)
    dns_domain = 2  # sysinfoapi.h: ComputerNameDnsDomain
    kernel = ctypes.WinDLL("kernel32")  # an instance of our own: ctypes.windll is the host's too
    return name.value if kernel.GetComputerNameExW(dns_domain, name, ctypes.byref(size)) else ""


def _canonical(host: str) -> str:
    """The whole name of a host, as /etc/hosts or else the resolver knows it."""
    import socket

    kind = socket.SOCK_STREAM
    return socket.getaddrinfo(host.encode(), None, type=kind, flags=socket.AI_CANONNAME)[0][3]


# By process, for a fork has none of its parent's threads: the one that is asking, and what came too late.
_asking: dict[int, object] = {}
_late: dict[tuple[int, str], str] = {}


def look_up(host: str, wait_s: float, resolve: Callable[[str], str] = _canonical) -> str:
    """What ``resolve`` says, "" where that takes longer; a later call is given it then, or none while it hangs."""
    if sys.is_finalizing():  # Thread.start() would hang on Python 3.9 to 3.11
        return ""
    import threading

    here, done = os.getpid(), threading.Event()

    def ask() -> None:
        try:
            _late[here, host] = resolve(host)
        except Exception:
            pass  # there is no such name, or nobody to ask
        finally:
            _asking.pop(here, None)
            done.set()

    if (here, host) not in _late and _asking.setdefault(here, done) is done:
        try:
            threading.Thread(target=ask, name="domain-resolver", daemon=True).start()
            done.wait(wait_s)
        except (RuntimeError, MemoryError):  # no thread can be had
            _asking.pop(here, None)
    return _late.pop((here, host), "")


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
