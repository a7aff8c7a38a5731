"""Hostile networks that need namespaces: the product inside one, the server in another, a wire between them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any, Union

from support.sockets import Authority, Behaviour, Server

from . import link, names
from .link import FAR, FAR6, NEAR, Link, Packet
from .names import NameServer
from .product import Distant, Product
from .situations import HOSTILE, situation
from .spaces import Space
from .stage import SHORT_S, Stage

NAME = "keys.acme.example"
NEED = "namespaces"


class Place:
    """A desk and a server room, the wire between them, and the name server that the desk asks."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.desk, self.room = Space(), Space()
        stage.open.callback(self.room.close)
        stage.open.callback(self.desk.close)
        self.link = Link(self.desk, self.room)
        stage.open.callback(self.link.close)
        link.resolv_conf(self.desk, stage.directory)
        names = NameServer(self.room.within(_udp), {NAME: [FAR]})
        self.names = stage.open.enter_context(names)
        self.url = "https://" + NAME

    def serve(
        self, *, behaviour: Union[Behaviour, None] = None, host: str = FAR, port: int = 443
    ) -> Server:
        """The collector behind TLS at the far side, or another behaviour there."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = self.room.within(
            lambda: socket.create_server((host, port), family=family, backlog=32)
        )
        return self.stage.serve(behaviour or self.stage.behind_tls(NAME, FAR), listener)

    def product(self, **how: Any) -> Union[Product, Distant]:
        """A run of the product at the desk."""
        return self.stage.product(how.pop("url", self.url), command=self.desk.command(), **how)


def _udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.bind((FAR, 53))
    except OSError:
        sock.close()
        raise
    return sock


# --- names --------------------------------------------------------------------------------------


@situation("dns-silent", HOSTILE, NEED)
def dns_silent(stage: Stage) -> None:
    """A name server that is silent"""
    place = Place(stage)
    place.serve()
    place.names.silent = True
    product = place.product(request_timeout_s=1)
    stage.fails(product, "offline: name resolution: (does not answer|no answer within 1 s)")
    place.names.silent = False
    # Until the look-up that hangs has given up, no other is begun.
    found = patiently(product)
    assert found["drained"], found
    stage.delivers(place.product())


def patiently(product: Union[Product, Distant]) -> dict[str, Any]:
    """Deliver again until nothing waits, as the worker does."""
    deadline = time.monotonic() + 30
    while True:
        found = product.flush(20)
        if found["drained"] or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


@situation("dns-servfail", HOSTILE, NEED)
def dns_servfail(stage: Stage) -> None:
    """A name server that fails (SERVFAIL)"""
    dns_says(
        stage, names.SERVFAIL, "offline: name resolution: Temporary failure in name resolution"
    )


@situation("dns-nxdomain", HOSTILE, NEED)
def dns_nxdomain(stage: Stage) -> None:
    """A name server that knows no such name (NXDOMAIN)"""
    dns_says(stage, names.NXDOMAIN, "offline: name resolution: Name or service not known")


def dns_says(stage: Stage, code: int, outcome: str) -> None:
    """A name server that answers everything with ``code``, then as it should."""
    place = Place(stage)
    place.serve()
    place.names.code = code
    product = place.product()
    stage.fails(product, outcome)
    place.names.code = 0
    stage.delivers(product)


@situation("dns-lies-foreign", HOSTILE, NEED)
def dns_lies_foreign(stage: Stage) -> None:
    """A name server that lies: another server, which has another's certificate"""
    place = Place(stage)
    place.serve()
    place.room.ip("addr add 10.77.0.66/24 dev tun0")
    elsewhere = stage.directory / "elsewhere"
    elsewhere.mkdir()
    foreign = Authority(elsewhere, "Somebody's CA").issue(NAME)
    place.serve(behaviour=stage.behind_tls(certificate=foreign), host="10.77.0.66")
    place.names.hosts[NAME] = ["10.77.0.66"]
    product = place.product()
    stage.fails(product, "offline: TLS: certificate refused: .*")
    place.names.hosts[NAME] = [FAR]
    stage.delivers(product)


@situation("dns-lies-private", HOSTILE, NEED)
def dns_lies_private(stage: Stage) -> None:
    """A name server that lies: a private address, at which there is nothing"""
    place = Place(stage)
    place.serve()
    place.names.hosts[NAME] = ["10.77.0.99"]
    product = place.product(request_timeout_s=SHORT_S)
    stage.fails(product, "offline: connection: no answer")
    place.names.hosts[NAME] = [FAR]
    stage.delivers(product)


@situation("ipv6-black-hole", HOSTILE, NEED)
def ipv6_black_hole(stage: Stage) -> None:
    """IPv6 that leads nowhere, IPv4 that works"""
    place = Place(stage)
    place.serve()
    place.names.hosts[NAME] = [FAR6, FAR]
    place.link.drops = lambda packet: packet.version == 6
    verdict = stage.delivers(place.product())
    assert verdict.seconds < 5
    place.link.drops = lambda packet: False
    place.serve(host=FAR6)
    stage.delivers(place.product())


# --- weather ------------------------------------------------------------------------------------


@situation("clear", HOSTILE, NEED)
def clear(stage: Stage) -> None:
    """A wire on which nothing happens, to compare with"""
    place = Place(stage)
    place.serve()
    stage.delivers(place.product(usage=True), 5)


@situation("loss-5", HOSTILE, NEED)
def loss_5(stage: Stage) -> None:
    """One packet in twenty is lost; 20 records"""
    lossy(stage, 0.05, 20)


@situation("loss-20", HOSTILE, NEED)
def loss_20(stage: Stage) -> None:
    """One packet in five is lost; 3 records"""
    lossy(stage, 0.2, 3)


def lossy(stage: Stage, loss: float, count: int) -> None:
    """Names are looked up before: a lost question is asked again after 5 s."""
    place = Place(stage)
    place.serve()
    product = place.product(request_timeout_s=40, url="https://" + FAR)
    place.link.loss = loss
    stage.delivers(product, count, timeout_s=50)


@situation("slow", HOSTILE, NEED)
def slow(stage: Stage) -> None:
    """300 ms there and back, up to 100 ms more each way, which changes the order of packets; 2 records"""
    place = Place(stage)
    place.serve()
    place.link.delay_s, place.link.jitter_s = 0.15, 0.1
    stage.delivers(place.product(), 2)


@situation("mtu-handshake", HOSTILE, NEED)
def mtu_handshake(stage: Stage) -> None:
    """Path MTU black hole: packets above 576 bytes vanish, the server's certificate among them"""
    place = Place(stage)
    place.serve()
    place.link.largest = 576
    product = place.product(request_timeout_s=1)
    stage.fails(product, "offline: TLS: no answer within 1 s")
    place.link.largest = None
    stage.delivers(product)


@situation("mtu-request", HOSTILE, NEED)
def mtu_request(stage: Stage) -> None:
    """… and above 1,200 bytes: the handshake fits, the request does not"""
    place = Place(stage)
    place.serve()
    place.link.largest = 1200
    product = place.product(request_timeout_s=1)
    stage.record(product, padding=3000)
    found = product.flush(20)
    stage.said(found, "offline: answer: no answer within 1 s")
    place.link.largest = None
    stage.delivers(product)


# --- what happens in the middle -----------------------------------------------------------------


def interrupted(stage: Stage, then: Callable[[Place, Server, Packet], object]) -> None:
    """Five records; ``then`` happens once, when the request for the third leaves the desk, before it is on the wire."""
    place, answered, done = Place(stage), [0], [False]

    def after(number: int, connection: socket.socket, answer: bytes) -> None:
        answered[0] += 1

    behaviour = stage.behind_tls(NAME, behaviour=stage.answering(after=after))
    server = place.serve(behaviour=behaviour)

    def watch(packet: Packet) -> None:
        # Who has sent an answer hears of the next request, whole or in part, and of nothing else.
        if answered[0] == 2 and packet.outbound and packet.content and not done[0]:
            done[0] = True
            then(place, server, packet)

    place.link.watch = watch
    product = place.product(request_timeout_s=2)
    stage.record(product, 5)
    found = product.flush(20)
    assert (found["delivered"], found["pending"], found["dead"]) == (2, 3, 0), found
    stage.said(found, "offline: answer: .*")
    place.link.cut, place.link.drops = False, lambda packet: False
    stage.delivers(product)


@situation("sleep-silent", HOSTILE, NEED)
def sleep_silent(stage: Stage) -> None:
    """The laptop sleeps in the middle of a delivery, and the connection is gone without a word"""

    def sleeps(place: Place, server: Server, packet: Packet) -> None:
        place.link.cut = True

    interrupted(stage, sleeps)


@situation("sleep-reset", HOSTILE, NEED)
def sleep_reset(stage: Stage) -> None:
    """… and when it wakes the server has been restarted, and answers with a reset"""

    def sleeps(place: Place, server: Server, packet: Packet) -> None:
        place.link.cut = True
        threading.Thread(target=wakes, args=(place, server)).start()

    def wakes(place: Place, server: Server) -> None:
        server.__exit__()
        place.serve()
        place.link.cut = False

    interrupted(stage, sleeps)


@situation("address-changes", HOSTILE, NEED)
def address_changes(stage: Stage) -> None:
    """The machine changes networks in the middle of a delivery: its address is another"""

    def moves(place: Place, server: Server, packet: Packet) -> None:
        old = socket.inet_aton(NEAR)
        place.desk.ip("addr del %s/24 dev tun0" % NEAR, "addr add 10.77.0.7/24 dev tun0")
        place.link.drops = lambda packet: old in (packet.data[12:16], packet.data[16:20])

    interrupted(stage, moves)
