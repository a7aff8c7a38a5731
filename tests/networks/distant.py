"""Hostile networks that need namespaces: the product inside one, the server in another, a wire between them."""

import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Optional
from unittest import mock

from support.sockets import Authority, Behaviour, Server

from . import names
from .link import FAR, FAR6, NEAR, Link, Packet, nothing
from .names import NameServer
from .situations import HOSTILE, situation
from .spaces import Space
from .stage import SHORT_S, Run, Stage

NAME = "keys.acme.example"
NEED = "namespaces"


class Place:
    """A desk and a server room with the collector, the wire between them, the name server that the desk asks."""

    def __init__(self, stage: Stage, behaviour: Optional[Behaviour] = None) -> None:
        self.stage = stage
        self.desk, self.room = Space(), Space()
        stage.callback(self.room.close)
        stage.callback(self.desk.close)
        self.link = Link(self.desk, self.room)
        stage.callback(self.link.close)
        servers = "nameserver %s\noptions timeout:1 attempts:1\n" % FAR
        self.desk.show("/etc/resolv.conf", servers, stage.directory)
        self.names = stage.enter_context(NameServer(self.room.within(_udp), {NAME: [FAR]}))
        self.server = self.serve(behaviour)

    def serve(self, behaviour: Optional[Behaviour] = None, host: str = FAR) -> Server:
        """The collector behind TLS at the far side, or another behaviour there."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = self.room.within(
            lambda: socket.create_server((host, 443), family=family, backlog=32)
        )
        return self.stage.serve(behaviour or self.stage.behind_tls(NAME, FAR), listener)

    def product(self, url: str = "https://" + NAME, **how: Any) -> Run:
        """A run of the product at the desk."""
        return self.stage.product(url, command=self.desk.command(), **how)


def _udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((FAR, 53))
    return sock


Trouble = Callable[[Place], AbstractContextManager[object]]


def passes(stage: Stage, trouble: Trouble, outcome: str, **how: Any) -> None:
    """Something is wrong with the place, and then is not."""
    place = Place(stage)
    product = place.product(**how)
    with trouble(place):
        stage.fails(product, outcome)
    if how.pop("request_timeout_s", None):  # a busy machine takes longer for an honest answer
        product = place.product(**how)
    stage.delivers(product)


def says(**how: Any) -> Trouble:
    """The name server answers everything so."""
    return lambda place: mock.patch.multiple(place.names, **how)


# --- names --------------------------------------------------------------------------------------


@situation("dns-silent", HOSTILE, NEED)
def dns_silent(stage: Stage) -> None:
    """A name server that is silent"""
    place = Place(stage)
    product = place.product(request_timeout_s=1)
    with says(silent=True)(place):
        stage.fails(product, "offline: name resolution: (does not answer|no answer within 1 s)")
    # Until the look-up that hangs has given up, no other is begun.
    stage.delivers(product, tries=300)


@situation("dns-servfail", HOSTILE, NEED)
def dns_servfail(stage: Stage) -> None:
    """A name server that fails (SERVFAIL)"""
    why = "offline: name resolution: Temporary failure in name resolution"
    passes(stage, says(code=names.SERVFAIL), why)


@situation("dns-nxdomain", HOSTILE, NEED)
def dns_nxdomain(stage: Stage) -> None:
    """A name server that knows no such name (NXDOMAIN)"""
    why = "offline: name resolution: Name or service not known"
    passes(stage, says(code=names.NXDOMAIN), why)


@situation("dns-lies-foreign", HOSTILE, NEED)
def dns_lies_foreign(stage: Stage) -> None:
    """A name server that lies: another server, which has another's certificate"""

    def lies(place: Place) -> AbstractContextManager[object]:
        place.room.ip("addr add 10.77.0.66/24 dev tun0")
        foreign = Authority(stage.directory / "elsewhere", "Somebody's CA").issue(NAME)
        place.serve(stage.behind_tls(certificate=foreign), "10.77.0.66")
        return says(hosts={NAME: ["10.77.0.66"]})(place)

    passes(stage, lies, "offline: TLS: certificate refused: .*")


@situation("dns-lies-private", HOSTILE, NEED)
def dns_lies_private(stage: Stage) -> None:
    """A name server that lies: a private address, at which there is nothing"""
    lies = says(hosts={NAME: ["10.77.0.99"]})
    passes(stage, lies, "offline: connection: no answer", request_timeout_s=SHORT_S)


@situation("ipv6-black-hole", HOSTILE, NEED)
def ipv6_black_hole(stage: Stage) -> None:
    """IPv6 that leads nowhere, IPv4 that works"""
    place = Place(stage)
    place.names.hosts[NAME] = [FAR6, FAR]
    place.link.drops = lambda packet: packet.version == 6
    verdict = stage.delivers(place.product(request_timeout_s=3))
    assert verdict.seconds < 3
    place.link.drops = nothing
    place.serve(host=FAR6)
    stage.delivers(place.product())


# --- weather ------------------------------------------------------------------------------------


@situation("loss", HOSTILE, NEED)
def loss(stage: Stage) -> None:
    """One packet in eight is lost; 6 records"""
    place = Place(stage)
    # Names are not looked up: a lost question is asked again after seconds.
    product = place.product("https://" + FAR, request_timeout_s=40)
    place.link.loss = 1 / 8
    stage.delivers(product, 6)


@situation("slow", HOSTILE, NEED)
def slow(stage: Stage) -> None:
    """200 ms there and back, up to 80 ms more each way, which changes the order of packets"""
    place = Place(stage)
    place.link.delay_s, place.link.jitter_s = 0.1, 0.08
    stage.delivers(place.product())


@situation("mtu", HOSTILE, NEED)
def mtu(stage: Stage) -> None:
    """Path MTU black hole: packets above 576 bytes vanish, the server's certificate among them"""

    def vanish(place: Place) -> AbstractContextManager[object]:
        return mock.patch.object(place.link, "drops", lambda packet: len(packet.data) > 576)

    passes(stage, vanish, "offline: TLS: no answer within 1 s", request_timeout_s=1)


# --- what happens in the middle -----------------------------------------------------------------


def interrupted(stage: Stage, then: Callable[[Place], object]) -> None:
    """Five records; ``then`` happens once, when the request for the third leaves the desk, before it is on the wire."""
    answered, done = [0], [False]

    def count(number: int, connection: socket.socket, ask: Callable[[], bytes]) -> None:
        answer = ask()
        answered[0] += 1
        connection.sendall(answer)

    def watch(packet: Packet) -> None:
        # Who has sent an answer hears of the next request, whole or in part, and of nothing else.
        if answered[0] == 2 and packet.outbound and packet.content and not done[0]:
            done[0] = True
            then(place)

    place = Place(stage, stage.behind_tls(NAME, behaviour=stage.answering(count)))
    place.link.watch = watch
    product = place.product(request_timeout_s=1)
    stage.fails(product, "offline: answer: .*", delivered=2, count=5)
    place.link.drops = nothing
    stage.delivers(product)


@situation("sleep-silent", HOSTILE, NEED)
def sleep_silent(stage: Stage) -> None:
    """The laptop sleeps in the middle of a delivery, and the connection is gone without a word"""
    interrupted(stage, lambda place: setattr(place.link, "drops", bool))


@situation("sleep-reset", HOSTILE, NEED)
def sleep_reset(stage: Stage) -> None:
    """… and when it wakes the server has been restarted, and answers with a reset"""

    def sleeps(place: Place) -> None:
        place.link.drops = bool
        threading.Thread(target=wakes, args=(place,)).start()

    def wakes(place: Place) -> None:
        place.server.__exit__()
        place.serve()
        place.link.drops = nothing

    interrupted(stage, sleeps)


@situation("address-changes", HOSTILE, NEED)
def address_changes(stage: Stage) -> None:
    """The machine changes networks in the middle of a delivery: its address is another"""

    def moves(place: Place) -> None:
        old = socket.inet_aton(NEAR)
        place.desk.ip("addr del %s/24 dev tun0" % NEAR, "addr add 10.77.0.7/24 dev tun0")
        place.link.drops = lambda packet: old in (packet.data[12:16], packet.data[16:20])

    interrupted(stage, moves)
