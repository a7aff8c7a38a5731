"""What to do about an endpoint that does not take our records, by the reason of its last failure.

The reasons are those that delivery keeps: an outcome and, behind a colon, what was seen. The first word that is found
in it decides. Nothing here opens or reads anything.
"""

from __future__ import annotations

from typing import Any

from ..verdicts import FOREIGN, WRONG_ADDRESS

CLOCK = "set the clock, or let the system do so (NTP)"
ORIGIN = (
    "set domain or ip_addr of this endpoint; with dns_domain they wait until this machine is in a "
    "network with a public domain"
)
_TLS = "something between us breaks TLS: check ca_bundle, proxy and firewall"
_DATES = (
    "the clock of this machine is wrong, or whoever runs the server has to renew its certificate"
)
_ANSWERS = "a captive portal, a proxy or something else may answer in its place"
_NO_TLS = "what answers there does not speak TLS: check the port in base_url; " + _ANSWERS
_ENDED = (
    "something ends the connection: a firewall or a gateway on the way (have this host allowed), or the "
    "server, which is asked again"
)
_SILENT = "no answer: a firewall may swallow the connection; check proxy settings"
_CREDENTIALS = (
    "give the proxy's credentials: http://user:password@host:port where its address is "
    "written, or proxy_auth"
)
_BASIC = _CREDENTIALS + (
    "; only Basic is spoken here, so where it demands another scheme, ask its administrator to let "
    "this host through without authentication"
)
_NO_PROXY_OF_THIS_KIND = (
    "it ends the connection, or is no proxy of this kind: check that it runs, and scheme (http, https, "
    "socks5h) and port of its address"
)
_FORBIDDEN = (
    "the proxy works and forbids this server: have its administrator allow this host and port"
)
_BEHIND_PROXY = (
    "the proxy works and cannot reach this server: check base_url, then ask its administrator (its "
    "DNS, its firewall); NO_PROXY for this host if it is reached without"
)
# Between us and the proxy, or what the proxy said.
_PROXY = (
    (
        "names no proxy",
        "write it as http://host:port (or https, socks5, socks5h), and in a password %23 for #, %2F for /, "
        "%3F for ?, %40 for @",
    ),
    (
        "pysocks",
        "ship PySocks with the product, or name an HTTP proxy; NO_PROXY for this host if it is reached "
        "without",
    ),
    (
        "refuses our",
        "put the proxy's user name and password right where its address is written (odd characters as "
        "%XX), or in proxy_auth (as they are)",
    ),
    ("demands authentication", _BASIC),
    ("refused to connect (http 407", _BASIC),
    ("socks5auth", _CREDENTIALS),
    ("refused to connect (http 4", _FORBIDDEN),
    ("refused to connect", _BEHIND_PROXY),
    ("socks5error", _BEHIND_PROXY),
    ("not an http answer", _NO_PROXY_OF_THIS_KIND),
    ("generalproxy", _NO_PROXY_OF_THIS_KIND),
    ("closed the connection", _NO_PROXY_OF_THIS_KIND),
    ("reset", _NO_PROXY_OF_THIS_KIND),
    ("eof", _NO_PROXY_OF_THIS_KIND),
    ("lost before", _NO_PROXY_OF_THIS_KIND),
    ("version", _NO_PROXY_OF_THIS_KIND),
    ("record layer", _NO_PROXY_OF_THIS_KIND),
    (
        "no answer within",
        "the proxy says nothing: check scheme (http, https, socks5h), host and port of its address; a "
        "firewall may be before it",
    ),
    (
        "",
        "the proxy itself is not reached: check its address, and whether this machine is in the network "
        "that it is for; if none is needed here, take it out or name this host in NO_PROXY",
    ),
)
# TLS to an https:// proxy needs what TLS needs.
_AS_EVERYWHERE = ("certificate", "cannot be read", "empty directory")
# The way to the server, by stage and by what the system said there.
_NETWORK = (
    ("modulenotfounderror", "a library is missing: ship urllib3 with the product"),
    ("no module named", "a library is missing: ship it with the product"),
    ("cannot be imported", "a library is missing: ship it with the product"),
    ("importerror", "a library cannot be loaded: ship urllib3 and what it needs"),
    ("http 407", _CREDENTIALS),
    (
        "ca certificates found",
        "install the system's CA certificates, ship certifi, or set ca_bundle",
    ),
    ("cannot be read", "the file or directory named there has to exist, be readable and hold CAs"),
    ("empty directory", "the directory named there has to hold CAs, as openssl rehash makes it"),
    ("crl", "ca_bundle has to hold a revocation list (CRL) in force of the CA, or none at all"),
    ("revoked", "the certificate was revoked: whoever runs the server has to replace it"),
    (
        "too weak",
        "whoever issued the certificate, the server's CA or a gateway that inspects TLS, has to issue one "
        "of today's strength",
    ),
    ("has expired", _DATES),
    ("not yet valid", _DATES),
    (
        "mismatch",
        "the certificate is for another name: check base_url; a captive portal or DNS that lies may "
        "answer in its place",
    ),
    (
        "certificate",
        "see with a browser who issued it: the CA of a gateway that inspects TLS belongs into the system's store, or "
        "into ca_bundle or SSL_CERT_FILE; sign in with a browser where it is a captive portal's; "
        "anything else is not the server",
    ),
    (
        "name resolution",
        "the name cannot be resolved: check base_url, DNS and whether there is a network; where only a "
        "proxy can, set HTTPS_PROXY or proxy",
    ),
    ("no answer within", _SILENT),
    ("earlier request", _SILENT),
    ("timeout", _SILENT),
    ("wrong version", _NO_TLS),
    ("record layer", _NO_TLS),
    (
        "headers",
        "whoever runs the server, or a gateway before it, has to mend the headers of its answers: so they "
        "cannot be read safely",
    ),
    (
        "not an http answer",
        "what answers there does not speak HTTP: check the port in base_url; " + _ANSWERS,
    ),
    ("reset", _ENDED),
    ("eof", _ENDED),
    ("lost before", _ENDED),
    ("closed the connection", _ENDED),
    ("protocol", "it speaks no TLS 1.2 or newer: an old server, or an old gateway before it"),
    ("tls", _TLS),
    ("ssl", _TLS),
    (
        "refused",
        "nothing listens there, or a firewall rejects it: check base_url, and whether the server is up; "
        "where only a proxy leads out, set HTTPS_PROXY or proxy",
    ),
    (
        "unreach",
        "there is no way to that address: check the network; where only a proxy leads out, set "
        "HTTPS_PROXY or proxy",
    ),
    ("eacces", "a firewall of this machine forbids it: have it allow the product"),
    ("time", _SILENT),
    ("", "check base_url, network, proxy and firewall"),
)
# The record may be saved, and is sent again until its answer can be read.
_CLOTHES = (
    (
        "PHP notice",
        "whoever runs the server has to switch display_errors off there, and mend what it complains of",
    ),
    (
        "packed",
        "whoever runs the server, or a gateway before it, has to leave its answers unpacked: that is all "
        "that was asked for",
    ),
    ("broke off", _ENDED),
)
_UNTRUSTED = (
    *_CLOTHES,
    ("HTTP 3", "base_url may have moved (give the new address), or " + _ANSWERS),
    (
        "not JSON",
        "that is no answer of this server: sign in to the network with a browser where it has a captive "
        "portal, then check base_url and proxy",
    ),
    (
        "",
        "the answer is not signed by a key in keys: compare them with the public key of the account; "
        "base_url may name another server; a captive portal or a gateway that inspects TLS may "
        "answer in its place",
    ),
)
_RETRY = (
    *_CLOTHES,
    ("HTTP 3", "base_url may have moved (give the new address), or " + _ANSWERS),
    ("HTTP 5", "the server has trouble; it is asked again, and spool replay tries at once"),
    ("HTTP 429", "the server has too much to do; it is asked again, nothing to do"),
    ("", "that is no answer of this server: check base_url; or " + _ANSWERS),
)
_SKEWED = (
    "set the clock of this machine, or let the system do so (NTP); if it is right, something between us "
    "plays old answers again"
)
_HELD = (
    "the server refuses us: check in its account the API key, its rights and the addresses it may be "
    "used from, then spool replay --held"
)
_ASK_AGAIN = "what this endpoint answers now is said above, unless the network was not tried"
_THROTTLED = "the server asked for it; nothing to do, it is asked again when that is over"

_AS_IT_MUST = "refuses the made-up API key, as it must: %s"
# What an endpoint made of the dry run: whether that lets records through, what it means, what to do.
_DRY_RUN = {
    "offline": (False, "%s", ""),
    "skewed": (False, "%s", ""),
    "untrusted": (False, "%s", ""),
    "retry": (False, "%s", ""),
    "throttled": (False, "%s", ""),
    "held": (False, "refuses us, and not for the made-up API key: %s", ""),
    "refused": (
        True,
        "refuses the request, not its made-up API key: %s",
        "it may look at the (empty) record first, or something else answers in its place: compare "
        "with the last answers",
    ),
    "delivered": (
        False,
        "takes a record with a made-up API key",
        "no such server does: check base_url; " + _ANSWERS,
    ),
    "foreign": (False, "%s", ""),
    "taken": (
        True,
        "takes a record with a made-up API key (code %s, signed)",
        "the server should refuse unknown API keys; it has stored an empty record",
    ),
    "other": (
        True,
        "refuses the made-up API key, but not as documented: %s",
        "compare with the last answers; " + _ANSWERS,
    ),
}


def for_identity(explained: dict[str, Any]) -> list[str]:
    """What to do about a user identifier that is odd."""
    advice = {
        "it was derived on another machine, or this one got a new id: a reset derives its own": "moved_or_cloned",
        "it may be the image's: mount the host's /etc/machine-id, or a state volume for each user": "in_container",
    }
    found = [text for text, applies in advice.items() if explained[applies]]
    if explained["quality"] == "random":
        found.append("it lasts as long as its file: see that the machine has an id, then reset it")
    return found


def for_dry_run(found: dict[str, Any]) -> tuple[bool, str, str]:
    """(whether records get through, what the endpoint's answer to the dry run means, what to do)."""
    outcome, reason = found["outcome"], found["reason"] or "code %s" % found["code"]
    if found["expected"]:
        return True, _AS_IT_MUST % reason, ""
    if outcome in ("delivered", "flagged"):
        kind = "taken" if found["proven"] else "delivered"
        reason = found["code"]
    else:
        kind = "other" if outcome == "held" and not found["proven"] else outcome
        kind = "foreign" if reason.endswith((FOREIGN, WRONG_ADDRESS)) else kind
    fine, said, advice = _DRY_RUN[kind]
    told = said % reason if "%s" in said else said
    seen = reason if outcome == "throttled" or kind == "foreign" else "%s: %s" % (outcome, reason)
    return fine, told, advice or for_failure(seen)


def for_network(reason: str) -> str:
    """What to do where no answer came."""
    seen = reason.lower()
    at_proxy = seen.startswith("proxy: ") and not any(word in seen for word in _AS_EVERYWHERE)
    return _first(_PROXY if at_proxy else _NETWORK, seen)


def for_wait(waiting: str, reason: str) -> str:
    """What to do about an endpoint that waits so, for this reason; of some only the process that asked knows it."""
    if reason or waiting not in ("backoff", "pause"):
        return for_failure(reason)
    return _THROTTLED if waiting == "pause" else _ASK_AGAIN


def for_failure(reason: str) -> str:
    """What to do about an endpoint after that failure."""
    outcome, _, seen = reason.partition(": ")
    if WRONG_ADDRESS in reason:
        return "put base_url right: there is a server, but not this API; then spool replay"
    if outcome == "skewed":
        return _SKEWED
    if outcome == "untrusted":
        return _first(_UNTRUSTED, seen)
    if outcome == "offline":
        return for_network(seen)
    if outcome == "retry" or reason.endswith(FOREIGN):
        return _first(_RETRY, seen)
    # Without an outcome it is what the server said: to wait, or that it refuses us.
    return _THROTTLED if seen.startswith("asked to wait") else _HELD


def _first(known: tuple[tuple[str, str], ...], seen: str) -> str:
    return next(what for word, what in known if word in seen)
