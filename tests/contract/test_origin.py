"""Whose usage it is: a domain that is nobody's, a provider's or another's is never sent, and its lack is seen."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from support import machine as machines
from support.agent import Desk, desk, endpoint, engine_of, pass_, run_python
from support.cli import run

import agent
from agent import origin
from agent.transport import Unreachable

pytestmark = pytest.mark.ends

ORIGIN = "a domain or ip_addr"

OWN = """
pc7.acme.com                        acme.com
pc7.eng.acme.com                    eng.acme.com
PC7.Eng.ACME.Com.                   eng.acme.com
pc7.acme.co.uk                      acme.co.uk
www.acme.com.au                     acme.com.au
ws12.cs.uni-acme.ac.uk              cs.uni-acme.ac.uk
desktop-ab12cd3.corp.acme.com       corp.acme.com
laptop-7.ad.acme.de                 ad.acme.de
lt12345678.acme.com                 acme.com
5cg1234abc.acme.com                 acme.com
3f2a1b4c5d6e.acme.com               acme.com
static.acme.com                     acme.com
dhcp.cs.acme.edu                    cs.acme.edu
mbp-2.local.acme.com                local.acme.com
node-10-20-30.acme.com              acme.com
rack-300-1-2-3.acme.com             acme.com
build-2024-01-15.acme.com           acme.com
v1-2-3.acme.io                      acme.io
pc.xn--mller-kva.de                 xn--mller-kva.de
pc.acme.xn--p1ai                    acme.xn--p1ai
pc.hp.de                            hp.de
host.1and1.com                      1and1.com
a.b-c.d                             -
""".split("\n")

NOBODYS = """
# no domain, no host name
localhost
pc7
pc7.
.
..
.acme.com
pc7..acme.com
pc7.acme.com..
pc7 .acme.com
my_pc.acme.com
-pc.acme.com
pc.-acme.com
pc.acme-.com
pc.acme.c-
pc.müller.de
pc.acme.xn--
10.0.0.1
1.2.3.4.
pc.acme.123
pc.acme.c0m
fe80::1
pc/7.acme.com
# a public suffix alone
acme.com
acme.co.uk
acme.com.au
acme.or.jp
acme.ne.jp
acme.go.kr
acme.gov.uk
acme.edu.au
acme.net.nz
acme.org.za
acme.gob.mx
acme.nsw.au
acme.ca.us
acme.qc.ca
acme.uk.com
# special use, private
pc.local
pc.acme.local
pc.localdomain
localhost.localdomain
pc.lan
pc.acme.lan
pc.home
pc.home.arpa
pc.acme.home.arpa
pc.acme.internal
pc.acme.corp
pc.acme.intranet
pc.acme.private
pc.acme.test
pc.acme.invalid
pc.acme.example
pc.example.com
pc.lab.example.org
pc.acme.onion
pc.acme.alt
4.3.2.1.in-addr.arpa
pc.acme.localhost
# routers
pc.fritz.box
pc.speedport.ip
pc.o2.box
pc.easy.box
pc.attlocal.net
pc.gateway.2wire.net
pc.fios-router.home
pc.myfiosgateway.com
pc.hitronhub.home
pc.telus.router
pc.mshome.net
pc.tplinkwifi.net
pc.acme.belkin
# providers
c-73-1-2-3.hsd1.ca.comcast.net
thinkpad.hsd1.ca.comcast.net
p5b0c1234.dip0.t-ipconnect.de
p200300ea1f0c2a00c0b0a0fffe001122.dip0.t-ipconnect.de
cpe-24-1-2-3.socal.res.rr.com
thinkpad.socal.rr.com
pool-71-1-2-3.nycmny.fios.verizon.net
adsl-75-1-2-3.dsl.pltn13.sbcglobal.net
99-1-2-3.lightspeed.sntcca.sbcglobal.net
ool-4572a1b2.dyn.optonline.net
ip68-1-2-3.ri.ri.cox.net
modemcable123.45-67-89.mc.videotron.ca
s0106001122334455.vc.shawcable.net
cpe00fc8d1234.sdns.net.rogers.com
dslb-088-064-012-034.088.064.pools.vodafone-ip.de
dynamic-046-114-001-002.46.114.pool.telefonica.de
ip-95-222-1-2.hsi15.unitymediagroup.de
x4d0c12ab.dyn.telefonica.de
i59f7a1b2.versanet.de
85-127-1-2.dsl.dynamic.surfer.at
84-74-1-2.dclient.hispeed.ch
lfbn-par-1-234-56.w86-212.abo.wanadoo.fr
82-64-1-2.subs.proxad.net
2.1.64.82.rev.sfr.net
host86-1-2-3.range86-1.btcentralplus.com
cpc12345-acme2-2-0-cust123.1-2.cable.virginm.net
02a1b2c3.bb.sky.com
2.1.84.90.dynamic.jazztel.es
84-1-2-3.cable.dynamic.v4.ziggo.nl
h-85-24-1-2.a123.priv.bahnhof.se
84.1.2.3.adsl.inet.example-isp.no
host-79-1-2-3.retail.telecomitalia.it
93-1-2-3.ip123.fastwebnet.it
abcd123.neoplus.adsl.tpnet.pl
95-24-1-2.broadband.corbina.ru
flh2-101-140-1-2.osk.mesh.ad.jp
p1234-ipngn200.tokyo.ocn.ne.jp
softbank126001002003.bbtec.net
1-160-1-2.dynamic-ip.hinet.net
cpe-1-120-1-2.bpzz.cht.bigpond.net.au
179.1.2.3.dynamic.adsl.gvt.net.br
189-1-2-3.user.veloxzone.com.br
ppp-1234.provider.net
static-7.provider.net
client-12.provider.net
customer.provider.net.dsl-7.provider.net
084113012034.provider.net
24x1x2x3.provider.net
pc.alice-dsl.net
2a02-8108-1-2-3-4-5-6.provider.net
# clouds, hosters, dynamic names
ip-10-0-0-1.ec2.internal
ip-10-0-0-1.eu-west-1.compute.internal
ec2-1-2-3-4.compute-1.amazonaws.com
3.2.1.34.bc.googleusercontent.com
vm.c.project-7.internal
vm.abcdefgh.bx.internal.cloudapp.net
vm.westeurope.cloudapp.azure.com
ip-172-31-0-1.acme.com
static.1.2.3.4.clients.your-server.de
vps-1a2b3c4d.vps.ovh.net
li123-45.members.linode.com
172-104-1-2.ip.linodeusercontent.com
vm.subnet01234.vcn01234.oraclevcn.com
ip-1-2-3-4.ip.secureserver.net
thinkpad.tail1234.ts.net
pc.acme.duckdns.org
pc.acme.dyndns.org
abcdef.myfritz.net
""".split("\n")


def test_the_domain_of_a_company_is_taken() -> None:
    wanted = dict(line.split() for line in OWN if line)
    assert {host: origin.public_domain(host) or "-" for host in wanted} == wanted


def test_what_is_nobodys_own_public_domain_is_none() -> None:
    hosts = [line for line in NOBODYS if line[:1] not in ("", "#")]
    hosts += [host.upper() + "." for host in hosts if host[-1] != "."]
    found = {host: origin.public_domain(host) for host in hosts}
    assert len(found) > 200 and {host: one for host, one in found.items() if one} == {}


def test_the_longest_names() -> None:
    label, rest = "z" * 63, ".acme.com"
    longest = ".".join([label, label, label, "z" * (253 - 192 - len(rest))]) + rest
    assert len(longest) == 253
    assert origin.public_domain(longest) == origin.public_domain(longest + ".") == longest[64:]
    assert origin.public_domain("b" + longest) is None
    assert origin.public_domain("a" * 64 + rest) is None
    assert origin.public_domain("pc." + "a" * 64 + ".com") is None
    assert origin.public_domain("pc.acme." + "a" * 64) is None
    assert origin.public_domain("") is None
    assert origin.public_domain("pc.acme.com\n") is None
    assert origin.public_domain("pc.acme.\u212aom") is None  # its lower case is "k"


def test_no_name_takes_long_to_judge() -> None:
    for part in ("1-", "a1", "0", "deadbee1", "a-", "1.", "abo."):
        began_at = time.monotonic()
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
    for thread in resolvers():
        thread.join(20)
    origin._late.clear()


def resolvers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "domain-resolver"]


def test_a_name_with_dots_is_the_answer_and_nobody_is_asked(machine: Machine) -> None:
    machine.canonical = "pc7.other.com"
    for host, domain in (("pc7.acme.com", "acme.com"), ("pc7.lan", None), ("pc7.local.", None)):
        machine.host = host
        assert agent.dns_domain() == domain
    assert machine.asked == [] and not resolvers()


def test_a_bare_name_is_looked_up_anew_each_time(machine: Machine) -> None:
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


def test_a_silent_resolver_holds_one_thread_and_one_wait(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin, "WAIT_S", 0.3)
    machine.speaks.clear()
    machine.canonical = "pc7.acme.com"
    began_at = time.monotonic()
    assert agent.dns_domain() is None
    assert time.monotonic() - began_at >= origin.WAIT_S * 0.9  # it was given its time
    began_at = time.monotonic()
    for _ in range(100):
        assert agent.dns_domain() is None
    assert time.monotonic() - began_at < 50  # the later ones do not wait
    (thread,) = resolvers()
    machine.speaks.set()
    thread.join(20)
    machine.canonical = (
        "pc7.other.com"  # since: what came late is taken once, then it is asked anew
    )
    assert agent.dns_domain() == "acme.com" and machine.asked == ["pc7"]
    assert agent.dns_domain() == "other.com" and machine.asked == ["pc7", "pc7"]


def test_what_came_late_for_another_name_is_not_taken(machine: Machine) -> None:
    machine.speaks.clear()
    machine.canonical = "pc7.acme.com"
    assert origin.own_domain(0.01) is None
    (thread,) = resolvers()
    machine.speaks.set()
    thread.join(20)
    machine.host, machine.canonical = "pc8", "pc8.other.com"
    assert agent.dns_domain() == "other.com"


def test_what_failed_late_is_asked_again(machine: Machine) -> None:
    machine.speaks.clear()
    assert origin.own_domain(0.01) is None
    (thread,) = resolvers()
    machine.speaks.set()
    thread.join(20)
    machine.canonical = "pc7.acme.com"
    assert agent.dns_domain() == "acme.com"


def test_many_threads_at_once_leave_one_behind(machine: Machine) -> None:
    machine.speaks.clear()
    callers = [threading.Thread(target=origin.own_domain, args=(0.01,)) for _ in range(20)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert len(resolvers()) == 1 and machine.asked == ["pc7"]


def test_windows_is_asked_for_the_domain_it_was_joined_to() -> None:
    """What ``ComputerNameDnsDomain`` gives: nothing in a work group, whatever suffix the network hands out."""
    given = {"": None, "corp.acme.com": "corp.acme.com", "ACME.local": None, "acme": None}
    for joined, domain in given.items():
        assert origin.public_domain("host." + joined) == domain
    if sys.platform != "win32":
        with pytest.raises(OSError):
            origin.joined_domain()


# --- fork, and the end ----------------------------------------------------------------------------

HUNG = """
import os, sys, threading
from agent import origin
silence = threading.Event()
assert origin.look_up("pc7", 0.01, lambda host: silence.wait(60) and "") == ""
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
def test_a_child_starts_afresh_while_a_look_up_hangs_in_its_parent() -> None:
    code = HUNG + """
assert origin.look_up("pc7", 30, lambda host: "pc7.parent.com") == ""
pid = os.fork()
if not pid:
    found = origin.look_up("pc7", 30, lambda host: "pc7.acme.com")
    os._exit(found != "pc7.acme.com")
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert origin.look_up("pc7", 30, lambda host: "pc7.parent.com") == ""
print("well")
"""
    done = run_python(code, options=("-W", "ignore"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")


def test_a_look_up_that_hangs_does_not_hold_up_the_end() -> None:
    began_at = time.monotonic()
    done = run_python(HUNG)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began_at < 25  # and not the 60 s


def test_at_the_interpreters_end_nobody_is_asked_and_nothing_hangs() -> None:
    code = """
import builtins, os, agent
from agent import origin
class Last:
    def __del__(self, write=os.write, ask=agent.dns_domain, look_up=origin.look_up):
        ask()
        write(1, look_up("pc7", 30, lambda host: "pc7.acme.com").encode() + b"<end>")
%s = Last()
"""
    for owner in ("last", "builtins.last"):
        done = run_python(code % owner)
        assert done.stdout in ("<end>", "pc7.acme.com<end>") and (done.returncode, done.stderr) == (
            0,
            "",
        )
        assert done.stdout == "<end>" or owner == "last"


def test_naming_the_function_loads_nothing_that_asking_needs() -> None:
    code = """
import sys
before = {*sys.modules}
import agent
agent.dns_domain
print(({*sys.modules} - before) & {"socket", "re", "threading", "ctypes"})
"""
    done = run_python(code, options=("-S",))
    assert (done.stdout, done.stderr) == ("set()\n", "")


# --- the whole ------------------------------------------------------------------------------------


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Desk]:
    with desk(tmp_path / "state") as found:
        yield found


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
            assert engine_of(product).courier.next_in_s() == 3600.0  # no request, no polling
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


def test_a_pass_asks_once_however_many_sums_wait(at: Desk, machine: Machine) -> None:
    with at.agent(only="usage", domain=agent.dns_domain) as product:
        for number in range(20):
            product.count("RENDER-%d" % number)
        assert product.flush().pending == 20
        assert machine.asked == ["pc7"]
        machine.canonical = "pc7.acme.com"
        assert product.flush().pending == 0
    assert machine.asked == ["pc7", "pc7"] and domains(at) == ["acme.com"] * 20


def test_a_silent_resolver_holds_a_pass_no_longer_than_its_caller_waits(
    at: Desk, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin, "WAIT_S", 40.0)
    machine.speaks.clear()
    with at.agent(only="usage", domain=agent.dns_domain) as product:
        product.count("RENDER")
        product.track("EXPORT")
        began_at = time.monotonic()
        product.flush(timeout=0.3)
        assert time.monotonic() - began_at < 20
        assert endpoint(product, "reo")["waits_for"] == ORIGIN
        report = product.flush(timeout=20)  # it still hangs, and costs no time: the event goes
        assert time.monotonic() - began_at < 20
        assert report.pending == 1 and domains_of_events(at) == 1
        machine.canonical = "pc7.acme.com"
        machine.speaks.set()
        for thread in resolvers():
            thread.join(20)
        assert product.flush().pending == 0


def domains_of_events(at: Desk) -> int:
    return len([1 for record in at.collector.records() if record["endpoint"] == "reo-usage"])


class Impatient:
    """A transport that notes how long each request may take, and reaches nobody."""

    def __init__(self) -> None:
        self.given_s: list[float] = []

    def send(self, request: object, *, timeout_s: float) -> Any:
        self.given_s.append(timeout_s)
        raise Unreachable("nobody")

    def rest(self) -> None: ...

    interrupt = close = after_fork = rest


def test_the_time_of_an_origin_is_taken_from_that_of_the_request(at: Desk) -> None:
    asked: list[int] = []

    def slow() -> str:
        asked.append(1)
        time.sleep(0.2)
        return "acme.com"

    transport = Impatient()
    with at.agent(only="usage", domain=slow, transport=transport) as product:
        product.count("RENDER")
    with at.agent(only="usage", domain=slow, transport=transport) as product:
        pass_(product)  # which gives each request 5 s
        assert 0 < transport.given_s.pop() <= 4.8
        assert asked == [1]


def test_an_origin_that_takes_longer_than_a_request_may_delays_and_stops_nothing(at: Desk) -> None:
    asked: list[int] = []

    def slow() -> str:
        asked.append(1)
        time.sleep(0.3)
        return "acme.com"

    with at.agent(only="usage", domain=slow) as product:
        product.count("RENDER")
    with at.agent(only="usage", domain=slow) as product:
        deliver = engine_of(product).courier.deliver
        assert deliver(skip=(), timeout_s=lambda: 0.2)
        assert at.seen() == 0 and engine_of(product).courier.next_in_s() == 0
        assert endpoint(product, "reo")["failures"] == 0
        assert deliver(skip=(), timeout_s=lambda: 5.0)
        assert asked == [1] and domains(at) == ["acme.com"]


def waiting(product: agent.Agent) -> list[Any]:
    return list(engine_of(product).spool.backlog.waiting())


# --- seen -----------------------------------------------------------------------------------------


def test_an_open_window_does_not_hide_that_a_domain_is_missing(at: Desk) -> None:
    with at.agent(only="usage", domain=lambda: None) as product:
        product.count("RENDER")
        product.flush()  # which ends the window
        product.count("RENDER")
        engine_of(product).counting.keep()
        pass_(product)
        assert {record.ended_at is None for record in waiting(product)} == {True, False}
        assert endpoint(product, "reo")["waits_for"] == ORIGIN


def test_what_waits_for_a_domain_says_so_without_a_pass(at: Desk, machine: Machine) -> None:
    for domain in (None, agent.dns_domain):
        config = at.config(only="usage", domain=domain)
        with agent.Agent(config) as product:
            product.count("RENDER")
        with agent.Agent(config) as product:
            shown = endpoint(product, "reo")["waits_for"]
            assert shown == ("" if domain else ORIGIN)  # a product's thread asks nobody
            assert machine.asked == []
        for json in ((), ("--json",)):
            assert ORIGIN in run("spool", "status", *json, config=config).out
    shown = agent.Agent(config).diagnostics(network=True)["status"]["endpoints"][0]
    assert shown["waits_for"] == ORIGIN and len(machine.asked) == 3
    machine.canonical = "pc7.acme.com"
    assert ORIGIN not in run("spool", "status", config=config).out
    assert run("spool", "replay", config=config).status == 0
    assert set(domains(at)) == {"acme.com"}


def test_a_look_asks_no_callable_of_a_product(at: Desk) -> None:
    asked: list[int] = []
    config = at.config(only="usage", domain=lambda: asked.append(1))
    with agent.Agent(config) as product:
        product.count("RENDER")
        assert run("spool", "status", config=config).status == 0
        assert product.diagnostics(network=True) and product.preview()
    assert not asked


def test_a_silent_resolver_is_shown_as_a_missing_domain(
    at: Desk, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin, "WAIT_S", 0.3)
    machine.speaks.clear()
    config = at.config(only="usage", domain=agent.dns_domain)
    with agent.Agent(config) as product:
        product.count("RENDER")
    began_at = time.monotonic()
    assert ORIGIN in run("spool", "status", config=config).out
    assert time.monotonic() - began_at < 20


# --- on a machine of its own ----------------------------------------------------------------------

WHOLE = """
import json, sys, threading, time
sys.argv = [""]
import agent
from agent.collector import Collector
place = sys.path[0]

def product(collector, state):
    reo = agent.Reo(base_url=collector.url, api_key="demo-api-key", domain=agent.dns_domain)
    return agent.Agent(agent.Config(vendor="Acme", product_name="Studio", product_id="42",
        product_version="5.2.5", endpoints=(reo,), usage_consent=True, state_dir=state,
        deliver="manual", start_delay_s=0))

def waits(studio):
    return studio.status()["endpoints"][0]["waits_for"]
"""


@pytest.fixture
def own_machine(tmp_path: Path) -> Path:
    why = machines.why_not()
    if why:
        pytest.skip(why)
    place = tmp_path / "etc"
    place.mkdir()
    return place


@pytest.mark.once
def test_on_a_real_machine_hosts_then_dns_then_nobody(own_machine: Path, tmp_path: Path) -> None:
    code = WHOLE + """
machine.is_called("pc7", "127.0.1.1 pc7.eng.acme.com pc7\\n")
assert agent.dns_domain() == "eng.acme.com" and machine.asked == []
machine.is_called("pc7", "127.0.1.1 pc7\\n")
assert agent.dns_domain() is None and machine.asked == []
with Collector() as collector, product(collector, %r) as studio:
    studio.count("RENDER")
    assert studio.flush().pending == 1 and waits(studio) == "a domain or ip_addr"
    machine.is_called("pc7", search="fritz.box")
    machine.names["pc7.fritz.box"] = "192.168.178.2"
    assert studio.flush().pending == 1
    assert ("pc7.fritz.box", 1) in machine.asked
    machine.is_called("pc7", search="acme.com")
    machine.names["pc7.acme.com"] = "10.1.2.3"
    assert studio.flush().pending == 0 and waits(studio) == ""
    assert [r["fields"]["domain"] for r in collector.records()] == ["acme.com"]
machine.is_called("pc7.acme.co.uk")
assert agent.dns_domain() == "acme.co.uk"
machine.is_called("acme.co.uk")
assert agent.dns_domain() is None
assert not [one for one in machine.asked if one[1] == 12 or "arpa" in one[0]], machine.asked
print("well")
"""
    done = machines.run(code % str(tmp_path / "state"), own_machine)
    assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")


@pytest.mark.once
def test_on_a_real_machine_with_a_silent_resolver(own_machine: Path, tmp_path: Path) -> None:
    code = WHOLE + """
machine.is_called("pc7", search="acme.com")
machine.names["pc7.acme.com"] = "10.1.2.3"
machine.silent.set()
with Collector() as collector, product(collector, %r) as studio:
    studio.count("RENDER")
    studio.track("EXPORT")
    began_at = time.monotonic()
    assert studio.flush(timeout=10).delivered == 1 and waits(studio) == "a domain or ip_addr"
    assert studio.flush(timeout=10).pending == 1
    assert time.monotonic() - began_at < 9
    (thread,) = [t for t in threading.enumerate() if t.name == "domain-resolver"]
    machine.speak()
    thread.join(30)
    assert studio.flush().pending == 0
    assert [r["fields"].get("domain") for r in collector.records()] == [None, "acme.com"]
machine.silent.set()
assert agent.dns_domain() is None  # and the end does not wait for the resolver's 20 s
print("well")
"""
    done = machines.run(code % str(tmp_path / "state"), own_machine, timeout_s=19)
    assert (done.returncode, done.stdout, done.stderr) == (0, "well\n", "")
