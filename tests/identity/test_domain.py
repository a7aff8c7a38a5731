"""Whose usage it is: a domain that is nobody's, or looks like a provider's, is never sent, and its lack is seen."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Optional

import pytest
from support.agent import Desk, endpoint, pass_
from support.systems import posix

import agent
from agent.extras import domain as origin

pytestmark = pytest.mark.ends

ORIGIN = "a domain or ip_addr"

OWN = """
pc7.acme.com=acme.com  pc7.eng.acme.com=eng.acme.com  PC7.Eng.ACME.Com.=eng.acme.com  pc7.acme.co.uk=acme.co.uk
www.acme.com.au=acme.com.au  ws12.cs.uni-acme.ac.uk=cs.uni-acme.ac.uk  laptop-7.ad.acme.de=ad.acme.de
lt12345678.acme.com=acme.com  5cg1234abc.acme.com=acme.com  3f2a1b4c5d6e.acme.com=acme.com  static.acme.com=acme.com
dhcp.cs.acme.edu=cs.acme.edu  mbp-2.local.acme.com=local.acme.com  node-10-20-30.acme.com=acme.com
rack-300-1-2-3.acme.com=acme.com  build-2024-01-15.acme.com=acme.com  v1-2-3.acme.io=acme.io  pc.hp.de=hp.de
pc.xn--mller-kva.de=xn--mller-kva.de  pc.acme.xn--p1ai=acme.xn--p1ai  host.1and1.com=1and1.com
"""
NOBODYS = {
    "no domain, no host name": """
localhost pc7 pc7. . .. .acme.com pc7..acme.com pc7.acme.com.. my_pc.acme.com -pc.acme.com pc.-acme.com pc.acme-.com
pc.acme.c- pc.müller.de pc.acme.xn-- 10.0.0.1 1.2.3.4. pc.acme.123 pc.acme.c0m fe80::1 pc/7.acme.com a.b-c.d
""",
    "a public suffix alone": """
acme.com acme.co.uk acme.com.au acme.or.jp acme.go.kr acme.gov.uk acme.net.nz acme.org.za acme.gob.mx acme.nsw.au
acme.ca.us acme.qc.ca
""",
    "special use, private": """
pc.local pc.acme.local localhost.localdomain pc.lan pc.acme.lan pc.home pc.home.arpa pc.acme.internal pc.acme.corp
pc.acme.intranet pc.acme.private pc.acme.test pc.acme.invalid pc.acme.example pc.acme.onion pc.acme.alt
4.3.2.1.in-addr.arpa pc.acme.localhost pc.fritz.box pc.speedport.ip pc.hitronhub.home pc.telus.router pc.acme.belkin
""",
    "an address of a customer": """
c-73-1-2-3.hsd1.ca.comcast.net p5b0c1234.dip0.t-ipconnect.de p200300ea1f0c2a00c0b0a0fffe001122.dip0.t-ipconnect.de
99-1-2-3.lightspeed.sntcca.sbcglobal.net ool-4572a1b2.dyn.optonline.net ip68-1-2-3.ri.ri.cox.net
s0106001122334455.vc.shawcable.net ip-95-222-1-2.hsi15.unitymediagroup.de 84-74-1-2.dclient.hispeed.ch
i59f7a1b2.versanet.de host86-1-2-3.range86-1.btcentralplus.com h-85-24-1-2.a123.priv.bahnhof.se
softbank126001002003.bbtec.net 084113012034.provider.net 24x1x2x3.provider.net 2a02-8108-1-2-3-4-5-6.provider.net
172-104-1-2.ip.linodeusercontent.com ip-172-31-0-1.acme.com
""",
    "a provider's words": """
pool-71.nycmny.fios.verizon.net dslb-088.pools.vodafone-ip.de x4d.dyn.telefonica.de cpc12345.cable.virginm.net
abcd123.neoplus.adsl.tpnet.pl p1.ppp.provider.net static-7.provider.net client-12.provider.net
customer.provider.net.dsl-7.provider.net ec2-1.compute-1.amazonaws.com vm.westeurope.cloudapp.azure.com
static.1.clients.your-server.de pc.acme.duckdns.org pc.acme.dyndns.org abcdef.myfritz.net
""",
}


def test_the_domain_of_a_company_is_taken() -> None:
    wanted = dict(pair.split("=") for pair in OWN.split())
    assert {host: origin.public_domain(host) for host in wanted} == wanted


@pytest.mark.parametrize("kind", NOBODYS)
def test_what_is_nobodys_own_public_domain_is_none(kind: str) -> None:
    hosts = NOBODYS[kind].split()
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
