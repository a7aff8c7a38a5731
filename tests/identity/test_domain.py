"""Whose usage it is: a domain that is nobody's, or looks like a provider's, is never sent, and its lack is seen."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Optional

import pytest
from support.agent import ROOT, Desk, endpoint, pass_
from support.systems import posix

import agent
from agent.extras import domain as origin

ORIGIN = "a domain or ip_addr"

# "[kind]", and host names of that kind; those of a company with their domain.
_, *SECTIONS = (ROOT / "tests" / "golden" / "domains.txt").read_text("utf-8").split("\n[")
OWN, *NOBODYS = (section.split("]\n") for section in SECTIONS)


def test_the_domain_of_a_company_is_taken() -> None:
    wanted = dict(pair.split("=") for pair in OWN[1].split())
    assert {host: origin.public_domain(host) for host in wanted} == wanted


@pytest.mark.parametrize("kind, names", NOBODYS, ids=[kind for kind, _ in NOBODYS])
def test_what_is_nobodys_own_public_domain_is_none(kind: str, names: str) -> None:
    hosts = names.split()
    hosts += [host.upper() + "." for host in hosts if host[-1] != "."]
    assert {host: one for host in hosts if (one := origin.public_domain(host))} == {}


def test_long_and_odd_names_have_a_verdict_and_soon() -> None:
    label, rest = "z" * 63, ".acme.com"
    longest = ".".join([label, label, label, "z" * (253 - 192 - len(rest))]) + rest
    assert origin.public_domain(longest) == origin.public_domain(longest + ".") == longest[64:]
    odd = ["b" + longest, "a" * 64 + rest, "pc." + "a" * 64 + ".com", "pc.acme." + "a" * 64]
    odd += ["", "pc.acme.com\n", "pc.acme.\u212aom"]  # the lower case of the last is "k"
    assert not [name for name in odd if origin.public_domain(name)]
    began_at = time.monotonic()
    for part in ("1-", "a1", "0", "deadbee1", "a-", "1.", "abo."):
        origin.public_domain((part * 200)[:240] + ".acme.com")
    assert time.monotonic() - began_at < 5


# --- who is asked ---------------------------------------------------------------------------------


class Machine:
    """What ``socket`` says of this machine; ``asked`` are the names that its resolver was asked for."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.host = "pc7"
        self.canonical: Optional[str] = None
        self.asked: list[str] = []
        self.speaks = threading.Event()
        self.speaks.set()
        ask = socket.getaddrinfo

        def getaddrinfo(host: Any, *arguments: Any, **named: Any) -> Any:
            if not named.get("flags", 0) & socket.AI_CANONNAME:
                return ask(host, *arguments, **named)
            self.asked.append(host.decode())
            self.speaks.wait(50)
            if self.canonical is None:
                raise socket.gaierror(socket.EAI_NONAME, "no such name")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, self.canonical, ("127.0.1.1", 0))]

        def never(*_: object) -> Any:
            raise AssertionError("a reverse look-up")

        patch.setattr(socket, "gethostname", lambda: self.host)
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        for name in ("getfqdn", "gethostbyaddr", "getnameinfo"):
            patch.setattr(socket, name, never)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    found = Machine(monkeypatch)
    yield found
    found.speaks.set()


@posix  # Windows is asked itself, and no resolver
def test_a_name_with_dots_is_the_answer_and_a_bare_one_is_looked_up_each_time(
    machine: Machine,
) -> None:
    machine.canonical = "pc7.other.com"
    for host, domain in (("pc7.acme.com", "acme.com"), ("pc7.lan", None), ("pc7.local.", None)):
        machine.host = host
        assert agent.dns_domain() == domain
    assert machine.asked == []
    machine.host = "pc7"
    for canonical in ("pc7.acme.com", None, "pc7", "pc7.fritz.box", "pc7.other.com"):
        machine.canonical = canonical
        assert agent.dns_domain() == origin.public_domain(canonical or "")
    assert machine.asked == ["pc7"] * 5


@pytest.mark.parametrize("host", ["", "x" * 300, "müller", "\0", "-", "\udcff"])
def test_a_machine_with_an_odd_name_has_no_domain(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: host)
    assert agent.dns_domain() is None


# --- the whole ------------------------------------------------------------------------------------


def domains(at: Desk) -> list[str]:
    taken = [record for record in at.collector.records() if record["answer"] == 200]
    return [record["fields"]["domain"] for record in taken]


def test_sums_wait_visibly_until_a_domain_is_known(at: Desk, machine: Machine) -> None:
    with at.agent(only="usage", domain=agent.dns_domain) as product:
        for host in ("pc7", "pc7.fritz.box", "c-73-1-2-3.hsd1.ca.comcast.net"):
            machine.host = host
            product.count("RENDER")
            at.clock.advance(7200)
            assert product.flush().pending
            assert endpoint(product, "reo")["waits_for"] == ORIGIN
            assert (product._delivery.due_in_s() or 3600.0) >= 60.0  # no request, no polling
        assert at.seen() == 0
        machine.host = "pc7.acme.com"  # the laptop is at work
        at.clock.advance(3600)
        pass_(product)
        assert endpoint(product, "reo")["waits_for"] == "" == endpoint(product, "reo")["reason"]
        assert domains(at) == ["acme.com"] * 3
        product.count("RENDER")
        machine.host = "pc7.lan"  # and at home again
        assert product.flush().pending == 1
        machine.host = "pc7.other.com"
        assert product.flush().pending == 0
    assert domains(at) == ["acme.com"] * 3 + ["other.com"]


@posix  # Windows is asked itself, and no resolver
def test_a_pass_asks_once_however_many_sums_wait(at: Desk, machine: Machine) -> None:
    with at.agent(only="usage", domain=agent.dns_domain) as product:
        for number in range(20):
            product.count("RENDER-%d" % number)
        assert product.flush().pending == 20
        assert machine.asked == ["pc7"]
        machine.canonical = "pc7.acme.com"
        assert product.flush().pending == 0
    assert machine.asked == ["pc7", "pc7"] and domains(at) == ["acme.com"] * 20


@posix  # Windows is asked itself, and no resolver
def test_a_silent_resolver_holds_up_neither_the_rest_of_a_pass_nor_the_next(
    at: Desk, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.delivery.ORIGIN_S", 0.5)
    machine.speaks.clear()
    with at.agent(only="usage", domain=agent.dns_domain) as product:
        product.count("RENDER")
        product.track("EXPORT")
        began_at = time.monotonic()
        report = product.flush(timeout=10)  # the sum waits, the event goes
        assert product.flush(timeout=10).pending == report.pending == 1
        assert time.monotonic() - began_at < 8
        assert [record["endpoint"] for record in at.collector.records()] == ["reo-usage"]
        assert endpoint(product, "reo")["waits_for"] == ORIGIN and machine.asked == ["pc7"]
        machine.canonical = "pc7.acme.com"
        machine.speaks.set()
        assert product.flush().pending == 0
